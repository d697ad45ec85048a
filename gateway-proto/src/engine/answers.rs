//! The answers of the engine that discovery asks for, in their JSON form (design: which requests, and why, is told in
//! `docs/engine.md`).
//!
//! | request | what it tells |
//! |---|---|
//! | `GET /channels/idsAndNames` | every stored channel with its name |
//! | `GET /channels/portsInUse` | ports with variables resolved; names in upper case; undeployed and client-mode channels too |
//! | `GET /channels/statuses` | states, revisions and counts of deployed channels |
//! | `GET /channels?channelId=…` | connectors: hosts, protocols, limits, destinations |
//!
//! The engine always names what it answers, also when there is none (`{"list":null}`). JSON without that is somebody else's,
//! of a proxy or a maintenance page, and not an engine without channels.

use std::collections::BTreeMap;

use serde::{Deserialize, de::DeserializeOwned};

use super::{
    EngineChannelState, EngineCounts, EngineDestination, MAX_DESTINATIONS, clean,
    lossy::{AnyMany, Many, Maybe, Text},
};
use crate::policy::HL7V2_MLLP;

/// The largest answer that is read, in bytes. An engine of 500 channels answers 11 MB when all details are asked for at
/// once; discovery asks for a few at a time.
pub const MAX_ANSWER: usize = 16 << 20;
/// The longest id that is believed; the engine's are UUIDs of 36 characters.
const MAX_ID: usize = 64;

/// Why an answer is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It is larger than anything an engine says.
    #[error("the engine's answer to {request} is larger than {MAX_ANSWER} bytes")]
    TooLarge {
        /// What was asked.
        request: &'static str,
    },
    /// It is not in the form that is known.
    #[error("the engine's answer to {request} is not understood (line {line}, column {column})")]
    Form {
        /// What was asked.
        request: &'static str,
        /// Where; the text itself may hold secrets.
        line: usize,
        /// Where in the line.
        column: usize,
    },
}

/// Names by id.
pub fn ids_and_names(answer: &[u8]) -> Result<BTreeMap<String, String>, AnswerError> {
    #[derive(Deserialize)]
    struct Answer {
        map: Maybe<Entries>,
    }
    #[derive(Deserialize)]
    struct Entries {
        #[serde(default)]
        entry: Many<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        string: Pair,
    }
    /// Key and value, one after the other.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Pair {
        Both(Text, Text),
        Other(serde::de::IgnoredAny),
    }
    let answer: Answer = read("idsAndNames", answer)?;
    let entries = answer.map.0.map(|entries| entries.entry.items).unwrap_or_default();
    Ok(entries
        .into_iter()
        .filter_map(|entry| match entry.string {
            Pair::Both(id, name) => Some((known_id(&id)?, clean(&name.0))),
            Pair::Other(_) => None,
        })
        .collect())
}

/// Ports by channel id. A port that is none (a variable without a value) is left out.
pub fn ports_in_use(answer: &[u8]) -> Result<BTreeMap<String, u16>, AnswerError> {
    #[derive(Deserialize)]
    struct Answer {
        list: AnyMany<Port>,
    }
    #[derive(Deserialize)]
    struct Port {
        id: Text,
        port: Text,
    }
    let answer: Answer = read("portsInUse", answer)?;
    let ports = answer.list.0.items.iter();
    Ok(ports.filter_map(|port| Some((known_id(&port.id)?, port_number(&port.port)?))).collect())
}

/// What the dashboard knows of a deployed channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelStatus {
    /// State.
    pub state: EngineChannelState,
    /// Revisions saved since the deployment.
    pub revision_delta: u64,
    /// When it was deployed, Unix milliseconds, 0 when unknown.
    pub deployed_at: u64,
    /// Messages.
    pub counts: EngineCounts,
}

/// Statuses by channel id; undeployed channels have none.
pub fn statuses(answer: &[u8]) -> Result<BTreeMap<String, ChannelStatus>, AnswerError> {
    #[derive(Deserialize)]
    struct Answer {
        list: AnyMany<Status>,
    }
    let answer: Answer = read("statuses", answer)?;
    let statuses = answer.list.0.items.into_iter();
    Ok(statuses.filter_map(|status| Some((known_id(&status.channel_id)?, status.known()))).collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    channel_id: Text,
    state: Text,
    #[serde(default)]
    deployed_revision_delta: Text,
    #[serde(default)]
    deployed_date: Maybe<Date>,
    #[serde(default)]
    statistics: Maybe<Statistics>,
    #[serde(default)]
    queued: Text,
    #[serde(default)]
    child_statuses: AnyMany<Child>,
}

#[derive(Deserialize)]
struct Date {
    #[serde(default)]
    time: Text,
}

#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    entry: Many<BTreeMap<String, Text>>,
}

