//! What is known of a peer: whether it answers, over which path, and why not over a better one.

use gateway_proto::{
    api::{
        gateway::{Connectivity, PathKind},
        local::{PathCounts, PeerStatus},
    },
    path::{Obstacle, Selected},
    policy::DeniedReason,
};

use super::{StatusSource, millis};
use crate::{credentials::KEY_EXCHANGE, nat64::is_translated, peer::Peer};

/// A gateway whose policy does not have this one ignores its dials, and nothing tells the two apart from here.
const OFFLINE: &str = "the partner is offline, or its policy does not have this gateway: it does not answer";

impl StatusSource {
    pub(super) fn peer(&self, peer: &Peer) -> PeerStatus {
        let name = peer.name();
        let path = peer.path();
        let own = self.connections.authority.view().policy.as_ref().map(|p| p.server.organization);
        let remote_address = match path.as_ref().map(|p| p.selected) {
            Some(Selected::Direct { remote, .. }) if peer.proof.is_connected() => Some(remote.to_string()),
            Some(Selected::Direct { .. } | Selected::Relayed | Selected::None) | None => None,
        };
        PeerStatus {
            key: peer.key,
            server: name.name,
            organization: organization(own == Some(name.organization), name.organization_name),
            connectivity: connectivity(peer),
            path: path_kind(peer),
            path_reason: path_code(peer),
            path_reason_text: path_reason(peer),
            remote_address,
            rtt_ms: rtt_ms(peer),
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

/// The path in use; none while the peer does not answer over it, whatever is still selected.
pub(super) fn path_kind(peer: &Peer) -> Option<PathKind> {
    if peer.is_self {
        return Some(PathKind::Local);
    }
    match peer.path().filter(|_| peer.proof.is_connected())?.selected {
        Selected::None => None,
        Selected::Relayed => Some(PathKind::Relayed),
        Selected::Direct { .. } => Some(PathKind::Direct),
    }
}

/// The round trip end to end, milliseconds; none while nothing comes back.
pub(super) fn rtt_ms(peer: &Peer) -> Option<f64> {
    peer.proof.rtt().filter(|_| peer.proof.is_connected()).map(millis)
}

/// Why this path, as a code.
pub(super) fn path_code(peer: &Peer) -> String {
    peer.path().map_or_else(|| "local".into(), |path| format!("{:?}", path.reason))
}

/// Why this path, and while it is not direct, what keeps it from that.
pub(super) fn path_reason(peer: &Peer) -> String {
    let Some(path) = peer.path() else { return "both ends are this gateway".into() };
    if is_offline(peer) {
        return Obstacle::PeerSilent.to_string();
    }
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

/// Whether the peer is away: it is silent in the tunnel, or to a dial, although we reach a relay. Before the first dial has failed
/// nobody knows, and a peer that answers otherwise than it should is there.
fn is_offline(peer: &Peer) -> bool {
    if peer.proof.is_connected() || !peer.path().is_some_and(|path| path.relay_up) {
        return false;
    }
    match peer.problem() {
        Some(problem) => problem.is_silence,
        None => peer.tunnel.borrow().is_some() && peer.proof.last_proof_at().is_some(),
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
    let told = peer.problem().map(|problem| problem.text);
    if is_offline(peer) {
        return Some(told.map_or_else(|| OFFLINE.into(), |told| format!("{OFFLINE}; {told}")));
    }
    Some(told.unwrap_or_else(|| match peer.path().map(|path| path.selected) {
        Some(Selected::None) => "no path to the partner: this gateway is attached to no relay".into(),
        Some(Selected::Relayed | Selected::Direct { .. }) | None => {
            "the partner's gateway does not answer: it is offline, or about to connect".into()
        }
    }))
}

pub(super) fn organization(own: bool, name: String) -> String {
    if own { "Self".into() } else { name }
}
