//! The integration engine beside a gateway, as its own REST API describes it: which channels listen where, in which state
//! they are, and which destinations could send through the gateway.
//!
//! | module | what it holds |
//! |---|---|
//! | [`lossy`] | reading the engine's JSON, in which a list of one is its element and text may be a number |
//! | [`answers`] | the answers that discovery asks for, and their limits |
//! | [`discovery`] | the state machine: answers in, channels out, and whose details are wanted next |
//! | [`advice`] | what loses messages or cannot work, in words |
//! | [`plan`] | what differs between the channels found and those registered on the platform |
//! | [`port_owner`] | whether behind a registered channel's port there is that channel |
//!
//! What comes from an engine is never trusted further than this: names are cut and cleaned, numbers have their range,
//! lists have a cap, and nothing found is ever published by itself. Secrets of connectors are not read at all.

pub mod advice;
pub mod answers;
pub mod discovery;
pub mod lossy;
pub mod plan;
pub mod port_owner;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::policy::HL7V2_MLLP;

/// Channels of one engine that are looked at; more are counted.
pub const MAX_CHANNELS: usize = 2_000;
/// Destinations of one channel that are looked at.
pub const MAX_DESTINATIONS: usize = 20;
/// Characters of a name or an address at most.
pub const MAX_TEXT: usize = 120;

/// The engine's word for the destination whose answers are looked at, or not.
const TCP_SENDER: &str = "TCP Sender";
/// The one whose users share a server without mixing anything: each has its own directory there.
const FILE_WRITER: &str = "File Writer";

/// A channel of the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EngineChannel {
    /// The engine's id of it; stays the same when it is renamed.
    pub id: String,
    /// Name. The engine's JSON turns a name that looks like a number into that number.
    pub name: String,
    /// State.
    pub state: EngineChannelState,
    /// Changed in the engine and not deployed yet: what runs may differ from what is shown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undeployed_changes: bool,
    /// The port it listens on; none: its source has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<EngineListener>,
    /// Where it sends to, at most [`MAX_DESTINATIONS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<EngineDestination>,
    /// Messages.
    #[serde(default)]
    pub counts: EngineCounts,
}

/// State of a channel of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EngineChannelState {
    /// Works.
    Started,
    /// Stopped: its port is closed.
    Stopped,
    /// Paused: its source does nothing, its port is closed.
    Paused,
    /// Between two states.
    Changing,
    /// Stored, but not in service.
    Undeployed,
}

/// The listening end of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EngineListener {
    /// The engine's word for the connector, for example `TCP Listener`; empty while its details are not known.
    pub transport: String,
    /// The behavior that fits; none: there is none for this connector.
    pub behavior: Option<String>,
    /// Host as configured; `0.0.0.0` is all interfaces.
    pub host: String,
    /// Port, variables resolved.
    pub port: u16,
    /// Where the gateway reaches it; none: the host is a name.
    #[schema(value_type = Option<String>)]
    pub address: Option<SocketAddr>,
    /// Connections a TCP Listener serves at once, 0 for no limit; none: not known, or no limit of this connector's own. Of
    /// a channel with changes that are not deployed it is the number of what runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// It speaks TLS.
    pub tls: bool,
    /// False: a TCP Listener in client mode, which connects out and listens nowhere.
    pub server_mode: bool,
}

/// A destination of a channel: where, never with what credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EngineDestination {
    /// Number of the connector, from 1.
    pub id: u32,
    /// Name.
    pub name: String,
    /// The engine's word for the connector, for example `TCP Sender`.
    pub transport: String,
    /// Host of a TCP, DICOM, HTTP or Web Service Sender, or of a File Writer's server.
    pub host: Option<String>,
    /// Its port.
    pub port: Option<u16>,
    /// Switched on.
    pub enabled: bool,
    /// Whether messages wait in a queue when they cannot be sent.
    pub queue: bool,
    /// Whether the answer is looked at (Validate Response).
    pub validate_response: bool,
}

/// Messages of a channel since the engine's statistics were cleared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EngineCounts {
    /// Received.
    pub received: u64,
    /// Sent.
    pub sent: u64,
    /// Failed.
    pub errors: u64,
    /// Waiting in queues now.
    pub queued: u64,
    /// Filtered.
    pub filtered: u64,
}

