//! What is said of differences, in virtual time.

mod explained;
mod lasting;
mod under_way;

use proptest::prelude::*;

use super::*;

const TIMES: BalanceTimes = BalanceTimes { grace: 10, lasting: 60, settled: 900 };

pub(super) fn counts(epoch: u64, messages: u64, accepted: u64) -> EndCounts {
    EndCounts { epoch, messages, accepted, ..EndCounts::default() }
}

#[derive(Default)]
struct Pair {
    sender: Tally,
    listener: Tally,
    balance: Balance,
}

impl Pair {
    fn minute(&mut self, now: u64, sender: EndCounts, listener: EndCounts) -> Option<BalanceEvent> {
        self.round(now, Some(sender), Some(listener))
    }

    /// None: that end's gateway is out of reach.
    fn round(&mut self, now: u64, sender: Option<EndCounts>, listener: Option<EndCounts>) -> Option<BalanceEvent> {
        for (tally, told) in [(&mut self.sender, sender), (&mut self.listener, listener)] {
            let Some(told) = told else { continue };
            tally.report(&[told], now);
            if told.under_way { tally.confirm_midway(now) } else { tally.confirm(now) }
        }
        self.balance.handle_tallies(&self.sender, &self.listener, now, &TIMES)
    }

    fn is_open(&self) -> bool {
        self.balance.is_open(&self.sender, &self.listener, &TIMES)
    }
}

#[test]
fn equal_counts_are_no_news_and_what_is_in_flight_is_no_difference() {
    let mut pair = Pair::default();
    for minute in 1..100 {
        let (sent, heard) = (minute * 600, minute * 600 - minute % 7);
        assert_eq!(pair.minute(minute * 60, counts(1, sent, heard), counts(2, heard, heard)), None);
        assert_eq!(pair.balance.alarm(), None, "minute {minute}");
    }
    assert!(pair.is_open());
}

#[test]
fn a_message_that_never_arrives_raises_the_alarm_and_equality_clears_it() {
    let mut pair = Pair::default();
    let (sender, short) = (counts(1, 5, 4), counts(2, 4, 4));
    assert_eq!(pair.minute(60, sender, short), None, "it may be in flight");
    assert_eq!(pair.minute(120, sender, short), None, "it may arrive");
    let alarm = DeliveryAlarm { since: 120, difference: Difference { messages: 1, answers: 0 } };
    assert_eq!(pair.minute(180, sender, short), Some(BalanceEvent::Raised(alarm)));
    assert_eq!(pair.balance.alarm(), Some(alarm));
    assert_eq!(pair.minute(240, sender, short), None, "once");
    // The report that was missing.
    let whole = counts(2, 5, 4);
    assert_eq!(pair.minute(300, sender, whole), None, "another one may be in flight");
    assert_eq!(pair.balance.alarm(), Some(alarm));
    assert_eq!(pair.minute(360, sender, whole), Some(BalanceEvent::Cleared(alarm)));
    assert_eq!(pair.balance.alarm(), None);
}

#[test]
fn an_answer_that_is_lost_on_its_way_back_is_a_difference_too() {
    let mut pair = Pair::default();
    for minute in 1..=4 {
        pair.minute(minute * 60, counts(1, 5, 4), counts(2, 5, 5));
    }
    assert_eq!(pair.balance.alarm().map(|a| a.difference), Some(Difference { messages: 0, answers: 1 }));
}

#[test]
fn counts_go_on_over_a_restart_and_what_was_not_reported_is_a_difference() {
    let mut pair = Pair::default();
    pair.minute(60, counts(1, 100, 100), counts(2, 100, 100));
    assert_eq!(pair.minute(120, counts(1, 103, 103), counts(3, 3, 3)), None);
    pair.minute(180, counts(1, 103, 103), counts(3, 3, 3));
    assert_eq!((pair.listener.messages(), pair.listener.runs()), (103, 2));
    assert_eq!(pair.balance.alarm(), None);
    // The sender's gateway is killed before it reported two more.
    for minute in 4..=6 {
        pair.minute(minute * 60, counts(4, 1, 1), counts(3, 6, 6));
    }
    assert_eq!(pair.balance.alarm().map(|a| a.difference), Some(Difference { messages: -2, answers: 2 }));
}

#[test]
fn a_difference_that_stays_the_same_for_long_is_written_off_and_a_new_one_is_seen() {
    let mut pair = Pair::default();
    let events: Vec<_> = (1..30).filter_map(|m| pair.minute(m * 60, counts(1, 5, 5), counts(2, 4, 5))).collect();
    assert!(matches!(events[..], [BalanceEvent::Raised(_), BalanceEvent::WrittenOff(_)]), "{events:?}");
    assert_eq!(pair.balance.written_off(), Difference { messages: 1, answers: 0 });
    for minute in 30..=33 {
        pair.minute(minute * 60, counts(1, 9, 9), counts(2, 8, 9));
        assert_eq!(pair.balance.alarm(), None);
    }
    assert!(!pair.is_open());
    for minute in 34..=36 {
        pair.minute(minute * 60, counts(1, 10, 9), counts(2, 8, 9));
    }
    assert_eq!(pair.balance.alarm().map(|a| a.difference.messages), Some(1));
}

