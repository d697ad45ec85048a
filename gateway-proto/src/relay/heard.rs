//! Over which relay a peer is heard, and what that says of the one we use for it.
//!
//! A relay that answers us may still be out of the peer's reach: its word is good for our half of the way only. What the
//! peer sends shows the other half. One that used to be heard over the relay we use for it, and is heard over another one
//! only, has left the first one, whatever that relay says of itself: where a peer is heard, it hears.
//!
//! But who sent a packet is the relay's word too, until QUIC has opened it. So hearing alone only *adds*: a peer's packets over
//! another relay than those of late are *news*, and for a moment both relays are used; they stay in use while packets keep
//! coming over the other one only. To go over the other one *instead* takes an answer of the peer, end to end, that came when
//! nothing had come over the relay in use for a while. And it ends at once when something goes unanswered: then both are used again,
//! and a relay that goes on to bring packets and takes none there is not used instead for a minute. The first packet over the
//! usual relay undoes it all. Copies over both relays call for no copies in return.
//!
//! The two ends of a pair may have different homes: then each is heard over another relay than it is sent to over. Of
//! the two, the one that [follows](Heard::new) goes to where the other one is heard, so that a pair uses one relay; the other
//! one moves only when it had heard the peer over its own choice before, or when that choice is [doubted](Heard::doubt).

use std::time::{Duration, Instant};

use super::lately::{Lately, elapsed};
use crate::id::RelayId;

/// A relay over which a peer was heard within this time is no other one than before.
const RECENT: Duration = Duration::from_secs(10);
/// After news both relays are used for so long.
const NEWS: Duration = Duration::from_secs(1);
/// Copies of one packet that come over two relays are not further apart than this.
const COPIES: Duration = Duration::from_millis(300);
/// Packets that came over one relay only for so long, with none over the other, show where the peer is: for the side that
/// follows, and for the other one, so that the two never cross each other again and again.
const FOLLOWS_AFTER: Duration = Duration::from_millis(500);
const MOVES_AFTER: Duration = Duration::from_secs(1);
/// A relay that swallows what we send is not used instead of another for so long.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// Heard within this time before an answer is missed, which takes a second, a peer does not stand still and is not gone.
const STILL_HEARD: Duration = Duration::from_millis(500);

/// Which relays to use for a peer, as far as its packets say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Hearing {
    /// Instead of the one that is chosen otherwise.
    pub(super) instead: Option<RelayId>,
    /// Beside the one that is used.
    pub(super) beside: Option<RelayId>,
    /// The one beside would be used instead if an answer of the peer came over it.
    pub(super) awaits_proof: bool,
}

/// When one peer was heard over which relay. See the module's description.
#[derive(Debug, Default)]
pub(super) struct Heard {
    follows: bool,
    relays: Lately,
    /// The newest other relay, and when it was news.
    news: Option<(RelayId, Instant)>,
    /// The relay that is used for the peer when nothing speaks against it.
    usual: Option<RelayId>,
    /// The one that is used instead, since it was proved.
    instead: Option<Elsewhere>,
    /// Where the peer is heard since it was heard over the relay in use last, or since that one was chosen.
    elsewhere: Option<Elsewhere>,
    /// Relays used instead over which something went unanswered, and those of them that were heard all the while.
    vain: Lately,
    refused: Lately,
    /// The relay in use of which nobody says, or of which it is in question, that it reaches the peer.
    doubted: Option<RelayId>,
}

#[derive(Debug, Clone, Copy)]
struct Elsewhere {
    relay: RelayId,
    first: Instant,
    last: Instant,
    /// What it amounted to when it was told last.
    told: Strength,
    /// An answer of the peer from then on came over this relay.
    proof_from: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    /// Perhaps a copy of what comes over the relay in use in a moment.
    Nothing,
    Beside,
    /// If it is proved.
    Instead,
}

impl Heard {
    /// Nothing was heard yet. Of the two sides of a pair, exactly one follows: that with the smaller key.
    pub(super) fn new(follows: bool) -> Self {
        Self { follows, ..Self::default() }
    }

    /// A packet that seems to be the peer's came over this relay. True when [`Self::hearing`] may say something else than before;
    /// a peer that sends over two relays makes that no more than once in ten seconds for each of them.
    pub(super) fn note(&mut self, relay: RelayId, now: Instant) -> bool {
        let is_news = self.remember(relay, now);
        if self.usual == Some(relay) {
            let had_moved = self.instead.take().is_some();
            return self.end_elsewhere() || had_moved || is_news;
        }
        if let Some(instead) = self.instead.as_mut().filter(|instead| instead.relay == relay) {
            instead.last = now;
            return self.end_elsewhere() || is_news;
        }
        if is_news {
            self.news = Some((relay, now));
        }
        let patience = self.patience();
        // A second other relay takes the place of the first one when that falls silent, or when it is news itself.
        let stays = |known: &Elsewhere| known.relay == relay || (!is_news && elapsed(known.last, now) < NEWS);
        self.elsewhere = self.elsewhere.filter(stays);
        let elsewhere = self.elsewhere.get_or_insert(Elsewhere::begun(relay, now));
        if elsewhere.relay == relay {
            elsewhere.last = now;
        }
        let strength = elsewhere.strength(patience, now);
        let told = elsewhere.told;
        elsewhere.told = strength.max(told);
        is_news || strength > told
    }

