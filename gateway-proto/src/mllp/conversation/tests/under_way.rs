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
