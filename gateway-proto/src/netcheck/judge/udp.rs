//! What the silence of STUN servers says of UDP, and what is to be asked for.

use std::net::IpAddr;

use super::{Facts, host_only, listed, port_of, sources};
use crate::{
    netcheck::{CarrierSight, HostCheck, HostOutcome, HostRole, Observations, Problem, Reflection},
    relay::udp::CarrierReason,
};

/// What direct paths need beside the way to the STUN servers.
const DIRECT: &str = "and for direct paths outbound UDP to any address, with the answers (stateful, no inbound rule)";

pub(super) fn problems(seen: &Observations, facts: &Facts) -> impl Iterator<Item = Problem> {
    unresolved(seen, facts).into_iter().chain(silent(seen, facts)).chain(cut_off(seen, facts))
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
        | CarrierReason::Lossy => false,
    };
    let port = seen.carriers.first()?.port;
    if facts.udp != Some(true) || !seen.carriers.iter().all(is_fallen) {
        return None;
    }
    let relays = listed(seen.carriers.iter().map(|sight| host_only(&sight.relay).to_owned()));
    Some(Problem {
        code: "udp_cut_off".into(),
        text: format!(
            "UDP from a new socket gets out and back, and from the tunnel's own (port {port}) nothing passes to any relay now              ({relays}). A firewall that cuts a flow off when it is old or busy looks like this, and one that lets out STUN and              not the port of the relays. Data goes to the relays over TLS, and direct paths may break in the same way."
        ),
        request: Some(format!(
            "Please let UDP from {} port {port} to {relays} pass with the answers for as long as it goes on (no limit on the              age or the packets of a flow), {DIRECT}.",
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
    let (cost, request) = if facts.udp == Some(true) {
        ("Others answer, and there is less to fall back on.".to_owned(), format!("{resolve}."))
    } else {
        let to = |entry: &&Reflection| format!("{} port {}", host_only(&entry.server), port_of(&entry.server));
        let targets = listed(unknown.iter().map(to));
        (
            format!("No other one answers, so no direct path over the internet is found. {}", instead(seen)),
            format!("{resolve}, and allow UDP from there to {targets}, {DIRECT}."),
        )
    };
    let text =
        format!("Names of STUN servers do not resolve ({names}), so these cannot tell whether UDP gets out. {cost}");
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
    let (code, mut text) = if facts.udp == Some(true) {
        let text = format!(
            "UDP gets out, and not everywhere: no answer from {targets}. A firewall that lets out some ports or addresses \
             only looks like this, and a server that is down. Partners may be at any address and port, so direct paths to \
             them may not come up."
        );
        ("udp_partly", text)
    } else {
        ("udp_blocked", format!("UDP does not get out: no STUN server answered. {}", instead(seen)))
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
