//! What came of the TLS servers, in words. What the HTTP proxy does to all of them alike is said once.

use super::{host_only, listed, port_of, sources, sources_at_proxy};
use crate::netcheck::{HostCheck, HostOutcome, HostRole, OWN_ISSUER, Observations, Problem, ProxyRefusal};

/// Slower connections are worth a word: half of the ten seconds after which a link gives up. Milliseconds.
const SLOW_CONNECT_MS: f64 = 5_000.0;

pub(super) fn problems(seen: &Observations) -> Vec<Problem> {
    let mut told = Vec::new();
    let mut problems = Vec::new();
    for host in &seen.hosts {
        match Matter::of(&host.outcome) {
            Some((matter, _)) if told.contains(&matter) => {}
            Some((matter, problem)) => {
                told.push(matter);
                problems.push(proxy_problem(matter, problem, seen));
            }
            None => problems.extend(host_problem(host, seen)),
        }
    }
    problems.extend(slow(seen));
    problems
}

/// What is between this gateway and the proxy, whichever server is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Matter {
    Silent,
    Login,
    LoginScheme,
    LoginPage,
    TooOften,
    NotAProxy,
}

impl Matter {
    /// With what happened.
    fn of(outcome: &HostOutcome) -> Option<(Self, &str)> {
        match outcome {
            HostOutcome::ProxySilent { problem } => Some((Self::Silent, problem)),
            HostOutcome::ProxyLogin { problem } => Some((Self::Login, problem)),
            HostOutcome::Proxy { problem, refusal } => {
                let matter = match refusal {
                    ProxyRefusal::TooOften => Self::TooOften,
                    ProxyRefusal::LoginPage => Self::LoginPage,
                    ProxyRefusal::LoginScheme => Self::LoginScheme,
                    ProxyRefusal::NotAProxy => Self::NotAProxy,
                    ProxyRefusal::NotAllowed | ProxyRefusal::NotReached | ProxyRefusal::BrokenOff => return None,
                };
                Some((matter, problem))
            }
            HostOutcome::Reached { .. }
            | HostOutcome::Unproven { .. }
            | HostOutcome::Intercepted { .. }
            | HostOutcome::Foreign { .. }
            | HostOutcome::TlsSilent { .. }
            | HostOutcome::TlsCutOff { .. }
            | HostOutcome::Unresolved { .. }
            | HostOutcome::Unreachable { .. } => None,
        }
    }
}

fn proxy_problem(matter: Matter, problem: &str, seen: &Observations) -> Problem {
    let affected =
        || seen.hosts.iter().filter(move |host| Matter::of(&host.outcome).is_some_and(|(of, _)| of == matter));
    let lost = listed(affected().map(named));
    let hosts = listed(affected().map(|host| host.host.clone()));
    let (proxy, from) = (proxy_of(seen), sources_at_proxy(seen));
    let (code, what, request) = match matter {
        Matter::Silent => (
            "proxy_unreachable",
            "does not answer",
            Some(format!(
                "Please let {from} reach the proxy {proxy} over TCP, and let it answer CONNECT within seconds."
            )),
        ),
        // Ours to mend: there is nothing to ask the network team for, except for the right ones.
        Matter::Login => ("proxy_login", "does not let this gateway in", None),
        Matter::LoginScheme => (
            "proxy_refused",
            "does not let this gateway in",
            Some(format!(
                "Please allow Basic authentication for {from} at the proxy {proxy}, or let it through to {hosts} without a \
                 login."
            )),
        ),
        Matter::LoginPage => (
            "proxy_refused",
            "leads this gateway to a page instead",
            Some(format!("Please let {from} through the proxy {proxy} to {hosts} without a login page.")),
        ),
        Matter::TooOften => (
            "proxy_limit",
            "is asked too often, it says",
            Some(format!(
                "Please raise the limit of the proxy {proxy} for CONNECT from {from}: a gateway keeps one connection to each \
                 of {hosts} and asks anew when one ends."
            )),
        ),
        Matter::NotAProxy => (
            "proxy_refused",
            "does not answer as one",
            Some(format!("Please tell the address and port of the HTTP proxy for {from}: at {proxy} there is none.")),
        ),
    };
    let text = format!("The HTTP proxy {proxy} {what}, so there is no way to {lost}: {problem}.");
    Problem { code: code.into(), text, request }
}

