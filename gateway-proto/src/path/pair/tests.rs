use super::{
    rest::{BAR_LIMIT, FIRST_BAR, OVERDUE, SMALL_LOST_AGAIN},
    *,
};
use crate::path::{CandidateKind, test_clock::start};

fn addr(n: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1], n))
}

fn candidate(n: u16) -> Candidate {
    Candidate::new(CandidateKind::ServerReflexive, addr(n))
}

#[test]
fn only_a_full_size_pong_to_a_full_size_ping_proves() {
    let now = start();
    let mut pair = Pair::new(candidate(1), true);
    pair.record_ping([1; 8], false, now);
    pair.record_ping([2; 8], true, now);
    pair.record_ping([3; 8], true, now);
    let later = now + Duration::from_millis(20);
    assert_eq!(pair.record_pong(LocalSocket::MAIN, [1; 8], true, later), Some(RoundTrip { padded: false }));
    assert_eq!(pair.record_pong(LocalSocket::MAIN, [2; 8], false, later), Some(RoundTrip { padded: false }));
    assert!(!pair.is_proved_since(now));
    assert_eq!(pair.record_pong(LocalSocket::MAIN, [3; 8], true, later), Some(RoundTrip { padded: true }));
    assert!(pair.is_proved_since(now));
    assert_eq!(pair.rtt(), Duration::from_millis(20));
    assert_eq!(pair.record_pong(LocalSocket::MAIN, [3; 8], true, later), None, "an answer counts once");
}

#[test]
fn small_answers_tell_of_the_size_only_when_asked_for_after_a_full_size_ping_that_failed() {
    let now = start();
    let at = |ms: u64| now + Duration::from_millis(ms);
    let mut pair = Pair::new(candidate(1), true);
    pair.record_ping([1; 8], false, at(0));
    pair.record_ping([2; 8], true, at(10));
    pair.record_pong(LocalSocket::MAIN, [1; 8], false, at(20));
    assert!(!pair.carries_small_only_since(now), "the question was older");
    pair.record_ping([3; 8], false, at(30));
    assert!(!pair.carries_small_only_since(now), "no answer yet");
    pair.record_pong(LocalSocket::MAIN, [3; 8], false, at(40));
    assert!(pair.carries_small_only_since(at(30)) && !pair.carries_small_only_since(at(31)));
    pair.record_pong(LocalSocket::MAIN, [2; 8], true, at(50));
    assert!(!pair.carries_small_only_since(now), "the full-size answer was only late");
}

#[test]
fn a_peer_that_no_longer_answers_small_pings_is_not_said_to_answer_them() {
    let now = start();
    let at = |seconds: u64| now + Duration::from_secs(seconds);
    let mut pair = Pair::new(candidate(1), true);
    pair.record_ping([1; 8], true, at(0));
    pair.record_ping([2; 8], false, at(1));
    pair.record_pong(LocalSocket::MAIN, [2; 8], false, at(1));
    pair.record_ping([3; 8], false, at(30));
    assert!(pair.carries_small_only_since(now));
    pair.record_ping([4; 8], false, at(60));
    assert!(!pair.carries_small_only_since(now));
    pair.record_pong(LocalSocket::MAIN, [4; 8], false, at(60));
    assert!(pair.carries_small_only_since(now), "one was lost, and the peer is there");
    pair.forget();
    assert!(!pair.carries_small_only_since(now));
}

#[test]
fn hearing_the_peer_leads_to_one_probe_and_three_trailing_ones() {
    let now = start();
    let mut pair = Pair::new(candidate(1), true);
    pair.start_chase(now);
    let mut sent = Vec::new();
    while let Some(at) = pair.chase_at() {
        pair.start_chase(at);
        assert!(pair.take_chase_step(at));
        sent.push((at - now).as_millis());
    }
    assert_eq!(sent, [0, 50, 150, 450]);
    pair.start_chase(now + Duration::from_secs(1));
    assert_eq!(pair.chase_at(), None, "not again so soon");
    pair.start_chase(now + CHASE_INTERVAL);
    assert!(pair.chase_at().is_some());
}

