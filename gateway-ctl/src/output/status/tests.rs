use std::collections::BTreeMap;

use gateway_proto::{
    api::local::{ControlStatus, PolicyStatus, RelayChanges, SocketStatus},
    id::ConnectionId,
    identity::GatewayKey,
    netcheck::{MappingProtocol, SocketProblem},
    policy::ConnectionKind,
    relay::{Limit, LimitKind},
    twice::RunsTwice,
};

use super::*;

const NOW: u64 = 1_760_000_000_000;

fn connection(endpoint: &str) -> ConnectionStatus {
    ConnectionStatus {
        id: ConnectionId::new(1, [endpoint.len() as u8; 10]),
        endpoint: endpoint.into(),
        kind: ConnectionKind::P2p,
        role: "sender".into(),
        peer_server: "lab".into(),
        peer_organization: "Clinic B".into(),
        activation: Activation::Active,
        authorized: true,
        connectivity: Connectivity::Connected,
        path: Some(PathKind::Direct),
        path_reason: "the lowest round-trip time".into(),
        rtt_ms: Some(0.84),
        local_address: Some("127.0.0.1:6661".into()),
        last_sent_at: Some(NOW - 3_000),
        last_received_at: None,
        bytes_sent: 1_234_567,
        bytes_received: 12,
        streams: 1,
        streams_finished: 10,
        streams_reset: 0,
        streams_refused: 2,
        streams_silent: 0,
        limits: ChannelLimits::default(),
        admin: None,
        problem: None,
        waiting: None,
        places: None,
        unobserved: false,
        warnings: vec![],
        exchange: None,
    }
}

fn status(connections: Vec<ConnectionStatus>) -> Status {
    let key = |n| GatewayKey::from_seed(&[n; 32]).public();
    Status {
        version: "0.1.0".into(),
        key: key(1),
        server: Some("front desk".into()),
        organization: Some("Clinic A".into()),
        started_at: NOW - 7_200_000,
        control: ControlStatus {
            connected: true,
            url: Some("https://control.example".into()),
            last_heard_at: Some(NOW - 2_000),
            clock_skew_ms: Some(3),
            proxy: Some("proxy.example:3128".into()),
            problem: None,
        },
        policy: PolicyStatus {
            revision: 12,
            issued_at: Some(NOW / 1000 - 300),
            confirmed_at: Some(NOW / 1000 - 2),
            age_secs: Some(2),
            problem: None,
        },
        relays: vec![RelayStatus {
            id: "rly_1".into(),
            url: "wss://relay.example/relay".into(),
            region: Some("eu-north".into()),
            home: true,
            home_reason: Some("nearest".into()),
            home_reason_text: Some("the lowest latency".into()),
            latency_ms: Some(11.7),
            attached: true,
            rtt_ms: Some(12.4),
            carrier: Some("passes".into()),
            carrier_text: Some("relayed over UDP".into()),
            carrier_changes: BTreeMap::new(),
            proxied: false,
            limit: None,
            limit_text: None,
            problem: None,
        }],
        relay_changes: RelayChanges::default(),
        peers: vec![PeerStatus {
            key: key(2),
            server: "lab".into(),
            organization: "Clinic B".into(),
            connectivity: Connectivity::Connected,
            path: Some(PathKind::Direct),
            path_reason: "lowest_rtt".into(),
            path_reason_text: "the lowest round-trip time".into(),
            remote_address: None,
            rtt_ms: Some(0.84),
            last_proof_at: Some(NOW - 1_500),
            path_changes: 1,
            path_counts: gateway_proto::api::local::PathCounts::default(),
            key_exchange: Some("X25519MLKEM768".into()),
        }],
        connections,
        socket: None,
        port_mapping: None,
        relays_disagree: None,
        engine: None,
        audit: None,
        runs_twice: None,
    }
}

