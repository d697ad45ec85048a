//! More relays than a gateway chose for itself, while only one of those stands.

use std::time::{Duration, Instant};

use super::{HomeChooser, links::SETTLED_AFTER};
use crate::id::RelayId;

/// Two gateways that each have as many of three relays have one in common.
const ENOUGH_STAND: usize = 2;
/// At most so many at a time: the caller's cap is for the homes of partners too, which may be the only relays in common.
const MOST_JOINED: usize = 2;
/// One that does not stand makes room for another after this: long enough for a few tries over a bad wire.
const TRIED_FOR: Duration = Duration::from_secs(30);
/// Those that came stay for so long after enough of the others stand: what fails again and again would let them come and go.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// The relays that came to the only one that stands; at most [`MOST_JOINED`] beside those that were chosen.
#[derive(Debug, Default)]
pub(super) struct JoinedRelays {
    relays: Vec<Joined>,
    /// The last one that came, whether it is still here or not: the turn of the others begins behind it.
    last: Option<Joined>,
    /// They stay until then at least.
    until: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Joined {
    relay: RelayId,
    at: Instant,
}

impl JoinedRelays {
    /// Forgets the relays that are not in `map`.
    pub(super) fn keep(&mut self, map: &[RelayId]) {
        self.relays.retain(|joined| map.contains(&joined.relay));
    }

    /// When another may come, or take the place of one that does not stand.
    pub(super) fn next_change(&self, now: Instant) -> Option<Instant> {
        let come = self.last.map(|last| last.at + SETTLED_AFTER);
        let leave = self.relays.iter().map(|joined| joined.at + TRIED_FOR);
        come.into_iter().chain(leave).filter(|at| *at > now).min()
    }

    /// Those that are not among `own`, with their places.
    fn beside(&self, own: &[RelayId]) -> impl Iterator<Item = (usize, &Joined)> {
        self.relays.iter().enumerate().filter(|(_, joined)| !own.contains(&joined.relay))
    }

    fn come(&mut self, relay: RelayId, now: Instant) {
        let joined = Joined { relay, at: now };
        self.relays.push(joined);
        self.last = Some(joined);
    }
}

impl HomeChooser {
    /// Adds relays to those that were chosen, while only one stands of all: one, and another when that does not stand soon either, and then
    /// one in the place of another. The order of the map says which, and no measurement, so that two gateways that have no relay in common any
    /// more meet at one.
    pub(super) fn join_others(&mut self, wanted: &mut Vec<RelayId>, now: Instant) {
        if self.links.standing(wanted) < ENOUGH_STAND {
            self.joined.until = Some(now + KEPT_FOR);
        } else if self.joined.until.is_some_and(|until| now >= until) {
            (self.joined.relays, self.joined.last) = (Vec::new(), None);
        }
        let own = wanted.clone();
        // Too many are left where some that had been chosen meanwhile are not any more.
        while let Some(place) = self.surplus(&own) {
            self.joined.relays.remove(place);
        }
        wanted.extend(self.joined.beside(&own).map(|(_, joined)| joined.relay));
        // A relay that was given up lately counts as settled before its link has tried anything.
        let is_soon = self.joined.last.is_some_and(|last| now < last.at + SETTLED_AFTER);
        if is_soon || self.links.standing(wanted) != 1 || !self.links.are_settled(wanted, now) {
            return;
        }
        let Some(next) = self.next_to_join(wanted) else { return };
        if self.joined.beside(&own).count() >= MOST_JOINED {
            let Some(place) = self.place_for_another(&own, now) else { return };
            let gone = self.joined.relays.remove(place).relay;
            wanted.retain(|relay| *relay != gone);
        }
        self.joined.come(next, now);
        wanted.push(next);
    }

    /// The next of the map, cyclically, after the one that came last.
    fn next_to_join(&self, wanted: &[RelayId]) -> Option<RelayId> {
        let last = self.joined.last.and_then(|last| self.map.iter().position(|relay| *relay == last.relay));
        let after = last.map_or(0, |place| place + 1);
        let turns = self.map.iter().cycle().skip(after).take(self.map.len());
        turns.copied().find(|relay| !wanted.contains(relay))
    }

    /// Of those that joined, the first that had its time and does not stand.
    fn place_for_another(&self, own: &[RelayId], now: Instant) -> Option<usize> {
        let had_its_time = |joined: &Joined| now >= joined.at + TRIED_FOR && self.links.standing(&[joined.relay]) == 0;
        self.joined.beside(own).find(|&(_, joined)| had_its_time(joined)).map(|(place, _)| place)
    }

    /// Of more than may have joined the one to go: one that does not stand, the oldest.
    fn surplus(&self, own: &[RelayId]) -> Option<usize> {
        let joined = self.joined.beside(own).map(|(place, joined)| (self.links.standing(&[joined.relay]), place));
        let joined: Vec<_> = joined.collect();
        joined.iter().min().filter(|_| joined.len() > MOST_JOINED).map(|(_, place)| *place)
    }
}

#[cfg(test)]
mod tests;
