//! The clock of the control plane: the wall clock, and beside it one that only runs. A test may let time pass, and set the wall clock
//! wrongly.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A day, seconds.
pub(crate) const DAY_SECS: u64 = 24 * 3600;

/// The wall clock; clones share what a test does to it.
#[derive(Debug, Clone)]
pub struct Clock {
    began: Instant,
    /// Unix seconds.
    began_at: u64,
    passed_ms: Arc<AtomicU64>,
    ahead_ms: Arc<AtomicU64>,
    /// How often its milliseconds were looked at, where it stands; none: it runs.
    looks: Option<Arc<AtomicU64>>,
}

impl Clock {
    /// The wall clock as it is.
    pub fn system() -> Self {
        let (began, began_at) = (Instant::now(), gateway_net::time::unix_secs());
        Self { began, began_at, passed_ms: Arc::default(), ahead_ms: Arc::default(), looks: None }
    }

    /// One that stands at the time of now, for tests whose outcome must not depend on how fast they run. It moves as a test says, and by
    /// a millisecond with every look at its milliseconds: what is made one after the other stays in its order.
    pub fn standing() -> Self {
        Self { looks: Some(Arc::default()), ..Self::system() }
    }

    /// Unix milliseconds.
    pub fn unix_ms(&self) -> u64 {
        if let Some(looks) = &self.looks {
            looks.fetch_add(1, Ordering::Relaxed);
        }
        self.wall_ms(self.passed_ms.load(Ordering::Relaxed))
    }

    /// Unix seconds.
    pub fn unix_secs(&self) -> u64 {
        self.wall_ms(self.passed_ms.load(Ordering::Relaxed)) / 1000
    }

    /// What the wall clock said when this one began to run, Unix seconds.
    pub(crate) fn began_at(&self) -> u64 {
        self.began_at
    }

    /// How long it has run, whatever the wall clock is set to meanwhile, and Unix seconds, both of one moment.
    pub(crate) fn running_and_unix_secs(&self) -> (Duration, u64) {
        let passed = self.passed_ms.load(Ordering::Relaxed);
        let ran = match &self.looks {
            Some(looks) => Duration::from_millis(looks.load(Ordering::Relaxed)),
            None => self.began.elapsed(),
        };
        (ran.saturating_add(Duration::from_millis(passed)), self.wall_ms(passed) / 1000)
    }

    fn wall_ms(&self, passed: u64) -> u64 {
        let added = passed.saturating_add(self.ahead_ms.load(Ordering::Relaxed));
        let now = match &self.looks {
            Some(looks) => self.began_at.saturating_mul(1000).saturating_add(looks.load(Ordering::Relaxed)),
            None => gateway_net::time::unix_ms(),
        };
        now.saturating_add(added)
    }

    /// Lets time pass, for tests of what time alone does.
    pub fn advance(&self, by: Duration) {
        self.passed_ms.fetch_add(millis(by), Ordering::Relaxed);
    }

    /// Sets the wall clock ahead by so much, and no time passes: for tests of a machine that does not know the time yet. Zero: it is
    /// right again.
    pub fn set_ahead(&self, by: Duration) {
        self.ahead_ms.store(millis(by), Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_clock_moves_by_what_passes_and_by_looks_alone() {
        let clock = Clock::standing();
        let (ran, read) = clock.running_and_unix_secs();
        assert_eq!((ran, read), (Duration::ZERO, clock.began_at()));
        let (first, second) = (clock.unix_ms(), clock.unix_ms());
        assert_eq!((first, second), (read * 1000 + 1, read * 1000 + 2), "two of one moment have an order");
        clock.advance(Duration::from_secs(660));
        assert_eq!(clock.unix_secs(), read + 660);
        assert_eq!(clock.running_and_unix_secs(), (Duration::from_millis(660_002), read + 660), "it ran evenly");
    }
}
