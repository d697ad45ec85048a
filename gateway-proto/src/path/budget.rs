//! How many probes may leave: a token bucket, so that no mistake and no peer makes a storm of them.

use std::time::{Duration, Instant};

/// Most probes of one kind (asking, answering) that leave in any minute: a full bucket and a minute of refill. A full
/// round is 3 × 7 × pairs; firewalls in hospitals drown in more.
pub const MAX_PROBES_PER_MINUTE: u32 = PROBE_BURST + 60 * PROBE_REFILL_PER_SECOND;

const PROBE_BURST: u32 = 400;
const PROBE_REFILL_PER_SECOND: u32 = 4;

/// What bursts leave over for heartbeats and proofs.
const RESERVE: f64 = 40.0;

/// A token bucket over virtual time.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    capacity: f64,
    per_second: f64,
    tokens: f64,
    filled_at: Instant,
}

/// Whether a probe may use the reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Priority {
    /// Part of a burst or a new look: others will follow.
    Search,
    /// Decides on a path in use or about to be.
    Decide,
}

impl Budget {
    /// For probes.
    pub(super) fn for_probes(now: Instant) -> Self {
        Self::new(PROBE_BURST.into(), PROBE_REFILL_PER_SECOND.into(), now)
    }

    /// For handshakes started by what a relay hands us: each costs several curve multiplications, and an honest peer
    /// makes one in two seconds at the most.
    pub(super) fn for_handshakes(now: Instant) -> Self {
        Self::new(10.0, 0.5, now)
    }

    fn new(capacity: f64, per_second: f64, now: Instant) -> Self {
        Self { capacity, per_second, tokens: capacity, filled_at: now }
    }

    /// Takes one token, if there is one for that purpose.
    pub(super) fn take(&mut self, priority: Priority, now: Instant) -> bool {
        self.refill(now);
        let floor = match priority {
            Priority::Search => RESERVE,
            Priority::Decide => 0.0,
        };
        let granted = self.tokens >= floor + 1.0;
        if granted {
            self.tokens -= 1.0;
        }
        granted
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.checked_duration_since(self.filled_at).unwrap_or(Duration::ZERO);
        self.tokens = (self.tokens + passed.as_secs_f64() * self.per_second).min(self.capacity);
        self.filled_at = self.filled_at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::test_clock::start;

    #[test]
    fn no_minute_sees_more_than_the_limit() {
        let start = start();
        let mut budget = Budget::for_probes(start);
        let mut granted = 0;
        for ms in 0..60_000 {
            granted += u32::from(budget.take(Priority::Decide, start + Duration::from_millis(ms)));
        }
        assert!(granted <= MAX_PROBES_PER_MINUTE, "{granted}");
        assert!(granted > MAX_PROBES_PER_MINUTE - 10, "{granted}");
    }

    #[test]
    fn a_burst_leaves_room_for_heartbeats() {
        let start = start();
        let mut budget = Budget::for_probes(start);
        while budget.take(Priority::Search, start) {}
        assert!(budget.take(Priority::Decide, start));
    }
}
