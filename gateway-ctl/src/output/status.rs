//! The status of the local gatewayd for people: first line the verdict, then the links everything hangs on, then the connections.

mod exchange;

use std::fmt::Write;

use gateway_proto::{
    api::{
        gateway::{Connectivity, PathKind},
        local::{AuditComparison, AuditHeld, ConnectionStatus, EngineStatus, PeerStatus, RelayStatus, Status},
    },
    engine::EngineChannelState,
    limits::ChannelLimits,
    netcheck::PortMapping,
    policy::Activation,
};

use super::{Style, or_dash, table, text::printable, time, word};
use crate::cmd::admin::options;

/// The answer to "is it connected?". Only a proof end to end makes a yes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The daemon belongs to no server yet.
    NotEnrolled,
    /// Another process with the same key holds the gateway's place, and this one carries nothing.
    RunsTwice,
    /// No connection may carry data, so none can be connected.
    NoConnection,
    /// A connection that was asked about is not there.
    Missing(String),
    /// Some, or all, that may carry data do not reach their peer.
    NotConnected {
        /// Those that do.
        connected: usize,
        /// All that count.
        of: usize,
    },
    /// All that may carry data are connected.
    Connected {
        /// How many.
        of: usize,
        /// Whether none of them uses a relay.
        direct: bool,
    },
}

impl Verdict {
    /// Judges a status; `only` names the connections that count, none: those that may carry data.
    pub(crate) fn of(status: &Status, only: &[String]) -> Self {
        if status.server.is_none() {
            return Self::NotEnrolled;
        }
        if status.runs_twice.as_ref().is_some_and(|told| told.is_second) {
            return Self::RunsTwice;
        }
        let is = |connection: &ConnectionStatus, name: &String| is_called(connection, name);
        if let Some(name) = only.iter().find(|name| !status.connections.iter().any(|connection| is(connection, name))) {
            return Self::Missing(name.clone());
        }
        let counts = |connection: &&ConnectionStatus| {
            if only.is_empty() { connection.authorized } else { only.iter().any(|name| is(connection, name)) }
        };
        let counted: Vec<&ConnectionStatus> = status.connections.iter().filter(counts).collect();
        if counted.is_empty() {
            return Self::NoConnection;
        }
        let of = counted.len();
        let connected = counted.iter().filter(|connection| is_connected(connection)).count();
        if connected < of {
            return Self::NotConnected { connected, of };
        }
        let straight = |path| matches!(path, Some(PathKind::Direct | PathKind::Local));
        Self::Connected { of, direct: counted.iter().all(|connection| straight(connection.path)) }
    }

    /// Whether the answer is yes.
    pub(crate) fn is_connected(&self) -> bool {
        matches!(self, Self::Connected { .. })
    }

    /// Whether the answer is yes without a relay.
    pub(crate) fn is_direct(&self) -> bool {
        matches!(self, Self::Connected { direct: true, .. })
    }

    fn headline(&self, style: Style) -> String {
        let no = style.bad("NOT CONNECTED");
        match self {
            Self::NotEnrolled => format!("{no}  this gateway is not enrolled: `gateway-ctl gateway enroll CODE`"),
            Self::RunsTwice => format!("{no}  this gateway runs twice, and another process carries its data"),
            Self::NoConnection => format!("{no}  no connection may carry data now"),
            Self::Missing(name) => format!("{no}  there is no connection '{}' here", printable(name)),
            Self::NotConnected { connected, of } => format!("{no}  {connected} of {of} connections connected"),
            Self::Connected { of: 1, .. } => format!("{}  1 connection", style.good("CONNECTED")),
            Self::Connected { of, .. } => format!("{}  {of} connections", style.good("CONNECTED")),
        }
    }
}

