//! All instruments of the daemon, as OpenMetrics text. Labels come from small closed sets and from the policy (ids of
//! connections), never from peers.

mod exchanges;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use gateway_proto::api::{
    gateway::{Connectivity, PathKind},
    local::{PathCounts, RelayChanges, Status},
};
use prometheus_client::{
    encoding::text::encode as encode_text,
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Registry,
};

pub use exchanges::{ExchangeMetrics, MAX_ENDS, Numbers, Passed};

use crate::{audit::AuditLog, socket::TunnelSocket};

type Labels = [(&'static str, &'static str); 1];

/// The metrics of this moment.
pub fn encode(status: &Status, exchanges: Vec<ExchangeMetrics>, socket: &TunnelSocket, audit: &AuditLog) -> String {
    let mut registry = Registry::with_prefix("gatewayd");
    policy_and_links(&mut registry, status);
    connections(&mut registry, status);
    packets(&mut registry, socket);
    audit_log(&mut registry, audit);
    exchanges::register(&mut registry, exchanges);
    let mut text = String::new();
    match encode_text(&mut text, &registry) {
        Ok(()) => text,
        // Writing to a string does not fail; a scraper would see an empty page.
        Err(_) => String::new(),
    }
}

fn policy_and_links(registry: &mut Registry, status: &Status) {
    let mut gauge = |name: &str, help: &str, value: u64| {
        registry.register(name, help, ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)));
    };
    gauge("policy_revision", "Revision of the policy in force", status.policy.revision);
    let age = status.policy.age_secs.unwrap_or(0);
    gauge("policy_age_seconds", "Seconds since the control plane last confirmed the policy", age);
    gauge("control_connected", "1 while the control plane is heard", u64::from(status.control.connected));
    let runs_twice = u64::from(status.runs_twice.is_some());
    gauge("runs_twice", "1 while another process with this gateway's key is known of", runs_twice);
    let stands_by = u64::from(status.runs_twice.as_ref().is_some_and(|told| told.is_second));
    gauge("stands_by", "1 while another process holds this gateway's place, and nothing is carried", stands_by);
    let attached = status.relays.iter().filter(|relay| relay.attached).count();
    gauge("relays_attached", "Relays this gateway is attached to", attached as u64);
    let limited = status.relays.iter().filter(|relay| relay.limit.is_some()).count();
    gauge(
        "relays_limited",
        "Relays that drop much of what this gateway sends, because a limit is reached",
        limited as u64,
    );
}

fn connections(registry: &mut Registry, status: &Status) {
    let connectivity: Family<Labels, Gauge> = Family::default();
    let paths: Family<Labels, Gauge> = Family::default();
    for connection in &status.connections {
        let label = match connection.connectivity {
            Connectivity::Connected => "connected",
            Connectivity::Disconnected => "disconnected",
            Connectivity::NeverConnected => "never_connected",
        };
        connectivity.get_or_create(&[("connectivity", label)]).inc();
    }
    for peer in &status.peers {
        let label = match peer.path {
            Some(PathKind::Direct) => "direct",
            Some(PathKind::Relayed) => "relayed",
            Some(PathKind::Local) => "local",
            None => "none",
        };
        paths.get_or_create(&[("path", label)]).inc();
    }
    registry.register("connections", "Connections of the policy by connectivity", connectivity);
    registry.register("peers", "Peers of the policy by path in use", paths);
    let sum =
        |value: fn(&gateway_proto::api::local::ConnectionStatus) -> u64| status.connections.iter().map(value).sum();
    let mut counter = |name: &str, help: &str, value: u64| registry.register(name, help, ConstCounter::new(value));
    counter("sent_bytes", "Payload bytes to peers", sum(|c| c.bytes_sent));
    counter("received_bytes", "Payload bytes from peers", sum(|c| c.bytes_received));
    counter("streams_finished", "Streams that ended cleanly on both sides", sum(|c| c.streams_finished));
    counter("streams_reset", "Streams that ended by a reset", sum(|c| c.streams_reset));
    let silent = "Streams that were reset because no byte passed for longer than the grant allows";
    counter("streams_silent", silent, sum(|c| c.streams_silent));
    counter("streams_refused", "Streams refused here or by the peer", sum(|c| c.streams_refused));
    let open = status.connections.iter().map(|c| i64::from(c.streams)).sum::<i64>();
    registry.register("streams_open", "Open streams", ConstGauge::new(open));
    path_counters(registry, status);
    relay_counters(registry, &status.relay_changes);
}

