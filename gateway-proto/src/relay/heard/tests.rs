#![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
use super::*;

const MS: Duration = Duration::from_millis(1);
const HOME: RelayId = RelayId::from_bytes([1; 16]);
const OTHER: RelayId = RelayId::from_bytes([2; 16]);
const THIRD: RelayId = RelayId::from_bytes([3; 16]);

/// A peer that was heard over its home until now.
fn at_home(follows: bool) -> (Heard, Instant) {
    let (mut heard, now) = (Heard::new(follows), Instant::now());
    heard.hearing(Some(HOME), None, now);
    assert!(!heard.note(HOME, now));
    (heard, now)
}

/// A peer that left its home and is sent to over the other relay, and when it was heard there last.
fn at_the_other(follows: bool) -> (Heard, Instant) {
    let (mut heard, now) = at_home(follows);
    let mut at = now;
    for _ in 0..25 {
        at += 50 * MS;
        heard.note(OTHER, at);
        heard.hearing(Some(HOME), Some(at), at);
    }
    assert_eq!(heard.hearing(Some(HOME), Some(at), at), instead(OTHER));
    (heard, at)
}

fn instead(relay: RelayId) -> Hearing {
    Hearing { instead: Some(relay), ..Hearing::default() }
}

fn beside(relay: RelayId) -> Hearing {
    Hearing { beside: vec![relay], ..Hearing::default() }
}

#[test]
fn a_peer_whose_packets_come_over_another_relay_is_noticed_once() {
    let (mut heard, start) = (Heard::new(true), Instant::now());
    let mut arrives =
        |(relay, secs): (usize, u64)| heard.remember([HOME, OTHER][relay], start + Duration::from_secs(secs));
    assert_eq!([(0, 0), (0, 8), (1, 9), (1, 9)].map(&mut arrives), [false, false, true, false]);
    assert_eq!([(0, 10), (1, 11), (0, 15), (1, 20)].map(&mut arrives), [false; 4], "copies over both are no news");
    assert_eq!([(1, 29), (0, 30), (0, 99)].map(&mut arrives), [false, true, false], "nor is a long silence");
}

/// The relay that we use answers us and not the peer, which went to another one.
#[test]
fn a_peer_is_followed_to_the_relay_over_which_alone_it_answers_and_stays_there() {
    for (follows, patience) in [(true, FOLLOWS_AFTER), (false, MOVES_AFTER)] {
        let (mut heard, now) = at_home(follows);
        let moved = now + 5 * MS;
        let mut last = moved;
        for step in 0..200_u32 {
            last = moved + step * 50 * MS;
            heard.note(OTHER, last);
            let Hearing { instead, beside, .. } = heard.hearing(Some(HOME), Some(last), last);
            let expected = if last - moved < patience { (None, vec![OTHER]) } else { (Some(OTHER), Vec::new()) };
            assert_eq!((instead, beside), expected, "from the first packet on, after {:?}", last - moved);
        }
        let later = moved + Duration::from_secs(60);
        assert_eq!(heard.hearing(Some(HOME), Some(last), later), instead(OTHER), "a silent peer has not come back");
        assert!(heard.note(HOME, later), "what is to be done is told at once");
        assert_eq!(heard.hearing(Some(HOME), Some(last), later), beside(OTHER), "one packet may be made up");
        assert_eq!(heard.hearing(Some(HOME), Some(last), later + NEWS), Hearing::default());
    }
}

#[test]
fn packets_alone_add_a_relay_and_never_take_one_away() {
    for answered_at in [None, Some(250 * MS)] {
        let (mut heard, now) = at_home(true);
        for step in 1..600_u32 {
            let at = now + step * 100 * MS;
            heard.note(OTHER, at);
            // An answer came, soon after the last packet over home: over which of the two nobody knows.
            let hearing = heard.hearing(Some(HOME), answered_at.map(|after| now + 100 * MS + after), at);
            assert_eq!((hearing.instead, hearing.beside), (None, vec![OTHER]));
            assert_eq!(hearing.awaits_proof, step >= 4, "{step}");
        }
    }
}

