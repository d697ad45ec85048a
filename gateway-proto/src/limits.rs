//! What the owner of a channel limits on a connection to it, beside its open streams: how fast payload passes, and how long a
//! stream may be silent.
//!
//! The owner's gateway enforces it for both directions, by itself: it takes no more from the tunnel or from its engine than may go
//! on, and flow control does the rest. So nothing depends on what the partner's gateway does, and no byte is dropped.
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

/// What was not used for so long may go at once: a message after a pause is not held back for being one piece.
const BURST: Duration = Duration::from_millis(250);
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
    /// A stream in which no byte passes for so many seconds, in neither direction, is reset; none: never.
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

    /// How long so many bytes take, rounded up to the nanosecond.
    fn time_of(self, bytes: usize) -> Duration {
        let nanos = (bytes as u128 * 1_000_000_000).div_ceil(u128::from(self.0));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// One direction of a connection against its rate. In any time at most as much passes as the rate allows in it and a quarter of a
/// second more, and one piece; whoever takes first goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenBucket {
    /// All that was taken has its time by then.
    paid_until: Option<Instant>,
}

impl TokenBucket {
    /// Takes the time of bytes that are there to go on: the moment when they may, `now` or later. Those taken afterwards go after
    /// them.
    pub fn take(&mut self, bytes: usize, rate: Rate, now: Instant) -> Instant {
        let unused = now.checked_sub(BURST).unwrap_or(now);
        let from = self.paid_until.map_or(unused, |paid| paid.max(unused));
        let until = from.checked_add(rate.time_of(bytes)).unwrap_or(from);
        self.paid_until = Some(until);
        until.max(now)
    }

    /// Gives back what was taken for bytes that will not go on: streams that end while they wait cost the others nothing.
    pub fn give_back(&mut self, bytes: usize, rate: Rate) {
        self.paid_until = self.paid_until.and_then(|paid| paid.checked_sub(rate.time_of(bytes)));
    }
}

/// The silence of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiveTimeout {
    limit: Duration,
    heard_at: Instant,
}

impl ReceiveTimeout {
    /// From `now` on.
    pub fn new(limit: Duration, now: Instant) -> Self {
        Self { limit, heard_at: now }
    }

    /// Bytes pass at this moment, in either direction. It may be one to come: what waits for its turn under the rate is not silent.
    pub fn handle_bytes(&mut self, at: Instant) {
        self.heard_at = self.heard_at.max(at);
    }

    /// When to look again.
    pub fn poll_timeout(&self) -> Instant {
        self.heard_at.checked_add(self.limit).unwrap_or(self.heard_at)
    }

