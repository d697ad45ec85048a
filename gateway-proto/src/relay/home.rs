//! Which relay is home, and which are attached to: by measured latency, calmly.
//!
//! Latency is the median of what was measured within [`WINDOW`]. Home changes at once when it fails or is about to stop; else only to a relay
//! that is a third better, and not within [`CALM`] of the last change; a home that was not measured (its STUN is blocked, say) but is alive is kept. While
//! nothing is measured the order of the relay map decides.
//!
//! Home is chosen by latency alone. The spares are of other regions than home, where the map has them: what takes one relay of a region away (a
//! building, a provider, a cable) often takes the others with it. A relay whose region nobody said is a region of its own.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use crate::id::RelayId;

/// What was measured longer ago says nothing.
const WINDOW: Duration = Duration::from_secs(300);
/// At least so long between two changes of a home that works.
const CALM: Duration = Duration::from_secs(300);
/// Medians of fewer samples do not unseat a home that works.
const ENOUGH: usize = 3;
/// Samples kept per relay: one per 20 s of the window, and some.
const SAMPLES: usize = 32;
/// Relays measured; a map with more is cut.
pub const MAX_RELAYS: usize = 64;

/// See the module's description.
#[derive(Debug, Default)]
pub struct HomeChooser {
    /// The map, in the policy's order.
    map: Vec<RelayId>,
    regions: BTreeMap<RelayId, String>,
    samples: BTreeMap<RelayId, VecDeque<(Instant, Duration)>>,
    home: Option<RelayId>,
    changed_at: Option<Instant>,
    /// Attached to, or to be.
    chosen: Vec<RelayId>,
    exchanged_at: Option<Instant>,
}

