//! gateway-ctl with gatewayd, over its Unix socket (HTTP + JSON).
//!
//! - `GET /v1/status` → [`Status`]
//! - `POST /v1/enroll` [`EnrollBody`] → [`super::gateway::EnrollAnswer`] without secrets ([`Enrolled`])
//! - `POST /v1/reconnect` [`ReconnectBody`] → 204: probe every path of a peer anew
//! - `GET /v1/audit?limit=N&act=PREFIX` → [`AuditNewest`]
//! - `GET /v1/audit/lines?from=SEQUENCE` → lines of the audit log from that record on, as they are in a file; empty: none
//! - `GET /v1/audit/head` → [`Head`], as the daemon remembers it
//! - `GET /v1/netcheck` → the last [`Report`](crate::netcheck::Report) on the network; 404 before the first
//! - `POST /v1/netcheck` [`NetcheckBody`](crate::netcheck::NetcheckBody) → a new one, after up to ten seconds
//! - `GET /v1/metrics` → Prometheus text

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::gateway::{Connectivity, EngineHead, PathKind};
use crate::{
    audit::{line::Head, record::Record},
    engine::EngineChannel,
    id::ConnectionId,
    identity::GatewayPublicKey,
    netcheck::PortMapping,
    policy::{Activation, AdminScope, ConnectionKind},
};

/// Body of `POST /v1/enroll`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrollBody {
    /// The enrolment code.
    pub code: String,
}

impl std::fmt::Debug for EnrollBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EnrollBody(masked)")
    }
}

/// Answer to an enrolment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Enrolled {
    /// The server this gateway now belongs to.
    pub server_id: String,
    /// Its name.
    pub server_name: String,
    /// Its organization.
    pub organization_name: String,
    /// Our key.
    pub key: GatewayPublicKey,
}

/// Body of `POST /v1/reconnect`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReconnectBody {
    /// Server name, server id or key of the peer.
    pub peer: String,
}

/// The newest records of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditNewest {
    /// Oldest first.
    pub lines: Vec<AuditLine>,
    /// Whether the chain of the files read for them is whole; otherwise lines were changed or removed.
    pub whole: bool,
}

/// One record of the audit log with its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    /// 64 hex digits.
    pub hash: String,
    /// The record.
    #[serde(flatten)]
    pub record: Record,
}

/// Admin calls since the daemon started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AdminCounters {
    /// Answered by the engine.
    pub passed: u64,
    /// Refused by the guard.
    pub refused: u64,
    /// Neither: the engine did not answer, or the caller or the permission went before it did.
    pub unanswered: u64,
    /// Could not be written to the log.
    pub unrecorded: u64,
}

/// Everything a person at this gateway wants to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of gatewayd.
    pub version: String,
    /// Our key.
    pub key: GatewayPublicKey,
    /// Our server's name, once enrolled.
    pub server: Option<String>,
    /// Our organization's name, once enrolled.
    pub organization: Option<String>,
    /// When the daemon started, Unix milliseconds.
    pub started_at: u64,
    /// The link to the control plane.
    pub control: ControlStatus,
    /// The policy in force.
    pub policy: PolicyStatus,
    /// Relays we are attached to or try to attach to.
    pub relays: Vec<RelayStatus>,
    /// Peers.
    pub peers: Vec<PeerStatus>,
    /// Connections.
    pub connections: Vec<ConnectionStatus>,
    /// The UDP socket of the tunnels; none from a daemon that does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<SocketStatus>,
    /// The port that the router forwards to it; none: not configured, or not yet tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_mapping: Option<PortMapping>,
    /// The engine beside this gateway; none: no `[engine]` user is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineStatus>,
    /// Our audit log, as the control plane knows it; none: it has not asked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditComparison>,
}

/// Our audit log beside what the control plane knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditComparison {
    /// The head that we reported and that the control plane asked for, when we last looked for it.
    pub asked: Head,
    /// What the files hold.
    pub held: AuditHeld,
}