#[derive(Deserialize)]
struct Child {
    #[serde(default)]
    queued: Text,
}

impl Status {
    fn known(&self) -> ChannelStatus {
        let entries = self.statistics.0.iter().flat_map(|statistics| &statistics.entry.items);
        let mut counts = EngineCounts::default();
        for entry in entries {
            // `{"the.class.of.Status": "RECEIVED", "long": 3}`
            let Some(count) = entry.get("long").and_then(Text::number::<u64>) else { continue };
            match entry.iter().find(|(key, _)| *key != "long").map(|(_, name)| name.0.as_str()) {
                Some("RECEIVED") => counts.received = count,
                Some("SENT") => counts.sent = count,
                Some("ERROR") => counts.errors = count,
                Some("FILTERED") => counts.filtered = count,
                Some("QUEUED") => counts.queued = count,
                Some(_) | None => {}
            }
        }
        let waiting = self.child_statuses.0.items.iter().filter_map(|child| child.queued.number::<u64>());
        counts.queued = counts.queued.max(self.queued.number().unwrap_or(0)).max(waiting.fold(0, u64::saturating_add));
        ChannelStatus {
            state: state(&self.state.0),
            revision_delta: self.deployed_revision_delta.number().unwrap_or(0),
            deployed_at: self.deployed_date.0.as_ref().and_then(|date| date.time.number()).unwrap_or(0),
            counts,
        }
    }
}

fn state(word: &str) -> EngineChannelState {
    match word {
        "STARTED" => EngineChannelState::Started,
        "STOPPED" => EngineChannelState::Stopped,
        "PAUSED" => EngineChannelState::Paused,
        "UNDEPLOYED" => EngineChannelState::Undeployed,
        // STARTING, STOPPING, PAUSING, DEPLOYING, UNDEPLOYING, SYNCING, and what a newer engine may add.
        _ => EngineChannelState::Changing,
    }
}

/// What the connectors of a channel say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelDetails {
    /// The source's connector.
    pub transport: String,
    /// The behavior that fits it.
    pub behavior: Option<String>,
    /// The source's host; none: it has no port of its own.
    pub host: Option<String>,
    /// Connections a TCP Listener serves at once, 0 for no limit; none: it does not say, or says it by a variable.
    pub max_connections: Option<u32>,
    /// TLS on a DICOM Listener.
    pub tls: bool,
    /// Whether it listens at all.
    pub server_mode: bool,
    /// Destinations.
    pub destinations: Vec<EngineDestination>,
}

