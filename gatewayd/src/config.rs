//! The configuration file of gatewayd: read once, at start, and validated completely before anything else happens.
//!
//! [`Config`] holds no `Option` for a key that has a default: what the rest of the daemon sees is what it does. All
//! mistakes of a file are reported together ([`ConfigError`]), unknown keys among them, each with its line, its key, the
//! value found and what is accepted. Every key is described in `docs/configuration.md`.

mod engine;
mod network;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

pub use engine::{AdminConfig, EngineConfig, EngineLogin};
pub use gateway_net::document::Mistake;
use gateway_net::{
    document::{Document, Listing},
    log::LogFormat,
};
pub use gateway_proto::api::local::DEFAULT_SOCKET;
use gateway_proto::observe::RESPONSE_TIMEOUT;
pub use network::{NetworkConfig, NetworkError, ProxyChoice};

use crate::observer::Unobserved;

/// Where the file is looked for when none is named.
pub const DEFAULT_CONFIG_FILE: &str = "/etc/gatewayd/gatewayd.toml";
/// Above this the engine's own connect timeout of 5 s would come first, and it would see our silence, not our reset.
pub const MAX_HOLD: Duration = Duration::from_millis(4500);
/// A stream that waits for a place is refused before the most patient sender gives it up, which is after [`MAX_HOLD`].
const MAX_PLACE_HOLD: Duration = Duration::from_secs(4);
/// Addresses that an administrator may name: one per uplink and protocol, and some.
const MAX_ADDRESSES: usize = 8;
/// Connections that are not observed, at most.
const MAX_UNOBSERVED: usize = 1000;
/// Bytes in the path of a Unix socket at most (`sun_path` of Linux, without the final zero).
const MAX_SOCKET_PATH: usize = 107;

/// A validated configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Keys, policy and everything else that must survive a restart.
    pub state_dir: PathBuf,
    /// Unix socket of the local API.
    pub socket: PathBuf,
    /// `[tunnel]`
    pub tunnel: TunnelConfig,
    /// `[network]`
    pub network: NetworkConfig,
    /// `[sender]`
    pub sender: SenderConfig,
    /// `[listener]`
    pub listener: ListenerConfig,
    /// `[engine]`; none: this gateway offers no admin connections, and knows nothing of its engine.
    pub engine: Option<EngineConfig>,
    /// `[admin]`
    pub admin: AdminConfig,
    /// `[observer] off`: connections that are not looked into.
    pub unobserved: Unobserved,
    /// `[observer] late_after`: how long sending engines wait for an acknowledgement.
    pub late_after: Duration,
    /// `[audit]`
    pub audit: AuditConfig,
    /// `[limits]`
    pub limits: LimitsConfig,
    /// `[log] format`
    pub log_format: LogFormat,
    /// `[metrics] listen`: where Prometheus may fetch metrics over TCP; the local API answers them in any case.
    pub metrics_listen: Option<SocketAddr>,
}

/// `[tunnel]`: the one UDP socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelConfig {
    /// Its local address as configured; see [`bind_order`](Self::bind_order).
    pub listen: SocketAddr,
    /// Loopback addresses are candidates too: two gateways on one machine find each other directly.
    pub allow_loopback: bool,
    /// Direct paths may be used; otherwise everything goes over relays.
    pub direct: bool,
    /// Addresses at which partners reach the tunnel socket, known to the administrator.
    pub addresses: Vec<SocketAddr>,
    /// Ports behind hard NATs may be guessed, where the partner allows it too.
    pub port_guessing: bool,
    /// The router is asked to forward a port (PCP, NAT-PMP, UPnP).
    pub port_mapping: bool,
}

/// `[sender]`: local ports for the engine's senders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderConfig {
    /// The address the local ports are opened on.
    pub bind: IpAddr,
    /// How long an accepted socket is held while there is no path, before it is reset.
    pub hold: Duration,
}

