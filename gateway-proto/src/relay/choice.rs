//! Over which relay packets for a peer go, and over which one beside it.
//!
//! Of the relays we are attached to, the peer's home is the first choice, then the first of the list. One that does not see
//! the peer, that is in doubt, or that is about to stop is used only where there is no other. One that is suspected stays, and a
//! sound one goes beside it. Where the peer's own packets come over another relay ([`heard`](super::heard)), that one goes
//! beside too, or takes its place.
//!
//! What a relay says counts for itself only: that it lives, that it stops, that it does not see the peer. What it says by bringing
//! packets adds a relay, and takes none away before the peer has answered.
//!
//! Neither needs to be true for a pair to lose each other: a relay may live for us, hold a link of the peer that is dead, and be
//! no relay that the peer uses any more. So what stays unanswered goes over *every* relay we are attached to ([`search`]), and
//! the peer answers where it hears it: two that have any relay in common find each other.

mod search;

use std::time::{Duration, Instant};

use search::{Search, Where};

use super::{
    Standing,
    heard::Heard,
    lately::{Lately, elapsed},
};
use crate::id::RelayId;

/// How long a relay that did not see the peer is avoided, while there is another.
const ABSENT_MEMORY: Duration = Duration::from_secs(10);
/// However often a peer seems to be heard elsewhere: no more often does that begin congestion control anew, or ask the peer.
const CALM: Duration = Duration::from_secs(10);
/// What was sent so long ago, and is not answered, went in vain.
const UNANSWERED: Duration = Duration::from_secs(1);

/// How a relay stands that we are attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Which one it is.
    pub relay: RelayId,
    /// Whether it gives signs of life.
    pub standing: Standing,
    /// It is about to stop.
    pub restarting: bool,
    /// How often it lost what was under way: UDP to it stopped passing, or its connection was replaced.
    pub falls: u64,
}

/// What to use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// What is relayed goes over this one.
    pub best: Option<RelayId>,
    /// And over this one as well.
    pub spare: Option<RelayId>,
    /// And over these, while it is not known which relay reaches the peer. No more than we are attached to.
    pub further: Vec<RelayId>,
    /// Packets take another way than those before: congestion control starts anew, and a round trip shows what was lost.
    pub begins_anew: bool,
    /// One came to the further ones: a handshake that is under way goes over it now rather than when its timer is up.
    pub seeks_anew: bool,
    /// The peer is heard over another relay than the best, which is to be asked whether it lives.
    pub is_heard_elsewhere: bool,
    /// An answer of the peer is a reason to choose anew.
    pub awaits_proof: bool,
    /// The peer is to be asked for one now.
    pub asks_peer: bool,
}

/// Chooses for one peer. See the module's description.
#[derive(Debug, Default)]
pub struct RelayChoice {
    home: Option<RelayId>,
    /// Relays that did not see the peer.
    absent: Lately,
    heard: Heard,
    search: Search,
    used: Used,
    /// The relay that is used because of what is heard, and since when.
    instead: Option<(RelayId, Instant)>,
    /// When congestion control began anew, and the peer was asked, because it was heard elsewhere.
    joined_at: Option<Instant>,
    asked_at: Option<Instant>,
    /// Relays that came to the further ones.
    sought: Lately,
}

/// What was chosen last.
#[derive(Debug, Default)]
struct Used {
    best: Option<RelayId>,
    spare: Option<RelayId>,
    further: Vec<RelayId>,
    falls: u64,
}

impl Used {
    fn contains(&self, relay: RelayId) -> bool {
        [self.best, self.spare].contains(&Some(relay)) || self.further.contains(&relay)
    }
}

impl RelayChoice {
    /// Of the two sides of a pair, exactly one follows: where both can go to where they hear each other, it does. That with the
    /// smaller key, which dials too.
    pub fn new(follows: bool) -> Self {
        Self { heard: Heard::new(follows), search: Search::new(follows), ..Self::default() }
    }

    /// The peer's home relay, as the policy says.
    pub fn set_home(&mut self, home: Option<RelayId>) {
        self.home = home;
    }

    /// Whether there is a tunnel; [`Self::choose`] is wanted next. The side that does not dial answers where it is dialled.
    pub fn set_tunnel(&mut self, is_up: bool, now: Instant) {
        self.search.set_tunnel(is_up, now);
    }

    /// This relay does not see the peer.
    pub fn absent(&mut self, relay: RelayId, now: Instant) {
        self.absent.note(relay, now);
    }

    /// A packet came over this relay that seems to be the peer's. True when it is worth choosing anew; for copies over two relays
    /// that is no more than once in ten seconds for each of them; while the peer dials, four times a second.
    pub fn heard(&mut self, relay: RelayId, now: Instant) -> bool {
        let is_dialled_elsewhere = self.search.dialled_over(relay, now) && !self.used.contains(relay);
        self.heard.note(relay, now) || is_dialled_elsewhere
    }

    /// What was sent to the peer stays unanswered. `answered_at` as in [`Self::choose`], which is wanted next.
    pub fn in_vain(&mut self, answered_at: Option<Instant>, now: Instant) {
        let is_recent = |at: Instant| elapsed(at, now) < UNANSWERED;
        let used_long = self.instead.is_some_and(|(_, since)| !is_recent(since));
        if used_long && !answered_at.is_some_and(is_recent) {
            self.heard.in_vain(now);
        }
        if self.search.in_vain(answered_at, now) && self.instead.is_none() {
            self.heard.doubt(self.used.best);
        }
    }

