//! Offers, answers and trickled candidates, and what they start.

use super::*;
use crate::signal::SignalError;

const OTHER_RELAY: RelayId = RelayId::from_bytes([2; 16]);

#[test]
fn nothing_is_signalled_and_no_offer_answered_unless_a_direct_path_is_wanted() {
    let now = start();
    let (mut a, mut b) = (ready(0, 1, now), ready(1, 2, now));
    b.wants_direct(false, now);
    let offer = offer_of(&mut a, now, UNIX_MS);
    assert_eq!(b.handle_signal(RELAY, &offer, now, UNIX_MS), Err(SignalError::NotWanted));
    assert_eq!(b.poll_timeout(), None);
    assert_eq!(b.poll_transmit(), None);
}

#[test]
fn direct_paths_that_are_switched_off_are_called_so_wherever_one_is_needed() {
    let now = start();
    let (mut a, mut b) = (ready(0, 1, now), ready(1, 2, now));
    b.handle_config(PathConfig { allow_direct: false, ..config(1) }, now);
    assert_eq!(b.snapshot().obstacle, Some(Obstacle::SwitchedOff));
    let offer = offer_of(&mut a, now, UNIX_MS);
    assert_eq!(b.handle_signal(RELAY, &offer, now, UNIX_MS), Err(SignalError::SwitchedOff));
    assert_eq!((b.poll_timeout(), b.poll_transmit()), (None, None));
    b.wants_direct(false, now);
    assert_eq!(b.snapshot().obstacle, Some(Obstacle::NotWanted));
    b.wants_direct(true, now);
    assert_eq!(b.snapshot().obstacle, Some(Obstacle::SwitchedOff));
    b.handle_config(config(1), now);
    assert_eq!(b.handle_signal(RELAY, &offer, now, UNIX_MS), Ok(()));
}

#[test]
fn the_answering_side_waits_for_the_way_of_its_answer() {
    let (_, b) = introduced(start());
    let (at, reason) = b.poll_timeout().unwrap();
    assert_eq!(reason, "punch probe due");
    assert_eq!(at, b.changed_at + 20 * MS, "half of both round trips to the relay");
}

#[test]
fn when_offers_cross_the_one_of_the_smaller_key_wins() {
    let now = start();
    let (mut a, mut b) = (ready(0, 1, now), ready(1, 2, now));
    let (from_a, from_b) = (offer_of(&mut a, now, UNIX_MS), offer_of(&mut b, now, UNIX_MS));
    a.handle_signal(RELAY, &from_b, now, UNIX_MS).unwrap();
    assert_eq!(signals(&mut a), std::slice::from_ref(&from_a), "the smaller key insists");
    assert_eq!(a.snapshot().counters.offers_crossed, 1);
    b.handle_signal(RELAY, &from_a, now, UNIX_MS).unwrap();
    assert_eq!(
        b.handle_signal(RELAY, &from_a, now, UNIX_MS),
        Err(SignalError::Replayed),
        "the repetition is not needed"
    );
    let answer = signals(&mut b).pop().unwrap();
    a.handle_signal(RELAY, &answer, now, UNIX_MS).unwrap();
    assert_eq!(a.probe_session_ids().collect::<Vec<_>>(), b.probe_session_ids().collect::<Vec<_>>());
    assert_eq!(
        a.handle_signal(RELAY, &from_b, now, UNIX_MS),
        Err(SignalError::Replayed),
        "set aside, but not forgotten"
    );
}

#[test]
fn a_replayed_or_old_offer_changes_nothing() {
    let now = start();
    let (mut a, mut b) = (ready(0, 1, now), ready(1, 2, now));
    let offer = offer_of(&mut a, now, UNIX_MS);
    assert!(matches!(
        b.handle_signal(RELAY, &offer, now, UNIX_MS + 61_000),
        Err(SignalError::Stale { age_ms: 61_000 })
    ));
    b.handle_signal(RELAY, &offer, now, UNIX_MS).unwrap();
    let ids: Vec<_> = b.probe_session_ids().collect();
    signals(&mut b);
    assert_eq!(b.handle_signal(RELAY, &offer, now, UNIX_MS), Err(SignalError::Replayed));
    assert!(signals(&mut b).is_empty());
    assert_eq!(b.probe_session_ids().collect::<Vec<_>>(), ids);
    assert_eq!(b.snapshot().counters.signals_refused, 2);
}

