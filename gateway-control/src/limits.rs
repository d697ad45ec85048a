//! What keeps strangers and busy clients in bounds: rate limits per key and the memory of used nonces.

mod allowances;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    hash::Hash,
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::Duration,
};

pub use self::allowances::{Allowances, Lent, Recent};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    state::keyed::HashMapStateStore,
};

/// A rate limit per key with a bounded table. When the table is full even without the keys that are at rest, the new
/// keys share one allowance: a flood of addresses slows strangers down, not the ones already known.
pub struct KeyedLimiter<K: Hash + Eq + Clone> {
    limiter: RateLimiter<Option<K>, HashMapStateStore<Option<K>>, DefaultClock>,
    known: Mutex<HashMap<K, ()>>,
    capacity: usize,
}

impl<K: Hash + Eq + Clone> KeyedLimiter<K> {
    /// So many at once, refilled with so many per `period`, for at most `capacity` keys.
    pub fn new(per_period: NonZeroU32, period: Duration, burst: NonZeroU32, capacity: usize) -> Self {
        let each = period / per_period.get();
        let quota = Quota::with_period(each.max(Duration::from_nanos(1)))
            .expect("invariant: the period is at least a nanosecond")
            .allow_burst(burst);
        Self {
            limiter: RateLimiter::hashmap_with_clock(quota, DefaultClock::default()),
            known: Mutex::default(),
            capacity,
        }
    }

    /// Takes one from the key's allowance, or tells how long to wait.
    pub fn check(&self, key: &K) -> Result<(), Duration> {
        let key = self.admit(key).then(|| key.clone());
        self.limiter.check_key(&key).map_err(|not_until| not_until.wait_time_from(DefaultClock::default().now()))
    }

    /// Whether the key has, or gets, a place of its own in the table.
    fn admit(&self, key: &K) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains_key(key) {
            return true;
        }
        if known.len() >= self.capacity {
            // The limiter forgets the keys that are at rest; start over with those that are left unknown too.
            self.limiter.retain_recent();
            if self.limiter.len() >= self.capacity {
                return false;
            }
            known.clear();
        }
        known.insert(key.clone(), ());
        true
    }
}

impl<K: Hash + Eq + Clone> fmt::Debug for KeyedLimiter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedLimiter").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

/// Why a nonce was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NonceRefusal {
    /// It was used before.
    Replayed,
    /// The memory is full; accepting it would open the door to replays.
    Full,
}

/// The nonces used within their time of validity. Full, it refuses: forgetting one early would allow its replay.
#[derive(Debug)]
pub struct Nonces {
    inner: Mutex<NonceTable>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct NonceTable {
    used: BTreeMap<[u8; 32], u64>,
    order: VecDeque<(u64, [u8; 32])>,
}

impl Nonces {
    /// Room for so many.
    pub fn new(capacity: usize) -> Self {
        Self { inner: Mutex::default(), capacity }
    }

    /// Accepts a nonce (its hash) once until `end`. Entries leave in the order they came; `end` must be about the same
    /// distance from `now` in all calls.
    pub fn accept(&self, nonce: [u8; 32], end: u64, now: u64) -> Result<(), NonceRefusal> {
        let mut table = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((end, oldest)) = table.order.front().copied()
            && end < now
        {
            table.order.pop_front();
            table.used.remove(&oldest);
        }
        if table.used.contains_key(&nonce) {
            return Err(NonceRefusal::Replayed);
        }
        if table.used.len() >= self.capacity {
            return Err(NonceRefusal::Full);
        }
        table.used.insert(nonce, end);
        table.order.push_back((end, nonce));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_accepted_once_until_its_end() {
        let nonces = Nonces::new(2);
        assert_eq!(nonces.accept([1; 32], 100, 10), Ok(()));
        assert_eq!(nonces.accept([1; 32], 100, 100), Err(NonceRefusal::Replayed));
        assert_eq!(nonces.accept([1; 32], 200, 101), Ok(()));
    }

    #[test]
    fn a_full_memory_of_nonces_refuses_rather_than_forgets() {
        let nonces = Nonces::new(1);
        assert_eq!(nonces.accept([1; 32], 100, 10), Ok(()));
        assert_eq!(nonces.accept([2; 32], 100, 10), Err(NonceRefusal::Full));
        assert_eq!(nonces.accept([1; 32], 100, 10), Err(NonceRefusal::Replayed));
    }

    #[test]
    fn a_flood_of_keys_does_not_grow_the_table_and_does_not_harm_known_ones() {
        let one = NonZeroU32::MIN;
        let limiter = KeyedLimiter::new(one, Duration::from_secs(60), NonZeroU32::new(3).unwrap(), 2);
        assert!(limiter.check(&1).is_ok());
        assert!(limiter.check(&2).is_ok());
        let refused = (3..20).filter(|key| limiter.check(key).is_err()).count();
        assert_eq!(refused, 14, "seventeen strangers share one allowance of three");
        assert!(limiter.check(&1).is_ok());
        assert!(limiter.limiter.len() <= 3);
    }
}
