//! The clock that decisions are made by: the wall clock, but never below a floor.
//!
//! Setting the machine's clock back must not bring an expired grant back to life. The floor starts at the newest time
//! that something signed or saved vouches for, and runs on with the monotonic clock. The control plane's own clock is the
//! authority: hearing it moves the floor, also down, so that a clock that once jumped ahead does not poison it for ever.

use std::{sync::Mutex, time::Instant};

/// A floor under the wall clock.
#[derive(Debug)]
pub(super) struct Clock(Mutex<Anchor>);

/// At `at` it was at least `seconds` (Unix).
#[derive(Debug, Clone, Copy)]
struct Anchor {
    seconds: u64,
    at: Instant,
}

impl Anchor {
    fn floor(self, at: Instant) -> u64 {
        self.seconds.saturating_add(at.saturating_duration_since(self.at).as_secs())
    }
}

impl Clock {
    pub(super) fn new(floor: u64, at: Instant) -> Self {
        Self(Mutex::new(Anchor { seconds: floor, at }))
    }

    /// The time to decide by.
    pub(super) fn now(&self, wall: u64, at: Instant) -> u64 {
        wall.max(self.floor(at))
    }

    /// The floor alone.
    pub(super) fn floor(&self, at: Instant) -> u64 {
        self.anchor().floor(at)
    }

    /// It is at least `seconds`: something signed says so.
    pub(super) fn raise(&self, seconds: u64, at: Instant) {
        let mut anchor = self.anchor();
        if seconds > anchor.floor(at) {
            *anchor = Anchor { seconds, at };
        }
    }

    /// The control plane says what time it is.
    pub(super) fn set(&self, seconds: u64, at: Instant) {
        *self.anchor() = Anchor { seconds, at };
    }

    fn anchor(&self) -> std::sync::MutexGuard<'_, Anchor> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_set_back_reads_the_floor_and_the_floor_runs_on() {
        let start = Instant::now();
        let clock = Clock::new(1000, start);
        assert_eq!(clock.now(1500, start), 1500);
        assert_eq!(clock.now(3, start), 1000);
        assert_eq!(clock.now(3, start + Duration::from_secs(60)), 1060);
    }

    #[test]
    fn a_wall_clock_that_jumped_ahead_does_not_raise_the_floor() {
        let start = Instant::now();
        let clock = Clock::new(1000, start);
        assert_eq!(clock.now(9_000_000, start), 9_000_000);
        assert_eq!(clock.now(1001, start), 1001);
    }

    #[test]
    fn a_signed_time_only_raises_the_floor_and_the_control_plane_also_lowers_it() {
        let start = Instant::now();
        let clock = Clock::new(1000, start);
        clock.raise(900, start);
        assert_eq!(clock.floor(start), 1000);
        clock.raise(1100, start);
        assert_eq!(clock.floor(start), 1100);
        clock.set(1050, start);
        assert_eq!(clock.floor(start), 1050);
    }
}
