//! Whether a relay still lives, while what went over it stays unanswered.
//!
//! Somebody misses an answer and asks the relay for a sign of life; anything that comes from it ends the matter. Without one
//! the relay is first *suspected*: what goes over it goes over another one as well, which costs little when it was wrong.
//! Later it is *doubtful*: another one is used instead. Loss alone delays a sign of life on a TLS link by some
//! retransmissions, so the second step waits for several of them.

use std::time::{Duration, Instant};

/// Until a relay that gives no sign of life is suspected, besides the [`ROUND_TRIPS`].
const SUSPECT_AFTER: Duration = Duration::from_millis(250);
/// Until it is doubtful, besides the same.
const DOUBT_AFTER: Duration = Duration::from_millis(700);
/// One for the answer, and two until TCP sends a lost question again.
const ROUND_TRIPS: u32 = 3;
/// Whatever the round trip is, neither takes longer.
const MOST: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];

/// What is thought of a relay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It was heard, or nobody asked.
    #[default]
    Sound,
    /// Asked, and silent: use another one beside it.
    Suspected,
    /// Silent for too long: use another one.
    Doubtful,
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct Doubt {
    /// When somebody asked first since it was heard, and the round trip to it.
    asked: Option<(Instant, Duration)>,
    standing: Standing,
}

impl Doubt {
    /// Somebody misses an answer. `rtt` is the round trip to the relay, zero when it is not known. True when the relay is to
    /// be asked now: each doubt begins with a question of its own, or silence would prove nothing.
    pub fn ask(&mut self, rtt: Duration, now: Instant) -> bool {
        let begins = self.asked.is_none();
        self.asked.get_or_insert((now, rtt));
        begins
    }

    /// Something came from the relay. True when the standing changed.
    pub fn heard(&mut self) -> bool {
        self.asked = None;
        std::mem::take(&mut self.standing) != Standing::Sound
    }

    /// What is thought of it.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// When [`Self::handle_timeout`] is wanted next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let (asked, rtt) = self.asked?;
        let patience = |after: Duration, most| (after + rtt * ROUND_TRIPS).min(most);
        match self.standing {
            Standing::Sound => Some(asked + patience(SUSPECT_AFTER, MOST[0])),
            Standing::Suspected => Some(asked + patience(DOUBT_AFTER, MOST[1])),
            Standing::Doubtful => None,
        }
    }

    /// Acts on the time. True when the standing changed.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let before = self.standing;
        while self.poll_timeout().is_some_and(|at| now >= at) {
            self.standing = match self.standing {
                Standing::Sound => Standing::Suspected,
                Standing::Suspected | Standing::Doubtful => Standing::Doubtful,
            };
        }
        self.standing != before
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_silent_relay_is_suspected_soon_and_doubtful_later() {
        let (mut doubt, now) = (Doubt::default(), Instant::now());
        assert_eq!(doubt.poll_timeout(), None);
        assert!(doubt.ask(10 * MS, now));
        assert!(!doubt.ask(10 * MS, now + 100 * MS), "it is asked already");
        assert_eq!(doubt.poll_timeout(), Some(now + 280 * MS), "the first question counts");
        assert!(!doubt.handle_timeout(now + 279 * MS));
        assert!(doubt.handle_timeout(now + 280 * MS));
        assert_eq!((doubt.standing(), doubt.poll_timeout()), (Standing::Suspected, Some(now + 730 * MS)));
        assert!(doubt.handle_timeout(now + 730 * MS));
        assert_eq!((doubt.standing(), doubt.poll_timeout()), (Standing::Doubtful, None));
        assert!(doubt.heard() && !doubt.heard());
        assert_eq!((doubt.standing(), doubt.poll_timeout()), (Standing::Sound, None));
        assert!(doubt.ask(10 * MS, now + 731 * MS), "however short ago it was asked and heard");
    }

    #[test]
    fn a_far_relay_gets_its_round_trips_but_never_more_than_two_seconds() {
        let (mut doubt, now) = (Doubt::default(), Instant::now());
        doubt.ask(4_000 * MS, now);
        assert_eq!(doubt.poll_timeout(), Some(now + 1_000 * MS));
        assert!(doubt.handle_timeout(now + 2_000 * MS));
        assert_eq!(doubt.standing(), Standing::Doubtful, "one that was not looked at in time");
    }

    /// When a question to a living relay is answered on a TCP connection that loses `percent` of its packets: each end
    /// sends again after its retransmission timer, which is 200 ms at least and doubles (RFC 6298, and Linux's minimum),
    /// after a first probe of the tail (RFC 8985).
    fn answered_after(rtt: Duration, percent: u32, draws: &mut impl Iterator<Item = u32>) -> Duration {
        let mut crossing = || {
            let mut waited = Duration::ZERO;
            let mut timer = rtt * 2 + 10 * MS;
            let mut sent = 0;
            while draws.next().unwrap_or(100) < percent {
                waited += timer;
                sent += 1;
                timer = (rtt + 200 * MS) * 2_u32.pow(sent - 1);
            }
            waited + rtt / 2
        };
        crossing() + crossing()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// A thousand questions on a path that loses one packet in twenty.
        #[test]
        fn loss_alone_leads_to_no_doubt(rtt_ms in 1_u32..300, seed in any::<u64>()) {
            let mut state = seed | 1;
            let mut draws = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                u32::try_from((state >> 33) % 100).unwrap_or(0)
            });
            let (rtt, now) = (rtt_ms * MS, Instant::now());
            let (mut suspected, mut doubtful) = (0, 0);
            for _ in 0..1_000 {
                let mut doubt = Doubt::default();
                doubt.ask(rtt, now);
                let answered = now + answered_after(rtt, 5, &mut draws);
                while let Some(due) = doubt.poll_timeout().filter(|due| *due < answered) {
                    doubt.handle_timeout(due);
                }
                suspected += u32::from(doubt.standing() >= Standing::Suspected);
                doubtful += u32::from(doubt.standing() == Standing::Doubtful);
            }
            prop_assert!(suspected <= 30, "{suspected} of 1000 suspected at {rtt:?}");
            prop_assert!(doubtful <= 8, "{doubtful} of 1000 in doubt at {rtt:?}");
        }
    }
}
