//! Every network that can be put together from what DNS, UDP, the HTTP proxy and TLS do, and what the daemon's own socket gets through it:
//! the verdict is the truth, and everything that is broken is told, with the sentence to send.

mod flows;

use std::collections::BTreeSet;

use super::{judge, port_of};
use crate::{
    nat64::Nat64Prefix,
    netcheck::{
        CarrierSight, HostCheck, HostOutcome, HostRole, Observations, ProxyRefusal, Reflection, Report, Verdict,
    },
    relay::udp::CarrierReason,
};

const SITE: &str = "10.1.0.2";
const PORTS: [u16; 2] = [3478, 3479];

/// What becomes of names outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dns {
    Works,
    Fails,
    /// It names a machine that is not the server's.
    Lies,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Udp {
    Everywhere,
    Nowhere,
    /// To the first of [`PORTS`].
    SomePorts,
}

/// The way out over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Straight,
    /// Through a proxy that nobody configured.
    UnknownProxy,
    Proxy,
    SlowProxy,
    /// 407.
    ProxyLogin,
    /// 429.
    ProxyLimit,
    /// 502.
    ProxyLost,
    /// It resets what is connected.
    ProxyResets,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tls {
    Clean,
    Intercepted,
}

/// What goes out and back from the tunnel's socket, to other ports than those of STUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flows {
    Nothing,
    /// Datagrams to the relay.
    Relayed,
    /// A direct path to a partner.
    Direct,
}

#[derive(Debug, Clone, Copy)]
struct Network {
    dns: Dns,
    udp: Udp,
    way: Way,
    tls: Tls,
    flows: Flows,
}

