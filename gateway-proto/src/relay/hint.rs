//! Where a peer lives, in its own words: the home relay that gateways tell each other inside their tunnel.
//!
//! The policy names the home relay of every peer. While the control plane is away it names the one of before, and a direct path
//! that ends then may leave the two without a relay in common. So each side says its home in the tunnel ([`HomeWord`]), and the
//! other one believes it ([`PeerHome`]) until a policy says something newer: for a relay of its own policy's map only, and not
//! often, so that a peer that lies gains a link to a relay that the operator listed, and no more.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::id::RelayId;

/// Between two changes of what is said, and between two that count: what the control plane allows a gateway, too.
const PAUSE: Duration = Duration::from_secs(10);
/// Changes that count at once where there were none for long: those of a peer that restarts, and remembers not what it said, too.
const AT_ONCE: u32 = 2;

/// What we say of our home to one peer. It changes no more often than the peer lets it count, over however many tunnels.
#[derive(Debug, Default)]
pub struct HomeWord {
    said: Option<RelayId>,
    changed_at: Option<Instant>,
}

impl HomeWord {
    /// What goes into a frame that carries our home, if that is `home` now: it counts as said. None: there is nothing to say.
    pub fn say(&mut self, home: Option<RelayId>, now: Instant) -> Option<RelayId> {
        let home = home?;
        if self.due_at(Some(home), now).is_some_and(|at| at <= now) {
            (self.said, self.changed_at) = (Some(home), Some(now));
        }
        self.said
    }

    /// When the peer is to be told of `home` in a question out of turn; none: it knows, or there is nothing to say.
    pub fn due_at(&self, home: Option<RelayId>, now: Instant) -> Option<Instant> {
        let is_news = home.is_some() && home != self.said;
        is_news.then(|| self.changed_at.map_or(now, |at| at + PAUSE))
    }
}

/// What became of a word of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HintOutcome {
    /// It is nothing new: that relay counts already, or was ignored the last time as well.
    Known,
    /// Another home counts from now on.
    Taken,
    /// It does not count: it is no relay of our map, or the peer said another one too often. Repeated later it may.
    Ignored,
}

/// The home of one peer: as the policy says, or as the peer said since.
#[derive(Debug, Default)]
pub struct PeerHome {
    of_policy: Option<RelayId>,
    /// Heard since the policy said so, and counts instead.
    hint: Option<RelayId>,
    /// Relays that may count.
    map: Arc<BTreeSet<RelayId>>,
    /// Each change that counted takes a pause; when all of them are over.
    rested_at: Option<Instant>,
    /// What was ignored last, so that a word that is repeated counts as ignored once.
    ignored: Option<RelayId>,
}

impl PeerHome {
    /// The relay that counts as the peer's home, if one is known.
    pub fn home(&self) -> Option<RelayId> {
        self.hint.or(self.of_policy)
    }

    /// The same, if it is the peer's word and not the policy's.
    pub fn hint(&self) -> Option<RelayId> {
        self.hint.filter(|hint| Some(*hint) != self.of_policy)
    }

    /// A policy names this home, and these relays. One that names another home than the last is newer than what the peer said.
    /// True: another home counts now.
    pub fn set_policy(&mut self, home: Option<RelayId>, map: &Arc<BTreeSet<RelayId>>) -> bool {
        let before = self.home();
        let is_newer = std::mem::replace(&mut self.of_policy, home) != home;
        self.map = map.clone();
        self.hint = self.hint.filter(|hint| !is_newer && self.map.contains(hint));
        self.home() != before
    }

    /// The peer says that this is its home: twice at once, and then every ten seconds, another one counts.
    pub fn hear(&mut self, home: RelayId, now: Instant) -> HintOutcome {
        if self.home() == Some(home) {
            return HintOutcome::Known;
        }
        if self.map.contains(&home) && self.takes_a_pause(now) {
            (self.hint, self.ignored) = (Some(home), None);
            return HintOutcome::Taken;
        }
        match self.ignored.replace(home) == Some(home) {
            true => HintOutcome::Known,
            false => HintOutcome::Ignored,
        }
    }

    /// False: there were too many changes.
    fn takes_a_pause(&mut self, now: Instant) -> bool {
        let rested_at = self.rested_at.map_or(now, |at| at.max(now));
        let is_rested = rested_at <= now + PAUSE * (AT_ONCE - 1);
        if is_rested {
            self.rested_at = Some(rested_at + PAUSE);
        }
        is_rested
    }
}

#[cfg(test)]
mod tests;
