//! Retry delays that double up to a limit, with full jitter, and start over once the other side has proved alive.

use std::time::Duration;

/// Exponential backoff with jitter; randomness comes in as an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    next: Duration,
}

impl Backoff {
    /// Delays from `first`, doubling up to `limit`.
    pub fn new(first: Duration, limit: Duration) -> Self {
        Self { first, limit, next: first }
    }

    /// The next delay: between half and all of the current step. `random` is any uniformly random number.
    pub fn next_delay(&mut self, random: u32) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.limit);
        let half = step / 2;
        half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// Starts over: the other side has proved alive.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit_and_start_over_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        let steps: Vec<_> = (0..4).map(|_| backoff.next_delay(u32::MAX).as_millis()).collect();
        assert_eq!(steps, [100, 200, 350, 350]);
        backoff.reset();
        assert_eq!(backoff.next_delay(0), Duration::from_millis(50));
    }
}
