//! From what was seen to what it means.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use super::{
    HostCheck, HostOutcome, HostRole, Latency, MAX_CLOCK_SKEW_MS, Observations, Problem, Reflection, Report,
    SocketProblem, TUNNEL_DATAGRAM, Verdict,
};
use crate::{path::NatView, signal::NatMapping};

/// Who issued the certificates that our own servers make for themselves, as these say.
const OWN_ISSUER: &str = "gateway";

/// The report on what was seen. `checked_at` in Unix milliseconds.
pub fn judge(seen: &Observations, checked_at: u64) -> Report {
    let facts = Facts::of(seen);
    let mut problems = Vec::new();
    problems.extend(clock(seen));
    problems.extend(socket(seen));
    problems.extend(seen.hosts.iter().filter_map(|host| host_problem(host, seen)));
    problems.extend(udp(seen, &facts));
    problems.extend(large(seen));
    problems.extend(hard_nat(seen, &facts));
    problems.extend(port_mapping(seen));
    Report {
        checked_at,
        verdict: verdict(seen, &problems),
        udp: facts.udp,
        public_ipv4: facts.ipv4,
        public_ipv6: facts.ipv6,
        nat: facts.nat,
        nat_text: facts.words().to_owned(),
        port_preserved: facts.ipv4.map(|outer| outer.port() == seen.port),
        hairpin: seen.hairpin,
        large_datagrams: seen.large,
        latencies: seen
            .reflections
            .iter()
            .filter_map(|entry| Some(Latency { server: entry.server.clone(), rtt_ms: entry.rtt_ms? }))
            .collect(),
        port_mapping: seen.port_mapping.clone(),
        hosts: seen.hosts.clone(),
        proxy: seen.proxy.clone(),
        clock_skew_ms: seen.clock_skew_ms,
        problems,
    }
}

struct Facts {
    udp: Option<bool>,
    ipv4: Option<SocketAddr>,
    ipv6: Option<SocketAddr>,
    nat: NatMapping,
    /// The outer IPv4 address is our own.
    public: bool,
}

impl Facts {
    fn of(seen: &Observations) -> Self {
        let answered = || seen.reflections.iter().filter_map(|entry| Some((entry, entry.seen?)));
        let asked = seen.reflections.iter().any(|entry| entry.address.is_some());
        let over_ipv4 = || answered().filter(|(_, outer)| outer.is_ipv4());
        Self {
            udp: asked.then(|| answered().next().is_some()),
            ipv4: over_ipv4().next().map(|(_, outer)| outer),
            ipv6: answered().find(|(_, outer)| outer.is_ipv6()).map(|(_, outer)| outer),
            nat: NatView::from_reflections(over_ipv4().map(|(_, outer)| outer)).mapping,
            public: over_ipv4()
                .next()
                .is_some_and(|(entry, outer)| entry.source == Some(outer.ip()) && outer.port() == seen.port),
        }
    }

    fn words(&self) -> &'static str {
        match (self.udp, self.ipv4, self.nat) {
            (None, _, _) => "not known: there was no STUN server to ask",
            (Some(false), _, _) => "not known: no STUN server answered",
            (_, None, _) => "no IPv4: IPv6 needs no NAT",
            _ if self.public => "no NAT: this machine has a public address",
            (_, _, NatMapping::EndpointIndependent) => {
                "a NAT that gives one outer port for all destinations: direct paths work with almost everybody"
            }
            (_, _, NatMapping::Regular) => {
                "a NAT that gives every destination the next outer port: direct paths work with many partners"
            }
            (_, _, NatMapping::Random) => {
                "a NAT that gives every destination another outer port: direct paths work only with partners whose own \
                 firewall is open to unknown ports"
            }
            (_, _, NatMapping::Unknown) => "a NAT; one answer alone does not tell how it maps",
        }
    }
}

/// Data flows when the control plane and a relay are reached; before the enrolment, what was asked for counts.
fn verdict(seen: &Observations, problems: &[Problem]) -> Verdict {
    let reached = |role| {
        let mut of_role = seen.hosts.iter().filter(|host| host.role == role).peekable();
        of_role.peek().is_none() || of_role.any(|host| matches!(host.outcome, HostOutcome::Reached { .. }))
    };
    match (reached(HostRole::Control) && reached(HostRole::Relay), problems.is_empty()) {
        (false, _) => Verdict::Blocked,
        (true, false) => Verdict::Limited,
        (true, true) => Verdict::Good,
    }
}