    /// Whether nothing passed for too long.
    pub fn is_over(&self, now: Instant) -> bool {
        now >= self.poll_timeout()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn start() -> Instant {
        Instant::now() + 1000 * SECOND
    }

    /// What passes until `end` when somebody always has a piece to send: each piece and its moment.
    fn greedy(rate: Rate, begin: Instant, end: Instant) -> Vec<(Instant, usize)> {
        let (mut bucket, mut now, mut passed) = (TokenBucket::default(), begin, Vec::new());
        loop {
            now = bucket.take(rate.piece(), rate, now);
            if now > end {
                return passed;
            }
            passed.push((now, rate.piece()));
        }
    }

    #[test]
    fn in_no_time_passes_more_than_the_rate_and_a_short_burst_and_in_the_long_run_nothing_less() {
        for bytes_per_second in [MIN_BYTES_PER_SECOND, 64_000, 1_000_000, 125_000_000] {
            let (rate, begin) = (Rate::new(bytes_per_second), start());
            let passed = greedy(rate, begin, begin + 20 * SECOND);
            let total: usize = passed.iter().map(|(_, bytes)| bytes).sum();
            let ideal = bytes_per_second as usize * 20;
            assert!(total + 2 * rate.piece() >= ideal, "{bytes_per_second}: {total} of {ideal}");
            // Any second of it.
            for (number, (from, _)) in passed.iter().enumerate().step_by(passed.len().div_ceil(50)) {
                let within = passed[number..].iter().take_while(|(at, _)| *at <= *from + SECOND);
                let bytes: usize = within.map(|(_, bytes)| bytes).sum();
                let most = bytes_per_second as usize * 5 / 4 + 2 * rate.piece();
                assert!(bytes <= most, "{bytes_per_second}: {bytes} in a second, {most} at most");
            }
        }
    }

    #[test]
    fn a_short_message_after_a_pause_goes_at_once_and_a_pause_saves_up_no_more_than_a_burst() {
        let (rate, begin) = (Rate::new(8_000), start());
        let mut bucket = TokenBucket::default();
        assert_eq!(bucket.take(2_000, rate, begin), begin, "a quarter of a second's worth");
        assert_eq!(bucket.take(800, rate, begin), begin + SECOND / 10);
        let later = begin + 3600 * SECOND;
        assert_eq!(bucket.take(2_000, rate, later), later);
        assert_eq!(bucket.take(8_000, rate, later), later + SECOND, "an hour saved nothing more");
    }

    #[test]
    fn streams_that_share_a_rate_go_in_the_order_in_which_they_took() {
        let (rate, now) = (Rate::new(1_000), start());
        let mut bucket = TokenBucket::default();
        let turns: Vec<_> = (0..10).map(|_| bucket.take(500, rate, now)).collect();
        assert!(turns.is_sorted(), "{turns:?}");
        assert_eq!(turns[9] - now, 5 * SECOND - BURST);
    }

    #[test]
    fn streams_that_end_before_their_turn_cost_the_others_nothing() {
        let (rate, now) = (Rate::new(1_000), start());
        let mut bucket = TokenBucket::default();
        for _ in 0..10_000 {
            bucket.take(512, rate, now);
            bucket.give_back(512, rate);
        }
        assert_eq!(bucket.take(1_000, rate, now), now + SECOND - BURST);
    }

    #[test]
    fn nothing_that_a_policy_may_say_overflows() {
        let mut bucket = TokenBucket::default();
        let now = start();
        for _ in 0..3 {
            assert!(bucket.take(usize::MAX, Rate::new(0), now) >= now);
        }
        assert_eq!(Rate::new(u64::MAX).time_of(1), Duration::from_nanos(1));
        assert_eq!((Rate::new(0).piece(), Rate::new(u64::MAX).piece()), (512, 64 << 10));
    }

    #[test]
    fn a_stream_is_silent_for_too_long_after_its_last_byte_in_either_direction_or_the_turn_of_one_that_waits() {
        let begin = start();
        let mut silence = ReceiveTimeout::new(10 * SECOND, begin);
        assert_eq!(silence.poll_timeout(), begin + 10 * SECOND);
        assert!(!silence.is_over(begin + 9 * SECOND) && silence.is_over(begin + 10 * SECOND));
        silence.handle_bytes(begin + 9 * SECOND);
        assert!(!silence.is_over(begin + 18 * SECOND) && silence.is_over(begin + 19 * SECOND));
        silence.handle_bytes(begin + 30 * SECOND);
        silence.handle_bytes(begin + 20 * SECOND);
        assert_eq!(silence.poll_timeout(), begin + 40 * SECOND, "bytes of the other direction take nothing back");
    }

    #[test]
    fn limits_that_limit_nothing_have_no_form_and_others_only_what_they_limit() {
        assert!(ChannelLimits::default().is_unlimited());
        let limits = ChannelLimits { bytes_per_second: Some(1_000), receive_timeout_secs: None };
        assert!(!limits.is_unlimited());
        assert_eq!(serde_json::to_string(&limits).unwrap(), r#"{"bytes_per_second":1000}"#);
        assert_eq!(serde_json::from_str::<ChannelLimits>("{}").unwrap(), ChannelLimits::default());
    }
}
