//! A path that answers large packets and loses small ones.

use super::*;

#[test]
fn a_path_that_stops_carrying_small_packets_is_left_for_that_reason_at_whatever_moment_it_stops_and_rests() {
    for stop in (0..12_000).step_by(250) {
        let (mut a, mut b, from) = settled(start());
        let hole = from + stop * MS;
        play_until_left(&mut a, &mut b, from, |at, packet| at < hole || packet.len() >= 1_200);
        let snapshot = a.snapshot();
        assert_eq!(snapshot.reason, PathReason::SmallPacketsLost, "after {stop} ms");
        assert!(snapshot.changed_at <= hole.max(from) + 2_500 * MS, "{:?} after {stop} ms", snapshot.changed_at - hole);
        assert_eq!((snapshot.selected, snapshot.obstacle), (Selected::Relayed, Some(Obstacle::SmallPacketsLost)));
        assert!(a.pairs.get(addr(1)).is_some_and(|pair| pair.is_barred(snapshot.changed_at + 29_000 * MS)));
    }
}

#[test]
fn a_dial_in_vain_goes_over_the_relay_too_where_large_packets_are_answered_and_small_ones_are_not() {
    let (mut a, mut b, from) = settled(start());
    a.set_active(true, from);
    let distrusted = (0..2_000_u32).step_by(10).find(|ms| {
        let at = from + *ms * MS;
        if ms % 250 == 0 && *ms > 0 {
            a.dialled_in_vain(at);
        }
        a.handle_timeout(at, UNIX_MS);
        for (_, packet) in probes(&mut a) {
            ask(&mut a, &mut b, &packet, at, |packet| packet.len() >= 1_200);
        }
        events(&mut a).contains(&PathEvent::Distrusted)
    });
    assert!(distrusted.is_some_and(|ms| ms <= 500), "{distrusted:?}");
}
