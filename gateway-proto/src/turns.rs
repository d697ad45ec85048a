//! Which of a tunnel's streams sends next.
//!
//! Of streams with the same priority QUIC sends a packet each in turn. On a slow line that is as it should be: nobody waits for
//! longer than a packet of each of the others. On a fast line it costs more than it gives: messages that are under way at the
//! same time are all whole at the very end only, and each arrives in pieces of a packet, every one of them a wake-up and a system
//! call of its own at the far gateway. So on a fast line a stream has its turn until a message, or a piece of bulk, is sent.
//!
//! Priorities are what turns are made of, because that is what QUIC has for it: who comes later gets a lower one. They end: after
//! 2³⁰ turns of a rank without a new handshake the streams of a tunnel send a packet each in turn again.
//!
//! Messages go before bulk, on every line.

use std::time::Duration;

/// What one stream sends at a stretch before it is bulk, bytes.
const BULK_AFTER: u64 = 1 << 20;
/// A quarter of what a stretch counts is forgotten with each answer: conversations are bulk whose messages are longer than a quarter
/// of [`BULK_AFTER`] (images), and a transfer is over for the third message after it.
const FORGOTTEN: u64 = 4;
/// What fits into a packet needs no turn of its own.
const PACKET: usize = 1200;
/// From this speed on, bytes a second, turns are longer than a packet: one of 64 KiB lasts no longer than 2.6 ms.
const FAST: u128 = 25_000_000;
/// Priorities of each rank: years of what a busy channel carries.
const PLACES: i32 = 1 << 30;

/// What a stream sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// Messages, requests and answers.
    Message,
    /// A transfer.
    Bulk,
}

impl Rank {
    /// The priority of the first place. New streams have that of messages by themselves.
    fn first(self) -> i32 {
        match self {
            Self::Message => 0,
            Self::Bulk => -PLACES,
        }
    }
}

/// The line under a tunnel, as congestion control knows it.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// What may be on its way, bytes.
    pub window: u64,
    /// The round trip.
    pub round_trip: Duration,
}

impl Line {
    fn is_fast(self) -> bool {
        u128::from(self.window) * 1_000_000 >= FAST * self.round_trip.as_micros()
    }
}

/// The turns of one direction of a tunnel.
#[derive(Debug, Default)]
pub struct Turns {
    messages: i32,
    bulk: i32,
}

impl Turns {
    /// The priority of the stream that sends so many bytes next. On a slow line, or where a packet holds them, it is that of the one
    /// before.
    pub fn take(&mut self, rank: Rank, bytes: usize, line: impl FnOnce() -> Line) -> i32 {
        let last = match rank {
            Rank::Message => &mut self.messages,
            Rank::Bulk => &mut self.bulk,
        };
        if bytes > PACKET && line().is_fast() {
            *last = (*last + 1).min(PLACES - 1);
        }
        rank.first() - *last
    }
}

/// What one direction of a stream sends at a stretch, and how far that goes on after an answer.
#[derive(Debug, Default)]
pub struct Stretch {
    sent: u64,
}

impl Stretch {
    /// So many bytes are sent next. `is_new`: its engine was silent until the partner had answered, so what it sent before has
    /// arrived. The rank in which it takes its turn.
    pub fn sends(&mut self, bytes: usize, is_new: bool) -> Rank {
        if is_new {
            self.sent -= self.sent / FORGOTTEN;
        }
        self.sent = self.sent.saturating_add(bytes as u64).min(BULK_AFTER * 2);
        if self.sent < BULK_AFTER { Rank::Message } else { Rank::Bulk }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST_LINE: Line = Line { window: 1 << 20, round_trip: Duration::from_millis(20) };
    const SLOW_LINE: Line = Line { window: 100 << 10, round_trip: Duration::from_millis(20) };

    #[test]
    fn on_a_fast_line_who_comes_later_sends_later_and_messages_send_before_all_bulk() {
        let mut turns = Turns::default();
        let [message, bulk, later_bulk, later_message] = [Rank::Message, Rank::Bulk, Rank::Bulk, Rank::Message]
            .map(|rank| turns.take(rank, PACKET + 1, || FAST_LINE));
        let order = [0, message, later_message, bulk, later_bulk];
        assert!(order.is_sorted_by(|before, after| before > after), "new streams are the first: {order:?}");
    }

    #[test]
    fn on_a_slow_line_streams_of_a_rank_send_a_packet_each_in_turn() {
        let mut turns = Turns::default();
        for rank in [Rank::Message, Rank::Bulk] {
            let places = [FAST_LINE, SLOW_LINE, SLOW_LINE].map(|line| turns.take(rank, PACKET + 1, || line));
            assert_eq!(places, [places[0]; 3], "nobody passes those that took their turn while it was fast");
        }
        let unknown = Line { window: 12_000, round_trip: Duration::ZERO };
        assert!(unknown.is_fast(), "a round trip of no time divides nothing");
    }

    #[test]
    fn a_message_of_a_packet_passes_no_longer_one_and_moves_nobody_back() {
        let mut turns = Turns::default();
        let longer = turns.take(Rank::Message, PACKET + 1, || FAST_LINE);
        let asked = || -> Line { unreachable!("the line does not matter") };
        assert_eq!([(); 3].map(|()| turns.take(Rank::Message, PACKET, asked)), [longer; 3]);
    }

    #[test]
    fn turns_end_without_a_priority_that_passes_into_the_other_rank() {
        let mut turns = Turns { messages: PLACES - 2, bulk: PLACES - 2 };
        for (rank, last) in [(Rank::Message, 1 - PLACES), (Rank::Bulk, i32::MIN + 1)] {
            assert_eq!([(); 2].map(|()| turns.take(rank, usize::MAX, || FAST_LINE)), [last; 2]);
        }
    }

    /// What a stream sends with the last of so many messages of so many bytes, each of them answered.
    fn rank_of(messages: usize, bytes: usize) -> Rank {
        const READ: usize = 16 << 10;
        let (mut stretch, mut rank) = (Stretch::default(), Rank::Message);
        for _ in 0..messages {
            for read in 0..bytes.div_ceil(READ) {
                rank = stretch.sends(READ.min(bytes - read * READ), read == 0);
            }
        }
        rank
    }

    #[test]
    fn a_conversation_is_no_bulk_however_long_it_goes_on_and_a_series_of_images_is() {
        assert_eq!(rank_of(100_000, 1000), Rank::Message);
        assert_eq!(rank_of(1000, 200 << 10), Rank::Message);
        assert_eq!(rank_of(1, 1_000_000), Rank::Message);
        assert_eq!(rank_of(10, 512 << 10), Rank::Bulk);
        assert_eq!(rank_of(1, 2 << 20), Rank::Bulk);
    }

    #[test]
    fn a_transfer_goes_on_until_it_was_answered_and_is_over_for_the_third_message_after_it() {
        let mut transfer = Stretch::default();
        let ranks: Vec<_> = (0..100).map(|_| transfer.sends(256 << 10, false)).collect();
        assert_eq!(ranks[..4], [Rank::Message, Rank::Message, Rank::Message, Rank::Bulk]);
        assert_eq!(transfer.sends(10, false), Rank::Bulk, "the end of it");
        assert_eq!([(); 3].map(|()| transfer.sends(10, true)), [Rank::Bulk, Rank::Bulk, Rank::Message]);
    }
}
