#![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
use super::*;

const MS: Duration = Duration::from_millis(1);
const HOME: RelayId = RelayId::from_bytes([1; 16]);
const OTHER: RelayId = RelayId::from_bytes([2; 16]);
const THIRD: RelayId = RelayId::from_bytes([3; 16]);

fn sound(relay: RelayId) -> Seen {
    Seen { relay, standing: Standing::Sound, restarting: false, falls: 0, drops: None }
}

/// Attached to two relays, and the peer was heard over its home, the second of them, until now.
fn at_home(follows: bool) -> (RelayChoice, [Seen; 2], Instant) {
    let (mut choice, links, now) = (RelayChoice::new(follows), [sound(OTHER), sound(HOME)], Instant::now());
    choice.set_home(Some(HOME));
    assert_eq!(used(&choice.choose(&links, None, now)), (Some(HOME), None));
    choice.heard(HOME, now);
    (choice, links, now)
}

fn used(choice: &Choice) -> (Option<RelayId>, Option<RelayId>) {
    (choice.best, choice.spare)
}

#[test]
fn the_peers_home_comes_first_and_what_may_not_reach_it_last() {
    let (mut choice, mut links, now) = at_home(true);
    let mut best = |links: &[Seen], now| choice.choose(links, None, now).best;
    links[1].restarting = true;
    assert_eq!(best(&links, now), Some(OTHER));
    links[0].standing = Standing::Doubtful;
    assert_eq!(best(&links, now), Some(HOME), "one that stops still carries, one in doubt may not");
    assert_eq!(best(&links[..1], now), Some(OTHER), "there is no other");
    assert_eq!(best(&[], now), None);
}

#[test]
fn a_suspected_relay_is_joined_by_a_sound_one_and_left_without_another_start_when_it_is_in_doubt() {
    let (mut choice, mut links, now) = at_home(true);
    links[1].standing = Standing::Suspected;
    let joined = choice.choose(&links, None, now);
    assert_eq!((used(&joined), joined.begins_anew), ((Some(HOME), Some(OTHER)), true));
    links[1].standing = Standing::Doubtful;
    let left = choice.choose(&links, None, now);
    assert_eq!((used(&left), left.begins_anew), ((Some(OTHER), None), false));
    links[1].standing = Standing::Sound;
    let back = choice.choose(&links, None, now);
    assert_eq!((used(&back), back.begins_anew), ((Some(HOME), None), true));
    links[1].falls = 1;
    assert!(choice.choose(&links, None, now).begins_anew, "what was under way there is lost");
    assert!(!choice.choose(&links, None, now).begins_anew);
}

#[test]
fn two_relays_that_do_not_see_the_peer_do_not_take_turns() {
    let (mut choice, links, start) = at_home(true);
    let (mut best, mut moves, mut now) = (Some(HOME), 0, start);
    while now < start + ABSENT_MEMORY {
        // Whichever is used says so, a round trip later.
        choice.absent(best.unwrap(), now);
        now += 20 * MS;
        let next = choice.choose(&links, None, now).best;
        moves += u32::from(std::mem::replace(&mut best, next) != next);
    }
    assert!(moves <= 2, "{moves}");
}

#[test]
fn a_relay_that_did_not_see_the_peer_is_tried_again_in_time_although_nothing_happens() {
    let (mut choice, links, now) = at_home(true);
    choice.absent(HOME, now);
    assert_eq!(choice.choose(&links, None, now).best, Some(OTHER));
    let at = choice.poll_timeout(now).unwrap();
    assert_eq!(at, now + ABSENT_MEMORY);
    assert_eq!(choice.choose(&links, None, at).best, Some(HOME));
    assert_eq!(choice.poll_timeout(at), None);
}

#[test]
fn a_peer_that_answers_over_another_relay_is_answered_there_at_once_and_there_alone_soon() {
    for (follows, patience) in [(true, 500 * MS), (false, 1_000 * MS)] {
        let (mut choice, links, start) = at_home(follows);
        let (mut anew, mut asked) = (0, 0);
        for step in 1..300_u32 {
            let at = start + step * 20 * MS;
            let told = choice.heard(OTHER, at);
            let chosen = choice.choose(&links, Some(at), at);
            assert!(told || step > 1, "the first packet is told");
            let alone = at - start >= patience + 20 * MS;
            let expected = if alone { (Some(OTHER), None) } else { (Some(HOME), Some(OTHER)) };
            assert_eq!(used(&chosen), expected, "after {:?}", at - start);
            assert_eq!(chosen.is_heard_elsewhere, !alone, "home is asked whether it lives");
            anew += u32::from(chosen.begins_anew);
            asked += u32::from(chosen.asks_peer);
        }
        assert_eq!((anew, asked), (1, 0), "it joined once, and its answers are proof");
        let back = start + 10_000 * MS;
        assert!(choice.heard(HOME, back));
        assert_eq!(used(&choice.choose(&links, Some(back), back)).0, Some(HOME));
    }
}

