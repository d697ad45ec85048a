//! What follows for the NAT from what the relays saw of us, and which of them does not fit.

use super::{Facts, host_only, listed, port_of, sources};
use crate::{
    netcheck::{Observations, Problem, Reflection},
    path::NatMapping,
};

pub(super) fn problems(seen: &Observations, facts: &Facts) -> impl Iterator<Item = Problem> {
    nat64(seen, facts).into_iter().chain(hard(seen, facts)).chain(relay_disagrees(seen, facts))
}

/// How the NAT maps, in words.
pub(super) fn text(seen: &Observations, facts: &Facts) -> String {
    match seen.nat64 {
        Some(prefix) if facts.ipv4.is_some() => format!("IPv4 only through NAT64 ({prefix}); {}", words(facts)),
        Some(_) | None => words(facts),
    }
}

fn words(facts: &Facts) -> String {
    let text = match (facts.stun, facts.ipv4, facts.weighed.view.mapping) {
        (None, _, _) if facts.named => "not known: no name of a STUN server resolves",
        (None, _, _) => "not known: there was no STUN server to ask",
        (Some(false), _, _) => "not known: no STUN server answered",
        (_, None, _) => "no IPv4: IPv6 needs no NAT",
        _ if facts.nat64 => {
            "a NAT64 of unknown prefix: this machine has IPv6 only, and direct paths work with partners that have IPv6"
        }
        _ if facts.public => "no NAT: this machine has a public address",
        (_, _, NatMapping::EndpointIndependent) => {
            "a NAT that gives one outer port for all destinations: direct paths work with almost everybody"
        }
        (_, _, NatMapping::Regular) => {
            "a NAT that gives every destination the next outer port: direct paths work with many partners"
        }
        (_, _, NatMapping::Random) if facts.weighed.is_undecided() => {
            "taken for a NAT that gives every destination another outer port: two relays contradict each other, and no third \
             one says which is right"
        }
        (_, _, NatMapping::Random) => {
            "a NAT that gives every destination another outer port: direct paths work only with partners whose own \
             firewall is open to unknown ports"
        }
        (_, _, NatMapping::Unknown) => {
            return facts.weighed.missing.map_or_else(|| "a NAT".to_owned(), |missing| format!("a NAT; {missing}"));
        }
    };
    text.to_owned()
}

fn nat64(seen: &Observations, facts: &Facts) -> Option<Problem> {
    facts.nat64.then(|| Problem {
        code: "nat64".into(),
        text: "This machine has IPv6 only, and a NAT64 translates what it sends to IPv4 servers. Its prefix could not be found out, \
               so partners with IPv4 only are reached through a relay."
            .into(),
        request: Some(format!(
            "Please let the DNS64 answer ipv4only.arpa (RFC 7050) to {}, or give the machine an IPv4 address too, with \
             outbound UDP to any address and the answers (stateful, no inbound rule).",
            sources(seen)
        )),
    })
}

fn hard(seen: &Observations, facts: &Facts) -> Option<Problem> {
    let weighed = &facts.weighed;
    let differ = weighed.missing.is_some_and(|missing| missing.differ);
    let is_hard = differ || matches!(weighed.view.mapping, NatMapping::Random | NatMapping::Regular);
    if !is_hard || facts.public || facts.ipv6.is_some() || facts.nat64 {
        return None;
    }
    let regular = weighed.view.mapping == NatMapping::Regular;
    let text = match (weighed.contradiction(), regular, differ) {
        (_, true, _) => {
            "The NAT gives every destination the next outer port, so many partners are reached through a relay only, unless both \
             sides allow tunnel.port_guessing."
                .to_owned()
        }
        (_, _, true) => {
            "The NAT gives some destinations another outer port than others, as far as few answers show, so many partners are \
             reached through a relay only. A second relay in the platform's map would tell how it does."
                .to_owned()
        }
        (None, ..) => {
            "The NAT gives every destination another outer port, so many partners are reached through a relay only."
                .to_owned()
        }
        (Some(contradiction), ..) => format!(
            "Two relays contradict each other: {contradiction}. With such a NAT many partners are reached through a relay only. It may \
             be that the NAT has one port for all, and that one of the two answers wrongly, or is reached by another uplink; a third \
             relay in the platform's map would tell."
        ),
    };
    Some(Problem {
        code: "hard_nat".into(),
        text,
        request: Some(format!(
            "Please give UDP from {} one fixed outer port (static NAT, or \"endpoint-independent mapping\"), for the port \
             in [tunnel] listen.",
            sources(seen)
        )),
    })
}

/// Nobody outside needs it, and partners in one building do: where their own networks do not reach each other.
pub(super) fn hairpin(seen: &Observations, facts: &Facts) -> Option<Problem> {
    let outer = facts.ipv4.filter(|_| seen.hairpin == Some(false) && !facts.public && !facts.nat64)?;
    Some(Problem {
        code: "hairpin".into(),
        text: format!(
            "The router does not turn packets to its own outer address {} round (hairpin): a partner behind the same address is \
             reached directly only where its own network is reached from this one, else through a relay.",
            outer.ip()
        ),
        request: Some(format!(
            "Where another gateway stands behind {} too: please let UDP pass between it and {}, or turn on hairpin NAT (NAT \
             loopback, NAT reflection) for UDP at the router.",
            outer.ip(),
            sources(seen)
        )),
    })
}

/// One relay says something else than most: it lies, or something between does, or the way to it is another one. What most say counts.
fn relay_disagrees(seen: &Observations, facts: &Facts) -> Option<Problem> {
    let outvoted = facts.weighed.outvoted();
    let contradiction = facts.weighed.contradiction().filter(|_| !outvoted.is_empty())?;
    let is_of_them = |entry: &&Reflection| {
        outvoted.iter().any(|word| word.relay == host_only(&entry.server)) && entry.seen.is_some()
    };
    let target = |entry: &Reflection| {
        let ip = entry.address.map(|address| format!(" ({})", address.ip())).unwrap_or_default();
        format!("{}{ip} port {}", host_only(&entry.server), port_of(&entry.server))
    };
    let targets = listed(seen.reflections.iter().filter(is_of_them).map(target));
    let names = listed(outvoted.iter().map(|word| word.relay.clone()));
    Some(Problem {
        code: "relay_disagrees".into(),
        text: format!(
            "A relay does not see this machine as most relays do: {contradiction}. A router that rewrites STUN answers (an \
             application gateway, \"ALG\") looks like this, another uplink or outer address on the way to {names}, and a relay that \
             answers wrongly. Direct paths are sought by what most relays saw; where this machine really has several outer \
             addresses, some partners may be reached through a relay only."
        ),
        request: Some(format!(
            "Please look by which outer address UDP from {} to {targets} leaves: it should be the same as to all other \
             destinations, and nothing on the way should rewrite STUN. If that is so, tell the operator of {names} that it \
             answers STUN requests wrongly.",
            sources(seen)
        )),
    })
}
