//! What a stand-in engine is made of: users, settings and channels, as JSON in a file. The engine keeps it there, like
//! its database, so that it comes back the same after a restart.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// State of a channel or of one of its connectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ChannelState {
    /// Works.
    Started,
    /// Does nothing; its port is closed.
    Stopped,
    /// The source does nothing, its port is closed; destinations go on.
    Paused,
}

impl ChannelState {
    /// The word in answers.
    pub fn word(self) -> &'static str {
        match self {
            Self::Started => "STARTED",
            Self::Stopped => "STOPPED",
            Self::Paused => "PAUSED",
        }
    }
}

/// A whole engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineDefinition {
    /// `https.port`; 0 becomes a free one at the first start.
    pub https_port: u16,
    /// `http.port`; 0 becomes a free one at the first start.
    pub http_port: u16,
    /// `http.contextpath`: a prefix of everything, for example `/oie`.
    pub context_path: String,
    /// Users and their passwords. The engine has no roles: each may do everything.
    pub users: BTreeMap<String, String>,
    /// `server.api.bypassword`: password of the user `bypass`, who may come by Basic auth from a loopback address.
    pub bypass_password: Option<String>,
    /// `password.retrylimit`; 0, the engine's default: no lock-out.
    pub retry_limit: u32,
    /// What checking a password costs, milliseconds (PBKDF2 with 600,000 rounds).
    pub login_cost_ms: u64,
    /// How long ports and API are closed during a restart, milliseconds.
    pub boot_ms: u64,
    /// The configuration map, for `${name}` in ports.
    pub configuration_map: BTreeMap<String, String>,
    /// Channels.
    pub channels: Vec<ChannelDefinition>,
}

impl Default for EngineDefinition {
    fn default() -> Self {
        Self {
            https_port: 0,
            http_port: 0,
            context_path: String::new(),
            users: BTreeMap::from([("admin".into(), "admin".into())]),
            bypass_password: None,
            retry_limit: 0,
            login_cost_ms: 530,
            boot_ms: 10_000,
            configuration_map: BTreeMap::new(),
            channels: Vec::new(),
        }
    }
}

/// A channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelDefinition {
    /// UUID.
    pub id: String,
    /// Name.
    pub name: String,
    /// Goes up with every change.
    #[serde(default = "one")]
    pub revision: u32,
    /// Switched on.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Deployed: runs in some state. An undeployed channel is stored only.
    #[serde(default = "yes")]
    pub deployed: bool,
    /// State after a deployment.
    #[serde(default = "started")]
    pub initial_state: ChannelState,
    /// Where messages come from.
    pub source: SourceDefinition,
    /// Where they go.
    #[serde(default)]
    pub destinations: Vec<DestinationDefinition>,
}

/// The source connector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceDefinition {
    /// `TCP Listener`, `HTTP Listener`, `Web Service Listener`, `DICOM Listener`, `Channel Reader`, `File Reader`, …
    pub transport: String,
    /// Host of a listener, as shown; it is always opened on loopback.
    #[serde(default = "all_interfaces")]
    pub host: String,
    /// Port of a listener, or `${name}` of the configuration map; `0` becomes a free one at the first start.
    #[serde(default)]
    pub port: String,
    /// TCP Listener: false connects to `host:port` instead of listening.
    #[serde(default = "yes")]
    pub server_mode: bool,
    /// TCP Listener: connections at once.
    #[serde(default = "ten")]
    pub max_connections: usize,
    /// TCP Listener: `MLLP` or `Basic`.
    #[serde(default = "mllp")]
    pub mode: String,
    /// HTTP Listener.
    #[serde(default)]
    pub context_path: String,
    /// DICOM Listener: `notls` or a mode of TLS.
    #[serde(default = "no_tls")]
    pub tls: String,
}

