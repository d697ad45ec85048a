#![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
use super::*;

const HOLD: Duration = Duration::from_secs(3);

fn events(places: &mut Places<u8>) -> Vec<PlaceEvent> {
    std::iter::from_fn(|| places.poll_event()).collect()
}

fn full(most: u32, now: Instant) -> Places<u8> {
    let mut places = Places::new(most, 1);
    for _ in 0..most {
        assert_eq!(places.ask(0, HOLD, now), Asked::Granted);
    }
    places
}

fn wait(places: &mut Places<u8>, peer: u8, now: Instant) -> Ticket {
    match places.ask(peer, HOLD, now) {
        Asked::Waits(ticket) => ticket,
        other @ (Asked::Granted | Asked::Refused) => panic!("{other:?}"),
    }
}

#[test]
fn the_eleventh_waits_and_gets_the_place_that_is_given_back() {
    let now = Instant::now();
    let mut places = full(10, now);
    let ticket = wait(&mut places, 1, now);
    assert_eq!((places.taken(), places.waiting(), places.poll_timeout()), (10, 1, Some(now + HOLD)));
    assert_eq!(events(&mut places), []);
    places.leave(&0);
    assert_eq!(events(&mut places), [PlaceEvent::Granted(ticket)]);
    assert_eq!((places.taken(), places.waiting(), places.poll_timeout()), (10, 0, None));
}

#[test]
fn who_waits_too_long_is_told_so_at_its_deadline_and_not_before() {
    let now = Instant::now();
    let mut places = full(1, now);
    let first = wait(&mut places, 1, now);
    let second = wait(&mut places, 1, now + Duration::from_secs(1));
    places.handle_timeout(now + HOLD - Duration::from_millis(1));
    assert_eq!(events(&mut places), []);
    places.handle_timeout(now + HOLD);
    assert_eq!(events(&mut places), [PlaceEvent::Expired(first)]);
    places.leave(&0);
    assert_eq!(events(&mut places), [PlaceEvent::Granted(second)]);
}

#[test]
fn peers_are_served_in_turn_however_many_streams_one_of_them_has() {
    let now = Instant::now();
    let mut places = full(1, now);
    let greedy: Vec<_> = (0..5).map(|_| wait(&mut places, 1, now)).collect();
    let modest = wait(&mut places, 2, now);
    let third = wait(&mut places, 3, now);
    let (mut order, mut leaves) = (Vec::new(), 0);
    for next in [1, 2, 3, 1, 1, 1, 1] {
        places.leave(&leaves);
        order.extend(events(&mut places));
        leaves = next;
    }
    let expected = [greedy[0], modest, third, greedy[1], greedy[2], greedy[3], greedy[4]];
    assert_eq!(order, expected.map(PlaceEvent::Granted));
}

#[test]
fn nobody_overtakes_and_who_went_away_takes_no_place() {
    let now = Instant::now();
    let mut places = full(1, now);
    let (first, second) = (wait(&mut places, 1, now), wait(&mut places, 1, now));
    assert!(places.forget(first));
    assert!(!places.forget(first));
    places.leave(&0);
    assert_eq!(events(&mut places), [PlaceEvent::Granted(second)]);
    assert!(!places.forget(second), "it has a place, and gives it back by leaving");
    places.leave(&1);
    assert!(places.is_idle());
    assert_eq!(places.ask(9, HOLD, now), Asked::Granted);
}

#[test]
fn the_queue_is_bounded_for_each_peer_and_as_a_whole() {
    let now = Instant::now();
    let mut places = full(1, now);
    for _ in 0..MAX_WAITING_PER_PEER {
        wait(&mut places, 1, now);
    }
    assert_eq!(places.ask(1, HOLD, now), Asked::Refused);
    for peer in 2..=9 {
        while let Asked::Waits(_) = places.ask(peer, HOLD, now) {}
    }
    assert_eq!(places.waiting(), MAX_WAITING);
    assert_eq!(places.ask(10, HOLD, now), Asked::Refused);
    assert_eq!(full(1, now).ask(1, Duration::ZERO, now), Asked::Refused, "without a hold nobody waits");
}