fn host_problem(host: &HostCheck, seen: &Observations) -> Option<Problem> {
    let (name, role, server) = (&host.host, role_words(host.role), named(host));
    let (way, from) = match &seen.proxy {
        Some(proxy) if host.proxied => (format!(" (through the proxy {proxy})"), sources_at_proxy(seen)),
        Some(_) | None => (String::new(), sources(seen)),
    };
    let (code, text, request) = match &host.outcome {
        HostOutcome::Reached { .. } => return None,
        // Said once for all of them.
        HostOutcome::ProxyLogin { .. } | HostOutcome::ProxySilent { .. } => return None,
        HostOutcome::Unproven { issuer, shown, .. } => (
            "tls_unproven",
            format!(
                "The {role} {name}{way} is reached, and whether it is the right one cannot be told before the enrolment: it \
                 shows the key {shown} with a certificate{} that is neither from a public authority nor one that programs of this \
                 platform make. TLS inspection looks like this, and a server with a certificate of an authority of its own: \
                 compare the key with the operator's.",
                issued_by(issuer)
            ),
            format!(
                "If TLS from {from} to {name} is inspected: please exempt it, because inspection can only break it."
            ),
        ),
        HostOutcome::Intercepted { issuer, shown, pinned } if issuer.as_deref() == Some(OWN_ISSUER) => (
            "tls_intercepted",
            format!(
                "The {role} {name}{way} shows a certificate with the key {shown} instead of the pinned key {pinned}. It says \
                 that a program of this platform made it, as ours do: most likely the {role} was given a new key, or the name leads \
                 to another one of ours. Ask the operator first: a relay's new key belongs into the policy (gateway-ctl relay \
                 update), for the control plane's new key this gateway is enrolled again. The gateway sends nothing to it \
                 until then."
            ),
            format!(
                "Only if the operator gave it no new key: please exempt {name} from TLS inspection for {from}, and look \
                 whether its name resolves to the right address."
            ),
        ),
        HostOutcome::Intercepted { issuer, shown, pinned } => (
            "tls_intercepted",
            format!(
                "Somebody takes TLS to {server} apart{way}, or its name leads to another server, or it was given another \
                 certificate: one with the key {shown}{} was shown instead of the pinned key {pinned}. The gateway sends \
                 nothing to it.",
                issued_by(issuer)
            ),
            format!(
                "Please exempt {name} from TLS inspection for {from}: its traffic is encrypted end to end and pinned to the \
                 server's own key, so inspection can only break it. If there is none, please look whether its name resolves \
                 to the right address."
            ),
        ),
        HostOutcome::Foreign { problem } => (
            "not_the_server",
            format!(
                "Something that is not {server} answers at its address{way}: {problem}. A captive portal that wants a login, \
                 a device that takes TLS apart, or a DNS server that names another machine looks like this."
            ),
            format!(
                "Please let {from} reach {name} (TCP, TLS 1.3) without a login page or inspection, and look whether its name \
                 resolves to the right address."
            ),
        ),
        HostOutcome::Proxy { problem, refusal } => {
            let text = format!("The HTTP proxy does not let this gateway through to {server}: {problem}.");
            ("proxy_refused", text, refused(*refusal, name, seen))
        }
        HostOutcome::TlsSilent { problem } => (
            "tls_no_answer",
            format!(
                "TCP to {server}{way} connects, and TLS over it comes to no end: {problem}. Large packets that vanish on the \
                 way (an MTU below the usual one, without ICMP) look like this, and a device that inspects TLS and drops what \
                 it does not know."
            ),
            format!(
                "Please let TCP packets of full size from {from} to {name} pass (or clamp the MSS at the uplink, and let ICMP \
                 \"fragmentation needed\" and \"packet too big\" through), and exempt {name} from TLS inspection."
            ),
        ),
        HostOutcome::TlsCutOff { problem } => (
            "tls_cut_off",
            format!(
                "TCP to {server}{way} connects, and is cut off as soon as TLS begins: {problem}. A firewall that looks for the                  server's name or for the kind of application does this, and a server that is not the {role}."
            ),
            format!(
                "Please let TLS 1.3 from {from} to {name} pass the filter for applications and server names, without                  inspection, and look whether its name resolves to the right address."
            ),
        ),
        HostOutcome::Unresolved { problem } => (
            "dns",
            format!("The name of {server} does not resolve: {problem}.{}", proxy_hint(seen)),
            format!(
                "Please let {from} resolve the name {} (DNS, port 53 over UDP and TCP).{}",
                host_only(name),
                proxy_request(name, seen)
            ),
        ),
        HostOutcome::Unreachable { problem } => (
            "tcp_blocked",
            format!(
                "No connection to {server}{way}: {problem}. If no firewall is the cause, look whether the name resolves to \
                 the right address.{}",
                proxy_hint(seen)
            ),
            format!(
                "Please allow TCP from {from} to {} port {} (outbound only).{}",
                host_only(name),
                port_of(name),
                proxy_request(name, seen)
            ),
        ),
    };
    Some(Problem { code: code.into(), text, request: Some(request) })
}

