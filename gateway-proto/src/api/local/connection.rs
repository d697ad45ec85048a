//! One connection, as the gateway at one end of it sees it.

use serde::{Deserialize, Serialize};

use super::ExchangeStatus;
use crate::{
    api::gateway::{Connectivity, PathKind},
    id::ConnectionId,
    limits::ChannelLimits,
    policy::{Activation, AdminScope, ConnectionKind},
};

/// One connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// Its id.
    pub id: ConnectionId,
    /// Public name of the published endpoint.
    pub endpoint: String,
    /// What it carries.
    pub kind: ConnectionKind,
    /// `sender` or `listener`; of an admin connection `admin_user` or `admin_owner`.
    pub role: String,
    /// The peer's server name.
    pub peer_server: String,
    /// The peer's organization; `Self` for our own.
    pub peer_organization: String,
    /// Activation as the policy says.
    pub activation: Activation,
    /// Whether data may flow now, by policy and time.
    pub authorized: bool,
    /// Connectivity by end-to-end proof; only an authorized connection is ever `connected`.
    pub connectivity: Connectivity,
    /// Path in use; none while the peer does not answer.
    pub path: Option<PathKind>,
    /// Why this path, in words.
    pub path_reason: String,
    /// End-to-end round-trip time, milliseconds; none while the peer does not answer.
    pub rtt_ms: Option<f64>,
    /// Sender: the local address the engine connects to, while it is open. Listener: the engine's address. Admin user: the
    /// URL the Administrator is pointed at, while the port is open. Admin owner: the engine's admin API, if configured.
    pub local_address: Option<String>,
    /// Last bytes towards the peer, Unix milliseconds.
    pub last_sent_at: Option<u64>,
    /// Last bytes from the peer, Unix milliseconds.
    pub last_received_at: Option<u64>,
    /// Bytes to the peer since start.
    pub bytes_sent: u64,
    /// Bytes from the peer since start.
    pub bytes_received: u64,
    /// Open streams.
    pub streams: u32,
    /// Streams that ended by finish on both sides.
    pub streams_finished: u64,
    /// Streams that ended by a reset.
    pub streams_reset: u64,
    /// Streams that were refused, by us or the peer.
    pub streams_refused: u64,
    /// Of those that ended by a reset, those in which no byte had passed for longer than the grant allows.
    #[serde(default)]
    pub streams_silent: u64,
    /// What the channel's owner limits, beside its open streams.
    #[serde(default, skip_serializing_if = "ChannelLimits::is_unlimited")]
    pub limits: ChannelLimits,
    /// What an admin connection was offered with beyond reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<AdminScope>,
    /// What keeps it from working, in words, newest first.
    pub problem: Option<String>,
    /// What a stream waits for now, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// The places of our engine's listener, shared by all connections to it; none: it is not one that is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub places: Option<PlacesStatus>,
    /// What does not keep it from working, but somebody should look at, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The configuration says that nothing of it is to be observed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unobserved: bool,
    /// What was observed of the messages; none where the protocol is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<ExchangeStatus>,
}

/// The places of a listener of our engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacesStatus {
    /// Connections the listener serves at once; none: no limit.
    pub most: Option<u32>,
    /// Who says so.
    pub told_by: PlacesToldBy,
    /// Taken by partners now.
    pub taken: u32,
    /// Streams that wait for one.
    pub waiting: u32,
}

/// Who says how many connections a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlacesToldBy {
    /// The engine, through its API.
    Engine,
    /// `[listener] max_connections`, because the engine does not say.
    Configuration,
}

impl std::fmt::Display for PlacesToldBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Engine => "the engine",
            Self::Configuration => "[listener] max_connections",
        })
    }
}