/// The whole view. `only` as for [`Verdict::of`]; `now_ms` in Unix milliseconds.
pub(crate) fn render(status: &Status, only: &[String], now_ms: u64, style: Style) -> String {
    let mut text = format!("{}\n\n", Verdict::of(status, only).headline(style));
    text.push_str(&table::render_block(&links(status, now_ms)));
    for connection in &status.connections {
        let peer = status
            .peers
            .iter()
            .find(|peer| peer.server == connection.peer_server && peer.organization == connection.peer_organization);
        let title = style.strong(&printable(&connection.endpoint));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\n{title}  {}  {}", word(&connection.kind), connection.id);
        let block = table::render_block(&connection_lines(connection, peer, now_ms));
        for line in block.lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

/// A round-trip time.
pub(crate) fn milliseconds(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

/// By id, `PEER/ENDPOINT`, or the endpoint alone where it holds no slash: partners choose their names, and one that reads like
/// another partner's endpoint is not that one.
fn is_called(connection: &ConnectionStatus, name: &str) -> bool {
    let ConnectionStatus { id, endpoint, peer_organization, .. } = connection;
    let alone = name == endpoint && !name.contains('/');
    alone || name == id.to_string() || name == format!("{peer_organization}/{endpoint}")
}

fn is_connected(connection: &ConnectionStatus) -> bool {
    connection.authorized && connection.connectivity == Connectivity::Connected
}

fn links(status: &Status, now_ms: u64) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("Server", or_dash(status.server.as_deref())),
        ("Organization", or_dash(status.organization.as_deref())),
        ("Key", status.key.to_string()),
        ("Control link", control(status, now_ms)),
        ("Policy", policy(status, now_ms)),
    ];
    if let Some(told) = &status.runs_twice {
        let (since, at) =
            if told.is_second { ("it took the place", "both were there") } else { ("it was refused", "and again") };
        let when = |at| time::relative(now_ms / 1000, at);
        lines.push(("Runs twice", told.to_string()));
        lines.push(("", format!("{since} {}, {at} {}", when(told.since), when(told.at))));
    }
    if let Some(problem) = &status.policy.problem {
        lines.push(("", format!("the newest policy was refused: {problem}")));
    }
    if let Some(AuditComparison { asked, held }) = &status.audit
        && held.is_alarm()
    {
        let how = match held {
            AuditHeld::CutOff => "its newest lines were removed",
            AuditHeld::Changed => "lines of it were changed or removed",
            AuditHeld::Held | AuditHeld::Removed => "",
        };
        let text = format!("NOT THE ONE THAT WAS REPORTED: {how} (record {})", asked.sequence);
        lines.push(("Audit log", text));
    }
    if status.relays.is_empty() {
        lines.push(("Relay", "none known".to_owned()));
    }
    lines.extend(status.relays.iter().map(|each| ("Relay", relay(each))));
    let told = |told: &String| ("Outer address", format!("{told} (what to do: `gateway-ctl netcheck`)"));
    lines.extend(status.relays_disagree.iter().map(told));
    if let Some((socket, problem)) = status.socket.as_ref().and_then(|socket| Some((socket, socket.problem.as_ref()?)))
    {
        lines.push(("Tunnel socket", format!("{} carries nothing: {problem}", socket.address)));
    }
    lines.extend(status.port_mapping.iter().map(|mapping| ("Port mapping", port_mapping(mapping))));
    lines.push((
        "Daemon",
        format!("gatewayd {}, started {}", status.version, time::relative_ms(now_ms, status.started_at)),
    ));
    if let Some(status) = &status.engine {
        lines.push(("Engine", engine(status)));
        lines.extend(status.head.advice.iter().map(|advice| ("", advice.clone())));
    }
    lines
}

fn engine(engine: &EngineStatus) -> String {
    let head = &engine.head;
    if let Some(problem) = &head.problem {
        return format!("{}: {problem}", head.state);
    }
    let started = engine.channels.iter().filter(|channel| channel.state == EngineChannelState::Started).count();
    let version = or_dash(head.version.as_deref());
    format!("{}, version {version}, {started} of {} channels started", head.state, engine.channels.len())
}

fn control(status: &Status, now_ms: u64) -> String {
    let control = &status.control;
    let mut text = if control.connected { "connected" } else { "NOT CONNECTED" }.to_owned();
    if let Some(url) = &control.url {
        let _ = write!(text, " to {url}");
    }
    if let Some(proxy) = &control.proxy {
        let _ = write!(text, " through the proxy {proxy}");
    }
    if let Some(at) = control.last_heard_at {
        let _ = write!(text, ", heard {}", time::relative_ms(now_ms, at));
    }
    // Smaller differences change nothing a person would notice.
    if let Some(skew) = control.clock_skew_ms.filter(|skew| skew.unsigned_abs() >= 2000) {
        let _ = write!(
            text,
            ", its clock is {} s {}",
            skew.unsigned_abs() / 1000,
            if skew > 0 { "ahead" } else { "behind" }
        );
    }
    if let Some(problem) = &control.problem {
        let _ = write!(text, ": {problem}");
    }
    text
}

fn policy(status: &Status, now_ms: u64) -> String {
    let policy = &status.policy;
    if policy.revision == 0 {
        return "none".to_owned();
    }
    let mut text = format!("revision {}", policy.revision);
    if let Some(at) = policy.issued_at {
        let _ = write!(text, ", signed {}", time::relative(now_ms / 1000, at));
    }
    if let Some(age) = policy.age_secs {
        let _ = write!(text, ", confirmed {} ago", time::span(age));
    }
    text
}

fn relay(relay: &RelayStatus) -> String {
    let mut text = if relay.attached { "attached" } else { "NOT ATTACHED" }.to_owned();
    let _ = write!(text, " to {}", relay.url);
    if let Some(region) = &relay.region {
        let _ = write!(text, " ({region})");
    }
    if relay.home {
        text.push_str(", home");
    }
    if let Some(reason) = relay.home_reason_text.as_ref().filter(|_| relay.attached) {
        let _ = write!(text, " ({reason})");
    }
    if let Some(latency) = relay.latency_ms.filter(|_| relay.attached) {
        let _ = write!(text, ", {} away", milliseconds(latency));
    }
    if let Some(rtt) = relay.rtt_ms.filter(|_| relay.attached) {
        let _ = write!(text, ", round trip {}", milliseconds(rtt));
    }
    if let Some(carrier) = &relay.carrier_text {
        let _ = write!(text, ", {carrier}");
    }
    if relay.proxied {
        text.push_str(", TLS through the proxy");
    }
    let changes: u64 = relay.carrier_changes.values().sum();
    // The first is the beginning.
    if changes > 1 {
        let by_reason = relay.carrier_changes.iter().map(|(reason, count)| format!("{reason} {count}"));
        let by_reason = by_reason.collect::<Vec<_>>().join(", ");
        let _ = write!(text, ", {changes} changes between UDP and TLS ({by_reason})");
    }
    if let Some(limit) = &relay.limit_text {
        let _ = write!(text, ", LIMIT: {limit}");
    }
    if let Some(problem) = &relay.problem {
        let _ = write!(text, ": {problem}");
    }
    text
}

fn port_mapping(mapping: &PortMapping) -> String {
    let asked = mapping.protocol.map(|protocol| format!(" by {protocol}")).unwrap_or_default();
    match (mapping.outer, &mapping.problem) {
        (Some(outer), None) => format!("the router forwards {outer}{asked}"),
        (_, Some(problem)) => format!("NONE{asked}: {problem}"),
        (None, None) => "none yet".to_owned(),
    }
}

fn connection_lines(
    connection: &ConnectionStatus,
    peer: Option<&PeerStatus>,
    now_ms: u64,
) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("Role", connection.role.clone()),
        ("Peer", format!("{} of {}", connection.peer_server, connection.peer_organization)),
        ("Activation", activation(connection)),
        ("Connectivity", connectivity(connection, peer, now_ms)),
        ("Path", path(connection)),
        ("Round trip", connection.rtt_ms.map_or_else(|| "-".to_owned(), milliseconds)),
        ("Last message", last_message(connection, now_ms)),
        (address_label(connection), or_dash(connection.local_address.as_deref())),
        ("Streams", streams(connection)),
        ("Traffic", format!("{} sent, {} received", bytes(connection.bytes_sent), bytes(connection.bytes_received))),
    ];
    if let Some(limits) = limits(connection.limits) {
        lines.push(("Limits", limits));
    }
    if let Some(scope) = connection.admin {
        lines.push(("Beyond reading", options(scope)));
    }
    lines.extend(exchange::lines(connection));
    if let Some(exchange) = peer.and_then(|peer| peer.key_exchange.as_ref()) {
        lines.push(("Key exchange", exchange.clone()));
    }
    if let Some(problem) = &connection.problem {
        lines.push(("Problem", problem.clone()));
    }
    lines
}

