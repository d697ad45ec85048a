//! A message that the listener's end did not count is not missing where its answer or its repetition says so, and else it is.

use super::*;

fn again(epoch: u64, messages: u64, accepted: u64, repeated: u64) -> EndCounts {
    EndCounts { repeated, ..counts(epoch, messages, accepted) }
}

/// Three pauses: what was told in them.
fn pauses(pair: &mut Pair, from: u64, sender: EndCounts, listener: EndCounts) -> Vec<BalanceEvent> {
    (from..from + 3).filter_map(|minute| pair.minute(minute * 60, sender, listener)).collect()
}

fn told(pair: &Pair) -> Option<Difference> {
    pair.balance.alarm().map(|alarm| alarm.difference)
}

#[test]
fn a_listener_that_was_killed_after_messages_were_acknowledged_is_no_alarm() {
    let mut pair = Pair::default();
    five_are_equal(&mut pair);
    // Twenty were acknowledged and never reported; one was on its way, came again, and is in the listener's new run.
    let (sender, listener) = (again(1, 27, 26, 1), counts(3, 1, 1));
    assert_eq!(pauses(&mut pair, 3, sender, listener), []);
    assert_eq!((told(&pair), pair.is_open()), (None, false));
    assert_eq!(pair.balance.explained(), Difference { messages: 21, answers: -20 });
}

#[test]
fn one_that_is_missing_among_those_that_were_handed_over_is_told_as_one() {
    let mut pair = Pair::default();
    five_are_equal(&mut pair);
    let (sender, listener) = (counts(1, 26, 25), counts(3, 0, 0));
    assert!(matches!(pauses(&mut pair, 3, sender, listener)[..], [BalanceEvent::Raised(_)]));
    assert_eq!(told(&pair), Some(Difference { messages: 1, answers: 0 }));
    // It is sent again, and with it nothing is missing any more.
    assert!(matches!(pauses(&mut pair, 6, again(1, 27, 26, 1), counts(3, 1, 1))[..], [BalanceEvent::Cleared(_)]));
}

#[test]
fn a_message_that_was_cut_and_acknowledged_when_it_came_again_is_no_alarm() {
    let mut pair = Pair::default();
    five_are_equal(&mut pair);
    assert_eq!(pauses(&mut pair, 3, again(1, 8, 6, 2), counts(2, 6, 6)), [], "cut twice");
    assert_eq!((told(&pair), pair.balance.explained().messages), (None, 2));
    // A pause before the repetition makes it a suspicion, and no more.
    assert_eq!(pair.minute(6 * 60, again(1, 9, 6, 2), counts(2, 6, 6)), None);
    assert_eq!(pair.minute(7 * 60, again(1, 9, 6, 2), counts(2, 6, 6)), None);
    assert!(pair.is_open());
    assert_eq!(pauses(&mut pair, 8, again(1, 10, 7, 3), counts(2, 7, 7)), []);
    assert_eq!((told(&pair), pair.is_open()), (None, false));
}

#[test]
fn a_repetition_that_nothing_was_missing_for_explains_nothing_later() {
    let mut pair = Pair::default();
    five_are_equal(&mut pair);
    // The listener's gateway was restarted with a message on its way, and does not know that it came before.
    assert_eq!(pauses(&mut pair, 3, again(1, 7, 6, 1), counts(3, 2, 1)), []);
    assert!(matches!(pauses(&mut pair, 6, again(1, 8, 6, 1), counts(3, 2, 1))[..], [BalanceEvent::Raised(_)]));
    assert_eq!(told(&pair), Some(Difference { messages: 1, answers: 0 }));
}

#[test]
fn an_answer_that_is_lost_is_told_also_when_its_message_came_again_and_hides_no_missing_message() {
    let mut pair = Pair::default();
    five_are_equal(&mut pair);
    pauses(&mut pair, 3, counts(1, 6, 5), counts(2, 6, 6));
    assert_eq!(told(&pair), Some(Difference { messages: 0, answers: 1 }));
    // Its message comes again, and another one is missing for good.
    pauses(&mut pair, 6, again(1, 8, 6, 1), counts(2, 7, 7));
    assert_eq!(told(&pair), Some(Difference { messages: 1, answers: 1 }));
}

