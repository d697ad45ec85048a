//! Which of the streams that fail the log is told of: an engine may try thousands of times in a second.

use std::sync::{Mutex, PoisonError};

/// A run of failures ends when there was none for so long, seconds.
const QUIET: u64 = 60;

/// How a stream fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It was carried, and reset.
    Reset,
    /// Our engine's connection got none.
    NoStream,
    /// The peer's stream was refused.
    Refused,
}

/// Failures of one end of a connection, each kind on its own.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<[Run; 3]>);

#[derive(Debug, Clone, Copy, Default)]
struct Run {
    count: u64,
    last_at: u64,
}

impl Failures {
    /// One more at `now`, Unix seconds: which one of its run it is, if the log is to be told: the first, the second, the fourth and so on.
    pub(super) fn tell(&self, failure: Failure, now: u64) -> Option<u64> {
        let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let run = &mut runs[failure as usize];
        if now.saturating_sub(run.last_at) >= QUIET {
            run.count = 0;
        }
        *run = Run { count: run.count + 1, last_at: now };
        run.count.is_power_of_two().then_some(run.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_failures_few_are_told_and_the_next_after_a_quiet_minute_is_a_first_one_again() {
        let failures = Failures::default();
        let told: Vec<u64> = (0..5_000).filter_map(|_| failures.tell(Failure::Reset, 100)).collect();
        assert_eq!(told, (0..13).map(|power| 1 << power).collect::<Vec<u64>>());
        assert_eq!(failures.tell(Failure::NoStream, 100), Some(1), "another kind is hidden by none");
        assert_eq!(failures.tell(Failure::Reset, 159), None);
        assert_eq!(failures.tell(Failure::Reset, 159 + QUIET), Some(1));
    }
}