/// What to ask for where the proxy does something to this server.
fn refused(refusal: ProxyRefusal, name: &str, seen: &Observations) -> String {
    let (proxy, from) = (proxy_of(seen), sources_at_proxy(seen));
    match refusal {
        ProxyRefusal::NotReached => format!(
            "Please let the proxy {proxy} itself reach {name} (its DNS servers, its own firewall), and allow CONNECT to it \
             for {from}."
        ),
        ProxyRefusal::BrokenOff => format!(
            "Please look in the log of the proxy {proxy} why it breaks off CONNECT to {name} from {from}, and allow it."
        ),
        ProxyRefusal::NotAllowed
        | ProxyRefusal::TooOften
        | ProxyRefusal::LoginPage
        | ProxyRefusal::LoginScheme
        | ProxyRefusal::NotAProxy => format!("Please allow CONNECT to {name} at the proxy for {from}."),
    }
}

/// A server that is reached late is not reached at all on a worse day.
fn slow(seen: &Observations) -> Option<Problem> {
    let late = |host: &&HostCheck| host.outcome.connect_ms().is_some_and(|ms| ms > SLOW_CONNECT_MS);
    let slow: Vec<_> = seen.hosts.iter().filter(late).collect();
    let longest = slow.iter().filter_map(|host| host.outcome.connect_ms()).reduce(f64::max)? / 1e3;
    let servers = listed(slow.iter().map(|host| named(host)));
    let (way, request) = match &seen.proxy {
        Some(proxy) if slow.iter().any(|host| host.proxied) => (
            format!(" through the proxy {proxy}"),
            format!(
                "Please let the proxy {proxy} answer CONNECT from {} within a second or two: it takes up to {longest:.0} s.",
                sources_at_proxy(seen)
            ),
        ),
        Some(_) | None => (
            String::new(),
            format!(
                "Please look why TLS connections from {} to {} take up to {longest:.0} s (DNS servers that do not answer, a \
                 device that looks into them).",
                sources(seen),
                listed(slow.iter().map(|host| host.host.clone()))
            ),
        ),
    };
    let text = format!(
        "A new connection to {servers}{way} takes up to {longest:.0} s, and links give up after 10 s: when one breaks it \
         comes back late, or not."
    );
    Some(Problem { code: "slow_connection".into(), text, request: Some(request) })
}

/// Where nothing at all is reached, the way out may be a proxy that nobody told us of.
fn may_need_proxy(seen: &Observations) -> bool {
    seen.proxy.is_none() && !seen.hosts.iter().any(|host| host.outcome.is_reached())
}

fn proxy_hint(seen: &Observations) -> &'static str {
    if may_need_proxy(seen) {
        " If this network lets connections out through an HTTP proxy only, set [network] proxy_file or proxy."
    } else {
        ""
    }
}

fn proxy_request(name: &str, seen: &Observations) -> String {
    if may_need_proxy(seen) {
        format!(" Or, if that is the way out here: please name the HTTP proxy, and allow CONNECT to {name} there.")
    } else {
        String::new()
    }
}

fn proxy_of(seen: &Observations) -> &str {
    seen.proxy.as_deref().unwrap_or("in use")
}

fn issued_by(issuer: &Option<String>) -> String {
    issuer.as_ref().map(|issuer| format!(", issued by '{issuer}'")).unwrap_or_default()
}

/// What it is for, and where.
fn named(host: &HostCheck) -> String {
    format!("the {} {}", role_words(host.role), host.host)
}

fn role_words(role: HostRole) -> &'static str {
    match role {
        HostRole::Control => "control plane",
        HostRole::Relay => "relay",
    }
}
