//! What the daemon's own socket gets through, where STUN servers say less or nothing.

use super::*;

#[test]
fn where_no_stun_server_answers_what_the_daemon_itself_gets_through_is_not_said_to_be_blocked() {
    for network in Network::all() {
        let report = judge(&network.seen(), 1);
        if network.flows == Flows::Nothing || !report.latencies.is_empty() {
            continue;
        }
        let of_udp = report.problems.iter().find(|problem| problem.text.contains("STUN")).unwrap();
        let seen = match network.flows {
            Flows::Relayed => "UDP of the tunnel's socket passes to relay.example and back. ",
            Flows::Direct | Flows::Nothing => "A direct path carries data to 192.0.2.77 port 443. ",
        };
        assert!(of_udp.text.contains(seen) && of_udp.text.contains("are not known then"), "{network:?}: {of_udp:?}");
        let all: String = report.problems.iter().map(|problem| problem.text.as_str()).collect();
        assert!(!all.contains("UDP does not get out") && !all.contains("over TLS, which"), "{network:?}: {all}");
        assert!(report.nat_text.starts_with("not known"), "{network:?}: {}", report.nat_text);
    }
}

#[test]
fn a_direct_path_within_the_site_and_a_carrier_that_does_not_pass_say_nothing_of_the_firewall() {
    let blocked = Network { udp: Udp::Nowhere, ..Network::kind() };
    let verdict_on = |direct: &[&str], reason: CarrierReason| {
        let direct = direct.iter().map(|remote| remote.parse().unwrap()).collect();
        let carriers = vec![CarrierSight { relay: "relay.example:443".into(), port: 7000, reason }];
        let sources = vec![SITE.parse().unwrap(), "2001:db8:1:5::2".parse().unwrap()];
        judge(&Observations { direct, carriers, sources, ..blocked.seen() }, 1).udp
    };
    let near = ["10.1.0.3:7000", "100.64.0.9:7000", "[fe80::3]:7000", "[fd00::3]:7000", "[2001:db8:1:6::3]:7000"];
    for reason in [CarrierReason::DoesNotPass, CarrierReason::StoppedPassing, CarrierReason::Trying] {
        assert_eq!(verdict_on(&near, reason), Some(false), "{reason:?}");
    }
    assert_eq!(verdict_on(&["[2001:db8:2::3]:7000"], CarrierReason::DoesNotPass), Some(true));
    assert_eq!(verdict_on(&["192.0.2.77:443"], CarrierReason::DoesNotPass), Some(true));
    assert_eq!(verdict_on(&near, CarrierReason::OnlySmallPackets), Some(true), "it gets out, if not for tunnels");
}

/// A hospital with public IPv4 inside and no NAT.
#[test]
fn a_direct_path_between_public_addresses_of_one_site_does_not_say_that_udp_leaves_it() {
    let blocked = Network { udp: Udp::Nowhere, ..Network::kind() };
    let judged = |remote: &str| {
        let mut seen = Observations { direct: vec![remote.parse().unwrap()], carriers: Vec::new(), ..blocked.seen() };
        seen.sources = vec!["203.0.113.2".parse().unwrap()];
        let report = judge(&seen, 1);
        let codes = report.problems.iter().map(|problem| problem.code.clone());
        (report.udp, codes.filter(|code| code.starts_with("udp_")).collect::<Vec<_>>())
    };
    assert_eq!(judged("203.0.113.77:7000"), (Some(false), vec!["udp_blocked".to_owned()]));
    assert_eq!(judged("198.51.100.77:7000"), (Some(true), vec!["udp_partly".to_owned()]));
}

#[test]
fn large_datagrams_that_the_tunnel_itself_carries_are_not_said_to_be_lost() {
    let codes = |flows| {
        let seen = Observations { large: Some(false), ..Network { flows, ..Network::kind() }.seen() };
        judge(&seen, 1).problems.into_iter().map(|problem| problem.code).collect::<Vec<_>>()
    };
    assert_eq!(codes(Flows::Nothing), ["mtu"]);
    assert!(codes(Flows::Relayed).is_empty() && codes(Flows::Direct).is_empty());
}
