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
}

impl Clock {
    /// The wall clock as it is.
    pub fn system() -> Self {
        let (began, began_at) = (Instant::now(), gateway_net::time::unix_secs());
        Self { began, began_at, passed_ms: Arc::default(), ahead_ms: Arc::default() }
    }

    /// Unix milliseconds.
    pub fn unix_ms(&self) -> u64 {
        self.wall_ms(self.passed_ms.load(Ordering::Relaxed))
    }

    /// Unix seconds.
    pub fn unix_secs(&self) -> u64 {
        self.unix_ms() / 1000
    }

    /// What the wall clock said when this one began to run, Unix seconds.
    pub(crate) fn began_at(&self) -> u64 {
        self.began_at
    }

    /// How long it has run, whatever the wall clock is set to meanwhile, and Unix seconds, both of one moment.
    pub(crate) fn running_and_unix_secs(&self) -> (Duration, u64) {
        let passed = self.passed_ms.load(Ordering::Relaxed);
        (self.began.elapsed().saturating_add(Duration::from_millis(passed)), self.wall_ms(passed) / 1000)
    }

    fn wall_ms(&self, passed: u64) -> u64 {
        let added = passed.saturating_add(self.ahead_ms.load(Ordering::Relaxed));
        gateway_net::time::unix_ms().saturating_add(added)
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