#[test]
fn an_answer_counts_once_and_only_for_its_offer() {
    let now = start();
    let (mut a, mut b) = (ready(0, 1, now), ready(1, 2, now));
    let offer = offer_of(&mut a, now, UNIX_MS);
    b.handle_signal(RELAY, &offer, now, UNIX_MS).unwrap();
    let answer = signals(&mut b).pop().unwrap();
    let mut other = answer.clone();
    other[3] ^= 1;
    assert_eq!(a.handle_signal(RELAY, &other, now, UNIX_MS), Err(SignalError::UnknownSession));
    let mut forged = answer.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(a.handle_signal(RELAY, &forged, now, UNIX_MS), Err(SignalError::NotAuthentic));
    a.handle_signal(RELAY, &answer, now, UNIX_MS).unwrap();
    assert_eq!(a.handle_signal(RELAY, &answer, now, UNIX_MS), Err(SignalError::UnknownSession));
}

#[test]
fn a_flood_of_offers_is_not_opened() {
    let now = start();
    let mut b = ready(1, 2, now);
    let junk = [&[1, 1][..], &[0; 200]].concat();
    let errors: Vec<_> = (0..40).map(|_| b.handle_signal(RELAY, &junk, now, UNIX_MS).unwrap_err()).collect();
    assert_eq!(errors[0], SignalError::NotAuthentic);
    assert_eq!(errors[39], SignalError::TooMany);
}

#[test]
fn a_relay_that_makes_up_offers_does_not_keep_those_out_that_come_over_another() {
    let now = start();
    let (mut a, mut b) = (ready(0, 1, now), ready(1, 2, now));
    let junk = [&[1, 1][..], &[0; 200]].concat();
    for _ in 0..40 {
        b.handle_signal(OTHER_RELAY, &junk, now, UNIX_MS).unwrap_err();
    }
    a.handle_timeout(now, UNIX_MS);
    let offer = signals(&mut a).remove(0);
    assert_eq!(b.handle_signal(OTHER_RELAY, &offer, now, UNIX_MS), Err(SignalError::TooMany));
    assert_eq!(b.handle_signal(RELAY, &offer, now, UNIX_MS), Ok(()));
}

#[test]
fn a_peer_that_restarted_with_a_new_generation_is_accepted() {
    let now = start();
    let (mut a, mut b) = introduced(now);
    a.handle_timeout(now, UNIX_MS);
    exchange(&mut a, &mut b, now);
    let later = now + 5_000 * MS;
    let mut restarted = ready(0, 77, later);
    introduce(&mut restarted, &mut b, later, UNIX_MS + 5_000);
    restarted.handle_timeout(later, UNIX_MS + 5_000);
    exchange(&mut restarted, &mut b, later);
    assert!(is_direct(&restarted) && is_direct(&b));
}

#[test]
fn new_local_candidates_are_trickled_and_probed_at_once() {
    let now = start();
    let (mut a, mut b) = introduced(now);
    let added = Candidate::new(CandidateKind::Host, "198.51.100.77:7000".parse().unwrap());
    let mut candidates = a.local.clone();
    a.handle_local_candidates(candidates.clone(), NatView::default(), now);
    assert!(signals(&mut a).is_empty(), "nothing new, nothing said");
    candidates.push(added);
    a.handle_local_candidates(candidates, NatView::default(), now);
    let trickle = signals(&mut a).pop().unwrap();
    assert_eq!(Envelope::parse(&trickle).unwrap().kind, SignalKind::Transport);
    b.handle_signal(RELAY, &trickle, now, UNIX_MS).unwrap();
    b.handle_timeout(now, UNIX_MS);
    let targets: Vec<_> = probes(&mut b).into_iter().map(|(to, _)| to).collect();
    assert_eq!(targets, [addr(0), added.addr]);
    assert_eq!(b.handle_signal(RELAY, &trickle, now, UNIX_MS), Err(SignalError::Replayed));
}

