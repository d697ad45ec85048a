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
    for (bytes_per_second, most) in [(1_000, 8_200), (100_000, 100_000)] {
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
        assert!(later <= 31 * bytes_per_second as usize / 2, "{bytes_per_second}: {later}");
    }
}

#[test]
fn those_that_wait_in_turn_get_half_the_rate_however_many_engines_break() {
    for bytes_per_second in [1_000, 3_000, 100_000] {
        let (rate, begin) = (Rate::new(bytes_per_second), start());
        let (mut bucket, mut asked_at, mut in_turn, mut early) = (TokenBucket::default(), begin, 0, 0);
        for step in 0..8_000_u32 {
            let now = begin + SECOND / 100 * step;
            while bucket.take_early(16, rate, now) {
                early += 16;
            }
            if bucket.ready_at(rate.piece(), rate, asked_at) <= now {
                bucket.take(rate.piece(), rate, asked_at);
                (asked_at, in_turn) = (now, in_turn + rate.piece());
            }
        }
        // Less what went early once at the beginning, and what a step of this clock costs.
        assert!(in_turn >= 28 * bytes_per_second as usize, "{bytes_per_second}: {in_turn}");
        let all = 81 * bytes_per_second as usize + 8_192;
        assert!(in_turn + early <= all, "{bytes_per_second}: {in_turn} and {early}");
    }
}

#[test]
fn a_wait_at_the_partners_gateway_is_a_round_behind_what_went_early_and_idle_streams_make_it_no_longer_than_a_minute() {
    assert_eq!(Rate::new(1_024).far_wait(64), 40 * SECOND);
    assert_eq!(Rate::new(1_000_000).far_wait(0), SECOND);
    assert_eq!(Rate::new(1_000).far_wait(10_000), 60 * SECOND);
    assert_eq!(Rate::new(0).far_wait(u32::MAX), 60 * SECOND);
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

fn is_over(silence: &ReceiveTimeout, now: Instant) -> bool {
    now >= silence.poll_timeout()
}

#[test]
fn a_stream_is_silent_for_too_long_after_its_last_byte_in_either_direction_or_the_last_that_waited_for_its_turn() {
    let begin = start();
    let mut silence = ReceiveTimeout::new(10 * SECOND, begin);
    assert_eq!(silence.poll_timeout(), begin + 10 * SECOND);
    assert!(!is_over(&silence, begin + 9 * SECOND) && is_over(&silence, begin + 10 * SECOND));
    silence.handle_bytes(0, begin + 9 * SECOND);
    assert!(!is_over(&silence, begin + 18 * SECOND) && is_over(&silence, begin + 19 * SECOND));
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
    assert!(!is_over(&silence, begin + 209 * SECOND) && is_over(&silence, begin + 210 * SECOND));
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
