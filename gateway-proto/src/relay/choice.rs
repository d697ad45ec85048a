//! Over which relay packets for a peer go, and over which one beside it.
//!
//! Of the relays we are attached to, the peer's home is the first choice, then the first of the list. One that does not see
//! the peer, that is in doubt, or that is about to stop is used only where there is no other. One that is suspected stays, and a
//! sound one goes beside it. Where the peer's own packets come over another relay ([`heard`](super::heard)), that one goes
//! beside too, or takes its place.
//!
//! What a relay says counts for itself only: that it lives, that it stops, that it does not see the peer. What it says by bringing
//! packets adds a relay, and takes none away before the peer has answered. One that did not see the peer is not tried alone
//! as long as the peer answers over another one. One that brings packets of the peer after it did not see it, sees it again.
//!
//! Neither needs to be true for a pair to lose each other: a relay may live for us, hold a link of the peer that is dead, and be
//! no relay that the peer uses any more. So what stays unanswered goes over *every* relay we are attached to ([`search`]), and
//! the peer answers where it hears it: two that have any relay in common find each other. And a relay that was used while a peer that
//! is heard did not answer is not used alone for a minute: whatever relays do, two seconds in a minute are lost, or a little
//! more when both directions fail in turn.
//!
//! One that loses much of what it is given, as the tunnel counts it or as it says itself, rests for a while ([`losses`]). One that went
//! away, and whose peer does not answer over what is left, is wanted back ([`wanted_back`]).

mod losses;
mod rank;
mod search;
mod used;
mod wanted_back;

use std::time::{Duration, Instant};

pub use losses::LossVerdict;
use losses::Losses;
use search::{Search, Where};
use used::Used;
use wanted_back::WantedBack;

use super::{
    Standing,
    heard::Heard,
    lately::{Lately, elapsed},
};
use crate::{id::RelayId, path::Carried};

/// How long a relay that did not see the peer is avoided, while there is another; and after so long without an answer it is tried
/// again although it was not heard since.
const ABSENT_MEMORY: Duration = Duration::from_secs(10);
/// However often a relay does not see the peer and brings its packets in turn: no more often is it believed that the peer came back
/// to it.
const COMES_BACK_EVERY: Duration = Duration::from_secs(5);
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
    /// Of a hundred frames that we send it, it says that it drops so many, because a limit is reached.
    pub drops: Option<u8>,
}

/// How much of what goes to the peer goes over relays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Share {
    /// Nothing: there is another path.
    Nothing,
    /// Copies: the other path is in doubt.
    Copies,
    /// Everything.
    #[default]
    Everything,
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
    /// Relays that went away, or are about to, over which the peer was reached to the last and without which it does not answer: they
    /// are not to be stayed away from. No more than 16.
    pub wanted_back: Vec<RelayId>,
}

/// Chooses for one peer. See the module's description.
#[derive(Debug, Default)]
pub struct RelayChoice {
    home: Option<RelayId>,
    /// Relays that did not see the peer.
    absent: Lately,
    /// Those of them that brought its packets afterwards.
    came_back: Lately,
    heard: Heard,
    search: Search,
    losses: Losses,
    wanted_back: WantedBack,
    used: Used,
    /// Because of what is heard, not what is chosen otherwise.
    uses_instead: bool,
    /// There is no tunnel.
    is_down: bool,
    share: Share,
    /// Since when it is that; from the beginning if it never changed.
    share_since: Option<Instant>,
    /// When congestion control began anew, and the peer was asked, because it was heard elsewhere.
    joined_at: Option<Instant>,
    asked_at: Option<Instant>,
    /// Relays that came to the further ones.
    sought: Lately,
}

impl RelayChoice {
    /// Of the two sides of a pair, exactly one follows: where both can go to where they hear each other, it does. That with the
    /// smaller key, which dials too.
    pub fn new(follows: bool) -> Self {
        Self { heard: Heard::new(follows), search: Search::new(follows), ..Self::default() }
    }

    /// The peer's home relay, as the policy says, or as the peer said since (`PeerHome`).
    pub fn set_home(&mut self, home: Option<RelayId>) {
        self.home = home;
    }

    /// Whether there is a tunnel; [`Self::choose`] is wanted next. The side that does not dial answers where it is dialled.
    pub fn set_tunnel(&mut self, is_up: bool, now: Instant) {
        self.is_down = !is_up;
        self.search.set_tunnel(is_up, now);
    }

