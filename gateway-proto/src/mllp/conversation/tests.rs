#![expect(clippy::disallowed_methods, reason = "a start for virtual time")]

mod late;
mod matching;
mod passage;
mod refused;
mod under_way;

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::observe::{Counts, Warning};

const SECOND: Duration = Duration::from_secs(1);

fn message(control: &str) -> Vec<u8> {
    format!("\x0bMSH|^~\\&|A|B|C|D|2026||ADT^A01|{control}|P|2.5\rPID|1||SECRET\r\x1c\r").into_bytes()
}

fn answer(code: &str, of: &str) -> Vec<u8> {
    format!("\x0bMSH|^~\\&|B|A|D|C|2026||ACK|R-1|P|2.5\rMSA|{code}|{of}\r\x1c\r").into_bytes()
}

/// One end of a connection with virtual time.
struct World {
    ledger: Ledger,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self { ledger: Ledger::new(HashKey::from_bytes([3; 16])), now: Instant::now() }
    }

    fn talk(&mut self) -> Conversation {
        Conversation::new(&mut self.ledger, true)
    }

    fn send(&mut self, talk: &mut Conversation, bytes: &[u8]) {
        talk.observe_message_bytes(bytes, &mut self.ledger, self.now);
    }

    fn reply(&mut self, talk: &mut Conversation, bytes: &[u8]) {
        talk.observe_acknowledgement_bytes(bytes, &mut self.ledger, self.now);
    }

    fn counts(&self) -> Counts {
        self.ledger.counts()
    }

    fn warnings(&self) -> Vec<Warning> {
        self.ledger.warnings(self.now).collect()
    }
}

#[test]
fn an_unanswered_or_half_answered_message_forbids_a_clean_end() {
    let mut world = World::new();
    let mut talk = world.talk();
    let ack = answer("AA", "1");
    assert!(talk.may_end_cleanly());
    world.send(&mut talk, &message("1"));
    assert!(!talk.may_end_cleanly());
    world.reply(&mut talk, &ack[..5]);
    assert!(!talk.may_end_cleanly());
    world.reply(&mut talk, &ack[5..]);
    assert!(talk.may_end_cleanly());
    world.send(&mut talk, &message("2")[..3]);
    assert_eq!(talk.unacknowledged(), 1);
}

#[test]
fn an_answer_nobody_waits_for_is_not_credited_to_a_later_message() {
    let mut world = World::new();
    let mut talk = world.talk();
    world.reply(&mut talk, &answer("AA", "0"));
    world.send(&mut talk, &message("1"));
    assert_eq!(talk.unacknowledged(), 1);
}

#[test]
fn an_answer_that_comes_twice_is_not_credited_to_the_next_message() {
    let mut world = World::new();
    let mut talk = world.talk();
    world.send(&mut talk, &message("1"));
    world.send(&mut talk, &message("2"));
    world.reply(&mut talk, &answer("AA", "1"));
    world.reply(&mut talk, &answer("AA", "1"));
    assert_eq!((talk.unacknowledged(), talk.may_end_cleanly()), (1, false));
    world.reply(&mut talk, &answer("AA", "2"));
    assert!(talk.may_end_cleanly());
    // The same id again is another message, and its answer counts.
    world.send(&mut talk, &message("2"));
    world.reply(&mut talk, &answer("AA", "2"));
    assert!(talk.may_end_cleanly());
    assert_eq!(world.counts().outstanding, 0);
}

#[test]
fn answers_are_timed_by_control_id_and_counted_by_code() {
    let mut world = World::new();
    let mut talk = world.talk();
    world.send(&mut talk, &message("1"));
    world.now += SECOND;
    world.send(&mut talk, &message("2"));
    world.now += SECOND;
    world.reply(&mut talk, &answer("AE", "2"));
    assert!(world.ledger.latency().quantile(1.0) < Some(SECOND * 5 / 4));
    world.reply(&mut talk, &answer("AA", "1"));
    assert!(world.ledger.latency().quantile(1.0) >= Some(SECOND * 2));
    let expected = Counts { messages: 2, accepted: 1, errors: 1, ..Counts::default() };
    assert_eq!(world.counts(), expected);
    assert_eq!(world.ledger.last_kind().map(|kind| kind.to_string()).as_deref(), Some("ADT^A01"));
    assert_eq!(world.ledger.last_code().map(|code| code.as_str()), Some("AA"));
}

#[test]
fn a_commit_answer_and_the_application_answer_after_it_are_both_counted_and_none_is_a_fault() {
    let mut world = World::new();
    let mut talk = world.talk();
    world.send(&mut talk, &message("1"));
    world.reply(&mut talk, &answer("CA", "1"));
    world.reply(&mut talk, &answer("AA", "1"));
    let counts = world.counts();
    assert_eq!((counts.accepted, counts.outstanding, counts.mismatched_answers, counts.late_answers), (2, 0, 0, 0));
}

/// Commit blocks of release 2.
const COMMIT: &[u8] = b"\x0b\x06\x1c\r";
const REFUSAL: &[u8] = b"\x0b\x15\x1c\r";

