//! What the pings of one size say of a path: some carry only large packets, or only small ones.

use std::time::Instant;

/// What became of the pings of one size.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    /// The first one since the last answer.
    pub(super) failing_since: Option<Instant>,
    /// When the newest of those that were answered was sent; `None` again once a later one got no answer.
    pub(super) passed_at: Option<Instant>,
    /// The last answer.
    pub(super) answered_at: Option<Instant>,
}

impl Asked {
    /// One that was sent at `sent_at` was answered.
    pub(super) fn answer(&mut self, sent_at: Instant, now: Instant) {
        self.failing_since = None;
        self.passed_at = self.passed_at.max(Some(sent_at));
        self.answered_at = Some(now);
    }

    pub(super) fn is_answered_since(&self, since: Instant) -> bool {
        self.answered_at.is_some_and(|at| at >= since)
    }

    /// Whether these pass and the others do not, as far as is known since `since`: one of the others had no answer, and one of
    /// these had one that was sent after it and not before `since`. An answer to an older question says nothing: the peer may
    /// have stopped between the two.
    pub(super) fn pass_alone_since(&self, others: &Self, since: Instant) -> bool {
        others.failing_since.is_some_and(|failed| self.passed_at > Some(failed) && self.passed_at >= Some(since))
    }
}
