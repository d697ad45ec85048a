//! Conversations in the middle of a message or an answer: what both ends counted cannot be compared as long as one of them moves.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::Ledger;
use crate::limits::{MAX_UNDER_WAY, MIN_BYTES_PER_SECOND};

/// What has not moved for so long stands still, and is no reason to wait for the rest of it.
const STANDS_STILL: Duration = Duration::from_secs(60);

/// Until when each of them is waited for: one entry for an open stream at most.
#[derive(Debug, Default)]
pub(super) struct UnderWay(BTreeMap<u64, Instant>);

/// A message or an answer that has begun to pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moving {
    pub(super) begun_at: Instant,
    pub(super) moved_at: Instant,
    bytes: u64,
}

impl Moving {
    /// One begins to pass, or goes on to, with so many bytes.
    pub(crate) fn on(begun: Option<Self>, bytes: usize, now: Instant) -> Self {
        let (begun_at, before) = begun.map_or((now, 0), |begun| (begun.begun_at, begun.bytes));
        Self { begun_at, moved_at: now, bytes: before.saturating_add(bytes as u64) }
    }

    /// Until when it is waited for: while it moves, and is not slower than the lowest rate a grant can have beyond what both gateways
    /// hold. An engine that writes a byte a minute would hide the losses of all others.
    pub(crate) fn waited_for_until(self) -> Instant {
        let slowest = Duration::from_secs((MAX_UNDER_WAY as u64).saturating_add(self.bytes) / MIN_BYTES_PER_SECOND);
        let stands_still = self.moved_at + STANDS_STILL;
        self.begun_at.checked_add(slowest).map_or(stands_still, |end| end.min(stands_still))
    }
}

impl Ledger {
    /// Whether a message or an answer has begun to pass here, in either direction, and goes on to.
    pub fn is_under_way(&self, now: Instant) -> bool {
        self.under_way.0.values().any(|until| now < *until)
    }

    /// Until when a conversation that is inside a message or an answer is waited for; none: it is inside of neither.
    pub(crate) fn moves(&mut self, conversation: u64, until: Option<Instant>) {
        match until {
            Some(until) => self.under_way.0.insert(conversation, until),
            None => self.under_way.0.remove(&conversation),
        };
    }
}
