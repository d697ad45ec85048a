//! What this gateway says of itself: to people through the local API, to the control plane in reports.
//!
//! Both come from one place, so they never disagree. Activation is what the policy says; connectivity is what an
//! end-to-end round trip proved; the two are never mixed up, and only a connection that may carry data is connected.

mod exchange;

use std::{
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures_util::future::BoxFuture;
use gateway_net::time::unix_secs;
use gateway_proto::{
    api::{
        gateway::{
            ConnectionReport, Connectivity, EngineHead, MAX_REPORT_ENGINE_BYTES, MAX_REPORT_ENGINE_LINES, PathKind,
            SenderPort,
        },
        local::{
            AuditNewest, ConnectionStatus, ControlStatus, EngineStatus, PathCounts, PeerStatus, PolicyStatus,
            RelayStatus, Status,
        },
    },
    audit::line::Head,
    engine::{
        MAX_DESTINATIONS,
        advice::{advise, users},
    },
    id::RelayId,
    netcheck::{NetcheckBody, PortMapping, Report},
    path::Selected,
    policy::{ConnectionEntry, DeniedReason, LocalEnd},
    pulse::ANSWER_LIMIT,
};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    audit::AuditLog,
    authority::{Authority, PolicyView},
    control_client::EngineSnapshot,
    credentials::KEY_EXCHANGE,
    engine::EngineWatch,
    gate::role,
    listener::has_places,
    local_api::DaemonControl,
    metrics::{self, ExchangeMetrics, Numbers},
    netcheck::Netcheck,
    observer::Unobserved,
    peer::{PathCommand, Peer},
    places::EnginePlaces,
    registry::{Registry, RunningRelay},
    socket::TunnelSocket,
    traffic::{Role, TrafficTable},
};

/// How long `status` waits for a fresh round trip to every peer, so that it is true at the moment it is read: a little more
/// than the heartbeat limit, so that a peer that does not answer is not connected when the wait is over.
const FRESH_PROOF: Duration = ANSWER_LIMIT.saturating_add(Duration::from_millis(50));

/// What is known of the connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connections {
    /// Policy.
    pub authority: Authority,
    /// What runs.
    pub registry: Registry,
    /// Counters.
    pub traffic: TrafficTable,
    /// Connections that are not looked into.
    pub unobserved: Unobserved,
    /// The engine's admin API, if configured.
    pub engine_api: Option<String>,
    /// The engine beside us.
    pub engine: EngineWatch,
    /// The places of its listeners.
    pub places: EnginePlaces,
}

/// Collects the status.
#[derive(Debug, Clone)]
pub struct StatusSource {
    /// Of the connections.
    pub connections: Connections,
    /// Link to the control plane.
    pub control: watch::Receiver<ControlStatus>,
    /// The relay where peers find us.
    pub home: watch::Receiver<Option<RelayId>>,
    /// The socket of the tunnels.
    pub socket: Arc<TunnelSocket>,
    /// The port that the router forwards to it.
    pub mapped: watch::Receiver<Option<PortMapping>>,
    /// Looks at the network.
    pub netcheck: Netcheck,
    /// When the daemon started, Unix milliseconds.
    pub started_at: u64,
    /// The audit log.
    pub audit: AuditLog,
}

impl StatusSource {
    /// Makes a fresh round trip to every peer that has a tunnel.
    pub async fn prove(&self) {
        let mut proofs = JoinSet::new();
        for peer in self.connections.registry.peers() {
            proofs.spawn(async move { peer.proof.refresh(FRESH_PROOF).await });
        }
        while proofs.join_next().await.is_some() {}
    }

