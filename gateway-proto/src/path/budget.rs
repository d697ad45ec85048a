//! How many probes may leave: a token bucket, so that no mistake and no peer makes a storm of them.

use std::time::{Duration, Instant};

use crate::id::RelayId;

/// Most probes of one kind (asking, answering) that leave in any minute: a full bucket and a minute of refill. A full
/// round is 3 × 7 × pairs; firewalls in hospitals drown in more.
pub const MAX_PROBES_PER_MINUTE: u32 = PROBE_BURST + 60 * PROBE_REFILL_PER_SECOND;

const PROBE_BURST: u32 = 400;
const PROBE_REFILL_PER_SECOND: u32 = 4;

/// What bursts leave over for heartbeats and proofs.
const RESERVE: f64 = 40.0;

/// Relays that have a budget of their own: more than a gateway is attached to.
const MAX_RELAYS: usize = 16;

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

    /// For handshakes started by what one relay hands us: each costs several curve multiplications, and an honest peer
    /// makes one in two seconds at the most.
    fn for_handshakes(now: Instant) -> Self {
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

/// Budgets for handshakes, one for each relay that hands us offers: a relay that makes them up uses up its own, and the peer's
/// go on to come over the others.
#[derive(Debug, Clone, Default)]
pub(super) struct OfferBudgets(Vec<(RelayId, Budget)>);

impl OfferBudgets {
    /// Takes one token of this relay, if there is one. Of more relays than there is room for, the one that handed us an offer
    /// longest ago makes room.
    pub(super) fn take(&mut self, relay: RelayId, now: Instant) -> bool {
        let mut budget = match self.0.iter().position(|(known, _)| *known == relay) {
            Some(at) => self.0.remove(at).1,
            None => Budget::for_handshakes(now),
        };
        let granted = budget.take(Priority::Decide, now);
        if self.0.len() >= MAX_RELAYS {
            self.0.remove(0);
        }
        self.0.push((relay, budget));
        granted
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

    #[test]
    fn a_relay_that_floods_offers_uses_up_its_own_budget_and_the_table_stays_small() {
        let (mut budgets, start) = (OfferBudgets::default(), start());
        let relay = |n: u8| RelayId::from_bytes([n; 16]);
        let granted = (0..1_000).filter(|_| budgets.take(relay(0), start)).count();
        assert_eq!(granted, 10);
        assert!(budgets.take(relay(1), start), "another relay's offers are looked at");
        assert!(budgets.take(relay(0), start + Duration::from_secs(2)));
        for n in 2..200 {
            assert!(budgets.take(relay(n), start));
            assert!(budgets.0.len() <= MAX_RELAYS);
        }
    }
}
