//! What losses and round trips say about a path: whether a queue builds up on it, and whether a loss means congestion.
//!
//! A congestion controller that knows only losses fills every queue to the brim, and takes every loss for a full one. The
//! first makes a message wait behind a transfer, the second makes a line that loses one packet in a hundred all but
//! useless. [`QueueWatch`] sees the queue in the round trips; [`LossBudget`] forgives the few losses that come without one.
//!
//! Both know that they may not be alone: a queue that stays although we gave way again and again is somebody else's doing.
//! Then what was given is taken back, and the controller below behaves as if neither existed, until the queue has gone.

use std::time::{Duration, Instant};

/// The shortest round trip is looked for over this long at least, twice this at most: a route may have become longer.
const BASE_WINDOW: Duration = Duration::from_secs(10);
/// A queue shorter than this is left alone whatever the path: schedulers and delayed acknowledgements look like one.
const LEAST_TARGET: Duration = Duration::from_millis(10);
/// Packets of a round trip below which it says nothing: few packets fill no queue, and their acknowledgements may be
/// delayed.
const ENOUGH: u32 = 8;
/// Give way this often without the queue becoming shorter before it counts as somebody else's.
const PATIENCE: u8 = 4;
/// Compete for this long at least once the queue is somebody else's.
const COMPETE: Duration = Duration::from_secs(10);
/// Thousandths of what a path holds that are in flight while a queue drains.
const DRAINING: u64 = 940;
/// Share of the acknowledged bytes that may be lost without meaning congestion: one in forty.
const FORGIVEN_SHARE: u64 = 40;
/// Packets that may be lost at a stretch without meaning congestion.
const FORGIVEN_BURST: u64 = 10;

/// What a round trip says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Nothing.
    Calm,
    /// There is a queue that may be ours: send less, now. So many thousandths of what is in flight would do without it.
    GiveWay(u64),
    /// It is not: go on as if we had never given way.
    TakeBack,
}

/// About one round trip.
#[derive(Debug, Clone)]
struct Round {
    shortest: Duration,
    ends: Instant,
    packets: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The queue is short.
    Calm,
    /// We gave way, last when the queue was so long; so often it did not become shorter by that.
    Draining { queue: Duration, in_vain: u8 },
    /// Somebody else's queue, since then.
    Competing(Instant),
}

/// Sees in the round trips whether packets queue somewhere.
#[derive(Debug, Clone)]
pub struct QueueWatch {
    base: ShortestSeen,
    round: Option<Round>,
    /// No verdict before: what was decided last must be seen first.
    blind_until: Option<Instant>,
    phase: Phase,
}

impl Default for QueueWatch {
    fn default() -> Self {
        Self { base: ShortestSeen::default(), round: None, blind_until: None, phase: Phase::Calm }
    }
}

impl QueueWatch {
    /// A packet sent at `sent` was acknowledged.
    pub fn acknowledged(&mut self, sent: Instant, now: Instant) -> Sign {
        let trip = now.saturating_duration_since(sent);
        self.base.saw(trip, now);
        let round = self.round.get_or_insert(Round { shortest: trip, ends: now + trip, packets: 0 });
        round.shortest = round.shortest.min(trip);
        round.packets += 1;
        if now < round.ends {
            return Sign::Calm;
        }
        let Round { shortest, packets, .. } = *round;
        self.round = None;
        if packets < ENOUGH { Sign::Calm } else { self.judge(shortest, now) }
    }

    /// Whether there is hardly a queue, so that a loss does not come from a full one.
    pub fn is_short(&self) -> bool {
        self.phase == Phase::Calm
    }