/// One message is missing, and the third minute raises the alarm.
fn alarmed() -> (Pair, DeliveryAlarm) {
    let mut pair = Pair::default();
    let events: Vec<_> = (1..=3).filter_map(|m| pair.minute(m * 60, counts(1, 5, 5), counts(2, 4, 5))).collect();
    let alarm = DeliveryAlarm { since: 120, difference: Difference { messages: 1, answers: 0 } };
    assert_eq!(events, [BalanceEvent::Raised(alarm)]);
    (pair, alarm)
}

/// A minute with a hundred messages, all of which arrive and are acknowledged.
fn busy(pair: &mut Pair, minute: u64, missing: u64) -> Option<BalanceEvent> {
    let more = minute * 100;
    pair.minute(minute * 60, counts(1, 5 + more, 5 + more), counts(2, 5 + more - missing, 5 + more))
}

#[test]
fn traffic_neither_clears_an_alarm_nor_raises_it_again_and_a_pause_tells_the_truth() {
    let (mut pair, alarm) = alarmed();
    for minute in 4..=10 {
        assert_eq!(busy(&mut pair, minute, 1), None, "minute {minute}");
        assert_eq!(pair.balance.alarm(), Some(alarm), "minute {minute}");
    }
    // A pause: one is missing still.
    let (sender, listener) = (counts(1, 1_005, 1_005), counts(2, 1_004, 1_005));
    assert_eq!(pair.minute(11 * 60, sender, listener), None);
    assert_eq!(pair.balance.alarm(), Some(alarm));
    // It is reported after all, in the midst of others, and the next pause shows it.
    assert_eq!(busy(&mut pair, 12, 0), None);
    assert_eq!(pair.balance.alarm(), Some(alarm));
    let whole = counts(1, 1_205, 1_205);
    assert_eq!(pair.minute(13 * 60, whole, EndCounts { epoch: 2, ..whole }), Some(BalanceEvent::Cleared(alarm)));
    assert!(pair.balance.alarm().is_none() && pair.balance.written_off() == Difference::NONE);
}

#[test]
fn a_difference_that_stays_the_same_is_written_off_under_traffic_too() {
    let (mut pair, alarm) = alarmed();
    let events: Vec<_> = (4..30).filter_map(|minute| busy(&mut pair, minute, 1).map(|event| (minute, event))).collect();
    assert_eq!(events, [(18, BalanceEvent::WrittenOff(alarm))], "fifteen minutes after it was raised");
    assert_eq!(pair.balance.written_off(), alarm.difference);
    // It was the right one: the next pause has nothing to say.
    for minute in 30..=33 {
        assert_eq!(pair.minute(minute * 60, counts(1, 2_905, 2_905), counts(2, 2_904, 2_905)), None);
        assert_eq!(pair.balance.alarm(), None);
    }
}

#[test]
fn an_alarm_follows_what_is_certain_and_its_clock_begins_anew() {
    let (mut pair, alarm) = alarmed();
    let told = |pair: &Pair| pair.balance.alarm().map(|alarm| alarm.difference.messages);
    // A thousand more do not arrive: certain as soon as none of them can be in flight.
    let (sender, listener) = (counts(1, 1_005, 5), counts(2, 4, 5));
    assert_eq!((pair.minute(14 * 60, sender, listener), told(&pair)), (None, Some(1)));
    assert_eq!((pair.minute(15 * 60, sender, listener), told(&pair)), (None, Some(1_001)));
    // Fifteen minutes after the first one, and not after this one.
    assert_eq!(pair.minute(17 * 60, sender, listener), None);
    // All that was sent has arrived, and more is in flight: not this difference, and none that is known.
    let arrived = counts(2, 1_006, 6);
    assert_eq!(pair.minute(18 * 60, sender, counts(2, 1_005, 5)), None);
    assert_eq!((pair.minute(18 * 60 + 30, sender, arrived), told(&pair)), (None, Some(1_001)));
    assert_eq!(pair.minute(19 * 60, counts(1, 1_006, 6), arrived), None);
    let cleared = DeliveryAlarm { difference: Difference { messages: 1_001, answers: 0 }, ..alarm };
    assert_eq!(pair.minute(20 * 60, counts(1, 1_006, 6), arrived), Some(BalanceEvent::Cleared(cleared)));
}