fn clock(seen: &Observations) -> Option<Problem> {
    let skew = seen.clock_skew_ms.filter(|skew| skew.saturating_abs() > MAX_CLOCK_SKEW_MS)?;
    let side = if skew > 0 { "behind" } else { "ahead" };
    Some(Problem {
        code: "clock_skew".into(),
        text: format!(
            "The clock of this machine is {} {side} the control plane's. From 60 s on, signatures are refused. Switch on \
             time synchronisation (for example chrony or systemd-timesyncd).",
            span(skew.unsigned_abs())
        ),
        request: Some(format!(
            "Please allow NTP (UDP port 123) from {} to a time server, or name one inside.",
            sources(seen)
        )),
    })
}

fn socket(seen: &Observations) -> Option<Problem> {
    let problem = seen.socket.as_ref()?;
    let (code, advice) = match problem {
        SocketProblem::AddressGone(_) => (
            "listen_address_gone",
            "If it will not come back, set listen to \"[::]:PORT\" and restart gatewayd: then it follows every address.",
        ),
        SocketProblem::NotOpened { .. } => {
            ("listen_address_refused", "Look which program has that port (ss -ulpn), or choose another one.")
        }
    };
    let text = format!("The tunnel socket carries nothing: {problem}. {advice}");
    Some(Problem { code: code.into(), text, request: None })
}

fn host_problem(host: &HostCheck, seen: &Observations) -> Option<Problem> {
    let (name, role) = (&host.host, role_words(host.role));
    let way = seen.proxy.as_ref().map(|proxy| format!(" (through the proxy {proxy})")).unwrap_or_default();
    let (code, text, request) = match &host.outcome {
        HostOutcome::Reached { .. } => return None,
        HostOutcome::Intercepted { issuer, shown, pinned } if issuer.as_deref() == Some(OWN_ISSUER) => (
            "tls_intercepted",
            format!(
                "The {role} {name}{way} shows a certificate with the key {shown} instead of the pinned key {pinned}. It says \
                 that a program of this platform made it, as ours do: most likely the {role} was given a new key, or the \
                 name leads to another one of ours. Ask the operator first: a relay's new key belongs into the policy \
                 (gateway-ctl relay update), for the control plane's new key this gateway is enrolled again. The gateway \
                 sends nothing to it until then."
            ),
            Some(format!(
                "Only if the operator gave it no new key: please exempt {name} from TLS inspection for {}, and look whether \
                 its name resolves to the right address.",
                sources(seen)
            )),
        ),
        HostOutcome::Intercepted { issuer, shown, pinned } => {
            let issuer = issuer.as_ref().map(|issuer| format!(", issued by '{issuer}'")).unwrap_or_default();
            (
                "tls_intercepted",
                format!(
                    "Somebody takes TLS to the {role} {name} apart{way}, or it was given another certificate: one with the \
                     key {shown}{issuer} was shown instead of the pinned key {pinned}. The gateway sends nothing to it."
                ),
                Some(format!(
                    "Please exempt {name} from TLS inspection for {}: its traffic is encrypted end to end and pinned to \
                     the server's own key, so inspection can only break it.",
                    sources(seen)
                )),
            )
        }
        HostOutcome::Foreign { problem } => (
            "not_the_server",
            format!(
                "Something that is not the {role} answers at {name}{way}: {problem}. A captive portal that wants a login, \
                 or a device that takes TLS apart, looks like this."
            ),
            Some(format!(
                "Please let {} reach {name} (TCP, TLS 1.3) without a login page or inspection.",
                sources(seen)
            )),
        ),
        HostOutcome::Proxy { problem } => (
            "proxy_refused",
            format!("The HTTP proxy does not let this gateway through to the {role} {name}: {problem}."),
            Some(format!("Please allow CONNECT to {name} at the proxy for {}.", sources(seen))),
        ),
        // Ours to mend: there is nothing to ask the network team for, except for the right ones.
        HostOutcome::ProxyLogin { problem } => (
            "proxy_login",
            format!("The HTTP proxy does not let this gateway in, so the {role} {name} is not reached: {problem}."),
            None,
        ),
        HostOutcome::ProxySilent { problem } => {
            let proxy = seen.proxy.as_deref().unwrap_or("the proxy");
            (
                "proxy_unreachable",
                format!("The HTTP proxy {proxy} does not answer, so the {role} {name} is not reached: {problem}."),
                Some(format!(
                    "Please let {} reach the proxy {proxy} over TCP, and let it answer CONNECT.",
                    sources(seen)
                )),
            )
        }
        HostOutcome::TlsSilent { problem } => (
            "tls_no_answer",
            format!(
                "TCP to the {role} {name}{way} connects, and TLS over it comes to no end: {problem}. Large packets that vanish \
                 on the way (an MTU below the usual one, without ICMP) look like this, and a device that inspects TLS and \
                 drops what it does not know."
            ),
            Some(format!(
                "Please let TCP packets of full size from {} to {name} pass (or clamp the MSS at the uplink, and let ICMP \
                 \"fragmentation needed\" and \"packet too big\" through), and exempt {name} from TLS inspection.",
                sources(seen)
            )),
        ),
        HostOutcome::Unresolved { problem } => (
            "dns",
            format!("The name of the {role} {name} does not resolve: {problem}."),
            Some(format!(
                "Please let {} resolve the name {} (DNS, port 53 over UDP and TCP).",
                sources(seen),
                host_only(name)
            )),
        ),
        HostOutcome::Unreachable { problem } => (
            "tcp_blocked",
            format!("No connection to the {role} {name}{way}: {problem}."),
            Some(format!(
                "Please allow TCP from {} to {} port {} (outbound only).",
                sources(seen),
                host_only(name),
                port_of(name)
            )),
        ),
    };
    Some(Problem { code: code.into(), text, request })
}

