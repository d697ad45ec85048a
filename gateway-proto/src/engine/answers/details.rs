//! What the connectors of the channels say: `GET /channels?channelId=…`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    super::{
        EngineDestination, FILE_WRITER, MAX_DESTINATIONS, TCP_SENDER, clean,
        lossy::{AnyMany, Maybe, Text},
    },
    AnswerError, known_id, read,
};
use crate::policy::HL7V2_MLLP;

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
    scheme: Text,
    #[serde(rename = "locationURI")]
    location_uri: Text,
    wsdl_url: Text,
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
            TCP_SENDER => (text(|p| &p.remote_address), text(|p| &p.remote_port).parse().ok()),
            "DICOM Sender" => (text(|p| &p.host), text(|p| &p.port).parse().ok()),
            "HTTP Sender" => url_host(text(|p| &p.host)),
            // Without a place of its own the service is where its description is.
            "Web Service Sender" => match text(|p| &p.location_uri) {
                "" => url_host(text(|p| &p.wsdl_url)),
                location => url_host(location),
            },
            FILE_WRITER => server_of_files(text(|p| &p.scheme), text(|p| &p.host)),
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
    let standard = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    host_and_port(rest, standard)
}

/// Host and port of a File Writer's server, from `host:port/directory`; other schemes have a path there, or no server of their own.
fn server_of_files<'a>(scheme: &str, place: &'a str) -> (&'a str, Option<u16>) {
    match scheme {
        "FTP" => host_and_port(place, Some(21)),
        "SFTP" => host_and_port(place, Some(22)),
        "SMB" => host_and_port(place.trim_start_matches(['/', '\\']), Some(445)),
        _ => ("", None),
    }
}

fn host_and_port(place: &str, standard: Option<u16>) -> (&str, Option<u16>) {
    // A share of files may be written as Windows does, `\\server\share`.
    let authority = place.split(['/', '\\', '?', '#']).next().unwrap_or_default();
    let host_port = authority.rsplit('@').next().unwrap_or_default();
    match host_port.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && !port.contains(']') => {
            (host.trim_matches(['[', ']']), port.parse().ok())
        }
        Some(_) | None => (host_port.trim_matches(['[', ']']), standard),
    }
}

#[cfg(test)]
mod tests;
