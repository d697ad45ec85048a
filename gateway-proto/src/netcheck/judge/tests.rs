mod relays;

use super::*;
use crate::{
    netcheck::{CarrierSight, HostCheck, HostOutcome, MappingProtocol, PortMapping, ProxyRefusal, Reflection},
    relay::udp::CarrierReason,
    signal::NatMapping,
    twice::RunsTwice,
};

const SITE: &str = "10.1.0.2";

fn reflection(server: &str, address: &str, seen: Option<&str>) -> Reflection {
    Reflection {
        server: server.into(),
        address: Some(address.parse().unwrap()),
        source: Some(SITE.parse().unwrap()),
        seen: seen.map(|seen| seen.parse().unwrap()),
        rtt_ms: seen.map(|_| 12.0),
    }
}

fn host(role: HostRole, outcome: HostOutcome) -> HostCheck {
    HostCheck { role, host: "relay.example:443".into(), proxied: false, outcome }
}

fn seen_as(ports: [&str; 3]) -> Observations {
    let servers = ["a.example:3478", "a.example:3479", "b.example:3478"];
    let addresses = ["192.0.2.1:3478", "192.0.2.1:3479", "192.0.2.2:3478"];
    let entries = servers.iter().zip(addresses).zip(ports);
    Observations {
        reflections: entries.map(|((server, address), seen)| reflection(server, address, Some(seen))).collect(),
        port: 7000,
        large: Some(true),
        hosts: vec![
            host(HostRole::Control, HostOutcome::Reached { connect_ms: 20.0 }),
            host(HostRole::Relay, HostOutcome::Reached { connect_ms: 20.0 }),
        ],
        ..Observations::default()
    }
}

#[test]
fn a_kind_network_has_no_problem() {
    let report = judge(&seen_as(["203.0.113.1:7000"; 3]), 1);
    assert_eq!(report.verdict, Verdict::Good, "{report:?}");
    assert_eq!(report.nat, NatMapping::EndpointIndependent);
    assert_eq!((report.udp, report.port_preserved), (Some(true), Some(true)));
    assert!(report.nat_text.contains("one outer port"), "{}", report.nat_text);
    let public = Observations { port: 7000, ..seen_as(["10.1.0.2:7000"; 3]) };
    assert!(judge(&public, 1).nat_text.starts_with("no NAT"));
}

#[test]
fn a_listen_address_that_is_gone_is_told_with_what_to_do() {
    let with = |problem| judge(&Observations { socket: Some(problem), ..seen_as(["203.0.113.1:7000"; 3]) }, 1);
    let report = with(SocketProblem::AddressGone(SITE.parse().unwrap()));
    assert_eq!((report.problems[0].code.as_str(), report.verdict), ("listen_address_gone", Verdict::Limited));
    assert!(report.problems[0].text.contains("10.1.0.2") && report.problems[0].text.contains("[::]:PORT"));
    let address = "10.1.0.2:7000".parse().unwrap();
    let report = with(SocketProblem::NotOpened { address, problem: "Address already in use".into() });
    assert_eq!(report.problems[0].code, "listen_address_refused");
    assert!(report.problems[0].text.contains("10.1.0.2:7000") && report.problems[0].text.contains("in use"));
}

#[test]
fn udp_that_passes_from_a_new_socket_and_not_from_the_tunnels_is_no_clean_bill() {
    let with = |reasons: &[CarrierReason]| {
        let carriers = reasons.iter().zip(["relay-1.example:443", "relay-2.example:443"]);
        let carriers =
            carriers.map(|(reason, relay)| CarrierSight { relay: relay.into(), port: 7000, reason: *reason });
        judge(&Observations { carriers: carriers.collect(), ..seen_as(["203.0.113.1:7000"; 3]) }, 1)
    };
    let report = with(&[CarrierReason::StoppedPassing, CarrierReason::DoesNotPass]);
    assert_eq!((report.problems.len(), report.verdict), (1, Verdict::Limited), "{report:?}");
    let problem = &report.problems[0];
    assert_eq!(problem.code, "udp_cut_off");
    let request = problem.request.as_ref().unwrap();
    assert!(request.contains("UDP from 10.1.0.2 port 7000 to relay-1.example, relay-2.example pass"), "{request}");
    for well in [CarrierReason::Passes, CarrierReason::Trying, CarrierReason::NotOffered] {
        assert_eq!(with(&[CarrierReason::StoppedPassing, well]).verdict, Verdict::Good, "one relay may be at fault");
    }
}

