//! What lasts is told whatever flows besides, and nothing else is.

use super::*;

/// One message is lost for good, and the given minutes have one good message each.
fn one_is_lost(pair: &mut Pair, minutes: std::ops::Range<u64>, is_busy: impl Fn(u64) -> bool) -> Vec<BalanceEvent> {
    let mut good = 0;
    let told = minutes.filter_map(|minute| {
        good += u64::from(is_busy(minute));
        pair.minute(minute * 60, counts(1, 5 + good, 4 + good), counts(2, 4 + good, 4 + good))
    });
    told.collect()
}

#[test]
fn a_message_in_every_second_minute_does_not_hide_the_one_that_is_missing() {
    let mut pair = Pair::default();
    let events = one_is_lost(&mut pair, 1..5, |minute| minute % 2 == 1);
    let alarm = DeliveryAlarm { since: 120, difference: Difference { messages: 1, answers: 0 } };
    assert_eq!(events, [BalanceEvent::Raised(alarm)], "in the second quiet minute");
    assert!(pair.is_open());
}

#[test]
fn hours_of_traffic_between_two_pauses_do_not_hide_it_and_its_alarm_stands_as_long_as_any_other() {
    let mut pair = Pair::default();
    let is_busy = |minute: u64| ![2, 300].contains(&minute);
    assert_eq!(one_is_lost(&mut pair, 1..300, is_busy), []);
    assert!(pair.is_open(), "the suspicion is looked at on");
    let mut pair = Pair::default();
    let events = one_is_lost(&mut pair, 1..315, is_busy);
    assert!(matches!(events[..], [BalanceEvent::Raised(_)]), "not written off for the hours before: {events:?}");
}

#[test]
fn a_pause_that_finds_the_ends_equal_ends_a_suspicion() {
    let mut pair = Pair::default();
    assert_eq!(one_is_lost(&mut pair, 1..3, |_| false), []);
    // It was late, and the same happens to another one an hour later.
    for (minute, missing) in [(3, 0), (4, 0), (63, 1), (64, 1), (65, 0), (66, 0)] {
        let sent = 5 + minute / 60;
        let told = pair.minute(minute * 60, counts(1, sent, 4), counts(2, sent - missing, 4));
        assert_eq!((told, pair.balance.alarm()), (None, None), "minute {minute}");
    }
    assert!(!pair.is_open());
}

#[test]
fn more_that_is_lost_at_each_look_is_no_new_suspicion_each_time() {
    let mut pair = Pair::default();
    let events: Vec<_> = (1..5).filter_map(|m| pair.minute(m * 60, counts(1, 10 * m, 0), counts(2, 0, 0))).collect();
    let alarm = DeliveryAlarm { since: 120, difference: Difference { messages: 20, answers: 0 } };
    assert_eq!(events, [BalanceEvent::Raised(alarm)]);
}

#[test]
fn what_an_end_counted_while_the_other_was_out_of_reach_is_no_difference() {
    let mut pair = Pair::default();
    pair.minute(60, counts(1, 5, 5), counts(2, 5, 5));
    for minute in 2..=3 {
        assert_eq!(pair.round(minute * 60, Some(counts(1, 5 * minute, 5 * minute)), None), None);
        assert_eq!(pair.balance, Balance::default(), "minute {minute}: the listener has not said a word of it yet");
        assert!(pair.is_open());
    }
    assert_eq!(pair.minute(240, counts(1, 15, 15), counts(2, 15, 15)), None);
    assert_eq!(pair.minute(300, counts(1, 15, 15), counts(2, 15, 15)), None);
    assert_eq!((pair.balance.clone(), pair.is_open()), (Balance::default(), false));
    // It is heard again, and one never reached it.
    pair.round(360, Some(counts(1, 16, 15)), None);
    for minute in 7..=9 {
        pair.minute(minute * 60, counts(1, 16, 15), counts(2, 15, 15));
    }
    assert_eq!(pair.balance.alarm().map(|alarm| alarm.difference), Some(Difference { messages: 1, answers: 0 }));
}

/// A message: when in its minute it is sent, how long it is under way, how long the application takes, how long the answer is under
/// way, and whether something of it is lost.
#[derive(Debug, Clone, Copy)]
struct Sent {
    at: u64,
    there: u64,
    thinking: u64,
    back: u64,
    is_lost: bool,
}