#[test]
fn a_conversation_of_release_2_counts_its_messages_its_answers_and_its_commit_blocks_each_for_itself() {
    let mut world = World::new();
    let mut talk = world.talk();
    for control in ["1", "2", "3", "4"] {
        world.send(&mut talk, &message(control));
        world.now += SECOND;
        world.reply(&mut talk, COMMIT);
        assert_eq!(world.counts().outstanding, 1, "the application has not answered");
        world.now += SECOND;
        world.reply(&mut talk, &answer("AA", control));
        world.send(&mut talk, COMMIT);
        assert!(talk.may_end_cleanly());
    }
    assert_eq!(world.counts(), Counts { messages: 4, accepted: 4, commits_accepted: 8, ..Counts::default() });
    assert!(world.ledger.latency().quantile(0.0) > Some(SECOND * 3 / 2), "timed to the application's answer");
    assert_eq!(world.warnings(), []);
    assert_eq!(world.ledger.kinds().other(), 0);
    talk.end(&mut world.ledger, End::ByTheSender);
    assert_eq!((world.counts().unacknowledged, world.counts().cut), (0, 0));
}

#[test]
fn a_commit_block_takes_responsibility_for_one_message_and_not_for_a_later_one() {
    let mut world = World::new();
    let mut talk = world.talk();
    world.reply(&mut talk, COMMIT);
    world.send(&mut talk, &message("1"));
    assert!(!talk.may_end_cleanly(), "it came before the message");
    world.reply(&mut talk, &COMMIT[..2]);
    assert!(!talk.may_end_cleanly(), "half a block is none");
    world.reply(&mut talk, &COMMIT[2..]);
    assert!(talk.may_end_cleanly(), "the partner has stored it");
    world.reply(&mut talk, COMMIT);
    world.send(&mut talk, &message("2"));
    assert_eq!(talk.unacknowledged(), 1, "the block too many was for no message");
    world.reply(&mut talk, &answer("AA", "1"));
    assert_eq!(talk.unacknowledged(), 1, "and the first one's answer is not the second one's");
    talk.end(&mut world.ledger, End::Otherwise);
    let counts = world.counts();
    assert_eq!((counts.outstanding, counts.unacknowledged, counts.commits_accepted), (0, 1, 3));
}

#[test]
fn a_message_that_a_commit_block_refused_forbids_a_clean_end_until_the_engine_goes_on() {
    let mut world = World::new();
    let mut talk = world.talk();
    world.send(&mut talk, &message("1"));
    world.reply(&mut talk, REFUSAL);
    assert!(!talk.may_end_cleanly(), "it was not taken");
    assert_eq!((world.counts().commits_refused, world.counts().outstanding), (1, 0), "and no answer is to come");
    world.send(&mut talk, &message("1"));
    assert!(!talk.may_end_cleanly());
    world.reply(&mut talk, COMMIT);
    assert!(talk.may_end_cleanly());
    world.reply(&mut talk, &answer("AA", "1"));
    assert!(talk.may_end_cleanly());
    let expected = Counts { messages: 2, accepted: 1, commits_accepted: 1, commits_refused: 1, ..Counts::default() };
    assert_eq!(world.counts(), expected);
}

#[test]
fn a_refused_message_that_comes_again_on_a_new_connection_is_no_duplicate() {
    let mut world = World::new();
    let mut first = world.talk();
    world.send(&mut first, &message("1"));
    world.reply(&mut first, REFUSAL);
    world.reply(&mut first, REFUSAL);
    first.end(&mut world.ledger, End::ByTheSender);
    let mut second = world.talk();
    world.send(&mut second, &message("1"));
    let counts = world.counts();
    assert_eq!((counts.duplicates, counts.retries, counts.unacknowledged, counts.outstanding), (0, 0, 0, 1));
    assert_eq!(counts.commits_refused, 2);
    assert_eq!(world.warnings(), []);
}

#[test]
fn a_message_that_comes_again_on_a_new_connection_after_the_engine_gave_up_is_a_duplicate() {
    let mut world = World::new();
    let mut first = world.talk();
    world.send(&mut first, &message("1"));
    world.now += SECOND * 5;
    first.end(&mut world.ledger, End::ByTheSender);
    world.now += SECOND * 2;
    let mut second = world.talk();
    world.send(&mut second, &message("1"));
    let counts = world.counts();
    assert_eq!((counts.duplicates, counts.retries, counts.unacknowledged, counts.outstanding), (1, 0, 1, 1));
    assert_eq!(world.warnings(), [Warning::Duplicate { after: SECOND * 7 }]);
    second.end(&mut world.ledger, End::ByTheSender);
    world.now += SECOND * 3600;
    assert_eq!(world.warnings(), []);
}

#[test]
fn an_answer_that_comes_after_its_message_was_repeated_is_late() {
    let mut world = World::new();
    let (mut first, mut second) = (world.talk(), world.talk());
    world.send(&mut first, &message("1"));
    world.now += SECOND * 7;
    world.send(&mut second, &message("1"));
    assert_eq!(world.counts().duplicates, 1, "the first is still half open");
    world.now += SECOND;
    world.reply(&mut first, &answer("AA", "1"));
    assert_eq!(world.counts().late_answers, 1);
    world.reply(&mut second, &answer("AA", "1"));
    assert_eq!((world.counts().late_answers, world.counts().accepted), (1, 2));
}

