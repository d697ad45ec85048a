//! The documents the engine answers with, in the forms that were measured.

use super::{
    channels::{Channels, Deployed},
    definition::{ChannelDefinition, ChannelState, DestinationDefinition, SourceDefinition},
    document::Node,
};

/// The version in every document.
pub const VERSION: &str = "4.5.2";

/// `list.channel`: whole channels, connector details and all.
pub fn channels(channels: &Channels, wanted: &[String]) -> Node {
    let stored = channels.definition.channels.iter();
    let chosen = stored.filter(|stored| wanted.is_empty() || wanted.contains(&stored.id));
    Node::new("list").children(chosen.map(channel))
}

/// One whole channel.
pub fn channel(channel: &ChannelDefinition) -> Node {
    let destinations = channel.destinations.iter().enumerate();
    let metadata = Node::new("metadata").field("enabled", channel.enabled).field("userId", 1);
    Node::new("channel")
        .attribute("version", VERSION)
        .field("id", &channel.id)
        .field("nextMetaDataId", channel.destinations.len() + 1)
        .field("name", &channel.name)
        .field("description", "")
        .field("revision", channel.revision)
        .child(source(&channel.source))
        .child(
            Node::new("destinationConnectors")
                .children(destinations.map(|(index, connector)| destination(index + 1, connector))),
        )
        .child(Node::new("properties").field("initialState", channel.initial_state.word()))
        .child(Node::new("exportData").child(metadata))
}

fn source(source: &SourceDefinition) -> Node {
    let class = match source.transport.as_str() {
        "TCP Listener" => "com.mirth.connect.connectors.tcp.TcpReceiverProperties",
        "HTTP Listener" => "com.mirth.connect.connectors.http.HttpReceiverProperties",
        "Web Service Listener" => "com.mirth.connect.connectors.ws.WebServiceReceiverProperties",
        "DICOM Listener" => "com.mirth.connect.connectors.dimse.DICOMReceiverProperties",
        "File Reader" => "com.mirth.connect.connectors.file.FileReceiverProperties",
        "JavaScript Reader" => "com.mirth.connect.connectors.js.JavaScriptReceiverProperties",
        _ => "com.mirth.connect.connectors.vm.VmReceiverProperties",
    };
    let mut properties = Node::new("properties").attribute("class", class).attribute("version", VERSION);
    if source.is_listener() {
        let listener = Node::new("listenerConnectorProperties").attribute("version", VERSION);
        properties = properties.child(listener.field("host", &source.host).field("port", &source.port));
    }
    properties = match source.transport.as_str() {
        "TCP Listener" => properties
            .child(transmission_mode(&source.mode))
            .field("serverMode", source.server_mode)
            .field("remoteAddress", "")
            .field("remotePort", "")
            .field("reconnectInterval", 5000)
            .field("receiveTimeout", 0)
            .field("bufferSize", 65536)
            .field("maxConnections", source.max_connections)
            .field("keepConnectionOpen", true)
            .field("charsetEncoding", "DEFAULT_ENCODING")
            .field("respondOnNewConnection", 0)
            .field("responseAddress", "")
            .field("responsePort", ""),
        "HTTP Listener" => properties.field("contextPath", &source.context_path).field("timeout", 30000),
        "DICOM Listener" => properties.field("applicationEntity", "").field("tls", &source.tls),
        _ => properties,
    };
    connector(Node::new("sourceConnector"), 0, "sourceConnector", &source.transport, "SOURCE", true, properties)
}

