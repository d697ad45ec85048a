//! What the silence of STUN servers says of UDP, and what is to be asked for.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{Facts, host_only, listed, port_of, sources};
use crate::{
    netcheck::{CarrierSight, HostCheck, HostOutcome, HostRole, Observations, Problem, Reflection},
    path::is_public,
    relay::udp::CarrierReason,
};

/// What direct paths need beside the way to the STUN servers.
const DIRECT: &str = "and for direct paths outbound UDP to any address, with the answers (stateful, no inbound rule)";
/// What it costs that no STUN server says how we are seen, where UDP passes all the same.
const UNSEEN: &str = "The outer address of this machine and how its NAT maps are not known then, so direct paths to partners \
                      that have no open port may not come up.";
/// Direct paths named at most, where all of them say the same.
const NAMED: usize = 3;

pub(super) fn problems(seen: &Observations, facts: &Facts) -> impl Iterator<Item = Problem> {
    unresolved(seen, facts).into_iter().chain(silent(seen, facts)).chain(cut_off(seen, facts))
}

/// What goes out and back from the tunnel's socket, in words; `None`: nothing does. It is there to see also where no STUN server answers: a
/// firewall may let out other ports.
pub(super) fn flows(seen: &Observations) -> Option<String> {
    let gets_back = |sight: &&CarrierSight| match sight.reason {
        CarrierReason::Passes
        | CarrierReason::OnlySmallPackets
        | CarrierReason::OnlyLargePackets
        | CarrierReason::Lossy => true,
        CarrierReason::NotOffered
        | CarrierReason::NoAddress
        | CarrierReason::Trying
        | CarrierReason::DoesNotPass
        | CarrierReason::StoppedPassing => false,
    };
    let relays = listed(seen.carriers.iter().filter(gets_back).map(|sight| host_only(&sight.relay).to_owned()));
    let to = |remote: SocketAddr| format!("{} port {}", remote.ip(), remote.port());
    let partners = listed(direct_paths(seen).take(NAMED).map(to));
    match (relays.as_str(), partners.as_str()) {
        ("", "") => None,
        (relays, "") => Some(format!("UDP of the tunnel's socket passes to {relays} and back")),
        ("", partners) => Some(format!("a direct path carries data to {partners}")),
        (relays, partners) => Some(format!(
            "UDP of the tunnel's socket passes to {relays} and back, and a direct path carries data to {partners}"
        )),
    }
}

/// Whether datagrams as large as a tunnel needs go out and back: each direct path has shown it, and each relay that is used over UDP.
pub(super) fn carries_tunnels(seen: &Observations) -> bool {
    direct_paths(seen).next().is_some() || seen.carriers.iter().any(|sight| sight.reason == CarrierReason::Passes)
}

/// Direct paths that leave the site; those within it say nothing of its firewall.
fn direct_paths(seen: &Observations) -> impl Iterator<Item = SocketAddr> {
    seen.direct.iter().copied().filter(move |remote| match remote.ip() {
        IpAddr::V4(ip) => is_public(ip) && !is_near(*remote, seen),
        IpAddr::V6(ip) => is_global(ip) && !is_near(*remote, seen),
    })
}

/// Whether a partner may be within our own site. Whoever shares its prefix and is elsewhere counts as near: then nothing is claimed.
fn is_near(remote: SocketAddr, seen: &Observations) -> bool {
    let mut own = seen.reflections.iter().filter_map(|entry| entry.source).chain(seen.sources.iter().copied());
    own.any(|own| match (own, remote.ip()) {
        (IpAddr::V4(own), IpAddr::V4(remote)) => own.octets()[..2] == remote.octets()[..2],
        // What a site has in common at most (RFC 6177).
        (IpAddr::V6(own), IpAddr::V6(remote)) => own.segments()[..3] == remote.segments()[..3],
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    })
}

fn is_global(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xe000 == 0x2000
}

/// A socket that has just been opened gets through, and the tunnel's, which has been open for long, to no relay: what is asked from
/// the new one says nothing of that.
fn cut_off(seen: &Observations, facts: &Facts) -> Option<Problem> {
    let is_fallen = |sight: &CarrierSight| match sight.reason {
        CarrierReason::DoesNotPass | CarrierReason::StoppedPassing => true,
        CarrierReason::NotOffered
        | CarrierReason::NoAddress
        | CarrierReason::Trying
        | CarrierReason::Passes
        | CarrierReason::OnlySmallPackets
        | CarrierReason::OnlyLargePackets
        | CarrierReason::Lossy => false,
    };
    let port = seen.carriers.first()?.port;
    if facts.stun != Some(true) || !seen.carriers.iter().all(is_fallen) {
        return None;
    }
    let relays = listed(seen.carriers.iter().map(|sight| host_only(&sight.relay).to_owned()));
    Some(Problem {
        code: "udp_cut_off".into(),
        text: format!(
            "UDP from a new socket gets out and back, and from the tunnel's own (port {port}) nothing passes to any relay now \
             ({relays}). A firewall that cuts a flow off when it is old or busy looks like this, and one that lets out STUN and \
             not the port of the relays. Data goes to the relays over TLS, and direct paths may break in the same way."
        ),
        request: Some(format!(
            "Please let UDP from {} port {port} to {relays} pass with the answers for as long as it goes on (no limit on the \
             age or the packets of a flow), {DIRECT}.",
            sources(seen)
        )),
    })
}

