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

    /// Goes on with no smaller step than this, up to the limit.
    pub fn raise_to(&mut self, step: Duration) {
        self.next = self.next.max(step).min(self.limit);
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

    #[test]
    fn a_raise_never_makes_a_step_smaller_or_greater_than_the_limit() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(350));
        backoff.raise_to(ms(300));
        backoff.raise_to(ms(200));
        assert_eq!(backoff.next_delay(u32::MAX), ms(300));
        backoff.raise_to(ms(1_000));
        assert_eq!(backoff.next_delay(u32::MAX), ms(350));
    }
}
