//! What the owner of a channel limits on a connection to it, beside its open streams: how fast payload passes, and how long a
//! stream may be silent.
//!
//! The owner's gateway enforces it for both directions, by itself: it takes no more from the tunnel or from its engine than may go
//! on, and flow control does the rest. So nothing depends on what the partner's gateway does, and no byte is dropped. The partner's
//! gateway keeps the same rate for what it sends, so that nothing waits in the tunnel, where it would be in the way of others.
//!
//! [`TokenBucket`] and [`ReceiveTimeout`] only compute; whoever moves the bytes waits until the moment they name.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The least rate that can be asked for, bytes per second: a short message in a second or two.
pub const MIN_BYTES_PER_SECOND: u64 = 1_000;
/// The highest, bytes per second: above what any tunnel carries.
pub const MAX_BYTES_PER_SECOND: u64 = 10_000_000_000;
/// The shortest receive timeout, seconds: an engine may well think for some seconds before it answers.
pub const MIN_RECEIVE_TIMEOUT_SECS: u32 = 10;
/// The longest, seconds: a week.
pub const MAX_RECEIVE_TIMEOUT_SECS: u32 = 7 * 24 * 3600;

/// What was handed on and may not have arrived yet, in bytes per stream: as much as a partner's gateway takes before its engine
/// does. Its engine's socket may hold as much again, which counts at half the rate.
pub const MAX_UNDER_WAY: usize = 4 << 20;
/// Bytes that were handed on count as passing for as long as they would take at this rate. Neither QUIC nor the kernel says when
/// they arrive, and one gateway cannot see the other's engine; what is slower than any grant may ask for is no stream that passes.
const SLOWEST: Rate = Rate(MIN_BYTES_PER_SECOND);
/// What was not used for so long may go at once: a message after a pause is not held back for being one piece.
const BURST: Duration = Duration::from_millis(250);
/// What goes on before its time is paid for within so long, or so many bytes are, whichever is more: acknowledgements of the streams
/// whose engine has just restarted, and no more than the others can wait for.
const MAX_DEBT: Duration = Duration::from_secs(1);
const MAX_DEBT_BYTES: usize = 8 << 10;
/// The longest that a stream is believed to wait for its turn at the partner's gateway, which is not seen from the owner's: more than
/// a hundred streams at the least rate take for a round. The partner opens the streams, so their number alone must not decide how
/// long the owner's timeout is.
const MAX_FAR_WAIT: Duration = Duration::from_secs(60);
/// Pieces of a second's worth: streams that share a rate take turns this finely.
const PIECES_PER_SECOND: u64 = 64;
/// The smallest piece, in bytes: smaller ones would cost more in packets than they carry.
const MIN_PIECE: u64 = 512;
/// The largest, in bytes: what a copy loop reads without a limit.
const MAX_PIECE: u64 = 64 << 10;

/// The limits of one connection, as the policy has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChannelLimits {
    /// Payload in each direction at most, bytes per second, all streams together; none: as fast as it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// A stream in which no byte passes for so many seconds, in neither direction, is reset; none: never. Counted at the owner's
    /// gateway, where bytes handed on pass until they would have arrived at [`MIN_BYTES_PER_SECOND`], [`MAX_UNDER_WAY`] at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_timeout_secs: Option<u32>,
}

impl ChannelLimits {
    /// Whether nothing is limited; a policy leaves such limits out.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// The rate, if there is one.
    pub fn rate(&self) -> Option<Rate> {
        self.bytes_per_second.map(Rate::new)
    }

    /// The receive timeout, if there is one.
    pub fn receive_timeout(&self) -> Option<Duration> {
        self.receive_timeout_secs.map(|secs| Duration::from_secs(secs.into()))
    }
}

/// So many bytes per second, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(u64);

impl Rate {
    /// Bytes per second; 0 counts as 1.
    pub fn new(bytes_per_second: u64) -> Self {
        Self(bytes_per_second.max(1))
    }

    /// How many bytes to take at a time, about.
    pub fn piece(self) -> usize {
        (self.0 / PIECES_PER_SECOND).clamp(MIN_PIECE, MAX_PIECE) as usize
    }

    /// How long it takes until each of so many streams had its turn with one piece.
    pub fn round_of(self, streams: u32) -> Duration {
        self.time_of(self.piece().saturating_mul(usize::try_from(streams).unwrap_or(usize::MAX)))
    }

    /// By how much all that wait may be held up by what goes on before its time ([`TokenBucket::take_early`]).
    pub fn max_debt(self) -> Duration {
        MAX_DEBT.max(self.time_of(MAX_DEBT_BYTES))
    }

