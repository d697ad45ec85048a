//! Whether time passed that this process did not see.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// The clocks drift apart by less than this between two looks, unless the machine slept; and a look is late by less, unless
/// the process was stopped.
const SLEPT: Duration = Duration::from_secs(2);

/// What the clocks say at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    /// How long the machine has slept since it was started: the clock that counts sleep, less the one that does not.
    pub(super) asleep: Duration,
    /// By the clock that stands still in sleep.
    pub(super) at: Instant,
}

impl Clocks {
    pub(super) fn now() -> Self {
        let read = |clock| clock_gettime(clock).map(Duration::from).unwrap_or_default();
        let asleep = read(ClockId::CLOCK_BOOTTIME).saturating_sub(read(ClockId::CLOCK_MONOTONIC));
        Self { asleep, at: Instant::now() }
    }

    /// The time since `before` that nobody saw, although the next look was due after `pause`; `None`: no more than a busy machine takes.
    /// Neither clock is the one that people set.
    pub(super) fn missed_since(&self, before: &Self, pause: Duration) -> Option<Duration> {
        let slept = self.asleep.saturating_sub(before.asleep);
        let late = self.at.saturating_duration_since(before.at + pause);
        Some(slept + late).filter(|missed| *missed > SLEPT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(500);

    fn missed(asleep_ms: (u64, u64), passed_ms: u64) -> Option<u64> {
        let at = Instant::now();
        let [asleep, later] = [asleep_ms.0, asleep_ms.1].map(Duration::from_millis);
        let before = Clocks { asleep, at };
        let now = Clocks { asleep: later, at: at + Duration::from_millis(passed_ms) };
        now.missed_since(&before, PAUSE).map(|missed| missed.as_millis() as u64)
    }

    #[test]
    fn a_machine_that_slept_between_two_looks_is_noticed_by_the_distance_of_its_clocks() {
        assert_eq!(missed((7_000, 7_000), 500), None);
        assert_eq!(missed((7_000, 9_000), 500), None, "two seconds of sleep are no more than a busy machine");
        assert_eq!(missed((7_000, 9_001), 500), Some(2_001));
        assert_eq!(missed((0, 8 * 3_600_000), 501), Some(8 * 3_600_000 + 1));
    }

    #[test]
    fn a_process_that_stood_still_is_noticed_by_its_late_look_and_both_together_count_as_one() {
        assert_eq!(missed((0, 0), 2_500), None, "late by two seconds");
        assert_eq!(missed((0, 0), 2_501), Some(2_001));
        assert_eq!(missed((0, 1_500), 1_501), Some(2_501));
    }

    #[test]
    fn clocks_that_go_back_or_a_look_that_comes_early_are_no_sleep() {
        assert_eq!(missed((9_000, 1_000), 500), None);
        assert_eq!(missed((0, 0), 0), None);
        let before = Clocks::now();
        assert_eq!(Clocks::now().missed_since(&before, PAUSE), None, "this machine is awake");
    }
}