/// Details by channel id.
pub fn channels(answer: &[u8]) -> Result<BTreeMap<String, ChannelDetails>, AnswerError> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        list: AnyMany<Channel>,
    }
    let answer: Answer = read("channels", answer)?;
    let channels = answer.list.0.items.into_iter();
    Ok(channels.filter_map(|channel| Some((known_id(&channel.id)?, channel.known()))).collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Channel {
    id: Text,
    #[serde(default)]
    source_connector: Maybe<Connector>,
    #[serde(default)]
    destination_connectors: AnyMany<Connector>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Connector {
    #[serde(default)]
    meta_data_id: Text,
    #[serde(default)]
    name: Text,
    #[serde(default)]
    transport_name: Text,
    #[serde(default)]
    enabled: Text,
    #[serde(default)]
    properties: Maybe<Properties>,
}

/// Only what is listed here is read; passwords are not.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Properties {
    listener_connector_properties: Maybe<Listener>,
    transmission_mode_properties: Maybe<Transmission>,
    destination_connector_properties: Maybe<Destination>,
    server_mode: Text,
    max_connections: Text,
    tls: Text,
    remote_address: Text,
    remote_port: Text,
    host: Text,
    port: Text,
}

#[derive(Deserialize)]
struct Listener {
    #[serde(default)]
    host: Text,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Transmission {
    #[serde(default)]
    plugin_point_name: Text,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Destination {
    #[serde(default)]
    queue_enabled: Text,
    #[serde(default)]
    validate_response: Text,
}

impl Channel {
    fn known(self) -> ChannelDetails {
        let destinations = self.destination_connectors.0.items.iter().take(MAX_DESTINATIONS);
        let destinations = destinations.map(Connector::destination).collect();
        let Some(source) = self.source_connector.0 else {
            return ChannelDetails { destinations, ..ChannelDetails::without_source() };
        };
        let properties = source.properties.0.unwrap_or_default();
        let mode = properties.transmission_mode_properties.0.map_or_else(Text::default, |mode| mode.plugin_point_name);
        let transport = clean(&source.transport_name.0);
        let behavior = match (transport.as_str(), mode.0.as_str()) {
            ("TCP Listener", "MLLP") => Some(HL7V2_MLLP),
            ("TCP Listener", _) => Some("tcp"),
            ("HTTP Listener" | "Web Service Listener", _) => Some("http"),
            ("DICOM Listener", _) => Some("dicom"),
            (_, _) => None,
        };
        let host = properties.listener_connector_properties.0.map(|listener| clean(&listener.host.0));
        ChannelDetails {
            behavior: behavior.filter(|_| host.is_some()).map(str::to_owned),
            transport,
            host,
            max_connections: properties.max_connections.number(),
            tls: !["", "notls"].contains(&properties.tls.0.as_str()),
            server_mode: properties.server_mode.flag().unwrap_or(true),
            destinations,
        }
    }
}

impl ChannelDetails {
    fn without_source() -> Self {
        Self {
            transport: String::new(),
            behavior: None,
            host: None,
            max_connections: None,
            tls: false,
            server_mode: true,
            destinations: Vec::new(),
        }
    }
}

impl Connector {
    fn destination(&self) -> EngineDestination {
        let transport = clean(&self.transport_name.0);
        let properties = self.properties.0.as_ref();
        let text = |pick: fn(&Properties) -> &Text| properties.map_or("", |properties| pick(properties).0.as_str());
        let (host, port) = match transport.as_str() {
            "TCP Sender" => (text(|p| &p.remote_address), text(|p| &p.remote_port).parse().ok()),
            "DICOM Sender" => (text(|p| &p.host), text(|p| &p.port).parse().ok()),
            "HTTP Sender" | "Web Service Sender" => url_host(text(|p| &p.host)),
            // A path, an address of mail, a query: nothing a gateway could carry, and not ours to know.
            _ => ("", None),
        };
        let queue = properties.and_then(|properties| properties.destination_connector_properties.0.as_ref());
        EngineDestination {
            id: self.meta_data_id.number().unwrap_or(0),
            name: clean(&self.name.0),
            transport,
            host: Some(clean(host)).filter(|host| !host.is_empty()),
            port: port.filter(|port| *port != 0),
            enabled: self.enabled.flag().unwrap_or(true),
            queue: queue.and_then(|queue| queue.queue_enabled.flag()).unwrap_or(false),
            validate_response: queue.and_then(|queue| queue.validate_response.flag()).unwrap_or(true),
        }
    }
}

/// Host and port of a URL; path, query and credentials stay where they are.
fn url_host(url: &str) -> (&str, Option<u16>) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host_port = authority.rsplit('@').next().unwrap_or_default();
    let standard = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    match host_port.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && !port.contains(']') => {
            (host.trim_matches(['[', ']']), port.parse().ok())
        }
        Some(_) | None => (host_port.trim_matches(['[', ']']), standard),
    }
}

fn port_number(text: &Text) -> Option<u16> {
    text.number().filter(|port| *port != 0)
}

/// An id as the engine makes them; anything else is not one.
fn known_id(text: &Text) -> Option<String> {
    let fits = |id: &str| {
        !id.is_empty()
            && id.len() <= MAX_ID
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    fits(&text.0).then(|| text.0.clone())
}

fn read<T: DeserializeOwned>(request: &'static str, answer: &[u8]) -> Result<T, AnswerError> {
    if answer.len() > MAX_ANSWER {
        return Err(AnswerError::TooLarge { request });
    }
    serde_json::from_slice(answer).map_err(|error| AnswerError::Form {
        request,
        line: error.line(),
        column: error.column(),
    })
}

#[cfg(test)]
mod tests;