#[test]
fn the_view_answers_what_a_person_asks() {
    let text = render(&status(vec![connection("ADT")]), &[], NOW, Style::PLAIN);
    let expected = format!(
        "\
CONNECTED  1 connection

Server        front desk
Organization  Clinic A
Key           {}
Control link  connected to https://control.example through the proxy proxy.example:3128, heard 2 s ago
Policy        revision 12, signed 5 min ago, confirmed 2 s ago
Relay         attached to wss://relay.example/relay (eu-north), home (the lowest latency), 12 ms away, round trip 12 ms, relayed over UDP
Daemon        gatewayd 0.1.0, started 2 h ago

ADT  p2p  {}
  Role           sender
  Peer           lab of Clinic B
  Activation     active
  Connectivity   connected, proved 1 s ago
  Path           direct: the lowest round-trip time
  Round trip     0.8 ms
  Last message   sent 3 s ago, received never
  Local address  127.0.0.1:6661
  Streams        1 open, 10 finished, 0 reset, 2 refused
  Traffic        1235 kB sent, 12 B received
  Key exchange   X25519MLKEM768
",
        GatewayKey::from_seed(&[1; 32]).public(),
        connection("ADT").id,
    );
    assert_eq!(text, expected);
}

#[test]
fn one_connection_without_proof_makes_the_whole_answer_no() {
    let lost = ConnectionStatus { connectivity: Connectivity::Disconnected, path: None, ..connection("ORU") };
    let status = status(vec![connection("ADT"), lost]);
    let verdict = Verdict::of(&status, &[]);
    assert_eq!(verdict, Verdict::NotConnected { connected: 1, of: 2 });
    assert!(!verdict.is_connected());
    let text = render(&status, &[], NOW, Style::PLAIN);
    assert!(text.starts_with("NOT CONNECTED  1 of 2 connections connected\n"), "{text}");
    assert!(text.contains("Connectivity   NOT CONNECTED, last proof 1 s ago"), "{text}");
}

#[test]
fn a_paused_connection_neither_counts_nor_makes_a_yes() {
    let paused = ConnectionStatus { activation: Activation::Paused, authorized: false, ..connection("ORU") };
    assert!(Verdict::of(&status(vec![connection("ADT"), paused.clone()]), &[]).is_connected());
    assert_eq!(Verdict::of(&status(vec![paused.clone()]), &[]), Verdict::NoConnection);
    // Asked about by name it counts, and what may carry no data is not connected.
    let asked = Verdict::of(&status(vec![connection("ADT"), paused]), &["ORU".into()]);
    assert_eq!(asked, Verdict::NotConnected { connected: 0, of: 1 });
}

#[test]
fn a_peer_and_an_endpoint_are_not_what_another_peer_calls_the_same() {
    let called = "Clinic B/ADT";
    let theirs = ConnectionStatus { peer_organization: "Mallory".into(), ..connection(called) };
    let verdict = |asked: &str| Verdict::of(&status(vec![theirs.clone()]), &[asked.to_owned()]);
    assert_eq!(verdict(called), Verdict::Missing(called.into()));
    assert!(verdict("Mallory/Clinic B/ADT").is_connected() && verdict(&theirs.id.to_string()).is_connected());
}

#[test]
fn a_connection_that_is_not_there_yet_is_not_connected() {
    let verdict = Verdict::of(&status(vec![connection("ADT")]), &["ADT".into(), "ORU".into()]);
    assert_eq!(verdict, Verdict::Missing("ORU".into()));
    assert!(Verdict::of(&status(vec![connection("ADT")]), &["Clinic B/ADT".into()]).is_connected());
}

