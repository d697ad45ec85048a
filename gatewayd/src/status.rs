//! What this gateway says of itself: to people through the local API, to the control plane in reports.
//!
//! Both come from one place, so they never disagree. Activation is what the policy says; connectivity is what an
//! end-to-end round trip proved; the two are never mixed up, and only a connection that may carry data is connected.

mod connections;
mod engine;
mod exchange;
mod peer;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub use connections::Connections;
use futures_util::future::BoxFuture;
use gateway_net::time::unix_secs;
use gateway_proto::{
    api::local::{AuditNewest, ControlStatus, EngineStatus, PolicyStatus, RelayChanges, RelayStatus, Status},
    audit::line::Head,
    id::RelayId,
    netcheck::{NetcheckBody, PortMapping, Report},
    pulse::ANSWER_LIMIT,
    relay::{HomeReason, udp::CarrierReason},
};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    audit::AuditLog,
    authority::PolicyView,
    local_api::DaemonControl,
    metrics,
    netcheck::Netcheck,
    peer::{LocalCandidates, PathCommand, Peer},
    registry::RunningRelay,
    socket::TunnelSocket,
};

/// How long `status` waits for a fresh round trip to every peer, so that it is true at the moment it is read: a little more
/// than the heartbeat limit, so that a peer that does not answer is not connected when the wait is over.
const FRESH_PROOF: Duration = ANSWER_LIMIT.saturating_add(Duration::from_millis(50));

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
    /// How the relays see it.
    pub candidates: watch::Receiver<LocalCandidates>,
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
            relay_changes: self.relay_changes(),
            peers: self.connections.registry.peers().iter().map(|peer| self.peer(peer)).collect(),
            connections: policy
                .iter()
                .flat_map(|p| &p.connections)
                .map(|entry| self.connections.connection(&view, entry))
                .collect(),
            socket: Some(self.socket.status()),
            port_mapping: self.mapped.borrow().clone(),
            relays_disagree: self.candidates.borrow().contradiction.clone(),
            engine: self
                .connections
                .engine()
                .map(|snapshot| EngineStatus { head: snapshot.head, channels: snapshot.channels.to_vec() }),
            audit: self.audit.compared(),
            runs_twice: self.connections.authority.twice(),
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

    fn relay_changes(&self) -> RelayChanges {
        let registry = &self.connections.registry;
        RelayChanges {
            carrier: by_code(registry.carrier_changes(), CarrierReason::code),
            home: by_code(registry.home_changes(), HomeReason::code),
        }
    }

    fn relays(&self) -> Vec<RelayStatus> {
        let home = *self.home.borrow();
        let (relays, reason) = (self.connections.registry.relays(), self.connections.registry.home_reason());
        let status = |RunningRelay { entry, link, latency, proxied }: &RunningRelay| {
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
                carrier_changes: by_code(link.carrier_changes(), CarrierReason::code),
                proxied: *proxied,
                limit: state.limit.map(|limit| limit.kind.name().to_owned()),
                limit_text: state.limit.map(|limit| limit.to_string()),
                problem: state.problem,
            }
        };
        relays.iter().map(status).collect()
    }
}

/// A closed set of codes: as many entries as there are reasons, at most.
fn by_code<R>(counts: BTreeMap<R, u64>, code: fn(R) -> &'static str) -> BTreeMap<String, u64> {
    counts.into_iter().map(|(reason, count)| (code(reason).to_owned(), count)).collect()
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

fn millis(duration: Duration) -> f64 {
    // Microseconds are enough for people.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