fn udp(seen: &Observations, facts: &Facts) -> Option<Problem> {
    if facts.udp != Some(false) {
        return None;
    }
    let targets: BTreeSet<String> = seen
        .reflections
        .iter()
        .filter_map(|entry| {
            Some(format!("{} ({}) port {}", host_only(&entry.server), entry.address?.ip(), entry.address?.port()))
        })
        .collect();
    let targets = targets.into_iter().collect::<Vec<_>>().join(", ");
    let relay = |host: &&HostCheck| host.role == HostRole::Relay;
    let is_reached = |host: &HostCheck| matches!(host.outcome, HostOutcome::Reached { .. });
    let no_relay = seen.hosts.iter().any(|host| relay(&host)) && !seen.hosts.iter().filter(relay).any(is_reached);
    let instead = if no_relay {
        "Data would flow through a relay over TLS, and none was reached either."
    } else {
        "Data flows through a relay over TLS, which is slower than a direct path and depends on the relay."
    };
    Some(Problem {
        code: "udp_blocked".into(),
        text: format!("UDP does not get out: no STUN server answered. {instead}"),
        request: Some(format!(
            "Please allow UDP from {} to {targets}, and for direct paths outbound UDP to any address, with the answers \
             (stateful, no inbound rule).",
            sources(seen)
        )),
    })
}

fn large(seen: &Observations) -> Option<Problem> {
    (seen.large == Some(false)).then(|| Problem {
        code: "mtu".into(),
        text: format!(
            "Small UDP datagrams pass, those of {TUNNEL_DATAGRAM} bytes do not: the path carries packets below the 1280 \
             bytes that every IPv6 network must. Tunnels use a relay over TLS instead."
        ),
        request: Some(format!(
            "Please let UDP datagrams of {TUNNEL_DATAGRAM} bytes from {} pass: set the MTU of the uplink (VPN, PPPoE, \
             GRE) to 1280 or more.",
            sources(seen)
        )),
    })
}

fn hard_nat(seen: &Observations, facts: &Facts) -> Option<Problem> {
    (facts.nat == NatMapping::Random && facts.ipv6.is_none()).then(|| Problem {
        code: "hard_nat".into(),
        text: "The NAT gives every destination another outer port, so many partners are reached through a relay only."
            .into(),
        request: Some(format!(
            "Please give UDP from {} one fixed outer port (static NAT, or \"endpoint-independent mapping\"), for the port \
             in [tunnel] listen.",
            sources(seen)
        )),
    })
}

fn port_mapping(seen: &Observations) -> Option<Problem> {
    let problem = seen.port_mapping.as_ref()?.problem.as_ref()?;
    Some(Problem {
        code: "port_mapping".into(),
        text: format!("[tunnel] port_mapping is on and of no use: {problem}. Direct paths work as without it."),
        request: Some(format!(
            "Please switch on PCP, NAT-PMP or UPnP at the router for {}, or forward one UDP port to it.",
            sources(seen)
        )),
    })
}

/// Our own addresses, as the network team knows this machine.
fn sources(seen: &Observations) -> String {
    let own: BTreeSet<IpAddr> = seen.reflections.iter().filter_map(|entry: &Reflection| entry.source).collect();
    if own.is_empty() {
        return "this machine".into();
    }
    own.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

fn role_words(role: HostRole) -> &'static str {
    match role {
        HostRole::Control => "control plane",
        HostRole::Relay => "relay",
    }
}

fn host_only(text: &str) -> &str {
    super::split_host(text).map_or(text, |(host, _)| host)
}

fn port_of(text: &str) -> u16 {
    super::split_host(text).map_or(443, |(_, port)| port)
}

fn span(ms: u64) -> String {
    match ms / 1000 {
        secs @ 0..120 => format!("{secs} s"),
        secs @ 120..7200 => format!("{} min", secs / 60),
        secs @ 7200..172_800 => format!("{} h", secs / 3600),
        secs => format!("{} days", secs / 86_400),
    }
}

#[cfg(test)]
mod tests;