#[test]
fn a_port_mapping_is_shown_and_one_that_is_not_given_is_a_problem() {
    let mapping = |outer: Option<&str>, problem: Option<&str>| {
        let outer = outer.map(|outer| outer.parse().unwrap());
        let protocol = outer.map(|_| MappingProtocol::Upnp);
        let port_mapping = Some(PortMapping { protocol, outer, problem: problem.map(str::to_owned) });
        judge(&Observations { port_mapping, ..seen_as(["203.0.113.1:7000"; 3]) }, 1)
    };
    let report = mapping(Some("203.0.113.1:7000"), None);
    assert!(report.problems.is_empty() && report.port_mapping.is_some());
    let report = mapping(None, Some("the router gives no port"));
    assert_eq!(report.problems[0].code, "port_mapping");
    assert!(report.problems[0].text.contains("the router gives no port"));
}

#[test]
fn a_port_for_every_destination_is_a_hard_nat_and_the_network_team_is_told_what_to_do() {
    let report = judge(&seen_as(["203.0.113.1:4001", "203.0.113.1:52000", "203.0.113.1:17"]), 1);
    assert_eq!((report.nat, report.verdict), (NatMapping::Random, Verdict::Limited));
    let problem = &report.problems[0];
    assert_eq!(problem.code, "hard_nat");
    assert!(problem.request.as_ref().unwrap().contains("UDP from 10.1.0.2 one fixed outer port"), "{problem:?}");
    let pool = judge(&seen_as(["203.0.113.1:40", "203.0.113.2:40", "203.0.113.1:40"]), 1);
    assert_eq!(pool.nat, NatMapping::Random, "several outer addresses cannot be foreseen");
    assert_eq!(judge(&seen_as(["203.0.113.1:40", "203.0.113.1:41", "203.0.113.1:43"]), 1).nat, NatMapping::Regular);
}

#[test]
fn blocked_udp_names_source_host_address_and_ports() {
    let mut seen = seen_as(["203.0.113.1:7000"; 3]);
    for entry in &mut seen.reflections {
        (entry.seen, entry.rtt_ms) = (None, None);
    }
    seen.large = None;
    let report = judge(&seen, 1);
    assert_eq!((report.udp, report.verdict), (Some(false), Verdict::Limited));
    let request = report.problems[0].request.as_deref().unwrap();
    assert!(
        request.starts_with("Please allow UDP from 10.1.0.2 to a.example (192.0.2.1) port 3478, a.example (192.0.2.1) port 3479, b.example"),
        "{request}"
    );
}

#[test]
fn interception_says_whose_certificate_was_shown_and_blocks() {
    let mut seen = seen_as(["203.0.113.1:7000"; 3]);
    let outcome = HostOutcome::Intercepted {
        issuer: Some("Inspection CA".into()),
        shown: "bb".repeat(32),
        pinned: "aa".repeat(32),
    };
    seen.hosts = vec![host(HostRole::Relay, outcome)];
    let report = judge(&seen, 1);
    assert_eq!(report.verdict, Verdict::Blocked, "no relay is left");
    let problem = &report.problems[0];
    assert!(problem.text.contains("issued by 'Inspection CA'") && problem.text.contains(&"bb".repeat(32)));
    assert!(problem.request.as_ref().unwrap().contains("exempt relay.example:443"));
}

#[test]
fn a_server_of_ours_with_another_key_is_a_question_to_the_operator_before_it_is_one_to_the_network_team() {
    let mut seen = seen_as(["203.0.113.1:7000"; 3]);
    let outcome =
        HostOutcome::Intercepted { issuer: Some("gateway".into()), shown: "bb".repeat(32), pinned: "aa".repeat(32) };
    seen.hosts = vec![host(HostRole::Relay, outcome)];
    let problem = judge(&seen, 1).problems.remove(0);
    assert!(problem.text.contains("the relay was given a new key") && !problem.text.contains("Somebody"));
    assert!(problem.text.contains(&"bb".repeat(32)) && problem.text.contains(&"aa".repeat(32)));
    assert!(problem.request.unwrap().starts_with("Only if the operator gave it no new key"));
}