fn relay_counters(registry: &mut Registry, changes: &RelayChanges) {
    let mut by_reason = |name: &str, help: &str, counts: &BTreeMap<String, u64>| {
        let changes: Family<[(&'static str, String); 1], Counter> = Family::default();
        for (reason, count) in counts {
            changes.get_or_create(&[("reason", reason.clone())]).inc_by(*count);
        }
        registry.register(name, help, changes);
    };
    by_reason("carrier_changes", "Changes between UDP and TLS to relays, by reason", &changes.carrier);
    by_reason("home_changes", "Changes of the home relay, the first choice included, by reason", &changes.home);
}

fn path_counters(registry: &mut Registry, status: &Status) {
    // The codes are those of the path agent: a small closed set.
    let changes: Family<[(&'static str, String); 1], Counter> = Family::default();
    for (reason, count) in status.peers.iter().flat_map(|peer| &peer.path_counts.changes) {
        changes.get_or_create(&[("reason", reason.clone())]).inc_by(*count);
    }
    registry.register("path_changes", "Changes of the selected path over all peers, by reason", changes);
    let sum = |value: fn(&PathCounts) -> u64| status.peers.iter().map(|peer| value(&peer.path_counts)).sum();
    let mut counter = |name: &str, help: &str, value: u64| registry.register(name, help, ConstCounter::new(value));
    counter("path_distrusts", "Times a direct path missed two answers and data was sent twice", sum(|c| c.distrusted));
    counter("path_probes", "Path probes sent", sum(|c| c.probes_sent));
    counter("path_probe_bytes", "Path probes sent, bytes of UDP payload", sum(|c| c.probe_bytes_sent));
    counter("port_guess_runs", "Runs of port guessing", sum(|c| c.guess_runs));
    counter("port_guess_probes", "Probes of those runs", sum(|c| c.guess_probes));
}

fn audit_log(registry: &mut Registry, audit: &AuditLog) {
    let (admin, log) = (audit.admin_counters(), audit.counters());
    registry.register(
        "audit_writable",
        "1 while the audit log can be written",
        ConstGauge::new(i64::from(log.writable)),
    );
    let newest = i64::try_from(log.sequence).unwrap_or(i64::MAX);
    registry.register("audit_sequence", "Sequence of the newest record of the audit log", ConstGauge::new(newest));
    let is_alarm = audit.compared().is_some_and(|compared| compared.held.is_alarm());
    registry.register(
        "audit_head_missing",
        "1 while the audit log does not hold what was reported of it to the control plane",
        ConstGauge::new(i64::from(is_alarm)),
    );
    let mut counter = |name: &str, help: &str, value: u64| registry.register(name, help, ConstCounter::new(value));
    let mismatches = audit.mismatches();
    counter("audit_head_mismatches", "Times the audit log did not hold what was reported of it", mismatches);
    counter("admin_calls_passed", "Calls of partners' administrators that the engine answered", admin.passed);
    counter("admin_calls_refused", "Calls of partners' administrators that the guard refused", admin.refused);
    counter("admin_calls_unanswered", "Admin calls that were cut, or not answered by the engine", admin.unanswered);
    counter("admin_calls_unrecorded", "Admin calls that could not be written to the log", admin.unrecorded);
    counter("audit_records", "Records written to the audit log", log.written);
    counter("audit_records_lost", "Records that the audit log has only the number of", log.lost);
}

fn packets(registry: &mut Registry, socket: &TunnelSocket) {
    let counters = socket.counters();
    let mut counter = |name: &str, help: &str, value: &AtomicU64| {
        registry.register(name, help, ConstCounter::new(value.load(Relaxed)));
    };
    counter("direct_batches", "Packet batches sent on direct paths", &counters.direct_batches);
    counter("relayed_batches", "Packet batches handed to relay links over TLS", &counters.relayed_batches);
    counter("relayed_udp_batches", "Packet batches sent to relays over UDP", &counters.relayed_udp_batches);
    counter(
        "relayed_twice_batches",
        "Packet batches sent over a second relay too: the first gave no sign of life, or the peer is heard over another",
        &counters.spared_batches,
    );
    counter("relays_left_for_loss", "Times a relay lost too much of what went to a peer", &counters.lossy_relays);
    counter("relayed_refused_packets", "Datagrams from relays over UDP that were refused", &counters.relayed_refused);
    counter("relay_dropped_batches", "Batches dropped: a relay link was full", &counters.relay_dropped);
    counter("unroutable_batches", "Batches dropped: the peer has no path", &counters.unroutable);
    counter(
        "injected_dropped_batches",
        "Received relayed batches dropped: QUIC was behind",
        &counters.injected_dropped,
    );
    counter("stranger_packets", "QUIC packets from addresses nobody authenticated", &counters.strangers);
    counter("unknown_packets", "Packets of no known kind", &counters.unknown);
    counter("socket_reopened", "Times the tunnel's socket was opened anew", &counters.reopened);
    counter("name_lookups", "Times the name servers were asked for a STUN server", &counters.name_lookups);
    counter("names_evicted", "Names of STUN servers forgotten: there were too many", &counters.names_evicted);
    counter("probes_dropped", "Probes dropped: the path agents were behind", &counters.probes_dropped);
    counter("stun_dropped", "STUN answers dropped: the gatherer of addresses was behind", &counters.stun_dropped);
    counter(
        "path_commands_dropped",
        "Probes, signals and hints dropped: the path agent of their peer was behind",
        &counters.path_commands_dropped,
    );
    counter(
        "relay_inbound_dropped",
        "Signals and hints dropped: the relay that brought them sent too many",
        &counters.relay_inbound_dropped,
    );
    counter(
        "home_hints_ignored",
        "Home relays told by peers that do not count: not in the relay map, or changed too often",
        &counters.home_hints_ignored,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_relays_are_counted_by_the_code_of_their_reason() {
        let counts = |code: &str, count| BTreeMap::from([(code.to_owned(), count)]);
        let changes = RelayChanges { carrier: counts("stopped_passing", 3), home: counts("former_failed", 2) };
        let mut registry = Registry::with_prefix("gatewayd");
        relay_counters(&mut registry, &changes);
        let mut text = String::new();
        encode_text(&mut text, &registry).unwrap();
        assert!(text.contains("gatewayd_carrier_changes_total{reason=\"stopped_passing\"} 3"), "{text}");
        assert!(text.contains("gatewayd_home_changes_total{reason=\"former_failed\"} 2"), "{text}");
    }
}