impl HomeChooser {
    /// The relay map with its regions, in the policy's order. What is not in it any more is forgotten.
    pub fn set_map<'a>(&mut self, map: impl Iterator<Item = (RelayId, Option<&'a str>)>) {
        self.map.clear();
        self.regions.clear();
        for (relay, region) in map.take(MAX_RELAYS) {
            self.map.push(relay);
            self.regions.extend(region.map(|region| (relay, region.to_owned())));
        }
        let map = &self.map;
        self.samples.retain(|id, _| map.contains(id));
    }

    /// A round trip to a relay was measured.
    pub fn measured(&mut self, relay: RelayId, rtt: Duration, now: Instant) {
        if !self.map.contains(&relay) {
            return;
        }
        let samples = self.samples.entry(relay).or_default();
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back((now, rtt));
    }

    /// The median latency of a relay, if it was measured lately.
    pub fn latency(&self, relay: RelayId, now: Instant) -> Option<Duration> {
        self.median(relay, 1, now)
    }

    /// The relays to attach to, `count` of them where the map has so many, the home first. One that was chosen stays until
    /// another is a third better, or of another region than home where it is not, and no two are exchanged shortly after
    /// each other.
    pub fn attach(&mut self, count: usize, now: Instant) -> Vec<RelayId> {
        let map = &self.map;
        self.chosen.retain(|relay| map.contains(relay));
        let home = self.home.filter(|home| map.contains(home));
        let home = home.or_else(|| map.iter().min_by_key(|relay| self.rank(**relay, now)).copied());
        let beside = |relay: RelayId| home != Some(relay) && home.is_some_and(|home| self.together(relay, home));
        let mut order = self.map.clone();
        order.sort_by_key(|relay| {
            let latency = self.latency(*relay, now);
            (home != Some(*relay), latency.is_none(), beside(*relay), latency)
        });
        let calm = self.exchanged_at.is_none_or(|at| now.saturating_duration_since(at) >= CALM);
        let best = order.iter().find(|relay| !self.chosen.contains(relay)).copied();
        let spares = self.chosen.iter().enumerate().filter(|(_, relay)| self.home != Some(**relay));
        let worst = spares.max_by_key(|(_, relay)| (beside(**relay), self.rank(**relay, now)));
        let worst = worst.map(|(place, relay)| (place, *relay));
        if let (Some(best), Some((place, worst))) = (best, worst)
            && self.chosen.len() >= count
            && calm
            && match (beside(worst), beside(best)) {
                (true, false) => self.latency(best, now).is_some() || self.latency(worst, now).is_none(),
                (false, true) => false,
                (true, true) | (false, false) => self.clearly_better(best, worst, now),
            }
        {
            self.chosen[place] = best;
            self.exchanged_at = Some(now);
        }
        for relay in order {
            if self.chosen.len() < count && !self.chosen.contains(&relay) {
                self.chosen.push(relay);
            }
        }
        let home = self.home;
        self.chosen.sort_by_key(|relay| home != Some(*relay));
        self.chosen.clone()
    }

    /// The home, given the relays that are attached and not about to stop. A home that fails is kept only while there is no other.
    pub fn decide(&mut self, attached: &[RelayId], now: Instant) -> Option<RelayId> {
        let best = self.map.iter().filter(|relay| attached.contains(relay)).min_by_key(|relay| self.rank(**relay, now));
        let Some(best) = best.copied() else { return self.home };
        let next = match self.home.filter(|home| attached.contains(home)) {
            Some(home) if self.unseats(best, home, now) => best,
            Some(home) => home,
            None => best,
        };
        if self.home != Some(next) {
            self.home = Some(next);
            // One that nothing was known of was a guess, and may be corrected at once.
            self.changed_at = self.latency(next, now).map(|_| now);
        }
        self.home
    }

    fn unseats(&self, best: RelayId, home: RelayId, now: Instant) -> bool {
        let calm = self.changed_at.is_none_or(|at| now.saturating_duration_since(at) >= CALM);
        calm && self.clearly_better(best, home, now)
    }

    fn together(&self, one: RelayId, other: RelayId) -> bool {
        self.regions.get(&one).is_some_and(|region| self.regions.get(&other) == Some(region))
    }

    /// A third better, both measured often enough.
    fn clearly_better(&self, best: RelayId, other: RelayId, now: Instant) -> bool {
        match (self.median(best, ENOUGH, now), self.median(other, ENOUGH, now)) {
            (Some(best), Some(other)) => best * 3 < other * 2,
            (_, None) | (None, _) => false,
        }
    }

    /// Measured ones first, by latency; then in the order of the map, which sorting keeps.
    fn rank(&self, relay: RelayId, now: Instant) -> (bool, Option<Duration>) {
        let latency = self.latency(relay, now);
        (latency.is_none(), latency)
    }

    fn median(&self, relay: RelayId, enough: usize, now: Instant) -> Option<Duration> {
        let recent = |at: Instant| now.saturating_duration_since(at) <= WINDOW;
        let samples = self.samples.get(&relay)?;
        let mut rtts: Vec<_> = samples.iter().filter(|(at, _)| recent(*at)).map(|(_, rtt)| *rtt).collect();
        rtts.sort_unstable();
        (rtts.len() >= enough).then(|| rtts[rtts.len() / 2])
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
    use super::*;

    const ALL: [RelayId; 3] =
        [RelayId::from_bytes([1; 16]), RelayId::from_bytes([2; 16]), RelayId::from_bytes([3; 16])];

    fn chooser() -> (HomeChooser, Instant) {
        let mut chooser = HomeChooser::default();
        chooser.set_map(ALL.into_iter().map(|relay| (relay, None)));
        (chooser, Instant::now())
    }

    fn measure(chooser: &mut HomeChooser, relay: RelayId, ms: u64, count: u32, now: Instant) {
        for _ in 0..count {
            chooser.measured(relay, Duration::from_millis(ms), now);
        }
    }

    #[test]
    fn without_measurements_the_order_of_the_map_decides_and_a_failed_home_is_left_at_once() {
        let (mut chooser, now) = chooser();
        assert_eq!(chooser.decide(&[], now), None);
        assert_eq!(chooser.decide(&[ALL[1], ALL[2]], now), Some(ALL[1]));
        assert_eq!(chooser.decide(&ALL, now), Some(ALL[1]), "what works is kept");
        assert_eq!(chooser.decide(&[ALL[0]], now), Some(ALL[0]));
        assert_eq!(chooser.decide(&[], now), Some(ALL[0]), "kept while there is no other");
    }

    #[test]
    fn home_moves_to_a_relay_a_third_better_and_not_to_one_a_little_better() {
        let (mut chooser, now) = chooser();
        measure(&mut chooser, ALL[0], 30, 5, now);
        assert_eq!(chooser.decide(&ALL, now), Some(ALL[0]));
        let later = now + CALM;
        measure(&mut chooser, ALL[0], 30, 5, later);
        measure(&mut chooser, ALL[1], 21, 5, later);
        assert_eq!(chooser.decide(&ALL, later), Some(ALL[0]));
        measure(&mut chooser, ALL[2], 19, 2, later);
        assert_eq!(chooser.decide(&ALL, later), Some(ALL[0]), "two samples are not enough");
        measure(&mut chooser, ALL[2], 19, 1, later);
        assert_eq!(chooser.decide(&ALL, later), Some(ALL[2]));
        measure(&mut chooser, ALL[0], 1, 32, later);
        assert_eq!(chooser.decide(&ALL, later), Some(ALL[2]), "not twice in a row");
    }

    #[test]
    fn single_slow_answers_change_nothing() {
        let (mut chooser, now) = chooser();
        measure(&mut chooser, ALL[0], 10, 9, now);
        measure(&mut chooser, ALL[1], 12, 9, now);
        assert_eq!(chooser.decide(&ALL, now), Some(ALL[0]));
        measure(&mut chooser, ALL[0], 900, 8, now);
        assert_eq!(chooser.latency(ALL[0], now), Some(Duration::from_millis(10)));
        assert_eq!(chooser.decide(&ALL, now + CALM - Duration::from_secs(1)), Some(ALL[0]));
    }

    #[test]
    fn a_home_that_cannot_be_measured_but_is_attached_stays() {
        let (mut chooser, now) = chooser();
        assert_eq!(chooser.decide(&ALL, now), Some(ALL[0]));
        let later = now + 2 * CALM;
        measure(&mut chooser, ALL[1], 1, 9, later);
        assert_eq!(chooser.decide(&ALL, later), Some(ALL[0]));
        assert_eq!(chooser.attach(2, later), [ALL[0], ALL[1]]);
    }

    #[test]
    fn a_guess_is_corrected_as_soon_as_something_is_measured() {
        let (mut chooser, now) = chooser();
        assert_eq!(chooser.attach(2, now), [ALL[0], ALL[1]]);
        assert_eq!(chooser.decide(&[ALL[0], ALL[1]], now), Some(ALL[0]));
        for (relay, ms) in ALL.into_iter().zip([80, 60, 5]) {
            measure(&mut chooser, relay, ms, 3, now);
        }
        assert_eq!(chooser.attach(2, now), [ALL[0], ALL[2]], "the spare first: home must be attached to");
        assert_eq!(chooser.decide(&[ALL[0], ALL[2]], now), Some(ALL[2]));
        assert_eq!(chooser.attach(2, now), [ALL[2], ALL[0]]);
        measure(&mut chooser, ALL[1], 1, 32, now);
        assert_eq!(chooser.attach(2, now), [ALL[2], ALL[0]], "no exchange shortly after another");
        assert_eq!(chooser.attach(2, now + CALM), [ALL[2], ALL[1]]);
    }

    #[test]
    fn relays_of_about_the_same_latency_are_not_exchanged() {
        let (mut chooser, now) = chooser();
        for (relay, ms) in ALL.into_iter().zip([20, 21, 15]) {
            measure(&mut chooser, relay, ms, 5, now);
        }
        assert_eq!(chooser.attach(2, now), [ALL[2], ALL[0]]);
        chooser.decide(&ALL, now);
        measure(&mut chooser, ALL[1], 16, 11, now);
        assert_eq!(chooser.attach(2, now + CALM / 2), [ALL[2], ALL[0]]);
    }

    #[test]
    fn the_spare_is_of_another_region_than_home_and_follows_when_home_moves_there() {
        let (mut chooser, now) = chooser();
        chooser.set_map(ALL.into_iter().zip([Some("north"), Some("north"), Some("south")]));
        assert_eq!(chooser.attach(2, now), [ALL[0], ALL[2]], "nothing is measured yet");
        for (relay, ms) in ALL.into_iter().zip([10, 11, 60]) {
            measure(&mut chooser, relay, ms, 5, now);
        }
        assert_eq!(chooser.decide(&[ALL[0], ALL[2]], now), Some(ALL[0]));
        assert_eq!(chooser.attach(2, now), [ALL[0], ALL[2]], "far away, and not in the same building");
        assert_eq!(chooser.decide(&[ALL[2]], now), Some(ALL[2]), "home is gone");
        assert_eq!(chooser.attach(2, now), [ALL[2], ALL[0]]);
        chooser.set_map(ALL.into_iter().zip([Some("north"), Some("south"), Some("north")]));
        assert_eq!(chooser.attach(2, now + CALM), [ALL[2], ALL[1]], "the spare stands beside home now");
        chooser.set_map(ALL.into_iter().zip([Some("south"), Some("south"), Some("south")]));
        measure(&mut chooser, ALL[0], 10, 5, now + 2 * CALM);
        measure(&mut chooser, ALL[1], 11, 5, now + 2 * CALM);
        assert_eq!(chooser.attach(2, now + 2 * CALM), [ALL[2], ALL[1]], "only one region: latency, calmly");
    }

    #[test]
    fn a_relay_of_another_region_that_cannot_be_reached_is_no_spare() {
        let (mut chooser, now) = chooser();
        chooser.set_map(ALL.into_iter().zip([Some("north"), Some("north"), Some("south")]));
        measure(&mut chooser, ALL[0], 10, 5, now);
        measure(&mut chooser, ALL[1], 11, 5, now);
        assert_eq!(chooser.attach(2, now), [ALL[0], ALL[1]]);
    }

    #[test]
    fn old_measurements_say_nothing_and_what_left_the_map_is_forgotten() {
        let (mut chooser, now) = chooser();
        measure(&mut chooser, ALL[2], 5, 3, now);
        assert_eq!(chooser.latency(ALL[2], now + WINDOW + Duration::from_secs(1)), None);
        chooser.attach(3, now);
        chooser.set_map([(ALL[0], None)].into_iter());
        chooser.measured(ALL[2], Duration::ZERO, now);
        assert_eq!((chooser.attach(3, now), chooser.samples.len()), (vec![ALL[0]], 0));
    }
}