/// Whether the files of an audit log hold a record that was reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditHeld {
    /// Yes, and the lines before it in its file lead to it.
    Held,
    /// It was removed in order, when there was no more room or time for it.
    Removed,
    /// The log ends before it: its newest lines were removed.
    CutOff,
    /// It is another record, or the lines that lead to it were changed or removed.
    Changed,
}

impl AuditHeld {
    /// Whether somebody has to look.
    pub fn is_alarm(self) -> bool {
        matches!(self, Self::CutOff | Self::Changed)
    }
}

/// The UDP socket of the tunnels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketStatus {
    /// Its own address.
    pub address: SocketAddr,
    /// Times it was opened anew since start.
    pub reopened: u64,
    /// Why it carries nothing.
    pub problem: Option<String>,
}

/// The engine beside this gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// How the gateway gets on with it, and what of it sends through the gateway.
    pub head: EngineHead,
    /// Its channels.
    pub channels: Vec<EngineChannel>,
}

/// The link to the control plane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControlStatus {
    /// Heard from within the silence limit.
    pub connected: bool,
    /// Base URL.
    pub url: Option<String>,
    /// Last sign of life, Unix milliseconds.
    pub last_heard_at: Option<u64>,
    /// Its clock minus ours, milliseconds.
    pub clock_skew_ms: Option<i64>,
    /// Host and port of the HTTP proxy on the way to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// Why it is not connected.
    pub problem: Option<String>,
}

/// The policy in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Its revision, 0 for none.
    pub revision: u64,
    /// When it was signed, Unix seconds.
    pub issued_at: Option<u64>,
    /// When the control plane last confirmed it, Unix seconds.
    pub confirmed_at: Option<u64>,
    /// Seconds since then: the age that counts against the staleness budget.
    pub age_secs: Option<u64>,
    /// Why the last policy offered was refused.
    pub problem: Option<String>,
}

/// One relay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RelayStatus {
    /// Its id.
    pub id: String,
    /// Its URL.
    pub url: String,
    /// Where it stands, as the platform's operator says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Whether peers look for us here.
    pub home: bool,
    /// Why it is home: `map_order`, `nearest`, `nearer`, `much_nearer`, `former_failed`; none: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home_reason: Option<String>,
    /// The same in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home_reason_text: Option<String>,
    /// How far it is, by STUN: the median of the last five minutes, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// Attached now.
    pub attached: bool,
    /// Round-trip time of the last heartbeat, milliseconds.
    pub rtt_ms: Option<f64>,
    /// Whether datagrams travel over UDP or TLS, and why: `not_offered`, `no_address`, `trying`, `passes`, `does_not_pass`,
    /// `stopped_passing`, `only_small_packets`. Only `passes` is UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<String>,
    /// The same in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier_text: Option<String>,
    /// Why it is not attached.
    pub problem: Option<String>,
}

/// One peer gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its key.
    pub key: GatewayPublicKey,
    /// Its server.
    pub server: String,
    /// Its organization; `Self` for our own.
    pub organization: String,
    /// End-to-end proof.
    pub connectivity: Connectivity,
    /// Path in use; none while there is none.
    pub path: Option<PathKind>,
    /// Why this path, a stable code.
    pub path_reason: String,
    /// The same in words.
    pub path_reason_text: String,
    /// Address of a direct path.
    pub remote_address: Option<String>,
    /// Round-trip time measured end to end through the tunnel, milliseconds.
    pub rtt_ms: Option<f64>,
    /// Last successful end-to-end round trip, Unix milliseconds.
    pub last_proof_at: Option<u64>,
    /// Path changes since start.
    pub path_changes: u64,
    /// The same by reason, and what looking for paths cost.
    #[serde(default)]
    pub path_counts: PathCounts,
    /// Key exchange of the tunnel, for example `X25519MLKEM768`.
    pub key_exchange: Option<String>,
}

