//! Acknowledgements that come later than a sending engine waits for them, and messages that wait for theirs.

use super::*;
use crate::observe::{BOUNDS, Book, Protocol, RESPONSE_TIMEOUT};

fn late(took: Duration) -> Warning {
    Warning::Late { took, patience: RESPONSE_TIMEOUT }
}

fn waits(world: &World) -> Option<Duration> {
    world.ledger.longest_wait(world.now)
}

#[test]
fn an_acknowledgement_that_comes_later_than_an_engine_waits_is_counted_timed_and_told_when_it_comes() {
    let mut world = World::new();
    let mut talk = world.talk();
    world.send(&mut talk, &message("1"));
    world.now += RESPONSE_TIMEOUT;
    assert_eq!(world.warnings(), [], "an engine waits for so long");
    world.now += SECOND;
    assert_eq!(world.warnings(), [Warning::Waiting { lasts: SECOND * 6, patience: RESPONSE_TIMEOUT }], "and no longer");
    world.now += SECOND * 2;
    world.reply(&mut talk, &answer("AA", "1"));
    let counts = world.counts();
    assert_eq!((counts.accepted, counts.late_answers, counts.duplicates), (1, 1, 0), "nothing has come again yet");
    assert_eq!(world.warnings(), [late(SECOND * 8)]);
    let bucket = BOUNDS.iter().position(|bound| *bound == SECOND * 10).unwrap();
    assert_eq!(world.ledger.latency().buckets()[bucket], 1);

    world.send(&mut talk, &message("2"));
    world.now += RESPONSE_TIMEOUT;
    world.reply(&mut talk, &answer("AA", "2"));
    assert_eq!((world.counts().late_answers, world.warnings()), (1, vec![late(SECOND * 8)]), "that one was in time");
    world.now += SECOND * 3600;
    assert_eq!(world.warnings(), []);
}

#[test]
fn of_all_messages_the_one_that_waits_longest_is_told_until_it_is_acknowledged_or_its_connection_ends() {
    let mut world = World::new();
    let (mut first, mut second) = (world.talk(), world.talk());
    assert_eq!(waits(&world), None);
    world.send(&mut first, &message("1"));
    for control in ["2", "3"] {
        world.now += SECOND;
        world.send(&mut second, &message(control));
    }
    world.now += SECOND * 8;
    assert_eq!(waits(&world), Some(SECOND * 10));
    world.reply(&mut first, &answer("AA", "1"));
    assert_eq!(waits(&world), Some(SECOND * 9));
    world.reply(&mut second, &answer("AA", "2"));
    assert_eq!(waits(&world), Some(SECOND * 8));
    second.end(&mut world.ledger, End::ByTheSender);
    assert_eq!(waits(&world), None);

    let mut refused = Conversation::new(&mut world.ledger, false);
    world.send(&mut refused, &message("4"));
    assert_eq!(waits(&world), Some(Duration::ZERO));
    refused.end(&mut world.ledger, End::Refused);
    assert_eq!(waits(&world), None, "it comes again");
}

#[test]
fn a_message_that_an_answer_with_a_wrong_id_may_have_been_for_is_not_waited_for_any_more() {
    let mut world = World::new();
    let mut talk = world.talk();
    world.send(&mut talk, &message("1"));
    world.now += SECOND;
    world.send(&mut talk, &message("2"));
    world.now += SECOND;
    world.reply(&mut talk, &answer("AA", "SOMEBODY-ELSE"));
    assert_eq!(waits(&world), Some(SECOND));
    world.reply(&mut talk, &answer("AA", "2"));
    assert_eq!(waits(&world), None);
}

#[test]
fn a_commit_block_is_an_acknowledgement_and_may_be_late_and_the_applications_answer_after_it_is_not() {
    let mut world = World::new();
    let mut talk = world.talk();
    world.send(&mut talk, &message("1"));
    world.now += SECOND * 6;
    assert_eq!(waits(&world), Some(SECOND * 6));
    world.reply(&mut talk, COMMIT);
    assert_eq!((world.counts().late_answers, waits(&world)), (1, None), "the partner has stored it");
    world.now += SECOND * 60;
    world.reply(&mut talk, &answer("AA", "1"));
    assert_eq!((world.counts().late_answers, world.warnings()), (1, vec![late(SECOND * 6)]));

    world.send(&mut talk, &message("2"));
    world.reply(&mut talk, COMMIT);
    world.now += SECOND * 60;
    world.reply(&mut talk, &answer("AA", "2"));
    assert_eq!(world.counts().late_answers, 1);

    world.send(&mut talk, &message("3"));
    world.now += SECOND * 7;
    world.reply(&mut talk, REFUSAL);
    assert_eq!((world.counts().late_answers, world.warnings()), (2, vec![late(SECOND * 7)]));
    world.reply(&mut talk, COMMIT);
    assert_eq!(world.counts().late_answers, 2, "a block for no message is none");
}

#[test]
fn how_long_engines_wait_can_be_said() {
    let (mut world, patience) = (World::new(), SECOND * 60);
    let mut book = Book::new(Protocol::Mllp, HashKey::from_bytes([3; 16])).with_patience(patience);
    let mut exchange = book.begin(true);
    for (control, took) in [("1", patience), ("2", patience + SECOND)] {
        book.asked(&mut exchange, &message(control), world.now);
        world.now += took;
        book.answered(&mut exchange, &answer("AA", control), world.now);
    }
    let Book::Mllp(ledger) = &book else { panic!("an MLLP book") };
    assert_eq!(ledger.counts().late_answers, 1);
    let told: Vec<_> = ledger.warnings(world.now).collect();
    assert_eq!(told, [Warning::Late { took: patience + SECOND, patience }]);
}