/// A destination connector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DestinationDefinition {
    /// Name.
    pub name: String,
    /// `TCP Sender`, `HTTP Sender`, `DICOM Sender`, `File Writer`, …; only TCP Senders send.
    pub transport: String,
    /// TCP and DICOM Sender: host; HTTP Sender: URL; File Writer: path.
    pub host: String,
    /// TCP and DICOM Sender: port, or `${name}`.
    #[serde(default)]
    pub port: String,
    /// Switched on.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Queue; the engine's default is off.
    #[serde(default)]
    pub queue: bool,
    /// Validate Response; the default of a new TCP Sender with HL7 v2 is on.
    #[serde(default = "yes")]
    pub validate_response: bool,
    /// Keeps its connection.
    #[serde(default)]
    pub keep_connection_open: bool,
    /// Between two tries of a queued message, milliseconds.
    #[serde(default = "ten_thousand")]
    pub retry_interval_ms: u64,
    /// How long an answer may take, and a connect, milliseconds.
    #[serde(default = "five_thousand")]
    pub response_timeout_ms: u64,
    /// How long a connection that is kept may be idle before the engine closes it, milliseconds; 0: for ever.
    #[serde(default = "five_thousand")]
    pub send_timeout_ms: u64,
}

impl EngineDefinition {
    /// A channel.
    pub fn channel(&self, id: &str) -> Option<&ChannelDefinition> {
        self.channels.iter().find(|channel| channel.id == id)
    }

    /// `${name}` resolved from the configuration map.
    pub fn resolve(&self, port: &str) -> Option<u16> {
        let variable = port.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
        variable.map_or(Some(port), |name| self.configuration_map.get(name).map(String::as_str))?.parse().ok()
    }
}

impl ChannelDefinition {
    /// A started MLLP listener on a free port, with the engine's defaults.
    pub fn mllp_listener(id: &str, name: &str) -> Self {
        Self::with_source(id, name, SourceDefinition::of("TCP Listener", "0"))
    }

    /// A channel that sends what it is given to one TCP destination.
    pub fn sender(id: &str, name: &str, destination: DestinationDefinition) -> Self {
        let channel = Self::with_source(id, name, SourceDefinition::of("Channel Reader", ""));
        Self { destinations: vec![destination], ..channel }
    }

    /// A started channel with this source.
    pub fn with_source(id: &str, name: &str, source: SourceDefinition) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            revision: 1,
            enabled: true,
            deployed: true,
            initial_state: ChannelState::Started,
            source,
            destinations: Vec::new(),
        }
    }
}

impl SourceDefinition {
    /// A source with the engine's defaults.
    pub fn of(transport: &str, port: &str) -> Self {
        Self {
            transport: transport.into(),
            host: all_interfaces(),
            port: port.into(),
            server_mode: true,
            max_connections: ten(),
            mode: mllp(),
            context_path: String::new(),
            tls: no_tls(),
        }
    }

    /// Whether it has a port at all.
    pub fn is_listener(&self) -> bool {
        ["TCP Listener", "HTTP Listener", "Web Service Listener", "DICOM Listener"].contains(&self.transport.as_str())
    }
}

impl DestinationDefinition {
    /// A TCP Sender with the engine's defaults: no queue, Validate Response on.
    pub fn tcp(name: &str, host: &str, port: u16) -> Self {
        Self {
            name: name.into(),
            transport: "TCP Sender".into(),
            host: host.into(),
            port: port.to_string(),
            enabled: true,
            queue: false,
            validate_response: true,
            keep_connection_open: false,
            retry_interval_ms: ten_thousand(),
            response_timeout_ms: five_thousand(),
            send_timeout_ms: five_thousand(),
        }
    }
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

fn started() -> ChannelState {
    ChannelState::Started
}

fn all_interfaces() -> String {
    "0.0.0.0".into()
}

fn ten() -> usize {
    crate::mllp::MAX_CONNECTIONS
}

fn mllp() -> String {
    "MLLP".into()
}

fn no_tls() -> String {
    "notls".into()
}

fn five_thousand() -> u64 {
    5_000
}

fn ten_thousand() -> u64 {
    10_000
}
