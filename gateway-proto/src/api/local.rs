//! gateway-ctl with gatewayd, over its Unix socket (HTTP + JSON).
//!
//! - `GET /v1/status` → [`Status`]
//! - `POST /v1/enroll` [`EnrollBody`] → [`super::gateway::EnrollAnswer`] without secrets ([`Enrolled`])
//! - `POST /v1/reconnect` [`ReconnectBody`] → 204: probe every path of a peer anew
//! - `GET /v1/audit?limit=N&act=PREFIX` → [`AuditNewest`]
//! - `GET /v1/audit/lines?from=SEQUENCE` → lines of the audit log from that record on, as they are in a file; empty: none
//! - `GET /v1/audit/head` → [`Head`](crate::audit::line::Head), as the daemon remembers it
//! - `GET /v1/netcheck` → the last [`Report`](crate::netcheck::Report) on the network; 404 before the first
//! - `POST /v1/netcheck` [`NetcheckBody`](crate::netcheck::NetcheckBody) → a new one, after up to 15 seconds
//! - `GET /v1/metrics` → Prometheus text

mod audit;
mod connection;
mod exchange;

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

pub use self::{
    audit::{AdminCounters, AuditComparison, AuditHeld, AuditLine, AuditNewest},
    connection::{ConnectionStatus, PlacesStatus, PlacesToldBy},
    exchange::{AnswerTimes, DicomStatus, ExchangeStatus, HttpStatus, MllpStatus},
};
use super::gateway::{Connectivity, EngineHead, PathKind};
use crate::{engine::EngineChannel, identity::GatewayPublicKey, netcheck::PortMapping, twice::RunsTwice};

/// The socket of an installed daemon, whose `state_dir` is `/var/lib/gatewayd`: where its clients look when none is named.
pub const DEFAULT_SOCKET: &str = "/var/lib/gatewayd/gatewayd.sock";

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
    /// Changes of what carries relayed data, since the daemon started.
    #[serde(default)]
    pub relay_changes: RelayChanges,
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
    /// Which relays see this machine otherwise than others do, and who is believed; none: they agree, or all differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relays_disagree: Option<String>,
    /// The engine beside this gateway; none: no `[engine]` user is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineStatus>,
    /// Our audit log, as the control plane knows it; none: it has not asked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditComparison>,
    /// Another process has our key: either it holds our place, and we carry nothing, or it was refused within the last hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs_twice: Option<RunsTwice>,
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

/// Changes of what carries relayed data, by the code of their reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayChanges {
    /// UDP took over from TLS (`passes`), or TLS from UDP (`stopped_passing`, `only_small_packets`, `lossy`), over all relays.
    #[serde(default)]
    pub carrier: BTreeMap<String, u64>,
    /// Another relay became home: codes as in [`RelayStatus::home_reason`]; the first one counts too.
    #[serde(default)]
    pub home: BTreeMap<String, u64>,
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
    /// `stopped_passing`, `only_small_packets`, `lossy`. Only `passes` is UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<String>,
    /// The same in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier_text: Option<String>,
    /// How often UDP took over from TLS and the other way round, by the code of the reason, since the gateway looks to this relay.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub carrier_changes: BTreeMap<String, u64>,
    /// TLS to it goes through the HTTP proxy.
    #[serde(default)]
    pub proxied: bool,
    /// Much of what this gateway sends is dropped, because a limit of the relay is reached: that for the `gateway`, that for its
    /// `organization`, or `other`. None: it does not say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// The same in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_text: Option<String>,
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
    /// Last successful end-to-end round trip, Unix milliseconds. While no stream is open it may have been answered by the tunnel's QUIC
    /// only, beside the partner's gateway.
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