impl Network {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for dns in [Dns::Works, Dns::Fails, Dns::Lies] {
            for udp in [Udp::Everywhere, Udp::Nowhere, Udp::SomePorts] {
                for way in [
                    Way::Straight,
                    Way::UnknownProxy,
                    Way::Proxy,
                    Way::SlowProxy,
                    Way::ProxyLogin,
                    Way::ProxyLimit,
                    Way::ProxyLost,
                    Way::ProxyResets,
                ] {
                    for tls in [Tls::Clean, Tls::Intercepted] {
                        let flows = [Flows::Nothing, Flows::Relayed, Flows::Direct];
                        all.extend(flows.map(|flows| Self { dns, udp, way, tls, flows }));
                    }
                }
            }
        }
        all
    }

    /// Nothing is wrong with it.
    fn kind() -> Self {
        Self { dns: Dns::Works, udp: Udp::Everywhere, way: Way::Straight, tls: Tls::Clean, flows: Flows::Nothing }
    }

    fn has_proxy(self) -> bool {
        !matches!(self.way, Way::Straight | Way::UnknownProxy)
    }

    /// What the daemon sees there.
    fn seen(self) -> Observations {
        let hosts = [(HostRole::Control, "control.example:443"), (HostRole::Relay, "relay.example:443")];
        let host = |(role, host): (HostRole, &str)| HostCheck {
            role,
            host: host.into(),
            proxied: self.has_proxy(),
            outcome: self.outcome(),
        };
        let carrier = || CarrierSight { relay: "relay.example:443".into(), port: 7000, reason: CarrierReason::Passes };
        Observations {
            carriers: (self.flows == Flows::Relayed).then(carrier).into_iter().collect(),
            direct: (self.flows == Flows::Direct).then(|| "192.0.2.77:443".parse().unwrap()).into_iter().collect(),
            reflections: PORTS.map(|port| self.reflection(port)).into(),
            port: 7000,
            hosts: hosts.map(host).into(),
            proxy: self.has_proxy().then(|| "proxy.example:3128".into()),
            sources: vec![SITE.parse().unwrap()],
            ..Observations::default()
        }
    }

    fn reflection(self, port: u16) -> Reflection {
        let ip: Option<[u8; 4]> = match self.dns {
            Dns::Works => Some([192, 0, 2, 1]),
            Dns::Fails => None,
            Dns::Lies => Some([198, 51, 100, 66]),
        };
        let passes = match self.udp {
            Udp::Everywhere => true,
            Udp::Nowhere => false,
            Udp::SomePorts => port == PORTS[0],
        };
        let answers = passes && self.dns == Dns::Works;
        Reflection {
            server: format!("relay.example:{port}"),
            address: ip.map(|ip| (ip, port).into()),
            source: ip.map(|_| SITE.parse().unwrap()),
            seen: answers.then(|| "203.0.113.1:7000".parse().unwrap()),
            rtt_ms: answers.then_some(12.0),
        }
    }

    fn outcome(self) -> HostOutcome {
        let problem = || "so it was".to_owned();
        let refused = |refusal| HostOutcome::Proxy { problem: problem(), refusal };
        match (self.way, self.dns) {
            (Way::Straight | Way::UnknownProxy, Dns::Fails) => HostOutcome::Unresolved { problem: problem() },
            (Way::UnknownProxy, Dns::Works | Dns::Lies) => HostOutcome::Unreachable { problem: problem() },
            (Way::Straight, Dns::Lies) if self.tls == Tls::Clean => HostOutcome::Foreign { problem: problem() },
            (Way::Straight, Dns::Works | Dns::Lies) | (Way::Proxy, _) => self.handshake(12.0),
            (Way::SlowProxy, _) => self.handshake(6_000.0),
            (Way::ProxyLogin, _) => HostOutcome::ProxyLogin { problem: problem() },
            (Way::ProxyLimit, _) => refused(ProxyRefusal::of_status(429)),
            (Way::ProxyLost, _) => refused(ProxyRefusal::of_status(502)),
            (Way::ProxyResets, _) => refused(ProxyRefusal::BrokenOff),
        }
    }

    fn handshake(self, connect_ms: f64) -> HostOutcome {
        let issuer = Some("Inspection CA".to_owned());
        match self.tls {
            Tls::Clean => HostOutcome::Reached { connect_ms },
            Tls::Intercepted => HostOutcome::Intercepted { issuer, shown: "bb".repeat(32), pinned: "aa".repeat(32) },
        }
    }

    /// What is to be said of it. Through a proxy the proxy resolves; UDP needs our own DNS.
    fn truth(self) -> Verdict {
        let is_let_through = match self.way {
            Way::Straight => self.dns == Dns::Works,
            Way::Proxy | Way::SlowProxy => true,
            Way::UnknownProxy | Way::ProxyLogin | Way::ProxyLimit | Way::ProxyLost | Way::ProxyResets => false,
        };
        let is_whole = self.udp == Udp::Everywhere && self.dns == Dns::Works && self.way != Way::SlowProxy;
        match (is_let_through && self.tls == Tls::Clean, is_whole) {
            (false, _) => Verdict::Blocked,
            (true, false) => Verdict::Limited,
            (true, true) => Verdict::Good,
        }
    }

    /// The codes of what is broken, as far as it shows behind what is broken before it.
    fn broken(self) -> BTreeSet<&'static str> {
        let mut broken: BTreeSet<&'static str> = BTreeSet::new();
        broken.extend(match (self.dns, self.udp) {
            (Dns::Works, Udp::Everywhere) => None,
            (Dns::Works, Udp::SomePorts) => Some("udp_partly"),
            (Dns::Works, Udp::Nowhere) | (Dns::Lies, _) if self.flows != Flows::Nothing => Some("udp_partly"),
            (Dns::Works, Udp::Nowhere) | (Dns::Lies, _) => Some("udp_blocked"),
            (Dns::Fails, _) => Some("dns"),
        });
        let inspected = (self.tls == Tls::Intercepted).then_some("tls_intercepted");
        broken.extend(match (self.way, self.dns) {
            (Way::Straight | Way::UnknownProxy, Dns::Fails) => Some("dns"),
            (Way::UnknownProxy, Dns::Works | Dns::Lies) => Some("tcp_blocked"),
            (Way::Straight, Dns::Lies) => inspected.or(Some("not_the_server")),
            (Way::Straight, Dns::Works) | (Way::Proxy, _) => inspected,
            (Way::SlowProxy, _) => inspected.or(Some("slow_connection")),
            (Way::ProxyLogin, _) => Some("proxy_login"),
            (Way::ProxyLimit, _) => Some("proxy_limit"),
            (Way::ProxyLost | Way::ProxyResets, _) => Some("proxy_refused"),
        });
        broken
    }

    /// Words that some sentence to the network team has, one for each thing that has to be asked for.
    fn asked(self) -> Vec<&'static str> {
        let mut asked = Vec::new();
        if self.dns != Dns::Works || self.udp != Udp::Everywhere {
            asked.push("UDP from");
        }
        match self.dns {
            Dns::Works => {}
            Dns::Fails => asked.push("resolve relay.example (DNS"),
            Dns::Lies => asked.push("resolves to the right address"),
        }
        match self.way {
            Way::Straight | Way::Proxy | Way::SlowProxy if self.tls == Tls::Intercepted => {
                if self.way != Way::Straight || self.dns != Dns::Fails {
                    asked.push("exempt relay.example:443 from TLS inspection");
                }
            }
            // Ours to mend: the password.
            Way::Straight | Way::Proxy | Way::ProxyLogin => {}
            Way::UnknownProxy => asked.push("please name the HTTP proxy"),
            Way::SlowProxy => asked.push("answer CONNECT from 10.1.0.2 within a second or two"),
            Way::ProxyLimit => asked.push("raise the limit"),
            Way::ProxyLost => asked.push("itself reach relay.example:443"),
            Way::ProxyResets => asked.push("breaks off CONNECT to relay.example:443"),
        }
        asked
    }
}

