#![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
use std::collections::BTreeSet;

use super::*;

const RELAYS: [RelayId; 4] = [
    RelayId::from_bytes([1; 16]),
    RelayId::from_bytes([2; 16]),
    RelayId::from_bytes([3; 16]),
    RelayId::from_bytes([4; 16]),
];

/// A gateway with a map of so many relays, of which this one is home.
fn at_home(map: usize, home: usize, now: Instant) -> HomeChooser {
    let mut chooser = HomeChooser::default();
    chooser.set_map(RELAYS[..map].iter().map(|relay| (*relay, None)));
    assert_eq!(chooser.decide(&[RELAYS[home]], now), Some(RELAYS[home]));
    chooser
}

/// What it wants while these links run, of which some stand; by their places in the map.
fn wanted(chooser: &mut HomeChooser, links: &[(usize, bool)], now: Instant) -> Vec<usize> {
    chooser.links(links.iter().map(|(place, stands)| (RELAYS[*place], *stands)), now);
    let wanted = chooser.wanted(2, 8, now);
    wanted.iter().filter_map(|relay| RELAYS.iter().position(|known| known == relay)).collect()
}

#[test]
fn to_the_only_one_that_stands_others_come_one_after_the_other_and_stay_for_a_minute() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut chooser = at_home(4, 0, start);
    let mut wants = |links: &[(usize, bool)], ms| wanted(&mut chooser, links, at(ms));
    assert_eq!(wants(&[(0, true), (1, true)], 0), [0, 1]);
    for ms in [10_000, 10_499] {
        assert_eq!(wants(&[(0, true), (1, false)], ms), [0, 1], "it may be back at once");
    }
    assert_eq!(wants(&[(0, true), (1, false)], 10_500), [0, 1, 2]);
    let dead = [(0, true), (1, false), (2, false)];
    assert_eq!((wants(&dead, 10_500), wants(&dead, 10_999)), (vec![0, 1, 2], vec![0, 1, 2]));
    assert_eq!(wants(&dead, 11_000), [0, 1, 2, 3], "that one does not stand either");
    for ms in [11_100, 11_900] {
        assert_eq!(wants(&[(0, true), (1, false), (2, false), (3, true)], ms).len(), 4, "two stand");
    }
    let back = [(0, true), (1, true), (2, false), (3, true)];
    for ms in [12_100, 71_800] {
        assert_eq!(wants(&back, ms), [0, 1, 2, 3]);
    }
    assert_eq!(wants(&back, 71_900), [0, 1]);
    // What was given up then is not known to be dead now before it had its time again, however often it is asked.
    assert_eq!(wants(&[(0, true), (1, false)], 80_000), [0, 1]);
    assert_eq!(wants(&[(0, true), (1, false)], 80_500), [0, 1, 2]);
    for ms in [80_500, 80_999] {
        assert_eq!(wants(&[(0, true), (1, false), (2, false)], ms), [0, 1, 2], "after {ms} ms");
    }
    assert_eq!(wants(&[(0, true), (1, false), (2, false)], 81_000), [0, 1, 2, 3]);
}

/// The places beside them are for the homes of partners.
#[test]
fn of_a_large_map_that_is_all_dead_but_one_few_are_joined_at_a_time_and_all_in_their_turn_again_and_again() {
    let start = Instant::now();
    let map: Vec<_> = (1..=12).map(|n| RelayId::from_bytes([n; 16])).collect();
    let mut chooser = HomeChooser::default();
    chooser.set_map(map.iter().map(|relay| (*relay, None)));
    assert_eq!(chooser.decide(&map[..1], start), Some(map[0]));
    let mut running: Vec<RelayId> = Vec::new();
    // In the first minute those that were found down are exchanged for others, and no more after that.
    for minutes in [0..1_u32, 1..6, 6..11] {
        let mut tried = BTreeSet::new();
        for half in minutes.start * 120..minutes.end * 120 {
            let now = start + half * Duration::from_millis(500);
            chooser.links(running.iter().map(|relay| (*relay, *relay == map[0])), now);
            running = chooser.wanted(2, 8, now);
            assert!(running.len() <= 3 + MOST_JOINED, "{running:?}");
            assert_eq!(chooser.wanted(2, 8, now), running, "one that is asked twice joins no more");
            tried.extend(running.iter().copied());
        }
        assert_eq!(tried.len(), map.len(), "{minutes:?}: {tried:?}");
    }
}

#[test]
fn the_chooser_wants_to_be_asked_when_others_come() {
    let start = Instant::now();
    let mut chooser = at_home(3, 0, start);
    wanted(&mut chooser, &[(0, true), (1, true)], start);
    let fallen = start + Duration::from_secs(10);
    wanted(&mut chooser, &[(0, true), (1, false)], fallen);
    assert_eq!(chooser.poll_timeout(fallen), Some(fallen + Duration::from_millis(500)));
}

#[test]
fn a_start_and_a_network_that_breaks_and_comes_back_bring_no_others() {
    let start = Instant::now();
    let mut chooser = at_home(4, 0, start);
    let states = [
        (0, [false, false]),
        (900, [true, false]),
        (990, [true, true]),
        (5_000, [true, false]),
        (5_010, [false, false]),
        (6_900, [false, false]),
        (6_910, [false, true]),
        (7_300, [true, true]),
        (9_000, [true, true]),
    ];
    for (ms, [home, heir]) in states {
        let wants = wanted(&mut chooser, &[(0, home), (1, heir)], start + Duration::from_millis(ms));
        assert_eq!(wants, [0, 1], "after {ms} ms");
    }
}

/// The policy of neither knows the other's home yet, and the relay that both were attached to dies. One remembers the other's home as down.
#[test]
fn two_gateways_that_are_left_with_a_relay_each_have_one_in_common_half_a_second_later() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let (mut one, mut other) = (at_home(3, 2, start), at_home(3, 1, start));
    assert_eq!(wanted(&mut other, &[(1, true), (2, false)], start), [1, 2]);
    assert_eq!(wanted(&mut other, &[(1, true), (2, false)], at(2_000)), [1, 0]);
    for (gateway, home) in [(&mut one, 2), (&mut other, 1)] {
        assert_eq!(wanted(gateway, &[(home, true), (0, true)], at(3_000)), [home, 0]);
        assert_eq!(wanted(gateway, &[(home, true), (0, false)], at(10_000)), [home, 0]);
        assert_eq!(wanted(gateway, &[(home, true), (0, false)], at(10_500)), [home, 0, 3 - home]);
    }
}