#[test]
fn a_proof_ends_the_trailing_probes() {
    let now = start();
    let mut pair = Pair::new(candidate(1), true);
    pair.start_chase(now);
    assert!(pair.take_chase_step(now));
    pair.record_ping([1; 8], true, now);
    pair.record_ping([2; 8], false, now);
    assert!(pair.chase_at().is_some());
    pair.record_pong(LocalSocket::MAIN, [1; 8], true, now);
    assert!(pair.chase_at().is_some() && !pair.lacks(true) && pair.lacks(false), "large packets alone are no proof");
    assert!(!pair.has_passed() && !pair.is_proved());
    pair.record_pong(LocalSocket::MAIN, [2; 8], false, now);
    assert_eq!(pair.chase_at(), None);
    assert!(pair.has_passed() && pair.is_proved());
}

#[test]
fn large_answers_tell_of_small_packets_only_when_asked_for_after_a_small_ping_that_failed() {
    let now = start();
    let at = |ms: u64| now + Duration::from_millis(ms);
    let mut pair = Pair::new(candidate(1), true);
    pair.record_ping([1; 8], true, at(10));
    pair.record_ping([2; 8], false, at(10));
    pair.record_pong(LocalSocket::MAIN, [1; 8], true, at(20));
    assert!(!pair.carries_large_only_since(now), "both were on their way at once");
    pair.record_ping([3; 8], true, at(30));
    pair.record_pong(LocalSocket::MAIN, [3; 8], true, at(40));
    assert!(pair.carries_large_only_since(at(30)) && !pair.carries_large_only_since(at(31)));
    pair.record_pong(LocalSocket::MAIN, [2; 8], false, at(50));
    assert!(!pair.carries_large_only_since(now), "the small answer was only late");
}

#[test]
fn an_answer_proves_the_socket_it_was_asked_on() {
    let now = start();
    let other = LocalSocket(7);
    let mut pair = Pair::new(candidate(1), true);
    pair.record_ping([1; 8], true, now);
    assert_eq!(pair.record_pong(other, [1; 8], true, now), None, "asked on the first socket");
    pair.hear_on(other.into());
    assert_eq!(pair.via, LocalEnd::from(other));
    pair.record_ping([2; 8], true, now);
    pair.record_pong(other, [2; 8], true, now);
    pair.hear_on(LocalEnd::default());
    assert_eq!(pair.via, LocalEnd::from(other), "a proved path keeps its socket");
}

#[test]
fn a_pair_moves_to_another_address_of_ours_only_when_the_present_one_was_tried_in_vain() {
    let now = start();
    let second = LocalEnd { address: Some("192.0.2.2".parse().unwrap()), ..LocalEnd::default() };
    let mut pair = Pair::new(candidate(1), true);
    pair.hear_on(second);
    assert_eq!(pair.via, LocalEnd::default(), "the kernel's choice was not tried yet");
    pair.start_chase(now);
    pair.record_ping([1; 8], true, now);
    assert!(pair.take_chase_step(now));
    pair.hear_on(second);
    assert_eq!(pair.via, LocalEnd::default(), "it is being tried");
    let later = now + Duration::from_secs(1);
    assert!(pair.take_chase_step(later));
    pair.hear_on(second);
    assert_eq!(pair.via, second);
    pair.record_ping([2; 8], true, later);
    pair.record_pong(LocalSocket::MAIN, [2; 8], true, later);
    pair.record_pong(LocalSocket::MAIN, [1; 8], true, later);
    pair.hear_on(LocalEnd::default());
    assert_eq!(pair.via, second, "a proved path keeps its end, whatever answers late");
    pair.record_ping([3; 8], false, later);
    pair.record_pong(LocalSocket::MAIN, [3; 8], false, later);
    pair.end_chase();
    assert_eq!(pair.via, second, "nor does a new round change it");
    pair.lose_address();
    assert!(!pair.is_proved() && pair.via == LocalEnd::default());
}