#[test]
fn a_proxy_and_a_firewall_are_different_addressees() {
    let mut seen = seen_as(["203.0.113.1:7000"; 3]);
    seen.proxy = Some("proxy.example:3128".into());
    seen.hosts[1].outcome = HostOutcome::Proxy { problem: "status 403".into(), refusal: ProxyRefusal::of_status(403) };
    let report = judge(&seen, 1);
    assert_eq!(
        report.problems[0].request.as_deref(),
        Some("Please allow CONNECT to relay.example:443 at the proxy for 10.1.0.2.")
    );
    seen.hosts[1].outcome = HostOutcome::ProxyLogin { problem: "status 407".into() };
    let problem = judge(&seen, 1).problems.remove(0);
    assert_eq!((problem.code.as_str(), problem.request), ("proxy_login", None), "nobody else can mend it");
    seen.hosts[1].outcome = HostOutcome::Unreachable { problem: "timed out".into() };
    let request = judge(&seen, 1).problems[0].request.clone().unwrap();
    assert_eq!(request, "Please allow TCP from 10.1.0.2 to relay.example port 443 (outbound only).");
}

#[test]
fn what_does_not_answer_is_told_to_whom_it_concerns() {
    let mut seen = seen_as(["203.0.113.1:7000"; 3]);
    seen.proxy = Some("proxy.example:3128".into());
    let mut told = |outcome| {
        seen.hosts[1].outcome = outcome;
        let problem = judge(&seen, 1).problems.remove(0);
        (problem.code, problem.text, problem.request.unwrap())
    };
    let (code, _, request) = told(HostOutcome::ProxySilent { problem: "no answer".into() });
    assert_eq!(code, "proxy_unreachable");
    assert!(request.contains("proxy.example:3128") && !request.contains("relay.example"), "{request}");
    let (code, text, request) = told(HostOutcome::TlsSilent { problem: "no answer".into() });
    assert_eq!(code, "tls_no_answer");
    assert!(text.contains("MTU") && text.contains("inspects") && request.contains("clamp the MSS"), "{text} {request}");
    let (code, text, request) = told(HostOutcome::TlsCutOff { problem: "connection reset".into() });
    assert!(code == "tls_cut_off" && text.contains("cut off as soon as TLS begins"), "{text}");
    assert!(request.contains("filter for applications and server names"), "{request}");
    let (code, _, request) = told(HostOutcome::Unresolved { problem: "no answer".into() });
    assert!(code == "dns" && request.contains("resolve the name relay.example"), "{request}");
}

#[test]
fn data_is_not_said_to_flow_through_a_relay_that_is_not_reached() {
    let mut seen = seen_as(["203.0.113.1:7000"; 3]);
    for entry in &mut seen.reflections {
        (entry.seen, entry.rtt_ms) = (None, None);
    }
    let text = |seen: &Observations| {
        let problems = judge(seen, 1).problems;
        problems.into_iter().find(|problem| problem.code == "udp_blocked").unwrap().text
    };
    assert!(text(&seen).contains("Data flows through a relay over TLS"));
    seen.hosts[1].outcome = HostOutcome::Unreachable { problem: "timed out".into() };
    assert!(!text(&seen).contains("Data flows") && text(&seen).contains("none was reached"));
}

#[test]
fn a_wrong_clock_is_told_with_its_distance_and_side() {
    let mut seen = seen_as(["203.0.113.1:7000"; 3]);
    seen.clock_skew_ms = Some(2 * 3600 * 1000 + 1);
    let report = judge(&seen, 1);
    assert!(report.problems[0].text.contains("2 h behind"), "{:?}", report.problems[0]);
    seen.clock_skew_ms = Some(-15_000);
    assert!(judge(&seen, 1).problems[0].text.contains("15 s ahead"));
    seen.clock_skew_ms = Some(-9_999);
    assert_eq!(judge(&seen, 1).verdict, Verdict::Good);
    seen.clock_skew_ms = Some(i64::MIN);
    assert_eq!(judge(&seen, 1).problems.len(), 1);
}