    /// The status as known now.
    pub fn snapshot(&self) -> Status {
        let view = self.connections.authority.view();
        let policy = view.policy.as_deref();
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            key: self.connections.authority.gateway_key().public(),
            server: policy.map(|p| p.server.name.clone()),
            organization: policy.map(|p| p.server.organization_name.clone()),
            started_at: self.started_at,
            control: self.control.borrow().clone(),
            policy: self.policy(&view),
            relays: self.relays(),
            peers: self.connections.registry.peers().iter().map(|peer| self.peer(peer)).collect(),
            connections: policy
                .iter()
                .flat_map(|p| &p.connections)
                .map(|entry| self.connections.connection(&view, entry))
                .collect(),
            socket: Some(self.socket.status()),
            port_mapping: self.mapped.borrow().clone(),
            engine: self
                .connections
                .engine()
                .map(|snapshot| EngineStatus { head: snapshot.head, channels: snapshot.channels.to_vec() }),
            audit: self.audit.compared(),
        }
    }

    /// Probes every path of a peer anew; the peer by server name, server id or key.
    pub fn relook(&self, wanted: &str) -> bool {
        let matching = |peer: &&Arc<Peer>| {
            let name = peer.name();
            name.name == wanted || name.id.to_string() == wanted || peer.key.to_string() == wanted
        };
        let peers = self.connections.registry.peers();
        let mut found = false;
        for peer in peers.iter().filter(matching) {
            peer.command(PathCommand::Relook);
            found = true;
        }
        found
    }

    fn policy(&self, view: &PolicyView) -> PolicyStatus {
        let policy = view.policy.as_deref();
        let confirmed_at = policy.map(|_| view.confirmed_at);
        PolicyStatus {
            revision: view.revision(),
            issued_at: policy.map(|p| p.issued_at),
            confirmed_at,
            age_secs: confirmed_at.map(|at| unix_secs().saturating_sub(at)),
            problem: view.problem.clone(),
        }
    }

    fn relays(&self) -> Vec<RelayStatus> {
        let home = *self.home.borrow();
        let (relays, reason) = (self.connections.registry.relays(), self.connections.registry.home_reason());
        let status = |RunningRelay { entry, link, latency }: &RunningRelay| {
            let reason = reason.filter(|_| home == Some(entry.id));
            let state = link.state().borrow().clone();
            let carrier = state.attached.then(|| link.carrier());
            RelayStatus {
                id: entry.id.to_string(),
                url: entry.url.clone(),
                region: entry.region.clone(),
                home: home == Some(entry.id),
                home_reason: reason.map(|reason| reason.code().to_owned()),
                home_reason_text: reason.map(|reason| reason.to_string()),
                latency_ms: latency.map(millis),
                attached: state.attached,
                rtt_ms: state.rtt.map(millis),
                carrier: carrier.map(|carrier| carrier.code().to_owned()),
                carrier_text: carrier.map(|carrier| carrier.to_string()),
                problem: state.problem,
            }
        };
        relays.iter().map(status).collect()
    }

    fn peer(&self, peer: &Peer) -> PeerStatus {
        let name = peer.name();
        let path = peer.path();
        let own = self.connections.authority.view().policy.as_ref().map(|p| p.server.organization);
        let remote_address = match path.as_ref().map(|p| p.selected) {
            Some(Selected::Direct { remote, .. }) => Some(remote.to_string()),
            Some(Selected::Relayed | Selected::None) | None => None,
        };
        PeerStatus {
            key: peer.key,
            server: name.name,
            organization: organization(own == Some(name.organization), name.organization_name),
            connectivity: connectivity(peer),
            path: path_kind(peer),
            path_reason: path.as_ref().map_or_else(|| "local".into(), |p| format!("{:?}", p.reason)),
            path_reason_text: path_reason(peer),
            remote_address,
            rtt_ms: peer.proof.rtt().map(millis),
            last_proof_at: peer.proof.last_proof_at(),
            path_changes: peer.path_changes().values().sum(),
            path_counts: path_counts(peer),
            key_exchange: peer.tunnel.borrow().as_ref().map(|_| KEY_EXCHANGE.into()),
        }
    }
}

impl Connections {
    /// The reports for the control plane.
    pub fn reports(&self) -> Vec<ConnectionReport> {
        let view = self.authority.view();
        let Some(policy) = view.policy.as_deref() else { return Vec::new() };
        let own = policy.gateway;
        // With itself, a server reports once: the sender's view.
        let reported = policy.connections.iter().filter(|c| c.peer != own || role(c) == Role::Sender);
        reported.map(|entry| self.report(&view, entry)).collect()
    }

