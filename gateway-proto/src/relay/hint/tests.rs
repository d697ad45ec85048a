#![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
use super::*;

const A: RelayId = RelayId::from_bytes([1; 16]);
const B: RelayId = RelayId::from_bytes([2; 16]);
const C: RelayId = RelayId::from_bytes([3; 16]);
const UNLISTED: RelayId = RelayId::from_bytes([9; 16]);

fn map() -> Arc<BTreeSet<RelayId>> {
    Arc::new(BTreeSet::from([A, B, C]))
}

/// Of a policy that says A.
fn at_a() -> PeerHome {
    let mut home = PeerHome::default();
    assert!(home.set_policy(Some(A), &map()));
    home
}

#[test]
fn what_the_peer_says_counts_until_a_policy_says_something_newer() {
    let (mut home, now) = (at_a(), Instant::now());
    assert_eq!(home.hear(B, now), HintOutcome::Taken);
    assert_eq!((home.home(), home.hint()), (Some(B), Some(B)));
    // The same policy again, or one in which others changed.
    assert!(!home.set_policy(Some(A), &map()));
    assert_eq!(home.home(), Some(B));
    assert!(home.set_policy(Some(C), &map()), "newer, whatever it says");
    assert_eq!((home.home(), home.hint()), (Some(C), None));
}

#[test]
fn a_policy_that_says_what_the_peer_said_changes_nothing_and_the_hint_is_over() {
    let (mut home, now) = (at_a(), Instant::now());
    assert_eq!(home.hear(B, now), HintOutcome::Taken);
    assert!(!home.set_policy(Some(B), &map()));
    assert_eq!((home.home(), home.hint()), (Some(B), None));
    // So the next one counts, although the peer said B once.
    assert!(home.set_policy(Some(C), &map()));
    assert_eq!(home.home(), Some(C));
}

#[test]
fn a_peer_that_is_back_at_the_relay_of_the_policy_says_so_and_is_believed() {
    let (mut home, now) = (at_a(), Instant::now());
    assert_eq!(home.hear(A, now), HintOutcome::Known);
    assert_eq!(home.hear(B, now), HintOutcome::Taken);
    assert_eq!(home.hear(A, now), HintOutcome::Taken);
    assert_eq!((home.home(), home.hint()), (Some(A), None));
}

#[test]
fn a_relay_that_is_not_in_the_map_is_ignored_and_counted_once_however_often_it_is_said() {
    let (mut home, now) = (at_a(), Instant::now());
    assert_eq!(home.hear(UNLISTED, now), HintOutcome::Ignored);
    assert_eq!(home.hear(UNLISTED, now), HintOutcome::Known);
    assert_eq!(home.home(), Some(A));
    // It cost nothing: what is said of listed ones counts at once.
    assert_eq!(home.hear(B, now), HintOutcome::Taken);
    assert!(home.set_policy(Some(A), &Arc::new(BTreeSet::from([A, C]))), "nor does one that left the map");
    assert_eq!(home.home(), Some(A));
}

#[test]
fn a_relay_that_comes_into_the_map_counts_when_it_is_said_again() {
    let (mut home, now) = (at_a(), Instant::now());
    assert_eq!(home.hear(UNLISTED, now), HintOutcome::Ignored);
    home.set_policy(Some(A), &Arc::new(BTreeSet::from([A, UNLISTED])));
    assert_eq!(home.hear(UNLISTED, now), HintOutcome::Taken);
}

#[test]
fn a_peer_that_says_another_relay_all_the_time_changes_something_twice_and_then_every_ten_seconds() {
    let (mut home, start) = (at_a(), Instant::now());
    let mut taken = Vec::new();
    for step in 0..600_u64 {
        // Ten words a second for a minute.
        let at = Duration::from_millis(100 * step);
        let word = [A, B, C][usize::try_from(step % 3).unwrap()];
        if home.hear(word, start + at) == HintOutcome::Taken {
            taken.push(at.as_secs());
        }
    }
    assert_eq!(taken.len(), 7, "{taken:?}");
    assert!(taken[1] == 0 && taken[2..].iter().zip(1..).all(|(at, turn)| *at == 10 * turn), "{taken:?}");
}

#[test]
fn a_word_that_came_too_soon_counts_when_it_is_repeated_later() {
    let (mut home, start) = (at_a(), Instant::now());
    assert_eq!([home.hear(B, start), home.hear(C, start)], [HintOutcome::Taken; 2]);
    assert_eq!([home.hear(B, start), home.hear(B, start)], [HintOutcome::Ignored, HintOutcome::Known]);
    assert_eq!(home.hear(B, start + PAUSE), HintOutcome::Taken);
    // After a long calm two at once again, and no more.
    let later = start + Duration::from_secs(3600);
    let words = [A, B, C].map(|word| home.hear(word, later));
    assert_eq!(words, [HintOutcome::Taken, HintOutcome::Taken, HintOutcome::Ignored]);
}

#[test]
fn a_home_is_told_at_once_and_the_next_one_after_a_pause_whatever_was_between() {
    let (mut word, start) = (HomeWord::default(), Instant::now());
    assert_eq!(word.due_at(None, start), None);
    assert_eq!(word.say(None, start), None);
    assert_eq!(word.due_at(Some(A), start), Some(start));
    assert_eq!(word.say(Some(A), start), Some(A));
    assert_eq!(word.due_at(Some(A), start), None, "it is told once");
    let soon = start + Duration::from_secs(3);
    assert_eq!(word.due_at(Some(B), soon), Some(start + PAUSE));
    assert_eq!(word.say(Some(B), soon), Some(A), "other frames meanwhile say the former one");
    // It went on to C meanwhile: one question, and B is never told.
    assert_eq!(word.due_at(Some(C), start + PAUSE), Some(start + PAUSE));
    assert_eq!(word.say(Some(C), start + PAUSE), Some(C));
    assert_eq!(word.due_at(Some(C), start + PAUSE), None);
}

#[test]
fn whatever_a_sound_gateway_says_counts_at_the_peer() {
    let (mut word, mut home, start) = (HomeWord::default(), at_a(), Instant::now());
    for step in 0..600_u64 {
        // Its home is another one every second, and a frame goes every 100 ms.
        let now = start + Duration::from_millis(100 * step);
        let own = [B, C, A][usize::try_from(step / 10 % 3).unwrap()];
        let said = word.say(Some(own), now).unwrap();
        assert_ne!(home.hear(said, now), HintOutcome::Ignored, "after {step} steps");
        assert_eq!(home.home(), Some(said));
    }
}
