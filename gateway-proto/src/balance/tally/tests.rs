//! What is known of one end, in whatever order it is told.

use proptest::prelude::*;

use super::{super::tests::counts, *};

#[test]
fn counts_that_come_through_two_replicas_late_or_again_count_once() {
    let mut tally = Tally::default();
    assert_eq!(tally.report(&[counts(1, 95, 95)], 60), 95);
    // The gateway moved before 100 was entered, and its new replica was faster.
    assert_eq!(tally.report(&[counts(1, 105, 105)], 61), 10);
    assert_eq!(tally.report(&[counts(1, 100, 100)], 62), 0);
    assert_eq!(tally.report(&[counts(1, 110, 110)], 120), 5);
    // The same with a restart in between: five of the former run were not known yet.
    assert_eq!(tally.report(&[counts(2, 4, 4)], 180), 4);
    assert_eq!(tally.report(&[counts(1, 115, 110)], 181), 5);
    assert_eq!(tally.report(&[counts(1, 115, 110), counts(2, 9, 9)], 240), 5);
    assert_eq!((tally.messages(), tally.answers(), tally.runs()), (124, 119, 2));
}

#[test]
fn connections_in_which_nothing_can_be_counted_are_metered_beside_messages_once() {
    let mut tally = Tally::default();
    let told = |streams| EndCounts { streams, ..counts(1, 2, 2) };
    assert_eq!(tally.report(&[told(3)], 60), 5);
    assert_eq!(tally.report(&[told(3), told(1)], 120), 0);
    assert_eq!((tally.report(&[told(4)], 180), tally.messages()), (1, 2));
}

#[test]
fn a_run_that_began_with_the_clock_set_back_is_counted_like_any_other() {
    let mut tally = Tally::default();
    tally.report(&[counts(2_000, 10, 10)], 60);
    assert_eq!(tally.report(&[counts(1_000, 3, 3)], 120), 3);
    assert_eq!(tally.report(&[counts(1_000, 7, 7)], 180), 4);
    assert_eq!(tally.report(&[counts(2_000, 10, 10), counts(1_000, 8, 8)], 240), 1);
    assert_eq!(tally.messages(), 18);
}

#[test]
fn runs_that_counted_nothing_push_out_none_that_did_and_what_is_known_has_an_end() {
    let mut tally = Tally::default();
    tally.report(&[counts(1, 5, 5)], 60);
    for epoch in 2..100 {
        tally.report(&[counts(epoch, 0, 0)], 60 * epoch);
    }
    assert_eq!((tally.report(&[counts(1, 5, 5)], 6_000), tally.runs()), (0, 1));
    for epoch in 100..200 {
        tally.report(&[counts(epoch, 1, 1)], 60 * epoch);
    }
    assert_eq!((tally.messages(), tally.former.len()), (105, FORMER));
}

#[test]
fn a_tally_that_was_written_down_before_epochs_were_known_one_by_one_goes_on() {
    let text = r#"{"epoch":2,"base":{"messages":100,"answers":99},"current":{"messages":5,"answers":5},"at":60,
        "before":{"messages":104,"answers":103},"runs":2,"confirmed_at":60}"#;
    let mut tally: Tally = serde_json::from_str(text).unwrap();
    assert_eq!((tally.report(&[counts(2, 7, 7)], 120), tally.messages()), (2, 107));
    assert_eq!((tally.report(&[counts(3, 1, 1)], 180), tally.messages()), (1, 108));
}

proptest! {
    #[test]
    fn a_tally_is_the_same_in_whatever_order_and_however_often_counts_come(
        told in proptest::collection::vec((1_u64..8, 0_u64..50, 0_u64..50), 0..30),
        again in proptest::collection::vec(any::<proptest::sample::Index>(), 0..30),
    ) {
        let mut tally = Tally::default();
        let mut most = std::collections::BTreeMap::<u64, (u64, u64)>::new();
        let mut added = 0;
        let repeated = again.iter().filter(|_| !told.is_empty()).map(|index| *index.get(&told));
        for (now, (epoch, messages, accepted)) in told.iter().copied().chain(repeated).enumerate() {
            added += tally.report(&[counts(epoch, messages, accepted)], now as u64);
            let known = most.entry(epoch).or_default();
            *known = (known.0.max(messages), known.1.max(accepted));
        }
        let sum = most.values().fold((0, 0), |sum, known| (sum.0 + known.0, sum.1 + known.1));
        prop_assert_eq!((tally.messages(), tally.answers()), sum);
        prop_assert_eq!(added, sum.0);
    }
}

#[test]
fn streams_that_could_not_be_followed_are_told_over_all_runs_and_are_nothing_to_meter() {
    let mut tally = Tally::default();
    let told = |epoch, adrift| EndCounts { adrift, ..counts(epoch, 2, 2) };
    assert_eq!((tally.report(&[told(1, 1)], 60), tally.adrift()), (2, 1));
    assert_eq!((tally.report(&[told(1, 3), told(1, 1)], 120), tally.adrift()), (0, 3));
    assert_eq!((tally.report(&[told(2, 1)], 180), tally.adrift()), (2, 4));
    assert!(!told(2, 1).covers(&told(2, 2)) && told(2, 2).covers(&told(2, 1)));
}
