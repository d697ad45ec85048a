//! Over which relay a peer is heard, and what that says of the one we use for it.
//!
//! A relay that answers us may still be out of the peer's reach: its word is good for our half of the way only. What the
//! peer sends shows the other half. One that used to be heard over the relay we use for it, and is heard over another one
//! only, has left the first one, whatever that relay says of itself: where a peer is heard, it hears.
//!
//! But who sent a packet is the relay's word too, until QUIC has opened it. So hearing alone only *adds*: a peer's packets over
//! another relay than those of late are *news*, and for a moment both relays are used; they stay in use while packets keep
//! coming, and none over the one in use. Each such relay counts for itself, so that none hides another one by what it makes up. To
//! go over one *instead* takes an answer of the peer, end to end, that came when nothing had come over any other relay
//! for a while. And it ends at once when something goes unanswered: then both are used again. The first packet over the usual
//! relay ends it too, a moment later. Copies over both relays call for no copies in return.
//!
//! Whoever is heard and does not answer does not get what we send. Every relay that was used then, the usual one included, is
//! *refused* for a minute: it is not used alone.
//!
//! The two ends of a pair may have different homes: then each is heard over another relay than it is sent to over. Of
//! the two, the one that [follows](Heard::new) goes to where the other one is heard, so that a pair uses one relay; the other
//! one moves only when it had heard the peer over its own choice before, or when that choice is [doubted](Heard::doubt).

use std::time::{Duration, Instant};

use super::lately::{Lately, elapsed};
use crate::id::RelayId;

/// A relay over which a peer was heard within this time is no other one than before.
const RECENT: Duration = Duration::from_secs(10);
/// After news both relays are used for so long, and as long after the usual one has brought a packet again: one packet proves
/// nothing, and would cut off a peer that is heard elsewhere.
const NEWS: Duration = Duration::from_secs(1);
/// Copies of one packet that come over two relays are not further apart than this.
const COPIES: Duration = Duration::from_millis(300);
/// Packets that came over one relay only for so long, with none over the other, show where the peer is: for the side that
/// follows, and for the other one, so that the two never cross each other again and again.
const FOLLOWS_AFTER: Duration = Duration::from_millis(500);
const MOVES_AFTER: Duration = Duration::from_secs(1);
/// A relay that swallows what we send is not used alone for so long.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// Used instead and left in vain twice within this time, it swallows: longer than a minute, so that one tried again after it gets no
/// second chance.
const AGAIN: Duration = Duration::from_secs(120);
/// Heard within this time before an answer is missed, which takes a second, a peer does not stand still and is not gone.
const STILL_HEARD: Duration = Duration::from_millis(500);

/// Which relays to use for a peer, as far as its packets say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hearing {
    /// Instead of the one that is chosen otherwise.
    pub(super) instead: Option<RelayId>,
    /// Beside the one that is used.
    pub(super) beside: Vec<RelayId>,
    /// One of those beside would be used instead if an answer of the peer came over it, and nothing over any other.
    pub(super) awaits_proof: bool,
}