fn activation(connection: &ConnectionStatus) -> String {
    let state = word(&connection.activation);
    // Active by policy but closed by time: an ended grant, or a policy nobody confirmed for too long.
    if connection.activation == Activation::Active && !connection.authorized {
        return format!("{state}, but no data may flow now");
    }
    state
}

fn connectivity(connection: &ConnectionStatus, peer: Option<&PeerStatus>, now_ms: u64) -> String {
    let proof = peer.and_then(|peer| peer.last_proof_at).map(|at| time::relative_ms(now_ms, at));
    match (connection.connectivity, proof) {
        (Connectivity::Connected, Some(proof)) => format!("connected, proved {proof}"),
        (Connectivity::Connected, None) => "connected".to_owned(),
        (Connectivity::Disconnected, Some(proof)) => format!("NOT CONNECTED, last proof {proof}"),
        (Connectivity::Disconnected, None) => "NOT CONNECTED".to_owned(),
        (Connectivity::NeverConnected, _) => "NOT CONNECTED, never so far".to_owned(),
    }
}

fn path(connection: &ConnectionStatus) -> String {
    match connection.path {
        Some(path) if connection.path_reason.is_empty() => word(&path),
        Some(path) => format!("{}: {}", word(&path), connection.path_reason),
        None if connection.path_reason.is_empty() => "none".to_owned(),
        None => format!("none: {}", connection.path_reason),
    }
}

