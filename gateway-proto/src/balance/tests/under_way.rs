//! What takes long to arrive is in flight for as long as it passes.

use super::*;

fn receiving(counts: EndCounts) -> EndCounts {
    EndCounts { under_way: true, ..counts }
}

#[test]
fn a_message_that_the_listeners_gateway_is_in_the_midst_of_is_no_difference_however_long_it_takes() {
    let mut pair = Pair::default();
    pair.minute(60, counts(1, 4, 4), counts(2, 4, 4));
    let waiting = EndCounts { outstanding: 1, ..counts(1, 5, 4) };
    for minute in 2..100 {
        assert_eq!(pair.minute(minute * 60, waiting, receiving(counts(2, 4, 4))), None);
        assert!(pair.balance == Balance::default() && pair.is_open(), "minute {minute}");
    }
    for minute in 100..=101 {
        assert_eq!(pair.minute(minute * 60, counts(1, 5, 5), counts(2, 5, 5)), None);
    }
    assert!(pair.balance == Balance::default() && !pair.is_open());
}

#[test]
fn an_answer_that_the_senders_gateway_is_in_the_midst_of_is_no_difference_either() {
    let mut pair = Pair::default();
    for minute in 1..10 {
        assert_eq!(pair.minute(minute * 60, receiving(counts(1, 5, 4)), counts(2, 5, 5)), None);
        assert_eq!(pair.balance.alarm(), None, "minute {minute}");
    }
}

#[test]
fn what_is_lost_meanwhile_is_told_once_nothing_is_under_way_and_one_that_passes_takes_no_alarm_back() {
    let mut pair = Pair::default();
    for minute in 1..10 {
        assert_eq!(pair.minute(minute * 60, counts(1, 5, 4), receiving(counts(2, 3, 3))), None);
    }
    // One of the two arrived.
    let told = (10..13).find_map(|minute| pair.minute(minute * 60, counts(1, 5, 4), counts(2, 4, 4)));
    let Some(BalanceEvent::Raised(alarm)) = told else { panic!("an alarm: {told:?}") };
    assert_eq!(alarm.difference, Difference { messages: 1, answers: 0 });
    for minute in 13..20 {
        assert_eq!(pair.minute(minute * 60, counts(1, 6, 4), receiving(counts(2, 4, 4))), None);
        assert_eq!(pair.balance.alarm(), Some(alarm), "minute {minute}");
    }
}

#[test]
fn one_that_never_ends_hides_what_another_one_lost_for_seventy_minutes_and_no_longer() {
    let mut pair = Pair::default();
    let heard = receiving(counts(2, 4, 4));
    pair.minute(60, counts(1, 4, 4), heard);
    // Of two messages one is what never ends, and waits for its answer.
    let sent = EndCounts { outstanding: 1, ..counts(1, 6, 4) };
    let told = (2..200).find_map(|minute| pair.minute(minute * 60, sent, heard).map(|event| (minute, event)));
    let alarm = DeliveryAlarm { since: 71 * 60, difference: Difference { messages: 1, answers: 0 } };
    assert_eq!(told, Some((72, BalanceEvent::Raised(alarm))));
    assert!(pair.is_open());
}

#[test]
fn a_backlog_that_lasts_for_hours_is_no_difference() {
    let mut pair = Pair::default();
    for minute in 1..600 {
        // Each message takes three minutes, and the next one follows at once.
        let passed = minute / 3;
        let sent = EndCounts { outstanding: 1, ..counts(1, passed + 1, passed) };
        assert_eq!(pair.minute(minute * 60, sent, receiving(counts(2, passed, passed))), None);
        assert!(pair.balance.alarm().is_none() && pair.is_open(), "minute {minute}");
    }
}

#[test]
fn something_under_way_at_two_looks_far_apart_was_not_under_way_all_the_time() {
    let mut pair = Pair::default();
    let heard = receiving(counts(2, 4, 4));
    for hour in 1..10 {
        assert_eq!(pair.minute(hour * 7_200, counts(1, 5, 4), heard), None);
        assert_eq!(pair.minute(hour * 7_200 + 60, counts(1, 5, 4), heard), None);
    }
}

#[test]
fn an_older_gateway_never_says_that_something_is_under_way_and_nothing_is_said_of_it_where_nothing_is() {
    let text = serde_json::to_string(&counts(7, 5, 4)).unwrap();
    assert!(!text.contains("under_way"), "{text}");
    assert!(!serde_json::from_str::<EndCounts>(&text).unwrap().under_way);
}
