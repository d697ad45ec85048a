//! Which of a tunnel's streams sends next.
//!
//! Of streams with the same priority QUIC sends a packet each in turn, so that nobody waits for longer than a packet of each of the
//! others. Where a tunnel is about to send all it has, that costs more than it gives: messages that are under way at the same time
//! are all whole at the very end only, and each arrives in pieces of a packet, every one of them a wake-up and a system call of its
//! own at the far gateway. So there a stream sends up to [`TURN_LEN`] bytes before the next one does.
//!
//! Priorities are what turns are made of, because that is what QUIC has for it: who begins a turn later has a lower one. A lower
//! priority waits for as long as a higher one has anything to send, so turns are for tunnels that keep up, and begin only where all
//! was sent a moment ago. Where more is to be sent than the line takes, or the line is slow, whoever begins a turn shares the place
//! of the last one, and all of them send a packet each in turn. Priorities run out after 2³⁰ turns of a rank, some 64 TiB in one
//! tunnel; from then on it is as on a slow line.

use std::time::{Duration, Instant};

/// What one stream sends before it is bulk, bytes.
const BULK_AFTER: u64 = 1 << 20;
/// What one stream sends in its turn, bytes. It keeps its place until it has, so that one that sends little at a time does not fall
/// back with each of it.
pub const TURN_LEN: usize = 64 << 10;
/// From this speed on, bytes a second, a line is fast: a turn lasts 2.6 ms there.
const FAST: u128 = 25_000_000;
/// All was sent so short a time ago, or more is to be sent than the line takes.
const KEEPS_UP: Duration = Duration::from_millis(5);
/// Priorities of each rank.
const PLACES: i32 = 1 << 30;

/// What a stream sends. Messages go before bulk, on every line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rank {
    Message,
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
    /// When all there was to send was sent last, on this path.
    pub drained_at: Option<Instant>,
}

impl Line {
    fn is_fast(self) -> bool {
        u128::from(self.window) * 1_000_000 >= FAST * self.round_trip.as_micros()
    }

    fn keeps_up(self, now: Instant) -> bool {
        self.drained_at.is_some_and(|at| now.saturating_duration_since(at) <= KEEPS_UP)
    }
}

/// The turns of one direction of a tunnel.
#[derive(Debug, Default)]
pub struct Turns {
    messages: i32,
    bulk: i32,
}

/// Where a stream sends.
#[derive(Debug)]
pub struct Place {
    rank: Rank,
    priority: i32,
    /// What it has sent, bytes.
    sent: u64,
    /// What it sends in this turn yet.
    left: usize,
}

impl Place {
    /// The priority of the stream.
    pub fn priority(&self) -> i32 {
        self.priority
    }

    /// So many bytes are sent next. Whether they begin a [turn](Turns::begin).
    pub fn sends(&mut self, bytes: usize) -> bool {
        self.sent = self.sent.saturating_add(bytes as u64);
        let is_over = bytes > self.left || (self.rank == Rank::Message && self.sent >= BULK_AFTER);
        self.left = self.left.saturating_sub(bytes);
        is_over
    }
}

impl Turns {
    /// A new stream, with the priority of the last one that began a turn: it passes none.
    pub fn enter(&self) -> Place {
        Place { rank: Rank::Message, priority: Rank::Message.first() - self.messages, sent: 0, left: 0 }
    }

    /// A stream begins a turn, with so many bytes at once.
    pub fn begin(&mut self, place: &mut Place, bytes: usize, line: Line, now: Instant) {
        place.rank = if place.sent < BULK_AFTER { Rank::Message } else { Rank::Bulk };
        place.left = TURN_LEN.saturating_sub(bytes);
        let last = match place.rank {
            Rank::Message => &mut self.messages,
            Rank::Bulk => &mut self.bulk,
        };
        if line.is_fast() && line.keeps_up(now) {
            *last = (*last + 1).min(PLACES - 1);
        }
        place.priority = place.rank.first() - *last;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn fast(now: Instant) -> Line {
        Line { window: 1 << 20, round_trip: 20 * MS, drained_at: Some(now) }
    }

    /// A stream that has sent so much before.
    fn stream(turns: &Turns, sent: u64) -> Place {
        Place { sent, ..turns.enter() }
    }

    /// The priority with which a stream sends so many bytes.
    fn send(turns: &mut Turns, place: &mut Place, bytes: usize, line: Line, now: Instant) -> i32 {
        if place.sends(bytes) {
            turns.begin(place, bytes, line, now);
        }
        place.priority()
    }

    #[test]
    fn where_a_tunnel_keeps_up_who_begins_later_sends_later_and_messages_send_before_all_bulk() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        let [message, bulk, later_bulk, later_message] = [0, BULK_AFTER, BULK_AFTER, 0].map(|sent| {
            let mut place = stream(&turns, sent);
            send(&mut turns, &mut place, 10_000, fast(now), now)
        });
        let order = [message, later_message, bulk, later_bulk];
        assert!(order.is_sorted_by(|before, after| before > after), "{order:?}");
        assert_eq!(turns.enter().priority(), later_message, "a new stream passes none");
    }

    #[test]
    fn a_stream_keeps_its_place_for_a_turn_however_small_its_pieces_are() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        let mut small = turns.enter();
        let first = send(&mut turns, &mut small, 1024, fast(now), now);
        let mut last_other = first;
        for _ in 1..64 {
            let mut other = turns.enter();
            last_other = send(&mut turns, &mut other, TURN_LEN, fast(now), now);
            assert_eq!(send(&mut turns, &mut small, 1024, fast(now), now), first);
        }
        let next = send(&mut turns, &mut small, 1, fast(now), now);
        assert!(next < last_other, "it has had its turn");
    }

    #[test]
    fn where_a_tunnel_does_not_keep_up_or_the_line_is_slow_all_that_begin_share_a_place() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        let slow = Line { window: 100 << 10, ..fast(now) };
        let full = Line { drained_at: Some(now - 6 * MS), ..fast(now) };
        let new_path = Line { drained_at: None, ..fast(now) };
        for sent in [0, BULK_AFTER] {
            let places = [fast(now), slow, full, new_path].map(|line| {
                let mut place = stream(&turns, sent);
                send(&mut turns, &mut place, 10_000, line, now)
            });
            assert_eq!(places, [places[0]; 4], "and none passes those that came while it kept up");
        }
        assert!(Line { round_trip: Duration::ZERO, ..slow }.is_fast(), "a round trip of no time divides nothing");
    }

    #[test]
    fn turns_end_without_a_priority_that_passes_into_the_other_rank() {
        let (mut turns, now) = (Turns { messages: PLACES - 2, bulk: PLACES - 2 }, Instant::now());
        for (sent, last) in [(0, 1 - PLACES), (BULK_AFTER, i32::MIN + 1)] {
            let priorities = [(); 2].map(|()| {
                let mut place = stream(&turns, sent);
                send(&mut turns, &mut place, TURN_LEN, fast(now), now)
            });
            assert_eq!(priorities, [last; 2]);
        }
    }
}
