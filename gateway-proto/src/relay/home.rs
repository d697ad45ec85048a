//! Which relay is home, and which are attached to: by measured latency, calmly.
//!
//! Latency is the median of what was measured within [`WINDOW`]. Home changes at once when it fails or is about to stop; else only to a relay
//! that is a third better, and not within [`CALM`] of the last change, or three times as near as the last [`ENOUGH`] measurements
//! of home, and then not within [`SHORT_CALM`]; a home that was not measured (its STUN is blocked, say) but is alive is kept. While
//! nothing is measured the order of the relay map decides.
//!
//! Home is chosen by latency alone. The spares are of other regions than home, where the map has them: what takes one relay of a region away (a
//! building, a provider, a cable) often takes the others with it. A relay whose region nobody said is a region of its own.
//!
//! Two partners that share a home need a second relay in common for the moment it falls silent. So beside home and spare every gateway is attached to the
//! *heir* of its home: a relay that follows from the map and the home alone, hence the same for all who live there. It becomes home when
//! home fails.
//!
//! A relay whose link has not been attached for [`links::DOWN_AFTER`], or that is about to stop, is *down*: chosen only where nothing else is left, and
//! replaced without calm. While every link is down, every relay of the map is tried, as far as the caller's cap goes.
//!
//! Two gateways that are left with one relay each, and not the same, have none in common any more. So while only one stands, others
//! of the map [come to it](HomeChooser::join_others).

mod attached;
mod joined;
mod latencies;
mod links;

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use self::{
    joined::JoinedRelays,
    latencies::{ENOUGH, Latencies, RECENT, WINDOW, is_clearly_better},
    links::Links,
};
use crate::id::RelayId;

/// At least so long between two changes of a home that works.
const CALM: Duration = Duration::from_secs(300);
/// The same when another is so much nearer that people notice.
const SHORT_CALM: Duration = Duration::from_secs(60);
/// Nobody notices less.
const NOTICEABLE: Duration = Duration::from_millis(30);
/// Relays measured; a map with more is cut.
pub const MAX_RELAYS: usize = 64;

/// Why a relay is home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HomeReason {
    /// Nothing was measured: the order of the relay map.
    MapOrder,
    /// It had the lowest latency of those attached.
    Nearest,
    /// It was a third nearer than the former home.
    Nearer,
    /// It was at least three times as near as the former home, lately.
    MuchNearer,
    /// The former home failed, was about to stop, or left the map.
    FormerFailed,
}

impl HomeReason {
    /// A stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::MapOrder => "map_order",
            Self::Nearest => "nearest",
            Self::Nearer => "nearer",
            Self::MuchNearer => "much_nearer",
            Self::FormerFailed => "former_failed",
        }
    }
}

impl fmt::Display for HomeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MapOrder => "the first of the map: no latency is known",
            Self::Nearest => "the lowest latency",
            Self::Nearer => "a third nearer than the one before",
            Self::MuchNearer => "the one before became more than three times as far",
            Self::FormerFailed => "the one before failed or was stopped",
        })
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct HomeChooser {
    /// The map, in the policy's order.
    map: Vec<RelayId>,
    regions: BTreeMap<RelayId, String>,
    latencies: Latencies,
    home: Option<RelayId>,
    reason: Option<HomeReason>,
    changes: BTreeMap<HomeReason, u64>,
    changed_at: Option<Instant>,
    /// The last change of home, whatever was known of it.
    settled_at: Option<Instant>,
    /// Attached to, or to be.
    chosen: Vec<RelayId>,
    exchanged_at: Option<Instant>,
    links: Links,
    /// Attached to, or to be, because only one of the others stood.
    joined: JoinedRelays,
}