    /// For how long one of so many open streams may wait for its turn at the partner's gateway without a sign of it at the owner's:
    /// a round behind what went early, a minute at most.
    pub fn far_wait(self, streams: u32) -> Duration {
        self.round_of(streams).saturating_add(self.max_debt()).min(MAX_FAR_WAIT)
    }

    /// Whether it is this rate that holds back what passes: so many bytes in this time are three quarters of it or more.
    pub fn holds_back(self, bytes: u64, took: Duration) -> bool {
        let allowed = u128::from(self.0).saturating_mul(took.as_nanos());
        u128::from(bytes) * 4_000_000_000 >= allowed.saturating_mul(3)
    }

    /// How long so many bytes take, rounded up to the nanosecond.
    fn time_of(self, bytes: usize) -> Duration {
        // A division of 128 bits only where it takes one.
        let nanos = match (bytes as u64).checked_mul(1_000_000_000) {
            Some(units) => units.div_ceil(self.0),
            None => u64::try_from((bytes as u128 * 1_000_000_000).div_ceil(u128::from(self.0))).unwrap_or(u64::MAX),
        };
        Duration::from_nanos(nanos)
    }
}

/// One direction of a connection against its rate. In any time at most as much passes as the rate allows in it and a quarter of a
/// second more, one piece, and what [`take_early`](Self::take_early) allows once. It promises nobody a time to come: whoever waits
/// stands in a queue and asks again when it is first, so those that leave the queue cost the others nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenBucket {
    /// All that was taken has its time by then.
    paid_until: Option<Instant>,
    /// What of it went early has its time by then, at half the rate.
    early_until: Option<Instant>,
}

impl TokenBucket {
    /// When so many bytes may go on if nobody takes before: `asked_at` or later. `asked_at`: when they became the first of those
    /// that wait.
    pub fn ready_at(&self, bytes: usize, rate: Rate, asked_at: Instant) -> Instant {
        self.paid_after(bytes, rate, asked_at).max(asked_at)
    }

    /// Bytes that became the first at `asked_at` go on. When it is too early for them, what comes afterwards waits for that much
    /// longer, without a bound.
    pub fn take(&mut self, bytes: usize, rate: Rate, asked_at: Instant) {
        self.paid_until = Some(self.paid_after(bytes, rate, asked_at));
    }

    /// Bytes that nobody sends again go on at `now`, before their time, and what comes afterwards waits for that much longer. No:
    /// there is too much that is not paid for, or more than half the rate goes early: the other half is for those that wait.
    #[must_use]
    pub fn take_early(&mut self, bytes: usize, rate: Rate, now: Instant) -> bool {
        let took = rate.time_of(bytes);
        // What was not used is not lost to those that wait: they may need all of it for one piece.
        let from = self.paid_until.unwrap_or_else(|| now.checked_sub(BURST).unwrap_or(now));
        let paid = from.checked_add(took).unwrap_or(from);
        let early = self.early_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let early = early.saturating_add(took.saturating_mul(2));
        let most = rate.max_debt();
        let goes = paid.saturating_duration_since(now) <= most && early <= most.saturating_mul(2);
        if goes {
            (self.paid_until, self.early_until) = (Some(paid), now.checked_add(early));
        }
        goes
    }

    fn paid_after(&self, bytes: usize, rate: Rate, asked_at: Instant) -> Instant {
        let unused = asked_at.checked_sub(BURST).unwrap_or(asked_at);
        let from = self.paid_until.map_or(unused, |paid| paid.max(unused));
        from.checked_add(rate.time_of(bytes)).unwrap_or(from)
    }
}

/// The silence of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiveTimeout {
    limit: Duration,
    /// All bytes have passed by then.
    passed_at: Instant,
}

impl ReceiveTimeout {
    /// From `now` on.
    pub fn new(limit: Duration, now: Instant) -> Self {
        Self { limit, passed_at: now }
    }

    /// So many bytes were handed on, in either direction; 0 when there are some that wait for their turn under the rate.
    pub fn handle_bytes(&mut self, bytes: usize, now: Instant) {
        let from = self.passed_at.max(now);
        let latest = now.checked_add(SLOWEST.time_of(MAX_UNDER_WAY)).unwrap_or(now);
        let arrived = from.checked_add(SLOWEST.time_of(bytes)).unwrap_or(latest);
        self.passed_at = self.passed_at.max(arrived.min(latest));
    }

    /// When nothing will have passed for too long, if nothing does until then.
    pub fn poll_timeout(&self) -> Instant {
        self.passed_at.checked_add(self.limit).unwrap_or(self.passed_at)
    }
}

#[cfg(test)]
mod tests;
