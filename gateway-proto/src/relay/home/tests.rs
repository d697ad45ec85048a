#![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
use proptest::prelude::*;

use super::{links::DOWN_AFTER, *};

const ALL: [RelayId; 3] = [RelayId::from_bytes([1; 16]), RelayId::from_bytes([2; 16]), RelayId::from_bytes([3; 16])];

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
    assert_eq!((chooser.attach(3, now), chooser.latencies.relays()), (vec![ALL[0]], 0));
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
    assert_eq!(chooser.poll_timeout(at(600)), Some(at(2_100)));
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

#[test]
fn each_change_of_home_is_counted_by_its_reason_and_a_reason_that_becomes_known_later_is_none() {
    let (mut chooser, now) = chooser();
    chooser.decide(&ALL, now);
    measure(&mut chooser, ALL[0], 10, 5, now);
    chooser.decide(&ALL, now);
    assert_eq!(chooser.reason(), Some(HomeReason::Nearest), "the guess turned out to be right");
    assert_eq!(chooser.changes(), &BTreeMap::from([(HomeReason::MapOrder, 1)]));
    for attached in [&ALL[1..2], &ALL[2..], &ALL[2..], &[]] {
        chooser.decide(attached, now);
    }
    assert_eq!(chooser.changes(), &BTreeMap::from([(HomeReason::MapOrder, 1), (HomeReason::FormerFailed, 2)]));
}
