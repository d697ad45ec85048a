#![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
use std::time::Duration;

use super::*;
use crate::relay::choice::COMES_BACK_EVERY;

const MS: Duration = Duration::from_millis(1);
const HOME: RelayId = RelayId::from_bytes([1; 16]);
const OTHER: RelayId = RelayId::from_bytes([2; 16]);

fn sound(relay: RelayId) -> Seen {
    Seen { relay, standing: Standing::Sound, restarting: false, falls: 0, drops: None }
}

/// Both relays were restarted in turn, and each was asked for a peer that was not attached to it yet.
#[test]
fn a_relay_that_brings_the_peer_after_it_did_not_see_it_is_used_rather_than_one_that_does_not_see_it() {
    for follows in [true, false] {
        let (mut choice, start) = (RelayChoice::new(follows), Instant::now());
        choice.set_home(Some(HOME));
        choice.choose(&[sound(OTHER)], None, start);
        choice.absent(OTHER, start);
        assert!(choice.heard(OTHER, start + 100 * MS), "it is attached there now");
        let links = [sound(OTHER), sound(HOME)];
        assert_eq!(choice.choose(&links, None, start + 200 * MS).best, Some(HOME), "it said nothing else yet");
        choice.absent(HOME, start + 250 * MS);
        for step in 3..90_u32 {
            let at = start + step * 100 * MS;
            choice.heard(OTHER, at);
            let chosen = choice.choose(&links, Some(at), at);
            assert_eq!((chosen.best, chosen.spare), (Some(OTHER), None), "{follows} {step}");
        }
    }
}

/// The peer is attached there and answers over it.
#[test]
fn a_relay_that_does_not_see_the_peer_and_brings_it_in_turn_is_believed_once_in_five_seconds() {
    let (mut choice, start) = (RelayChoice::new(true), Instant::now());
    let links = [sound(OTHER), sound(HOME)];
    choice.set_home(Some(HOME));
    choice.choose(&links, None, start);
    choice.heard(HOME, start);
    let (mut at, mut best, mut moves) = (start, Some(HOME), 0);
    for step in 1..600_u32 {
        at = start + step * 100 * MS;
        if step > 20 && step % 3 == 0 {
            choice.absent(OTHER, at);
        } else {
            choice.heard(OTHER, at);
        }
        let next = choice.choose(&links, Some(at), at).best;
        moves += u32::from(std::mem::replace(&mut best, next) != next);
        assert!(step != 20 || best == Some(OTHER), "the peer was followed");
    }
    assert!((3..=30).contains(&moves), "in a minute {moves}");
    let back = at + COMES_BACK_EVERY;
    assert!(choice.heard(OTHER, back));
    let chosen = choice.choose(&links, Some(back), back);
    assert_eq!(chosen.best, Some(OTHER), "at once, when it says nothing else any more");
}