#[test]
fn a_gateway_that_runs_twice_is_no_matter_of_the_network() {
    let told = |is_second| RunsTwice { is_second, since: 1, at: 2, address: Some("192.0.2.7".into()) };
    let judged =
        |is_second| judge(&Observations { runs_twice: Some(told(is_second)), ..seen_as(["203.0.113.1:7000"; 3]) }, 1);
    let (first, second) = (judged(false), judged(true));
    assert_eq!((first.verdict, second.verdict), (Verdict::Limited, Verdict::Blocked));
    for report in [first, second] {
        let problem = &report.problems[0];
        assert_eq!((problem.code.as_str(), &problem.request), ("runs_twice", &None));
        assert!(
            problem.text.starts_with("This gateway runs twice") && problem.text.contains("192.0.2.7"),
            "{problem:?}"
        );
    }
}

#[test]
fn small_datagrams_alone_are_not_enough() {
    let mut seen = seen_as(["203.0.113.1:7000"; 3]);
    seen.large = Some(false);
    let report = judge(&seen, 1);
    assert_eq!(report.problems[0].code, "mtu");
    assert_eq!(report.verdict, Verdict::Limited);
}

#[test]
fn nothing_to_ask_is_no_problem_and_no_claim() {
    let report = judge(&Observations::default(), 1);
    assert_eq!((report.udp, report.verdict), (None, Verdict::Unknown));
    assert!(report.problems.is_empty() && report.nat_text.starts_with("not known"));
}

#[test]
fn stun_servers_whose_names_do_not_resolve_do_not_make_a_network_without_udp_good() {
    let mut seen = seen_as(["203.0.113.1:7000"; 3]);
    for entry in &mut seen.reflections {
        (entry.address, entry.source, entry.seen, entry.rtt_ms) = (None, None, None, None);
    }
    (seen.large, seen.proxy) = (None, Some("proxy.example:3128".into()));
    seen.sources = vec![SITE.parse().unwrap()];
    let report = judge(&seen, 1);
    assert_eq!((report.udp, report.verdict, report.problems.len()), (None, Verdict::Limited, 1));
    assert_eq!(report.nat_text, "not known: no name of a STUN server resolves");
    let request = report.problems[0].request.as_deref().unwrap();
    let expected = "Please let 10.1.0.2 resolve a.example, b.example (DNS, port 53 over UDP and TCP), and allow UDP from there \
                    to a.example port 3478, a.example port 3479, b.example port 3478, and for direct paths";
    assert!(report.problems[0].code == "dns" && request.starts_with(expected), "{request}");
    // One name alone: the rest tells of UDP.
    let mut seen = seen_as(["203.0.113.1:7000"; 3]);
    (seen.reflections[2].address, seen.reflections[2].source, seen.reflections[2].seen) = (None, None, None);
    let report = judge(&seen, 1);
    assert_eq!((report.udp, report.verdict, report.problems[0].code.as_str()), (Some(true), Verdict::Limited, "dns"));
    assert!(!report.problems[0].request.as_deref().unwrap().contains("allow UDP"));
}

#[test]
fn a_port_that_does_not_answer_is_told_although_others_do_and_an_address_that_nothing_vouches_for_is_doubted() {
    let mut seen = seen_as(["203.0.113.1:7000"; 3]);
    (seen.reflections[1].seen, seen.reflections[1].rtt_ms) = (None, None);
    let told = |seen: &Observations| {
        let report = judge(seen, 1);
        assert_eq!((report.verdict, report.problems.len()), (Verdict::Limited, 1), "{report:?}");
        let problem = report.problems.into_iter().next().unwrap();
        (problem.code, problem.text, problem.request.unwrap())
    };
    let (code, text, request) = told(&seen);
    assert!(code == "udp_partly" && text.contains("no answer from a.example (192.0.2.1) port 3479"), "{code} {text}");
    assert!(request.starts_with("Please allow UDP from 10.1.0.2 to a.example (192.0.2.1) port 3479, and"), "{request}");
    assert!(!request.contains("right address"), "the other port of it answers: {request}");
    seen.reflections[0].seen = None;
    assert!(told(&seen).2.ends_with("Please look as well whether a.example resolves to the right address there."));
    seen.hosts[1].host = "a.example:443".into();
    assert!(!told(&seen).2.contains("right address"), "it proved its key there");
    seen.hosts[1].proxied = true;
    assert!(told(&seen).2.contains("right address"), "there the proxy resolved the name");
    seen.reflections.iter_mut().for_each(|entry| (entry.source, entry.seen) = (None, None));
    let (code, text, _) = told(&seen);
    assert!(code == "udp_blocked" && text.contains("no route to 192.0.2.1, 192.0.2.2"), "{text}");
}