    /// The engine, with the local ports of our senders beside the destinations that use them.
    pub fn engine(&self) -> Option<EngineSnapshot> {
        let engine = self.engine.view()?;
        let view = self.authority.view();
        let connections = view.policy.iter().flat_map(|policy| &policy.connections);
        let (mut names, mut words) = (MAX_REPORT_ENGINE_BYTES / 2, MAX_REPORT_ENGINE_BYTES / 2);
        let senders = connections.filter(|entry| role(entry) == Role::Sender).filter_map(|entry| {
            let port = self.registry.local_address(entry.id)?.port();
            let destinations = users(&engine.channels, port)
                .map(|(channel, destination)| format!("{} / {}", channel.name, destination.name))
                .take(MAX_DESTINATIONS);
            Some(SenderPort { connection: entry.id, port, destinations: fitting(destinations, &mut names) })
        });
        let senders: Vec<_> = senders.take(MAX_REPORT_ENGINE_LINES).collect();
        let ports: Vec<_> = senders.iter().map(|sender| sender.port).collect();
        let advice =
            advise(&engine.channels, &ports).into_iter().take(MAX_REPORT_ENGINE_LINES).map(|advice| advice.to_string());
        let head = EngineHead {
            state: engine.state,
            version: engine.version.clone(),
            problem: engine.problem.clone(),
            left_out: u32::try_from(engine.left_out).unwrap_or(u32::MAX),
            advice: fitting(advice, &mut words),
            senders,
        };
        Some(EngineSnapshot { head, channels: engine.channels.clone() })
    }

    /// The numbers of the observers, for the metrics.
    pub fn exchanges(&self) -> Vec<ExchangeMetrics> {
        let view = self.authority.view();
        let entries = view.policy.iter().flat_map(|policy| &policy.connections);
        let numbers = |entry: &Arc<ConnectionEntry>| {
            let role = role(entry);
            let book = self.traffic.of(entry.id, role).book(self.unobserved.protocol(entry));
            let numbers = Numbers::of(&book.lock().unwrap_or_else(PoisonError::into_inner))?;
            Some(ExchangeMetrics { connection: entry.id, role, numbers })
        };
        entries.filter_map(numbers).collect()
    }

