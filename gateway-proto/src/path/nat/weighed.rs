//! What several relays say of one socket, weighed against each other.
//!
//! A relay may lie, a router may rewrite what comes from one, and the way to one may be another uplink. So relays are counted and not
//! answers, and what more than half of them say is believed; a relay whose own ports contradict each other says nothing. Two relays that
//! contradict each other cannot be told apart: then the class is the worse one, because nothing is to be promised that may not hold
//! ([`Weighed::contradiction`] says so). Where a NAT gives every destination another port no two relays agree, and no minority of liars can
//! make it look otherwise without knowing what the others saw.
//!
//! Two answers that are the same may be luck, and a NAT may give each *address* a port of its own, which the ports of one machine do not show. So a class
//! needs [`MIN_ANSWERS`] from [`MIN_SERVERS`] addresses; with less it is unknown, and [`Weighed::missing`] says why.

use std::{cmp::Reverse, collections::BTreeSet, fmt, net::SocketAddr};

use super::NatView;
use crate::signal::{NatMapping, PortPattern};

/// Outer ports of a NAT that counts: no further from the next than this, for each question that was asked between the two.
const REGULAR_STEP: u16 = 5;

/// Answers over IPv4 without which no class is told.
const MIN_ANSWERS: usize = 3;
/// Addresses of servers that they must come from.
const MIN_SERVERS: usize = 2;

/// One answer to a STUN request from our socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told<'a> {
    /// The host of the relay's STUN ports.
    pub relay: &'a str,
    /// Where the request went.
    pub server: SocketAddr,
    /// The address it was seen from, in normal form.
    pub outer: SocketAddr,
}

/// Answers that are too few for a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// How many there are, over IPv4.
    pub answers: usize,
    /// From how many addresses of servers.
    pub servers: usize,
    /// Whether they name different outer addresses or ports: whatever the class, it is a hard one.
    pub differ: bool,
}

/// What one relay saw of our socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The host of its STUN ports.
    pub relay: String,
    /// What they saw, each address once.
    pub seen: Vec<SocketAddr>,
}

/// What all relays saw of our socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Weighed {
    /// What follows for the NAT. Only IPv4 counts: IPv6 has no port mapping worth a name.
    pub view: NatView,
    /// Every address that was seen, once; those at the IP address that most relays saw come first, of these the one that most saw.
    pub addresses: Vec<SocketAddr>,
    /// The relays by which the class is decided: they agree, and are more than half. None where the answers all differ.
    pub believed: Vec<Word>,
    /// The other relays that saw an IPv4 address.
    pub others: Vec<Word>,
    /// Why the class is unknown although there are answers.
    pub missing: Option<Missing>,
}

impl Weighed {
    /// Weighs what was seen, in the order of asking, all from one socket.
    pub fn of<'a>(seen: impl IntoIterator<Item = Told<'a>>) -> Self {
        let told: Vec<_> = seen.into_iter().collect();
        let all: Vec<(&str, SocketAddr)> = told.iter().map(|told| (told.relay, told.outer)).collect();
        let asked: Vec<_> = all.iter().copied().filter(|(_, outer)| outer.is_ipv4()).collect();
        let (words, missing) = (words(&asked), Missing::of(&told));
        let is_most = |relays: &[&str]| 2 * relays.len() > words.len();
        let (same, near) = (agreeing(&asked, 0), agreeing(&asked, REGULAR_STEP));
        let (view, relays) = if asked.is_empty() || missing.is_some() {
            (NatView::default(), Vec::new())
        } else if is_most(&same) {
            (NatView::of_mapping(NatMapping::EndpointIndependent), same)
        } else if is_most(&near) {
            (counting(&asked, &near), near)
        } else {
            // A port for every destination, or a pool of outer addresses: nobody can tell where the next packet comes from.
            (NatView::of_mapping(NatMapping::Random), Vec::new())
        };
        let (believed, others) = words.into_iter().partition(|word| relays.contains(&word.relay.as_str()));
        Self { view, addresses: by_backing(&all), believed, others, missing }
    }

    /// The relays that are not believed, because most say something else.
    pub fn outvoted(&self) -> &[Word] {
        if self.believed.is_empty() { &[] } else { &self.others }
    }

    /// Whether the class hangs on two relays that contradict each other. Two that each see another port at every port of theirs do not: that
    /// is what such a NAT looks like.
    pub fn is_undecided(&self) -> bool {
        let differ = self.view.mapping == NatMapping::Random && self.others.len() == 2;
        differ && self.others.iter().any(|word| word.seen.len() == 1)
    }

    /// Which relays contradict each other, what each says and what is taken to be true, without a full stop; `None`: none does so that
    /// another could be right.
    pub fn contradiction(&self) -> Option<String> {
        if let ([_, ..], Some(believed)) = (self.outvoted(), self.believed.first()) {
            let most: Vec<_> = self.believed.iter().map(|word| word.relay.as_str()).collect();
            let what = match (self.view.mapping, believed.seen.first()) {
                (NatMapping::Regular, Some(outer)) => format!("ports of {} that follow each other", outer.ip()),
                (NatMapping::EndpointIndependent | NatMapping::Random | NatMapping::Unknown, _) | (_, None) => {
                    believed.told()
                }
            };
            let saw = listed(self.outvoted());
            return Some(format!("{saw}, and most relays ({}) saw {what}: these are believed", most.join(", ")));
        }
        self.is_undecided().then(|| {
            format!(
                "{}, and there is no third relay to say which is right: the worse is taken to be true, a NAT that gives every \
                 destination another outer port",
                listed(&self.others)
            )
        })
    }
}