/// Nothing is heard of the peer itself, or it answers over home now and then.
#[test]
fn a_relay_that_makes_up_packets_of_a_peer_gets_copies_at_most() {
    for answers_every in [None, Some(10), Some(70)] {
        for follows in [true, false] {
            let (mut choice, links, start) = at_home(follows);
            let (mut answered_at, mut anew, mut asked) = (None, 0, 0);
            for step in 1..6_000_u32 {
                let at = start + step * 100 * MS;
                if answers_every.is_some_and(|every| step % every == 0) {
                    choice.heard(HOME, at);
                    answered_at = Some(at + 5 * MS);
                }
                choice.heard(OTHER, at);
                // Somebody always misses something.
                choice.in_vain(answered_at, at + 10 * MS);
                let chosen = choice.choose(&links, answered_at, at + 10 * MS);
                assert_eq!(chosen.best, Some(HOME), "{answers_every:?} {follows} after {:?}", at - start);
                anew += u32::from(chosen.begins_anew);
                asked += u32::from(chosen.asks_peer);
            }
            assert!(anew <= 61 && asked <= 61, "in ten minutes {anew} new starts and {asked} questions");
        }
    }
}

/// The peer does use that relay, which brings its packets and swallows ours. It is asked once a second.
#[test]
fn a_relay_that_swallows_what_it_gets_alone_is_left_after_two_seconds_and_tried_once_a_minute() {
    let (mut choice, links, start) = at_home(true);
    let (mut answered_at, mut open, mut chosen) = (None, false, Choice::default());
    let (mut alone, mut tries) = (0, 0);
    for step in 1..3_000_u32 {
        let at = start + step * 100 * MS;
        choice.heard(OTHER, at);
        let reaches = [chosen.best, chosen.spare].contains(&Some(HOME));
        if step % 10 == 0 {
            if reaches {
                (answered_at, open) = (Some(at), false);
            } else if std::mem::replace(&mut open, true) {
                choice.in_vain(answered_at, at);
            }
        }
        let next = choice.choose(&links, answered_at, at);
        tries += u32::from(chosen.best == Some(HOME) && next.best == Some(OTHER));
        chosen = next;
        alone += u32::from(!reaches);
    }
    assert_eq!(tries, 5, "in five minutes");
    assert!(alone <= tries * 21, "{alone} tenths of a second");
}

/// While a direct path is used nobody acts on it, and hints may not be read.
#[test]
fn what_was_heard_meanwhile_counts_whenever_somebody_looks() {
    let (mut choice, links, start) = at_home(false);
    let mut at = start;
    for _ in 0..300 {
        at += 100 * MS;
        choice.heard(OTHER, at);
    }
    let chosen = choice.choose(&links, None, at);
    assert_eq!(used(&chosen), (Some(HOME), Some(OTHER)));
    assert!(chosen.asks_peer && chosen.awaits_proof);
    at += 50 * MS;
    assert_eq!(used(&choice.choose(&links, Some(at), at)), (Some(OTHER), None));
}

#[test]
fn news_that_nothing_follows_are_over_after_a_second_although_nothing_happens() {
    let (mut choice, links, start) = at_home(false);
    let at = start + 100 * MS;
    choice.heard(OTHER, at);
    choice.heard(HOME, at + 10 * MS);
    assert_eq!(used(&choice.choose(&links, None, at + 10 * MS)), (Some(HOME), Some(OTHER)));
    let over = choice.poll_timeout(at + 10 * MS).unwrap();
    assert_eq!(over, at + 1_000 * MS);
    assert_eq!(used(&choice.choose(&links, None, over)), (Some(HOME), None));
    assert_eq!(choice.poll_timeout(over), None);
}

#[test]
fn where_the_peer_is_heard_is_used_only_while_that_relay_is_there_and_well() {
    let (mut choice, _, start) = at_home(true);
    let mut links = [sound(OTHER), sound(HOME), sound(THIRD)];
    let mut at = start;
    for _ in 0..10 {
        at += 100 * MS;
        choice.heard(OTHER, at);
        choice.choose(&links, Some(at), at);
    }
    let mut choose = |links: &[Seen]| used(&choice.choose(links, Some(at), at));
    assert_eq!(choose(&links), (Some(OTHER), None));
    links[0].standing = Standing::Doubtful;
    assert_eq!(choose(&links), (Some(HOME), Some(OTHER)));
    links[0].standing = Standing::Sound;
    links[0].restarting = true;
    assert_eq!(
        choose(&links),
        (Some(HOME), Some(OTHER)),
        "home may not reach the peer, and one that stops still carries"
    );
    assert_eq!(choose(&links[1..]), (Some(HOME), None));
    links[0].restarting = false;
    assert_eq!(choose(&links), (Some(OTHER), None));
    choice.absent(OTHER, at);
    assert_eq!(used(&choice.choose(&links, Some(at), at)), (Some(HOME), None));
}

