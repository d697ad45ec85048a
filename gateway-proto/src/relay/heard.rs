//! Over which relay a peer is heard, and what that says of the one we use for it.
//!
//! A relay that answers us may still be out of the peer's reach: its word is good for our half of the way only. What the
//! peer sends shows the other half. One that used to be heard over the relay we use for it, and is heard over another one
//! only, has left the first one, whatever that relay says of itself: where a peer is heard, it hears.
//!
//! Three steps, each undone by the first packet over the relay we use: a peer's packets over another relay than those of late
//! are *news*, and for a moment both relays are used; they stay in use when packets keep coming over the other one only; and then
//! the other one is used instead, for as long as that lasts. Copies over both relays call for no copies in return.
//!
//! The two ends of a pair may have different homes: then each is heard over another relay than it is sent to over. Of
//! the two, the one that [follows](Heard::new) goes to where the other one is heard, so that a pair uses one relay; the other
//! one moves only when it had heard the peer over its own choice before.

use std::time::{Duration, Instant};

use crate::id::RelayId;

/// A relay over which a peer was heard within this time is no other one than before.
const RECENT: Duration = Duration::from_secs(10);
/// After news both relays are used for so long.
const NEWS: Duration = Duration::from_secs(1);
/// Copies of one packet that come over two relays are not further apart than this.
const COPIES: Duration = Duration::from_millis(300);
/// Packets that came over one relay only for so long, with none over the other, show where the peer is: for the side that
/// follows, and for the other one, so that the two never cross each other again and again.
const FOLLOWS_AFTER: Duration = Duration::from_millis(500);
const MOVES_AFTER: Duration = Duration::from_secs(1);
/// Relays remembered: more than a gateway is attached to. The one heard longest ago goes first.
const MAX_RELAYS: usize = 16;

/// Which relay to use for a peer, as far as its packets say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hearing {
    /// The one chosen otherwise.
    Usual,
    /// That one and this one.
    Beside(RelayId),
    /// This one instead.
    Instead(RelayId),
}

/// When one peer was heard over which relay. See the module's description.
#[derive(Debug, Default)]
pub struct Heard {
    follows: bool,
    relays: Vec<(RelayId, Instant)>,
    /// The newest other relay, and when it was news.
    news: Option<(RelayId, Instant)>,
    /// The relay that is used for the peer when nothing speaks against it.
    usual: Option<RelayId>,
    /// Where the peer is heard since it was heard over that one last, or since that one was chosen.
    elsewhere: Option<Elsewhere>,
}

#[derive(Debug, Clone, Copy)]
struct Elsewhere {
    relay: RelayId,
    first: Instant,
    last: Instant,
    /// What it amounted to when it was told last.
    told: Strength,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    /// Perhaps a copy of what comes over the usual relay in a moment.
    Nothing,
    Beside,
    Instead,
}

impl Heard {
    /// Nothing was heard yet. Of the two sides of a pair, exactly one follows: that with the smaller key.
    pub fn new(follows: bool) -> Self {
        Self { follows, ..Self::default() }
    }

    /// A packet of the peer came over this relay. True when [`Self::hearing`] may say something else than before; a peer
    /// that sends over two relays makes that no more than once in ten seconds for each of them.
    pub fn note(&mut self, relay: RelayId, now: Instant) -> bool {
        let is_news = self.remember(relay, now);
        if is_news && self.usual != Some(relay) {
            self.news = Some((relay, now));
        }
        if self.usual == Some(relay) {
            let was = self.elsewhere.take();
            return is_news || was.is_some_and(|was| was.told > Strength::Nothing);
        }
        let patience = self.patience();
        // A second other relay takes the place of the first one when that falls silent.
        self.elsewhere = self.elsewhere.filter(|known| known.relay == relay || elapsed(known.last, now) < NEWS);
        let begun = Elsewhere { relay, first: now, last: now, told: Strength::Nothing };
        let elsewhere = self.elsewhere.get_or_insert(begun);
        if elsewhere.relay == relay {
            elsewhere.last = now;
        }
        let strength = elsewhere.strength(patience, now);
        let told = elsewhere.told;
        elsewhere.told = strength.max(told);
        is_news || strength > told
    }

    /// Which relay to use, when `usual` is chosen otherwise: by the peer's home, and by what the relays say of themselves.
    ///
    /// Another usual relay than the last time is tried: what was heard before speaks for or against the former one.
    pub fn hearing(&mut self, usual: Option<RelayId>, now: Instant) -> Hearing {
        if self.usual != usual {
            self.usual = usual;
            self.elsewhere = None;
        }
        let moves = self.follows || usual.is_some_and(|usual| self.relays.iter().any(|(relay, _)| *relay == usual));
        let patience = self.patience();
        if let Some(elsewhere) = self.elsewhere.filter(|_| moves) {
            match elsewhere.strength(patience, now) {
                Strength::Instead => return Hearing::Instead(elsewhere.relay),
                Strength::Beside => return Hearing::Beside(elsewhere.relay),
                Strength::Nothing => {}
            }
        }
        match self.news.filter(|(relay, at)| elapsed(*at, now) < NEWS && Some(*relay) != usual) {
            Some((relay, _)) => Hearing::Beside(relay),
            None => Hearing::Usual,
        }
    }