#[test]
fn an_idle_peer_that_went_away_is_found_by_its_second_packet() {
    let (mut heard, now) = at_home(false);
    assert!(heard.note(OTHER, now + 7_000 * MS));
    let hearing = heard.hearing(Some(HOME), None, now + 9_000 * MS);
    assert_eq!(hearing.beside, [OTHER], "not only for a moment");
    assert!(heard.note(OTHER, now + 14_000 * MS));
    let answered_at = Some(now + 14_000 * MS);
    assert_eq!(heard.hearing(Some(HOME), answered_at, now + 14_010 * MS), instead(OTHER));
}

#[test]
fn copies_over_two_relays_change_nothing_for_long_and_are_told_once() {
    let (mut heard, start) = at_home(false);
    let mut told = 0;
    for step in 0..400_u32 {
        let at = start + step * 20 * MS;
        told += u32::from(heard.note(OTHER, at));
        told += u32::from(heard.note(HOME, at + 15 * MS));
        if step * 20 * MS > NEWS {
            assert_eq!(heard.hearing(Some(HOME), Some(at), at + 15 * MS), Hearing::default());
        }
    }
    assert_eq!(told, 1);
}

#[test]
fn of_two_with_different_homes_one_follows_the_other_and_neither_goes_on_for_ever() {
    let start = Instant::now();
    let (mut small, mut great) = (Heard::new(true), Heard::new(false));
    // Each uses the other one's home.
    let (mut from_small, mut from_great) = (THIRD, OTHER);
    let mut moves = 0;
    for step in 0..1_000_u32 {
        let at = start + step * 20 * MS;
        let (small_hears, great_hears) = (from_great, from_small);
        for (heard, usual, sends, hears) in
            [(&mut small, THIRD, &mut from_small, small_hears), (&mut great, OTHER, &mut from_great, great_hears)]
        {
            heard.note(hears, at);
            let to = heard.hearing(Some(usual), Some(at), at).instead.unwrap_or(usual);
            moves += u32::from(std::mem::replace(sends, to) != to);
        }
    }
    assert_eq!((from_small, from_great, moves), (OTHER, OTHER, 1));
}

#[test]
fn whoever_left_a_relay_and_comes_back_to_it_is_not_held_by_the_one_that_followed() {
    let (mut heard, start) = at_home(true);
    // Home did not answer us; the peer followed, and is heard over the other relay.
    let mut at = start;
    for step in 0..100_u32 {
        at = start + step * 50 * MS;
        heard.note(OTHER, at);
        assert_eq!(heard.hearing(Some(OTHER), Some(at), at), Hearing::default());
    }
    // Home answers again. What is still under way over the other one is no reason to leave it.
    assert_eq!(heard.hearing(Some(HOME), Some(at), at).instead, None);
    heard.note(OTHER, at + 40 * MS);
    heard.note(HOME, at + 80 * MS);
    assert_eq!(heard.hearing(Some(HOME), Some(at), at + 80 * MS), Hearing::default());
}

#[test]
fn a_relay_that_brings_packets_and_takes_none_there_is_not_used_instead_for_a_minute() {
    let (mut heard, now) = at_the_other(true);
    heard.note(OTHER, now + 900 * MS);
    let failed = now + 1_000 * MS;
    heard.in_vain(&[OTHER], true, failed);
    // From then on both are used, so the peer answers, over the relay that it uses itself.
    for step in 0..590_u32 {
        let at = failed + step * 100 * MS;
        heard.note(OTHER, at);
        assert_eq!(heard.hearing(Some(HOME), Some(at), at), beside(OTHER), "after {:?}", at - failed);
    }
    let at = failed + 59_900 * MS;
    assert_eq!(heard.poll_timeout(at), Some(failed + REFUSED_FOR));
    assert_eq!(heard.hearing(Some(HOME), Some(at), failed + REFUSED_FOR), instead(OTHER), "it is tried again");
}