#[test]
fn an_offer_that_names_the_address_in_use_no_more_moves_data_to_the_relay_at_once() {
    let now = start();
    let (mut a, mut b) = introduced(now);
    a.handle_timeout(now, UNIX_MS);
    exchange(&mut a, &mut b, now);
    assert!(is_direct(&b));
    let at = now + 10_000 * MS;
    let mut restarted = PathAgent::new(config(0), [3; 32], at);
    restarted.handle_relay_state(true, Some(20 * MS), at);
    let elsewhere = Candidate::new(CandidateKind::Host, "198.51.100.1:7001".parse().unwrap());
    restarted.handle_local_candidates(vec![elsewhere], NatView::default(), at);
    restarted.wants_direct(true, at);
    let offer = offer_of(&mut restarted, at, UNIX_MS + 10_000);
    b.handle_signal(RELAY, &offer, at, UNIX_MS + 10_000).unwrap();
    assert_eq!(b.selected(), Selected::Relayed);
    assert_eq!(b.snapshot().reason, PathReason::PeerMoved);
}

#[test]
fn an_offer_that_still_names_the_address_in_use_changes_no_path() {
    let now = start();
    let (mut a, mut b) = introduced(now);
    a.handle_timeout(now, UNIX_MS);
    exchange(&mut a, &mut b, now);
    let at = now + 10_000 * MS;
    let mut again = ready(0, 3, at);
    let offer = offer_of(&mut again, at, UNIX_MS + 10_000);
    b.handle_signal(RELAY, &offer, at, UNIX_MS + 10_000).unwrap();
    assert!(is_direct(&b));
}

#[test]
fn an_offer_that_came_before_the_peer_wanted_a_path_is_made_again_when_the_peer_makes_its_own() {
    let now = start();
    let (mut a, mut b) = (ready(0, 1, now), ready(1, 2, now));
    b.wants_direct(false, now);
    let early = offer_of(&mut a, now, UNIX_MS);
    assert_eq!(b.handle_signal(RELAY, &early, now, UNIX_MS), Err(SignalError::NotWanted));
    b.wants_direct(true, now + 30 * MS);
    let crossing = offer_of(&mut b, now + 30 * MS, UNIX_MS);
    a.handle_signal(RELAY, &crossing, now + 40 * MS, UNIX_MS).unwrap();
    assert_eq!(signals(&mut a), std::slice::from_ref(&early), "the smaller key's offer counts");
    a.handle_signal(RELAY, &crossing, now + 40 * MS, UNIX_MS).unwrap_err();
    assert_eq!(signals(&mut a), [] as [Vec<u8>; 0], "a replayed offer makes nobody repeat himself");
    b.handle_signal(RELAY, &early, now + 50 * MS, UNIX_MS).unwrap();
    let answer = signals(&mut b).pop().unwrap();
    assert!(b.handle_signal(RELAY, &early, now + 60 * MS, UNIX_MS).is_err(), "a second copy changes nothing");
    a.handle_signal(RELAY, &answer, now + 60 * MS, UNIX_MS).unwrap();
    a.handle_timeout(now + 60 * MS, UNIX_MS);
    exchange(&mut a, &mut b, now + 60 * MS);
    assert!(is_direct(&a) && is_direct(&b), "without the three seconds of an unanswered offer");
}

#[test]
fn a_peer_that_restarts_with_its_clock_set_back_goes_on_above_its_last_generation_and_is_a_hint_otherwise() {
    let now = start();
    let (mut a, mut b) = (ready(0, 1, now), ready(1, 2, now));
    introduce(&mut b, &mut a, now, UNIX_MS);
    let mut at = now;
    while !is_direct(&a) {
        at += 10 * MS;
        a.handle_timeout(at, UNIX_MS);
        exchange(&mut a, &mut b, at);
        assert!(at < now + 5_000 * MS);
    }
    let behind = UNIX_MS - 30_000;
    let old = offer_of(&mut ready(1, 7, at), at, behind);
    assert_eq!(a.handle_signal(RELAY, &old, at, UNIX_MS), Err(SignalError::Replayed));
    let after = distrusted_after(&mut a, at, |_, _| {});
    assert!(after.is_some_and(|ms| ms <= 500), "{after:?}");

    let at = at + 1_000 * MS;
    let mut restarted = ready(1, 8, at);
    restarted.resume_above(b.generation());
    let new = offer_of(&mut restarted, at, behind);
    assert_eq!(a.handle_signal(RELAY, &new, at, UNIX_MS), Ok(()));
    assert_eq!(
        a.handle_signal(RELAY, &new, at, UNIX_MS),
        Err(SignalError::Replayed),
        "a replay is refused all the same"
    );
}