    /// Which relays to use, when `usual` is chosen otherwise: by the peer's home, and by what the relays say of themselves.
    /// `answered_at` is when the peer answered last, end to end, and nothing of it comes by any other way than over relays.
    ///
    /// Another usual relay than the last time is tried: what was heard before speaks for or against the former one.
    pub(super) fn hearing(&mut self, usual: Option<RelayId>, answered_at: Option<Instant>, now: Instant) -> Hearing {
        if self.usual != usual {
            (self.usual, self.instead, self.elsewhere) = (usual, None, None);
        }
        let lasting = self.lasting(now);
        let is_proved = lasting.is_some_and(|elsewhere| answered_at.is_some_and(|at| at >= elsewhere.proof_from));
        let may_move = lasting.is_some_and(|elsewhere| !self.is_refused(elsewhere.relay, now));
        if is_proved && may_move && lasting.is_some_and(|e| e.strength(self.patience(), now) == Strength::Instead) {
            self.instead = self.elsewhere.take();
        }
        let instead = self.instead.map(|instead| instead.relay);
        let lasting = self.lasting(now).map(|elsewhere| elsewhere.relay);
        Hearing {
            instead,
            beside: lasting.or(self.news(now)),
            awaits_proof: lasting.is_some() && may_move && !is_proved,
        }
    }

    /// Something went unanswered that went over the relay used instead: both are used again.
    ///
    /// A peer that stands still answers nothing either, but is not heard meanwhile. The second time within a minute it is the
    /// relay's fault in any case.
    pub(super) fn in_vain(&mut self, now: Instant) {
        let Some(mut instead) = self.instead.take() else { return };
        let again = self.vain.note(instead.relay, now).is_some_and(|at| elapsed(at, now) < REFUSED_FOR);
        if again || elapsed(instead.last, now) < STILL_HEARD {
            self.refused.note(instead.relay, now);
        }
        instead.proof_from = now;
        self.elsewhere.get_or_insert(instead);
    }

    /// Nothing speaks for it that this relay reaches the peer: if it is the one in use, the peer is followed from it although it was never
    /// heard over it.
    pub(super) fn doubt(&mut self, relay: Option<RelayId>) {
        self.doubted = relay;
    }

    /// Whether the peer was heard over this relay of late.
    pub(super) fn is_recent(&self, relay: RelayId, now: Instant) -> bool {
        self.relays.is_within(RECENT, relay, now)
    }

    /// Whether it is being heard over it.
    pub(super) fn is_heard_now(&self, relay: RelayId, now: Instant) -> bool {
        self.relays.is_within(NEWS, relay, now)
    }

    /// When [`Self::hearing`] says something else without another packet.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let news = self.news.map(|(_, at)| at + NEWS);
        let beside = self.elsewhere.map(|elsewhere| elsewhere.first + COPIES);
        let forgiven = self.elsewhere.and_then(|elsewhere| self.refused.at(elsewhere.relay)).map(|at| at + REFUSED_FOR);
        [news, beside, forgiven].into_iter().flatten().filter(|at| *at > now).min()
    }

    /// The peer is heard where it is sent to. True when it was said to be heard elsewhere.
    fn end_elsewhere(&mut self) -> bool {
        self.elsewhere.take().is_some_and(|elsewhere| elsewhere.told > Strength::Nothing)
    }

    /// Where the peer is heard for longer than a copy takes, if it may be followed there.
    fn lasting(&self, now: Instant) -> Option<Elsewhere> {
        let in_use = self.in_use();
        let was_heard = in_use.is_some_and(|relay| self.relays.at(relay).is_some());
        let moves = self.follows || was_heard || (in_use.is_some() && in_use == self.doubted);
        self.elsewhere.filter(|elsewhere| moves && elsewhere.strength(self.patience(), now) >= Strength::Beside)
    }

    fn news(&self, now: Instant) -> Option<RelayId> {
        let news = self.news.filter(|(relay, at)| elapsed(*at, now) < NEWS && Some(*relay) != self.in_use());
        news.map(|(relay, _)| relay)
    }

    fn in_use(&self) -> Option<RelayId> {
        self.instead.map(|instead| instead.relay).or(self.usual)
    }

    fn is_refused(&self, relay: RelayId, now: Instant) -> bool {
        self.refused.is_within(REFUSED_FOR, relay, now)
    }

    fn patience(&self) -> Duration {
        if self.follows { FOLLOWS_AFTER } else { MOVES_AFTER }
    }

    /// True when this relay is another one than those of late.
    fn remember(&mut self, relay: RelayId, now: Instant) -> bool {
        let recent = |at: Instant| elapsed(at, now) < RECENT;
        let was_recent = self.relays.note(relay, now).is_some_and(recent);
        !was_recent && self.relays.iter().any(|(other, at)| other != relay && recent(at))
    }
}

impl Elsewhere {
    fn begun(relay: RelayId, now: Instant) -> Self {
        // What was answered sooner may have come over the relay in use just before.
        Self { relay, first: now, last: now, told: Strength::Nothing, proof_from: now + COPIES }
    }

    fn strength(&self, patience: Duration, now: Instant) -> Strength {
        // One packet may be a copy whose other half was lost: to move takes some that came one after the other.
        if elapsed(self.first, self.last) >= patience {
            Strength::Instead
        } else if elapsed(self.first, now) >= COPIES {
            Strength::Beside
        } else {
            Strength::Nothing
        }
    }
}

#[cfg(test)]
mod tests;
