//! When to offer and when to probe: the time table of hole punching.

use std::time::{Duration, Instant};

use crate::backoff::Backoff;

/// Probes of one attempt: close together at first, because both sides start at the same moment and NATs differ by
/// milliseconds, then doubling.
const BURST_STEPS: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(33),
    Duration::from_millis(67),
    Duration::from_millis(133),
    Duration::from_millis(267),
    Duration::from_millis(533),
    Duration::from_millis(1_066),
];

/// Starts of the attempts of one round. Nearly all successes are first attempts; the later ones are for a slow relay or
/// a NAT that was confused by the first.
const ATTEMPT_STARTS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(3), Duration::from_secs(7)];

/// Hops that the first packets of the leading side may make in the second and third attempt: enough to open its own NAT,
/// too few to reach the other, which might take offence at a packet it did not ask for.
const SHORT_LIVES: [u8; 4] = [2, 3, 4, 7];

/// Hops that the very first packets of both sides may make: out of our own NAT and no further. A packet that reaches a plain
/// masquerading router before that has a mapping takes the place of the mapping: for as long as its entry lives (30 s and
/// more on Linux, and anew with every such packet) the router gives our packets to the peer another outer port. Between
/// near sites no clock is good enough to let long-lived first packets cross on the way.
pub(super) const OPENER: u8 = 2;

/// The other side starts so much later in those attempts: its first packets find the door open, and its own door is open
/// when the leading side's first long-lived packet arrives.
const FOLLOW_DELAY: Duration = Duration::from_millis(200);

/// After the last probe of a round, answers may still come.
const ROUND_GRACE: Duration = Duration::from_secs(2);

/// An offer is answered within two relay round trips or not at all.
pub(super) const OFFER_TIMEOUT: Duration = Duration::from_secs(3);

/// Offers in a row before the peer counts as absent.
const OFFER_TRIES: u32 = 3;

/// Between two offers of ours, whatever asks for them.
pub(super) const OFFER_INTERVAL: Duration = Duration::from_secs(2);

/// Between rounds: 60 s, doubling to 15 min.
const FIRST_BACKOFF: Duration = Duration::from_secs(60);
const BACKOFF_LIMIT: Duration = Duration::from_secs(15 * 60);
/// While no stream is open, doubling to one hour: a round is 21 probes to each address, nobody waits for its success, and every 15 min they
/// would cost as much as the tunnel itself.
const IDLE_BACKOFF_LIMIT: Duration = Duration::from_secs(60 * 60);

/// Rounds without a success after which chance, a restart or a confused NAT explain it no more. Some routers forget a wrong entry
/// within the pause between two rounds.
const CONCLUSIVE_ROUNDS: u32 = 2;

/// Where punching stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing to do: not wanted, succeeded, or there is no way to signal.
    Idle,
    /// An offer is to be sent.
    OfferDue {
        /// When.
        at: Instant,
        /// How many went unanswered before it.
        tries: u32,
    },
    /// An offer waits for its answer.
    Offered {
        /// Until when.
        until: Instant,
        /// Which one in a row.
        tries: u32,
    },
    /// Bursts of probes.
    Round(Round),
    /// Another offer later.
    Backoff {
        /// When, if streams are open then.
        until: Instant,
        /// When anyway.
        idle_until: Instant,
    },
}

impl Phase {
    /// When a pause between two rounds is over; `None`: there is none.
    pub(super) fn pause_ends(&self, active: bool) -> Option<Instant> {
        match self {
            Self::Backoff { until, .. } if active => Some(*until),
            Self::Backoff { idle_until, .. } => Some(*idle_until),
            Self::Idle | Self::OfferDue { .. } | Self::Offered { .. } | Self::Round(_) => None,
        }
    }
}

/// Up to three attempts of seven probes each, no two alike: in the first both sides do the same, an opener and then probes that
/// arrive, in the second the side that offered leads with packets that die on the way, in the third the other one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Round {
    started_at: Instant,
    /// Our side made the offer.
    offered: bool,
    attempt: usize,
    step: usize,
}

/// What a round wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RoundStep {
    /// A probe to every pair.
    Burst {
        /// The first of an attempt.
        first: bool,
        /// Hops it may make, where it shall not arrive.
        ttl: Option<u8>,
    },
    /// The round is over.
    Over,
}

impl Round {
    fn new(started_at: Instant, offered: bool) -> Self {
        Self { started_at, offered, attempt: 0, step: 0 }
    }

    pub(super) fn started_at(&self) -> Instant {
        self.started_at
    }

    fn next_at(&self) -> Instant {
        match ATTEMPT_STARTS.get(self.attempt) {
            Some(start) => self.started_at + *start + BURST_STEPS[self.step] + self.delay(),
            None => {
                self.started_at
                    + ATTEMPT_STARTS[ATTEMPT_STARTS.len() - 1]
                    + BURST_STEPS[BURST_STEPS.len() - 1]
                    + ROUND_GRACE
            }
        }
    }

    /// Whether our side opens the attempt with short-lived packets.
    fn leads(&self) -> bool {
        match self.attempt {
            1 => self.offered,
            2 => !self.offered,
            _ => false,
        }
    }