    /// A round is over; `shortest` is its shortest round trip: the others had bad luck with delayed acknowledgements.
    fn judge(&mut self, shortest: Duration, now: Instant) -> Sign {
        let base = self.base.shortest();
        let target = (base / 4).max(LEAST_TARGET);
        let queue = shortest.saturating_sub(base);
        // Emptied, not only shortened: else what is left of it would be taken for the path after a while.
        let gone = queue <= target / 4;
        let blind = self.blind_until.is_some_and(|until| now < until);
        match self.phase {
            Phase::Calm if queue > target => self.give_way(queue, 1, shortest, now),
            Phase::Draining { .. } | Phase::Competing(_) if gone && !self.must_compete(now) => {
                self.phase = Phase::Calm;
                Sign::Calm
            }
            Phase::Draining { .. } if blind => Sign::Calm,
            // A slow start that went too far takes several rounds to drain.
            Phase::Draining { queue: former, in_vain } if queue <= former - former / 8 => {
                self.give_way(queue, in_vain, shortest, now)
            }
            Phase::Draining { in_vain, .. } if in_vain < PATIENCE => self.give_way(queue, in_vain + 1, shortest, now),
            Phase::Draining { .. } => {
                self.phase = Phase::Competing(now);
                Sign::TakeBack
            }
            Phase::Calm | Phase::Competing(_) => Sign::Calm,
        }
    }

    fn give_way(&mut self, queue: Duration, in_vain: u8, shortest: Duration, now: Instant) -> Sign {
        self.phase = Phase::Draining { queue, in_vain };
        let base = self.base.shortest();
        // Until packets of the smaller window are back, the pause before the first of them included.
        self.blind_until = Some(now + shortest + shortest / 2);
        // A little less than what the path holds, so that the queue drains.
        let would_do = base.as_nanos() * u128::from(DRAINING) / shortest.as_nanos().max(1);
        Sign::GiveWay(u64::try_from(would_do).unwrap_or(DRAINING).min(DRAINING))
    }

    fn must_compete(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Competing(since) if now.saturating_duration_since(since) < COMPETE)
    }
}

/// The shortest round trip of the last while.
#[derive(Debug, Clone, Default)]
struct ShortestSeen {
    since: Option<Instant>,
    former: Option<Duration>,
    current: Option<Duration>,
}

impl ShortestSeen {
    fn saw(&mut self, trip: Duration, now: Instant) {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= BASE_WINDOW {
            self.since = Some(now);
            self.former = self.current.take();
        }
        self.current = Some(self.current.map_or(trip, |least| least.min(trip)));
    }

    fn shortest(&self) -> Duration {
        self.current.into_iter().chain(self.former).min().unwrap_or_default()
    }
}

/// Forgives losses as long as they are few.
#[derive(Debug, Clone)]
pub struct LossBudget {
    /// Bytes that may still be lost.
    left: u64,
    packet: u64,
}

impl LossBudget {
    /// A budget for packets of `packet` bytes.
    pub fn new(packet: u16) -> Self {
        let packet = u64::from(packet);
        Self { left: packet * FORGIVEN_BURST, packet }
    }

    /// Bytes were acknowledged while `window` may be in flight.
    pub fn acknowledged(&mut self, bytes: u64, window: u64) {
        let most = (self.packet * FORGIVEN_BURST).saturating_add(window / FORGIVEN_SHARE);
        // Added up in parts of a byte it would be exact; acknowledgements of single packets are large enough.
        self.left = (self.left + bytes / FORGIVEN_SHARE).min(most);
    }

