//! What is known of each connection, for people and for the control plane's reports.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::Instant,
};

use gateway_proto::{
    api::{
        gateway::{ConnectionReport, Connectivity, EndDetails, PathWhy},
        local::ConnectionStatus,
    },
    policy::{ConnectionEntry, DeniedReason, LocalEnd},
};

use super::{
    exchange,
    peer::{connectivity, organization, path_code, path_kind, path_reason, problem, rtt_ms},
};
use crate::{
    authority::{Authority, PolicyView},
    engine::EngineWatch,
    gate::role,
    listener::has_places,
    metrics::{ExchangeMetrics, MAX_ENDS, Numbers, Passed},
    observer::Unobserved,
    peer::Peer,
    places::EnginePlaces,
    registry::Registry,
    traffic::{Role, TrafficTable},
};

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

    /// What passed at each end, and the numbers of the observers, for the metrics.
    pub fn exchanges(&self) -> Vec<ExchangeMetrics> {
        let view = self.authority.view();
        let entries = view.policy.iter().flat_map(|policy| &policy.connections);
        let metrics = |entry: &Arc<ConnectionEntry>| {
            let role = role(entry);
            let traffic = self.traffic.of(entry.id, role);
            let book = traffic.book(self.unobserved.protocol(entry));
            let numbers = Numbers::of(&book.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
            ExchangeMetrics { connection: entry.id, role, passed: Passed::of(&traffic), numbers }
        };
        entries.take(MAX_ENDS).map(metrics).collect()
    }

    pub(super) fn connection(&self, view: &PolicyView, entry: &ConnectionEntry) -> ConnectionStatus {
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
            rtt_ms: peer.as_deref().and_then(rtt_ms),
            local_address,
            last_sent_at: nonzero(traffic.last_sent_at.load(Relaxed)),
            last_received_at: nonzero(traffic.last_received_at.load(Relaxed)),
            bytes_sent: traffic.bytes_sent.load(Relaxed),
            bytes_received: traffic.bytes_received.load(Relaxed),
            streams: traffic.streams.load(Relaxed),
            streams_finished: traffic.finished.load(Relaxed),
            streams_reset: traffic.reset.load(Relaxed),
            streams_refused: traffic.refused.load(Relaxed),
            streams_silent: traffic.silent.load(Relaxed),
            limits: entry.limits,
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
            warnings: exchange::warnings(&traffic, self.unobserved.protocol(entry), entry.limits),
            exchange: exchange::status(&traffic, self.unobserved.protocol(entry)),
            unobserved: self.unobserved.has(entry),
        }
    }

    fn report(&self, view: &PolicyView, entry: &ConnectionEntry) -> ConnectionReport {
        let traffic = self.traffic.of(entry.id, role(entry));
        let peer = self.registry.peer(&entry.peer);
        let denied = self.denied(view, entry);
        let last = traffic.last_sent_at.load(Relaxed).max(traffic.last_received_at.load(Relaxed));
        let details = EndDetails {
            path_reason: peer.as_deref().map(|peer| PathWhy { code: path_code(peer), text: path_reason(peer) }),
            last_acknowledged_at: nonzero(traffic.last_acknowledged_at.load(Relaxed)),
            // Said by the link: only it knows for how long the control plane is heard.
            policy_unconfirmed_since: None,
            local_port: self.registry.local_address(entry.id).map(|address| address.port()),
            kept_port: self.registry.kept_port(entry.id),
        };
        ConnectionReport {
            id: entry.id,
            connectivity: self.connectivity(peer.as_deref(), denied),
            path: peer.as_deref().and_then(path_kind),
            // Whole milliseconds: a report is sent when it changed, and microseconds always do.
            rtt_ms: peer.as_deref().and_then(rtt_ms).map(f64::ceil),
            last_message_at: nonzero(last),
            bytes_sent: traffic.bytes_sent.load(Relaxed),
            bytes_received: traffic.bytes_received.load(Relaxed),
            streams: traffic.streams.load(Relaxed),
            problem: problem(denied, peer.as_deref()).or_else(|| traffic.problem()),
            counts: (!entry.kind.is_admin())
                .then(|| exchange::counts(&traffic, self.unobserved.protocol(entry), role(entry))),
            details: Some(details),
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

fn nonzero(at: u64) -> Option<u64> {
    (at != 0).then_some(at)
}
