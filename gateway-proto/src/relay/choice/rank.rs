//! Which relay is better than which: the order in which they are used when nothing is heard.

use std::time::Instant;

use super::{ABSENT_MEMORY, RelayChoice, Seen, Share, losses::Losses};
use crate::{
    id::RelayId,
    relay::{Standing, lately::elapsed},
};

impl RelayChoice {
    /// The less, the better.
    pub(super) fn rank(
        &self,
        link: &Seen,
        links: &[Seen],
        least: Option<RelayId>,
        relayed_at: Option<Instant>,
        now: Instant,
    ) -> [bool; 7] {
        let [absent, doubtful, restarting, waits] = self.faults(link, links, relayed_at, now);
        let lossy = least != Some(link.relay) && self.losses.avoided(link, now).is_some();
        // Where none saw the peer, the one that brought it since: the others may not see it to this moment.
        let missed = self.is_missed(link.relay, now);
        [absent, missed, doubtful, restarting, waits, lossy, self.home != Some(link.relay)]
    }

    /// Why it may not reach the peer at all.
    fn faults(&self, link: &Seen, links: &[Seen], relayed_at: Option<Instant>, now: Instant) -> [bool; 4] {
        let (absent, doubtful) = (self.is_absent(link.relay, now), link.standing == Standing::Doubtful);
        [absent, doubtful, link.restarting, self.waits_for_the_peer(link.relay, links, relayed_at, now)]
    }

    /// One whose link falls again and again, or that is in use and says that it drops much, is left like one of which the tunnel says so.
    pub(super) fn look_at(&mut self, links: &[Seen], now: Instant) {
        self.losses.look_at(links, now);
        let used = links.iter().find(|link| self.used.best == Some(link.relay));
        if let Some((relay, percent)) = used.and_then(|link| Some((link.relay, link.drops?)))
            && self.share == Share::Everything
        {
            self.losses.is_limited(relay, percent, now);
        }
    }

    /// The one to use where all that reach the peer lose much.
    pub(super) fn least_lossy(&self, links: &[Seen], relayed_at: Option<Instant>, now: Instant) -> Option<RelayId> {
        let usable = links.iter().filter(|link| !self.faults(link, links, relayed_at, now).contains(&true));
        let avoided = usable.map(|link| self.losses.avoided(link, now).map(|percent| (link.relay, percent)));
        Losses::least(&avoided.collect::<Option<Vec<_>>>()?, self.used.best)
    }

    /// It did not see the peer, which was not heard over it since, and answers over the one in use: to try it alone would cost what
    /// is sent until it says so again.
    fn waits_for_the_peer(&self, relay: RelayId, links: &[Seen], relayed_at: Option<Instant>, now: Instant) -> bool {
        let Some(absent_at) = self.absent.at(relay) else { return false };
        let came_back = self.heard.at(relay).is_some_and(|at| at > absent_at);
        let answers = relayed_at.is_some_and(|at| elapsed(at, now) < ABSENT_MEMORY);
        let is_attached = |best: RelayId| links.iter().any(|link| link.relay == best);
        let other = self.used.best.filter(|best| *best != relay && is_attached(*best));
        !came_back && answers && other.is_some_and(|best| self.heard.is_recent(best, now))
    }

    pub(super) fn may_be_followed(&self, link: &Seen, now: Instant) -> bool {
        !self.is_missed(link.relay, now) && link.standing != Standing::Doubtful && !link.restarting
    }

    /// It did not see the peer of late. That keeps it behind the others although the peer came back: it would take turns with them
    /// as fast as it says one thing and the other.
    fn is_absent(&self, relay: RelayId, now: Instant) -> bool {
        self.absent.is_within(ABSENT_MEMORY, relay, now)
    }

    /// It did not see the peer of late, and the peer did not come back to it.
    pub(super) fn is_missed(&self, relay: RelayId, now: Instant) -> bool {
        self.is_absent(relay, now) && self.is_gone(relay)
    }

    /// The same, however long ago.
    pub(super) fn is_gone(&self, relay: RelayId) -> bool {
        let came_back = |absent_at: Instant| self.came_back.at(relay).is_some_and(|at| at > absent_at);
        self.absent.at(relay).is_some_and(|absent_at| !came_back(absent_at))
    }
}

#[cfg(test)]
mod tests;
