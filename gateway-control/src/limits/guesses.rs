//! Guesses at something short: how many there may be, and who is known well enough not to stand in line with strangers.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How many guesses each key has: some at once, then one in a while. A guess is taken before it is looked at, so that many at a time
/// are counted like one after the other, and given back when it was right. With more keys than there is room for, and none of them
/// at rest, the new ones share one allowance.
#[derive(Debug)]
pub struct Guesses<K> {
    /// When each has all its guesses again; none: those that share.
    rested_at: Mutex<BTreeMap<Option<K>, Instant>>,
    at_once: u32,
    each: Duration,
    capacity: usize,
}

impl<K: Ord + Clone> Guesses<K> {
    /// So many at once, then one after each of these times, for at most `capacity` keys.
    pub fn new(at_once: u32, each: Duration, capacity: usize) -> Self {
        Self { rested_at: Mutex::default(), at_once, each, capacity }
    }

    /// Takes a guess, or tells how long to wait for one.
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

    /// Gives back the guess that was taken last: it was right.
    pub fn give_back(&self, key: &K) {
        let mut rested_at = self.rested_at.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Some(key.clone());
        let key = if rested_at.contains_key(&key) { key } else { None };
        if let Some(at) = rested_at.get_mut(&key) {
            *at = at.checked_sub(self.each).unwrap_or(*at);
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
        let (guesses, now) = (Guesses::new(3, EACH, 10), Instant::now());
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
        let (guesses, now) = (Guesses::new(2, EACH, 2), Instant::now());
        assert!(guesses.take(&1, now).is_ok() && guesses.take(&2, now).is_ok());
        let granted = (3..20).filter(|key| guesses.take(key, now).is_ok()).count();
        assert_eq!(granted, 2, "seventeen share one allowance");
        assert!(guesses.take(&1, now).is_ok(), "who was known has its own");
        assert_eq!([0; 3].map(|_| guesses.take(&3, now + 10 * EACH)), [Ok(()), Ok(()), Err(EACH)]);
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
