//! The configuration: a file form that mirrors the TOML (`file.rs`), and [`Config`], which cannot be wrong any more.
//!
//! Nothing is bound or opened before the whole file is accepted, and every mistake is reported at once with file, key, value and
//! what is accepted. An unreadable or missing file is an error, never "defaults".

mod check;
mod file;

use std::{
    net::SocketAddr,
    num::NonZeroU64,
    path::{Path, PathBuf},
    time::Duration,
};

pub use check::{ConfigError, Mistake};
use gateway_net::{log::LogFormat, tls::TlsPin};
use gateway_proto::{id::RelayId, identity::GatewayPublicKey};

/// A validated configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This relay's id; without one it is made once and kept in the data directory.
    pub relay_id: Option<RelayId>,
    /// Where the relay listens for TLS.
    pub listen: SocketAddr,
    /// The two UDP addresses that answer STUN.
    pub stun_listen: [SocketAddr; 2],
    /// Where datagrams are relayed over UDP.
    pub udp_listen: UdpListen,
    /// Where metrics and health are served over plain HTTP; always a loopback address.
    pub metrics_listen: SocketAddr,
    /// Where the relay keeps its TLS key, its id and `ready.json`.
    pub data_dir: PathBuf,
    /// The policy keys of the control planes whose tokens are accepted.
    pub control_keys: Vec<GatewayPublicKey>,
    /// Where newer policy keys are asked for; none: those of the configuration are all.
    pub control: Option<ControlPlane>,
    /// Where certificate and key come from.
    pub tls: TlsSource,
    /// Bounds.
    pub limits: Limits,
    /// Times.
    pub timing: Timing,
    /// Logging.
    pub log: Log,
}

/// Where datagrams are relayed over UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UdpListen {
    /// Nowhere: over TLS only.
    Off,
    /// On the STUN ports; gateways use the first.
    Stun,
    /// On a port of its own.
    Own(SocketAddr),
}

/// Where certificate and key come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsSource {
    /// PEM files of the operator.
    Files {
        /// The chain, the relay's own certificate first.
        certificate: PathBuf,
        /// The key, mode 0600.
        key: PathBuf,
    },
    /// A self-signed pair in the data directory.
    Generated {
        /// Names in the certificate.
        names: Vec<String>,
    },
    /// `[acme]`: certificates of an authority that speaks ACME, for the key in the data directory.
    Acme(Acme),
}

/// The control plane whose keys are asked for. What it answers counts by signature alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlane {
    /// Its base URL, `https://host:port`.
    pub url: String,
    /// Fingerprint of its TLS key; none: the web PKI vouches for it.
    pub pin: Option<TlsPin>,
    /// Between two questions.
    pub interval: Duration,
}

/// How certificates are ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// The names in the certificate, all of which lead to this relay.
    pub domains: Vec<String>,
    /// Addresses the authority may write to, as `mailto:` URLs.
    pub contact: Vec<String>,
    /// The authority's directory.
    pub directory: String,
    /// PEM file with the authorities that the directory's own TLS certificate may be from; none: the public web PKI.
    pub root: Option<PathBuf>,
    /// Where challenges of HTTP-01 are answered; none: TLS-ALPN-01 on the relay's own port.
    pub http_listen: Option<SocketAddr>,
}

/// Bounds on what gateways and strangers can make the relay spend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Gateways attached at a time.
    pub max_clients: usize,
    /// What one gateway may send; `None` for no limit.
    pub client_bytes_per_second: Option<NonZeroU64>,
    /// What one gateway may send at once.
    pub client_burst_bytes: NonZeroU64,
    /// What the gateways of one organization may send together; `None` for no limit.
    pub organization_bytes_per_second: Option<NonZeroU64>,
    /// What the gateways of one organization may send at once.
    pub organization_burst_bytes: NonZeroU64,
    /// Gateways of one organization attached at a time.
    pub organization_clients: usize,
    /// Frames of datagrams waiting for one gateway.
    pub queue_datagrams: usize,
    /// Bytes of datagrams waiting for one gateway.
    pub queue_bytes: usize,
    /// Signals one gateway may send.
    pub signals_per_second: NonZeroU64,
    /// Connections accepted in all.
    pub accept_per_second: NonZeroU64,
    /// Connections accepted from one address (IPv6: from one /64).
    pub accept_per_second_per_source: NonZeroU64,
    /// Connections open from one address (IPv6: from one /64), those of attached gateways included.
    pub connections_per_source: usize,
    /// STUN requests answered per address (IPv6: per /64).
    pub stun_per_second_per_source: NonZeroU64,
}

/// Times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// From the connect to the proof.
    pub admission: Duration,
    /// Silence after which a link is pinged; two pings without a sign of life end it.
    pub heartbeat: Duration,
    /// How long gateways get to leave when the relay stops.
    pub drain_grace: Duration,
    /// How long a link may outlive its token: long, because links must survive an outage of the control plane;
    /// not for ever, because a gateway that gets no tokens any more must be gone some day.
    pub expired_link_grace: Duration,
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Text or JSON.
    pub format: LogFormat,
    /// Filter, as of `RUST_LOG`, which wins over it.
    pub filter: String,
}

impl Config {
    /// Reads and validates a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Validates the text of a file; `path` is for the messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let table: toml::Table =
            text.parse().map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
        check::check(table).map_err(|mistakes| ConfigError::Mistakes { path: path.to_owned(), mistakes })
    }
}
