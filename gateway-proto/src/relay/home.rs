//! Which relay is home, and which are attached to: by measured latency, calmly.
//!
//! Latency is the median of what was measured within [`WINDOW`]. Home changes at once when it fails or is about to stop; else only to a relay
//! that is a third better, and not within [`CALM`] of the last change, or three times as near as the last [`ENOUGH`] measurements
//! of home, and then not within [`SHORT_CALM`]; a home that was not measured (its STUN is blocked, say) but is alive is kept. While
//! nothing is measured the order of the relay map decides.
//!
//! Home is chosen by latency alone. The spares are of other regions than home, where the map has them: what takes one relay of a region away (a
//! building, a provider, a cable) often takes the others with it. A relay whose region nobody said is a region of its own.
//!
//! Two partners that share a home need a second relay in common for the moment it falls silent. So beside home and spare every gateway is attached to the
//! *heir* of its home: a relay that follows from the map and the home alone, hence the same for all who live there. It becomes home when
//! home fails.
//!
//! A relay whose link has not been attached for [`DOWN_AFTER`], or that is about to stop, is *down*: chosen only where nothing else is left, and
//! replaced without calm. While every link is down, every relay of the map is tried, as far as the caller's cap goes.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    time::{Duration, Instant},
};

use crate::id::RelayId;

/// What was measured longer ago says nothing.
const WINDOW: Duration = Duration::from_secs(300);
/// At least so long between two changes of a home that works.
const CALM: Duration = Duration::from_secs(300);
/// A third of next to nothing is nothing.
const LEAST: Duration = Duration::from_millis(5);
/// The same when another is so much nearer that people notice.
const SHORT_CALM: Duration = Duration::from_secs(60);
/// What counts for that: [`ENOUGH`] measurements at the longest pauses between them.
const RECENT: Duration = Duration::from_secs(75);
/// Nobody notices less.
const NOTICEABLE: Duration = Duration::from_millis(30);
/// Medians of fewer samples do not unseat a home that works.
const ENOUGH: usize = 3;
/// A link that is not attached for so long is down: a short break is no reason to look for another relay.
const DOWN_AFTER: Duration = Duration::from_secs(2);
/// A relay that was given up is looked at again after this.
const FORGIVEN_AFTER: Duration = CALM;
/// Samples kept per relay: one per 20 s of the window, and some.
const SAMPLES: usize = 32;
/// Relays measured; a map with more is cut.
pub const MAX_RELAYS: usize = 64;

/// Why a relay is home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HomeReason {
    /// Nothing was measured: the order of the relay map.
    MapOrder,
    /// It had the lowest latency of those attached.
    Nearest,
    /// It was a third nearer than the former home.
    Nearer,
    /// It was at least three times as near as the former home, lately.
    MuchNearer,
    /// The former home failed, was about to stop, or left the map.
    FormerFailed,
}

impl HomeReason {
    /// A stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::MapOrder => "map_order",
            Self::Nearest => "nearest",
            Self::Nearer => "nearer",
            Self::MuchNearer => "much_nearer",
            Self::FormerFailed => "former_failed",
        }
    }
}

impl fmt::Display for HomeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MapOrder => "the first of the map: no latency is known",
            Self::Nearest => "the lowest latency",
            Self::Nearer => "a third nearer than the one before",
            Self::MuchNearer => "the one before became more than three times as far",
            Self::FormerFailed => "the one before failed or was stopped",
        })
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct HomeChooser {
    /// The map, in the policy's order.
    map: Vec<RelayId>,
    regions: BTreeMap<RelayId, String>,
    samples: BTreeMap<RelayId, VecDeque<(Instant, Duration)>>,
    home: Option<RelayId>,
    reason: Option<HomeReason>,
    changed_at: Option<Instant>,
    /// The last change of home, whatever was known of it.
    settled_at: Option<Instant>,
    /// Attached to, or to be.
    chosen: Vec<RelayId>,
    exchanged_at: Option<Instant>,
    /// How the links stand that run, or ran lately.
    links: BTreeMap<RelayId, LinkSeen>,
}