    /// Chooses among the relays we are attached to, the most wanted first. `answered_at` is when the peer answered last, end to end,
    /// while nothing of it came by any other way than over relays.
    pub fn choose(&mut self, links: &[Seen], answered_at: Option<Instant>, now: Instant) -> Choice {
        let mut ranked: Vec<&Seen> = links.iter().collect();
        ranked.sort_by_key(|link| self.rank(link, now));
        let usual = ranked.first().map(|link| link.relay);
        let hearing = self.heard.hearing(usual, answered_at, now);
        let usable = |link: &&Seen| hearing.instead == Some(link.relay) && self.may_be_followed(link, now);
        let followed = ranked.iter().position(usable);
        if let Some(at) = followed {
            ranked[..=at].rotate_right(1);
        }
        let instead = hearing.instead.filter(|_| followed.is_some());
        let since = |relay: RelayId| self.instead.filter(|(known, _)| *known == relay).unwrap_or((relay, now));
        self.instead = instead.map(since);

        let best = ranked.first().copied();
        let suspected = best.is_some_and(|link| link.standing == Standing::Suspected);
        let others = ranked.get(1..).unwrap_or_default();
        let heard = others.iter().find(|link| hearing.beside == Some(link.relay));
        let sound = others.iter().find(|link| suspected && link.standing == Standing::Sound);
        let spare = heard.or(sound).map(|link| link.relay);
        let seeking = self.search.is_on(answered_at, now);
        let best_is_heard = best.is_some_and(|link| self.heard.is_heard_now(link.relay, now));
        let is_sought = |link: &&&Seen| match seeking {
            Where::Nowhere => false,
            Where::AsHeard => !best_is_heard && self.heard.is_recent(link.relay, now),
            Where::Everywhere => self.may_be_followed(link, now) || self.heard.is_heard_now(link.relay, now),
        };
        let further = others.iter().filter(is_sought).map(|link| link.relay).filter(|relay| Some(*relay) != spare);
        let used = Used {
            best: best.map(|link| link.relay),
            spare,
            further: further.collect(),
            falls: best.map_or(0, |link| link.falls),
        };
        if seeking == Where::AsHeard && !used.further.is_empty() {
            self.heard.doubt(used.best);
        }
        let (is_heard_elsewhere, only_heard) = (heard.is_some(), heard.is_some() && !suspected);
        let former = std::mem::replace(&mut self.used, used);
        let seeks_anew = self.seeks_anew(&former, now);
        Choice {
            best: self.used.best,
            spare: self.used.spare,
            further: self.used.further.clone(),
            begins_anew: self.begins_anew(&former, only_heard, now) || seeks_anew,
            seeks_anew,
            is_heard_elsewhere,
            awaits_proof: hearing.awaits_proof || seeking != Where::Nowhere,
            asks_peer: hearing.awaits_proof && is_due(&mut self.asked_at, now),
        }
    }

    /// When [`Self::choose`] says something else although nothing happened.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let seen_again = self.absent.iter().map(|(_, at)| at + ABSENT_MEMORY).filter(|at| *at > now).min();
        [seen_again, self.heard.poll_timeout(now), self.search.poll_timeout(now)].into_iter().flatten().min()
    }

    /// The less, the better.
    fn rank(&self, link: &Seen, now: Instant) -> [bool; 4] {
        let doubtful = link.standing == Standing::Doubtful;
        [self.is_absent(link.relay, now), doubtful, link.restarting, self.home != Some(link.relay)]
    }

    fn may_be_followed(&self, link: &Seen, now: Instant) -> bool {
        !self.is_absent(link.relay, now) && link.standing != Standing::Doubtful && !link.restarting
    }

    fn is_absent(&self, relay: RelayId, now: Instant) -> bool {
        self.absent.is_within(ABSENT_MEMORY, relay, now)
    }

    /// Whether packets take another way than over the relays used before. `only_heard`: the one beside is there because the peer
    /// seems to be heard over it.
    fn begins_anew(&mut self, former: &Used, only_heard: bool, now: Instant) -> bool {
        let used = &self.used;
        // One that was used beside the former one already has a congestion window of its own.
        let moved = former.best.is_some() && used.best.is_some_and(|best| !former.contains(best));
        let fell = former.best == used.best && former.falls < used.falls;
        let joined = used.spare.is_some_and(|spare| former.spare.is_none() && !former.further.contains(&spare));
        moved || fell || (joined && (!only_heard || is_due(&mut self.joined_at, now)))
    }

    /// Whether a relay came to the further ones that was not among those in use, and not in the last ten seconds either.
    fn seeks_anew(&mut self, former: &Used, now: Instant) -> bool {
        let mut any = false;
        for relay in self.used.further.iter().filter(|relay| !former.contains(**relay)) {
            any |= self.sought.note(*relay, now).is_none_or(|at| elapsed(at, now) >= CALM);
        }
        any
    }
}

/// Whether it is long ago, and then it is now.
fn is_due(last: &mut Option<Instant>, now: Instant) -> bool {
    let due = last.is_none_or(|at| elapsed(at, now) >= CALM);
    if due {
        *last = Some(now);
    }
    due
}

#[cfg(test)]
mod tests;
