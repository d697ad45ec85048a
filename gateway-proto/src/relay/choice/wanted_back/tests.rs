#![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
use super::*;
use crate::relay::{Choice, Standing};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOME: RelayId = RelayId::from_bytes([1; 16]);
const OTHER: RelayId = RelayId::from_bytes([2; 16]);
const NONE: [RelayId; 0] = [];

/// One end of a pair, attached to two relays; everything goes over the peer's home.
struct End {
    choice: RelayChoice,
    links: Vec<Seen>,
    answered_at: Option<Instant>,
    now: Instant,
}

impl End {
    /// Three seconds of answers over the home.
    fn talking() -> Self {
        let seen = |relay| Seen { relay, standing: Standing::Sound, restarting: false, falls: 0, drops: None };
        let (choice, links) = (RelayChoice::new(true), [HOME, OTHER].map(seen).to_vec());
        let mut end = Self { choice, links, answered_at: None, now: Instant::now() };
        end.choice.set_home(Some(HOME));
        end.choice.set_tunnel(true, end.now);
        assert_eq!(end.choose().best, Some(HOME));
        end.is_answered_over(HOME, 3 * SECOND);
        end
    }

    fn choose(&mut self) -> Choice {
        self.choice.choose(&self.links, self.answered_at, self.now)
    }

    /// Ten answers a second.
    fn is_answered_over(&mut self, relay: RelayId, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += 100 * MS;
            self.choice.heard(relay, self.now);
            self.answered_at = Some(self.now);
            self.choose();
        }
    }

    /// Nothing comes, and each second an answer is missed. Which relays are wanted back in the end.
    fn is_silent(&mut self, seconds: u32) -> Vec<RelayId> {
        for _ in 0..seconds {
            self.now += SECOND;
            self.choice.in_vain(self.answered_at, self.now);
            self.choose();
        }
        self.choose().wanted_back
    }

    /// The home announces that it stops.
    fn home_restarts(&mut self) {
        self.links[0].restarting = true;
        assert_eq!(self.choose().best, Some(OTHER));
    }

    fn home_is_gone(&mut self) -> Choice {
        self.links.retain(|link| link.relay != HOME);
        self.choose()
    }
}

#[test]
fn a_relay_that_restarts_is_wanted_back_when_the_peer_does_not_answer_over_what_is_left_for_a_second() {
    let mut end = End::talking();
    end.home_restarts();
    assert_eq!(end.home_is_gone().wanted_back, NONE, "the other one may reach it");
    assert_eq!(end.is_silent(1), [HOME]);
    assert_eq!(end.is_silent(3), [HOME], "until something changes");
    assert!(end.choose().awaits_proof, "an answer does");
    end.is_answered_over(OTHER, 100 * MS);
    assert_eq!(end.choose().wanted_back, NONE);
    assert_eq!(end.is_silent(5), NONE, "now it was the other one that reached it to the last");
}

#[test]
fn it_is_wanted_back_before_it_is_gone_too_and_no_longer_than_it_is_away_or_the_tunnel_stands() {
    let mut end = End::talking();
    end.home_restarts();
    assert_eq!(end.is_silent(1), [HOME]);
    let seen = end.links[0];
    end.home_is_gone();
    assert_eq!(end.is_silent(1), [HOME]);
    end.links.insert(0, Seen { restarting: false, ..seen });
    assert_eq!(end.choose().wanted_back, NONE);

    let mut end = End::talking();
    end.home_restarts();
    assert_eq!(end.is_silent(1), [HOME]);
    end.choice.set_tunnel(false, end.now);
    assert_eq!(end.choose().wanted_back, NONE);
}

#[test]
fn a_peer_that_was_silent_before_the_relay_restarted_wants_none_back() {
    let mut end = End::talking();
    assert_eq!(end.is_silent(2), NONE);
    end.home_restarts();
    end.home_is_gone();
    assert_eq!(end.is_silent(8), NONE);
}

#[test]
fn a_peer_that_answered_over_what_is_left_and_is_gone_then_wants_none_back() {
    let mut end = End::talking();
    end.home_restarts();
    end.home_is_gone();
    end.is_answered_over(OTHER, SECOND);
    assert_eq!(end.is_silent(8), NONE);
}

#[test]
fn a_peer_that_was_not_heard_for_longer_than_an_idle_tunnel_is_silent_wants_none_back() {
    for (silent, wanted) in [(8 * SECOND, vec![HOME]), (LATELY, Vec::new())] {
        let mut end = End::talking();
        end.now += silent;
        end.home_restarts();
        end.home_is_gone();
        assert_eq!(end.is_silent(1), wanted, "{silent:?}");
    }
}

#[test]
fn an_answer_that_one_relay_kept_too_long_does_not_count_once_the_peer_is_heard_over_it_again() {
    let mut end = End::talking();
    assert_eq!(end.is_silent(1), NONE);
    end.is_answered_over(HOME, SECOND);
    end.home_restarts();
    end.home_is_gone();
    assert_eq!(end.is_silent(1), [HOME]);
}

#[test]
fn the_peer_is_asked_at_once_when_a_relay_that_was_used_ends() {
    let mut end = End::talking();
    end.home_restarts();
    // The other end has no other relay, and goes on to use it while it can.
    end.is_answered_over(HOME, SECOND);
    assert!(end.choice.used.contains(HOME) && !end.choose().asks_peer);
    assert!(end.home_is_gone().asks_peer);
    assert!(!end.choose().asks_peer, "once");
    assert_eq!(end.is_silent(1), [HOME]);
}
