//! What a gateway reports: its connections, the engine beside it, the head of its audit log.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::UNCONFIRMED_SECS;
#[cfg(doc)]
use super::{MAX_REPORT_CONNECTIONS, MAX_REPORT_ENGINE_CHANNELS, MAX_REPORT_ENGINE_LINES};
use crate::{
    audit::heads::HeadReport,
    balance::EndCounts,
    engine::{EngineChannel, EngineState},
    id::{ConnectionId, RelayId},
    path::PathReason,
};

/// What a gateway tells about itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The relay where we can be reached.
    pub home_relay: Option<RelayId>,
    /// Connections whose state changed, at most [`MAX_REPORT_CONNECTIONS`].
    pub connections: Vec<ConnectionReport>,
    /// News of the engine beside us; none: nothing new, or no engine is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineReport>,
    /// The head of our audit log; none: it is the one that was reported last, or that was only
    /// [`RIDE_SECS`](crate::audit::heads::RIDE_SECS) ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Box<HeadReport>>,
}

/// News of the engine beside a gateway: states, ports and counts, never a message or a credential.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineReport {
    /// How the gateway gets on with it.
    pub head: EngineHead,
    /// Whatever was reported before is to be forgotten: the first report of a link.
    pub complete: bool,
    /// Another part of the same news follows: until it is there, what is not named is not missing.
    #[serde(default)]
    pub more: bool,
    /// Channels that are new or changed, at most [`MAX_REPORT_ENGINE_CHANNELS`].
    pub channels: Vec<EngineChannel>,
    /// Ids of channels the engine has no more, at most [`MAX_REPORT_ENGINE_CHANNELS`].
    pub gone: Vec<String>,
}

/// How a gateway gets on with its engine, and what of the engine sends through it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EngineHead {
    /// State.
    pub state: EngineState,
    /// Version of the engine.
    pub version: Option<String>,
    /// Why its state is not `up`, in words.
    pub problem: Option<String>,
    /// Channels beyond the limit, of which nothing is known.
    pub left_out: u32,
    /// The local ports of senders, at most [`MAX_REPORT_ENGINE_LINES`].
    pub senders: Vec<SenderPort>,
    /// What should be changed in the engine, in words, at most [`MAX_REPORT_ENGINE_LINES`].
    pub advice: Vec<String>,
}

/// A sender's local port, and who of the engine uses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SenderPort {
    /// The connection.
    pub connection: ConnectionId,
    /// Its local port.
    pub port: u16,
    /// The port is kept for the connection and not open now: that one is paused, suspended or not allowed yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
    /// `channel / destination` of the engine that send to it, at most [`MAX_DESTINATIONS`](crate::engine::MAX_DESTINATIONS).
    pub destinations: Vec<String>,
}

/// State of one connection at one end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ConnectionReport {
    /// Which.
    pub id: ConnectionId,
    /// Connectivity by end-to-end proof.
    pub connectivity: Connectivity,
    /// Path in use, for people and programs.
    pub path: Option<PathKind>,
    /// End-to-end round-trip time, milliseconds.
    pub rtt_ms: Option<f64>,
    /// Last message towards the peer or from it, Unix milliseconds.
    pub last_message_at: Option<u64>,
    /// Bytes sent to the peer since the daemon started.
    pub bytes_sent: u64,
    /// Bytes received from the peer since the daemon started.
    pub bytes_received: u64,
    /// Open streams.
    pub streams: u32,
    /// What keeps it from working, in words.
    pub problem: Option<String>,
    /// What passed, for the delivery proof; none where messages cannot be counted, and from older gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<EndCounts>,
    /// Why it is so, and how old what it rests on is; none: an older gateway does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<EndDetails>,
}

