#![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
use super::*;
use crate::relay::{Choice, RelayChoice, Seen, Standing};

const MS: Duration = Duration::from_millis(1);
const FIRST: RelayId = RelayId::from_bytes([1; 16]);
const SECOND: RelayId = RelayId::from_bytes([2; 16]);
const COMMON: RelayId = RelayId::from_bytes([3; 16]);

/// One gateway of a pair.
struct Side {
    choice: RelayChoice,
    links: Vec<Seen>,
    chosen: Choice,
    answered_at: Option<Instant>,
}

impl Side {
    /// Attached to these relays, and the peer's home is `home`, as the policy says.
    fn new(dials: bool, relays: &[RelayId], home: Option<RelayId>, now: Instant) -> Self {
        let seen = |relay: &RelayId| Seen {
            relay: *relay,
            standing: Standing::Sound,
            restarting: false,
            falls: 0,
            drops: None,
        };
        let mut choice = RelayChoice::new(dials);
        choice.set_home(home);
        choice.set_tunnel(false, now);
        let links = relays.iter().map(seen).collect();
        let mut side = Self { choice, links, chosen: Choice::default(), answered_at: None };
        side.choose(now);
        side
    }

    fn choose(&mut self, now: Instant) {
        self.chosen = self.choice.choose(&self.links, self.answered_at, now);
    }

    fn uses(&self) -> Vec<RelayId> {
        let Choice { best, spare, further, .. } = &self.chosen;
        best.iter().chain(spare).chain(further).copied().collect()
    }

    fn misses(&mut self, now: Instant) {
        self.choice.in_vain(self.answered_at, now);
        self.choose(now);
    }

    /// Sends a packet; whether it arrives.
    fn sends_to(&self, other: &mut Self, now: Instant) -> bool {
        let mut arrives = false;
        for relay in self.uses() {
            if other.links.iter().all(|link| link.relay != relay) {
                continue;
            }
            arrives = true;
            if other.choice.heard(relay, now) {
                other.choose(now);
            }
        }
        arrives
    }

    /// Asks, and misses the answer or has it.
    fn asks(&mut self, other: &mut Self, now: Instant) -> bool {
        let answered = self.sends_to(other, now) && other.sends_to(self, now);
        if answered {
            self.answered_at = Some(now);
            self.choose(now);
        } else {
            self.misses(now);
        }
        answered
    }
}

/// A dial: its packets leave as QUIC's timers say, and it is looked at four times a second. When it was answered.
fn dial(a: &mut Side, b: &mut Side, start: Instant) -> Option<Instant> {
    (0..4_900_u32).step_by(50).map(|ms| (ms, start + ms * MS)).find_map(|(ms, now)| {
        if ms > 0 && ms % 250 == 0 {
            a.misses(now);
        }
        let leaves = [0, 300, 900, 2_100, 4_500].contains(&ms);
        (leaves && a.sends_to(b, now) && b.sends_to(a, now)).then_some(now)
    })
}

/// Each is cut off from the relay that the other one prefers. Those live, and hold dead links.
#[test]
fn two_that_have_any_relay_in_common_find_each_other_within_a_second_and_stay_there() {
    let homes = [None, Some(FIRST), Some(SECOND), Some(COMMON)];
    for (home_of_b, home_of_a) in homes.iter().flat_map(|b| homes.iter().map(move |a| (*b, *a))) {
        let start = Instant::now();
        let mut a = Side::new(true, &[FIRST, COMMON], home_of_b, start);
        let mut b = Side::new(false, &[SECOND, COMMON], home_of_a, start);
        let up = dial(&mut a, &mut b, start).unwrap();
        assert!(up - start <= 1_000 * MS, "{home_of_b:?} {home_of_a:?}: after {:?}", up - start);
        a.choice.set_tunnel(true, up);
        b.choice.set_tunnel(true, up);
        for step in 0..200_u32 {
            let now = up + step * 100 * MS;
            if step % 10 == 0 {
                assert!(a.asks(&mut b, now) && b.asks(&mut a, now), "{home_of_b:?} {home_of_a:?}: step {step}");
            } else {
                assert!(a.sends_to(&mut b, now) && b.sends_to(&mut a, now), "{home_of_b:?} {home_of_a:?}: step {step}");
            }
            // Their timers.
            a.choose(now + 50 * MS);
            b.choose(now + 50 * MS);
        }
        assert_eq!((a.uses(), b.uses()), (vec![COMMON], vec![COMMON]), "{home_of_b:?} {home_of_a:?}");
    }
}

