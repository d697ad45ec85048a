//! What a tunnel says while nobody uses it, told from data that moves.
//!
//! A tunnel asks every seven seconds whether its other end is there ([`crate::pulse`]): a question, an answer and an acknowledgement,
//! all short. Watched like data they would cost some twenty pings and pongs each time, ten times what they are, and guard nothing that
//! QUIC does not find out soon enough. So they are not data, peer by peer, as long as they are short, few, and answered. A stream begins
//! with more bytes, open streams make more of them, and what goes out for the third time while nothing comes in is missing its answer.

use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

use super::{MAX_SLOTS, SHORT_PAYLOAD};
use crate::relay::TokenBucket;

/// Two questions that crossed, their answers and acknowledgements.
const ROOM: NonZeroU64 = NonZeroU64::new(6).expect("invariant: not zero");
/// Of idle ends less than one a second comes or goes; of those that ask every second, three in a second and more.
const PER_SECOND: NonZeroU64 = NonZeroU64::MIN;
/// An acknowledgement and the next question, if nothing else was said: so many go out in a row.
const UNHEARD: u32 = 2;
/// What went out longer ago was answered: QUIC would have sent it again.
const IN_A_ROW: Duration = Duration::from_secs(3);

/// What goes to and fro between a gateway and each peer it has a slot for, over one relay.
#[derive(Debug, Default)]
pub struct Murmurs(Vec<Option<Murmur>>);

#[derive(Debug)]
struct Murmur {
    /// For short ones, either way.
    room: TokenBucket,
    sent_at: Option<Instant>,
    /// Short ones sent in a row since something came.
    unheard: u32,
}

impl Murmurs {
    /// A batch of `length` sealed bytes goes to the peer of that slot. True: it is data.
    pub fn sent(&mut self, slot: u16, length: usize, now: Instant) -> bool {
        if length > SHORT_PAYLOAD {
            return true;
        }
        let Some(murmur) = self.of(slot, now) else { return true };
        let before = murmur.sent_at.replace(now);
        let in_a_row = before.is_some_and(|at| now.saturating_duration_since(at) < IN_A_ROW);
        murmur.unheard = if in_a_row { murmur.unheard.saturating_add(1) } else { 1 };
        murmur.room.take(1, now).is_err() || murmur.unheard > UNHEARD
    }

    /// `length` sealed bytes came from the peer of that slot, over whichever carrier. True: they are data.
    pub fn came(&mut self, slot: u16, length: usize, now: Instant) -> bool {
        let Some(murmur) = self.of(slot, now) else { return true };
        murmur.unheard = 0;
        length > SHORT_PAYLOAD || murmur.room.take(1, now).is_err()
    }

    /// What is known of a slot; none of one that no session has.
    fn of(&mut self, slot: u16, now: Instant) -> Option<&mut Murmur> {
        let at = usize::from(slot);
        if at >= MAX_SLOTS {
            return None;
        }
        if at >= self.0.len() {
            self.0.resize_with(at + 1, || None);
        }
        let murmur = self.0.get_mut(at)?;
        Some(murmur.get_or_insert_with(|| Murmur {
            room: TokenBucket::new(PER_SECOND, ROOM, now),
            sent_at: None,
            unheard: 0,
        }))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const QUESTION: usize = 45;

    /// A question of ours, the answer, and our acknowledgement.
    fn ask(murmurs: &mut Murmurs, slot: u16, now: Instant) -> bool {
        [
            murmurs.sent(slot, QUESTION, now),
            murmurs.came(slot, QUESTION, now + 40 * MS),
            murmurs.sent(slot, QUESTION, now + 41 * MS),
        ]
        .contains(&true)
    }

    /// The peer's question, our answer, and its acknowledgement.
    fn answer(murmurs: &mut Murmurs, slot: u16, now: Instant) -> bool {
        [
            murmurs.came(slot, QUESTION, now),
            murmurs.sent(slot, QUESTION, now + MS),
            murmurs.came(slot, QUESTION, now + 41 * MS),
        ]
        .contains(&true)
    }

    #[test]
    fn idle_ends_that_take_turns_move_no_data_however_many_they_are() {
        let (mut murmurs, start) = (Murmurs::default(), Instant::now());
        for turn in 0..500_u32 {
            let now = start + turn * 7_000 * MS;
            for slot in 0..50_u16 {
                let is_ours = (turn + u32::from(slot)).is_multiple_of(2);
                let is_data = if is_ours { ask(&mut murmurs, slot, now) } else { answer(&mut murmurs, slot, now) };
                assert!(!is_data, "turn {turn} of {slot}");
            }
        }
    }

    #[test]
    fn a_stream_that_begins_is_data_at_once() {
        let (mut murmurs, now) = (Murmurs::default(), Instant::now());
        assert!(!ask(&mut murmurs, 0, now));
        let header = 28 + crate::stream::HEADER_LEN;
        assert!(murmurs.sent(0, header, now + 3_000 * MS) && murmurs.came(1, header, now + 3_000 * MS));
        assert!(!murmurs.came(0, QUESTION, now + 3_050 * MS), "its acknowledgement is none");
    }

    #[test]
    fn ends_that_ask_every_second_because_streams_are_open_move_data_from_the_third_question_on() {
        for turn in [ask as fn(&mut Murmurs, u16, Instant) -> bool, answer] {
            let (mut murmurs, start) = (Murmurs::default(), Instant::now());
            let data: Vec<_> = (0..60_u32).map(|second| turn(&mut murmurs, 0, start + second * 1_000 * MS)).collect();
            assert!(!data[0] && data[2..].iter().all(|is_data| *is_data), "{data:?}");
        }
    }

    #[test]
    fn a_question_that_goes_out_for_the_third_time_is_data_and_so_is_an_answer() {
        let (mut murmurs, now) = (Murmurs::default(), Instant::now());
        assert_eq!([0_u32, 200, 201].map(|ms| murmurs.sent(0, QUESTION, now + ms * MS)), [false, false, true]);
        let later = now + 7_000 * MS;
        murmurs.came(0, QUESTION, later);
        assert_eq!([1_u32, 200, 201].map(|ms| murmurs.sent(0, QUESTION, later + ms * MS)), [false, false, true]);
    }

    #[test]
    fn what_is_heard_over_another_relay_makes_no_data_of_what_is_sent_over_this_one() {
        let (mut murmurs, start) = (Murmurs::default(), Instant::now());
        for turn in 0..100_u32 {
            let now = start + turn * 7_000 * MS;
            assert!(!murmurs.sent(0, QUESTION, now) && !murmurs.sent(0, QUESTION, now + 40 * MS));
        }
    }

    #[test]
    fn a_slot_that_no_session_has_is_not_remembered() {
        let (mut murmurs, now) = (Murmurs::default(), Instant::now());
        assert!(murmurs.sent(MAX_SLOTS as u16, 1, now) && murmurs.came(u16::MAX, 1, now));
        assert!(murmurs.0.is_empty());
    }
}
