//! Log lines that would come hundreds of times a second while the database is away, perhaps onto the very disk that is full: one a
//! minute, with the number of those that were left out.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const MINUTE: Duration = Duration::from_secs(60);

/// Lines of one kind, or something else that is not to be done each time.
#[derive(Debug)]
pub(crate) struct Seldom {
    every: Duration,
    said: Mutex<Said>,
}

#[derive(Debug)]
struct Said {
    last: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    /// Once a minute.
    pub(crate) const fn new() -> Self {
        Self::every(MINUTE)
    }

    /// At this distance at least.
    pub(crate) const fn every(every: Duration) -> Self {
        Self { every, said: Mutex::new(Said { last: None, left_out: 0 }) }
    }

    /// Whether to say it now: how often it was left out since it was said last.
    pub(crate) fn turn(&self, now: Instant) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.last.is_some_and(|last| now.saturating_duration_since(last) < self.every) {
            said.left_out += 1;
            return None;
        }
        said.last = Some(now);
        Some(std::mem::take(&mut said.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_once_a_minute_and_says_how_many_were_left_out() {
        let (seldom, start) = (Seldom::new(), Instant::now());
        assert_eq!(seldom.turn(start), Some(0));
        for n in 1..=500 {
            assert_eq!(seldom.turn(start + Duration::from_millis(n)), None);
        }
        assert_eq!(seldom.turn(start + MINUTE), Some(500));
        assert_eq!(seldom.turn(start + MINUTE * 3), Some(0));
    }
}
