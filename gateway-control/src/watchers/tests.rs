use super::*;
use crate::service::ground::counted;

fn server(n: u8) -> ServerId {
    ServerId::new(1, [n; 10])
}

fn enter(watchers: &Watchers, n: u8, now: u64) -> WatchSession {
    watchers.enter(server(n), watchers.next_session(), now)
}

#[test]
fn a_look_wakes_only_those_who_have_an_older_policy() {
    let watchers = Watchers::default();
    let (mut one, mut other) = (enter(&watchers, 1, 0), enter(&watchers, 2, 0));
    one.read(5);
    other.read(4);
    watchers.wake_if_older(server(1), 5);
    watchers.wake_if_older(server(2), 5);
    assert_eq!(*one.changes.borrow_and_update(), Signal::Changed(0));
    assert_eq!(*other.changes.borrow_and_update(), Signal::Changed(1));
    watchers.wake_all();
    assert_eq!(*one.changes.borrow_and_update(), Signal::Changed(1));
    watchers.replace(server(1));
    assert_eq!(*one.changes.borrow_and_update(), Signal::Replaced);
}

#[test]
fn only_the_named_watcher_is_woken() {
    let watchers = Watchers::default();
    let (mut one, mut other) = (enter(&watchers, 1, 0), enter(&watchers, 2, 0));
    watchers.wake(server(1));
    assert!(one.changes.has_changed().unwrap());
    assert!(!other.changes.has_changed().unwrap());
    assert_eq!(*one.changes.borrow_and_update(), Signal::Changed(1));
    assert_eq!(*other.changes.borrow_and_update(), Signal::Changed(0));
}

#[test]
fn a_newer_watch_replaces_the_older_and_the_older_does_not_take_it_along() {
    let watchers = Watchers::default();
    let older = enter(&watchers, 1, 0);
    let newer = enter(&watchers, 1, 7);
    assert_eq!(*older.changes.borrow(), Signal::Replaced);
    drop(older);
    assert_eq!(watchers.last_heard(server(1)), Some(7));
    // An older one that comes late does not take its place either.
    let (late, latest) = (watchers.next_session(), watchers.next_session());
    let latest = watchers.enter(server(1), latest, 8);
    let late = watchers.enter(server(1), late, 9);
    assert_eq!((*late.changes.borrow(), *latest.changes.borrow()), (Signal::Replaced, Signal::Changed(0)));
    drop((newer, late));
    assert_eq!(watchers.last_heard(server(1)), Some(8));
    drop(latest);
    assert_eq!(watchers.count(), 0);
}

fn told(id: ConnectionId, epoch: u64, messages: u64) -> Vec<ConnectionReport> {
    vec![counted(id, EndCounts { epoch, messages, ..EndCounts::default() })]
}

#[test]
fn what_a_gateway_counted_waits_until_it_is_entered_however_its_watch_ends() {
    let (watchers, id) = (Watchers::default(), ConnectionId::new(1, [1; 10]));
    let counted = || watchers.told(id).into_iter().map(|(_, counts)| (counts.epoch, counts.messages));
    let watch = enter(&watchers, 1, 0);
    watch.report(told(id, 1, 100), &[id], 0);
    // A round has read it, and fails after the gateway has left.
    let read = watchers.told(id);
    drop(watch);
    assert_eq!((watchers.counts(server(1), id), counted().collect::<Vec<_>>()), (None, vec![(1, 100)]));
    // The gateway comes back from a restart, is replaced, and watches elsewhere in the end.
    let older = enter(&watchers, 1, 1);
    older.report(told(id, 2, 5), &[id], 1);
    let newer = enter(&watchers, 1, 2);
    newer.report(told(id, 2, 9), &[id], 2);
    watchers.entered(id, &read);
    watchers.replace(server(1));
    assert_eq!(counted().collect::<Vec<_>>(), [(2, 9)]);
    assert_eq!(watchers.counted(), BTreeSet::from([id]));
    watchers.entered(id, &watchers.told(id));
    assert!(watchers.counted().is_empty());
    drop((older, newer));
}

#[test]
fn what_a_gateway_says_of_its_path_is_kept_short_and_in_one_line() {
    let (watchers, id) = (Watchers::default(), ConnectionId::new(1, [1; 10]));
    let watch = enter(&watchers, 1, 0);
    let why = PathWhy { code: "c".repeat(1_000), text: format!("\n{}", "t".repeat(100_000)) };
    let details = EndDetails { path_reason: Some(why), ..EndDetails::default() };
    watch.report(vec![ConnectionReport { details: Some(details), ..told(id, 1, 1).remove(0) }], &[id], 0);
    let (kept, _) = watchers.report(server(1), id).unwrap();
    let why = kept.details.unwrap().path_reason.unwrap();
    assert_eq!((why.code.len(), why.text), (40, "t".repeat(500)));
}

#[test]
fn words_of_a_gateway_are_kept_without_what_cannot_be_seen() {
    assert_eq!(brief("the engine\u{200b} is\u{202e} down\u{2028}!\n"), "the engine is down!");
}

#[test]
fn counts_that_were_told_before_are_no_news_and_those_of_unknown_connections_are_dropped() {
    let (watchers, id) = (Watchers::default(), ConnectionId::new(1, [1; 10]));
    let watch = enter(&watchers, 1, 0);
    assert_eq!(watch.report(told(id, 1, 5), &[], 0), Dropped { reports: 1, counts: 0 });
    assert!(watchers.counted().is_empty());
    assert_eq!(watch.report(told(id, 1, 5), &[id], 0), Dropped::default());
    watchers.entered(id, &watchers.told(id));
    watch.report(told(id, 1, 5), &[id], 1);
    assert!(watchers.counted().is_empty());
    assert_eq!(watchers.counts(server(1), id).map(|counts| counts.messages), Some(5));
}