#[test]
fn counts_that_are_told_after_all_make_the_ends_equal() {
    let mut pair = Pair::default();
    five_are_equal(&mut pair);
    assert_eq!(pauses(&mut pair, 3, again(1, 27, 26, 1), counts(3, 1, 1)), []);
    // The last word of the former run was at another replica.
    pair.listener.report(&[counts(2, 26, 25)], 6 * 60);
    assert_eq!(pauses(&mut pair, 6, again(1, 27, 26, 1), counts(3, 1, 1)), []);
    assert_eq!((told(&pair), pair.is_open(), pair.balance.explained()), (None, false, Difference::NONE));
}

#[test]
fn a_balance_that_was_written_down_before_anything_was_explained_goes_on() {
    let text = r#"{"written_off":{"messages":1,"answers":0},"difference":{"messages":0,"answers":0},"since":null,
        "unchanged_since":0,"is_alarm":false}"#;
    let read: Balance = serde_json::from_str(text).unwrap();
    assert_eq!(read, Balance { written_off: Difference { messages: 1, answers: 0 }, ..Balance::default() });
}

/// Five messages, all of them acknowledged.
fn five_are_equal(pair: &mut Pair) {
    for minute in 1..=2 {
        assert_eq!(pair.minute(minute * 60, counts(1, 5, 5), counts(2, 5, 5)), None);
    }
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Fine,
    /// The receiving engine ends it on its way, and it is acknowledged when it comes again.
    CutAndRepeated,
    /// It is acknowledged, and the listener's gateway does not live to report it.
    Uncounted,
}

#[derive(Debug, Default)]
struct Book(Vec<(u64, EndCounts)>);

impl Book {
    fn count(&mut self, at: u64, more: EndCounts) {
        self.0.push((at, more));
    }

    fn until(&self, epoch: u64, now: u64) -> EndCounts {
        let passed = self.0.iter().filter(|(at, _)| *at <= now).map(|(_, more)| more);
        passed.fold(again(epoch, 0, 0, 0), |sum, more| {
            again(epoch, sum.messages + more.messages, sum.accepted + more.accepted, sum.repeated + more.repeated)
        })
    }
}

proptest! {
    #[test]
    fn no_message_that_was_acknowledged_in_the_end_is_an_alarm(
        minutes in proptest::collection::vec(
            (
                proptest::collection::vec(
                    (0..60_u64, proptest::sample::select(vec![Fate::Fine, Fate::CutAndRepeated, Fate::Uncounted])),
                    0..3,
                ),
                proptest::bool::weighted(0.9),
            ),
            1..60,
        ),
    ) {
        let (mut at_sender, mut at_listener) = (Book::default(), Book::default());
        for (minute, (sent, ..)) in minutes.iter().enumerate() {
            for (second, fate) in sent {
                let mut at = minute as u64 * 60 + second;
                at_sender.count(at, again(1, 1, 0, 0));
                if matches!(fate, Fate::CutAndRepeated) {
                    at += 10;
                    at_sender.count(at, again(1, 1, 0, 1));
                }
                at_sender.count(at + 3, again(1, 0, 1, 0));
                if !matches!(fate, Fate::Uncounted) {
                    at_listener.count(at + 1, again(2, 1, 0, 0));
                    at_listener.count(at + 2, again(2, 0, 1, 0));
                }
            }
        }
        let mut pair = Pair::default();
        for (minute, (_, reaches_listener)) in minutes.iter().enumerate() {
            let now = 60 * (minute as u64 + 1);
            // Of a sender's end that is out of reach nobody knows yet that it was acknowledged.
            let sender = Some(at_sender.until(1, now));
            let listener = reaches_listener.then(|| at_listener.until(2, now));
            prop_assert_eq!(pair.round(now, sender, listener), None, "minute {}", minute);
            prop_assert_eq!(pair.balance.alarm(), None);
        }
    }
}