    fn delay(&self) -> Duration {
        let follows = matches!(self.attempt, 1 | 2) && !self.leads();
        if follows { FOLLOW_DELAY } else { Duration::ZERO }
    }

    fn ttl(&self) -> Option<u8> {
        match self.attempt {
            0 => (self.step == 0).then_some(OPENER),
            _ => self.leads().then(|| SHORT_LIVES.get(self.step).copied()).flatten(),
        }
    }

    /// The step that is due, if one is. A late driver gets one burst, not all it missed.
    pub(super) fn poll(&mut self, direct: bool, now: Instant) -> Option<RoundStep> {
        let mut due = None;
        while now >= self.next_at() {
            if self.attempt >= ATTEMPT_STARTS.len() || (direct && self.attempt > 0) {
                return Some(RoundStep::Over);
            }
            let first = self.step == 0 || matches!(due, Some(RoundStep::Burst { first: true, .. }));
            due = Some(RoundStep::Burst { first, ttl: self.ttl() });
            self.step += 1;
            if self.step == BURST_STEPS.len() {
                self.step = 0;
                self.attempt += 1;
            }
        }
        due
    }
}

/// The phase and the delay between rounds.
#[derive(Debug)]
pub(super) struct Punch {
    pub(super) phase: Phase,
    /// Our last offer went unanswered, and nothing came of another one since.
    pub(super) peer_absent: bool,
    backoff: Backoff,
    /// Rounds that found nothing since something changed.
    failed_rounds: u32,
    last_offer_at: Option<Instant>,
}

impl Default for Punch {
    fn default() -> Self {
        Self {
            phase: Phase::Idle,
            peer_absent: false,
            backoff: Backoff::new(FIRST_BACKOFF, IDLE_BACKOFF_LIMIT),
            failed_rounds: 0,
            last_offer_at: None,
        }
    }
}

impl Punch {
    /// Something changed: the next failure waits the shortest time again.
    pub(super) fn rearm(&mut self) {
        self.backoff.reset();
        self.failed_rounds = 0;
    }

    /// Wants an offer at `at`, or as soon after as offers may be sent. Leaves an exchange that is under way alone.
    pub(super) fn request_offer(&mut self, at: Instant) {
        let at = self.last_offer_at.map_or(at, |last| at.max(last + OFFER_INTERVAL));
        match self.phase {
            Phase::Offered { .. } => {}
            Phase::OfferDue { at: planned, .. } if planned <= at => {}
            // In the first moments of a round both sides know all there is to know.
            Phase::Round(round) if at < round.started_at() + OFFER_INTERVAL => {}
            Phase::Idle | Phase::OfferDue { .. } | Phase::Round(_) | Phase::Backoff { .. } => {
                self.phase = Phase::OfferDue { at, tries: 0 };
            }
        }
    }

    /// An offer left.
    pub(super) fn offered(&mut self, tries: u32, now: Instant) {
        self.last_offer_at = Some(now);
        self.phase = Phase::Offered { until: now + OFFER_TIMEOUT, tries: tries + 1 };
    }

    /// An offer went unanswered: another one, or a pause.
    pub(super) fn offer_timed_out(&mut self, tries: u32, random: u32, now: Instant) {
        self.peer_absent = true;
        if tries < OFFER_TRIES {
            self.phase = Phase::OfferDue { at: now, tries };
        } else {
            self.back_off(random, now);
        }
    }

    /// Both sides know each other's candidates: probes start at `at`.
    pub(super) fn start_round(&mut self, at: Instant, offered: bool) {
        self.phase = Phase::Round(Round::new(at, offered));
        self.peer_absent = false;
    }

