//! Which of a tunnel's streams sends next.
//!
//! Messages go before bulk, on every line. What sends its first MiB is a message; so is whatever sends no more than a sixteenth of the
//! line and a MiB at once, however long it has been open: a conversation. Conversations are told from transfers by how they send and
//! not by what they are, so together they go before bulk with half the line at most: a lower priority waits for as long as a higher
//! one has anything to send, and many that send little each would stop all transfers.
//!
//! Of streams with the same priority QUIC sends a packet each in turn, so that nobody waits for longer than a packet of each of the
//! others. Where a tunnel is about to send all it has, that costs more than it gives: messages that are under way at the same time
//! are all whole at the very end only, and each arrives in pieces of a packet, every one of them a wake-up and a system call of its
//! own at the far gateway. So there a stream sends up to [`TURN_LEN`] bytes before the next one does.
//!
//! Priorities are what turns are made of, because that is what QUIC has for it: who begins a turn later has a lower one. So turns are
//! for tunnels that keep up, and begin only where all was sent a moment ago. Where more is to be sent than the line takes, or the line
//! is slow, whoever begins a turn shares the place of the last one, and all of them send a packet each in turn. Priorities run out
//! after 2³⁰ turns of a rank, some 64 TiB in one tunnel; from then on it is as on a slow line.

use std::time::{Duration, Instant};

/// What one stream sends above its share of the line before it is bulk, bytes; its first bytes are no bulk in any case.
const BULK_AFTER: u64 = 1 << 20;
/// Of what a stream sent no more than this counts, bytes: one that was bulk can become a conversation.
const BULK_UP_TO: u64 = 2 << 20;
/// A conversation sends no more than this part of the line.
const CONVERSATION: u64 = 16;
/// All conversations have no more than this part of the line before bulk.
const CONVERSATIONS: u64 = 2;
/// What conversations may begin at once beyond that, bytes: the longest message that one of them may send at once, while the others
/// go on.
const CONVERSATIONS_AHEAD: u64 = 2 << 20;
/// What one stream sends in its turn, bytes. It keeps its place until it has, so that one that sends little at a time does not fall
/// back with each of it.
pub const TURN_LEN: usize = 64 << 10;
/// From this speed on, bytes a second, a line is fast: a turn lasts 2.6 ms there.
const FAST: u64 = 25_000_000;
/// All was sent so short a time ago, or more is to be sent than the line takes.
const KEEPS_UP: Duration = Duration::from_millis(5);
/// Priorities of each rank.
const PLACES: i32 = 1 << 30;

/// What a stream sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Rank {
    #[default]
    Message,
    Bulk,
}

impl Rank {
    /// The priority of the first place.
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
    /// Bytes a second.
    fn speed(self) -> u64 {
        let micros = self.round_trip.as_micros().max(1);
        u64::try_from(u128::from(self.window) * 1_000_000 / micros).unwrap_or(u64::MAX)
    }

    fn keeps_up(self, now: Instant) -> bool {
        self.drained_at.is_some_and(|at| now.saturating_duration_since(at) <= KEEPS_UP)
    }
}

/// What was sent above a part of the line.
#[derive(Debug, Default)]
struct Excess {
    bytes: u64,
    /// When the line was last asked for what it took.
    at: Option<Instant>,
}

impl Excess {
    /// The line took `speed` bytes a second of it until `now`, and of the rest no more than `most` counts.
    fn fall(&mut self, speed: u64, most: u64, now: Instant) {
        let elapsed = self.at.replace(now).map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let taken = u128::from(speed).saturating_mul(elapsed.as_micros()) / 1_000_000;
        self.bytes = self.bytes.saturating_sub(u64::try_from(taken).unwrap_or(u64::MAX)).min(most);
    }
}

/// The turns of one direction of a tunnel.
#[derive(Debug, Default)]
pub struct Turns {
    messages: i32,
    bulk: i32,
    conversations: Excess,
}

/// Where a stream sends. A new one has no place yet: its first bytes begin a turn.
#[derive(Debug, Default)]
pub struct Place {
    rank: Rank,
    priority: i32,
    /// What it has sent, bytes.
    sent: u64,
    excess: Excess,
    /// What it sent as bulk since it was a message, bytes. It may wait still, and goes along with what is sent next: a priority is
    /// that of all a stream has to send.
    waiting: u64,
    /// What it sends in this turn yet.
    left: usize,
}

impl Place {
    /// The priority of the stream.
    pub fn priority(&self) -> i32 {
        self.priority
    }

    /// So many bytes are sent next. Whether the [turns](Turns::send) have to know: not while a message is in its turn.
    pub fn sends(&mut self, bytes: usize) -> bool {
        self.sent = self.sent.saturating_add(bytes as u64);
        self.excess.bytes = self.excess.bytes.saturating_add(bytes as u64);
        let is_in_turn = self.rank == Rank::Message && bytes <= self.left;
        if is_in_turn {
            self.left -= bytes;
        }
        !is_in_turn
    }
}

impl Turns {
    /// A stream sends so many bytes at once: in the turn that it has begun as bulk, or in a new one.
    pub fn send(&mut self, place: &mut Place, bytes: usize, line: Line, now: Instant) {
        let rank = self.rank(place, bytes, line, now);
        place.waiting = match rank {
            Rank::Message => 0,
            Rank::Bulk => place.waiting.saturating_add(bytes as u64),
        };
        if rank == place.rank && bytes <= place.left {
            place.left -= bytes;
            return;
        }
        place.rank = rank;
        place.left = TURN_LEN.saturating_sub(bytes);
        let last = match rank {
            Rank::Message => &mut self.messages,
            Rank::Bulk => &mut self.bulk,
        };
        if line.speed() >= FAST && line.keeps_up(now) {
            *last = (*last + 1).min(PLACES - 1);
        }
        place.priority = rank.first() - *last;
    }

    fn rank(&mut self, place: &mut Place, bytes: usize, line: Line, now: Instant) -> Rank {
        // What a tunnel that keeps up could take shows only when more is sent.
        let speed = if line.keeps_up(now) { line.speed().max(FAST) } else { line.speed() };
        place.excess.fall(speed / CONVERSATION, BULK_UP_TO, now);
        if place.sent < BULK_AFTER {
            return Rank::Message;
        }
        if place.excess.bytes >= BULK_AFTER {
            return Rank::Bulk;
        }
        let turn = bytes.max(TURN_LEN) as u64;
        let begins = match place.rank {
            // The rest of its last turn was counted, too.
            Rank::Message => turn - place.left as u64,
            Rank::Bulk => turn + place.waiting.min(BULK_AFTER),
        };
        self.conversations.fall(speed / CONVERSATIONS, CONVERSATIONS_AHEAD, now);
        let ahead = self.conversations.bytes + begins;
        if ahead > CONVERSATIONS_AHEAD {
            return Rank::Bulk;
        }
        self.conversations.bytes = ahead;
        Rank::Message
    }
}

#[cfg(test)]
mod tests;
