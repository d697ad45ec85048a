use gateway_proto::{api::gateway::EngineHead, engine::EngineState};

use super::*;

fn relay(n: u8) -> Option<RelayId> {
    Some(RelayId::new(1, [n; 10]))
}

fn engine() -> Telling {
    let (senders, advice) = (Vec::new(), Vec::new());
    let head = EngineHead { state: EngineState::Up, version: None, problem: None, left_out: 0, senders, advice };
    Telling::Engine(EngineReport { head, complete: true, more: false, channels: Vec::new(), gone: Vec::new() })
}

fn refusal(revision: u64) -> Telling {
    Telling::Refusal { revision, in_force: 0, reason: String::new() }
}

fn revision(telling: Option<Telling>) -> Option<u64> {
    match telling {
        Some(Telling::Refusal { revision, .. }) => Some(revision),
        Some(Telling::Home(_) | Telling::Engine(_) | Telling::Audit(_)) | None => None,
    }
}

#[test]
fn one_thing_is_written_at_a_time_and_what_found_the_database_busy_comes_first_again() {
    let now = Instant::now();
    let mut tellings = Tellings::new(now);
    assert_eq!(tellings.due_at(), None);
    tellings.hold(refusal(1));
    tellings.hold(refusal(2));
    assert_eq!(tellings.due_at(), Some(now));
    let first = tellings.take_due(now).unwrap();
    assert!(tellings.due_at().is_none() && tellings.take_due(now).is_none(), "one at a time");
    let later = now + again(u64::MAX);
    tellings.put_back(first, later);
    assert_eq!((tellings.due_at(), revision(tellings.take_due(now))), (Some(later), None));
    let first = tellings.take_due(later).unwrap();
    tellings.done(&first, later);
    assert_eq!(revision(Some(first)), Some(1));
    assert_eq!(revision(tellings.take_due(later)), Some(2));
    assert!((0..10_000).map(again).all(|wait| (AGAIN..AGAIN * 2).contains(&wait)));
}

#[test]
fn a_home_goes_before_the_rest_is_not_lost_while_the_database_is_busy_and_moves_no_more_often_than_it_may() {
    let now = Instant::now();
    let mut tellings = Tellings::new(now);
    tellings.hold(refusal(1));
    tellings.wants(relay(1));
    let home = tellings.take_due(now).unwrap();
    assert!(matches!(home, Telling::Home(home) if home == relay(1)));
    let later = now + AGAIN;
    tellings.put_back(home, later);
    tellings.wants(relay(2));
    tellings.wants(None);
    let home = tellings.take_due(later).unwrap();
    assert!(matches!(home, Telling::Home(home) if home == relay(2)), "the last word counts");
    tellings.wants(relay(3));
    tellings.done(&home, later);
    assert_eq!(revision(tellings.take_due(later)), Some(1), "others do not wait for the next move");
    tellings.done(&refusal(1), later);
    assert_eq!(tellings.due_at(), Some(later + HOME_INTERVAL));
    assert!(tellings.take_due(later + HOME_INTERVAL).is_some());
}

#[test]
fn a_home_that_moved_too_often_on_other_watches_waits_and_nothing_else_waits_with_it() {
    let now = Instant::now();
    let mut tellings = Tellings::new(now);
    tellings.wants(relay(1));
    assert!(tellings.take_due(now).is_some());
    let later = now + HOME_INTERVAL / 2;
    tellings.rests(later);
    tellings.hold(refusal(1));
    assert_eq!(revision(tellings.take_due(now)), Some(1));
    tellings.done(&refusal(1), now);
    assert_eq!((tellings.due_at(), tellings.take_due(now).is_none()), (Some(later), true));
    assert!(matches!(tellings.take_due(later), Some(Telling::Home(home)) if home == relay(1)), "it is not forgotten");
}

#[test]
fn nothing_is_read_on_while_too_much_waits_or_something_whose_order_counts() {
    let now = Instant::now();
    let mut tellings = Tellings::new(now);
    tellings.wants(relay(1));
    tellings.hold(engine());
    assert!(!tellings.is_full(), "a home and a part of an engine hold up nothing");
    tellings.hold(engine());
    assert!(tellings.is_full());

    let mut tellings = Tellings::new(now);
    tellings.hold(refusal(1));
    assert!(tellings.is_full());
    let refused = tellings.take_due(now).unwrap();
    assert!(tellings.is_full() && tellings.waits(Kind::Refusal), "it is not written yet");
    tellings.done(&refused, now);
    assert!(!tellings.is_full());
}

#[test]
fn when_a_watch_ends_only_what_the_next_one_will_not_hear_again_is_left_to_write() {
    let mut tellings = Tellings::new(Instant::now());
    tellings.wants(relay(1));
    tellings.hold(engine());
    tellings.hold(refusal(1));
    tellings.hold(refusal(2));
    assert_eq!((revision(tellings.take_last()), revision(tellings.take_last())), (Some(1), Some(2)));
    assert!(tellings.take_last().is_none());
}