/// When one peer was heard over which relay. See the module's description.
#[derive(Debug, Default)]
pub(super) struct Heard {
    follows: bool,
    relays: Lately,
    /// Other relays than the one in use, and when they were news.
    news: Lately,
    /// The relay that is used for the peer when nothing speaks against it.
    usual: Option<RelayId>,
    /// The one that is used instead, since it was proved.
    instead: Option<Elsewhere>,
    /// Where the peer is heard since it was heard over the relay in use last, or since that one was chosen. Of those in `relays`,
    /// each at most once.
    elsewhere: Vec<Elsewhere>,
    /// Relays used instead over which something went unanswered.
    vain: Lately,
    /// Relays that were used while a peer that was heard did not answer.
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
            let left = self.instead.take();
            if let Some(left) = left {
                self.news.note(left.relay, now);
            }
            return self.end_elsewhere(now) || left.is_some() || is_news;
        }
        if let Some(instead) = self.instead.as_mut().filter(|instead| instead.relay == relay) {
            instead.last = now;
            return self.end_elsewhere(now) || is_news;
        }
        if is_news {
            self.news.note(relay, now);
        }
        let patience = self.patience();
        let elsewhere = self.elsewhere_over(relay, now);
        elsewhere.last = now;
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
            (self.usual, self.instead, self.elsewhere) = (usual, None, Vec::new());
        }
        let proved = self.lasting(now).find(|known| self.may_replace(known, answered_at, now)).copied();
        if proved.is_some() {
            self.instead = proved;
            self.elsewhere.clear();
        }
        let awaits = |known: &Elsewhere| !self.is_refused(known.relay, now) && !self.is_proved(known, answered_at);
        let awaits_proof = self.lasting(now).any(awaits);
        let lasting: Vec<_> = self.lasting(now).map(|known| known.relay).collect();
        let news = self.news.iter().filter(|(_, at)| elapsed(*at, now) < NEWS).map(|(relay, _)| relay);
        let news = news.filter(|relay| self.in_use() != Some(*relay) && !lasting.contains(relay));
        Hearing {
            instead: self.instead.map(|instead| instead.relay),
            beside: lasting.iter().copied().chain(news).collect(),
            awaits_proof,
        }
    }

    /// Something went unanswered that went over these relays, all of which were used for longer than that takes. One that was used
    /// instead is left: both are used again.
    ///
    /// A peer that stands still answers nothing either, but is not heard meanwhile: then only one used instead is refused, and only
    /// the second time. Without a tunnel (`has_tunnel`) things are missed much sooner, and none is.
    pub(super) fn in_vain(&mut self, used: &[RelayId], has_tunnel: bool, now: Instant) {
        let is_there = has_tunnel && self.relays.iter().any(|(_, at)| elapsed(at, now) < STILL_HEARD);
        if is_there {
            for relay in used {
                self.refused.note(*relay, now);
            }
        }
        let Some(mut left) = self.instead.filter(|instead| used.contains(&instead.relay)) else {
            let doubted = self.usual.filter(|usual| is_there && used.contains(usual));
            self.doubted = doubted.or(self.doubted);
            return;
        };
        let again = has_tunnel && self.vain.note(left.relay, now).is_some_and(|at| elapsed(at, now) < AGAIN);
        if is_there || again {
            self.refused.note(left.relay, now);
            // It was left for a reason, and nobody knows whether it has passed.
            if let Some(usual) = self.usual {
                self.refused.note(usual, now);
            }
        }
        left.proof_from = now;
        self.instead = None;
        self.elsewhere.push(left);
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

    /// Over which relays it was heard, and when last over each: 16 at most.
    pub(super) fn relays(&self) -> impl Iterator<Item = (RelayId, Instant)> + '_ {
        self.relays.iter()
    }

    /// When it was heard over this relay last.
    pub(super) fn at(&self, relay: RelayId) -> Option<Instant> {
        self.relays.at(relay)
    }

    /// Whether this relay is not to be used alone.
    pub(super) fn is_refused(&self, relay: RelayId, now: Instant) -> bool {
        self.refused.is_within(REFUSED_FOR, relay, now)
    }

    /// Whether it is being heard over it.
    pub(super) fn is_heard_now(&self, relay: RelayId, now: Instant) -> bool {
        self.relays.is_within(NEWS, relay, now)
    }

    /// When [`Self::hearing`] says something else without another packet.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let news = self.news.iter().map(|(_, at)| at + NEWS);
        let beside = self.elsewhere.iter().map(|known| known.first + COPIES);
        let forgiven = self.refused.iter().map(|(_, at)| at + REFUSED_FOR);
        news.chain(beside).chain(forgiven).filter(|at| *at > now).min()
    }

    /// The peer is heard where it is sent to. True when it was said to be heard elsewhere; that is used for a moment longer.
    fn end_elsewhere(&mut self, now: Instant) -> bool {
        let mut was_told = false;
        for known in self.elsewhere.drain(..).filter(|known| known.told > Strength::Nothing) {
            self.news.note(known.relay, now);
            was_told = true;
        }
        was_told
    }

    /// What is known of a relay that is not in use and has just brought a packet. Those that have not for long are forgotten.
    fn elsewhere_over(&mut self, relay: RelayId, now: Instant) -> &mut Elsewhere {
        self.elsewhere.retain(|known| self.relays.is_within(RECENT, known.relay, now));
        let known = self.elsewhere.iter().position(|known| known.relay == relay);
        let index = known.unwrap_or(self.elsewhere.len());
        if known.is_none() {
            self.elsewhere.push(Elsewhere::begun(relay, now));
        }
        &mut self.elsewhere[index]
    }

    /// Where the peer is heard for longer than a copy takes, if it may be followed there.
    fn lasting(&self, now: Instant) -> impl Iterator<Item = &Elsewhere> {
        let (in_use, patience) = (self.in_use(), self.patience());
        let was_heard = in_use.is_some_and(|relay| self.relays.at(relay).is_some());
        let moves = self.follows || was_heard || (in_use.is_some() && in_use == self.doubted);
        self.elsewhere.iter().filter(move |known| moves && known.strength(patience, now) >= Strength::Beside)
    }

    /// Whether it is used instead of the one in use.
    fn may_replace(&self, known: &Elsewhere, answered_at: Option<Instant>, now: Instant) -> bool {
        let is_strong = known.strength(self.patience(), now) == Strength::Instead;
        is_strong && self.is_proved(known, answered_at) && !self.is_refused(known.relay, now)
    }

    /// Whether the peer's answer came over this relay: copies are not further apart than what came over all others is before it.
    fn is_proved(&self, known: &Elsewhere, answered_at: Option<Instant>) -> bool {
        let alone = |at: Instant| self.relays.iter().all(|(other, last)| other == known.relay || last + COPIES <= at);
        answered_at.is_some_and(|at| at >= known.proof_from && alone(at))
    }

    fn in_use(&self) -> Option<RelayId> {
        self.instead.map(|instead| instead.relay).or(self.usual)
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
