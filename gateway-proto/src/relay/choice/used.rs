//! Which relays were chosen last.

use std::time::Instant;

use super::Seen;
use crate::id::RelayId;

/// What was chosen last.
#[derive(Debug, Default)]
pub(super) struct Used {
    pub(super) best: Option<RelayId>,
    pub(super) spare: Option<RelayId>,
    pub(super) further: Vec<RelayId>,
    pub(super) falls: u64,
    /// Since when each of them is used, if something went over it all the while.
    pub(super) since: Vec<(RelayId, Instant)>,
}

impl Used {
    pub(super) fn contains(&self, relay: RelayId) -> bool {
        [self.best, self.spare].contains(&Some(relay)) || self.further.contains(&relay)
    }

    pub(super) fn relays(&self) -> impl Iterator<Item = RelayId> {
        self.best.into_iter().chain(self.spare).chain(self.further.iter().copied())
    }

    pub(super) fn since(&self, relay: RelayId) -> Option<Instant> {
        self.since.iter().find(|(known, _)| *known == relay).map(|(_, since)| *since)
    }

    /// Whether one of them is none of those any more that we are attached to.
    pub(super) fn lost_one(&self, links: &[Seen]) -> bool {
        self.relays().any(|relay| links.iter().all(|link| link.relay != relay))
    }
}
