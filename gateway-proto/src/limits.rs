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

    /// Whether it is this rate that holds back what passes: so many bytes in this time are three quarters of it or more.
    pub fn holds_back(self, bytes: u64, took: Duration) -> bool {
        let allowed = u128::from(self.0).saturating_mul(took.as_nanos());
        u128::from(bytes) * 4_000_000_000 >= allowed.saturating_mul(3)
    }

    /// How long so many bytes take, rounded up to the nanosecond.
    fn time_of(self, bytes: usize) -> Duration {
        let nanos = (bytes as u128 * 1_000_000_000).div_ceil(u128::from(self.0));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// One direction of a connection against its rate. In any time at most as much passes as the rate allows in it and a quarter of a
/// second more, one piece, and what [`take_early`](Self::take_early) allows once. It promises nobody a time to come: whoever waits
/// stands in a queue and asks again when it is first, so those that leave the queue cost the others nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenBucket {
    /// All that was taken has its time by then.
    paid_until: Option<Instant>,
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
    /// there is too much that is not paid for.
    #[must_use]
    pub fn take_early(&mut self, bytes: usize, rate: Rate, now: Instant) -> bool {
        let paid = self.paid_after(bytes, rate, now);
        let goes = paid.saturating_duration_since(now) <= MAX_DEBT.max(rate.time_of(MAX_DEBT_BYTES));
        if goes {
            self.paid_until = Some(paid);
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

    /// When to look again.
    pub fn poll_timeout(&self) -> Instant {
        self.passed_at.checked_add(self.limit).unwrap_or(self.passed_at)
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
            let asked_at = now;
            now = bucket.ready_at(rate.piece(), rate, asked_at);
            if now > end {
                return passed;
            }
            bucket.take(rate.piece(), rate, asked_at);
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

    /// The sender's gateway and the owner's, one behind the other.
    #[test]
    fn two_equal_rates_in_a_row_pass_as_much_as_one_and_nothing_piles_up_between_them() {
        let jitter = Duration::from_millis(40);
        for bytes_per_second in [MIN_BYTES_PER_SECOND, 64_000, 125_000_000] {
            let (rate, begin) = (Rate::new(bytes_per_second), start());
            let sent = greedy(rate, begin, begin + 20 * SECOND);
            let (mut bucket, mut now, mut passed) = (TokenBucket::default(), begin, 0);
            for (number, (at, bytes)) in sent.iter().enumerate() {
                let arrives = now.max(*at + jitter * (number as u32 % 5) / 4);
                now = bucket.ready_at(*bytes, rate, arrives);
                bucket.take(*bytes, rate, arrives);
                // A piece is paid for at each of them.
                let latest = *at + rate.time_of(*bytes) + 2 * jitter;
                assert!(now <= latest, "{bytes_per_second}: {:?} behind", now - *at);
                passed += bytes;
            }
            assert!(passed + 2 * rate.piece() >= bytes_per_second as usize * 20, "{bytes_per_second}: {passed}");
        }
    }

    #[test]
    fn a_short_message_after_a_pause_goes_at_once_and_a_pause_saves_up_no_more_than_a_burst() {
        let (rate, begin) = (Rate::new(8_000), start());
        let mut bucket = TokenBucket::default();
        let mut ready = |bytes, asked_at| {
            let at = bucket.ready_at(bytes, rate, asked_at);
            bucket.take(bytes, rate, asked_at);
            at
        };
        assert_eq!(ready(2_000, begin), begin, "a quarter of a second's worth");
        assert_eq!(ready(800, begin), begin + SECOND / 10);
        let later = begin + 3600 * SECOND;
        assert_eq!(ready(2_000, later), later);
        assert_eq!(ready(8_000, later), later + SECOND, "an hour saved nothing more");
    }

    #[test]
    fn what_goes_on_before_its_time_is_paid_for_by_what_comes_after_it() {
        let (rate, now) = (Rate::new(1_000), start());
        let mut bucket = TokenBucket::default();
        bucket.take(10_000, rate, now);
        assert_eq!(bucket.ready_at(1_000, rate, now), now + 11 * SECOND - BURST);
    }

    #[test]
    fn what_goes_early_is_little_whoever_asks_and_is_paid_for_before_there_is_more_of_it() {
        for (bytes_per_second, most) in [(1_000, 8_500), (100_000, 126_000)] {
            let (rate, begin) = (Rate::new(bytes_per_second), start());
            let mut bucket = TokenBucket::default();
            let early = |bucket: &mut TokenBucket, now| {
                std::iter::repeat_with(|| bucket.take_early(100, rate, now)).take_while(|goes| *goes).count() * 100
            };
            let at_once = early(&mut bucket, begin);
            assert!((most * 9 / 10..=most).contains(&at_once), "{bytes_per_second}: {at_once}");
            assert!(bucket.ready_at(100, rate, begin) <= begin + 9 * SECOND, "nobody waits for long");
            // Half a minute of nothing but engines that break.
            let later: usize = (1..=30_u32).map(|second| early(&mut bucket, begin + second * SECOND)).sum();
            assert!(later <= 31 * bytes_per_second as usize, "{bytes_per_second}: {later}");
        }
    }

    #[test]
    fn nothing_that_a_policy_may_say_overflows() {
        let mut bucket = TokenBucket::default();
        let now = start();
        for _ in 0..3 {
            assert!(bucket.ready_at(usize::MAX, Rate::new(0), now) >= now);
            bucket.take(usize::MAX, Rate::new(0), now);
            assert!(!bucket.take_early(usize::MAX, Rate::new(0), now));
        }
        let mut silence = ReceiveTimeout::new(Duration::MAX, now);
        silence.handle_bytes(usize::MAX, now);
        assert!(silence.poll_timeout() >= now);
        assert_eq!(Rate::new(u64::MAX).time_of(1), Duration::from_nanos(1));
        assert_eq!((Rate::new(0).piece(), Rate::new(u64::MAX).piece()), (512, 64 << 10));
        assert!(Rate::new(0).round_of(u32::MAX) > Duration::from_secs(1 << 30));
        assert_eq!(Rate::new(1_024).round_of(64), 32 * SECOND);
    }

    #[test]
    fn a_stream_is_silent_for_too_long_after_its_last_byte_in_either_direction_or_the_last_that_waited_for_its_turn() {
        let begin = start();
        let mut silence = ReceiveTimeout::new(10 * SECOND, begin);
        assert_eq!(silence.poll_timeout(), begin + 10 * SECOND);
        assert!(!silence.is_over(begin + 9 * SECOND) && silence.is_over(begin + 10 * SECOND));
        silence.handle_bytes(0, begin + 9 * SECOND);
        assert!(!silence.is_over(begin + 18 * SECOND) && silence.is_over(begin + 19 * SECOND));
        silence.handle_bytes(1_000, begin + 30 * SECOND);
        silence.handle_bytes(0, begin + 20 * SECOND);
        assert_eq!(silence.poll_timeout(), begin + 41 * SECOND, "bytes of the other direction take nothing back");
    }

    #[test]
    fn bytes_handed_on_pass_for_as_long_as_they_take_on_the_slowest_way_and_no_longer_than_a_window_of_them() {
        let begin = start();
        let mut silence = ReceiveTimeout::new(10 * SECOND, begin);
        // A document that a tunnel takes at once, and its line or the engine behind it in minutes.
        for _ in 0..200 {
            silence.handle_bytes(1_000, begin);
        }
        assert!(!silence.is_over(begin + 209 * SECOND) && silence.is_over(begin + 210 * SECOND));
        silence.handle_bytes(1 << 40, begin);
        let window = SLOWEST.time_of(MAX_UNDER_WAY);
        assert_eq!(silence.poll_timeout(), begin + window + 10 * SECOND, "what is older has been passed on");
        assert!(window <= 70 * 60 * SECOND, "{window:?}");
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