fn sent() -> impl Strategy<Value = Sent> {
    let is_lost = proptest::bool::weighted(0.03);
    (0..60_u64, 0..=TIMES.grace, 0..50_u64, 0..=TIMES.grace, is_lost)
        .prop_map(|(at, there, thinking, back, is_lost)| Sent { at, there, thinking, back, is_lost })
}

/// What is lost of a message for good.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Message,
    Answer,
    /// The sender's gateway is killed before it has reported it.
    Report,
}

/// When an end counted its messages and answers.
#[derive(Debug, Default)]
struct Counted {
    messages: Vec<u64>,
    answers: Vec<u64>,
}

impl Counted {
    fn until(&self, epoch: u64, now: u64) -> EndCounts {
        let number = |all: &[u64]| all.iter().filter(|at| **at <= now).count() as u64;
        counts(epoch, number(&self.messages), number(&self.answers))
    }
}

/// What both ends count of some minutes, and from when on they differ by one more.
#[derive(Debug, Default)]
struct Truth {
    sender: Counted,
    listener: Counted,
    lost: Vec<u64>,
}

impl Truth {
    fn pass(&mut self, minute: u64, sent: &Sent, loss: Loss) {
        let begun = minute * 60 + sent.at;
        let heard = begun + sent.there;
        let answered = heard + sent.thinking;
        let (tells, hears, learns, lost) = match sent.is_lost.then_some(loss) {
            None => (true, true, true, None),
            Some(Loss::Message) => (true, false, false, Some(begun)),
            Some(Loss::Answer) => (true, true, false, Some(answered)),
            Some(Loss::Report) => (false, true, false, Some(heard)),
        };
        self.sender.messages.extend(tells.then_some(begun));
        self.listener.messages.extend(hears.then_some(heard));
        self.listener.answers.extend(hears.then_some(answered));
        self.sender.answers.extend(learns.then_some(answered + sent.back));
        self.lost.extend(lost);
    }

    fn is_lost_before(&self, now: u64) -> bool {
        self.lost.iter().any(|at| *at < now)
    }
}

proptest! {
    /// A pause is a round in which both ends are heard and have nothing new. Whatever flows between two of them, and whoever is out of
    /// reach, the second one tells of what lasts; and what is told is true.
    #[test]
    fn a_difference_that_lasts_is_told_in_the_second_pause_and_none_where_the_ends_are_equal(
        minutes in proptest::collection::vec(
            (proptest::collection::vec(sent(), 0..3), proptest::bool::weighted(0.9), proptest::bool::weighted(0.9)),
            1..60,
        ),
        loss in proptest::sample::select(vec![Loss::Message, Loss::Answer, Loss::Report]),
    ) {
        let mut truth = Truth::default();
        for (minute, (messages, ..)) in minutes.iter().enumerate() {
            messages.iter().for_each(|sent| truth.pass(minute as u64, sent, loss));
        }
        let (mut pair, mut last, mut pauses, mut is_told) = (Pair::default(), (None, None), 0, false);
        for (minute, (_, reaches_sender, reaches_listener)) in minutes.iter().enumerate() {
            let now = 60 * (minute as u64 + 1);
            let sender = reaches_sender.then(|| truth.sender.until(1, now));
            let listener = reaches_listener.then(|| truth.listener.until(2, now));
            let event = pair.round(now, sender, listener);
            is_told |= matches!(event, Some(BalanceEvent::Raised(_)));
            let is_pause = sender.is_some() && listener.is_some() && (sender, listener) == last;
            last = (sender.or(last.0), listener.or(last.1));
            pauses += u32::from(is_pause && truth.is_lost_before(now));
            prop_assert!(is_told || pauses < 2, "minute {minute}: it has lasted for two pauses");
            prop_assert!(!matches!(event, Some(BalanceEvent::Cleared(_))), "minute {minute}: what is lost stays lost");
            if let Some(alarm) = pair.balance.alarm() {
                prop_assert!(truth.is_lost_before(alarm.since), "minute {minute}: {alarm:?}");
                let most = truth.lost.iter().filter(|at| **at <= now).count() as u64;
                let Difference { messages, answers } = alarm.difference;
                prop_assert!(messages.unsigned_abs().max(answers.unsigned_abs()) <= most, "minute {minute}: {alarm:?}");
            }
        }
    }
}