fn last_message(connection: &ConnectionStatus, now_ms: u64) -> String {
    let ago = |at: Option<u64>| at.map_or_else(|| "never".to_owned(), |at| time::relative_ms(now_ms, at));
    format!("sent {}, received {}", ago(connection.last_sent_at), ago(connection.last_received_at))
}

fn address_label(connection: &ConnectionStatus) -> &'static str {
    if matches!(connection.role.as_str(), "listener" | "admin_owner") { "Engine" } else { "Local address" }
}

fn streams(connection: &ConnectionStatus) -> String {
    let ConnectionStatus { streams, streams_finished, streams_reset, streams_silent, streams_refused, .. } = connection;
    let silent = if *streams_silent > 0 { format!(" ({streams_silent} after silence)") } else { String::new() };
    format!("{streams} open, {streams_finished} finished, {streams_reset} reset{silent}, {streams_refused} refused")
}

/// What the channel's owner limits; none: nothing.
fn limits(limits: ChannelLimits) -> Option<String> {
    let rate = limits.bytes_per_second.map(|rate| format!("{}/s in each direction", bytes(rate)));
    let silence = limits.receive_timeout_secs.map(|secs| format!("a stream is reset after {secs} s without a byte"));
    let all: Vec<_> = rate.into_iter().chain(silence).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if count < 10_000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 10_000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.0} {}", UNITS[unit])
}

#[cfg(test)]
mod tests;