/// Home does not reach the peer, which answers over the third one. The other one makes up packets without a pause.
#[test]
fn a_relay_that_makes_up_packets_is_not_proved_by_what_comes_over_another_one_and_does_not_hide_it() {
    for follows in [true, false] {
        let (mut choice, _, start) = at_home(follows);
        let links = [sound(OTHER), sound(HOME), sound(THIRD)];
        let mut answered_at = None;
        for step in 1..6_000_u32 {
            let at = start + step * 100 * MS;
            choice.heard(OTHER, at);
            if step % 10 == 0 {
                choice.heard(THIRD, at);
                answered_at = Some(at + 5 * MS);
            }
            let chosen = choice.choose(&links, answered_at, at + 10 * MS);
            assert_eq!(chosen.best, Some(HOME), "{follows} after {:?}", at - start);
            assert!(step < 10 || choice.used.contains(THIRD), "{follows} after {:?}", at - start);
        }
    }
}

/// The peer's home changed, and no control plane says so. It is heard over the other relay all the while.
#[test]
fn a_home_that_does_not_see_the_peer_is_not_tried_alone_while_the_peer_answers_over_another_relay() {
    for follows in [true, false] {
        let (mut choice, links, start) = at_home(follows);
        choice.absent(HOME, start);
        assert_eq!(choice.choose(&links, None, start + MS).best, Some(OTHER));
        let (mut anew, mut at) = (0, start);
        for step in 1..3_000_u32 {
            at = start + step * 100 * MS;
            choice.heard(OTHER, at);
            anew += u32::from(choice.choose(&links, Some(at), at).begins_anew);
            if choice.used.contains(HOME) {
                choice.absent(HOME, at + 20 * MS);
            }
        }
        assert_eq!(anew, 0, "in five minutes");
        assert_eq!(choice.choose(&links, Some(at), at + 9_900 * MS).best, Some(OTHER));
        assert_eq!(choice.choose(&links, Some(at), at + 10_000 * MS).best, Some(HOME), "nothing is answered any more");
        let (mut choice, links, start) = at_home(follows);
        choice.absent(HOME, start);
        choice.choose(&links, None, start + MS);
        choice.heard(OTHER, start + 10_000 * MS);
        choice.heard(HOME, start + 10_010 * MS);
        let back = start + 10_020 * MS;
        assert_eq!(choice.choose(&links, Some(back), back).best, Some(HOME), "it is heard there again");
    }
}

#[test]
fn what_a_direct_path_leaves_unanswered_says_nothing_of_relays() {
    let (mut choice, links, start) = at_home(true);
    let mut at = start;
    for _ in 0..10 {
        at += 100 * MS;
        choice.heard(OTHER, at);
        choice.choose(&links, Some(at), at);
    }
    choice.set_share(Share::Nothing, at);
    for _ in 0..5 {
        at += 1_000 * MS;
        choice.in_vain(None, at);
    }
    // The peer fell back too, and is heard.
    choice.set_share(Share::Everything, at);
    assert_eq!(choice.choose(&links, None, at).best, Some(OTHER));
    at += 100 * MS;
    choice.heard(OTHER, at);
    choice.in_vain(None, at);
    let chosen = choice.choose(&links, None, at);
    assert_eq!((used(&chosen), chosen.further.len()), ((Some(OTHER), None), 0), "most of that second it was not used");
}

#[test]
fn answers_over_another_path_end_the_search_and_prove_no_relay() {
    let (mut choice, links, start) = at_home(false);
    choice.set_share(Share::Copies, start);
    choice.choose(&links, None, start);
    let mut at = start;
    for _ in 0..20 {
        at += 5_000 * MS;
        choice.in_vain(Some(at - 1_500 * MS), at);
        let chosen = choice.choose(&links, Some(at + 100 * MS), at + 100 * MS);
        assert!(chosen.further.is_empty(), "missed now and then, and answered between");
    }
    for _ in 0..30 {
        at += 100 * MS;
        choice.heard(OTHER, at);
        assert_eq!(choice.choose(&links, Some(at), at).best, Some(HOME));
    }
    choice.set_share(Share::Everything, at);
    assert_eq!(choice.choose(&links, Some(at - MS), at).best, Some(HOME), "that answer came by itself");
    at += 100 * MS;
    choice.heard(OTHER, at);
    assert_eq!(choice.choose(&links, Some(at), at).best, Some(OTHER));
}