    /// Whether an attempt is made or prepared now.
    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.phase, Phase::OfferDue { .. } | Phase::Offered { .. } | Phase::Round(_))
    }

    /// The round found nothing.
    pub(super) fn round_failed(&mut self, random: u32, now: Instant) {
        self.failed_rounds = self.failed_rounds.saturating_add(1);
        self.back_off(random, now);
    }

    /// Whether enough was tried since something changed to say what is between the two sides.
    pub(super) fn is_conclusive(&self) -> bool {
        self.failed_rounds >= CONCLUSIVE_ROUNDS
    }

    /// Another offer later.
    fn back_off(&mut self, random: u32, now: Instant) {
        let pause = self.backoff.next_delay(random);
        let longest = Backoff::new(BACKOFF_LIMIT, BACKOFF_LIMIT).next_delay(random);
        self.phase = Phase::Backoff { until: now + pause.min(longest), idle_until: now + pause };
    }

    /// When and why the next step is due; `active`: streams are open.
    pub(super) fn next_at(&self, active: bool) -> Option<(Instant, &'static str)> {
        match self.phase {
            Phase::Idle => None,
            Phase::OfferDue { at, .. } => Some((at, "offer due")),
            Phase::Offered { until, .. } => Some((until, "answer overdue")),
            Phase::Round(round) => Some((round.next_at(), "punch probe due")),
            Phase::Backoff { .. } => self.phase.pause_ends(active).map(|at| (at, "next punch round due")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::test_clock::start;

    #[test]
    fn a_round_is_three_attempts_of_seven_bursts() {
        let start = start();
        let mut round = Round::new(start, true);
        let mut times = Vec::new();
        loop {
            let at = round.next_at();
            match round.poll(false, at) {
                Some(RoundStep::Over) => break,
                Some(RoundStep::Burst { .. }) => times.push((at - start).as_millis()),
                None => panic!("a step was promised at {at:?}"),
            }
        }
        assert_eq!(times[..7], [0, 33, 67, 133, 267, 533, 1_066]);
        assert_eq!((times.len(), times[7], times[14]), (21, 3_000, 7_200));
    }

    /// The milliseconds and hop limits of one attempt.
    fn attempt(number: usize, offered: bool) -> Vec<(u128, Option<u8>)> {
        let start = start();
        let mut round = Round::new(start, offered);
        let mut bursts = Vec::new();
        loop {
            let (at, now) = (round.attempt, round.next_at());
            match round.poll(false, now) {
                Some(RoundStep::Burst { ttl, .. }) if at == number => {
                    bursts.push(((now - start - ATTEMPT_STARTS[number]).as_millis(), ttl));
                }
                Some(RoundStep::Burst { .. }) => {}
                Some(RoundStep::Over) => return bursts,
                None => panic!("a step was promised"),
            }
        }
    }

    #[test]
    fn the_second_and_third_attempt_change_something_and_swap_the_roles() {
        assert_eq!(attempt(0, true), attempt(0, false));
        assert_eq!(attempt(0, true)[0], (0, Some(OPENER)), "both open their own NAT before they knock at the other");
        assert!(attempt(0, true)[1..].iter().all(|(_, ttl)| ttl.is_none()));
        let (lead, follow) = (attempt(1, true), attempt(1, false));
        assert_eq!(lead[..5], [(0, Some(2)), (33, Some(3)), (67, Some(4)), (133, Some(7)), (267, None)]);
        assert!(follow.iter().all(|(_, ttl)| ttl.is_none()) && follow[0].0 == 200);
        assert!(follow[0].0 < lead[4].0, "the follower's NAT is open when the first long-lived packet arrives");
        assert_eq!((attempt(2, false), attempt(2, true)), (lead, follow));
    }

    #[test]
    fn success_ends_the_round_after_the_first_attempt() {
        let start = start();
        let mut round = Round::new(start, false);
        for ms in [0, 33, 67, 133, 267, 533, 1_066] {
            let step = round.poll(true, start + Duration::from_millis(ms));
            let opens = (ms == 0).then_some(OPENER);
            assert!(matches!(step, Some(RoundStep::Burst { ttl, .. }) if ttl == opens), "{step:?}");
        }
        assert_eq!(round.poll(true, start + Duration::from_millis(3_200)), Some(RoundStep::Over));
    }

    #[test]
    fn a_driver_that_slept_sends_one_burst_and_not_all_it_missed() {
        let start = start();
        let mut round = Round::new(start, true);
        let step = round.poll(false, start + Duration::from_millis(500));
        assert_eq!(step, Some(RoundStep::Burst { first: true, ttl: None }));
        assert_eq!(round.poll(false, start + Duration::from_millis(500)), None);
    }

    #[test]
    fn unanswered_offers_are_repeated_thrice_then_pause_longer_and_longer() {
        let mut now = start();
        let mut punch = Punch::default();
        punch.request_offer(now);
        let (mut pauses, mut idle_pauses) = (Vec::new(), Vec::new());
        for _ in 0..8 {
            for tries in 0..OFFER_TRIES {
                assert_eq!(punch.phase, Phase::OfferDue { at: now, tries });
                punch.offered(tries, now);
                now += OFFER_TIMEOUT;
                punch.offer_timed_out(tries + 1, u32::MAX, now);
            }
            let Phase::Backoff { until, idle_until } = punch.phase else { panic!("{:?}", punch.phase) };
            assert_eq!([true, false].map(|active| punch.next_at(active).unwrap().0), [until, idle_until]);
            pauses.push((until - now).as_secs());
            idle_pauses.push((idle_until - now).as_secs());
            now = until;
            punch.request_offer(now);
        }
        assert_eq!(pauses, [60, 120, 240, 480, 900, 900, 900, 900]);
        assert_eq!(idle_pauses, [60, 120, 240, 480, 960, 1_920, 3_600, 3_600], "nobody waits for it");
        punch.rearm();
        punch.back_off(u32::MAX, now);
        assert_eq!(punch.phase, Phase::Backoff { until: now + FIRST_BACKOFF, idle_until: now + FIRST_BACKOFF });
    }

    #[test]
    fn offers_keep_their_distance_whatever_asks_for_them() {
        let start = start();
        let mut punch = Punch::default();
        punch.request_offer(start);
        punch.offered(0, start);
        punch.request_offer(start);
        assert!(matches!(punch.phase, Phase::Offered { .. }), "an exchange under way goes on");
        punch.phase = Phase::Idle;
        punch.request_offer(start);
        assert_eq!(punch.phase, Phase::OfferDue { at: start + OFFER_INTERVAL, tries: 0 });
    }
}
