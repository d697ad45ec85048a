//! What waits to be written, organization by organization: each in turn, and its own in the order of coming.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gateway_proto::id::OrganizationId;

/// The lanes, and whose turn it is. As long as there is something that waits, and no longer.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    lanes: BTreeMap<OrganizationId, VecDeque<T>>,
    /// Those that have a lane, once each; the first is the next.
    order: VecDeque<OrganizationId>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { lanes: BTreeMap::new(), order: VecDeque::new() }
    }
}

impl<T> Waiting<T> {
    /// Something comes.
    pub(super) fn put(&mut self, whose: OrganizationId, what: T) {
        self.lane(whose).push_back(what);
    }

    /// How much of one organization waits.
    pub(super) fn count_of(&self, whose: OrganizationId) -> usize {
        self.lanes.get(&whose).map_or(0, VecDeque::len)
    }

    /// Takes so much at most: of each organization one, and then of each another one.
    pub(super) fn take(&mut self, count: usize) -> Vec<(OrganizationId, T)> {
        let mut taken = Vec::new();
        while taken.len() < count
            && let Some(whose) = self.order.pop_front()
        {
            let Some(lane) = self.lanes.get_mut(&whose) else { continue };
            taken.extend(lane.pop_front().map(|what| (whose, what)));
            if lane.is_empty() {
                self.lanes.remove(&whose);
            } else {
                self.order.push_back(whose);
            }
        }
        taken
    }

    /// Puts back what was taken last and has not had its turn: it comes first, in the same order.
    pub(super) fn put_back(&mut self, rest: Vec<(OrganizationId, T)>) {
        let mut seen = BTreeSet::new();
        let first: Vec<_> = rest.iter().map(|(whose, _)| *whose).filter(|whose| seen.insert(*whose)).collect();
        for (whose, what) in rest.into_iter().rev() {
            self.lanes.entry(whose).or_default().push_front(what);
        }
        self.order.retain(|whose| !seen.contains(whose));
        for whose in first.into_iter().rev() {
            self.order.push_front(whose);
        }
    }

    /// Puts back what has had its turn and is not done: it is the next of its organization, when the others had theirs.
    pub(super) fn goes_on(&mut self, whose: OrganizationId, what: T) {
        self.lane(whose).push_front(what);
    }

    fn lane(&mut self, whose: OrganizationId) -> &mut VecDeque<T> {
        self.lanes.entry(whose).or_insert_with(|| {
            self.order.push_back(whose);
            VecDeque::with_capacity(1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn organization(number: u8) -> OrganizationId {
        OrganizationId::from_bytes([number; 16])
    }

    /// One with five, two with one and two.
    fn waiting() -> Waiting<u8> {
        let mut waiting = Waiting::default();
        for (whose, what) in [(1, 10), (1, 11), (1, 12), (1, 13), (1, 14), (2, 20), (3, 30), (3, 31)] {
            waiting.put(organization(whose), what);
        }
        waiting
    }

    fn taken(waiting: &mut Waiting<u8>, count: usize) -> Vec<u8> {
        waiting.take(count).into_iter().map(|(_, what)| what).collect()
    }

    #[test]
    fn whoever_has_much_waits_for_itself_and_each_has_its_own_order() {
        let mut waiting = waiting();
        assert_eq!(taken(&mut waiting, 4), [10, 20, 30, 11]);
        waiting.put(organization(2), 21);
        assert_eq!(waiting.count_of(organization(1)), 3);
        assert_eq!(taken(&mut waiting, 9), [31, 12, 21, 13, 14]);
        assert!(waiting.lanes.is_empty() && waiting.order.is_empty(), "nothing is kept of who has nothing");
    }

    #[test]
    fn what_had_no_turn_comes_first_again_and_what_goes_on_comes_after_the_others() {
        let mut waiting = waiting();
        let mut some = waiting.take(4);
        let rest = some.split_off(1);
        waiting.put_back(rest);
        for (whose, what) in some {
            waiting.goes_on(whose, what);
        }
        assert_eq!(taken(&mut waiting, 9), [20, 30, 10, 31, 11, 12, 13, 14]);
        assert!(waiting.order.is_empty());
        waiting.goes_on(organization(1), 15);
        assert_eq!(taken(&mut waiting, 1), [15]);
    }
}