#[derive(Debug, Clone, Copy)]
struct LinkSeen {
    /// Attached, and not about to stop.
    stands: bool,
    /// So since then.
    since: Instant,
    /// When it was last known to run.
    seen: Instant,
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
        self.links.retain(|id, _| map.contains(id));
    }

    /// Every link that runs, and whether it is attached to a relay that is not about to stop. To be told at each change, and
    /// at [`Self::poll_timeout`].
    pub fn links(&mut self, running: impl Iterator<Item = (RelayId, bool)>, now: Instant) {
        let mut links = BTreeMap::new();
        for (relay, stands) in running.filter(|(relay, _)| self.map.contains(relay)) {
            let before = self.links.remove(&relay).filter(|before| before.stands == stands);
            let since = before.map_or(now, |before| before.since);
            links.insert(relay, LinkSeen { stands, since, seen: now });
        }
        // What was given up is remembered, or it would be chosen again at once.
        let given_up = |link: &LinkSeen| !link.stands && link.seen >= link.since + DOWN_AFTER && !link.forgiven(now);
        links.extend(std::mem::take(&mut self.links).into_iter().filter(|(_, link)| given_up(link)));
        self.links = links;
    }

    /// When a link that is not attached will count as down: [`Self::wanted`] may answer otherwise then.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let falling = self.links.values().filter(|link| !link.stands).map(|link| link.since + DOWN_AFTER);
        falling.filter(|at| *at > now).min()
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
        self.median(relay, 1, WINDOW, now)
    }

    /// Why home is home.
    pub fn reason(&self) -> Option<HomeReason> {
        self.reason
    }

    /// The relays to attach to, in the order in which they are to be used: `count` by latency, the home first, and the heir of the home. While no
    /// link stands all of the map, `most` at most.
    pub fn wanted(&mut self, count: usize, most: usize, now: Instant) -> Vec<RelayId> {
        let chosen = self.attach(count, now);
        let first = self.home.filter(|home| self.map.contains(home)).or(chosen.first().copied());
        let heir = first.and_then(|home| self.heir(home, now));
        let others = chosen.into_iter().filter(|relay| ![first, heir].contains(&Some(*relay)));
        let mut wanted: Vec<_> = first.into_iter().chain(heir).chain(others).collect();
        let looked_at = self.links.values().map(|link| link.seen).max();
        let down = |link: &LinkSeen| Some(link.seen) == looked_at && now >= link.since + DOWN_AFTER;
        if !self.links.values().any(|link| link.stands) && self.links.values().any(down) {
            let others: Vec<_> = self.map.iter().filter(|relay| !wanted.contains(relay)).copied().collect();
            wanted.extend(others);
        }
        wanted.truncate(most.max(1));
        wanted
    }

    /// The relay where those who live at `home` meet when it fails: the next of the map, cyclically, of another region than
    /// home if there is one. One that is down is passed over.
    fn heir(&self, home: RelayId, now: Instant) -> Option<RelayId> {
        let place = self.map.iter().position(|relay| *relay == home)?;
        let after = self.map.iter().cycle().skip(place + 1).take(self.map.len() - 1).enumerate();
        let rank = |turn: usize, relay: RelayId| (self.is_down(relay, now), self.together(relay, home), turn);
        after.min_by_key(|(turn, relay)| rank(*turn, **relay)).map(|(_, relay)| *relay)
    }

    /// The relays to attach to by latency, `count` of them where the map has so many, the home first. One that was chosen stays until
    /// another is a third better, or of another region than home where it is not, and no two are exchanged shortly after
    /// each other. One that is down is exchanged at once for one that is not.
    fn attach(&mut self, count: usize, now: Instant) -> Vec<RelayId> {
        let map = &self.map;
        self.chosen.retain(|relay| map.contains(relay));
        let home = self.home.filter(|home| map.contains(home));
        let home = home.or_else(|| map.iter().min_by_key(|relay| self.rank(**relay, now)).copied());
        let heir = home.and_then(|home| self.heir(home, now));
        let beside = |relay: RelayId| home != Some(relay) && home.is_some_and(|home| self.together(relay, home));
        let mut order = self.map.clone();
        order.sort_by_key(|relay| {
            let latency = self.latency(*relay, now);
            (home != Some(*relay), self.is_down(*relay, now), latency.is_none(), beside(*relay), latency)
        });
        // The heir, unless another is better: two that are as good are not both needed.
        if let Some(heir) = heir
            && let Some(place) = order.iter().position(|relay| *relay == heir)
            && let Some(first) = order.iter().position(|relay| home != Some(*relay))
            && first < place
            && beside(order[first]) == beside(heir)
            && self.is_down(order[first], now) == self.is_down(heir, now)
            && self.latency(order[first], now).is_none() == self.latency(heir, now).is_none()
            && !self.clearly_better(order[first], heir, now)
        {
            order[first..=place].rotate_right(1);
        }
        let mut chosen = self.chosen.clone();
        // What is down goes first, as long as there is something else. Home itself is left elsewhere: it may be the only one.
        let mut sound = order.iter().filter(|relay| !self.chosen.contains(relay) && !self.is_down(**relay, now));
        for place in chosen.iter_mut().filter(|relay| self.home != Some(**relay) && self.is_down(**relay, now)) {
            let Some(better) = sound.next() else { break };
            *place = *better;
        }
        // A new home that was not among them: the former one may be back soon, and is where partners still look.
        if let Some(home) = self.home.filter(|home| !chosen.contains(home) && self.map.contains(home))
            && chosen.len() >= count
            && self.settled_at.is_none_or(|at| now.saturating_duration_since(at) >= CALM)
            && let Some(last) = chosen.last_mut()
        {
            *last = home;
        }
        let calm = self.exchanged_at.is_none_or(|at| now.saturating_duration_since(at) >= CALM);
        let best = order.iter().find(|relay| !chosen.contains(relay) && !self.is_down(**relay, now)).copied();
        let spares = chosen.iter().enumerate().filter(|(_, relay)| self.home != Some(**relay));
        let worst = spares.max_by_key(|(_, relay)| (beside(**relay), self.rank(**relay, now)));
        let worst = worst.map(|(place, relay)| (place, *relay));
        let mut exchanged = false;
        if let (Some(best), Some((place, worst))) = (best, worst)
            && chosen.len() >= count
            && calm
            && match (beside(worst), beside(best)) {
                (true, false) => self.latency(best, now).is_some() || self.latency(worst, now).is_none(),
                (false, true) => false,
                (true, true) | (false, false) => self.clearly_better(best, worst, now),
            }
        {
            chosen[place] = best;
            exchanged = true;
        }
        for relay in order {
            if chosen.len() < count && !chosen.contains(&relay) {
                chosen.push(relay);
            }
        }
        if exchanged {
            self.exchanged_at = Some(now);
        }
        let home = self.home;
        chosen.sort_by_key(|relay| home != Some(*relay));
        self.chosen.clone_from(&chosen);
        chosen
    }

    /// Not attached for long, or given up lately.
    fn is_down(&self, relay: RelayId, now: Instant) -> bool {
        self.links.get(&relay).is_some_and(|link| !link.stands && now >= link.since + DOWN_AFTER && !link.forgiven(now))
    }

    /// The home, given the relays that are attached and not about to stop. A home that fails is kept only while there is no
    /// other; its heir follows where it is attached, so that partners follow each other, and a nearer one may follow that.
    pub fn decide(&mut self, attached: &[RelayId], now: Instant) -> Option<RelayId> {
        let best = self.map.iter().filter(|relay| attached.contains(relay)).min_by_key(|relay| self.rank(**relay, now));
        let Some(best) = best.copied() else { return self.home };
        let measured = self.latency(best, now).is_some();
        let reason = match self.home {
            Some(home) if attached.contains(&home) => match self.unseats(home, attached, now) {
                Some((better, reason)) => return self.settle(better, reason, now),
                None => {
                    // A guess that turned out to be right.
                    let enough = self.median(home, ENOUGH, WINDOW, now).is_some();
                    if self.reason == Some(HomeReason::MapOrder) && home == best && enough {
                        return self.settle(home, HomeReason::Nearest, now);
                    }
                    return self.home;
                }
            },
            Some(home) => {
                let heir = self.heir(home, now).filter(|heir| attached.contains(heir));
                return self.settle(heir.unwrap_or(best), HomeReason::FormerFailed, now);
            }
            None if measured => HomeReason::Nearest,
            None => HomeReason::MapOrder,
        };
        self.settle(best, reason, now)
    }

    fn settle(&mut self, home: RelayId, reason: HomeReason, now: Instant) -> Option<RelayId> {
        if self.home.replace(home) != Some(home) {
            self.settled_at = Some(now);
        }
        self.reason = Some(reason);
        // One that nothing was known of was a guess, and may be corrected at once.
        self.changed_at = self.latency(home, now).map(|_| now);
        self.home
    }

    /// A relay that is so much better than a home that works, and why.
    fn unseats(&self, home: RelayId, attached: &[RelayId], now: Instant) -> Option<(RelayId, HomeReason)> {
        let since = self.changed_at.map(|at| now.saturating_duration_since(at));
        let nearest = |window: Duration| {
            let latency = |relay: &RelayId| Some((self.median(*relay, ENOUGH, window, now)?, *relay));
            let others = self.map.iter().filter(|relay| **relay != home && attached.contains(relay));
            let ((best, relay), (own, _)) = (others.filter_map(latency).min()?, latency(&home)?);
            Some((relay, best, own))
        };
        if since.is_none_or(|since| since >= CALM)
            && let Some((relay, best, own)) = nearest(WINDOW)
            && is_clearly_better(best, own)
        {
            return Some((relay, HomeReason::Nearer));
        }
        if since.is_none_or(|since| since >= SHORT_CALM)
            && let Some((relay, best, _)) = nearest(RECENT)
            && let Some(own) = self.lowest_of_the_last(home, now)
            && best * 3 < own
            && own - best >= NOTICEABLE
        {
            return Some((relay, HomeReason::MuchNearer));
        }
        None
    }

    fn together(&self, one: RelayId, other: RelayId) -> bool {
        self.regions.get(&one).is_some_and(|region| self.regions.get(&other) == Some(region))
    }

    /// A third better, both measured often enough.
    fn clearly_better(&self, best: RelayId, other: RelayId, now: Instant) -> bool {
        match (self.median(best, ENOUGH, WINDOW, now), self.median(other, ENOUGH, WINDOW, now)) {
            (Some(best), Some(other)) => is_clearly_better(best, other),
            (_, None) | (None, _) => false,
        }
    }

    /// Measured ones first, by latency; then in the order of the map, which sorting keeps.
    fn rank(&self, relay: RelayId, now: Instant) -> (bool, Option<Duration>) {
        let latency = self.latency(relay, now);
        (latency.is_none(), latency)
    }

    /// Of the last [`ENOUGH`] measurements, if there were so many lately.
    fn lowest_of_the_last(&self, relay: RelayId, now: Instant) -> Option<Duration> {
        let samples = self.samples.get(&relay)?;
        let recent = samples.iter().rev().take_while(|(at, _)| now.saturating_duration_since(*at) <= RECENT);
        let last: Vec<_> = recent.take(ENOUGH).map(|(_, rtt)| *rtt).collect();
        last.iter().min().copied().filter(|_| last.len() == ENOUGH)
    }

    fn median(&self, relay: RelayId, enough: usize, window: Duration, now: Instant) -> Option<Duration> {
        let recent = |at: Instant| now.saturating_duration_since(at) <= window;
        let samples = self.samples.get(&relay)?;
        let mut rtts: Vec<_> = samples.iter().filter(|(at, _)| recent(*at)).map(|(_, rtt)| *rtt).collect();
        rtts.sort_unstable();
        (rtts.len() >= enough).then(|| rtts[rtts.len() / 2])
    }
}

