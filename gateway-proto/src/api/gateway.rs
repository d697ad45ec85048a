//! gatewayd with the control plane: enrolment, the policy watch, reports.
//!
//! - `POST /api/v1/gateway/enroll` [`EnrollRequest`] → [`EnrollAnswer`]: no assertion, the code is the permission, and
//!   the request proves possession of the key it enrols (`proof`).
//! - `GET /api/v1/gateway/watch` (WebSocket, sub-protocol `gateway-watch.1`, header `Authorization: Gateway …`):
//!   text messages, [`WatchRequest`] up and [`WatchEvent`] down. The gateway sends a heartbeat every
//!   [`HEARTBEAT_SECS`], the control plane answers it with its own (which comes by itself when none was heard for a
//!   second longer), and both give the link up after [`SILENCE_SECS`] of silence.

use std::time::Duration;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};

use crate::{
    audit::{heads::HeadReport, line::Head},
    balance::EndCounts,
    engine::{EngineChannel, EngineState},
    id::{ConnectionId, RelayId},
    identity::{Context, GatewayKey, GatewayPublicKey, NoiseBinding},
    path::PathReason,
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

const CODE_PREFIX: &str = "gwe1_";

/// What an enrolment code holds: where to go, whom to trust, and the one-time secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrollmentCode {
    /// Base URL of the control plane, `https://host:port`.
    pub control: String,
    /// SHA-256 of the control plane's TLS public key, hex; none: the web PKI vouches for it.
    pub pin: Option<String>,
    /// The policy key to pin.
    pub policy_key: GatewayPublicKey,
    /// 32 hex digits, valid once.
    pub secret: String,
}

impl std::fmt::Debug for EnrollmentCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EnrollmentCode({}, secret masked)", self.control)
    }
}

/// The text is not an enrolment code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not a complete enrolment code: it starts with '{CODE_PREFIX}' and is one word; copy it again, whole")]
pub struct EnrollmentCodeError;

impl std::fmt::Display for EnrollmentCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let json = serde_json::to_vec(self).map_err(|_| std::fmt::Error)?;
        write!(f, "{CODE_PREFIX}{}", BASE64URL_NOPAD.encode(&json))
    }
}

impl std::str::FromStr for EnrollmentCode {
    type Err = EnrollmentCodeError;

    fn from_str(text: &str) -> Result<Self, EnrollmentCodeError> {
        let text = text.trim().strip_prefix(CODE_PREFIX).ok_or(EnrollmentCodeError)?;
        let json = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| EnrollmentCodeError)?;
        serde_json::from_slice(&json).map_err(|_| EnrollmentCodeError)
    }
}

/// A gateway enrols itself. Sent twice with the same key and code it gets the same answer (a lost reply loses nothing).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrollRequest {
    /// The secret of the enrolment code.
    pub secret: String,
    /// The gateway's key.
    #[schema(value_type = String)]
    pub key: GatewayPublicKey,
    /// Its Noise key, bound.
    pub noise: NoiseBinding,
    /// Version of gatewayd.
    pub version: String,
    /// Signature by `key` over `"enroll" ‖ 0 ‖ secret ‖ 0 ‖ Noise key hex` in the assertion context, 128 hex digits.
    pub proof: String,
}

impl EnrollRequest {
    /// Makes the request with its proof of possession.
    pub fn new(secret: String, key: &GatewayKey, noise: NoiseBinding, version: String) -> Self {
        let proof = HEXLOWER.encode(&key.sign(Context::Assertion, &Self::message(&secret, &noise)));
        Self { secret, key: key.public(), noise, version, proof }
    }

    /// Checks proof and Noise binding.
    pub fn verify(&self) -> Result<(), crate::identity::KeyError> {
        use crate::identity::KeyError;
        let proof = HEXLOWER.decode(self.proof.as_bytes()).map_err(|_| KeyError::Format)?;
        let proof = proof.try_into().map_err(|_| KeyError::Format)?;
        self.key.verify(Context::Assertion, &Self::message(&self.secret, &self.noise), &proof)?;
        self.noise.verify(&self.key)
    }

    fn message(secret: &str, noise: &NoiseBinding) -> Vec<u8> {
        format!("enroll\0{secret}\0{}", noise.key).into_bytes()
    }
}

impl std::fmt::Debug for EnrollRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EnrollRequest({:?}, secret masked)", self.key)
    }
}

/// The gateway is enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EnrollAnswer {
    /// The server it now belongs to.
    pub server_id: String,
    /// Its name.
    pub server_name: String,
    /// The organization's name.
    pub organization_name: String,
    /// The policy key: the one in the code, or one that it vouches for, or the gateway refuses.
    #[schema(value_type = String)]
    pub policy_key: GatewayPublicKey,
    /// The links from the key in the code to that key; empty: it is the one in the code.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub succession: Vec<Envelope>,
    /// The first policy.
    pub policy: Envelope,
    /// The first relay token.
    pub relay_token: String,
}

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
    use crate::identity::NoiseKey;

    #[test]
    fn an_enrolment_code_round_trips_and_a_cut_one_is_refused() {
        let code = EnrollmentCode {
            control: "https://control.example:8443".into(),
            pin: None,
            policy_key: GatewayKey::from_seed(&[1; 32]).public(),
            secret: "ab".repeat(16),
        };
        let text = code.to_string();
        assert_eq!(format!(" {text}\n").parse(), Ok(code.clone()));
        assert!(text[..text.len() - 3].parse::<EnrollmentCode>().is_err());
        assert!(!format!("{code:?}").contains("abab"));
    }

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

    #[test]
    fn an_enrolment_with_somebody_elses_key_is_refused() {
        let (key, noise) = (GatewayKey::from_seed(&[1; 32]), NoiseKey::from_bytes([2; 32]));
        let mut request = EnrollRequest::new("s".into(), &key, NoiseBinding::new(&key, &noise), "1".into());
        assert_eq!(request.verify(), Ok(()));
        request.key = GatewayKey::from_seed(&[3; 32]).public();
        assert!(request.verify().is_err());
    }
}
