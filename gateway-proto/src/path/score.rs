//! Which of two proved paths is better.

use std::time::Duration;

use super::Tier;

/// A path must be faster than the selected one of its tier by this much, and by [`HYSTERESIS_DIVISOR`], else paths of
/// about the same length would take turns.
const HYSTERESIS: Duration = Duration::from_millis(5);

/// One tenth.
const HYSTERESIS_DIVISOR: u32 = 10;

/// The rank of a path; smaller is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Score {
    pub(super) tier: Tier,
    pub(super) rtt: Duration,
}

impl Score {
    /// Whether a path of this rank should take over from the healthy, selected `current`.
    pub(super) fn replaces(self, current: Self) -> bool {
        if self.tier != current.tier {
            return self.tier < current.tier;
        }
        self.rtt + HYSTERESIS.max(current.rtt / HYSTERESIS_DIVISOR) < current.rtt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(tier: Tier, ms: u64) -> Score {
        Score { tier, rtt: Duration::from_millis(ms) }
    }

    #[test]
    fn a_better_tier_wins_whatever_its_round_trip() {
        assert!(score(Tier::Lan, 90).replaces(score(Tier::Direct, 10)));
        assert!(score(Tier::Direct, 90).replaces(score(Tier::Relayed, 10)));
        assert!(!score(Tier::Direct, 1).replaces(score(Tier::Lan, 90)));
    }

    #[test]
    fn within_a_tier_the_gain_must_be_worth_the_change() {
        assert!(!score(Tier::Direct, 15).replaces(score(Tier::Direct, 20)), "5 ms is not more than 5 ms");
        assert!(score(Tier::Direct, 14).replaces(score(Tier::Direct, 20)));
        assert!(!score(Tier::Direct, 180).replaces(score(Tier::Direct, 200)), "10 % of a slow path");
        assert!(score(Tier::Direct, 179).replaces(score(Tier::Direct, 200)));
        assert!(!score(Tier::Direct, 3).replaces(score(Tier::Direct, 3)));
    }
}
