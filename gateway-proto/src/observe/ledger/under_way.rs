//! Conversations in the middle of a message or an answer: what both ends counted cannot be compared as long as one of them moves.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::Ledger;

/// What has not moved for so long stands still, and is no reason to wait for the rest of it.
const STANDS_STILL: Duration = Duration::from_secs(60);

/// When bytes last passed in each of them: one entry for an open stream at most.
#[derive(Debug, Default)]
pub(super) struct UnderWay(BTreeMap<u64, Instant>);

impl Ledger {
    /// Whether a message or an answer has begun to pass here, in either direction, and goes on to.
    pub fn is_under_way(&self, now: Instant) -> bool {
        self.under_way.0.values().any(|moved| now.saturating_duration_since(*moved) < STANDS_STILL)
    }

    /// When bytes last passed in a conversation that is inside a message or an answer; none: it is inside of neither.
    pub(crate) fn moves(&mut self, conversation: u64, moved_at: Option<Instant>) {
        match moved_at {
            Some(moved_at) => self.under_way.0.insert(conversation, moved_at),
            None => self.under_way.0.remove(&conversation),
        };
    }
}