/// `[listener]`: dialling the engine's listeners, and sockets with the engine in general.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerConfig {
    /// How long the engine may take to accept a connection.
    pub dial_timeout: Duration,
    /// Interval of TCP keepalives on sockets with the engine, both directions.
    pub keepalive: Duration,
    /// Connections an MLLP listener of the engine serves where the engine itself does not say, 0 for no limit; further
    /// streams wait.
    pub max_connections: u32,
    /// How long they wait before they are refused.
    pub hold: Duration,
}

/// `[audit]`: the log of streams, refusals and admin calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditConfig {
    /// Bytes of all files together, at most; the oldest go first.
    pub max_bytes: u64,
    /// Days that records are kept at most; none: as long as there is room.
    pub retention_days: Option<u32>,
    /// What was written is brought to the disk no more often than this.
    pub sync: Duration,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { max_bytes: 1 << 30, retention_days: None, sync: Duration::from_secs(1) }
    }
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Open streams of all connections together, at most.
    pub streams: u32,
}

impl TunnelConfig {
    /// The addresses to try in this order: on a machine without IPv6 the unspecified address `[::]` becomes `0.0.0.0`.
    pub fn bind_order(&self) -> impl Iterator<Item = SocketAddr> {
        let fallback = (self.listen.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED))
            .then(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), self.listen.port()));
        std::iter::once(self.listen).chain(fallback)
    }
}

