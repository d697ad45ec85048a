//! What a gateway writes into its audit log: one [`Record`] a line, every stream, every refusal, every admin call.
//!
//! Counts, sizes, times and codes only: no payload, no address, no value of a path. Names are those of the signed policy at
//! the moment the record was written. The lines and their chain: [`super::line`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::note::{Reason, RefusedBy, StreamEnding, StreamRole};
use crate::{admin::call::AdminCall, id::ConnectionId, identity::GatewayPublicKey};

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Goes up by one with every record, over all files; the first is 0.
    pub sequence: u64,
    /// When it happened, Unix milliseconds.
    pub at: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act")]
pub enum Event {
    /// A file of the log begins here.
    #[serde(rename = "log.file")]
    File(FileBegun),
    /// The daemon began to write.
    #[serde(rename = "log.begin")]
    Begun(Begun),
    /// The daemon stopped in order.
    #[serde(rename = "log.end")]
    Ended,
    /// Records are missing here that should have been written.
    #[serde(rename = "log.gap")]
    Gap(Gap),
    /// The oldest files are removed: they are too many or too old.
    #[serde(rename = "log.remove")]
    Removed(Removed),
    /// A stream was opened that was still open when this was written; one that ended at once has its end only.
    #[serde(rename = "stream.open")]
    StreamOpened(StreamOpened),
    /// A stream ended.
    #[serde(rename = "stream.end")]
    StreamEnded(StreamEnded),
    /// Streams of one connection beyond the pace at which each has a record of its own.
    #[serde(rename = "stream.many")]
    Streams(Streams),
    /// A stream was refused, by us or by the partner's gateway.
    #[serde(rename = "stream.refuse")]
    StreamRefused(Refused),
    /// A tunnel was refused.
    #[serde(rename = "tunnel.refuse")]
    TunnelRefused(Refused),
    /// An offer or answer of a gateway that is no peer was dropped.
    #[serde(rename = "signal.refuse")]
    SignalRefused(Refused),
    /// A partner's administrator called our engine.
    #[serde(rename = "admin.call")]
    AdminCall(AdminCall),
}

/// The head of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileBegun {
    /// Hash of the line before, in the file before; 64 zeros: there is none.
    pub previous: String,
}

/// A start of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Version of gatewayd.
    pub version: String,
    /// The run before stopped in order; otherwise its last moments may be missing.
    pub in_order: bool,
    /// Bytes of a line that was cut off in the middle, by a crash, and were removed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub torn_bytes: u64,
    /// What was there before does not verify, and a new chain begins.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub broken: bool,
}

/// Records that are not there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// When the first was lost, Unix milliseconds.
    pub since: u64,
    /// Openings and ends of streams, and refusals, that came faster than they could be written.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub too_fast: u64,
    /// Records that the disk did not take.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unwritten: u64,
    /// Admin calls among those.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unwritten_calls: u64,
}

impl Gap {
    /// Whether nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.too_fast == 0 && self.unwritten == 0
    }
}

/// The oldest records, gone from here on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Sequence of the newest record that is removed.
    pub through: u64,
    /// The hash of its line, to compare with an export.
    pub hash: String,
}

/// Whose stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOf {
    /// The connection.
    pub connection: ConnectionId,
    /// Our end: `sender` and `admin_user` open streams, `listener` and `admin_owner` take them.
    pub role: StreamRole,
    /// Public name of the published endpoint.
    pub endpoint: String,
    /// The connection's behavior.
    pub behavior: String,
    /// The partner's server.
    pub server: String,
    /// The partner's organization.
    pub organization: String,
}

/// A stream begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOpened {
    /// Whose.
    #[serde(flatten)]
    pub of: StreamOf,
    /// 16 hex digits, the same at both gateways.
    pub trace: String,
}

/// A stream is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEnded {
    /// Whose.
    #[serde(flatten)]
    pub of: StreamOf,
    /// 16 hex digits, the same at both gateways.
    pub trace: String,
    /// How it ended.
    pub ending: StreamEnding,
    /// How long it was open, milliseconds.
    pub duration_ms: u64,
    /// Bytes towards the partner.
    pub bytes_sent: u64,
    /// Bytes from the partner.
    pub bytes_received: u64,
    /// Messages or requests that passed; none: not observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<u64>,
}

/// Many streams in one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// Whose.
    #[serde(flatten)]
    pub of: StreamOf,
    /// When the first of them opened or ended, Unix milliseconds.
    pub since: u64,
    /// Opened, without a record of that.
    pub opened: u64,
    /// Ended, by how.
    pub ended: BTreeMap<StreamEnding, u64>,
    /// Bytes towards the partner, of those that ended.
    pub bytes_sent: u64,
    /// Bytes from the partner, of those that ended.
    pub bytes_received: u64,
    /// Messages or requests that passed, of those that ended and were observed.
    pub messages: u64,
}

/// Something was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Who refused.
    pub by: RefusedBy,
    /// Why.
    pub reason: Reason,
    /// The partner's gateway; none: not known, or many different ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<GatewayPublicKey>,
    /// Its server, where the policy names it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub server: String,
    /// Its organization, where the policy names it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub organization: String,
    /// The connection, where it is one of the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionId>,
    /// Our end of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<StreamRole>,
    /// Public name of its endpoint.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// 16 hex digits of the stream, the same at both gateways; empty: not known, or many.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trace: String,
    /// So many more like this one were refused; the first of them has a record of its own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u64,
}

impl Event {
    /// Every name that [`act`](Self::act) gives.
    pub const ACTS: [&str; 12] = [
        "log.file",
        "log.begin",
        "log.end",
        "log.gap",
        "log.remove",
        "stream.open",
        "stream.end",
        "stream.many",
        "stream.refuse",
        "tunnel.refuse",
        "signal.refuse",
        "admin.call",
    ];

    /// The stable name of what happened.
    pub fn act(&self) -> &'static str {
        match self {
            Self::File(_) => "log.file",
            Self::Begun(_) => "log.begin",
            Self::Ended => "log.end",
            Self::Gap(_) => "log.gap",
            Self::Removed(_) => "log.remove",
            Self::StreamOpened(_) => "stream.open",
            Self::StreamEnded(_) => "stream.end",
            Self::Streams(_) => "stream.many",
            Self::StreamRefused(_) => "stream.refuse",
            Self::TunnelRefused(_) => "tunnel.refuse",
            Self::SignalRefused(_) => "signal.refuse",
            Self::AdminCall(_) => "admin.call",
        }
    }

    /// Whether somebody was not let through.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::StreamRefused(_) | Self::TunnelRefused(_) | Self::SignalRefused(_) => true,
            Self::AdminCall(call) => call.refused.is_some(),
            Self::File(_)
            | Self::Begun(_)
            | Self::Ended
            | Self::Gap(_)
            | Self::Removed(_)
            | Self::StreamOpened(_)
            | Self::StreamEnded(_)
            | Self::Streams(_) => false,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
