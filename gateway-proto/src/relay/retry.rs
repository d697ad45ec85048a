//! When a relay is tried again after a link to it ended, or did not come about.

use std::time::Duration;

use crate::backoff::Backoff;

/// First and longest step between tries.
const STEPS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(16));
/// A relay that restarts is not stayed away from for longer, whatever it asks.
const MAX_ASKED_PAUSE: Duration = Duration::from_secs(10);
/// After an admitted attachment the pause is never longer; by chance it is down to half of this: the relay is there.
const AFTER_ADMISSION: Duration = Duration::from_secs(2);
/// Where nothing else carries, a relay that restarts or fell is tried after this, by chance down to half of it: all of its gateways lose
/// it in one moment, and are not to come back in one.
const FIRST_ALONE: Duration = Duration::from_millis(500);
/// And then after this each time, by chance down to half of it.
const NEXT_ALONE: Duration = Duration::from_secs(1);
/// So many times, which is some ten seconds: a restart takes no longer, and what does is an outage.
const TRIES_ALONE: u32 = 12;

/// How a link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkEnd {
    /// It was never admitted: the relay was not reached.
    NotReached,
    /// The relay refused it.
    Refused,
    /// It was admitted, and given up because our own network changed: no other gateway loses the relay by that.
    Moved,
    /// It was admitted, and fell, as it does for all gateways when the relay is killed.
    Fell {
        /// Nothing else carries meanwhile: no other relay is attached, or none that reaches some partner.
        is_only: bool,
    },
    /// The relay restarts.
    Restarting {
        /// The pause that it asks for, so that not all come back at once.
        asked: Duration,
        /// Nothing else carries meanwhile: no other relay is attached, or none that reaches some partner.
        is_only: bool,
    },
}

/// The pauses of one link; randomness comes in as an argument.
#[derive(Debug)]
pub struct LinkRetry {
    backoff: Backoff,
    /// Tries in short steps that are left, of the only relay, which restarts or fell.
    alone: u32,
}

impl Default for LinkRetry {
    fn default() -> Self {
        Self { backoff: Backoff::new(STEPS.0, STEPS.1), alone: 0 }
    }
}

impl LinkRetry {
    /// Starts over: the relay was attached for long enough, or something changed that gives it another chance.
    pub fn reset(&mut self) {
        self.backoff.reset();
    }

    /// The pause before the next try. `random` is any uniformly random number.
    pub fn pause(&mut self, end: LinkEnd, random: u32) -> Duration {
        match end {
            LinkEnd::NotReached if self.alone > 0 => {
                self.alone -= 1;
                if self.alone == 0 {
                    // What follows presses it less, not more.
                    self.backoff.raise_to(NEXT_ALONE * 2);
                }
                half_to_all(NEXT_ALONE, random)
            }
            LinkEnd::NotReached => self.backoff.next_delay(random),
            LinkEnd::Refused => {
                self.alone = 0;
                self.backoff.next_delay(random)
            }
            LinkEnd::Moved | LinkEnd::Fell { is_only: false } => {
                self.alone = 0;
                self.after_admission(random)
            }
            // One that admits and is gone again and again is pressed less and less.
            LinkEnd::Fell { is_only: true } | LinkEnd::Restarting { is_only: true, .. } => {
                self.after_admission(random).max(self.left_alone(random))
            }
            LinkEnd::Restarting { asked, is_only: false } => {
                self.alone = 0;
                asked.min(MAX_ASKED_PAUSE).max(self.after_admission(random))
            }
        }
    }

    /// What carried meanwhile fell during the pause of a relay that restarts, or turned out not to reach some partner: that is the only one
    /// now, and this is the pause from now on. `random` is any uniformly random number.
    pub fn left_alone(&mut self, random: u32) -> Duration {
        self.alone = TRIES_ALONE;
        half_to_all(FIRST_ALONE, random)
    }

    /// A relay that admitted us is there, and is not stayed away from for long.
    fn after_admission(&mut self, random: u32) -> Duration {
        self.backoff.next_delay(random).min(half_to_all(AFTER_ADMISSION, random))
    }
}

