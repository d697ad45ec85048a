//! What the data path says of a stream or a refusal: small, without names, made thousands of times a second.
//!
//! Names are added when the record is written, far from the data path.

use serde::{Deserialize, Serialize};

use crate::{id::ConnectionId, identity::GatewayPublicKey, policy::DeniedReason, stream::RefusalCode};

/// One thing that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    /// When, Unix milliseconds.
    pub at: u64,
    /// What.
    pub what: Noted,
}

/// See [`Note`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// A stream was opened, and accepted by both gateways.
    Opened(StreamKey),
    /// It ended.
    Ended(StreamKey, StreamEnd),
    /// Something was refused.
    Refused(Refusal),
}

/// Which stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamKey {
    /// Number of the stream in this run of the daemon: the trace is the partner's to choose.
    pub serial: u64,
    /// The connection.
    pub connection: ConnectionId,
    /// Our end.
    pub role: StreamRole,
    /// The same number at both gateways.
    pub trace: u64,
}

/// Our end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamRole {
    /// Our engine connected to us.
    Sender,
    /// The partner's gateway opened it, and we connected to our engine.
    Listener,
    /// Our administrator works at the partner's engine.
    AdminUser,
    /// The partner's administrator works at our engine.
    AdminOwner,
}

/// How a stream went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamEnd {
    /// How it ended.
    pub ending: StreamEnding,
    /// How long it was open, milliseconds.
    pub duration_ms: u64,
    /// Bytes towards the partner.
    pub bytes_sent: u64,
    /// Bytes from the partner.
    pub bytes_received: u64,
    /// Messages or requests; none: not observed.
    pub messages: Option<u64>,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamEnding {
    /// Both sides closed in order.
    Clean,
    /// Our engine, or the local client, reset its connection.
    ResetHere,
    /// The partner's side reset it.
    ResetThere,
    /// Our policy stopped allowing it: paused, suspended, revoked, terminated, expired, stale.
    Revoked,
    /// The partner's policy stopped allowing it.
    RevokedThere,
    /// The tunnel was lost, or one of the two gateways stopped.
    TunnelLost,
    /// The partner closed while a message was unacknowledged, by itself or after our engine had waited no longer.
    Unacknowledged,
    /// The partner closed a conversation that our engine kept open.
    ClosedThere,
    /// One side closed, and the other was silent for too long.
    HalfOpen,
    /// No byte passed for longer than the grant allows.
    Silent,
}

/// Something that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// What.
    pub what: Refusable,
    /// By whom.
    pub by: RefusedBy,
    /// Why.
    pub reason: Reason,
    /// The partner's gateway, as far as it proved to be that.
    pub peer: Option<GatewayPublicKey>,
    /// The connection, if it is one of our policy's, and our end of it.
    pub connection: Option<(ConnectionId, StreamRole)>,
    /// The stream's trace, 0 for none.
    pub trace: u64,
}

/// What can be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusable {
    /// A stream of a tunnel, or a connection of our engine for which there should have been one.
    Stream,
    /// A tunnel.
    Tunnel,
    /// An offer or an answer through a relay.
    Signal,
}

/// Who refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedBy {
    /// This gateway.
    Us,
    /// The partner's.
    Partner,
}

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reason {
    /// For this the two gateways have a code.
    Code(RefusalCode),
    /// This is known here only.
    Ours(OurReason),
}

/// Reasons that no gateway is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OurReason {
    /// The stream names a connection that this partner does not have.
    UnknownConnection,
    /// Its proof was not made with the connection's secret.
    WrongSecret,
    /// No header came in time.
    NoHeader,
    /// There was no tunnel in time.
    NoTunnel,
    /// The tunnel was lost before there was an answer.
    TunnelLost,
    /// The partner's gateway did not answer in time.
    NoAnswer,
    /// Whoever asked for the stream left before there was an answer.
    GaveUp,
    /// The local client spoke no TLS.
    NoTls,
    /// A gateway that is no peer.
    UnknownGateway,
    /// Too many handshakes of one gateway at a time.
    TooManyHandshakes,
    /// A gateway that could not prove its key.
    WrongKey,
    /// Different ones: there were too many to tell them apart.
    Various,
}

impl From<RefusalCode> for Reason {
    fn from(code: RefusalCode) -> Self {
        Self::Code(code)
    }
}

impl From<OurReason> for Reason {
    fn from(reason: OurReason) -> Self {
        Self::Ours(reason)
    }
}

impl From<DeniedReason> for Reason {
    fn from(reason: DeniedReason) -> Self {
        Self::Code(reason.into())
    }
}

impl Refusal {
    /// Of a stream, by us.
    pub fn of_stream(reason: impl Into<Reason>) -> Self {
        Self {
            what: Refusable::Stream,
            by: RefusedBy::Us,
            reason: reason.into(),
            peer: None,
            connection: None,
            trace: 0,
        }
    }

    /// Of a tunnel, by us.
    pub fn of_tunnel(reason: OurReason, peer: Option<GatewayPublicKey>) -> Self {
        Self { what: Refusable::Tunnel, peer, ..Self::of_stream(reason) }
    }

    /// The same without the stream: by this refusals are counted together.
    pub(super) fn kind(self) -> Self {
        Self { trace: 0, ..self }
    }
}