    /// How much of what goes to the peer goes over the chosen relays from now on; [`Self::choose`] is wanted next.
    pub fn set_share(&mut self, share: Share, now: Instant) {
        if self.share == share {
            return;
        }
        if self.share == Share::Nothing {
            self.used.since.clear();
        }
        (self.share, self.share_since) = (share, Some(now));
    }

    /// This relay does not see the peer.
    pub fn absent(&mut self, relay: RelayId, now: Instant) {
        self.absent.note(relay, now);
    }

    /// A packet came over this relay that seems to be the peer's. True when it is worth choosing anew; for copies over two relays
    /// that is no more than once in ten seconds for each of them; while the peer dials, four times a second; for a relay that did not
    /// see the peer once in five seconds.
    pub fn heard(&mut self, relay: RelayId, now: Instant) -> bool {
        let is_dialled_elsewhere = self.search.dialled_over(relay, now) && !self.used.contains(relay);
        let comes_back = self.is_gone(relay) && !self.came_back.is_within(COMES_BACK_EVERY, relay, now);
        if comes_back {
            self.came_back.note(relay, now);
        }
        self.heard.note(relay, now) || is_dialled_elsewhere || comes_back
    }

    /// What was sent to the peer stays unanswered: with a tunnel for a second at least. `answered_at` as in [`Self::choose`], which
    /// is wanted next. Where nothing goes over relays, it says nothing of them.
    pub fn in_vain(&mut self, answered_at: Option<Instant>, now: Instant) {
        if self.share == Share::Nothing {
            return;
        }
        let is_recent = |at: Instant| elapsed(at, now) < UNANSWERED;
        if !answered_at.is_some_and(is_recent) {
            let used = self.used.since.iter().filter(|(_, since)| !is_recent(*since));
            let used: Vec<_> = used.map(|(relay, _)| *relay).collect();
            self.heard.in_vain(&used, !self.is_down, now);
            self.wanted_back.in_vain(used);
        }
        if self.search.in_vain(answered_at, now) && !self.uses_instead {
            self.heard.doubt(self.used.best);
        }
    }

    /// What the tunnel to the peer sent, and declared lost, since the last look, a quarter of a second ago or so; `kept_back` of its packets
    /// found no room in our own link meanwhile. Where a relay has the blame, [`Self::choose`] is wanted next.
    pub fn carried(&mut self, carried: Carried, kept_back: u64, now: Instant) -> LossVerdict {
        self.losses.carried(carried, kept_back, now)
    }