#[test]
fn a_peer_that_stood_still_is_no_fault_of_the_relay_the_first_time() {
    let (mut heard, now) = at_the_other(true);
    let mut last = now;
    for again in [false, true] {
        let failed = last + 2_000 * MS;
        heard.in_vain(&[OTHER], true, failed);
        let hearing = heard.hearing(Some(HOME), Some(last), failed);
        assert_eq!((hearing.instead, hearing.beside), (None, vec![OTHER]), "both are used at once");
        last = failed + 1_000 * MS;
        heard.note(OTHER, last);
        let hearing = heard.hearing(Some(HOME), Some(last), last);
        assert_eq!(hearing, if again { beside(OTHER) } else { instead(OTHER) });
    }
}

#[test]
fn whoever_moved_on_from_where_it_was_followed_to_is_followed_again() {
    let (mut heard, now) = at_the_other(true);
    assert!(heard.note(THIRD, now + 100 * MS));
    let hearing = heard.hearing(Some(HOME), Some(now), now + 100 * MS);
    assert_eq!((hearing.instead, hearing.beside), (Some(OTHER), vec![THIRD]));
    for step in 2..10_u32 {
        heard.note(THIRD, now + step * 100 * MS);
    }
    let at = now + 900 * MS;
    assert_eq!(heard.hearing(Some(HOME), Some(at), at), instead(THIRD));
}

/// The peer is heard over two relays that are not its usual one. One of the two may make it up.
#[test]
fn an_answer_proves_no_relay_while_the_peer_is_heard_over_a_third_one() {
    let (mut heard, start) = at_home(true);
    let (mut at, mut answered_at) = (start, None);
    for step in 1..100_u32 {
        at = start + step * 100 * MS;
        heard.note(OTHER, at);
        if step % 10 == 0 {
            heard.note(THIRD, at);
            answered_at = Some(at);
        }
        let Hearing { instead, beside, .. } = heard.hearing(Some(HOME), answered_at, at);
        assert_eq!(instead, None, "{step}");
        assert!(step < 10 || beside.contains(&THIRD), "whoever is louder does not hide it: {step}");
    }
    let silent = at + 1_000 * MS;
    heard.note(THIRD, silent);
    assert_eq!(heard.hearing(Some(HOME), Some(silent), silent), instead(THIRD), "the other one fell silent");
}

#[test]
fn one_packet_over_the_usual_relay_takes_none_of_the_others_away_at_once() {
    let (mut heard, start) = at_the_other(true);
    for step in 1..600_u32 {
        let at = start + step * 100 * MS;
        heard.note(OTHER, at);
        if step % 6 == 0 {
            heard.note(HOME, at);
        }
        let Hearing { instead, beside, .. } = heard.hearing(Some(HOME), Some(at), at);
        assert!(instead == Some(OTHER) || beside == [OTHER], "after {:?}", at - start);
    }
}

#[test]
fn a_usual_relay_that_brings_packets_and_takes_none_there_is_not_used_alone_for_a_minute() {
    let (mut heard, start) = at_home(true);
    let at = start + 2_000 * MS;
    heard.in_vain(&[HOME], true, at);
    assert!(!heard.is_refused(HOME, at), "a peer that stands still is not heard");
    heard.note(HOME, at + 700 * MS);
    heard.in_vain(&[HOME], false, at + 1_000 * MS);
    assert!(!heard.is_refused(HOME, at + 1_000 * MS), "a dial is missed much sooner than an answer");
    heard.in_vain(&[HOME], true, at + 1_000 * MS);
    assert!(heard.is_refused(HOME, at + 60_900 * MS));
    assert_eq!(heard.poll_timeout(at + 60_900 * MS), Some(at + 61_000 * MS));
    assert!(!heard.is_refused(HOME, at + 61_000 * MS));
}
