//! When the STUN servers are asked again what they see of our socket.
//!
//! While some peer wants a direct path and has none, or one that is slow or was in doubt lately, every round renews the NAT's mapping for
//! the address that we offer. Where all are well, heartbeats renew what their paths need, and nobody else is told an address: it is
//! enough to notice now and then what changed meanwhile. The first peer that loses its path, or appears, has a round at once.

use std::time::{Duration, Instant};

/// While a path is looked for: below the usual 30 s after which a NAT forgets an idle UDP mapping.
const SHORT: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(26));
/// While none is.
const LONG: (Duration, Duration) = (Duration::from_secs(240), Duration::from_secs(360));
/// Doublings from the short pause to the long one.
const MAX_DOUBLINGS: u32 = 4;

/// Says when the next round of STUN questions is due. Tell it about every round that is asked, whatever the reason; it always wants a
/// timer for [`poll_timeout`](Self::poll_timeout).
#[derive(Debug, Clone)]
pub struct Regather {
    asked_at: Instant,
    random: u32,
    is_wanted: bool,
    /// Rounds in a row in which somebody did not answer (yet).
    lacking: u32,
}

impl Regather {
    /// Before the first round. `random` is any uniformly random number, here and below: gateways that started together are not in step.
    pub fn new(now: Instant, random: u32) -> Self {
        Self { asked_at: now, random, is_wanted: false, lacking: 1 }
    }

    /// A round begins.
    pub fn handle_asked(&mut self, now: Instant, random: u32) {
        self.asked_at = now;
        self.random = random;
        self.lacking = self.lacking.saturating_add(1);
    }

    /// Every server answered in this round. Else the next one comes soon, and later each time: a lost packet costs no candidate for
    /// minutes, and a server that is gone for good no question every 23 s.
    pub fn handle_complete(&mut self) {
        self.lacking = 0;
    }

    /// What is known of servers counts no more: the network or the list of servers is another one.
    pub fn start_over(&mut self) {
        self.lacking = 0;
    }

    /// Whether some peer wants a direct path and has none, or a poor one.
    pub fn handle_wanted(&mut self, is_wanted: bool) {
        self.is_wanted = is_wanted;
    }

    /// When the next round is due; may have passed.
    pub fn poll_timeout(&self) -> Instant {
        self.asked_at + self.pause()
    }

    fn pause(&self) -> Duration {
        let (short, long) = (between(SHORT, self.random), between(LONG, self.random));
        match self.lacking {
            _ if self.is_wanted => short,
            0 => long,
            lacking => (short * (1_u32 << (lacking - 1).min(MAX_DOUBLINGS))).min(long),
        }
    }
}

fn between((least, most): (Duration, Duration), random: u32) -> Duration {
    least + (most - least).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::test_clock::start;

    /// The pauses of so many rounds, each answered by everybody or not.
    fn pauses(regather: &mut Regather, mut now: Instant, rounds: usize, complete: bool) -> Vec<u64> {
        let pauses = (0..rounds).map(|_| {
            regather.handle_asked(now, u32::MAX / 2);
            if complete {
                regather.handle_complete();
            }
            let pause = regather.poll_timeout() - now;
            now += pause;
            pause.as_secs_f64().round() as u64
        });
        pauses.collect()
    }

    #[test]
    fn servers_are_asked_every_20_to_26_seconds_while_a_path_is_looked_for_and_every_4_to_6_minutes_while_none_is() {
        let now = start();
        for (is_wanted, least, most) in [(true, 20, 26), (false, 240, 360)] {
            for (random, expected) in [(0, least), (u32::MAX, most)] {
                let mut regather = Regather::new(now, 0);
                regather.handle_wanted(is_wanted);
                regather.handle_asked(now, random);
                regather.handle_complete();
                assert_eq!(regather.poll_timeout(), now + Duration::from_secs(expected), "wanted: {is_wanted}");
            }
        }
    }

    #[test]
    fn an_hour_with_direct_paths_only_costs_twelve_rounds_and_not_a_hundred_and_fifty() {
        let mut regather = Regather::new(start(), 0);
        assert_eq!(pauses(&mut regather, start(), 12, true).iter().sum::<u64>(), 3_600);
    }

    #[test]
    fn the_first_peer_without_a_path_has_a_round_at_once_and_a_flapping_one_no_more_than_one_in_20_seconds() {
        let now = start();
        let mut regather = Regather::new(now, 0);
        regather.handle_asked(now, 0);
        regather.handle_complete();
        let lost = now + Duration::from_secs(100);
        assert!(regather.poll_timeout() > lost);
        regather.handle_wanted(true);
        assert!(regather.poll_timeout() <= lost, "the mapping that we offer may be gone");
        regather.handle_asked(lost, 0);
        regather.handle_complete();
        for _ in 0..10 {
            regather.handle_wanted(false);
            regather.handle_wanted(true);
            assert_eq!(regather.poll_timeout(), lost + SHORT.0);
        }
    }

    #[test]
    fn a_server_that_does_not_answer_is_asked_soon_and_then_ever_later() {
        let mut regather = Regather::new(start(), 0);
        regather.start_over();
        assert_eq!(pauses(&mut regather, start(), 7, false), [23, 46, 92, 184, 300, 300, 300]);
        regather.start_over();
        assert_eq!(pauses(&mut regather, start(), 1, false), [23], "another network");
        assert_eq!(pauses(&mut regather, start(), 1, true), [300]);
        regather.handle_wanted(true);
        assert_eq!(pauses(&mut regather, start(), 7, false), [23; 7], "an offer needs its mapping");
    }
}
