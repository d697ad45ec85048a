//! How long answers take: a histogram for ever, and quantiles of the last minutes.

use std::time::{Duration, Instant};

/// Upper bounds of the histogram's buckets; one more holds what is longer.
pub const BOUNDS: [Duration; 14] = [
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    // The engine's own response timeout: what is above it comes too late.
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// Quantiles look back between one and two of these.
const WINDOW: Duration = Duration::from_secs(600);
/// Four steps per doubling from 64 µs to 17 min: a quantile is right within a fifth.
const STEPS: usize = 96;
const STEPS_PER_DOUBLING: u32 = 4;
const FIRST_DOUBLING: u32 = 6;

/// Times between a message and its answer. About 1 KiB.
#[derive(Debug, Clone)]
pub struct Latency {
    buckets: [u64; BOUNDS.len() + 1],
    sum: Duration,
    windows: [Box<[u32; STEPS]>; 2],
    window_began: Option<Instant>,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            buckets: Default::default(),
            sum: Duration::ZERO,
            windows: [Box::new([0; STEPS]), Box::new([0; STEPS])],
            window_began: None,
        }
    }
}

impl Latency {
    /// An answer came after this time.
    pub fn record(&mut self, took: Duration, now: Instant) {
        let bucket = BOUNDS.iter().position(|bound| took <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket] += 1;
        self.sum = self.sum.saturating_add(took);
        let began = *self.window_began.get_or_insert(now);
        let age = now.saturating_duration_since(began);
        if age >= WINDOW {
            self.windows.swap(0, 1);
            self.windows[0].fill(0);
            if age >= WINDOW * 2 {
                self.windows[1].fill(0);
            }
            self.window_began = Some(now);
        }
        let slot = &mut self.windows[0][step(took)];
        *slot = slot.saturating_add(1);
    }

    /// The time within which this share of the last answers came (`0.5`, `0.99`); none without answers. What was recorded
    /// is never longer.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let counts = || self.windows[0].iter().zip(self.windows[1].iter()).map(|(a, b)| u64::from(*a) + u64::from(*b));
        let total: u64 = counts().sum();
        if total == 0 {
            return None;
        }
        // Counts of two windows of u32 are far below 2^53.
        let wanted = ((total as f64 * share).ceil() as u64).clamp(1, total);
        let mut seen = 0;
        let found = counts().position(|count| {
            seen += count;
            seen >= wanted
        });
        found.map(upper_bound)
    }

    /// Answers in each bucket of [`BOUNDS`], the last one for what is longer. Not cumulative.
    pub fn buckets(&self) -> &[u64; BOUNDS.len() + 1] {
        &self.buckets
    }

    /// All times together.
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

fn step(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1 << FIRST_DOUBLING);
    let doubling = micros.ilog2();
    let part = (micros >> (doubling - 2)) & 3;
    let index = u64::from((doubling - FIRST_DOUBLING) * STEPS_PER_DOUBLING) + part;
    usize::try_from(index).unwrap_or(usize::MAX).min(STEPS - 1)
}

fn upper_bound(step: usize) -> Duration {
    let step = u64::try_from(step).unwrap_or(u64::MAX).min(STEPS as u64 - 1);
    let (doubling, part) = (step / u64::from(STEPS_PER_DOUBLING), step % u64::from(STEPS_PER_DOUBLING));
    let quarter = 1_u64 << (u64::from(FIRST_DOUBLING) + doubling - 2);
    Duration::from_micros(quarter * (5 + part))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
    use super::*;

    #[test]
    fn quantiles_are_near_the_truth_and_never_below_it() {
        let (mut latency, now) = (Latency::default(), Instant::now());
        for millis in 1..=100 {
            latency.record(Duration::from_millis(millis), now);
        }
        for (share, millis) in [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)] {
            let found = latency.quantile(share).map(|d| d.as_millis());
            assert!(found.is_some_and(|f| (millis..=millis * 5 / 4 + 1).contains(&f)), "{share}: {found:?}");
        }
        assert_eq!(latency.buckets().iter().sum::<u64>(), 100);
        assert_eq!(latency.buckets()[3], 5, "above 5 ms up to 10 ms");
    }

    #[test]
    fn what_is_long_ago_does_not_count_in_quantiles_but_in_the_histogram() {
        let (mut latency, start) = (Latency::default(), Instant::now());
        latency.record(Duration::from_secs(9), start);
        latency.record(Duration::from_millis(2), start + WINDOW);
        assert!(latency.quantile(1.0) > Some(Duration::from_secs(8)));
        latency.record(Duration::from_millis(2), start + WINDOW * 2);
        assert!(latency.quantile(1.0) < Some(Duration::from_millis(3)));
        latency.record(Duration::from_millis(2), start + WINDOW * 9);
        assert_eq!(latency.buckets().iter().sum::<u64>(), 4);
        assert_eq!(Latency::default().quantile(0.5), None);
    }

    #[test]
    fn the_shortest_and_the_longest_time_have_their_place() {
        let (mut latency, now) = (Latency::default(), Instant::now());
        latency.record(Duration::ZERO, now);
        latency.record(Duration::MAX, now);
        latency.record(Duration::MAX, now);
        assert!(latency.quantile(0.0) <= Some(Duration::from_micros(80)));
        assert_eq!(latency.buckets()[BOUNDS.len()], 2);
    }
}