/// Why an end of a connection is as it is, and how old what it rests on is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EndDetails {
    /// Why this path is in use, or none; none: nothing leads to the peer yet.
    pub path_reason: Option<PathWhy>,
    /// When an acknowledgement last passed (MLLP), an answer (HTTP, DICOM), or when a stream last ended where nothing is observed:
    /// Unix milliseconds of the gateway's clock; none: not since the daemon started.
    pub last_acknowledged_at: Option<u64>,
    /// The control plane is heard and has not confirmed this gateway's policy since then, Unix seconds; none: it confirms it.
    pub policy_unconfirmed_since: Option<u64>,
    /// The local port that is open here for the engine (or the administrator); none: there is none, or an older gateway does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_port: Option<u16>,
    /// The local port that belongs to this end, also while it is closed: no other connection of the gateway gets it meanwhile. None:
    /// this end has none yet, or an older gateway does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_port: Option<u16>,
}

/// Why a path is in use, as the gateway's own status says it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PathWhy {
    /// The code, `local` where both ends are one gateway; docs/paths.md lists them.
    pub code: String,
    /// In words, and while the path is not direct, what keeps it from that. May be a minute old. Empty at the end of the other side.
    pub text: String,
}

impl PathWhy {
    /// In place of a code that is not known.
    pub const OTHER: &str = "Other";

    /// What the other side of the connection is told of it: a code that is known, or [`OTHER`](Self::OTHER). The words tell how the
    /// own network is built, and a gateway that was tampered with would have its own ones read as the platform's.
    #[must_use]
    pub fn for_the_other_side(&self) -> Self {
        let known = PathReason::from_code(&self.code).map(|reason| format!("{reason:?}"));
        Self { code: known.unwrap_or_else(|| Self::OTHER.to_owned()), text: String::new() }
    }
}

/// Since when (Unix seconds) a policy is not confirmed that was last confirmed at `confirmed_at`, though the control plane has been
/// heard for `linked`; none: it is confirmed, or the link is too young to tell. As long as it is confirmed this never changes, so that
/// nothing has to be reported of it.
pub fn unconfirmed_since(confirmed_at: u64, now: u64, linked: Duration) -> Option<u64> {
    let is_overdue = now.saturating_sub(confirmed_at) >= UNCONFIRMED_SECS;
    (is_overdue && linked.as_secs() >= UNCONFIRMED_SECS).then_some(confirmed_at)
}

/// Whether an end-to-end round trip succeeded within the heartbeat limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Connectivity {
    /// Yes.
    Connected,
    /// Not now, but before.
    Disconnected,
    /// Never so far.
    NeverConnected,
}

/// The path in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    /// Straight between the two gateways.
    Direct,
    /// Over a relay.
    Relayed,
    /// Both ends are this gateway.
    Local,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_unconfirmed_only_when_a_link_that_lasts_does_not_confirm_it() {
        let linked = Duration::from_secs(UNCONFIRMED_SECS);
        assert_eq!(unconfirmed_since(1_000, 1_029, linked), None);
        assert_eq!(unconfirmed_since(1_000, 1_030, linked), Some(1_000));
        assert_eq!(unconfirmed_since(1_000, 9_000, linked), Some(1_000), "it does not move");
        // After an outage the first heartbeat is on its way.
        assert_eq!(unconfirmed_since(1_000, 9_000, linked - Duration::from_secs(1)), None);
        assert_eq!(unconfirmed_since(1_000, 900, linked), None);
    }

    #[test]
    fn a_report_of_an_older_gateway_says_nothing_of_why() {
        let json = r#"{"id":"00000000000000000000000000","connectivity":"connected","path":"direct","rtt_ms":1.5,
            "last_message_at":null,"bytes_sent":1,"bytes_received":2,"streams":0,"problem":null}"#;
        let mut json: serde_json::Value = serde_json::from_str(json).unwrap();
        json["id"] = serde_json::to_value(ConnectionId::new(1, [1; 10])).unwrap();
        let report: ConnectionReport = serde_json::from_value(json).unwrap();
        assert_eq!(report.details, None);
        assert!(!serde_json::to_string(&report).unwrap().contains("details"));
    }
}