    fn connection(&self, view: &PolicyView, entry: &ConnectionEntry) -> ConnectionStatus {
        let role = role(entry);
        let traffic = self.traffic.of(entry.id, role);
        let peer = self.registry.peer(&entry.peer);
        let name = peer.as_ref().map(|peer| peer.name());
        let own = view.policy.as_ref().map(|p| p.server.organization);
        let is_own = name.as_ref().is_some_and(|name| own == Some(name.organization));
        let denied = self.denied(view, entry);
        let local_address = match entry.local {
            LocalEnd::Sender { .. } => self.registry.local_address(entry.id).map(|a| a.to_string()),
            LocalEnd::AdminUser { .. } => self.registry.local_address(entry.id).map(|a| format!("https://{a}")),
            LocalEnd::Listener { engine, .. } => Some(engine.to_string()),
            LocalEnd::AdminOwner => self.engine_api.clone(),
        };
        ConnectionStatus {
            id: entry.id,
            endpoint: entry.endpoint.clone(),
            kind: entry.kind,
            role: match entry.local {
                LocalEnd::Sender { .. } => "sender",
                LocalEnd::Listener { .. } => "listener",
                LocalEnd::AdminUser { .. } => "admin_user",
                LocalEnd::AdminOwner => "admin_owner",
            }
            .into(),
            peer_server: name.as_ref().map_or_else(|| entry.peer.short(), |name| name.name.clone()),
            peer_organization: organization(is_own, name.map(|n| n.organization_name).unwrap_or_default()),
            activation: entry.activation,
            authorized: denied.is_none(),
            connectivity: self.connectivity(peer.as_deref(), denied),
            path: peer.as_deref().and_then(path_kind),
            path_reason: peer.as_deref().map(path_reason).unwrap_or_default(),
            rtt_ms: peer.as_ref().and_then(|peer| peer.proof.rtt()).map(millis),
            local_address,
            last_sent_at: nonzero(traffic.last_sent_at.load(Relaxed)),
            last_received_at: nonzero(traffic.last_received_at.load(Relaxed)),
            bytes_sent: traffic.bytes_sent.load(Relaxed),
            bytes_received: traffic.bytes_received.load(Relaxed),
            streams: traffic.streams.load(Relaxed),
            streams_finished: traffic.finished.load(Relaxed),
            streams_reset: traffic.reset.load(Relaxed),
            streams_refused: traffic.refused.load(Relaxed),
            admin: entry.kind.is_admin().then_some(entry.admin),
            problem: problem(denied, peer.as_deref()).or_else(|| traffic.problem()),
            waiting: traffic.waiting(),
            places: match entry.local {
                LocalEnd::Listener { engine, .. } if has_places(&entry.behavior, engine, &self.places) => {
                    Some(self.places.status(engine))
                }
                LocalEnd::Listener { .. }
                | LocalEnd::Sender { .. }
                | LocalEnd::AdminUser { .. }
                | LocalEnd::AdminOwner => None,
            },
            warnings: exchange::warnings(&traffic, self.unobserved.protocol(entry)),
            exchange: exchange::status(&traffic, self.unobserved.protocol(entry)),
            unobserved: self.unobserved.has(entry),
        }
    }

    fn report(&self, view: &PolicyView, entry: &ConnectionEntry) -> ConnectionReport {
        let traffic = self.traffic.of(entry.id, role(entry));
        let peer = self.registry.peer(&entry.peer);
        let denied = self.denied(view, entry);
        let last = traffic.last_sent_at.load(Relaxed).max(traffic.last_received_at.load(Relaxed));
        ConnectionReport {
            id: entry.id,
            connectivity: self.connectivity(peer.as_deref(), denied),
            path: peer.as_deref().and_then(path_kind),
            // Whole milliseconds: a report is sent when it changed, and microseconds always do.
            rtt_ms: peer.as_ref().and_then(|peer| peer.proof.rtt()).map(|rtt| millis(rtt).ceil()),
            last_message_at: nonzero(last),
            bytes_sent: traffic.bytes_sent.load(Relaxed),
            bytes_received: traffic.bytes_received.load(Relaxed),
            streams: traffic.streams.load(Relaxed),
            problem: problem(denied, peer.as_deref()).or_else(|| traffic.problem()),
            counts: exchange::counts(&traffic, self.unobserved.protocol(entry)),
        }
    }

    fn denied(&self, view: &PolicyView, entry: &ConnectionEntry) -> Option<DeniedReason> {
        view.authorize(entry.id, role(entry) == Role::Sender, self.authority.now()).err()
    }

    fn connectivity(&self, peer: Option<&Peer>, denied: Option<DeniedReason>) -> Connectivity {
        match (peer.map(connectivity), denied) {
            (None, _) => Connectivity::NeverConnected,
            (Some(Connectivity::Connected), Some(_)) => Connectivity::Disconnected,
            (Some(connectivity), _) => connectivity,
        }
    }
}