    /// Bytes were lost: whether that is forgiven. What is not leaves a fresh budget behind.
    pub fn forgives(&mut self, lost: u64) -> bool {
        let forgiven = lost <= self.left;
        self.left = if forgiven { self.left - lost } else { self.packet * FORGIVEN_BURST };
        forgiven
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Acknowledges a packet every millisecond for `time`, each after a round trip that may depend on the time; returns
    /// how often we gave way.
    fn flow(watch: &mut QueueWatch, now: &mut Instant, time: Duration, trip: impl Fn(Duration) -> Duration) -> usize {
        let begun = *now;
        let mut gave_way = 0;
        while *now < begun + time {
            *now += MS;
            gave_way += usize::from(matches!(watch.acknowledged(*now - trip(*now - begun), *now), Sign::GiveWay(_)));
        }
        gave_way
    }

    fn start() -> (QueueWatch, Instant) {
        (QueueWatch::default(), Instant::now() + Duration::from_secs(100))
    }

    #[test]
    fn an_even_path_says_nothing() {
        let (mut watch, mut now) = start();
        assert_eq!(flow(&mut watch, &mut now, 5_000 * MS, |_| 80 * MS), 0);
        assert!(watch.is_short());
    }

    #[test]
    fn a_growing_queue_is_seen_before_it_makes_the_path_half_as_long_again() {
        let (mut watch, mut now) = start();
        flow(&mut watch, &mut now, 1_000 * MS, |_| 80 * MS);
        let mut queue = Duration::ZERO;
        while flow(&mut watch, &mut now, 10 * MS, |_| 80 * MS + queue) == 0 {
            queue += MS;
            assert!(queue < 40 * MS, "never seen");
        }
        assert!(!watch.is_short());
    }

    #[test]
    fn a_queue_that_stays_though_we_gave_way_is_somebody_elses_until_it_is_gone() {
        let (mut watch, mut now) = start();
        flow(&mut watch, &mut now, 1_000 * MS, |_| 40 * MS);
        let gave_way = flow(&mut watch, &mut now, 8_000 * MS, |_| 90 * MS);
        assert_eq!(gave_way, usize::from(PATIENCE));
        assert!(!watch.is_short(), "losses count in full");
        flow(&mut watch, &mut now, 10_000 * MS, |_| 40 * MS);
        assert!(watch.is_short(), "the queue has gone");
        assert!(flow(&mut watch, &mut now, 1_000 * MS, |_| 90 * MS) > 0);
    }

    #[test]
    fn what_was_given_in_vain_is_taken_back_once() {
        let (mut watch, mut now) = start();
        flow(&mut watch, &mut now, 1_000 * MS, |_| 40 * MS);
        let signs: Vec<_> = (0..5_000)
            .map(|_| {
                now += MS;
                watch.acknowledged(now - 90 * MS, now)
            })
            .filter(|sign| *sign != Sign::Calm)
            .collect();
        // 40 of 90 ms are the path, and a little less than that lets the queue drain.
        assert_eq!(signs, [vec![Sign::GiveWay(417); usize::from(PATIENCE)], vec![Sign::TakeBack]].concat());
    }

    #[test]
    fn a_route_that_became_longer_is_no_queue_for_ever() {
        let (mut watch, mut now) = start();
        flow(&mut watch, &mut now, 5_000 * MS, |_| 20 * MS);
        flow(&mut watch, &mut now, 30_000 * MS, |_| 60 * MS);
        assert!(watch.is_short(), "60 ms is what the route takes now");
    }

    #[test]
    fn delayed_acknowledgements_of_single_messages_are_no_queue() {
        let (mut watch, mut now) = start();
        flow(&mut watch, &mut now, 1_000 * MS, |_| 20 * MS);
        for _ in 0..100 {
            now += 100 * MS;
            assert_eq!(watch.acknowledged(now - 45 * MS, now), Sign::Calm);
        }
        assert!(watch.is_short());
    }

    #[test]
    fn jitter_alone_is_no_queue() {
        let (mut watch, mut now) = start();
        let jitter = |at: Duration| 30 * MS + MS * ((at.as_millis() as u32 * 7) % 25);
        assert_eq!(flow(&mut watch, &mut now, 20_000 * MS, jitter), 0);
    }

    #[test]
    fn one_loss_in_a_hundred_is_forgiven_and_one_in_ten_is_not() {
        for (every, forgiven) in [(100, true), (10, false)] {
            let mut budget = LossBudget::new(1_200);
            let refused = (1..10_000).filter(|n| match n % every {
                0 => !budget.forgives(1_200),
                _ => {
                    budget.acknowledged(1_200, 120_000);
                    false
                }
            });
            assert_eq!(refused.count() == 0, forgiven, "one in {every}");
        }
    }

    #[test]
    fn a_burst_of_losses_means_congestion_whatever_came_before() {
        let mut budget = LossBudget::new(1_200);
        budget.acknowledged(1 << 40, 1_200_000);
        assert!(!budget.forgives(60 * 1_200));
        assert!(budget.forgives(1_200), "a fresh budget");
    }
}