fn requests(report: &Report) -> Vec<&str> {
    report.problems.iter().filter_map(|problem| problem.request.as_deref()).collect()
}

#[test]
fn in_every_network_the_verdict_is_the_truth_and_all_that_is_broken_is_told_with_the_sentence_to_send() {
    let all = Network::all();
    assert_eq!(all.len(), 3 * 3 * 8 * 2 * 3);
    for network in all {
        let report = judge(&network.seen(), 1);
        assert_eq!(report.verdict, network.truth(), "{network:?}: {report:?}");
        let told: BTreeSet<_> = report.problems.iter().map(|problem| problem.code.as_str()).collect();
        assert_eq!(told, network.broken(), "{network:?}: {report:?}");
        let requests = requests(&report);
        for words in network.asked() {
            assert!(
                requests.iter().any(|request| request.contains(words)),
                "{network:?}: no '{words}' in {requests:?}"
            );
        }
        assert!(requests.iter().all(|request| request.contains(SITE)), "who asks: {network:?}: {requests:?}");
        for problem in &report.problems {
            let is_ours = problem.code == "proxy_login";
            assert_eq!(problem.request.is_none(), is_ours, "{network:?}: {problem:?}");
        }
        let udp = match (network.dns, network.udp) {
            _ if network.flows != Flows::Nothing => Some(true),
            (Dns::Fails, _) => None,
            (Dns::Works, Udp::Everywhere | Udp::SomePorts) => Some(true),
            (Dns::Works, Udp::Nowhere) | (Dns::Lies, _) => Some(false),
        };
        assert_eq!(report.udp, udp, "{network:?}");
    }
}

#[test]
fn a_nat64_whose_prefix_is_known_is_named_and_is_no_problem() {
    let whole = Network::kind();
    let mut seen = whole.seen();
    // A class needs a second relay.
    let others: Vec<_> = seen
        .reflections
        .iter()
        .map(|entry| Reflection {
            server: entry.server.replace("relay", "relay-2"),
            address: Some(([192, 0, 2, 2], port_of(&entry.server)).into()),
            ..entry.clone()
        })
        .collect();
    seen.reflections.extend(others);
    for entry in &mut seen.reflections {
        entry.source = Some("2001:db8:1::2".parse().unwrap());
    }
    seen.nat64 = Nat64Prefix::new("2001:db8:6464::".parse().unwrap(), 96);
    let report = judge(&seen, 1);
    assert_eq!((report.verdict, report.nat64.as_deref()), (Verdict::Good, Some("2001:db8:6464::/96")), "{report:?}");
    let start = "IPv4 only through NAT64 (2001:db8:6464::/96); a NAT that gives one outer port";
    assert!(report.nat_text.starts_with(start), "{}", report.nat_text);
    assert_eq!(report.public_ipv4, Some("203.0.113.1:7000".parse().unwrap()), "partners reach it there");
    seen.reflections.clear();
    assert!(!judge(&seen, 1).nat_text.contains("NAT64"), "nobody was asked through it");
}

#[test]
fn a_machine_with_ipv6_only_behind_a_nat64_is_not_said_to_have_ipv4_and_one_with_both_is_judged_by_its_own() {
    let whole = Network::kind();
    let translated = |port: u16, outer: &str| Reflection {
        address: Some(format!("[64:ff9b::c000:201]:{port}").parse().unwrap()),
        source: Some("2001:db8:1::2".parse().unwrap()),
        seen: Some(outer.parse().unwrap()),
        ..whole.reflection(port)
    };
    let mut seen = whole.seen();
    seen.reflections = vec![translated(3478, "203.0.113.2:4000"), translated(3479, "203.0.113.2:9000")];
    let report = judge(&seen, 1);
    assert_eq!((report.verdict, report.problems.len()), (Verdict::Limited, 1), "{report:?}");
    assert!(report.problems[0].code == "nat64" && report.nat_text.starts_with("a NAT64"), "{report:?}");
    assert!(report.problems[0].request.as_ref().unwrap().contains("2001:db8:1::2"));
    seen.reflections.extend(whole.seen().reflections);
    let report = judge(&seen, 1);
    assert_eq!(report.verdict, Verdict::Good, "{report:?}");
    assert_eq!(report.public_ipv4, Some("203.0.113.1:7000".parse().unwrap()), "not what the NAT64 lends");
}
