//! What was measured of the way to each relay.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use crate::id::RelayId;

/// What was measured longer ago says nothing.
pub(super) const WINDOW: Duration = Duration::from_secs(300);
/// What counts lately: [`ENOUGH`] measurements at the longest pauses between them.
pub(super) const RECENT: Duration = Duration::from_secs(75);
/// Medians of fewer samples do not unseat a home that works.
pub(super) const ENOUGH: usize = 3;
/// A third of next to nothing is nothing.
const LEAST: Duration = Duration::from_millis(5);
/// Samples kept per relay: one per 20 s of the window, and some.
const SAMPLES: usize = 32;

/// The round trips to the relays of the map, within [`WINDOW`].
#[derive(Debug, Default)]
pub(super) struct Latencies {
    samples: BTreeMap<RelayId, VecDeque<(Instant, Duration)>>,
}

impl Latencies {
    /// Forgets the relays that are not in `map`.
    pub(super) fn keep(&mut self, map: &[RelayId]) {
        self.samples.retain(|id, _| map.contains(id));
    }

    /// A round trip was measured.
    pub(super) fn measured(&mut self, relay: RelayId, rtt: Duration, now: Instant) {
        let samples = self.samples.entry(relay).or_default();
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back((now, rtt));
    }

    /// The median of what was measured within `window`, if that was `enough`.
    pub(super) fn median(&self, relay: RelayId, enough: usize, window: Duration, now: Instant) -> Option<Duration> {
        let recent = |at: Instant| now.saturating_duration_since(at) <= window;
        let samples = self.samples.get(&relay)?;
        let mut rtts: Vec<_> = samples.iter().filter(|(at, _)| recent(*at)).map(|(_, rtt)| *rtt).collect();
        rtts.sort_unstable();
        (rtts.len() >= enough).then(|| rtts[rtts.len() / 2])
    }

    /// The lowest of the last [`ENOUGH`] measurements, if there were so many lately.
    pub(super) fn lowest_of_the_last(&self, relay: RelayId, now: Instant) -> Option<Duration> {
        let samples = self.samples.get(&relay)?;
        let recent = samples.iter().rev().take_while(|(at, _)| now.saturating_duration_since(*at) <= RECENT);
        let last: Vec<_> = recent.take(ENOUGH).map(|(_, rtt)| *rtt).collect();
        last.iter().min().copied().filter(|_| last.len() == ENOUGH)
    }

    /// A third better, both measured often enough.
    pub(super) fn clearly_better(&self, best: RelayId, other: RelayId, now: Instant) -> bool {
        match (self.median(best, ENOUGH, WINDOW, now), self.median(other, ENOUGH, WINDOW, now)) {
            (Some(best), Some(other)) => is_clearly_better(best, other),
            (_, None) | (None, _) => false,
        }
    }

    #[cfg(test)]
    pub(super) fn relays(&self) -> usize {
        self.samples.len()
    }
}

/// A third, and more than next to nothing.
pub(super) fn is_clearly_better(best: Duration, other: Duration) -> bool {
    best * 3 < other * 2 && other - best >= LEAST
}
