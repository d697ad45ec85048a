use super::*;

#[test]
fn a_message_or_an_answer_is_under_way_from_its_first_byte_to_its_last_and_no_longer_than_a_minute_after_it_moved() {
    let mut world = World::new();
    let mut talk = world.talk();
    let (long, answer) = (message("1"), answer("AA", "1"));
    let is_under_way = |world: &World| world.ledger.is_under_way(world.now);
    for piece in long.chunks(10) {
        world.send(&mut talk, piece);
        world.now += SECOND * 59;
        assert_eq!(is_under_way(&world), !talk.may_end_cleanly() && world.counts().messages == 0);
    }
    assert!(!is_under_way(&world), "it is counted");
    world.reply(&mut talk, &answer[..3]);
    assert!(is_under_way(&world));
    world.now += SECOND * 60;
    assert!(!is_under_way(&world), "it stands still");
    world.reply(&mut talk, &answer[3..6]);
    assert!(is_under_way(&world), "it goes on");
    talk.end(&mut world.ledger, End::Otherwise);
    assert!(!is_under_way(&world), "it is over");
}

#[test]
fn a_frame_whose_engine_leaves_out_the_last_byte_is_not_under_way_once_its_end_was_seen() {
    let mut world = World::new();
    let mut talk = world.talk();
    for control in ["1", "2", "3"] {
        world.send(&mut talk, &message(control));
        let answer = answer("AA", control);
        let (all_but_the_end, rest) = answer.split_at(answer.len() - 2);
        world.reply(&mut talk, all_but_the_end);
        assert!(world.ledger.is_under_way(world.now), "{control}");
        world.reply(&mut talk, &rest[..1]);
        assert!(!world.ledger.is_under_way(world.now), "{control}");
    }
}

#[test]
fn a_frame_is_under_way_for_seventy_minutes_at_most_unless_it_passes_faster_than_the_lowest_rate() {
    for (piece, is_faster) in [(59, false), (60_000, true)] {
        let mut world = World::new();
        let mut talk = world.talk();
        world.send(&mut talk, &message("1")[..5]);
        for minute in 1..6 * 60 {
            world.now += SECOND * 59;
            world.send(&mut talk, &vec![b'x'; piece]);
            let is_waited_for = world.ledger.is_under_way(world.now);
            assert_eq!(is_waited_for, minute <= 71 || is_faster, "{piece} bytes a minute, {minute}");
        }
        // The next one has its own time, also where it begins in the bytes that end this one.
        world.send(&mut talk, &[&b"\x1c\r"[..], &message("2")[..5]].concat());
        assert!(world.ledger.is_under_way(world.now), "{piece}");
    }
}
