//! How the links to relays stand that run, or ran lately.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::id::RelayId;

/// A link that is not attached for so long is down: a short break is no reason to look for another relay.
pub(super) const DOWN_AFTER: Duration = Duration::from_secs(2);
/// Links that stand, or do not, for so long: those that are being attached, and those that break together, do not do so in one moment.
pub(super) const SETTLED_AFTER: Duration = Duration::from_millis(500);
/// A relay that was given up is looked at again after this.
const FORGIVEN_AFTER: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy)]
struct LinkSeen {
    /// Attached, and not about to stop.
    stands: bool,
    /// So since then.
    since: Instant,
    /// When it was last known to run.
    seen: Instant,
}

/// The links, by the relays of the map.
#[derive(Debug, Default)]
pub(super) struct Links(BTreeMap<RelayId, LinkSeen>);

impl Links {
    /// Forgets the relays that are not in `map`.
    pub(super) fn keep(&mut self, map: &[RelayId]) {
        self.0.retain(|id, _| map.contains(id));
    }

    /// Every link that runs, and whether it is attached to a relay that is not about to stop.
    pub(super) fn running(&mut self, running: impl Iterator<Item = (RelayId, bool)>, now: Instant) {
        let mut links = BTreeMap::new();
        for (relay, stands) in running {
            let before = self.0.remove(&relay).filter(|before| before.stands == stands);
            let since = before.map_or(now, |before| before.since);
            links.insert(relay, LinkSeen { stands, since, seen: now });
        }
        // What was given up is remembered, or it would be chosen again at once.
        let given_up = |link: &LinkSeen| !link.stands && link.seen >= link.since + DOWN_AFTER && !link.forgiven(now);
        links.extend(std::mem::take(&mut self.0).into_iter().filter(|(_, link)| given_up(link)));
        self.0 = links;
    }

    /// When the next link that is not attached will count as down, or any will count as settled.
    pub(super) fn next_change(&self, now: Instant) -> Option<Instant> {
        let falling = self.0.values().filter(|link| !link.stands).map(|link| link.since + DOWN_AFTER);
        let settling = self.0.values().map(|link| link.since + SETTLED_AFTER);
        falling.chain(settling).filter(|at| *at > now).min()
    }

    /// How many of these are attached, to a relay that is not about to stop.
    pub(super) fn standing(&self, of: &[RelayId]) -> usize {
        of.iter().filter(|relay| self.0.get(*relay).is_some_and(|link| link.stands)).count()
    }

    /// Whether all of these run, and nothing changed of late.
    pub(super) fn are_settled(&self, of: &[RelayId], now: Instant) -> bool {
        let settled = |link: &LinkSeen| now >= link.since + SETTLED_AFTER;
        of.iter().all(|relay| self.0.get(relay).is_some_and(settled))
    }

    /// Not attached for long, or given up lately.
    pub(super) fn is_down(&self, relay: RelayId, now: Instant) -> bool {
        self.0.get(&relay).is_some_and(|link| !link.stands && now >= link.since + DOWN_AFTER && !link.forgiven(now))
    }

    /// No link stands, and one of those that run is down.
    pub(super) fn are_all_lost(&self, now: Instant) -> bool {
        let looked_at = self.0.values().map(|link| link.seen).max();
        let down = |link: &LinkSeen| Some(link.seen) == looked_at && now >= link.since + DOWN_AFTER;
        !self.0.values().any(|link| link.stands) && self.0.values().any(down)
    }
}

impl LinkSeen {
    /// Given up so long ago that it may be tried again.
    fn forgiven(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.seen) >= FORGIVEN_AFTER
    }
}
