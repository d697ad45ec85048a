//! What is known of a peer: whether it answers, over which path, and why not over a better one.

use gateway_proto::{
    api::{
        gateway::{Connectivity, PathKind},
        local::{PathCounts, PeerStatus},
    },
    path::Selected,
    policy::DeniedReason,
};

use super::{StatusSource, millis};
use crate::{credentials::KEY_EXCHANGE, nat64::is_translated, peer::Peer};

impl StatusSource {
    pub(super) fn peer(&self, peer: &Peer) -> PeerStatus {
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

pub(super) fn connectivity(peer: &Peer) -> Connectivity {
    match (peer.proof.is_connected(), peer.proof.last_proof_at()) {
        (true, _) => Connectivity::Connected,
        (false, Some(_)) => Connectivity::Disconnected,
        (false, None) => Connectivity::NeverConnected,
    }
}

pub(super) fn path_kind(peer: &Peer) -> Option<PathKind> {
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
pub(super) fn path_reason(peer: &Peer) -> String {
    let Some(path) = peer.path() else { return "both ends are this gateway".into() };
    match (path.obstacle, path.selected) {
        (Some(obstacle), _) => {
            let is_silent = path.relay_up && !peer.proof.is_connected();
            let obstacle = if is_silent { obstacle.of_a_silent_peer() } else { obstacle };
            // Of a path that nobody wants, the reason says so already.
            let (reason, why) = (path.reason.to_string(), obstacle.to_string());
            if reason == why { reason } else { format!("{reason}; {why}") }
        }
        (None, Selected::Direct { remote, .. }) if is_translated(remote) => {
            format!("{} (IPv6 through NAT64)", path.reason)
        }
        (None, _) => path.reason.to_string(),
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
pub(super) fn problem(denied: Option<DeniedReason>, peer: Option<&Peer>) -> Option<String> {
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

pub(super) fn organization(own: bool, name: String) -> String {
    if own { "Self".into() } else { name }
}