impl LinkSeen {
    /// Given up so long ago that it may be tried again.
    fn forgiven(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.seen) >= FORGIVEN_AFTER
    }
}

fn is_clearly_better(best: Duration, other: Duration) -> bool {
    best * 3 < other * 2 && other - best >= LEAST
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
    use proptest::prelude::*;

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
    fn a_home_that_becomes_many_times_as_far_is_left_after_a_minute_and_the_reason_is_told() {
        let (mut chooser, now) = chooser();
        let at = |secs| now + Duration::from_secs(secs);
        let round = |chooser: &mut HomeChooser, home: u64, other: u64, secs| {
            measure(chooser, ALL[0], home, 1, at(secs));
            measure(chooser, ALL[1], other, 1, at(secs));
            chooser.decide(&ALL, at(secs))
        };
        assert_eq!((round(&mut chooser, 10, 40, 0), chooser.reason()), (Some(ALL[0]), Some(HomeReason::Nearest)));
        for secs in [20, 40, 60] {
            assert_eq!(round(&mut chooser, 10, 40, secs), Some(ALL[0]));
        }
        for secs in [80, 100] {
            assert_eq!(round(&mut chooser, 200, 40, secs), Some(ALL[0]), "a short trouble is borne");
        }
        assert_eq!((round(&mut chooser, 200, 40, 120), chooser.reason()), (Some(ALL[1]), Some(HomeReason::MuchNearer)));
        for secs in [140, 160] {
            assert_eq!(round(&mut chooser, 1, 900, secs), Some(ALL[1]), "not back at once");
        }
        assert_eq!(chooser.decide(&[ALL[0]], at(161)), Some(ALL[0]));
        assert_eq!(chooser.reason(), Some(HomeReason::FormerFailed));
    }

    proptest! {
        /// Each measurement of either relay is up to half again as long as its wire.
        #[test]
        fn under_jitter_home_stays_where_it_is(own in 1_u64..200, more in 0_u64..100, jitter in prop::collection::vec((0_u64..=50, 0_u64..=50), 60)) {
            let (mut chooser, now) = chooser();
            let mut first = None;
            for (round, (one, another)) in jitter.into_iter().enumerate() {
                let at = now + Duration::from_secs(20 * round as u64);
                for (relay, ms, percent) in [(ALL[0], own, one), (ALL[1], own + more, another)] {
                    chooser.measured(relay, Duration::from_micros(ms * (1000 + 10 * percent)), at);
                }
                let home = chooser.decide(&ALL[..2], at);
                // One that jitter put there may be corrected; the nearer one stays.
                if *first.get_or_insert(home) == Some(ALL[0]) {
                    prop_assert_eq!(home, Some(ALL[0]));
                }
            }
        }
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
    fn a_guess_that_was_right_becomes_a_choice() {
        let (mut chooser, now) = chooser();
        chooser.decide(&ALL, now);
        for (count, reason) in [(0, HomeReason::MapOrder), (2, HomeReason::MapOrder), (1, HomeReason::Nearest)] {
            measure(&mut chooser, ALL[0], 10, count, now);
            assert_eq!((chooser.decide(&ALL, now), chooser.reason()), (Some(ALL[0]), Some(reason)));
        }
        measure(&mut chooser, ALL[1], 1, 3, now);
        assert_eq!(chooser.decide(&ALL, now), Some(ALL[0]), "calmly from now on");
    }

    #[test]
    fn on_one_lan_a_third_is_nothing() {
        let (mut chooser, now) = chooser();
        measure(&mut chooser, ALL[0], 4, 5, now);
        assert_eq!(chooser.decide(&ALL, now), Some(ALL[0]));
        let later = now + CALM;
        measure(&mut chooser, ALL[0], 4, 5, later);
        measure(&mut chooser, ALL[1], 0, 5, later);
        assert_eq!(chooser.decide(&ALL, later), Some(ALL[0]));
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

    const FOUR: [RelayId; 4] = [ALL[0], ALL[1], ALL[2], RelayId::from_bytes([4; 16])];

    fn wanted(chooser: &mut HomeChooser, links: &[(RelayId, bool)], now: Instant) -> Vec<RelayId> {
        chooser.links(links.iter().copied(), now);
        chooser.wanted(2, 8, now)
    }

    #[test]
    fn a_spare_that_is_down_is_replaced_by_one_that_lives_and_not_taken_back_soon() {
        let (mut chooser, now) = chooser();
        let at = |ms| now + Duration::from_millis(ms);
        for (relay, ms) in ALL.into_iter().zip([10, 11, 60]) {
            measure(&mut chooser, relay, ms, 5, now);
        }
        assert_eq!(chooser.decide(&ALL[..2], now), Some(ALL[0]));
        assert_eq!(wanted(&mut chooser, &[(ALL[0], true), (ALL[1], true)], now), [ALL[0], ALL[1]]);
        let broken = [(ALL[0], true), (ALL[1], false)];
        assert_eq!(wanted(&mut chooser, &broken, at(100)), [ALL[0], ALL[1]], "it may be back at once");
        assert_eq!(chooser.poll_timeout(at(100)), Some(at(2_100)));
        assert_eq!(wanted(&mut chooser, &broken, at(2_100)), [ALL[0], ALL[2]], "however calm it should be");
        assert_eq!(chooser.poll_timeout(at(2_100)), None);
        let good = [(ALL[0], true), (ALL[2], true)];
        for secs in [3, 20, 299] {
            for (relay, ms) in ALL.into_iter().zip([10, 11, 60]) {
                measure(&mut chooser, relay, ms, 3, at(secs * 1_000));
            }
            assert_eq!(wanted(&mut chooser, &good, at(secs * 1_000)), [ALL[0], ALL[2]], "its STUN may live");
        }
        assert_eq!(wanted(&mut chooser, &good, at(303_000)), [ALL[0], ALL[1]], "after a while it is tried again");
    }

    #[test]
    fn a_relay_that_restarts_is_no_spare_and_a_dead_one_is_kept_where_there_is_no_other() {
        let (mut chooser, now) = chooser();
        let later = now + DOWN_AFTER;
        chooser.set_map(ALL[..2].iter().map(|relay| (*relay, None)));
        chooser.decide(&ALL[..1], now);
        let links = [(ALL[0], true), (ALL[1], false)];
        wanted(&mut chooser, &links, now);
        assert_eq!(wanted(&mut chooser, &links, later), [ALL[0], ALL[1]]);
        chooser.set_map(ALL.into_iter().map(|relay| (relay, None)));
        assert_eq!(wanted(&mut chooser, &links, later), [ALL[0], ALL[2]]);
    }

    #[test]
    fn while_nothing_stands_every_relay_of_the_map_is_tried_up_to_the_cap_until_one_is_found() {
        let (mut chooser, now) = chooser();
        let at = |ms| now + Duration::from_millis(ms);
        chooser.set_map(FOUR.into_iter().map(|relay| (relay, None)));
        assert_eq!(wanted(&mut chooser, &[], now), [FOUR[0], FOUR[1]]);
        let mut links = vec![(FOUR[0], false), (FOUR[1], false)];
        wanted(&mut chooser, &links, now);
        assert_eq!(wanted(&mut chooser, &links, at(1_900)).len(), 2, "they are only being connected");
        assert_eq!(wanted(&mut chooser, &links, at(2_000)).len(), 4);
        links.extend([(FOUR[2], false), (FOUR[3], false)]);
        for ms in [2_010, 3_000, 60_000] {
            chooser.links(links.iter().copied(), at(ms));
            assert_eq!(chooser.wanted(2, 8, at(ms)).len(), 4, "all of them, for as long as it takes");
            assert_eq!(chooser.wanted(2, 3, at(ms)).len(), 3);
        }
        links[3].1 = true;
        chooser.links(links.iter().copied(), at(61_000));
        assert_eq!(chooser.decide(&[FOUR[3]], at(61_000)), Some(FOUR[3]));
        let found = chooser.wanted(2, 8, at(61_000));
        assert!(found[0] == FOUR[3] && found.len() <= 3, "{found:?}");
    }

    #[test]
    fn gateways_with_one_home_have_a_second_relay_in_common_whatever_they_measure() {
        let mut all = Vec::new();
        for latencies in [[5, 90, 90, 20], [5, 90, 20, 90], [5, 20, 90, 90], [5, 90, 90, 90]] {
            let (mut chooser, now) = chooser();
            chooser.set_map(FOUR.into_iter().map(|relay| (relay, None)));
            for (relay, ms) in FOUR.into_iter().zip(latencies) {
                measure(&mut chooser, relay, ms, 5, now);
            }
            let first = chooser.wanted(2, 8, now);
            assert_eq!(chooser.decide(&first, now), Some(FOUR[0]));
            let wanted = chooser.wanted(2, 8, now);
            assert!(wanted.len() <= 3, "{wanted:?}");
            assert_eq!(wanted[..2], [FOUR[0], FOUR[1]], "{latencies:?}");
            // Home falls silent; the fast spare stands too.
            let rest: Vec<_> = wanted[1..].iter().map(|relay| (*relay, true)).collect();
            let attached: Vec<_> = wanted[1..].to_vec();
            chooser.links(rest.iter().copied().chain([(FOUR[0], false)]), now);
            assert_eq!(chooser.decide(&attached, now), Some(FOUR[1]), "they stay together");
            let next = chooser.wanted(2, 8, now);
            assert!(next.len() <= 4 && next[0] == FOUR[1], "{next:?}");
            chooser.links(next.iter().map(|relay| (*relay, *relay != FOUR[0])), now + DOWN_AFTER);
            all.push(chooser.wanted(2, 8, now + DOWN_AFTER));
        }
        assert!(all.iter().all(|wanted| wanted[..2] == [FOUR[1], FOUR[2]]), "{all:?}");
    }

    #[test]
    fn the_heir_of_a_home_is_of_another_region_and_passes_over_what_is_down() {
        let (mut chooser, now) = chooser();
        chooser.set_map(FOUR.into_iter().zip([Some("north"), Some("north"), Some("south"), None]));
        assert_eq!(chooser.heir(FOUR[0], now), Some(FOUR[2]));
        assert_eq!(chooser.heir(FOUR[3], now), Some(FOUR[0]), "the map is a ring");
        chooser.links([(FOUR[2], false)].into_iter(), now);
        assert_eq!(chooser.heir(FOUR[0], now + DOWN_AFTER), Some(FOUR[3]));
        chooser.set_map([(FOUR[0], None)].into_iter());
        assert_eq!(chooser.heir(FOUR[0], now), None);
        assert_eq!(chooser.heir(FOUR[1], now), None);
    }
}