impl Config {
    /// Reads and validates a file.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(file).map_err(|source| ConfigError::Read { file: file.to_owned(), source })?;
        Self::parse(file, &text)
    }

    /// Validates the text of `file` (named in errors only).
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let document = Document::parse(text);
        let config = Self::read(&document);
        let mistakes = document.into_mistakes();
        match config {
            Some(config) if mistakes.is_empty() => Ok(config),
            _ => Err(ConfigError::Mistakes { file: file.to_owned(), mistakes }),
        }
    }

    /// Reads every section even after a mistake, so that all are found; `None`: a required key is missing or wrong.
    fn read(document: &Document<'_>) -> Option<Self> {
        let mut root = document.root();
        let state_dir = root.required("state_dir", "an absolute path, for example \"/var/lib/gatewayd\"", |value| {
            value.text().map(PathBuf::from).filter(|path| path.is_absolute())
        });
        let default_socket = state_dir.as_deref().unwrap_or(Path::new("/")).join("gatewayd.sock");
        let socket = root.value("socket", SOCKET_ACCEPTED, default_socket, |value| {
            value.text().map(PathBuf::from).filter(|path| path.is_absolute() && fits_a_socket(path))
        });
        if !fits_a_socket(&socket) {
            root.mistake("socket", &socket.display().to_string(), SOCKET_ACCEPTED);
        }

        let mut tunnel = root.section("tunnel");
        let tunnel_config = TunnelConfig {
            listen: tunnel.value(
                "listen",
                "a UDP address with port, for example \"[::]:0\" or \"192.0.2.10:7070\"",
                SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
                |value| value.text()?.parse().ok(),
            ),
            allow_loopback: tunnel.flag("allow_loopback", false),
            direct: tunnel.flag("direct", true),
            addresses: tunnel.value(
                "addresses",
                "a list of at most 8 IP addresses with ports, for example [\"203.0.113.7:7070\"]",
                Vec::new(),
                |value| {
                    let addresses = value.texts()?.iter().map(|text| text.parse().ok()).collect::<Option<Vec<_>>>()?;
                    (addresses.len() <= MAX_ADDRESSES && addresses.iter().all(is_reachable)).then_some(addresses)
                },
            ),
            port_guessing: tunnel.flag("port_guessing", false),
            port_mapping: tunnel.flag("port_mapping", false),
        };
        tunnel.finish();

        let network_config = network::read(root.section("network"));

        let mut sender = root.section("sender");
        let sender_config = SenderConfig {
            bind: sender.value(
                "bind",
                "an IP address of this machine, for example \"127.0.0.1\"",
                Ipv4Addr::LOCALHOST.into(),
                |value| value.text()?.parse().ok(),
            ),
            hold: sender.duration("hold", Duration::from_secs(3), Duration::ZERO..=MAX_HOLD),
        };
        sender.finish();

        let mut listener = root.section("listener");
        let listener_config = ListenerConfig {
            dial_timeout: listener.duration(
                "dial_timeout",
                Duration::from_secs(2),
                Duration::from_millis(100)..=Duration::from_secs(30),
            ),
            keepalive: listener.duration(
                "keepalive",
                Duration::from_secs(30),
                Duration::from_secs(1)..=Duration::from_secs(7200),
            ),
            max_connections: listener.number("max_connections", 10, 0..=65_536),
            hold: listener.duration("hold", Duration::from_secs(3), Duration::ZERO..=MAX_PLACE_HOLD),
        };
        listener.finish();

        let engine = EngineConfig::read(root.section("engine"));
        let admin = AdminConfig::read(root.section("admin"));

        let mut observer = root.section("observer");
        let unobserved = observer.value(
            "off",
            "a list of at most 1000 public names of endpoints, or ids of connections, for example [\"ADT feed\"]",
            Vec::new(),
            |value| value.texts().filter(|names| names.len() <= MAX_UNOBSERVED),
        );
        let late_after =
            observer.duration("late_after", RESPONSE_TIMEOUT, Duration::from_secs(1)..=Duration::from_secs(3600));
        observer.finish();

        let mut audit = root.section("audit");
        let defaults = AuditConfig::default();
        let megabytes = audit.number("max_megabytes", 1024, 32..=1_048_576);
        let audit_config = AuditConfig {
            max_bytes: u64::from(megabytes) << 20,
            retention_days: audit.value(
                "retention_days",
                "a whole number from 1 to 36500",
                defaults.retention_days,
                |value| {
                    let days = value.integer().and_then(|days| u32::try_from(days).ok());
                    days.filter(|days| (1..=36_500).contains(days)).map(Some)
                },
            ),
            sync: audit.duration("sync", defaults.sync, Duration::ZERO..=Duration::from_secs(60)),
        };
        audit.finish();

        let mut limits = root.section("limits");
        let limits_config = LimitsConfig { streams: limits.number("streams", 4096, 1..=65_536) };
        limits.finish();

        let mut log = root.section("log");
        let log_format =
            log.value("format", "\"text\" or \"json\"", LogFormat::Text, |value| value.text()?.parse().ok());
        log.finish();

        let mut metrics = root.section("metrics");
        let metrics_listen = metrics.value(
            "listen",
            "a loopback address with port, for example \"127.0.0.1:9464\" (metrics are not protected further)",
            None,
            |value| value.text()?.parse().ok().filter(|address: &SocketAddr| address.ip().is_loopback()).map(Some),
        );
        metrics.finish();
        root.finish();

        Some(Self {
            state_dir: state_dir?,
            socket,
            tunnel: tunnel_config,
            network: network_config,
            sender: sender_config,
            listener: listener_config,
            engine,
            admin,
            unobserved: Unobserved::new(unobserved),
            late_after,
            audit: audit_config,
            limits: limits_config,
            log_format,
            metrics_listen,
        })
    }
}

const SOCKET_ACCEPTED: &str =
    "an absolute path of at most 107 bytes (a limit of Unix sockets), for example \"/run/gatewayd/gatewayd.sock\"";

/// An address that a partner can send to.
fn is_reachable(address: &SocketAddr) -> bool {
    address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast()
}

fn fits_a_socket(path: &Path) -> bool {
    path.as_os_str().len() <= MAX_SOCKET_PATH
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {}: name another with --config", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file says something that is not accepted.
    #[error("{}", Listing { file, mistakes })]
    Mistakes {
        /// The file.
        file: PathBuf,
        /// Every mistake, in the order of the file.
        mistakes: Vec<Mistake>,
    },
}
