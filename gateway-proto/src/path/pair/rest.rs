//! Why a pair rests: its path lost too much, or small packets only, again and again.

use std::time::{Duration, Instant};

use super::{Outstanding, Pair};
use crate::path::PADDED_PROBE_LEN;

/// A small ping without an answer for so long, or one and a half round trips, is lost.
pub(super) const OVERDUE: Duration = Duration::from_millis(250);

/// Of so many moments at least, both sizes having been asked in each, the full answers have come and the small ones have not, before
/// a path is said to lose small packets: chance alone makes that once in hours.
pub(super) const LEAST_EVIDENCE: usize = 2;

/// A path that is left for the loss of small packets twice in this time rests. Not the first time: it is proved by a small answer too
/// before it is used again, and one that was left by mistake is back at once.
pub(super) const SMALL_LOST_AGAIN: Duration = Duration::from_secs(5 * 60);

/// A path left for its loss, or for that of small packets again and again, rests for 30 s, doubling to 15 min.
pub(super) const FIRST_BAR: Duration = Duration::from_secs(30);
pub(super) const BAR_LIMIT: Duration = Duration::from_secs(15 * 60);

/// After an hour without such a verdict the first rest is short again.
pub(super) const BAR_MEMORY: Duration = Duration::from_secs(3_600);

impl Pair {
    /// Whether the path answers what is large, and of what was asked since `since` lost every small ping whose time is over, although
    /// a full-size one that was sent in the same instant was answered. A line that loses packets of both sizes, or all of them for
    /// a while, does not do that but by chance.
    pub(in crate::path) fn loses_only_small_since(&self, since: Instant, now: Instant) -> bool {
        let patience = OVERDUE.max(self.rtt() * 3 / 2);
        let overdue = |ping: &&Outstanding| ping.sent_at >= since && now >= ping.sent_at + patience;
        let lost = |size: usize| self.outstanding.iter().filter(overdue).filter(move |ping| ping.size == size);
        let shown = lost(0).filter(|ping| self.full_passed.contains(&ping.sent_at)).count();
        shown >= LEAST_EVIDENCE && lost(PADDED_PROBE_LEN).next().is_none()
    }

    /// Whether it was left for the loss of small packets, and none was answered since.
    pub(in crate::path) fn loses_small(&self) -> bool {
        self.loses_small
    }

    /// The path lost too much, or small packets: it rests, longer each time.
    pub(in crate::path) fn bar(&mut self, now: Instant) {
        if self.barred_until.is_none_or(|until| until + BAR_MEMORY < now) {
            self.bars = 0;
        }
        self.barred_until = Some(now + (FIRST_BAR * 2_u32.saturating_pow(self.bars.min(8))).min(BAR_LIMIT));
        self.bars += 1;
        self.rests = true;
    }

    /// The path was left because it loses small packets only. Where that comes and goes it would be tried and left in turns.
    pub(in crate::path) fn lose_small(&mut self, now: Instant) {
        self.loses_small = true;
        if self.small_lost_at.replace(now).is_some_and(|at| now < at + SMALL_LOST_AGAIN) {
            self.bar(now);
        }
    }

    /// Whether it rests, as of the last [`Self::end_rest`].
    pub(in crate::path) fn rests(&self) -> bool {
        self.rests
    }

    pub(in crate::path) fn end_rest(&mut self, now: Instant) {
        self.rests &= self.is_barred(now);
    }

    pub(in crate::path) fn is_barred(&self, now: Instant) -> bool {
        self.barred_until.is_some_and(|until| now < until)
    }

    /// Something changed: old loss says nothing any more.
    pub(in crate::path) fn unbar(&mut self) {
        self.barred_until = None;
        self.bars = 0;
        self.rests = false;
        self.small_lost_at = None;
        self.loses_small = false;
    }
}