fn half_to_all(step: Duration, random: u32) -> Duration {
    step / 2 + (step / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
    use std::{cmp::Reverse, collections::BinaryHeap, num::NonZeroU64, time::Instant};

    use super::*;
    use crate::relay::TokenBucket;

    const MS: Duration = Duration::from_millis(1);
    const GATEWAYS: usize = 5_000;
    /// After so long all of them are in again: a relay accepts them in 25 s, if they come one after the other.
    const ALL_ARE_IN: Duration = Duration::from_secs(60);
    const RESTARTS: LinkEnd = LinkEnd::Restarting { asked: Duration::from_secs(5), is_only: true };
    const FALLS: LinkEnd = LinkEnd::Fell { is_only: true };
    /// What a relay accepts in a second unless it is told otherwise, and at once when it was idle.
    const ACCEPTED: u64 = 200;

    struct Chance(u64);

    impl Chance {
        fn draw(&mut self) -> u32 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u32::try_from(self.0 >> 32).unwrap_or(0)
        }
    }

    /// When a gateway tries, from the moment the relay is gone on; the last one finds it, for it is back.
    fn tries(end: LinkEnd, away: Duration, chance: &mut Chance) -> Vec<Duration> {
        let (mut retry, mut tries) = (LinkRetry::default(), Vec::new());
        let mut at = retry.pause(end, chance.draw());
        while at < away {
            tries.push(at);
            at += retry.pause(LinkEnd::NotReached, chance.draw());
        }
        tries.push(at);
        tries
    }

    #[test]
    fn the_only_relay_is_found_within_a_second_of_its_return_whether_it_restarted_or_was_killed() {
        let mut chance = Chance(1);
        for end in [RESTARTS, FALLS] {
            for away in [0_u32, 300, 500, 1_000, 2_000, 5_000].map(|ms| ms * MS) {
                for _ in 0..GATEWAYS {
                    let tries = tries(end, away, &mut chance);
                    assert!(tries[0] >= FIRST_ALONE / 2);
                    assert!(tries.windows(2).all(|two| two[1] - two[0] >= NEXT_ALONE / 2), "{tries:?}");
                    let found = tries[tries.len() - 1];
                    assert!(found <= away + NEXT_ALONE, "{end:?}, away for {away:?}, found after {found:?}");
                }
            }
        }
    }

    /// The moments at which 5,000 gateways of the only relay try, and those at which they are let in by a relay that is back after
    /// `away`, and then closes what is more than it accepts.
    fn storm(end: LinkEnd, away: Duration, chance: &mut Chance) -> (Vec<Duration>, Vec<Duration>) {
        let (mut retries, mut due) = (Vec::new(), BinaryHeap::new());
        for gateway in 0..GATEWAYS {
            let mut retry = LinkRetry::default();
            due.push(Reverse((retry.pause(end, chance.draw()), gateway)));
            retries.push(retry);
        }
        let (back, rate) = (Instant::now(), NonZeroU64::new(ACCEPTED).unwrap());
        let mut accepts = TokenBucket::new(rate, rate, back);
        let (mut tries, mut admitted) = (Vec::new(), Vec::new());
        while let Some(Reverse((at, gateway))) = due.pop() {
            tries.push(at);
            if at >= away && accepts.take(1, back + (at - away)).is_ok() {
                admitted.push(at);
            } else {
                due.push(Reverse((at + retries[gateway].pause(LinkEnd::NotReached, chance.draw()), gateway)));
            }
        }
        (tries, admitted)
    }

    /// The most of these, which are in order, within any such time.
    fn most_within(time: Duration, moments: &[Duration]) -> usize {
        let until = |end: usize| end + 1 - moments.partition_point(|at| *at + time < moments[end]);
        (0..moments.len()).map(until).max().unwrap_or(0)
    }

    #[test]
    fn a_storm_of_five_thousand_gateways_of_the_only_relay_is_let_in_at_its_accept_rate_and_abates() {
        let mut chance = Chance(2);
        for end in [RESTARTS, FALLS] {
            for away in [0_u32, 1_000, 5_000, 30_000].map(|ms| ms * MS) {
                let (tries, admitted) = storm(end, away, &mut chance);
                assert_eq!(admitted.len(), GATEWAYS);
                let last = *admitted.last().unwrap() - away;
                assert!(last <= ALL_ARE_IN, "{end:?}, away for {away:?}: the last one is in after {last:?}");
                // What is too much costs the relay an accept and a close each.
                let (tenth, second) = (most_within(100 * MS, &tries), most_within(1_000 * MS, &tries));
                assert!(tenth < GATEWAYS / 2 && second < GATEWAYS * 2, "{end:?}, away for {away:?}: {tenth}, {second}");
                let later: Vec<_> = tries.into_iter().filter(|at| *at > Duration::from_secs(20)).collect();
                let second = most_within(1_000 * MS, &later);
                assert!(second < GATEWAYS / 2, "{end:?}, away for {away:?}: {second} in a second when it lasts");
            }
        }
    }

    #[test]
    fn a_restart_that_becomes_an_outage_is_pressed_less_and_less() {
        for random in [0, u32::MAX] {
            let mut retry = LinkRetry::default();
            retry.pause(FALLS, random);
            let run: Vec<_> = (0..TRIES_ALONE).map(|_| retry.pause(LinkEnd::NotReached, random)).collect();
            let passed: Duration = run.iter().sum();
            assert!(passed <= Duration::from_secs(12), "{passed:?}");
            let after: Vec<_> = (0..12).map(|_| retry.pause(LinkEnd::NotReached, random)).collect();
            assert!(after.is_sorted() && after[0] > run[0], "{run:?}, then {after:?}");
            assert_eq!(after[11], half_to_all(STEPS.1, random));
        }
    }

    #[test]
    fn whoever_is_left_alone_during_the_pause_that_a_relay_asked_for_tries_it_like_the_only_one() {
        let mut retry = LinkRetry::default();
        retry.pause(LinkEnd::Restarting { asked: Duration::from_secs(5), is_only: false }, u32::MAX);
        assert_eq!(retry.left_alone(u32::MAX), FIRST_ALONE);
        for _ in 0..TRIES_ALONE {
            assert_eq!(retry.pause(LinkEnd::NotReached, u32::MAX), NEXT_ALONE);
        }
    }

    #[test]
    fn a_change_of_our_own_network_is_followed_at_once() {
        assert_eq!(LinkRetry::default().pause(LinkEnd::Moved, u32::MAX), STEPS.0);
    }

    #[test]
    fn a_relay_that_comes_back_and_refuses_is_pressed_no_more_than_one_that_never_restarted() {
        let (mut retry, mut plain) = (LinkRetry::default(), LinkRetry::default());
        retry.pause(RESTARTS, 0);
        plain.pause(LinkEnd::Fell { is_only: false }, 0);
        for _ in 0..10 {
            assert_eq!(retry.pause(LinkEnd::Refused, 7), plain.pause(LinkEnd::Refused, 7));
        }
    }

    #[test]
    fn one_that_admits_and_restarts_again_and_again_is_pressed_less_and_less() {
        let mut retry = LinkRetry::default();
        let pauses: Vec<_> = (0..8).map(|_| retry.pause(RESTARTS, 0)).collect();
        assert!(pauses.is_sorted() && pauses[0] == FIRST_ALONE / 2 && pauses[7] == AFTER_ADMISSION / 2, "{pauses:?}");
    }

    #[test]
    fn beside_another_relay_the_pause_that_was_asked_for_is_kept_up_to_a_limit() {
        let asks = |asked| LinkEnd::Restarting { asked, is_only: false };
        let mut retry = LinkRetry::default();
        assert_eq!(retry.pause(asks(Duration::from_secs(4)), 0), Duration::from_secs(4));
        assert_eq!(retry.pause(asks(Duration::from_secs(3_600)), 0), MAX_ASKED_PAUSE);
        assert!(retry.pause(asks(Duration::ZERO), 0) > Duration::ZERO);
    }

    #[test]
    fn a_relay_that_admitted_us_is_not_stayed_away_from_for_long_and_others_are() {
        let mut retry = LinkRetry::default();
        for random in [0, u32::MAX / 2, u32::MAX].repeat(5) {
            assert!(retry.pause(LinkEnd::Fell { is_only: false }, random) <= AFTER_ADMISSION);
        }
        assert!(retry.pause(LinkEnd::Fell { is_only: false }, 0) >= AFTER_ADMISSION / 2, "no storm either");
        assert!(retry.pause(LinkEnd::NotReached, u32::MAX) > Duration::from_secs(10));
    }
}
