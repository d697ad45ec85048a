use proptest::prelude::*;

use super::*;
use crate::identity::GatewayKey;

fn key(n: u8) -> GatewayPublicKey {
    GatewayKey::from_seed(&[n; 32]).public()
}

fn head(sequence: u64, hash: u8, now: u64) -> ReportedHead {
    ReportedHead { sequence, hash: format!("{hash:02x}").repeat(32), at: now * 1000, received_at: now }
}

fn book() -> HeadBook {
    HeadBook::new(key(1), head(100, 1, 1000))
}

#[test]
fn a_chain_that_grows_is_no_news_for_anybody_and_leaves_one_entry_an_hour() {
    let mut book = book();
    let mut kept = 0;
    for minute in 1..=180 {
        let outcome = book.handle_head(key(1), head(100 + minute, 2, 1000 + minute * 60), false);
        assert!(outcome.is_news && outcome.tells.is_none() && !outcome.is_raised);
        kept += u64::from(outcome.keeps);
    }
    assert_eq!((kept, book.entries, book.series_from, &book.alarm), (3, 4, 1, &None));
    assert_eq!(book.handle_head(key(1), book.newest.clone(), false), HeadOutcome::default());
}

#[test]
fn a_log_that_went_back_or_was_written_anew_is_an_alarm_that_only_a_person_ends() {
    for (found, fault) in [(head(99, 1, 2000), HeadFault::WentBack), (head(100, 9, 2000), HeadFault::OtherHash)] {
        let mut book = book();
        let outcome = book.handle_head(key(1), found.clone(), false);
        assert!(outcome.is_raised && outcome.keeps && outcome.tells == Some(fault));
        let alarm = book.alarm.clone().unwrap();
        assert_eq!((alarm.known, alarm.found), (head(100, 1, 1000), Some(found.clone())));
        // It is asked for what it reported before, however its log goes on, and its log goes on in a series of its own.
        assert_eq!(book.handle_head(key(1), head(200, 3, 3000), false).tells, None);
        assert_eq!(book.asked_of(key(1)), Some(head(100, 1, 1000)));
        assert_eq!(book.series_from, 2);
        assert!(book.acknowledge().is_some() && book.alarm.is_none());
        assert_eq!(book.asked_of(key(1)), Some(head(200, 3, 3000)));
    }
}

#[test]
fn what_is_entered_late_may_be_older_but_no_other_record() {
    let mut book = book();
    assert_eq!(book.handle_head(key(1), head(90, 5, 900), true), HeadOutcome::default());
    assert!(book.handle_head(key(1), head(100, 5, 900), true).is_raised);
}

#[test]
fn what_the_gateway_misses_itself_is_an_alarm_once() {
    let mut book = book();
    // What it goes on with is entered before it has looked.
    book.handle_head(key(1), head(140, 6, 4), false);
    assert_eq!(book.handle_missing(key(2), head(100, 1, 0), 5), HeadOutcome::default());
    let outcome = book.handle_missing(key(1), head(100, 1, 0), 5);
    assert!(outcome.is_raised && outcome.tells == Some(HeadFault::NotContained));
    assert_eq!(book.asked_of(key(1)), Some(head(100, 1, 0)));
    assert_eq!(book.handle_missing(key(1), head(140, 6, 4), 6), HeadOutcome::default());
    book.handle_head(key(1), head(150, 7, 7), false);
    assert_eq!(book.series_from, 2, "the head from before is not of the series that follows");
}

#[test]
fn another_gateway_begins_anew_and_is_not_asked_for_what_the_one_before_it_wrote() {
    let mut book = book();
    book.handle_head(key(1), head(50, 2, 2000), false);
    let outcome = book.handle_head(key(2), head(3, 3, 3000), false);
    assert!(outcome.keeps && outcome.tells.is_none());
    assert_eq!(book.asked_of(key(2)), Some(head(3, 3, 3000)));
    assert!(book.alarm.is_some(), "whoever put in another gateway does not end the alarm");
    // The one before it is asked for nothing but what the alarm is about.
    assert_eq!(book.asked_of(key(1)), Some(head(100, 1, 1000)));
}

#[test]
fn what_cannot_be_true_is_told_from_what_can() {
    let report =
        |sequence, hash: &str, at| HeadReport { head: Head { sequence, hash: hash.into() }, at, missing: None };
    let hash = "ab".repeat(32);
    assert!(report(1, &hash, 1).is_possible());
    for (sequence, hash, at) in [
        (u64::MAX, hash.as_str(), 1),
        (1, "ab", 1),
        (1, &"AB".repeat(32), 1),
        (1, &"zz".repeat(32), 1),
        (1, &hash, u64::MAX),
    ] {
        assert!(!report(sequence, hash, at).is_possible());
    }
    let missing = Some(Head { sequence: 1, hash: "x".into() });
    assert!(!HeadReport { missing, ..report(1, &hash, 1) }.is_possible());
    let text = serde_json::to_string(&report(7, &hash, 1)).unwrap();
    assert_eq!(text, format!(r#"{{"sequence":7,"hash":"{hash}","at":1}}"#));
}

proptest! {
    /// Whatever a gateway reports, however often: what it reported first stays known, and the history grows by the hour.
    #[test]
    fn nothing_that_a_gateway_reports_takes_back_what_it_reported_before(
        reports in prop::collection::vec((0_u64..200, 0_u8..3, any::<bool>(), any::<bool>()), 1..200),
    ) {
        let mut book = book();
        let (mut now, mut told, mut kept) = (1000, 0, 1);
        for (sequence, hash, late, missing) in reports {
            now += 1;
            let outcome = if missing {
                let newest = book.newest.clone();
                book.handle_missing(key(1), newest, now)
            } else {
                book.handle_head(key(1), head(sequence, hash, now), late)
            };
            told += u64::from(outcome.tells.is_some());
            kept += u64::from(outcome.keeps);
            prop_assert!(book.series_from <= book.entries + 1);
        }
        prop_assert_eq!(kept, book.entries);
        prop_assert!(told <= 1 && kept <= 2, "{} {}", told, kept);
        if let Some(alarm) = &book.alarm {
            prop_assert_eq!(book.asked_of(key(1)), Some(alarm.known.clone()));
        }
    }
}