impl HomeChooser {
    /// The relay map with its regions, in the policy's order. What is not in it any more is forgotten.
    pub fn set_map<'a>(&mut self, map: impl Iterator<Item = (RelayId, Option<&'a str>)>) {
        self.map.clear();
        self.regions.clear();
        for (relay, region) in map.take(MAX_RELAYS) {
            self.map.push(relay);
            self.regions.extend(region.map(|region| (relay, region.to_owned())));
        }
        self.latencies.keep(&self.map);
        self.links.keep(&self.map);
        self.joined.keep(&self.map);
    }

    /// Every link that runs, and whether it is attached to a relay that is not about to stop. To be told at each change, and
    /// at [`Self::poll_timeout`].
    pub fn links(&mut self, running: impl Iterator<Item = (RelayId, bool)>, now: Instant) {
        self.links.running(running.filter(|(relay, _)| self.map.contains(relay)), now);
    }

    /// When a link that is not attached will count as down, or others come to the one that stands or take each other's place:
    /// [`Self::wanted`] may answer otherwise then.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.links.next_change(now).into_iter().chain(self.joined.next_change(now)).min()
    }

    /// A round trip to a relay was measured.
    pub fn measured(&mut self, relay: RelayId, rtt: Duration, now: Instant) {
        if self.map.contains(&relay) {
            self.latencies.measured(relay, rtt, now);
        }
    }

    /// The median latency of a relay, if it was measured lately.
    pub fn latency(&self, relay: RelayId, now: Instant) -> Option<Duration> {
        self.latencies.median(relay, 1, WINDOW, now)
    }

    /// Why home is home.
    pub fn reason(&self) -> Option<HomeReason> {
        self.reason
    }

    /// How often another relay became home, by the reason; the first one counts too. At most one entry for each reason.
    pub fn changes(&self) -> &BTreeMap<HomeReason, u64> {
        &self.changes
    }

    /// The relays to attach to, in the order in which they are to be used: `count` by latency, the home first, and the heir of the home. While only
    /// one link stands two more, while none does all of the map, `most` at most.
    pub fn wanted(&mut self, count: usize, most: usize, now: Instant) -> Vec<RelayId> {
        let chosen = self.attach(count, now);
        let first = self.home.filter(|home| self.map.contains(home)).or(chosen.first().copied());
        let heir = first.and_then(|home| self.heir(home, now));
        let others = chosen.into_iter().filter(|relay| ![first, heir].contains(&Some(*relay)));
        let mut wanted: Vec<_> = first.into_iter().chain(heir).chain(others).collect();
        if self.links.are_all_lost(now) {
            let others: Vec<_> = self.map.iter().filter(|relay| !wanted.contains(relay)).copied().collect();
            wanted.extend(others);
        } else {
            self.join_others(&mut wanted, now);
        }
        wanted.truncate(most.max(1));
        wanted
    }

    /// The relay where those who live at `home` meet when it fails: the next of the map, cyclically, of another region than
    /// home if there is one. One that is down is passed over.
    fn heir(&self, home: RelayId, now: Instant) -> Option<RelayId> {
        let place = self.map.iter().position(|relay| *relay == home)?;
        let after = self.map.iter().cycle().skip(place + 1).take(self.map.len() - 1).enumerate();
        let rank = |turn: usize, relay: RelayId| (self.links.is_down(relay, now), self.together(relay, home), turn);
        after.min_by_key(|(turn, relay)| rank(*turn, **relay)).map(|(_, relay)| *relay)
    }

    /// The home, given the relays that are attached and not about to stop. A home that fails is kept only while there is no
    /// other; its heir follows where it is attached, so that partners follow each other, and a nearer one may follow that.
    pub fn decide(&mut self, attached: &[RelayId], now: Instant) -> Option<RelayId> {
        let best = self.map.iter().filter(|relay| attached.contains(relay)).min_by_key(|relay| self.rank(**relay, now));
        let Some(best) = best.copied() else { return self.home };
        let measured = self.latency(best, now).is_some();
        let reason = match self.home {
            Some(home) if attached.contains(&home) => match self.unseats(home, attached, now) {
                Some((better, reason)) => return self.settle(better, reason, now),
                None => {
                    // A guess that turned out to be right.
                    let enough = self.latencies.median(home, ENOUGH, WINDOW, now).is_some();
                    if self.reason == Some(HomeReason::MapOrder) && home == best && enough {
                        return self.settle(home, HomeReason::Nearest, now);
                    }
                    return self.home;
                }
            },
            Some(home) => {
                let heir = self.heir(home, now).filter(|heir| attached.contains(heir));
                return self.settle(heir.unwrap_or(best), HomeReason::FormerFailed, now);
            }
            None if measured => HomeReason::Nearest,
            None => HomeReason::MapOrder,
        };
        self.settle(best, reason, now)
    }

    fn settle(&mut self, home: RelayId, reason: HomeReason, now: Instant) -> Option<RelayId> {
        if self.home.replace(home) != Some(home) {
            self.settled_at = Some(now);
            let count = self.changes.entry(reason).or_default();
            *count = count.saturating_add(1);
        }
        self.reason = Some(reason);
        // One that nothing was known of was a guess, and may be corrected at once.
        self.changed_at = self.latency(home, now).map(|_| now);
        self.home
    }

    /// A relay that is so much better than a home that works, and why.
    fn unseats(&self, home: RelayId, attached: &[RelayId], now: Instant) -> Option<(RelayId, HomeReason)> {
        let since = self.changed_at.map(|at| now.saturating_duration_since(at));
        let nearest = |window: Duration| {
            let latency = |relay: &RelayId| Some((self.latencies.median(*relay, ENOUGH, window, now)?, *relay));
            let others = self.map.iter().filter(|relay| **relay != home && attached.contains(relay));
            let ((best, relay), (own, _)) = (others.filter_map(latency).min()?, latency(&home)?);
            Some((relay, best, own))
        };
        if since.is_none_or(|since| since >= CALM)
            && let Some((relay, best, own)) = nearest(WINDOW)
            && is_clearly_better(best, own)
        {
            return Some((relay, HomeReason::Nearer));
        }
        if since.is_none_or(|since| since >= SHORT_CALM)
            && let Some((relay, best, _)) = nearest(RECENT)
            && let Some(own) = self.latencies.lowest_of_the_last(home, now)
            && best * 3 < own
            && own - best >= NOTICEABLE
        {
            return Some((relay, HomeReason::MuchNearer));
        }
        None
    }

    fn together(&self, one: RelayId, other: RelayId) -> bool {
        self.regions.get(&one).is_some_and(|region| self.regions.get(&other) == Some(region))
    }

    /// Measured ones first, by latency; then in the order of the map, which sorting keeps.
    fn rank(&self, relay: RelayId, now: Instant) -> (bool, Option<Duration>) {
        let latency = self.latency(relay, now);
        (latency.is_none(), latency)
    }
}

#[cfg(test)]
mod tests;