    /// Chooses among the relays we are attached to, the most wanted first. `answered_at` is when the peer answered last, end to end,
    /// whichever way.
    pub fn choose(&mut self, links: &[Seen], answered_at: Option<Instant>, now: Instant) -> Choice {
        let relayed_at = self.relayed(answered_at);
        self.look_at(links, now);
        let least = self.least_lossy(links, relayed_at, now);
        let mut ranked: Vec<&Seen> = links.iter().collect();
        ranked.sort_by_key(|link| self.rank(link, links, least, relayed_at, now));
        let usual = ranked.first().map(|link| link.relay);
        let hearing = self.heard.hearing(usual, relayed_at, now);
        // The peer is not followed to one that loses what we send: from where it hears us now, it comes.
        let bears = |link: &Seen| least == Some(link.relay) || self.losses.avoided(link, now).is_none();
        let usable =
            |link: &&Seen| hearing.instead == Some(link.relay) && self.may_be_followed(link, now) && bears(link);
        let followed = ranked.iter().position(usable);
        if let Some(at) = followed {
            ranked[..=at].rotate_right(1);
        }
        self.uses_instead = followed.is_some();

        let best = ranked.first().copied();
        let suspected = best.is_some_and(|link| link.standing == Standing::Suspected);
        let others = ranked.get(1..).unwrap_or_default();
        // One that may not be followed, because it is about to stop or in doubt, may still be the only one that reaches the peer.
        let left = |link: &Seen| hearing.instead == Some(link.relay) && !self.is_missed(link.relay, now);
        let is_heard = |link: &&&Seen| bears(link) && (hearing.beside.contains(&link.relay) || left(link));
        let heard: Vec<RelayId> = others.iter().filter(is_heard).map(|link| link.relay).collect();
        let joins = best.is_some_and(|link| self.losses.is_joining(link.relay, now));
        let may_join = |link: &Seen| joins && self.may_be_followed(link, now) && bears(link);
        let is_sound = |link: &&&Seen| may_join(link) || (suspected && link.standing == Standing::Sound);
        let sound = others.iter().find(is_sound).map(|link| link.relay);
        let spare = heard.first().copied().or(sound);
        let seeking = self.seeking(best, answered_at, now);
        let best_is_heard = best.is_some_and(|link| self.heard.is_heard_now(link.relay, now));
        let is_sought = |link: &Seen| match seeking {
            Where::Nowhere => false,
            Where::AsHeard => !best_is_heard && self.heard.is_recent(link.relay, now),
            Where::Everywhere => self.may_be_followed(link, now) || self.heard.is_heard_now(link.relay, now),
        };
        let sought: Vec<RelayId> = others.iter().filter(|link| is_sought(link)).map(|link| link.relay).collect();
        let further = others.iter().map(|link| link.relay).filter(|relay| Some(*relay) != spare);
        let used = Used {
            best: best.map(|link| link.relay),
            spare,
            further: further.filter(|relay| heard.contains(relay) || sought.contains(relay)).collect(),
            falls: best.map_or(0, |link| link.falls),
            since: Vec::new(),
        };
        if seeking == Where::AsHeard && sought.iter().any(|relay| !heard.contains(relay)) {
            self.heard.doubt(used.best);
        }
        let wanted_back = self.find_wanted_back(links, answered_at, now);
        let (is_heard_elsewhere, only_heard) = (!heard.is_empty(), !heard.is_empty() && !suspected);
        let former = std::mem::replace(&mut self.used, used);
        let is_alone = self.share == Share::Everything && !self.is_down && self.used.relays().count() == 1;
        self.losses.uses(best.filter(|_| is_alone), now);
        let since = |relay: RelayId| (relay, former.since(relay).unwrap_or(now));
        self.used.since = self.used.relays().map(since).collect();
        let seeks_anew = self.seeks_anew(&former, now);
        Choice {
            best: self.used.best,
            spare: self.used.spare,
            further: self.used.further.clone(),
            begins_anew: self.begins_anew(&former, only_heard, now) || seeks_anew,
            seeks_anew,
            is_heard_elsewhere,
            awaits_proof: hearing.awaits_proof || seeking != Where::Nowhere || !wanted_back.is_empty(),
            // What is left reaches the peer or not: that is known a second after the question.
            asks_peer: former.lost_one(links) || (hearing.awaits_proof && is_due(&mut self.asked_at, now)),
            wanted_back,
        }
    }

    /// When [`Self::choose`] says something else although nothing happened.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let seen_again = self.absent.iter().map(|(_, at)| at + ABSENT_MEMORY).filter(|at| *at > now).min();
        let (heard, searched) = (self.heard.poll_timeout(now), self.search.poll_timeout(now));
        [seen_again, heard, searched, self.losses.poll_timeout(now)].into_iter().flatten().min()
    }

    /// The same answer, if it says something of relays.
    fn relayed(&self, answered_at: Option<Instant>) -> Option<Instant> {
        let since = self.share_since;
        answered_at.filter(|at| self.share == Share::Everything && since.is_none_or(|since| *at >= since))
    }

    /// Over which relays beside the chosen ones: all, while the best one is not to be used alone.
    fn seeking(&mut self, best: Option<&Seen>, answered_at: Option<Instant>, now: Instant) -> Where {
        let seeking = self.search.is_on(answered_at, now);
        if best.is_some_and(|link| self.heard.is_refused(link.relay, now)) { Where::Everywhere } else { seeking }
    }

    /// Whether packets take another way than over the relays used before. `only_heard`: the one beside is there because the peer
    /// seems to be heard over it.
    fn begins_anew(&mut self, former: &Used, only_heard: bool, now: Instant) -> bool {
        let used = &self.used;
        // One that was used beside the former one already has a congestion window of its own.
        let changed = former.best.is_some() && used.best.is_some_and(|best| !former.contains(best));
        // Where the former one stays beside it, nothing was lost: one packet over the usual relay does that.
        let stays = former.best.is_some_and(|best| used.contains(best));
        let moved = changed && (!stays || is_due(&mut self.joined_at, now));
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
mod lossy;
#[cfg(test)]
mod promise;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod turns;
