//! What the far side refused, and what comes again after it.

use super::*;

#[test]
fn messages_of_a_refused_conversation_are_not_counted_and_their_repetition_is_no_duplicate() {
    let mut world = World::new();
    for _ in 0..3 {
        let mut refused = Conversation::new(&mut world.ledger, false);
        world.send(&mut refused, &message("1"));
        assert_eq!((world.counts().messages, world.counts().outstanding), (0, 1));
        refused.end(&mut world.ledger, End::Refused);
    }
    assert_eq!(world.counts(), Counts::default());
    assert!(world.ledger.kinds().known().is_empty(), "nor by their type");
    let mut lost = Conversation::new(&mut world.ledger, false);
    world.send(&mut lost, &message("0"));
    lost.end(&mut world.ledger, End::Otherwise);
    assert_eq!((world.counts().messages, world.counts().unacknowledged), (1, 1), "nobody knows what became of it");
    let mut taken = Conversation::new(&mut world.ledger, false);
    world.send(&mut taken, &message("1"));
    taken.accepted(&mut world.ledger);
    world.send(&mut taken, &message("2"));
    assert_eq!((world.counts().messages, world.counts().duplicates), (3, 0));
    assert_eq!(world.ledger.kinds().known().iter().map(|(_, count)| count).sum::<u64>(), 3);
}

#[test]
fn a_repetition_that_is_refused_is_no_duplicate_and_the_one_that_is_taken_is_one() {
    let mut world = World::new();
    let mut slow = world.talk();
    world.send(&mut slow, &message("1"));
    world.now += SECOND * 5;
    slow.end(&mut world.ledger, End::ByTheSender);
    for _ in 0..3 {
        world.now += SECOND * 10;
        let mut refused = Conversation::new(&mut world.ledger, false);
        world.send(&mut refused, &message("1"));
        assert_eq!((world.counts().duplicates, world.warnings()), (0, vec![]), "nobody has taken it yet");
        refused.end(&mut world.ledger, End::Refused);
        let counts = world.counts();
        assert_eq!((counts.messages, counts.duplicates, counts.retries), (1, 0, 0));
        assert_eq!(world.warnings(), []);
    }
    world.now += SECOND * 10;
    let mut taken = Conversation::new(&mut world.ledger, false);
    world.send(&mut taken, &message("1"));
    world.now += SECOND;
    taken.accepted(&mut world.ledger);
    assert_eq!((world.counts().messages, world.counts().duplicates), (2, 1), "the partner has it twice");
    assert_eq!(world.warnings(), [Warning::Duplicate { after: SECOND * 45 }]);
}

#[test]
fn a_repetition_that_nobody_answers_for_counts_with_its_message_and_a_refused_one_does_not() {
    let mut world = World::new();
    let mut lost = world.talk();
    world.send(&mut lost, &message("1"));
    lost.end(&mut world.ledger, End::Otherwise);
    for (end, retries) in [(End::Refused, 0), (End::Otherwise, 1)] {
        let mut again = Conversation::new(&mut world.ledger, false);
        world.send(&mut again, &message("1"));
        again.end(&mut world.ledger, end);
        let counts = world.counts();
        assert_eq!((counts.messages, counts.retries, counts.duplicates), (1 + retries, retries, 0), "{end:?}");
    }
}

#[test]
fn the_last_thing_that_went_wrong_is_told_first_also_when_a_repetition_is_taken_late() {
    let mut world = World::new();
    let mut slow = world.talk();
    world.send(&mut slow, &message("1"));
    world.now += SECOND;
    let mut again = Conversation::new(&mut world.ledger, false);
    world.send(&mut again, &message("1"));
    world.now += SECOND;
    world.reply(&mut slow, &answer("AA", "SOMEBODY-ELSE"));
    again.accepted(&mut world.ledger);
    assert_eq!(world.warnings(), [Warning::Mismatched, Warning::Duplicate { after: SECOND }]);
}

#[test]
fn the_last_type_is_that_of_the_last_message_that_was_taken() {
    let mut world = World::new();
    let result = String::from_utf8(message("2")).unwrap().replace("ADT^A01", "ORU^R01").into_bytes();
    for (bytes, end, last) in [
        (message("1"), End::Refused, None),
        (message("1"), End::Otherwise, Some("ADT^A01")),
        (result.clone(), End::Refused, Some("ADT^A01")),
    ] {
        let before = world.ledger.last_kind();
        let mut untaken = Conversation::new(&mut world.ledger, false);
        world.send(&mut untaken, &bytes);
        assert_eq!(world.ledger.last_kind(), before, "nobody has taken it yet");
        untaken.end(&mut world.ledger, end);
        assert_eq!(world.ledger.last_kind().map(|kind| kind.to_string()).as_deref(), last);
    }
    let mut taken = Conversation::new(&mut world.ledger, false);
    world.send(&mut taken, &result);
    taken.accepted(&mut world.ledger);
    assert_eq!(world.ledger.last_kind().map(|kind| kind.to_string()).as_deref(), Some("ORU^R01"));
}
