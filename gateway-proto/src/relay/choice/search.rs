//! When a peer is looked for over more relays than one.
//!
//! What stays unanswered for a while goes everywhere, until something is answered. The side that does not dial cannot know what
//! is missing: while it has no tunnel it sends over the relays that bring it a peer that dials, and everywhere when that does not
//! end. After an answer the relays that bring the peer's packets are used for a moment longer, until one of them is
//! proved or the usual one brings them.

use std::time::{Duration, Instant};

use crate::{
    id::RelayId,
    relay::lately::{Lately, elapsed},
};

/// Two things left unanswered this far apart, and nothing answered between: a dial is looked at four times a second from 250 ms on, a
/// tunnel asks once a second.
const SEEKS_AFTER: Duration = Duration::from_millis(500);
/// So long after the last thing left unanswered; longer than the pause between two dials, so that the next one begins everywhere.
const SEEKS_FOR: Duration = Duration::from_secs(20);
/// So long after an answer: what is heard elsewhere is proved within a second and a round trip or two.
const SETTLES_IN: Duration = Duration::from_secs(2);
/// A peer that dials is mentioned no more often for each relay.
const TOLD_EVERY: Duration = Duration::from_millis(250);

/// Over which relays beside the chosen ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    /// None.
    Nowhere,
    /// Those over which the peer was heard of late, if it is not heard over the best.
    AsHeard,
    /// All that may reach it.
    Everywhere,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Search {
    dials: bool,
    /// There is no tunnel, and the peer is to dial it.
    waits: bool,
    vain: Option<Vain>,
    settles_until: Option<Instant>,
    /// Relays over which a peer that dials was mentioned.
    told: Lately,
}

/// What was left unanswered, since something was answered.
#[derive(Debug, Clone, Copy)]
struct Vain {
    first: Instant,
    last: Instant,
}

impl Vain {
    fn is_enough(&self) -> bool {
        elapsed(self.first, self.last) >= SEEKS_AFTER
    }
}

impl Search {
    /// For the side that dials, or the other one.
    pub(super) fn new(dials: bool) -> Self {
        Self { dials, ..Self::default() }
    }

    pub(super) fn set_tunnel(&mut self, is_up: bool, now: Instant) {
        let waited = std::mem::replace(&mut self.waits, !is_up && !self.dials);
        if waited && !self.waits {
            self.settles_until = Some(now + SETTLES_IN);
        }
    }

    /// Something of the peer came over this relay. True when it dials us and that is worth looking at.
    pub(super) fn dialled_over(&mut self, relay: RelayId, now: Instant) -> bool {
        if !self.waits {
            return false;
        }
        // Whoever goes on to dial did not get our answer.
        self.miss(now);
        let tell = !self.told.is_within(TOLD_EVERY, relay, now);
        if tell {
            self.told.note(relay, now);
        }
        tell
    }

    /// Something stays unanswered. True when the peer is looked for everywhere.
    pub(super) fn in_vain(&mut self, answered_at: Option<Instant>, now: Instant) -> bool {
        self.end_when_answered(answered_at);
        self.miss(now);
        self.vain.is_some_and(|vain| vain.is_enough())
    }

    /// Where the peer is looked for; `answered_at` is when it answered last.
    pub(super) fn is_on(&mut self, answered_at: Option<Instant>, now: Instant) -> Where {
        self.end_when_answered(answered_at);
        if self.vain.is_some_and(|vain| vain.is_enough() && elapsed(vain.last, now) < SEEKS_FOR) {
            Where::Everywhere
        } else if self.waits || self.settles_until.is_some_and(|until| now < until) {
            Where::AsHeard
        } else {
            Where::Nowhere
        }
    }

    /// When [`Self::is_on`] says something else although nothing happens.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let given_up = self.vain.filter(Vain::is_enough).map(|vain| vain.last + SEEKS_FOR);
        [given_up, self.settles_until].into_iter().flatten().filter(|at| *at > now).min()
    }

    fn miss(&mut self, now: Instant) {
        let known = self.vain.filter(|vain| elapsed(vain.last, now) < SEEKS_FOR);
        self.vain = Some(Vain { first: known.map_or(now, |vain| vain.first), last: now });
    }

    fn end_when_answered(&mut self, answered_at: Option<Instant>) {
        let (Some(vain), Some(at)) = (self.vain, answered_at) else { return };
        if at < vain.last {
            return;
        }
        self.vain = None;
        if vain.is_enough() {
            self.settles_until = Some(at + SETTLES_IN);
        }
    }
}

#[cfg(test)]
mod tests;
