//! Who is at work and who waits, lane by lane. Knows neither time nor tasks.

use std::collections::{BTreeMap, VecDeque};

/// How many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Of one lane at once.
    pub at_once: usize,
    /// Of one lane that wait.
    pub waiting: usize,
    /// Of all lanes that wait.
    pub waiting_in_all: usize,
}

/// What comes of asking for a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// It has one.
    Now,
    /// It waits, under this number.
    Waits(u64),
    /// Too many of its lane wait already.
    Full,
    /// Too many of all lanes wait already.
    Busy,
}

/// Those of one lane that are at work, and the numbers of those that wait, in their order.
#[derive(Debug, Default)]
struct Lane {
    at_work: usize,
    waiting: VecDeque<u64>,
}

/// The lanes of all that have something at work.
#[derive(Debug)]
pub(super) struct Lanes<K> {
    bounds: Bounds,
    lanes: BTreeMap<K, Lane>,
    pub(super) at_work: usize,
    pub(super) waiting: usize,
    numbers: u64,
}

impl<K: Ord + Copy> Lanes<K> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, lanes: BTreeMap::new(), at_work: 0, waiting: 0, numbers: 0 }
    }

    /// Somebody comes.
    pub(super) fn ask(&mut self, whose: K) -> Asked {
        let lane = self.lanes.entry(whose).or_default();
        if lane.at_work < self.bounds.at_once {
            lane.at_work += 1;
            self.at_work += 1;
            return Asked::Now;
        }
        if lane.waiting.len() >= self.bounds.waiting {
            return Asked::Full;
        }
        if self.waiting >= self.bounds.waiting_in_all {
            return Asked::Busy;
        }
        self.numbers += 1;
        self.waiting += 1;
        lane.waiting.push_back(self.numbers);
        Asked::Waits(self.numbers)
    }

    /// Somebody who waits goes; false: it has been called already.
    pub(super) fn give_up(&mut self, whose: K, number: u64) -> bool {
        let Some(lane) = self.lanes.get_mut(&whose) else { return false };
        let Some(place) = lane.waiting.iter().position(|waits| *waits == number) else { return false };
        lane.waiting.remove(place);
        self.waiting -= 1;
        true
    }

    /// Somebody who was at work is done; whose turn it is now.
    pub(super) fn leave(&mut self, whose: K) -> Option<u64> {
        let lane = self.lanes.get_mut(&whose)?;
        let next = lane.waiting.pop_front();
        if next.is_some() {
            self.waiting -= 1;
            return next;
        }
        lane.at_work -= 1;
        self.at_work -= 1;
        if lane.at_work == 0 {
            self.lanes.remove(&whose);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use gateway_proto::id::OrganizationId;

    use super::*;

    const ONE: Bounds = Bounds { at_once: 1, waiting: 40, waiting_in_all: 50 };

    fn organization(number: u8) -> OrganizationId {
        OrganizationId::from_bytes([number; 16])
    }

    #[test]
    fn of_each_organization_one_is_at_work_and_its_others_wait_in_their_order() {
        let mut lanes = Lanes::new(ONE);
        let (flood, other) = (organization(1), organization(2));
        assert_eq!(lanes.ask(flood), Asked::Now);
        let waiting: Vec<_> = (0..40).map(|_| lanes.ask(flood)).collect();
        assert_eq!(lanes.ask(flood), Asked::Full);
        assert_eq!(lanes.ask(other), Asked::Now, "whoever floods waits for itself");
        assert_eq!(waiting, (1..=40).map(Asked::Waits).collect::<Vec<_>>());
        assert!(lanes.give_up(flood, 2) && !lanes.give_up(flood, 2));
        assert_eq!((lanes.leave(flood), lanes.leave(flood)), (Some(1), Some(3)));
        assert!(!lanes.give_up(flood, 3), "it was called");
        assert_eq!((lanes.leave(other), lanes.at_work, lanes.waiting), (None, 1, 37));
    }

    #[test]
    fn the_table_is_as_long_as_there_is_work_and_has_an_end() {
        let mut lanes = Lanes::new(ONE);
        let mut waiting = 0;
        for number in 0..=255 {
            for _ in 0..3 {
                let asked = lanes.ask(organization(number));
                waiting += usize::from(matches!(asked, Asked::Waits(_)));
                assert_ne!(asked, Asked::Full, "nobody has too many of its own");
            }
        }
        assert_eq!((waiting, lanes.waiting, lanes.at_work), (50, 50, 256));
        for number in 0..=255 {
            while lanes.lanes.contains_key(&organization(number)) {
                lanes.leave(organization(number));
            }
        }
        assert_eq!((lanes.lanes.len(), lanes.waiting, lanes.at_work), (0, 0, 0));
        assert_eq!(lanes.leave(organization(1)), None);
    }
}