#[test]
fn a_pair_that_failed_or_was_never_proved_goes_back_to_the_kernels_choice() {
    let now = start();
    let second = LocalEnd { address: Some("192.0.2.2".parse().unwrap()), ..LocalEnd::default() };
    let moved = || {
        let mut pair = Pair::new(candidate(1), true);
        pair.start_chase(now);
        assert!(pair.take_chase_step(now + Duration::from_secs(1)));
        pair.hear_on(second);
        assert_eq!(pair.via, second);
        pair
    };
    let mut proved = moved();
    for (transaction, padded) in [([1; 8], true), ([2; 8], false)] {
        proved.record_ping(transaction, padded, now);
        proved.record_pong(LocalSocket::MAIN, transaction, padded, now);
    }
    assert!(proved.is_proved());
    proved.fail();
    assert_eq!(proved.via, LocalEnd::default());
    let mut tried_in_vain = moved();
    tried_in_vain.end_chase();
    assert_eq!(tried_in_vain.via, LocalEnd::default(), "each round begins there");
}

#[test]
fn a_lossy_path_rests_longer_each_time() {
    let now = start();
    let mut pair = Pair::new(candidate(1), true);
    pair.bar(now);
    assert!(pair.is_barred(now + FIRST_BAR - Duration::from_secs(1)) && !pair.is_barred(now + FIRST_BAR));
    pair.bar(now);
    assert!(pair.is_barred(now + FIRST_BAR) && !pair.is_barred(now + 2 * FIRST_BAR));
    (0..50).for_each(|_| pair.bar(now));
    assert!(!pair.is_barred(now + BAR_LIMIT));
    pair.unbar();
    assert!(!pair.is_barred(now));
}

/// A pair that was asked in both sizes in so many instants, 250 ms apart, and the last instant; `passes` says which were answered.
fn asked_in_both_sizes(instants: u8, now: Instant, passes: impl Fn(u8, bool) -> bool) -> (Pair, Instant) {
    let mut pair = Pair::new(candidate(1), true);
    let mut at = now;
    for instant in 0..instants {
        at = now + OVERDUE * u32::from(instant);
        for padded in [false, true] {
            let transaction = [instant, u8::from(padded), 0, 0, 0, 0, 0, 0];
            pair.record_ping(transaction, padded, at);
            if passes(instant, padded) {
                pair.record_pong(LocalSocket::MAIN, transaction, padded, at);
            }
        }
    }
    (pair, at)
}

#[test]
fn only_small_packets_are_said_to_be_lost_where_every_large_one_of_the_same_instants_was_answered() {
    let now = start();
    let (hole, last) = asked_in_both_sizes(4, now, |_, padded| padded);
    assert!(hole.loses_only_small_since(now, last + OVERDUE));
    assert!(hole.loses_only_small_since(now, last), "three are overdue");
    assert!(!hole.loses_only_small_since(last, last + OVERDUE), "one is chance");
    let (over, last) = asked_in_both_sizes(4, now, |instant, padded| padded && instant == 3);
    assert!(!over.loses_only_small_since(now, last + OVERDUE), "nothing passed, and then one did");
    let (lossy, last) = asked_in_both_sizes(4, now, |instant, padded| padded && instant != 1);
    assert!(!lossy.loses_only_small_since(now, last + OVERDUE), "large ones are lost too");
}

#[test]
fn a_path_that_loses_small_packets_rests_only_when_it_is_left_for_that_again_soon() {
    let now = start();
    let mut pair = Pair::new(candidate(1), true);
    pair.lose_small(now);
    assert!(!pair.is_barred(now) && pair.loses_small() && !pair.rests());
    pair.record_ping([1; 8], true, now);
    pair.record_pong(LocalSocket::MAIN, [1; 8], true, now);
    assert!(pair.loses_small(), "a large answer says nothing of it");
    pair.record_ping([2; 8], false, now);
    pair.record_pong(LocalSocket::MAIN, [2; 8], false, now);
    assert!(!pair.loses_small());
    let later = now + SMALL_LOST_AGAIN;
    pair.lose_small(later);
    assert!(!pair.is_barred(later), "it is long ago");
    let again = later + SMALL_LOST_AGAIN / 2;
    pair.lose_small(again);
    assert!(pair.is_barred(again) && pair.rests());
    pair.end_rest(again + FIRST_BAR);
    assert!(!pair.rests());
}
