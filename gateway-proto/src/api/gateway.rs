//! gatewayd with the control plane: enrolment, the policy watch, reports.
//!
//! - `POST /api/v1/gateway/enroll` [`EnrollRequest`] → [`EnrollAnswer`]: no assertion, the code is the permission, and
//!   the request proves possession of the key it enrols (`proof`).
//! - `GET /api/v1/gateway/watch` (WebSocket, sub-protocol `gateway-watch.1`, header `Authorization: Gateway …`):
//!   text messages, [`WatchRequest`] up and [`WatchEvent`] down. The gateway sends a heartbeat every
//!   [`HEARTBEAT_SECS`], the control plane answers it with its own (which comes by itself when none was heard for a
//!   second longer), and both give the link up after [`SILENCE_SECS`] of silence.

mod enrollment;
mod report;

pub use enrollment::{EnrollAnswer, EnrollRequest, EnrollmentCode, EnrollmentCodeError};
pub use report::{
    ConnectionReport, Connectivity, EndDetails, EngineHead, EngineReport, PathKind, PathWhy, Report, SenderPort,
    unconfirmed_since,
};
use serde::{Deserialize, Serialize};

use crate::{
    audit::line::Head,
    policy::PolicyDelta,
    signed::Envelope,
    twice::{Instance, RunsTwice},
};

/// Path of enrolment.
pub const ENROLL_PATH: &str = "/api/v1/gateway/enroll";
/// Path at which a gateway asks whether a device token counts.
pub const INTROSPECT_PATH: &str = "/api/v1/device-tokens/introspect";
/// Path of the policy watch.
pub const WATCH_PATH: &str = "/api/v1/gateway/watch";
/// Sub-protocol of the policy watch.
pub const WATCH_PROTOCOL: &str = "gateway-watch.1";
/// Seconds between heartbeats on the watch, each way.
pub const HEARTBEAT_SECS: u64 = 5;
/// Seconds of silence after which either side gives the link up: three missed heartbeats.
pub const SILENCE_SECS: u64 = 15;
/// Seconds after which a policy that is not confirmed is reported, although the control plane is heard: not at once, because a newer
/// one that is about to come leaves the one in force unconfirmed for a moment.
pub const UNCONFIRMED_SECS: u64 = 2 * SILENCE_SECS;
/// Seconds after which a process that was refused as the second of its gateway asks again, by chance up to half more or less.
pub const TWICE_RETRY_SECS: u64 = 30;
/// Entries in one report at most; more connections are sent in several.
pub const MAX_REPORT_CONNECTIONS: usize = 500;
/// Channels of an engine in one report at most, and ids of those that are gone; more are sent in several reports.
pub const MAX_REPORT_ENGINE_CHANNELS: usize = 50;
/// Sender ports and pieces of advice in one report at most.
pub const MAX_REPORT_ENGINE_LINES: usize = 100;
/// Bytes of the channels in one report at most, as JSON, unless it is a single one; half of it each for the names of destinations and
/// for the pieces of advice, before they are JSON. The control plane takes no message beyond 1 MiB, and whoever names channels must
/// not be able to go there.
pub const MAX_REPORT_ENGINE_BYTES: usize = 256 << 10;

/// From gateway to control plane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum WatchRequest {
    /// First message: where we are; the control plane sends only what is newer.
    Hello {
        /// Revision in force here, 0 for none.
        revision: u64,
        /// Version of gatewayd.
        version: String,
        /// Which process of the gateway this is; none: it is of an older version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<Instance>,
        /// It takes [`WatchEvent::Delta`]; one of an older version does not, nor does one for which a delta gave no policy.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        deltas: bool,
    },
    /// Alive.
    Heartbeat,
    /// A policy is in force here.
    Applied {
        /// Its revision.
        revision: u64,
    },
    /// A policy was refused; the one in force stays.
    Rejected {
        /// The refused revision, when it could be read.
        revision: u64,
        /// Why, for the operator of the control plane.
        reason: String,
        /// It is in force all the same and only not saved: `Applied` follows when it is.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        in_force: bool,
    },
    /// State of connections and counters; what is left out did not change.
    Report(Report),
}

/// From control plane to gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum WatchEvent {
    /// How the policy key that signs now follows from one that the gateway knows; comes before the first policy that
    /// needs it.
    Succession {
        /// The links ([`Succession`](crate::succession::Succession)).
        links: Vec<Envelope>,
    },
    /// A policy to put into force.
    Policy {
        /// The signed policy.
        policy: Envelope,
    },
    /// The same, as what changes in the policy that the gateway said it has in force; only to those that said that they take it.
    Delta {
        /// The changes, and the signature of the whole.
        delta: PolicyDelta,
    },
    /// A fresh relay token; replaces the one before.
    RelayToken {
        /// Its text.
        token: String,
    },
    /// Alive; and `revision` is the newest policy of this gateway, so hearing it confirms that policy.
    Heartbeat {
        /// The newest revision.
        revision: u64,
        /// Clock of the control plane, Unix milliseconds, for clock skew.
        now_ms: u64,
    },
    /// The gateway reported this head of its audit log: its files must hold that record, or have removed it when its time was
    /// over. Comes once on a watch, after the first report of a head, and again when something else is asked for.
    AuditHead {
        /// The head.
        head: Head,
    },
    /// Another process has the same key. Told to the second in place of everything else, before its watch is closed: it carries
    /// nothing, and asks again after [`TWICE_RETRY_SECS`]. Told to the one that holds the place whenever the other was refused. Only
    /// to those that said their instance.
    RunsTwice(RunsTwice),
    /// This gateway was removed, or its server: keep nothing open.
    Removed,
}
