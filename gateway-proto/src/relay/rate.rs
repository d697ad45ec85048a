//! Rate limits with time as an argument: a token bucket, and a bounded table of them per source address.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU64,
    time::{Duration, Instant},
};

/// A bucket that fills with `per_second` tokens up to `burst` and lets through what it has tokens for.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    per_second: NonZeroU64,
    /// Both in billionths of a token, so that no rate is too slow to add up.
    capacity: u128,
    level: u128,
    updated_at: Instant,
}

const NANOS: u128 = 1_000_000_000;

impl TokenBucket {
    /// A full bucket.
    pub fn new(per_second: NonZeroU64, burst: NonZeroU64, now: Instant) -> Self {
        let capacity = u128::from(burst.get()) * NANOS;
        Self { per_second, capacity, level: capacity, updated_at: now }
    }

    /// Takes `amount` tokens, or none and says how long until they are there. More than the burst is never there;
    /// the time told is then that of a full bucket.
    pub fn take(&mut self, amount: u64, now: Instant) -> Result<(), Duration> {
        self.refill(now);
        let wanted = u128::from(amount) * NANOS;
        if let Some(rest) = self.level.checked_sub(wanted) {
            self.level = rest;
            return Ok(());
        }
        let missing = wanted.min(self.capacity) - self.level.min(wanted.min(self.capacity));
        let nanos = missing.div_ceil(u128::from(self.per_second.get()));
        Err(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// Whether the bucket is full: a source seen this way can be forgotten without giving it anything.
    pub fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.level == self.capacity
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.updated_at).as_nanos();
        let added = elapsed.saturating_mul(u128::from(self.per_second.get()));
        self.level = self.level.saturating_add(added).min(self.capacity);
        self.updated_at = self.updated_at.max(now);
    }
}

/// A rate limit per source address with a bounded table.
///
/// IPv6 sources are counted by their /64, which is what one customer gets. When the table is full, sources with full buckets are
/// forgotten; if there are none, newcomers are refused until there are: those already served are not thrown out by a flood of
/// forged addresses.
#[derive(Debug)]
pub struct SourceLimiter {
    per_second: NonZeroU64,
    burst: NonZeroU64,
    capacity: usize,
    sources: BTreeMap<IpAddr, TokenBucket>,
    swept_at: Option<Instant>,
}

/// A sweep looks at the whole table: not for every packet of a flood.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl SourceLimiter {
    /// An empty table for at most `capacity` sources.
    pub fn new(per_second: NonZeroU64, burst: NonZeroU64, capacity: usize) -> Self {
        Self { per_second, burst, capacity, sources: BTreeMap::new(), swept_at: None }
    }

    /// Whether one more packet of `source` may be answered.
    pub fn allow(&mut self, source: IpAddr, now: Instant) -> bool {
        let source = aggregate(source);
        if let Some(bucket) = self.sources.get_mut(&source) {
            return bucket.take(1, now).is_ok();
        }
        if self.sources.len() >= self.capacity && !self.sweep(now) {
            return false;
        }
        let mut bucket = TokenBucket::new(self.per_second, self.burst, now);
        let allowed = bucket.take(1, now).is_ok();
        self.sources.insert(source, bucket);
        allowed
    }

    /// How many sources are remembered.
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    /// Whether no source is remembered.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Forgets sources with full buckets; true if there is room now.
    fn sweep(&mut self, now: Instant) -> bool {
        let due = self.swept_at.is_none_or(|at| now.saturating_duration_since(at) >= SWEEP_INTERVAL);
        if due {
            self.swept_at = Some(now);
            self.sources.retain(|_, bucket| !bucket.is_full(now));
        }
        self.sources.len() < self.capacity
    }
}

/// What limits count by: an IPv4 address, or the /64 of an IPv6 address, which one customer has whole.
pub fn aggregate(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => {
            let mut segments = ip.segments();
            segments[4..].fill(0);
            IpAddr::V6(Ipv6Addr::from(segments))
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
    use super::*;

    fn number(value: u64) -> NonZeroU64 {
        NonZeroU64::new(value).unwrap()
    }

    #[test]
    fn a_bucket_lets_the_burst_through_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(number(10), number(5), start);
        assert_eq!(bucket.take(5, start), Ok(()));
        assert_eq!(bucket.take(1, start), Err(Duration::from_millis(100)));
        assert!(bucket.take(1, start + Duration::from_millis(99)).is_err());
        assert_eq!(bucket.take(1, start + Duration::from_millis(100)), Ok(()));
        assert!(bucket.is_full(start + Duration::from_secs(1)));
    }

    #[test]
    fn tiny_steps_add_up_and_time_that_goes_back_gives_nothing() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut bucket = TokenBucket::new(number(1), number(1), start);
        assert_eq!(bucket.take(1, start), Ok(()));
        for step in 1..1000 {
            assert!(bucket.take(1, start + Duration::from_millis(step)).is_err());
        }
        assert!(bucket.take(1, start - Duration::from_secs(5)).is_err());
        assert_eq!(bucket.take(1, start + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn more_than_the_burst_never_passes() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(number(10), number(5), start);
        assert_eq!(bucket.take(u64::MAX, start), Err(Duration::ZERO));
        assert!(bucket.take(6, start + Duration::from_secs(3600)).is_err());
    }

    #[test]
    fn one_source_does_not_use_up_another_ones_share() {
        let start = Instant::now();
        let mut limiter = SourceLimiter::new(number(1), number(2), 8);
        let (one, two) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        assert_eq!(
            [limiter.allow(one, start), limiter.allow(one, start), limiter.allow(one, start)],
            [true, true, false]
        );
        assert!(limiter.allow(two, start));
    }

    #[test]
    fn a_flood_of_forged_sources_is_bounded_and_keeps_nobody_out_for_long() {
        let start = Instant::now();
        let mut limiter = SourceLimiter::new(number(1), number(1), 100);
        let known = IpAddr::from([192, 0, 2, 1]);
        assert!(limiter.allow(known, start));
        for forged in 0..10_000_u32 {
            limiter.allow(IpAddr::from((0x0a00_0000 + forged).to_be_bytes()), start);
        }
        assert_eq!(limiter.len(), 100);
        let later = start + Duration::from_secs(2);
        assert!(limiter.allow(known, later));
        assert!(limiter.allow("198.51.100.1".parse().unwrap(), later), "full buckets are forgotten to make room");
    }

    #[test]
    fn an_ipv6_customer_is_one_source_and_a_mapped_address_is_its_ipv4() {
        let start = Instant::now();
        let mut limiter = SourceLimiter::new(number(1), number(1), 8);
        assert!(limiter.allow("2001:db8::1".parse().unwrap(), start));
        assert!(!limiter.allow("2001:db8::ffff:1".parse().unwrap(), start));
        assert!(limiter.allow("192.0.2.1".parse().unwrap(), start));
        assert!(!limiter.allow("::ffff:192.0.2.1".parse().unwrap(), start));
    }
}