#[test]
fn what_one_end_counted_while_the_other_did_not_is_where_the_comparison_begins() {
    let mut pair = Pair::default();
    pair.sender.report(&[counts(1, 100, 100)], 60);
    pair.balance.handle_blindness();
    // The listener's gateway counts from now on; under load nothing is known yet.
    assert_eq!(pair.minute(120, counts(1, 110, 110), counts(2, 10, 10)), None);
    assert!(pair.balance.is_blind() && pair.is_open());
    for minute in 3..8 {
        assert_eq!(pair.minute(minute * 60, counts(1, 110, 110), counts(2, 10, 10)), None);
        assert_eq!(pair.balance.alarm(), None, "minute {minute}");
    }
    assert!(!pair.balance.is_blind());
    assert_eq!(pair.balance.explained(), Difference::NONE);
    assert_eq!(pair.balance.written_off(), Difference { messages: 100, answers: -100 });
    // From there on a loss is seen.
    for minute in 8..12 {
        pair.minute(minute * 60, counts(1, 115, 111), counts(2, 11, 11));
    }
    assert_eq!(pair.balance.alarm().map(|alarm| alarm.difference.messages), Some(4));
}

#[test]
fn what_is_written_off_after_blindness_hides_nothing_that_the_listener_alone_counts_later() {
    let mut pair = Pair::default();
    pair.balance.handle_blindness();
    for minute in 1..=2 {
        assert_eq!(pair.minute(minute * 60, counts(1, 100, 100), counts(2, 7, 7)), None);
    }
    assert_eq!((pair.balance.is_blind(), pair.balance.explained()), (false, Difference::NONE));
    assert_eq!(pair.balance.written_off(), Difference { messages: 93, answers: -93 });
    // The sender's gateway is killed before it reports three more.
    for minute in 3..=5 {
        pair.minute(minute * 60, counts(1, 100, 100), counts(2, 10, 10));
    }
    let surplus = Difference { messages: -3, answers: 3 };
    assert_eq!(pair.balance.alarm().map(|alarm| alarm.difference), Some(surplus));
}

#[test]
fn counts_of_a_gateway_that_knows_fewer_fields_are_read() {
    let text =
        r#"{"epoch":7,"messages":5,"accepted":4,"errors":1,"rejected":0,"other":0,"outstanding":0,"unacknowledged":0}"#;
    let told: EndCounts = serde_json::from_str(text).unwrap();
    assert_eq!(told, EndCounts { errors: 1, ..counts(7, 5, 4) });
}

#[test]
fn tallies_and_balance_survive_being_written_down() {
    let mut pair = Pair::default();
    for minute in 1..=4 {
        pair.minute(minute * 60, counts(1, 5, 4), counts(2, 4, 4));
    }
    let text = serde_json::to_string(&(&pair.sender, &pair.balance)).unwrap_or_default();
    let read: Option<(Tally, Balance)> = serde_json::from_str(&text).ok();
    assert_eq!(read, Some((pair.sender, pair.balance)));
}

proptest! {
    #[test]
    fn whatever_gateways_report_nothing_overflows(reports in proptest::collection::vec(any::<[u64; 8]>(), 0..20)) {
        let mut pair = Pair::default();
        for [now, epoch, a, b, c, d, e, f] in reports {
            let sender = EndCounts { epoch, messages: a, accepted: b, errors: c, ..EndCounts::default() };
            let listener = EndCounts { epoch, messages: d, accepted: e, other: f, ..EndCounts::default() };
            pair.minute(now >> 1, sender, listener);
        }
    }

    #[test]
    fn an_alarm_ends_with_ends_that_are_equal_or_is_written_off(
        rounds in proptest::collection::vec((0_u64..3, 0_u64..3, 0_u64..3, 0_u64..3, any::<bool>()), 0..200),
    ) {
        let mut pair = Pair::default();
        let (mut sender, mut listener) = (counts(1, 0, 0), counts(2, 0, 0));
        for (round, (a, b, c, d, quiet)) in rounds.into_iter().enumerate() {
            if !quiet {
                (sender.messages, sender.accepted) = (sender.messages + a, sender.accepted + b);
                (listener.messages, listener.accepted) = (listener.messages + c, listener.accepted + d);
            }
            let stood = pair.balance.alarm().is_some();
            let event = pair.minute(60 * (round as u64 + 1), sender, listener);
            let stands = pair.balance.alarm();
            prop_assert!(stands.is_none_or(|alarm| alarm.difference != Difference::NONE));
            let ended = matches!(event, Some(BalanceEvent::Cleared(_) | BalanceEvent::WrittenOff(_)));
            prop_assert_eq!(stood && stands.is_none(), ended);
            if matches!(event, Some(BalanceEvent::Cleared(_))) {
                let Difference { messages, answers } = pair.balance.written_off();
                let explained = pair.balance.explained();
                prop_assert!(explained.messages >= -explained.answers && explained.answers <= 0);
                let (messages, answers) = (messages + explained.messages, answers + explained.answers);
                prop_assert_eq!(sender.messages as i64 - listener.messages as i64, messages);
                prop_assert_eq!(listener.accepted as i64 - sender.accepted as i64, answers);
            }
        }
    }
}