fn destination(meta_data_id: usize, destination: &DestinationDefinition) -> Node {
    let class = match destination.transport.as_str() {
        "TCP Sender" => "com.mirth.connect.connectors.tcp.TcpDispatcherProperties",
        "HTTP Sender" => "com.mirth.connect.connectors.http.HttpDispatcherProperties",
        "DICOM Sender" => "com.mirth.connect.connectors.dimse.DICOMDispatcherProperties",
        "File Writer" => "com.mirth.connect.connectors.file.FileDispatcherProperties",
        _ => "com.mirth.connect.connectors.vm.VmDispatcherProperties",
    };
    let queue = Node::new("destinationConnectorProperties")
        .attribute("version", VERSION)
        .field("queueEnabled", destination.queue)
        .field("sendFirst", false)
        .field("retryIntervalMillis", destination.retry_interval_ms)
        .field("regenerateTemplate", false)
        .field("retryCount", 0)
        .field("rotate", false)
        .field("threadCount", 1)
        .field("validateResponse", destination.validate_response);
    let properties = Node::new("properties").attribute("class", class).attribute("version", VERSION).child(queue);
    let properties = match destination.transport.as_str() {
        "TCP Sender" => properties
            .child(transmission_mode("MLLP"))
            .field("serverMode", false)
            .field("remoteAddress", &destination.host)
            .field("remotePort", &destination.port)
            .field("overrideLocalBinding", false)
            .field("sendTimeout", destination.send_timeout_ms)
            .field("keepConnectionOpen", destination.keep_connection_open)
            .field("checkRemoteHost", false)
            .field("responseTimeout", destination.response_timeout_ms)
            .field("queueOnResponseTimeout", true),
        "DICOM Sender" => properties.field("host", &destination.host).field("port", &destination.port),
        // The connector's password, in clear, as the engine has it.
        "File Writer" => properties
            .field("scheme", "SFTP")
            .field("host", &destination.host)
            .field("username", "files")
            .field("password", "connector-password-in-clear"),
        _ => properties.field("host", &destination.host),
    };
    let node = Node::new("connector").attribute("version", VERSION).field("metaDataId", meta_data_id);
    connector(
        node,
        meta_data_id,
        &destination.name,
        &destination.transport,
        "DESTINATION",
        destination.enabled,
        properties,
    )
}

fn connector(
    node: Node,
    meta_data_id: usize,
    name: &str,
    transport: &str,
    mode: &str,
    enabled: bool,
    properties: Node,
) -> Node {
    let node = if meta_data_id == 0 { node.attribute("version", VERSION).field("metaDataId", 0) } else { node };
    node.field("name", name)
        .child(properties)
        .field("transportName", transport)
        .field("mode", mode)
        .field("enabled", enabled)
        .field("waitForPrevious", true)
}

fn transmission_mode(mode: &str) -> Node {
    let class = match mode {
        "MLLP" => "com.mirth.connect.plugins.mllpmode.MLLPModeProperties",
        _ => "com.mirth.connect.model.transmission.framemode.FrameModeProperties",
    };
    Node::new("transmissionModeProperties")
        .attribute("class", class)
        .field("pluginPointName", mode)
        .field("startOfMessageBytes", "0B")
        .field("endOfMessageBytes", "1C0D")
        .field("useMLLPv2", false)
}

/// Every stored channel with a listener block: undeployed ones and those in client mode too, names in upper case, ports
/// resolved.
pub fn ports_in_use(channels: &Channels) -> Node {
    let listeners = channels.definition.channels.iter().filter(|channel| channel.source.is_listener());
    let port = |channel: &ChannelDefinition| {
        let resolved = channels.definition.resolve(&channel.source.port);
        Node::new("com.mirth.connect.donkey.model.channel.Ports")
            .field("name", channel.name.to_uppercase())
            .field("id", &channel.id)
            .field("port", resolved.map_or_else(|| channel.source.port.clone(), |port| port.to_string()))
    };
    Node::new("list").children(listeners.map(port))
}

/// A map from ids to names.
pub fn ids_and_names(channels: &Channels) -> Node {
    let entry =
        |channel: &ChannelDefinition| Node::new("entry").field("string", &channel.id).field("string", &channel.name);
    Node::new("map").children(channels.definition.channels.iter().map(entry))
}

/// Dashboard statuses of deployed channels.
pub fn statuses(channels: &Channels, include_undeployed: bool) -> Node {
    let stored = channels.definition.channels.iter();
    Node::new("list").children(stored.filter_map(|channel| match channels.deployed(&channel.id) {
        Some(deployed) => Some(status(channel, deployed)),
        None => include_undeployed.then(|| {
            Node::new("dashboardStatus")
                .field("channelId", &channel.id)
                .field("name", &channel.name)
                .field("state", "UNDEPLOYED")
                .field("deployedRevisionDelta", 0)
                .field("statusType", "CHANNEL")
        }),
    }))
}

