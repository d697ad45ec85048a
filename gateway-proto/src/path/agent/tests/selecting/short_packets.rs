//! A path that answers large packets and loses small ones.

use super::*;
use crate::path::budget::Priority;

#[test]
fn a_path_that_stops_carrying_small_packets_is_left_for_that_reason_at_whatever_moment_it_stops() {
    for stop in (0..12_000).step_by(250) {
        let (mut a, mut b, from) = settled(start());
        let hole = from + stop * MS;
        play_until_left(&mut a, &mut b, from, |at, packet| at < hole || packet.len() >= 1_200);
        let snapshot = a.snapshot();
        assert_eq!(snapshot.reason, PathReason::SmallPacketsLost, "after {stop} ms");
        assert!(snapshot.changed_at <= hole.max(from) + 2_500 * MS, "{:?} after {stop} ms", snapshot.changed_at - hole);
        assert_eq!((snapshot.selected, snapshot.obstacle), (Selected::Relayed, Some(Obstacle::SmallPacketsLost)));
        assert!(a.pairs.get(addr(1)).is_some_and(|pair| !pair.is_barred(snapshot.changed_at)), "it may be a mistake");
        a.punch.peer_absent = true;
        assert_eq!(a.snapshot().obstacle, Some(Obstacle::NoAnswer), "what is nearer is said");
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

#[test]
fn a_short_interruption_is_never_taken_for_a_loss_of_small_packets_at_whatever_moment_it_begins() {
    let phases = |length: u32| (0..1_000_u32).step_by(50).map(move |phase| (length, phase));
    for (length, phase) in (1_200..=2_000_u32).step_by(100).flat_map(phases) {
        let (mut a, mut b, from) = settled(start());
        let cut = from + (2_000 + phase) * MS;
        let end = cut + length * MS;
        a.set_active(true, from);
        let mut at = from;
        while is_direct(&a) && at < end + 5_000 * MS {
            at = at.max(a.poll_timeout().unwrap().0);
            a.handle_timeout(at, UNIX_MS);
            for (_, packet) in probes(&mut a) {
                ask(&mut a, &mut b, &packet, at, |_| at < cut || at >= end);
            }
        }
        let snapshot = a.snapshot();
        assert_ne!(snapshot.reason, PathReason::SmallPacketsLost, "{length} ms after {phase} ms");
        assert_ne!(snapshot.obstacle, Some(Obstacle::SmallPacketsLost), "{length} ms after {phase} ms");
        assert!(a.pairs.get(addr(1)).is_some_and(|pair| !pair.is_barred(at)));
    }
}

#[test]
fn a_sound_path_is_kept_while_its_questions_are_kept_back_by_the_limit() {
    let (mut a, mut b, from) = settled(start());
    a.set_active(true, from);
    let mut at = from;
    while at < from + 20_000 * MS {
        at = at.max(a.poll_timeout().unwrap().0);
        while a.pings.take(Priority::Decide, at) {}
        a.handle_timeout(at, UNIX_MS);
        assert!(probes(&mut a).is_empty());
        assert!(matches!(a.selected(), Selected::Direct { duplicate: false, .. }), "after {:?}", at - from);
    }
    let suppressed = a.snapshot().counters.probes_suppressed;
    assert!((10..=200).contains(&suppressed), "asked again, and not in a loop: {suppressed}");
    at += 1_000 * MS;
    a.handle_timeout(at, UNIX_MS);
    exchange(&mut a, &mut b, at);
    assert!(is_direct(&a));
}

#[test]
fn a_path_is_called_lossy_only_as_long_as_it_rests() {
    let (mut a, _, from) = settled(start());
    for step in 1..=10 {
        a.handle_traffic(Carried { sent: 100, lost: 40, lost_bytes: 40 * 500 }, 20 * MS, from + step * 500 * MS);
    }
    assert_eq!(a.snapshot().obstacle, Some(Obstacle::Lossy));
    a.handle_timeout(from + 40_000 * MS, UNIX_MS);
    assert_ne!(a.snapshot().obstacle, Some(Obstacle::Lossy), "now something else keeps it");
}
