//! From what was seen to what it means. The verdict is never better than what was seen: what could not be asked is not said
//! to work.

mod hosts;
mod nat;
mod udp;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use super::{
    HostRole, Latency, MAX_CLOCK_SKEW_MS, Observations, Problem, Reflection, Report, SocketProblem, TUNNEL_DATAGRAM,
    Verdict,
};
use crate::path::{Told, Weighed};

/// The report on what was seen. `checked_at` in Unix milliseconds.
pub fn judge(seen: &Observations, checked_at: u64) -> Report {
    let facts = Facts::of(seen);
    let mut problems = Vec::new();
    problems.extend(runs_twice(seen));
    problems.extend(clock(seen));
    problems.extend(socket(seen));
    problems.extend(hosts::problems(seen));
    problems.extend(udp::problems(seen, &facts));
    problems.extend(large(seen));
    problems.extend(nat::problems(seen, &facts));
    problems.extend(port_mapping(seen));
    let notes = nat::hairpin(seen, &facts).into_iter().collect();
    Report {
        checked_at,
        verdict: verdict(seen, &problems),
        udp: facts.udp,
        public_ipv4: facts.ipv4,
        public_ipv6: facts.ipv6,
        nat: facts.weighed.view.mapping,
        nat_text: nat::text(seen, &facts),
        nat64: seen.nat64.map(|prefix| prefix.to_string()),
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
        notes,
    }
}

struct Facts {
    /// Whether a STUN server answered; none: nobody could be asked.
    stun: Option<bool>,
    /// Whether UDP gets out and back, as STUN servers say or as the tunnel's socket shows; none: neither says anything.
    udp: Option<bool>,
    /// What goes out and back from the tunnel's socket, in words.
    flows: Option<String>,
    /// There are servers to ask, whether or not their names resolve.
    named: bool,
    ipv4: Option<SocketAddr>,
    ipv6: Option<SocketAddr>,
    /// What the relays saw, against each other.
    weighed: Weighed,
    /// The outer IPv4 address is our own.
    public: bool,
    /// There is no IPv4 here: the outer IPv4 address was lent to an IPv6 one.
    nat64: bool,
}

impl Facts {
    fn of(seen: &Observations) -> Self {
        let answered = || seen.reflections.iter().filter_map(|entry| Some((entry, entry.seen?)));
        let asked = seen.reflections.iter().any(|entry| entry.address.is_some());
        let seen_ipv4 = || answered().filter(|(_, outer)| outer.is_ipv4());
        // A NAT64 beside a NAT of IPv4 is another NAT: mixed up they look like one that nobody can foresee.
        let has_native = seen_ipv4().any(|(entry, _)| is_native(entry));
        let over_ipv4 = || seen_ipv4().filter(move |(entry, _)| is_native(entry) == has_native);
        let told = over_ipv4().chain(answered().filter(|(_, outer)| outer.is_ipv6()));
        let told = told
            .filter_map(|(entry, outer)| Some(Told { relay: host_only(&entry.server), server: entry.address?, outer }));
        let weighed = Weighed::of(told);
        let first = |of_family: fn(&SocketAddr) -> bool| weighed.addresses.iter().copied().find(of_family);
        let (ipv4, ipv6) = (first(SocketAddr::is_ipv4), first(SocketAddr::is_ipv6));
        let is_own = |outer: SocketAddr| {
            outer.port() == seen.port
                && over_ipv4().any(|(entry, seen_as)| seen_as == outer && entry.source == Some(outer.ip()))
        };
        let (stun, flows) = (asked.then(|| answered().next().is_some()), udp::flows(seen));
        Self {
            stun,
            udp: if flows.is_some() { Some(true) } else { stun },
            flows,
            named: !seen.reflections.is_empty(),
            ipv4,
            ipv6,
            public: ipv4.is_some_and(is_own),
            nat64: !has_native && seen_ipv4().next().is_some(),
            weighed,
        }
    }
}

/// Asked over IPv4, or through a NAT64 whose prefix is known: partners are reached by that way too.
fn is_native(entry: &Reflection) -> bool {
    entry.address.is_some_and(|address| address.is_ipv4())
}

/// Data flows when the control plane and a relay are reached; before the enrolment, what was asked for counts.
fn verdict(seen: &Observations, problems: &[Problem]) -> Verdict {
    let reached = |role| {
        let mut of_role = seen.hosts.iter().filter(|host| host.role == role).peekable();
        of_role.peek().is_none() || of_role.any(|host| host.outcome.is_reached())
    };
    if seen.runs_twice.as_ref().is_some_and(|told| told.is_second) {
        return Verdict::Blocked;
    }
    let is_asked = !seen.hosts.is_empty() || !seen.reflections.is_empty();
    match (reached(HostRole::Control) && reached(HostRole::Relay), problems.is_empty()) {
        (false, _) => Verdict::Blocked,
        (true, false) => Verdict::Limited,
        (true, true) if is_asked => Verdict::Good,
        (true, true) => Verdict::Unknown,
    }
}

/// What looks like a firewall at both ends is none then.
fn runs_twice(seen: &Observations) -> Option<Problem> {
    let told = seen.runs_twice.as_ref()?;
    let text = told.to_string();
    let text = text.chars().take(1).flat_map(char::to_uppercase).chain(text.chars().skip(1)).collect::<String>();
    Some(Problem { code: "runs_twice".into(), text: format!("{text}."), request: None })
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

fn large(seen: &Observations) -> Option<Problem> {
    (seen.large == Some(false) && !udp::carries_tunnels(seen)).then(|| Problem {
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
    let asked: BTreeSet<_> = seen.reflections.iter().filter_map(|entry| entry.source).collect();
    addresses(if asked.is_empty() { seen.sources.iter().copied().collect() } else { asked })
}

/// The same as the proxy knows it.
fn sources_at_proxy(seen: &Observations) -> String {
    if seen.sources.is_empty() { sources(seen) } else { addresses(seen.sources.iter().copied().collect()) }
}

fn addresses(own: BTreeSet<IpAddr>) -> String {
    if own.is_empty() {
        return "this machine".into();
    }
    own.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

/// Each once.
fn listed(all: impl Iterator<Item = String>) -> String {
    all.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
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
mod networks;
#[cfg(test)]
mod tests;
