//! The configuration: [`Config`] cannot be wrong any more.
//!
//! Nothing is bound before the whole file is accepted, and every mistake is reported at once with its line, its key, the value
//! found and what is accepted; files that it names are looked into. An unreadable or missing file is an error, never "defaults".

mod acme;
mod check;
mod limits;
mod network;

use std::{
    io,
    net::SocketAddr,
    num::NonZeroU64,
    path::{Path, PathBuf},
    time::Duration,
};

pub use acme::{Acme, ExternalAccount, ExternalAccountError};
pub use gateway_net::document::Mistake;
use gateway_net::{
    document::{Document, Listing},
    log::LogFormat,
    proxy::ProxyConfig,
    tls::TlsPin,
};
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
    /// The proxy to the control plane and the certificate authority.
    pub network: ProxyConfig,
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

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: name another with --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file says something that is not accepted.
    #[error("{}", Listing { file: path, mistakes })]
    Mistakes {
        /// The file.
        path: PathBuf,
        /// Every mistake, in the order of the file.
        mistakes: Vec<Mistake>,
    },
}

impl Config {
    /// Reads and validates a file. Blocking, as is [`parse`](Self::parse): files that it names are looked into.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Validates the text of a file; `path` is for the messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let document = Document::parse(text);
        let config = check::read(&document);
        let mistakes = document.into_mistakes();
        match config {
            Some(config) if mistakes.is_empty() => Ok(config),
            Some(_) | None => Err(ConfigError::Mistakes { path: path.to_owned(), mistakes }),
        }
    }
}