/// What happened on the paths to one peer since start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathCounts {
    /// Changes of the selected path by the code of their reason.
    pub changes: BTreeMap<String, u64>,
    /// Times the direct path missed two answers, so that data was sent over the relay too.
    pub distrusted: u64,
    /// Probes sent.
    pub probes_sent: u64,
    /// The same in bytes of UDP payload.
    pub probe_bytes_sent: u64,
    /// Runs of port guessing.
    pub guess_runs: u64,
    /// Probes of those runs.
    pub guess_probes: u64,
}

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
    /// Path in use.
    pub path: Option<PathKind>,
    /// Why this path, in words.
    pub path_reason: String,
    /// End-to-end round-trip time, milliseconds.
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

/// What was observed since the daemon started, without a byte of payload (docs/observers.md).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "protocol", rename_all = "snake_case")]
pub enum ExchangeStatus {
    /// HL7 v2 over MLLP.
    Mllp(MllpStatus),
    /// HTTP, FHIR.
    Http(HttpStatus),
    /// DICOM.
    Dicom(DicomStatus),
}

/// Times to an answer over the last 10 to 20 minutes, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AnswerTimes {
    /// Half of the answers came within.
    pub p50_ms: f64,
    /// 99 of 100 came within.
    pub p99_ms: f64,
}

/// What an MLLP connection showed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MllpStatus {
    /// Whole messages that passed.
    pub messages: u64,
    /// Answers `AA` and `CA`.
    pub accepted: u64,
    /// Answers `AE` and `CE`.
    pub errors: u64,
    /// Answers `AR` and `CR`.
    pub rejected: u64,
    /// Answers without such a code.
    pub other_answers: u64,
    /// Commit blocks of MLLP release 2 that accept; neither messages nor answers.
    #[serde(default)]
    pub commits_accepted: u64,
    /// Commit blocks that refuse.
    #[serde(default)]
    pub commits_refused: u64,
    /// Messages without an answer now, also those that a commit block has accepted.
    pub outstanding: u64,
    /// Messages whose connection ended before an answer passed or a commit block accepted them.
    pub unacknowledged: u64,
    /// Messages that came again on a new connection without an answer, after the sending engine had given up.
    pub duplicates: u64,
    /// Messages that came again after the tunnel or the policy had ended their connection.
    pub retries: u64,
    /// Answers that passed after their message had come again.
    pub late_answers: u64,
    /// Answers that name another message than those that wait.
    pub mismatched_answers: u64,
    /// Faults of the framing by kind: `junk`, `end_missing`, `no_header`, `empty`, `cut`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub framing_faults: BTreeMap<String, u64>,
    /// Messages by type, a few types one by one, the rest as `other`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub types: BTreeMap<String, u64>,
    /// Type of the last message.
    pub last_type: Option<String>,
    /// Code of the last answer.
    pub last_code: Option<String>,
    /// From message to answer.
    pub answer_times: Option<AnswerTimes>,
}

/// What an HTTP connection showed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HttpStatus {
    /// GET, HEAD, OPTIONS.
    pub reads: u64,
    /// POST, PUT, PATCH, DELETE.
    pub writes: u64,
    /// Other methods.
    pub others: u64,
    /// Answers by class, 1xx to 5xx.
    pub statuses: [u64; 5],
    /// Requests whose connection ended before an answer passed.
    pub unanswered: u64,
    /// Connections that became something else.
    pub upgraded: u64,
    /// Connections that were no HTTP/1.1.
    pub unreadable: u64,
    /// From request to answer.
    pub answer_times: Option<AnswerTimes>,
}

/// What a DICOM connection showed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DicomStatus {
    /// Associations asked for.
    pub requested: u64,
    /// Accepted.
    pub accepted: u64,
    /// Rejected.
    pub rejected: u64,
    /// Aborted.
    pub aborted: u64,
    /// Released in order.
    pub released: u64,
    /// Data units from the side that asked.
    pub data_units_sent: u64,
    /// Data units to it.
    pub data_units_received: u64,
    /// Connections that were no DICOM.
    pub unreadable: u64,
    /// Application entity called last.
    pub called: Option<String>,
    /// Application entity that called last.
    pub calling: Option<String>,
    /// Why the last association was rejected.
    pub rejection: Option<String>,
}