/// How the gateway gets on with the engine's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EngineState {
    /// Not asked yet.
    Unknown,
    /// It answers.
    Up,
    /// It does not answer: stopped, restarting, or out of reach.
    Down,
    /// It does not let the gateway in.
    LoginRefused,
    /// It answers what cannot be understood.
    NotUnderstood,
}

impl EngineChannel {
    /// A channel like most, for tests and examples: it is started, with an MLLP listener for ten connections on a port of the
    /// loopback interface, and that is all.
    pub fn example(id: &str, name: &str, port: u16) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            state: EngineChannelState::Started,
            undeployed_changes: false,
            listener: Some(EngineListener {
                transport: "TCP Listener".to_owned(),
                behavior: Some(HL7V2_MLLP.to_owned()),
                host: "0.0.0.0".to_owned(),
                port,
                address: Some(([127, 0, 0, 1], port).into()),
                max_connections: Some(10),
                tls: false,
                server_mode: true,
            }),
            destinations: Vec::new(),
            counts: EngineCounts::default(),
        }
    }

    /// The listener, if a partner's message can arrive there now: it listens, and the channel is started.
    pub fn exposed(&self) -> Option<&EngineListener> {
        self.listener.as_ref().filter(|listener| listener.server_mode && self.state == EngineChannelState::Started)
    }

    /// The listener, whatever the state of the channel; one in client mode listens nowhere.
    pub fn listening(&self) -> Option<&EngineListener> {
        self.listener.as_ref().filter(|listener| listener.server_mode)
    }
}

impl EngineListener {
    /// Whether it is known to connect out, as a TCP Listener in client mode.
    pub fn connects_out(&self) -> bool {
        !self.server_mode && !self.is_unread()
    }

    /// Whether nothing but its port is known: its details were not read yet.
    pub fn is_unread(&self) -> bool {
        !self.server_mode && self.transport.is_empty()
    }
}

/// Where a destination sends, seen from a local port of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// To it.
    Reaches,
    /// To its number at an address of this machine at which it is not open.
    Misses,
    /// Elsewhere, or nobody can tell.
    Elsewhere,
}

impl EngineDestination {
    /// Where it sends, seen from the local port that is opened at `local`.
    pub fn aim(&self, local: SocketAddr) -> Aim {
        let Some(host) = self.host.as_deref().filter(|_| self.port == Some(local.port())) else {
            return Aim::Elsewhere;
        };
        let takes = |ip: &IpAddr| match local.ip().to_canonical() {
            IpAddr::V4(all) if all.is_unspecified() => ip.is_loopback() && ip.is_ipv4(),
            // Of both families, as the system has it unless told otherwise.
            IpAddr::V6(all) if all.is_unspecified() => ip.is_loopback(),
            one @ (IpAddr::V4(_) | IpAddr::V6(_)) => one == *ip,
        };
        let addresses = addresses(host);
        if addresses.iter().any(takes) {
            Aim::Reaches
        } else if addresses.iter().any(IpAddr::is_loopback) {
            Aim::Misses
        } else {
            Aim::Elsewhere
        }
    }

    /// Whether it could be `port` of the machine it runs on, because the engine knows a variable where we know nothing.
    pub fn may_be_local(&self, port: u16) -> bool {
        let is_variable = |host: &str| host.contains('$');
        self.port.is_none_or(|known| known == port)
            && self
                .host
                .as_deref()
                .is_some_and(|host| is_variable(host) || addresses(host).iter().any(IpAddr::is_loopback))
    }
}

/// The addresses of a host, as far as nobody needs to be asked.
fn addresses(host: &str) -> Vec<IpAddr> {
    if host.eq_ignore_ascii_case("localhost") {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    let literal = host.trim_matches(['[', ']']).parse::<IpAddr>();
    literal.map(|ip| ip.to_canonical()).into_iter().collect()
}

impl std::fmt::Display for EngineChannelState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::Paused => "paused",
            Self::Changing => "changing",
            Self::Undeployed => "not deployed",
        })
    }
}

impl std::fmt::Display for EngineState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unknown => "not asked yet",
            Self::Up => "up",
            Self::Down => "does not answer",
            Self::LoginRefused => "refuses the login",
            Self::NotUnderstood => "not understood",
        })
    }
}

/// A text of the engine for people: cut, and without anything that could move a cursor.
pub fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}
