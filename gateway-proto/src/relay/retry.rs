//! When a relay is tried again after a link to it ended, or did not come about.

use std::time::Duration;

use crate::backoff::Backoff;

/// First and longest step between tries.
const STEPS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(16));
/// A relay that restarts is not stayed away from for longer, whatever it asks.
const MAX_ASKED_PAUSE: Duration = Duration::from_secs(10);
/// After an admitted attachment the pause is never longer; by chance it is down to half of this: the relay is there.
const AFTER_ADMISSION: Duration = Duration::from_secs(2);
/// Where nothing else carries, a relay that restarts is tried after this, by chance down to half of it: all of its gateways lose it in
/// one moment, and are not to come back in one.
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
    /// It was admitted, and fell.
    Fell,
    /// The relay restarts.
    Restarting {
        /// The pause that it asks for, so that not all come back at once.
        asked: Duration,
        /// Nothing else carries meanwhile: no other relay is attached.
        is_only: bool,
    },
}

/// The pauses of one link; randomness comes in as an argument.
#[derive(Debug)]
pub struct LinkRetry {
    backoff: Backoff,
    /// Tries in short steps that are left, of a relay that restarts and is the only one.
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
                half_to_all(NEXT_ALONE, random)
            }
            LinkEnd::NotReached => self.backoff.next_delay(random),
            LinkEnd::Refused => {
                self.alone = 0;
                self.backoff.next_delay(random)
            }
            LinkEnd::Fell => {
                self.alone = 0;
                self.after_admission(random)
            }
            LinkEnd::Restarting { is_only: true, .. } => {
                self.alone = TRIES_ALONE;
                // One that admits and restarts again and again is pressed less and less.
                self.after_admission(random).max(half_to_all(FIRST_ALONE, random))
            }
            LinkEnd::Restarting { asked, is_only: false } => {
                self.alone = 0;
                asked.min(MAX_ASKED_PAUSE).max(self.after_admission(random))
            }
        }
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
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const GATEWAYS: usize = 5_000;
    const ONLY: LinkEnd = LinkEnd::Restarting { asked: Duration::from_secs(5), is_only: true };

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
    fn the_only_relay_is_found_within_a_second_of_its_restart_whatever_pause_it_asked_for() {
        let mut chance = Chance(1);
        for away in [0_u32, 300, 500, 1_000, 2_000, 5_000].map(|ms| ms * MS) {
            for _ in 0..GATEWAYS {
                let found = *tries(ONLY, away, &mut chance).last().unwrap();
                assert!(found <= away + NEXT_ALONE, "away for {away:?}, found after {found:?}");
            }
        }
    }

    #[test]
    fn five_thousand_gateways_of_the_only_relay_come_back_one_after_the_other() {
        let mut chance = Chance(2);
        for away in [0_u32, 500, 1_000, 2_000].map(|ms| ms * MS) {
            let mut moments: Vec<Duration> = Vec::new();
            for _ in 0..GATEWAYS {
                let tries = tries(ONLY, away, &mut chance);
                assert!(tries[0] >= FIRST_ALONE / 2 && tries.windows(2).all(|two| two[1] - two[0] >= NEXT_ALONE / 2));
                moments.extend(tries);
            }
            moments.sort_unstable();
            let within = |end: usize| end - moments.partition_point(|at| *at + 100 * MS < moments[end]);
            let most = (0..moments.len()).map(within).max().unwrap();
            assert!(most < GATEWAYS / 2, "{most} tries in a tenth of a second, away for {away:?}");
        }
    }

    #[test]
    fn a_restart_that_becomes_an_outage_is_waited_for_like_any_other() {
        let (mut retry, mut passed) = (LinkRetry::default(), Duration::ZERO);
        retry.pause(ONLY, u32::MAX);
        for _ in 0..TRIES_ALONE {
            passed += retry.pause(LinkEnd::NotReached, u32::MAX);
        }
        assert!(passed <= Duration::from_secs(12), "{passed:?}");
        let longest = (0..12).map(|_| retry.pause(LinkEnd::NotReached, u32::MAX)).max();
        assert_eq!(longest, Some(STEPS.1));
    }

    #[test]
    fn a_relay_that_comes_back_and_refuses_is_pressed_no_more_than_one_that_never_restarted() {
        let (mut retry, mut plain) = (LinkRetry::default(), LinkRetry::default());
        retry.pause(ONLY, 0);
        plain.pause(LinkEnd::Fell, 0);
        for _ in 0..10 {
            assert_eq!(retry.pause(LinkEnd::Refused, 7), plain.pause(LinkEnd::Refused, 7));
        }
    }

    #[test]
    fn one_that_admits_and_restarts_again_and_again_is_pressed_less_and_less() {
        let mut retry = LinkRetry::default();
        let pauses: Vec<_> = (0..8).map(|_| retry.pause(ONLY, 0)).collect();
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
            assert!(retry.pause(LinkEnd::Fell, random) <= AFTER_ADMISSION);
        }
        assert!(retry.pause(LinkEnd::Fell, 0) >= AFTER_ADMISSION / 2, "no storm either");
        assert!(retry.pause(LinkEnd::NotReached, u32::MAX) > Duration::from_secs(10));
    }
}