/// Who cannot be asked does not say that UDP gets out, and without any of them no direct path is found.
fn unresolved(seen: &Observations, facts: &Facts) -> Option<Problem> {
    let unknown: Vec<_> = seen.reflections.iter().filter(|entry| entry.address.is_none()).collect();
    if unknown.is_empty() {
        return None;
    }
    let names = listed(unknown.iter().map(|entry| host_only(&entry.server).to_owned()));
    let resolve = format!("Please let {} resolve {names} (DNS, port 53 over UDP and TCP)", sources(seen));
    let (cost, request) = if facts.stun == Some(true) {
        (
            "so these cannot tell whether UDP gets out. Others answer, and there is less to fall back on.".to_owned(),
            format!("{resolve}."),
        )
    } else {
        let to = |entry: &&Reflection| format!("{} port {}", host_only(&entry.server), port_of(&entry.server));
        let targets = listed(unknown.iter().map(to));
        let cost = match &facts.flows {
            Some(flows) => format!("and no other one answers. {}{UNSEEN}", sentence(flows)),
            None => format!(
                "so these cannot tell whether UDP gets out. No other one answers, so no direct path over the internet is found. {}",
                instead(seen)
            ),
        };
        (cost, format!("{resolve}, and allow UDP from there to {targets}, {DIRECT}."))
    };
    let text = format!("Names of STUN servers do not resolve ({names}), {cost}");
    Some(Problem { code: "dns".into(), text, request: Some(request) })
}

/// Nobody answers, or not everybody.
fn silent(seen: &Observations, facts: &Facts) -> Option<Problem> {
    let is_silent = |entry: &&Reflection| entry.address.is_some() && entry.seen.is_none();
    let silent: Vec<_> = seen.reflections.iter().filter(is_silent).collect();
    if silent.is_empty() {
        return None;
    }
    let targets = listed(silent.iter().filter_map(|entry| {
        Some(format!("{} ({}) port {}", host_only(&entry.server), entry.address?.ip(), entry.address?.port()))
    }));
    let (code, mut text) = match (facts.stun, &facts.flows) {
        (Some(true), _) => {
            let text = format!(
                "UDP gets out, and not everywhere: no answer from {targets}. A firewall that lets out some ports or addresses \
                 only looks like this, and a server that is down. Partners may be at any address and port, so direct paths to \
                 them may not come up."
            );
            ("udp_partly", text)
        }
        (Some(false) | None, Some(flows)) => {
            let text = format!(
                "UDP gets out, and not to the STUN servers: no answer from {targets}. {}A firewall that lets out some ports or \
                 addresses only looks like this. {UNSEEN}",
                sentence(flows)
            );
            ("udp_partly", text)
        }
        (Some(false) | None, None) => {
            ("udp_blocked", format!("UDP does not get out: no STUN server answered. {}", instead(seen)))
        }
    };
    let unrouted = silent.iter().filter(|entry| entry.source.is_none());
    let unrouted = listed(unrouted.filter_map(|entry| Some(entry.address?.ip().to_string())));
    if !unrouted.is_empty() {
        text.push_str(&format!(" This machine has no route to {unrouted}: look at its default gateway."));
    }
    let mut request = format!("Please allow UDP from {} to {targets}, {DIRECT}.", sources(seen));
    let doubtful = silent.iter().filter(|entry| !is_vouched_for(entry, seen));
    let doubtful = listed(doubtful.map(|entry| host_only(&entry.server).to_owned()));
    if !doubtful.is_empty() {
        request.push_str(&format!(" Please look as well whether {doubtful} resolves to the right address there."));
    }
    Some(Problem { code: code.into(), text, request: Some(request) })
}

/// With its capital and its full stop.
fn sentence(text: &str) -> String {
    let mut rest = text.chars();
    let first = rest.next().into_iter().flat_map(char::to_uppercase);
    first.chain(rest).chain(". ".chars()).collect()
}

/// Whether something other than DNS says that the server is at this address: the server is given as one, it answers there at
/// another port, or it proved its key to a connection that went by the same name servers.
fn is_vouched_for(entry: &Reflection, seen: &Observations) -> bool {
    let (name, ip) = (host_only(&entry.server), entry.address.map(|address| address.ip()));
    let answers = |other: &Reflection| other.seen.is_some() && other.address.map(|address| address.ip()) == ip;
    let is_proved = |host: &HostCheck| {
        !host.proxied && host_only(&host.host) == name && matches!(host.outcome, HostOutcome::Reached { .. })
    };
    name.parse::<IpAddr>().is_ok() || seen.reflections.iter().any(answers) || seen.hosts.iter().any(is_proved)
}

/// What carries the data then.
fn instead(seen: &Observations) -> &'static str {
    let relays = || seen.hosts.iter().filter(|host| host.role == HostRole::Relay);
    if relays().any(|host| host.outcome.is_reached()) {
        "Data flows through a relay over TLS, which is slower than a direct path and depends on the relay."
    } else if relays().next().is_some() {
        "Data would flow through a relay over TLS, and none was reached either."
    } else {
        "Data needs a relay over TLS then."
    }
}