impl Missing {
    fn of(told: &[Told<'_>]) -> Option<Self> {
        let over_ipv4: Vec<_> = told.iter().filter(|told| told.outer.is_ipv4()).collect();
        let servers: BTreeSet<_> = over_ipv4.iter().map(|told| told.server.ip()).collect();
        let outer: BTreeSet<_> = over_ipv4.iter().map(|told| told.outer).collect();
        let missing = Self { answers: over_ipv4.len(), servers: servers.len(), differ: outer.len() > 1 };
        let is_enough = missing.answers >= MIN_ANSWERS && missing.servers >= MIN_SERVERS;
        (missing.answers > 0 && !is_enough).then_some(missing)
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: usize, one: &'static str, many: &'static str| if count == 1 { one } else { many };
        write!(
            f,
            "{} STUN {} from {} {} {} not tell how it maps ({MIN_ANSWERS} from {MIN_SERVERS} addresses do: a second relay in the \
             platform's map, or one that is reached)",
            self.answers,
            plural(self.answers, "answer", "answers"),
            self.servers,
            plural(self.servers, "server address", "server addresses"),
            plural(self.answers, "does", "do"),
        )?;
        f.write_str(if self.differ {
            "; they name different outer ports, so it is a hard one: direct paths are tried, and no port is guessed"
        } else if self.answers > 1 {
            "; one outer port as far as that shows: direct paths are tried and come up if it is the same towards partners, and \
             no port is guessed"
        } else {
            "; direct paths are tried, and no port is guessed"
        })
    }
}

impl Word {
    fn told(&self) -> String {
        self.seen.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} saw {}", self.relay, self.told())
    }
}

fn listed(words: &[Word]) -> String {
    words.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// By relay, in the order of asking.
fn words(asked: &[(&str, SocketAddr)]) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    for (relay, outer) in asked {
        match words.iter_mut().find(|word| word.relay == *relay) {
            Some(word) if word.seen.contains(outer) => {}
            Some(word) => word.seen.push(*outer),
            None => words.push(Word { relay: (*relay).to_owned(), seen: vec![*outer] }),
        }
    }
    words
}

/// The relays whose every answer is in one run of ports at one IP address, each no further from the next than `step` for each question from
/// the one to the other. Of several such runs the one with most relays.
fn agreeing<'a>(asked: &[(&'a str, SocketAddr)], step: u16) -> Vec<&'a str> {
    let mut order: Vec<usize> = (0..asked.len()).collect();
    order.sort_by_key(|at| asked[*at].1);
    let is_next = |low: &usize, high: &usize| {
        let questions = u16::try_from(low.abs_diff(*high)).unwrap_or(u16::MAX);
        let (low, high) = (asked[*low].1, asked[*high].1);
        low.ip() == high.ip() && high.port() - low.port() <= step.saturating_mul(questions)
    };
    order.chunk_by(is_next).map(|run| wholly_in(asked, run)).max_by_key(Vec::len).unwrap_or_default()
}

/// The relays that have no answer outside of `run`, each once.
fn wholly_in<'a>(asked: &[(&'a str, SocketAddr)], run: &[usize]) -> Vec<&'a str> {
    let mut relays: Vec<_> = run.iter().map(|at| asked[*at].0).collect();
    relays.sort_unstable();
    relays.dedup();
    let strays = |relay: &str| (0..asked.len()).any(|at| asked[at].0 == relay && !run.contains(&at));
    relays.retain(|relay| !strays(relay));
    relays
}

/// A NAT that counts, as these relays saw it.
fn counting(asked: &[(&str, SocketAddr)], relays: &[&str]) -> NatView {
    let of_them = asked.iter().filter(|(relay, _)| relays.contains(relay));
    let ports: Vec<_> = of_them.map(|(_, outer)| outer.port()).collect();
    let direction = i8::from(ports.is_sorted()) - i8::from(ports.iter().rev().is_sorted());
    let ports = ports.last().map(|last| PortPattern { last: *last, direction });
    NatView { ports, ..NatView::of_mapping(NatMapping::Regular) }
}

/// As [`Weighed::addresses`]: whoever takes the first is not led astray by one relay.
fn by_backing(all: &[(&str, SocketAddr)]) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for (_, outer) in all {
        if !addresses.contains(outer) {
            addresses.push(*outer);
        }
    }
    addresses.sort_by_cached_key(|address| {
        let at_ip = backers(all, |outer| outer.ip() == address.ip());
        Reverse((at_ip, backers(all, |outer| outer == address)))
    });
    addresses
}

/// How many relays saw such an address.
fn backers(all: &[(&str, SocketAddr)], is_such: impl Fn(&SocketAddr) -> bool) -> usize {
    let mut relays: Vec<_> = all.iter().filter(|(_, outer)| is_such(outer)).map(|(relay, _)| *relay).collect();
    relays.sort_unstable();
    relays.dedup();
    relays.len()
}

#[cfg(test)]
mod tests;
