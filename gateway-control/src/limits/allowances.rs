//! How often each may do something that may come to nothing, and who is known well enough not to stand in line with strangers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How often each key may: some at once, then one in a while. One is taken before it is known what becomes of it, so that many at a
/// time are counted like one after the other, and given back when it shall not count. With more keys than there is room for, and none
/// of them at rest, the new ones share one allowance.
#[derive(Debug)]
pub struct Allowances<K> {
    /// When each has all of its own again; none: those that share.
    rested_at: Mutex<BTreeMap<Option<K>, Instant>>,
    at_once: u32,
    each: Duration,
    capacity: usize,
}

impl<K: Ord + Clone> Allowances<K> {
    /// So many at once, then one after each of these times, for at most `capacity` keys.
    pub fn new(at_once: u32, each: Duration, capacity: usize) -> Self {
        Self { rested_at: Mutex::default(), at_once, each, capacity }
    }

    /// Takes one, or tells how long to wait for it.
    pub fn take(&self, key: &K, now: Instant) -> Result<(), Duration> {
        let mut rested_at = self.rested_at.lock().unwrap_or_else(PoisonError::into_inner);
        if rested_at.len() >= self.capacity {
            rested_at.retain(|_, at| *at > now);
        }
        let key = Some(key.clone());
        let has_room = rested_at.contains_key(&key) || rested_at.len() < self.capacity;
        let at = rested_at.entry(key.filter(|_| has_room)).or_insert(now);
        let from = (*at).max(now);
        let latest = now + self.each * self.at_once.saturating_sub(1);
        if from > latest {
            return Err(from - latest);
        }
        *at = from + self.each;
        Ok(())
    }

    /// Gives back the one that was taken last.
    pub fn give_back(&self, key: &K) {
        let mut rested_at = self.rested_at.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Some(key.clone());
        let key = if rested_at.contains_key(&key) { key } else { None };
        if let Some(at) = rested_at.get_mut(&key) {
            *at = at.checked_sub(self.each).unwrap_or(*at);
        }
    }

    /// Takes one for something that may not be done in the end, or tells how long to wait for it.
    pub fn lend(self: &Arc<Self>, key: &K, now: Instant) -> Result<Lent<K>, Duration> {
        self.take(key, now)?;
        Ok(Lent { from: self.clone(), key: Some(key.clone()) })
    }
}

/// One that was taken for something that is not done yet: given back when it is dropped before that.
#[derive(Debug)]
pub struct Lent<K: Ord + Clone> {
    from: Arc<Allowances<K>>,
    /// None: it was used.
    key: Option<K>,
}

impl<K: Ord + Clone> Lent<K> {
    /// It is done, and counts.
    pub fn used(mut self) {
        self.key = None;
    }
}

impl<K: Ord + Clone> Drop for Lent<K> {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            self.from.give_back(key);
        }
    }
}

/// The last ones that were noted; the one that was not for the longest time goes for a new one.
#[derive(Debug)]
pub struct Recent<K> {
    noted: Mutex<Noted<K>>,
    capacity: usize,
}

#[derive(Debug)]
struct Noted<K> {
    numbers: BTreeMap<K, u64>,
    by_number: BTreeMap<u64, K>,
    last: u64,
}

impl<K: Ord + Clone> Recent<K> {
    /// Room for so many.
    pub fn new(capacity: usize) -> Self {
        let noted = Noted { numbers: BTreeMap::new(), by_number: BTreeMap::new(), last: 0 };
        Self { noted: Mutex::new(noted), capacity }
    }

    /// Notes one, once more or for the first time.
    pub fn note(&self, key: K) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = &mut *noted;
        noted.last += 1;
        if let Some(before) = noted.numbers.insert(key.clone(), noted.last) {
            noted.by_number.remove(&before);
        }
        noted.by_number.insert(noted.last, key);
        if noted.by_number.len() > self.capacity
            && let Some((_, oldest)) = noted.by_number.pop_first()
        {
            noted.numbers.remove(&oldest);
        }
    }

    /// Whether it is among them.
    pub fn has(&self, key: &K) -> bool {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).numbers.contains_key(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EACH: Duration = Duration::from_secs(360);

    #[test]
    fn wrong_guesses_have_an_end_right_ones_cost_nothing_and_one_key_is_not_another() {
        let (guesses, now) = (Allowances::new(3, EACH, 10), Instant::now());
        for _ in 0..20 {
            assert_eq!(guesses.take(&1, now), Ok(()));
            guesses.give_back(&1);
        }
        assert_eq!([0; 4].map(|_| guesses.take(&1, now)), [Ok(()), Ok(()), Ok(()), Err(EACH)]);
        assert_eq!(guesses.take(&1, now + EACH / 2), Err(EACH / 2), "asking costs nothing");
        assert_eq!(guesses.take(&2, now), Ok(()));
        let later = now + EACH;
        assert_eq!([0; 2].map(|_| guesses.take(&1, later)), [Ok(()), Err(EACH)]);
        assert_eq!([0; 4].map(|_| guesses.take(&1, later + 10 * EACH)), [Ok(()), Ok(()), Ok(()), Err(EACH)]);
    }

    #[test]
    fn a_flood_of_keys_shares_what_is_left_and_those_at_rest_make_room() {
        let (guesses, now) = (Allowances::new(2, EACH, 2), Instant::now());
        assert!(guesses.take(&1, now).is_ok() && guesses.take(&2, now).is_ok());
        let granted = (3..20).filter(|key| guesses.take(key, now).is_ok()).count();
        assert_eq!(granted, 2, "seventeen share one allowance");
        assert!(guesses.take(&1, now).is_ok(), "who was known has its own");
        assert_eq!([0; 3].map(|_| guesses.take(&3, now + 10 * EACH)), [Ok(()), Ok(()), Err(EACH)]);
    }

    #[test]
    fn what_is_not_done_in_the_end_costs_nothing() {
        let (allowances, now) = (Arc::new(Allowances::new(2, EACH, 10)), Instant::now());
        for _ in 0..20 {
            assert!(allowances.lend(&1, now).is_ok());
        }
        let under_way = allowances.lend(&1, now).unwrap();
        allowances.lend(&1, now).unwrap().used();
        assert_eq!(allowances.lend(&1, now).unwrap_err(), EACH, "one is done, and one may be");
        drop(under_way);
        allowances.lend(&1, now).unwrap().used();
        assert!(allowances.lend(&1, now).is_err());
    }

    #[test]
    fn the_one_that_was_not_noted_for_the_longest_time_goes() {
        let recent = Recent::new(2);
        for key in [1, 2, 1, 3] {
            recent.note(key);
        }
        assert_eq!([1, 2, 3].map(|key| recent.has(&key)), [true, false, true]);
    }
}