#[test]
fn a_relay_that_drops_much_for_a_limit_is_named() {
    let mut status = status(vec![connection("ADT")]);
    let limit = Limit { kind: LimitKind::Organization, percent: 64 };
    status.relays[0].limit_text = Some(limit.to_string());
    let text = render(&status, &[], NOW, Style::PLAIN);
    let expected =
        "relayed over UDP, LIMIT: the relay's limit for all gateways of this organization is reached: it drops 64 %";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn a_relay_says_that_tls_goes_through_the_proxy_and_how_often_its_carrier_changed() {
    let mut status = status(vec![connection("ADT")]);
    status.relays[0].carrier_changes = BTreeMap::from([("passes".into(), 1)]);
    assert!(!render(&status, &[], NOW, Style::PLAIN).contains("changes between"), "the first use of UDP is no news");
    status.relays[0].carrier_text = Some("relayed over TLS: UDP to the relay stopped passing".into());
    status.relays[0].carrier_changes = BTreeMap::from([("passes".into(), 2), ("stopped_passing".into(), 2)]);
    status.relays[0].proxied = true;
    let text = render(&status, &[], NOW, Style::PLAIN);
    let expected =
        "stopped passing, TLS through the proxy, 4 changes between UDP and TLS (passes 2, stopped_passing 2)";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn a_relayed_connection_is_connected_but_not_direct() {
    let relayed = ConnectionStatus { path: Some(PathKind::Relayed), ..connection("ORU") };
    let verdict = Verdict::of(&status(vec![connection("ADT"), relayed]), &[]);
    assert!(verdict.is_connected() && !verdict.is_direct());
    let local = ConnectionStatus { path: Some(PathKind::Local), ..connection("ORU") };
    assert!(Verdict::of(&status(vec![local]), &[]).is_direct());
}

#[test]
fn a_gateway_that_is_not_enrolled_says_so_first() {
    let fresh = Status { server: None, organization: None, ..status(Vec::new()) };
    let text = render(&fresh, &[], NOW, Style::PLAIN);
    assert!(text.starts_with("NOT CONNECTED  this gateway is not enrolled"), "{text}");
}

#[test]
fn lost_links_and_refused_policies_show() {
    let mut status = status(Vec::new());
    status.control.connected = false;
    status.control.problem = Some("connection refused".into());
    status.control.clock_skew_ms = Some(-90_000);
    status.policy.problem = Some("signed by a stranger".into());
    status.relays[0].attached = false;
    (status.relays[0].carrier, status.relays[0].carrier_text) = (None, None);
    status.relays[0].problem = Some("refused".into());
    let text = render(&status, &[], NOW, Style::PLAIN);
    for part in [
        "Control link  NOT CONNECTED to https://control.example through the proxy proxy.example:3128, heard 2 s ago, its clock is 90 s behind: connection refused",
        "              the newest policy was refused: signed by a stranger",
        "Relay         NOT ATTACHED to wss://relay.example/relay (eu-north), home: refused",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn a_name_from_a_partner_cannot_write_to_the_terminal() {
    let hostile = ConnectionStatus { peer_server: "\u{1b}]0;x\u{7}".into(), ..connection("A\u{1b}[2J") };
    let text = render(&status(vec![hostile]), &["\u{1b}[1m".into()], NOW, Style::PLAIN);
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn colours_are_only_in_the_coloured_view() {
    let status = status(vec![connection("ADT")]);
    let coloured = render(&status, &[], NOW, Style { color: true });
    assert!(coloured.starts_with("\u{1b}[1;32mCONNECTED\u{1b}[0m"));
    assert!(!render(&status, &[], NOW, Style::PLAIN).contains('\u{1b}'));
}

#[test]
fn sizes_stay_readable() {
    assert_eq!([9_999, 10_000, 28_000_000, u64::MAX].map(bytes), ["9999 B", "10 kB", "28 MB", "18446744 TB"]);
    assert_eq!(milliseconds(12.34), "12 ms");
    let round: Status =
        serde_json::from_str(&serde_json::to_string(&status(vec![connection("ADT")])).unwrap()).unwrap();
    assert_eq!(round.connections.len(), 1);
}

#[test]
fn a_tunnel_socket_without_its_address_and_a_port_mapping_are_told() {
    let problem = SocketProblem::AddressGone("192.0.2.10".parse().unwrap()).to_string();
    let socket = SocketStatus { address: "192.0.2.10:7070".parse().unwrap(), reopened: 0, problem: Some(problem) };
    let outer = Some("203.0.113.7:7070".parse().unwrap());
    let mapping = PortMapping { protocol: Some(MappingProtocol::NatPmp), outer, problem: None };
    let told = Status { socket: Some(socket.clone()), port_mapping: Some(mapping), ..status(Vec::new()) };
    let text = render(&told, &[], NOW, Style::PLAIN);
    assert!(text.contains("192.0.2.10:7070 carries nothing: its address 192.0.2.10"), "{text}");
    assert!(text.contains("the router forwards 203.0.113.7:7070 by NAT-PMP"), "{text}");
    let refused = PortMapping { protocol: None, outer: None, problem: Some("the router gives no port".into()) };
    let sound = Status {
        socket: Some(SocketStatus { problem: None, ..socket }),
        port_mapping: Some(refused),
        ..status(Vec::new())
    };
    let text = render(&sound, &[], NOW, Style::PLAIN);
    assert!(!text.contains("carries nothing") && text.contains("NONE: the router gives no port"), "{text}");
}

#[test]
fn a_gateway_that_runs_twice_says_so_first_and_the_original_says_it_beside_everything_else() {
    let now = NOW / 1000;
    let told = |is_second| RunsTwice { is_second, since: now - 60, at: now - 3, address: Some("192.0.2.7".into()) };
    let second = Status { runs_twice: Some(told(true)), ..status(vec![connection("ADT")]) };
    assert_eq!(Verdict::of(&second, &[]), Verdict::RunsTwice);
    let text = render(&second, &[], NOW, Style::PLAIN);
    assert!(text.starts_with("NOT CONNECTED  this gateway runs twice"), "{text}");
    assert!(text.contains("from 192.0.2.7") && text.contains("gateway-ctl gateway enroll CODE"), "{text}");
    assert!(text.contains("it took the place 60 s ago, both were there 3 s ago"), "{text}");
    let first = Status { runs_twice: Some(told(false)), ..status(vec![connection("ADT")]) };
    let text = render(&first, &[], NOW, Style::PLAIN);
    assert!(text.starts_with("CONNECTED") && text.contains("it was refused 60 s ago, and again 3 s ago"), "{text}");
}

#[test]
fn a_relay_that_sees_another_outer_address_than_most_is_told_with_where_to_read_on() {
    let said = "relay-3.lab saw 203.0.113.9:5001, and most relays (relay-1.lab, relay-2.lab) saw 203.0.113.2:7070";
    let told = Status { relays_disagree: Some(said.into()), ..status(vec![connection("ADT")]) };
    let text = render(&told, &[], NOW, Style::PLAIN);
    assert!(text.contains("Outer address") && text.contains(said) && text.contains("gateway-ctl netcheck"), "{text}");
    assert!(!render(&status(Vec::new()), &[], NOW, Style::PLAIN).contains("Outer address"), "they agree");
}

#[test]
fn limits_of_the_owner_are_shown_where_there_are_some_and_streams_that_were_silent_are_told() {
    let plain = connection_lines(&connection("ORU"), None, NOW);
    assert!(plain.iter().all(|(label, _)| *label != "Limits"));
    let limits = ChannelLimits { bytes_per_second: Some(50_000), receive_timeout_secs: Some(600) };
    let limited = ConnectionStatus { limits, streams_reset: 3, streams_silent: 2, ..connection("ORU") };
    let lines = connection_lines(&limited, None, NOW);
    let line = |name: &str| lines.iter().find(|(label, _)| *label == name).map(|(_, text)| text.as_str()).unwrap();
    assert_eq!(line("Limits"), "50 kB/s in each direction, a stream is reset after 600 s without a byte");
    assert_eq!(line("Streams"), "1 open, 10 finished, 3 reset (2 after silence), 2 refused");
}
