use super::*;
use crate::limits::Rate;

/// A message of 15,000 bytes in pieces, four in a second, as far as `until`.
fn pass(world: &mut World, talk: &mut Conversation, until: usize) {
    let long = format!("\x0bMSH|^~\\&|A|B|C|D|2026||ADT^A01|1|P|2.5\rZZZ|{}\r\x1c\r", "x".repeat(15_000));
    for piece in long.as_bytes()[..until.min(long.len())].chunks(500) {
        world.send(talk, piece);
        world.now += Duration::from_millis(250);
    }
}

fn slow(world: &World) -> Option<(Duration, u64)> {
    world.warnings().into_iter().find_map(|warning| match warning {
        Warning::Slow { took, bytes, patience } => {
            assert_eq!(patience, SECOND * 5);
            Some((took, bytes))
        }
        Warning::Duplicate { .. }
        | Warning::Waiting { .. }
        | Warning::Late { .. }
        | Warning::Mismatched
        | Warning::Framing(_) => None,
    })
}

#[test]
fn a_message_that_passes_for_longer_than_its_engine_waits_is_told_with_what_passed_beside_it() {
    let mut world = World::new();
    let mut talk = world.talk();
    world.send(&mut talk, &message("0"));
    world.reply(&mut talk, &answer("AA", "0"));
    world.now += SECOND * 100;
    assert_eq!(slow(&world), None, "the pause between two messages is nobody's passage");
    pass(&mut world, &mut talk, usize::MAX);
    let (took, bytes) = slow(&world).unwrap();
    assert_eq!(took, Duration::from_millis(7_500));
    assert!(Rate::new(2_000).holds_back(bytes, took) && !Rate::new(4_000).holds_back(bytes, took), "{bytes}");

    // Two at once: each has half the rate, and it is the rate all the same.
    let mut world = World::new();
    let mut talks = [world.talk(), world.talk()];
    for talk in &mut talks {
        world.send(talk, b"\x0b");
    }
    for _ in 0..30 {
        for talk in &mut talks {
            world.send(talk, b"MSH|^~\\&|A");
            world.now += Duration::from_millis(125);
        }
    }
    for talk in talks {
        talk.end(&mut world.ledger, End::ByTheSender);
    }
    let (took, bytes) = slow(&world).unwrap();
    let rate = bytes * 1_000 / took.as_millis() as u64;
    assert!((78..=84).contains(&rate), "10 bytes eight times a second: {rate}");
}

#[test]
fn a_message_that_is_cut_while_it_passes_is_told_when_its_engine_may_have_given_up() {
    let mut world = World::new();
    let mut talk = world.talk();
    pass(&mut world, &mut talk, 8_500);
    talk.end(&mut world.ledger, End::ByTheSender);
    assert_eq!(slow(&world), Some((SECOND * 4, 8_000)));

    let mut world = World::new();
    let mut talk = world.talk();
    pass(&mut world, &mut talk, 6_000);
    world.now += SECOND * 100;
    talk.end(&mut world.ledger, End::ByTheSender);
    assert_eq!(slow(&world), None, "it stood still");
}