#[test]
fn a_tunnel_that_lost_every_common_relay_goes_on_over_the_first_one_that_both_attach_to() {
    let start = Instant::now();
    let mut a = Side::new(true, &[FIRST], Some(FIRST), start);
    let mut b = Side::new(false, &[SECOND], Some(FIRST), start);
    for side in [&mut a, &mut b] {
        side.choice.set_tunnel(true, start);
        side.choice.heard(FIRST, start);
    }
    for step in 1..=5_u32 {
        let now = start + step * 1_000 * MS;
        assert!(!a.asks(&mut b, now) && !b.asks(&mut a, now));
    }
    let now = start + 5_500 * MS;
    for side in [&mut a, &mut b] {
        side.links.push(Seen { relay: COMMON, standing: Standing::Sound, restarting: false, falls: 0, drops: None });
        side.choose(now);
        assert!(side.chosen.seeks_anew && side.chosen.begins_anew, "what waits for a timer is sent now");
    }
    assert!(a.asks(&mut b, now) && b.asks(&mut a, now));
}

/// The peer reaches us over the common relay, and nothing passes there in the other direction.
#[test]
fn a_peer_that_goes_on_to_dial_is_answered_everywhere() {
    let start = Instant::now();
    let mut b = Side::new(false, &[SECOND, COMMON, FIRST], Some(SECOND), start);
    assert!(b.choice.heard(COMMON, start));
    b.choose(start);
    assert_eq!(b.uses(), [SECOND, COMMON], "where it is heard, at once");
    let again = start + 600 * MS;
    b.choice.heard(COMMON, again);
    b.choose(again);
    assert!(b.uses().contains(&FIRST));
}

#[test]
fn relays_that_do_not_see_the_peer_or_are_in_doubt_take_no_part() {
    let start = Instant::now();
    let mut a = Side::new(true, &[FIRST, SECOND, COMMON], Some(FIRST), start);
    for relay in [FIRST, SECOND] {
        a.choice.absent(relay, start + 100 * MS);
    }
    a.links[2].standing = Standing::Doubtful;
    for step in 1..12_u32 {
        a.misses(start + step * 250 * MS);
        assert_eq!(a.uses().len(), 1, "a peer that is gone costs no copies");
    }
}

#[test]
fn a_peer_that_answers_now_and_then_is_not_sought() {
    let start = Instant::now();
    let mut a = Side::new(true, &[FIRST, COMMON], Some(FIRST), start);
    for step in 0..100_u32 {
        let now = start + step * 1_000 * MS;
        a.misses(now);
        a.answered_at = Some(now + 200 * MS);
        a.choose(now + 200 * MS);
        assert!(a.chosen.further.is_empty() && !a.chosen.begins_anew, "{step}");
    }
}

#[test]
fn a_peer_that_is_away_is_sought_until_it_was_not_asked_for_twenty_seconds_and_without_a_storm() {
    let start = Instant::now();
    let mut a = Side::new(true, &[FIRST, COMMON], Some(FIRST), start);
    let (mut anew, mut now) = (0, start);
    for step in 0..480_u32 {
        now = start + step * 250 * MS;
        // Now and then the relay says that it does not see it.
        if step % 60 == 20 {
            a.choice.absent(COMMON, now);
        }
        a.misses(now);
        anew += u32::from(a.chosen.begins_anew);
    }
    assert!((1..=12).contains(&anew), "in two minutes {anew}");
    let mut at = now;
    while let Some(next) = a.choice.poll_timeout(at) {
        assert!(next > at);
        at = next;
        a.choose(at);
    }
    assert_eq!((at, a.uses()), (now + SEEKS_FOR, vec![FIRST]));
}