    fn patience(&self) -> Duration {
        if self.follows { FOLLOWS_AFTER } else { MOVES_AFTER }
    }

    /// True when this relay is another one than those of late.
    fn remember(&mut self, relay: RelayId, now: Instant) -> bool {
        let recent = |at: Instant| elapsed(at, now) < RECENT;
        let was_recent = match self.relays.iter_mut().find(|(known, _)| *known == relay) {
            Some((_, at)) => recent(std::mem::replace(at, now)),
            None => {
                if self.relays.len() >= MAX_RELAYS {
                    let oldest = self.relays.iter().map(|(_, at)| *at).min();
                    self.relays.retain(|(_, at)| Some(*at) != oldest);
                }
                self.relays.push((relay, now));
                false
            }
        };
        !was_recent && self.relays.iter().any(|(other, at)| *other != relay && recent(*at))
    }
}

impl Elsewhere {
    fn strength(&self, patience: Duration, now: Instant) -> Strength {
        // One packet may be a copy whose other half was lost: to move takes some that came one after the other.
        if elapsed(self.first, self.last) >= patience {
            Strength::Instead
        } else if elapsed(self.first, now) >= COPIES {
            Strength::Beside
        } else {
            Strength::Nothing
        }
    }
}

fn elapsed(since: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(since)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const HOME: RelayId = RelayId::from_bytes([1; 16]);
    const OTHER: RelayId = RelayId::from_bytes([2; 16]);
    const THIRD: RelayId = RelayId::from_bytes([3; 16]);

    /// A peer that was heard over its home until now.
    fn at_home(follows: bool) -> (Heard, Instant) {
        let (mut heard, now) = (Heard::new(follows), Instant::now());
        heard.hearing(Some(HOME), now);
        assert!(!heard.note(HOME, now));
        (heard, now)
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
    fn a_peer_is_followed_to_the_relay_over_which_alone_it_is_heard_and_stays_there() {
        for (follows, patience) in [(true, FOLLOWS_AFTER), (false, MOVES_AFTER)] {
            let (mut heard, now) = at_home(follows);
            let moved = now + 5 * MS;
            let mut last = Hearing::Usual;
            for step in 0..200_u32 {
                let at = moved + step * 50 * MS;
                heard.note(OTHER, at);
                let hearing = heard.hearing(Some(HOME), at);
                assert_ne!(hearing, Hearing::Usual, "from the first packet on something is sent where it hears");
                let expected = if at - moved < patience { Hearing::Beside(OTHER) } else { Hearing::Instead(OTHER) };
                assert_eq!(hearing, expected, "after {:?}", at - moved);
                last = hearing;
            }
            let later = moved + Duration::from_secs(60);
            assert_eq!(heard.hearing(Some(HOME), later), last, "a silent peer has not come back");
            assert!(heard.note(HOME, later), "what is to be done is told at once");
            assert_eq!(heard.hearing(Some(HOME), later), Hearing::Usual);
        }
    }

    #[test]
    fn an_idle_peer_that_went_away_is_found_by_its_second_packet() {
        let (mut heard, now) = at_home(false);
        assert!(heard.note(OTHER, now + 7_000 * MS));
        assert_eq!(heard.hearing(Some(HOME), now + 9_000 * MS), Hearing::Beside(OTHER), "not only for a moment");
        assert!(heard.note(OTHER, now + 14_000 * MS));
        assert_eq!(heard.hearing(Some(HOME), now + 14_000 * MS), Hearing::Instead(OTHER));
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
                assert_eq!(heard.hearing(Some(HOME), at + 15 * MS), Hearing::Usual);
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
                let to = match heard.hearing(Some(usual), at) {
                    Hearing::Instead(relay) => relay,
                    Hearing::Usual | Hearing::Beside(_) => usual,
                };
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
            assert_eq!(heard.hearing(Some(OTHER), at), Hearing::Usual);
        }
        // Home answers again. What is still under way over the other one is no reason to leave it.
        assert!(!matches!(heard.hearing(Some(HOME), at), Hearing::Instead(_)));
        heard.note(OTHER, at + 40 * MS);
        heard.note(HOME, at + 80 * MS);
        assert_eq!(heard.hearing(Some(HOME), at + 80 * MS), Hearing::Usual);
    }

    #[test]
    fn no_more_relays_are_remembered_than_there_is_room_for() {
        let (mut heard, start) = (Heard::new(true), Instant::now());
        for step in 0..100_u8 {
            heard.note(RelayId::from_bytes([step; 16]), start + u32::from(step) * MS);
            assert!(heard.relays.len() <= MAX_RELAYS);
        }
        assert!(heard.relays.iter().all(|(_, at)| *at >= start + 84 * MS), "the oldest go first");
    }
}
