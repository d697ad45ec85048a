//! Which relay that went away is wanted back: the peer was reached over it to the last, and does not answer over what is left.
//!
//! A relay that restarts asks for a pause, so that not all come back at once, and others carry meanwhile. But another one that stands may
//! not reach the peer, and it may take a while until it knows.
//!
//! A peer that is gone itself wants no relay back, or all of its partners would come at once. So three things have to be
//! true of the relay: the peer was heard over it within the last seconds, nothing was answered since, and it was away already when
//! the peer went silent. What is heard is the relay's word; one that makes it up is dialled sooner, and nothing else.

use std::time::{Duration, Instant};

use super::{RelayChoice, Seen, Share};
use crate::{
    id::RelayId,
    relay::{
        heard::Heard,
        lately::{Lately, elapsed},
    },
};

/// The peer was heard over it within this time: longer than an idle tunnel is silent.
const LATELY: Duration = Duration::from_secs(10);
/// An answer that comes so soon after the last packet over it may have come over it.
const SAME_TIME: Duration = Duration::from_millis(300);

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct WantedBack {
    /// Over these something went unanswered for a second; not looked at yet.
    vain: Vec<RelayId>,
    /// Relays that stood while something went unanswered over them: what the peer lost then, it did not lose with them.
    silent: Lately,
    /// At most as many as are remembered of those heard.
    relays: Vec<RelayId>,
    /// When something went unanswered last while one of them was away.
    since: Option<Instant>,
}

impl WantedBack {
    /// Something went unanswered for a second over these, all of which were used for longer than that takes.
    pub(super) fn in_vain(&mut self, used: Vec<RelayId>) {
        self.vain = used;
    }

    /// Which ones are wanted back, of those that are not among `links` or are about to stop.
    fn look(&mut self, links: &[Seen], heard: &Heard, answered_at: Option<Instant>, now: Instant) -> Vec<RelayId> {
        let stands = |relay: RelayId| links.iter().any(|link| link.relay == relay && !link.restarting);
        if self.since.zip(answered_at).is_some_and(|(since, at)| at >= since) {
            self.relays.clear();
        }
        self.relays.retain(|relay| !stands(*relay) && heard.at(*relay).is_some());
        let vain = std::mem::take(&mut self.vain);
        if !vain.is_empty() {
            for relay in vain.into_iter().filter(|relay| stands(*relay)) {
                self.silent.note(relay, now);
            }
            let away = heard.relays().filter(|(relay, _)| !stands(*relay) && !self.relays.contains(relay));
            let reached = away.filter(|(relay, at)| self.was_reached(*relay, *at, answered_at, now));
            let reached: Vec<RelayId> = reached.map(|(relay, _)| relay).collect();
            self.relays.extend(reached);
            self.since = Some(now);
        }
        self.relays.clone()
    }

    /// Whether the peer was reached over a relay to the last, where it was heard at `heard_at`.
    fn was_reached(&self, relay: RelayId, heard_at: Instant, answered_at: Option<Instant>, now: Instant) -> bool {
        let is_last = answered_at.is_some_and(|at| at <= heard_at + SAME_TIME);
        let was_silent = self.silent.at(relay).is_some_and(|at| at >= heard_at);
        is_last && !was_silent && elapsed(heard_at, now) < LATELY
    }
}

impl RelayChoice {
    /// Which relays are wanted back now: none without a tunnel, or while there is another path.
    pub(super) fn find_wanted_back(
        &mut self,
        links: &[Seen],
        answered_at: Option<Instant>,
        now: Instant,
    ) -> Vec<RelayId> {
        let wanted = self.wanted_back.look(links, &self.heard, answered_at, now);
        if self.is_down || self.share != Share::Everything {
            self.wanted_back.relays.clear();
            return Vec::new();
        }
        wanted
    }
}

#[cfg(test)]
mod tests;
