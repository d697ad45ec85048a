//! Which message an answer is for.

use super::*;

/// More than are tracked.
const MANY: usize = MAX_TRACKED + 4;

/// A batch with a message in it.
fn batch(inside: &str) -> Vec<u8> {
    let message = String::from_utf8(message(inside)).unwrap();
    message.replace('\x0b', "\x0bFHS|^~\\&|A|B\rBHS|^~\\&|A|B\r").into_bytes()
}

/// An answer with a control id of its own.
fn answer_by(own: &str, of: &str) -> Vec<u8> {
    String::from_utf8(answer("AA", of)).unwrap().replace("|R-1|", &format!("|{own}|")).into_bytes()
}

fn assert_all_matched(world: &World, talk: &Conversation) {
    assert_eq!((world.counts().mismatched_answers, world.warnings()), (0, vec![]));
    assert!(talk.may_end_cleanly() && talk.waiting.is_empty());
}

#[test]
fn a_batch_whose_answer_names_a_message_inside_it_is_answered_and_timed() {
    let mut world = World::new();
    let mut talk = world.talk();
    world.send(&mut talk, &batch("ID1"));
    world.now += SECOND;
    world.reply(&mut talk, &answer("AA", "ID1"));
    assert_all_matched(&world, &talk);
    assert!(world.ledger.latency().quantile(1.0) >= Some(SECOND));
    // Each batch numbers its messages anew.
    world.send(&mut talk, &batch("ID1"));
    world.reply(&mut talk, &answer_by("R-2", "ID1"));
    assert_all_matched(&world, &talk);
}

#[test]
fn among_messages_that_are_answered_by_their_ids_those_without_one_are_answered_in_their_order() {
    let mut world = World::new();
    let mut talk = world.talk();
    for sent in [message("1"), batch("ID1"), message("2"), message("")] {
        world.send(&mut talk, &sent);
    }
    for of in ["1", "ID1", "2", "ANY"] {
        world.reply(&mut talk, &answer("AA", of));
    }
    assert_all_matched(&world, &talk);
    world.send(&mut talk, &message("3"));
    world.reply(&mut talk, &answer("AA", "SOMEBODY-ELSE"));
    assert_eq!(world.warnings(), [Warning::Mismatched], "that one has an id");
}

#[test]
fn an_answer_that_comes_again_is_not_a_batch_s() {
    let mut world = World::new();
    let mut talk = world.talk();
    world.send(&mut talk, &message("1"));
    world.reply(&mut talk, &answer("AA", "1"));
    world.send(&mut talk, &batch("ID1"));
    world.reply(&mut talk, &answer("AA", "1"));
    assert_eq!((talk.unacknowledged(), talk.waiting.len()), (1, 1));
    world.reply(&mut talk, &answer("AA", "ID1"));
    assert!(talk.may_end_cleanly());
}

#[test]
fn former_answers_that_all_come_again_are_credited_to_none_of_the_next_messages() {
    let mut world = World::new();
    let mut talk = world.talk();
    for of in ["1", "2"] {
        world.send(&mut talk, &message(of));
        for former in ["1", "2"].into_iter().filter(|former| *former <= of) {
            world.reply(&mut talk, &answer("AA", former));
        }
    }
    assert!(talk.may_end_cleanly());
    world.send(&mut talk, &message("3"));
    world.send(&mut talk, &message("4"));
    for of in ["1", "2"] {
        world.reply(&mut talk, &answer("AA", of));
    }
    assert_eq!((talk.unacknowledged(), world.counts().outstanding), (2, 2));
    for of in ["3", "4"] {
        world.reply(&mut talk, &answer("AA", of));
    }
    assert!(talk.may_end_cleanly());
}

#[test]
fn many_messages_on_their_way_with_one_control_id_are_all_answered() {
    let mut world = World::new();
    let mut talk = world.talk();
    for _ in 0..2 {
        (0..MANY).for_each(|_| world.send(&mut talk, &message("SAME")));
        assert!(!talk.may_end_cleanly());
        for left in (0..MANY).rev() {
            world.reply(&mut talk, &answer("AA", "SAME"));
            assert_eq!(talk.unacknowledged(), left as u64);
        }
        assert_all_matched(&world, &talk);
    }
}

#[test]
fn beyond_those_that_are_tracked_every_answer_counts_once_and_is_no_other_message_s() {
    let mut world = World::new();
    let mut talk = world.talk();
    let ids: Vec<_> = (0..3 * MANY).map(|n| n.to_string()).collect();
    ids[..MANY].iter().for_each(|id| world.send(&mut talk, &message(id)));
    for (n, id) in ids.iter().enumerate() {
        let left = MANY.min(ids.len() - n) - 1;
        for _ in 0..2 {
            world.reply(&mut talk, &answer("AA", id));
            assert_eq!(talk.unacknowledged(), left as u64, "{id}");
        }
        // Always as many on their way: some of them are tracked again, while others before them are not.
        if let Some(next) = ids.get(n + MANY) {
            world.send(&mut talk, &message(next));
        }
    }
    assert_all_matched(&world, &talk);
}