#[test]
fn a_message_that_comes_again_after_the_tunnel_failed_is_a_retry_and_no_warning() {
    let mut world = World::new();
    let mut first = world.talk();
    world.send(&mut first, &message("1"));
    first.end(&mut world.ledger, End::Otherwise);
    let mut second = world.talk();
    world.send(&mut second, &message("1"));
    assert_eq!((world.counts().duplicates, world.counts().retries), (0, 1));
    assert_eq!(world.warnings(), []);
}

#[test]
fn the_same_control_id_on_one_connection_or_after_its_answer_is_no_duplicate() {
    let mut world = World::new();
    let mut first = world.talk();
    world.send(&mut first, &message("1"));
    world.send(&mut first, &message("1"));
    world.reply(&mut first, &answer("AA", "1"));
    world.reply(&mut first, &answer("AA", "1"));
    first.end(&mut world.ledger, End::ByTheSender);
    let mut second = world.talk();
    world.send(&mut second, &message("1"));
    assert_eq!((world.counts().duplicates, world.counts().retries), (0, 0));
}

#[test]
fn an_answer_for_another_message_is_named_so() {
    let mut world = World::new();
    let mut talk = world.talk();
    world.send(&mut talk, &message("1"));
    world.reply(&mut talk, &answer("AA", "SOMEBODY-ELSE"));
    assert_eq!(world.counts().mismatched_answers, 1);
    assert_eq!(world.warnings(), [Warning::Mismatched]);
    assert_eq!(world.ledger.latency().quantile(0.5), None);
}

#[test]
fn a_connection_that_ends_inside_a_frame_counts_it_as_cut() {
    let mut world = World::new();
    let mut talk = world.talk();
    world.send(&mut talk, &message("1")[..20]);
    talk.end(&mut world.ledger, End::ByTheSender);
    let counts = world.counts();
    assert_eq!((counts.cut, counts.messages, counts.unacknowledged), (1, 0, 0));
}

#[test]
fn a_flood_of_types_ids_and_messages_keeps_the_ledger_small() {
    let mut world = World::new();
    let mut talk = world.talk();
    for n in 0..5000 {
        let text = format!("\x0bMSH|^~\\&|A|B|C|D|2026||ADT^{n:03}|{n}|P\r\x1c\r");
        world.send(&mut talk, text.as_bytes());
    }
    let kinds = world.ledger.kinds();
    assert_eq!(kinds.known().len(), 16);
    assert_eq!(kinds.known().iter().map(|(_, count)| count).sum::<u64>() + kinds.other(), 5000);
    assert_eq!(talk.unacknowledged(), 5000);
    for n in 0..100 {
        world.reply(&mut talk, &answer("AA", &format!("R{n}")));
    }
    assert!(talk.waiting.len() <= MAX_TRACKED && talk.answered.len() <= MAX_ANSWERED);
    assert!(size_of::<Conversation>() < 600, "{}", size_of::<Conversation>());
}

#[test]
fn nothing_of_a_message_is_in_what_is_kept() {
    let mut world = World::new();
    let mut talk = world.talk();
    world.send(&mut talk, &message("SECRET-ID"));
    world.send(
        &mut talk,
        b"\x0bMSH|^~\\&|SECRET|SECRET|SECRET|SECRET|SECRET||SECRET^SECRET|SECRET|SECRET\r\x1c\rSECRET",
    );
    world.reply(&mut talk, &answer("SECRET", "SECRET-ID"));
    let shown = format!("{:?}{talk:?}{:?}", world.ledger, world.warnings());
    assert!(!shown.contains("SECRET") && !shown.contains("MSH"), "{shown}");
    // A byte string shows as numbers.
    let numbers = format!("{:?}", b"SECRET").replace(['[', ']'], "");
    assert!(!shown.contains(&numbers), "{shown}");
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_give_the_same_counts(
        parts in proptest::collection::vec((any::<bool>(), prop_oneof![
            Just(message("1")), Just(message("2")), Just(answer("AA", "1")), Just(answer("AR", "2")), Just(vec![0x0b]),
            Just(COMMIT.to_vec()), Just(REFUSAL.to_vec()), Just(vec![0x06]), Just(vec![0x1c, 0x0d]),
            proptest::collection::vec(any::<u8>(), 0..40),
        ]), 0..20),
        piece in 1..40_usize
    ) {
        let count = |piece: usize| {
            let mut world = World::new();
            let mut talk = world.talk();
            for (is_message, bytes) in &parts {
                for bytes in bytes.chunks(piece) {
                    if *is_message { world.send(&mut talk, bytes) } else { world.reply(&mut talk, bytes) }
                }
            }
            let end = (talk.unacknowledged(), talk.may_end_cleanly());
            talk.end(&mut world.ledger, End::Otherwise);
            (end, world.counts())
        };
        prop_assert_eq!(count(piece), count(usize::MAX));
    }
}
