//! Which probe counters were seen.

/// A sliding window over the counters of one direction (the ring of RFC 6479).
///
/// `WORDS` sets how many counters back are told apart: 64 for each word but one. For probes the contract asks for 64; a burst to 30
/// addresses over paths of very different latency overtakes itself by more than that, so they keep more.
#[derive(Debug, Clone)]
pub(crate) struct ReplayWindow<const WORDS: usize = 8> {
    /// One more than the highest counter seen.
    next: u64,
    seen: [u64; WORDS],
}

impl<const WORDS: usize> Default for ReplayWindow<WORDS> {
    fn default() -> Self {
        Self { next: 0, seen: [0; WORDS] }
    }
}

impl<const WORDS: usize> ReplayWindow<WORDS> {
    const WINDOW: u64 = (WORDS as u64 - 1) * 64;

    /// Whether the counter was not seen yet and is not too old to tell.
    pub(crate) fn is_new(&self, counter: u64) -> bool {
        // The last counter is never used by an honest sender, and would overflow `next`.
        if counter == u64::MAX || counter.saturating_add(Self::WINDOW) < self.next {
            return false;
        }
        counter >= self.next || self.seen[Self::word(counter)] & bit(counter) == 0
    }

    /// Marks an authentic counter; only after [`Self::is_new`].
    pub(crate) fn mark(&mut self, counter: u64) {
        if counter >= self.next {
            let from = self.next.div_ceil(64);
            let to = counter / 64;
            for passed in (from..=to).take(WORDS) {
                // With a jump beyond the whole ring every word is cleared, whichever comes first.
                self.seen[(passed % WORDS as u64) as usize] = 0;
            }
            self.next = counter + 1;
        }
        self.seen[Self::word(counter)] |= bit(counter);
    }

    fn word(counter: u64) -> usize {
        (counter / 64 % WORDS as u64) as usize
    }
}

fn bit(counter: u64) -> u64 {
    1 << (counter % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn offer(window: &mut ReplayWindow<8>, counter: u64) -> bool {
        let new = window.is_new(counter);
        if new {
            window.mark(counter);
        }
        new
    }

    #[test]
    fn every_counter_is_taken_once_in_any_order() {
        let mut window = ReplayWindow::<8>::default();
        for counter in [0, 5, 3, 64, 63, 200, 1_000_000] {
            assert!(offer(&mut window, counter), "{counter}");
            assert!(!offer(&mut window, counter), "{counter} again");
        }
        assert!(!offer(&mut window, 201), "too old to tell");
        assert!(offer(&mut window, 1_000_000 - 64), "64 back is always told apart");
        assert!(!offer(&mut window, u64::MAX));
    }

    proptest! {
        #[test]
        fn no_counter_is_ever_taken_twice_and_recent_ones_are_taken(steps in prop::collection::vec(0_u64..700, 1..300)) {
            let (mut window, mut taken, mut base) = (ReplayWindow::<8>::default(), BTreeSet::new(), 0_u64);
            for (index, step) in steps.into_iter().enumerate() {
                base += step / 7 * (index as u64 % 3);
                let counter = base.saturating_sub(step % 90);
                let highest = taken.last().copied().unwrap_or(0_u64);
                let new = offer(&mut window, counter);
                prop_assert!(!(new && taken.contains(&counter)));
                prop_assert!(new || taken.contains(&counter) || counter + 64 < highest);
                taken.insert(counter);
            }
        }
    }
}