impl DaemonControl for StatusSource {
    fn refresh(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.prove())
    }

    fn status(&self) -> Status {
        self.snapshot()
    }

    fn reconnect(&self, peer: &str) -> Result<(), String> {
        if self.relook(peer) {
            return Ok(());
        }
        let known: Vec<_> =
            self.connections.registry.peers().iter().map(|peer| format!("'{}'", peer.name().name)).collect();
        Err(format!("no peer is called '{peer}'; the peers are: {}", known.join(", ")))
    }

    fn audit_newest(&self, limit: usize, act: String) -> BoxFuture<'_, Result<AuditNewest, String>> {
        let log = self.audit.clone();
        Box::pin(read_audit(move || log.newest(limit, &act)))
    }

    fn audit_lines(&self, from: u64) -> BoxFuture<'_, Result<Vec<u8>, String>> {
        let log = self.audit.clone();
        Box::pin(read_audit(move || log.lines_from(from)))
    }

    fn audit_head(&self) -> Head {
        self.audit.head()
    }

    fn netcheck(&self, body: NetcheckBody) -> BoxFuture<'_, Report> {
        Box::pin(async move { self.netcheck.look(&body).await })
    }

    fn last_netcheck(&self) -> Option<Report> {
        self.netcheck.last()
    }

    fn metrics(&self) -> String {
        metrics::encode(&self.snapshot(), self.connections.exchanges(), &self.socket, &self.audit)
    }
}

async fn read_audit<T: Send + 'static>(
    read: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, String> {
    let read = tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?;
    read.map_err(|error| format!("the audit log cannot be read: {error}"))
}

/// As many of the texts as there is room for, in bytes.
fn fitting(texts: impl Iterator<Item = String>, room: &mut usize) -> Vec<String> {
    let fits = |text: &String| room.checked_sub(text.len()).map(|rest| *room = rest).is_some();
    texts.take_while(fits).collect()
}

fn connectivity(peer: &Peer) -> Connectivity {
    match (peer.proof.is_connected(), peer.proof.last_proof_at()) {
        (true, _) => Connectivity::Connected,
        (false, Some(_)) => Connectivity::Disconnected,
        (false, None) => Connectivity::NeverConnected,
    }
}

fn path_kind(peer: &Peer) -> Option<PathKind> {
    if peer.is_self {
        return Some(PathKind::Local);
    }
    match peer.path()?.selected {
        Selected::None => None,
        Selected::Relayed => Some(PathKind::Relayed),
        Selected::Direct { .. } => Some(PathKind::Direct),
    }
}

/// Why this path, and while it is not direct, what keeps it from that.
fn path_reason(peer: &Peer) -> String {
    let Some(path) = peer.path() else { return "both ends are this gateway".into() };
    match path.obstacle {
        Some(obstacle) => format!("{}; {obstacle}", path.reason),
        None => path.reason.to_string(),
    }
}

fn path_counts(peer: &Peer) -> PathCounts {
    let counters = peer.path().map(|path| path.counters).unwrap_or_default();
    PathCounts {
        changes: peer.path_changes().into_iter().map(|(reason, count)| (format!("{reason:?}"), count)).collect(),
        distrusted: counters.distrusts,
        probes_sent: counters.pings_sent + counters.pongs_sent + counters.guess_probes,
        probe_bytes_sent: counters.probe_bytes_sent,
        guess_runs: counters.guess_runs,
        guess_probes: counters.guess_probes,
    }
}

/// Why data cannot flow now, the nearest cause first.
fn problem(denied: Option<DeniedReason>, peer: Option<&Peer>) -> Option<String> {
    if let Some(reason) = denied {
        return Some(reason.to_string());
    }
    let peer = peer?;
    if peer.proof.is_connected() {
        return None;
    }
    let path = match path_kind(peer) {
        None => "no path to the partner: this gateway is attached to no relay",
        Some(_) => "the partner's gateway does not answer",
    };
    Some(peer.problem().unwrap_or_else(|| path.into()))
}

fn organization(own: bool, name: String) -> String {
    if own { "Self".into() } else { name }
}

fn millis(duration: Duration) -> f64 {
    // Microseconds are enough for people.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn nonzero(at: u64) -> Option<u64> {
    (at != 0).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_an_engine_take_no_more_room_than_there_is() {
        let (texts, mut room) = (|| std::iter::repeat_n("x".repeat(10), 9), 35);
        assert_eq!(fitting(texts().take(2), &mut room).len(), 2);
        assert_eq!(fitting(texts(), &mut room).len(), 1);
        assert_eq!((fitting(texts(), &mut room).len(), room), (0, 5));
    }
}
