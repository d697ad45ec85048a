//! The clock of the control plane: the wall clock, which a test may move forward.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The wall clock; clones share what a test added to it.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    added_ms: Arc<AtomicU64>,
}

impl Clock {
    /// The wall clock as it is.
    pub fn system() -> Self {
        Self::default()
    }

    /// Unix milliseconds.
    pub fn unix_ms(&self) -> u64 {
        gateway_net::time::unix_ms().saturating_add(self.added_ms.load(Ordering::Relaxed))
    }

    /// Unix seconds.
    pub fn unix_secs(&self) -> u64 {
        self.unix_ms() / 1000
    }

    /// Moves the clock forward, for tests of what time alone does.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.added_ms.fetch_add(by, Ordering::Relaxed);
    }
}