#[test]
fn more_places_are_given_out_at_once_and_fewer_as_they_are_given_back() {
    let now = Instant::now();
    let mut places = full(2, now);
    let (first, second) = (wait(&mut places, 1, now), wait(&mut places, 1, now));
    places.set_most(3);
    assert_eq!(events(&mut places), [PlaceEvent::Granted(first)]);
    places.set_most(1);
    places.leave(&0);
    places.leave(&0);
    assert_eq!(events(&mut places), []);
    places.leave(&0);
    assert_eq!(events(&mut places), [PlaceEvent::Granted(second)]);
}

#[test]
fn idle_connections_of_one_peer_leave_a_place_for_each_of_the_others() {
    let now = Instant::now();
    let mut places = Places::new(10, 3);
    let taken = (0..12).filter(|_| places.ask(1, HOLD, now) == Asked::Granted).count();
    assert_eq!((taken, places.waiting()), (8, 4), "two are kept");
    assert_eq!(places.ask(2, HOLD, now), Asked::Granted, "those who wait for a ninth place are passed by");
    assert!(matches!(places.ask(2, HOLD, now), Asked::Waits(_)), "the last one is the third peer's");
    assert_eq!(places.ask(3, HOLD, now), Asked::Granted);
    assert!(matches!(places.ask(3, HOLD, now), Asked::Waits(_)));
    // Everybody is there: what is given back goes in turn.
    places.leave(&1);
    places.leave(&1);
    assert_eq!(events(&mut places).len(), 2);
    assert_eq!(places.taken(), 10);
    places.set_peers(4);
    places.leave(&1);
    assert_eq!(events(&mut places), [], "a fourth peer was granted the listener");
    places.set_peers(3);
    assert_eq!(events(&mut places).len(), 1);
}

#[test]
fn many_peers_never_keep_more_than_half_of_the_places_from_the_one_that_is_busy() {
    let now = Instant::now();
    let mut places = Places::new(10, 1_000);
    assert_eq!((0..64).filter(|_| places.ask(1, HOLD, now) == Asked::Granted).count(), 5);
    let mut single = Places::new(1, 7);
    assert_eq!(single.ask(1, HOLD, now), Asked::Granted);
}

#[test]
fn a_peer_without_a_place_is_told_how_many_are_taken_and_how_many_are_kept_for_others() {
    let now = Instant::now();
    let mut places = Places::new(10, 11);
    let taken = (0..6).filter(|_| places.ask(1, HOLD, now) == Asked::Granted).count();
    assert_eq!((taken, places.no_place()), (5, NoPlace { taken: 5, most: 10 }));
    assert_eq!(places.no_place().to_string(), "5 of 10 taken, 5 kept for other partners");
    assert_eq!(full(10, now).no_place().to_string(), "10 of 10 taken");
    let mut fewer = full(3, now);
    fewer.set_most(2);
    assert_eq!((fewer.no_place().to_string().as_str(), fewer.no_place().kept()), ("3 of 2 taken", 0));
    assert_eq!(NoPlace::new(70_000, u32::MAX), NoPlace { taken: u16::MAX, most: u16::MAX });
}

#[test]
fn an_engine_that_ends_a_connection_at_once_without_having_read_turned_it_away() {
    let (at_once, soon, late) = (Duration::from_millis(5), Duration::from_millis(300), Duration::from_secs(2));
    let (unread, closed) = (MuteEnd::Reset, MuteEnd::Finished { given: false });
    assert!([unread, closed].iter().all(|end| end.is_turned_away(at_once) && end.is_turned_away(soon)));
    assert!([unread, closed].iter().all(|end| !end.is_turned_away(late)), "something else became of it");
    let given = MuteEnd::Finished { given: true };
    assert!(given.is_turned_away(at_once), "it had closed before that was written");
    assert!(!given.is_turned_away(soon), "it read that, and had a place");
}