/// The dashboard status of one deployed channel.
pub fn status(stored: &ChannelDefinition, deployed: &Deployed) -> Node {
    let [received, sent, errors, queued] = deployed.statistics();
    let figures = [("RECEIVED", received), ("FILTERED", 0), ("SENT", sent), ("ERROR", errors)];
    let statistics = || {
        figures.map(|(name, count)| {
            Node::new("entry").field("com.mirth.connect.donkey.model.message.Status", name).field("long", count)
        })
    };
    let source_state =
        if deployed.state == ChannelState::Started { ChannelState::Started } else { ChannelState::Stopped };
    let connector = |name: &str, id: usize, state: ChannelState, queue: bool, queued: u64, kind: &str| {
        Node::new("dashboardStatus")
            .field("channelId", &stored.id)
            .field("name", name)
            .field("metaDataId", id)
            .field("state", state.word())
            .field("queueEnabled", queue)
            .field("queued", queued)
            .field("statusType", kind)
    };
    let destinations = deployed.definition.destinations.iter().enumerate().map(|(index, destination)| {
        let running = deployed.destinations.iter().find(|running| running.meta_data_id == index + 1);
        let [_, _, queued] = running.map_or([0; 3], |running| running.outcomes.counts());
        let state = if deployed.state == ChannelState::Stopped { ChannelState::Stopped } else { ChannelState::Started };
        connector(&destination.name, index + 1, state, destination.queue, queued, "DESTINATION_CONNECTOR")
    });
    let deployed_date = Node::new("deployedDate").field("time", deployed.at).field("timezone", "Etc/UTC");
    Node::new("dashboardStatus")
        .field("channelId", &stored.id)
        .field("name", &deployed.definition.name)
        .field("state", deployed.state.word())
        .field("deployedRevisionDelta", stored.revision - deployed.definition.revision)
        .child(deployed_date)
        .child(Node::new("statistics").attribute("class", "linked-hash-map").children(statistics()))
        .child(Node::new("lifetimeStatistics").attribute("class", "linked-hash-map").children(statistics()))
        .child(
            Node::new("childStatuses")
                .child(connector("Source", 0, source_state, false, 0, "SOURCE_CONNECTOR"))
                .children(destinations),
        )
        .field("queued", queued)
        .field("statusType", "CHANNEL")
}

/// Statistics of one channel.
pub fn statistics(id: &str, deployed: Option<&Deployed>) -> Node {
    let [received, sent, errors, queued] = deployed.map_or([0; 4], Deployed::statistics);
    Node::new("channelStatistics")
        .field("serverId", SERVER_ID)
        .field("channelId", id)
        .field("received", received)
        .field("sent", sent)
        .field("error", errors)
        .field("filtered", 0)
        .field("queued", queued)
}

/// States of the connectors of deployed channels.
pub fn connector_states(channels: &Channels) -> Node {
    let deployed = channels.definition.channels.iter().filter_map(|stored| channels.deployed(&stored.id));
    Node::new("map").children(deployed.map(|deployed| {
        let words = match (deployed.state, deployed.source().map(crate::mllp::Engine::open)) {
            (ChannelState::Stopped | ChannelState::Paused, _) => "Disconnected".into(),
            (ChannelState::Started, Some(open)) if open > 0 => format!("Connected ({open})"),
            (ChannelState::Started, _) => "Idle".into(),
        };
        let color = Node::new("awt-color").field("red", 255).field("green", 255).field("blue", 0).field("alpha", 255);
        Node::new("entry")
            .field("string", format!("{}_0", deployed.definition.id))
            .child(Node::new("object-array").child(color).field("string", words))
    }))
}

/// Whether channels are switched on.
pub fn channel_metadata(channels: &Channels) -> Node {
    Node::new("map").children(channels.definition.channels.iter().map(|channel| {
        let metadata = Node::new("com.mirth.connect.model.ChannelMetadata").field("enabled", channel.enabled);
        Node::new("entry").field("string", &channel.id).child(metadata)
    }))
}

/// Summaries with whole channels inside; the revisions the caller knows are not looked at.
pub fn summaries(channels: &Channels) -> Node {
    Node::new("list").children(channels.definition.channels.iter().map(|stored| {
        let whole = channel(stored);
        let status = Node::new("channelStatus").child(whole).field("undeployed", !stored.deployed);
        Node::new("channelSummary").field("channelId", &stored.id).child(status).field("deleted", false)
    }))
}

/// The engine's id.
pub const SERVER_ID: &str = "5d1f4f2e-0f5b-4f5e-9f1c-2a7d0f3b6c11";