#[test]
fn what_the_proxy_does_to_all_is_said_once_and_each_refusal_asks_for_something_else() {
    let mut seen = seen_as(["203.0.113.1:7000"; 3]);
    (seen.proxy, seen.sources) = (Some("proxy.example:3128".into()), vec!["10.1.0.9".parse().unwrap()]);
    let mut told = |refusal, once: bool| {
        for (host, name) in seen.hosts.iter_mut().zip(["control.example:443", "relay.example:443"]) {
            (host.host, host.proxied) = (name.into(), true);
            host.outcome = HostOutcome::Proxy { problem: "so it is".into(), refusal };
        }
        let report = judge(&seen, 1);
        assert_eq!((report.verdict, report.problems.len()), (Verdict::Blocked, if once { 1 } else { 2 }), "{report:?}");
        let all: String = report.problems.iter().map(|problem| format!("{problem:?}")).collect();
        assert!(all.contains("the control plane control.example:443") && all.contains("the relay relay.example:443"));
        let problem = report.problems.into_iter().next().unwrap();
        let request = problem.request.unwrap();
        assert!(request.contains("10.1.0.9") && !request.contains("10.1.0.2"), "as the proxy knows it: {request}");
        (problem.code, request)
    };
    let (code, request) = told(ProxyRefusal::of_status(429), true);
    assert!(code == "proxy_limit" && request.contains("raise the limit of the proxy proxy.example:3128"), "{request}");
    for (status, once, asked) in [
        (502, false, "itself reach"),
        (504, false, "itself reach"),
        (302, true, "login page"),
        (403, false, "allow CONNECT"),
    ] {
        let (code, request) = told(ProxyRefusal::of_status(status), once);
        assert!(code == "proxy_refused" && request.contains(asked), "{status}: {request}");
    }
    assert!(told(ProxyRefusal::LoginScheme, true).1.contains("Basic authentication"));
    assert!(told(ProxyRefusal::NotAProxy, true).1.contains("address and port of the HTTP proxy"));
    assert!(told(ProxyRefusal::BrokenOff, false).1.contains("log of the proxy"));
}

#[test]
fn connections_that_come_up_late_are_told_with_who_is_late() {
    let mut seen = seen_as(["203.0.113.1:7000"; 3]);
    seen.hosts[1].outcome = HostOutcome::Reached { connect_ms: 6_200.0 };
    let problem = judge(&seen, 1).problems.remove(0);
    assert_eq!(problem.code, "slow_connection");
    assert!(problem.text.contains("to the relay relay.example:443 takes up to 6 s"), "{}", problem.text);
    (seen.proxy, seen.hosts[1].proxied) = (Some("proxy.example:3128".into()), true);
    let report = judge(&seen, 1);
    let request = report.problems[0].request.as_deref().unwrap();
    assert_eq!(report.verdict, Verdict::Limited, "data flows");
    assert!(request.starts_with("Please let the proxy proxy.example:3128 answer CONNECT from 10.1.0.2"), "{request}");
}

#[test]
fn a_server_whose_key_is_not_known_yet_and_whose_certificate_nobody_vouches_for_is_no_clean_bill() {
    let mut seen = seen_as(["203.0.113.1:7000"; 3]);
    let issuer = Some("Inspection CA".to_owned());
    seen.hosts[0].outcome = HostOutcome::Unproven { connect_ms: 9.0, issuer, shown: "bb".repeat(32) };
    let report = judge(&seen, 1);
    assert_eq!((report.verdict, report.problems[0].code.as_str()), (Verdict::Limited, "tls_unproven"));
    assert!(report.problems[0].text.contains("issued by 'Inspection CA'"), "{:?}", report.problems);
    assert!(report.problems[0].request.as_ref().unwrap().contains("is inspected: please exempt it"));
}
