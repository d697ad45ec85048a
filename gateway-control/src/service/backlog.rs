//! How much is compiled at a time, and whose policies come first.
//!
//! Whoever writes holds up all the others, so a transaction compiles a [`Portion`]: so many policies with so many entries in
//! all. What a change leaves behind is marked in its own transaction, and the reconciler takes it portion by portion from the
//! [`Backlog`]; whoever came to write meanwhile goes between two of them. Organizations take turns there, so nobody waits for
//! more than one portion of each of the others, however much they left behind. Policies by which something ends stand in a
//! line of their own, which goes first; every few portions the other one does, so that it moves on whatever ends.
//!
//! What decides is here, without a database: the [`Picking`] says where to look, and is told what was found.

use std::collections::{BTreeSet, VecDeque};

use gateway_proto::id::{OrganizationId, ServerId};

use crate::storage::StaleServerRow;

/// Policies of one portion at most.
pub(super) const POLICIES_AT_ONCE: usize = 50;
/// Entries of all the policies of one portion at most: some 10 ms of work.
pub(super) const ENTRIES_AT_ONCE: u64 = 200;
/// Connections that one transaction changes one by one, each with its entries in the logs of both sides: some 10 ms, too. What a
/// gateway says may concern all that it has.
pub(super) const FOLLOWED_AT_ONCE: u32 = 50;
/// Of so many portions, one begins with those by which nothing ends.
const OTHERS_FIRST: u64 = 4;

/// What is compiled in one transaction.
#[derive(Debug)]
pub(super) struct Portion {
    policies: usize,
    entries: u64,
    /// The first policy goes into it whatever its size: it has to be compiled at some time.
    takes_any_first: bool,
}

impl Portion {
    /// Of a change on behalf of somebody: what is too large is left behind.
    pub(super) fn of_a_change() -> Self {
        Self { policies: 0, entries: 0, takes_any_first: false }
    }

    /// Of what was left behind.
    pub(super) fn of_the_backlog() -> Self {
        Self { takes_any_first: true, ..Self::of_a_change() }
    }

    /// Takes a policy with so many entries, if there is room for it.
    pub(super) fn takes(&mut self, entries: u64) -> bool {
        let fits = self.policies < POLICIES_AT_ONCE && self.entries.saturating_add(entries) <= ENTRIES_AT_ONCE;
        let is_first_of_any = self.takes_any_first && self.policies == 0;
        if !(fits || is_first_of_any) {
            return false;
        }
        self.policies += 1;
        self.entries = self.entries.saturating_add(entries);
        true
    }
}

/// Where the reconciler is among what was left behind.
#[derive(Debug, Default)]
pub struct Backlog {
    /// Whose turn was last: among the others, and among those by which something ends.
    cursors: [Option<OrganizationId>; 2],
    portions: u64,
    /// What could not be compiled in this round.
    failed: BTreeSet<ServerId>,
}

impl Backlog {
    /// What failed is tried again.
    pub fn begin_round(&mut self) {
        self.failed.clear();
    }

    /// This one cannot be compiled now, and shall hold up nobody else.
    pub(super) fn pass_over(&mut self, server: ServerId) {
        self.failed.insert(server);
    }

    /// Picks the next portion.
    pub(super) fn pick(&mut self) -> Picking<'_> {
        self.portions = self.portions.wrapping_add(1);
        let others_first = self.portions.is_multiple_of(OTHERS_FIRST);
        Picking {
            backlog: self,
            portion: Portion::of_the_backlog(),
            lines: VecDeque::from([!others_first, others_first]),
            seen: BTreeSet::new(),
            picked: Vec::new(),
        }
    }
}

/// A portion that is being picked.
#[derive(Debug)]
pub(super) struct Picking<'a> {
    backlog: &'a mut Backlog,
    portion: Portion,
    /// The lines that are still to be looked at; true: that of policies by which something ends.
    lines: VecDeque<bool>,
    /// Who had a turn in the first of them.
    seen: BTreeSet<OrganizationId>,
    picked: Vec<ServerId>,
}

impl Picking<'_> {
    /// What is to be looked for: marked servers of the next organization after this one, in this line. None: it is picked.
    pub(super) fn wants(&self) -> Option<(Option<OrganizationId>, bool)> {
        let ends = *self.lines.front()?;
        Some((self.backlog.cursors[usize::from(ends)], ends))
    }

    /// What was found there, the oldest mark first; none: the line has come to its end.
    pub(super) fn found(&mut self, rows: &[StaleServerRow]) {
        let Some(ends) = self.lines.front().copied() else { return };
        let cursor = &mut self.backlog.cursors[usize::from(ends)];
        let Some(organization) = rows.first().map(|row| row.organization) else {
            // Once more from the start, where those are who came before the first one.
            if cursor.take().is_none() {
                self.next_line();
            }
            return;
        };
        if !self.seen.insert(organization) {
            self.next_line();
            return;
        }
        let before = self.picked.len();
        for row in rows.iter().filter(|row| !self.backlog.failed.contains(&row.server)) {
            if !self.portion.takes(row.entries) {
                // Whoever got nothing is the first of the next portion.
                if self.picked.len() > before {
                    *cursor = Some(organization);
                }
                self.lines.clear();
                return;
            }
            self.picked.push(row.server);
        }
        *cursor = Some(organization);
    }

    /// What was picked.
    pub(super) fn picked(self) -> Vec<ServerId> {
        self.picked
    }

    fn next_line(&mut self) {
        self.lines.pop_front();
        self.seen.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Marked servers in their lines, by organization, the oldest mark first.
    #[derive(Default)]
    struct Marked(BTreeMap<(bool, OrganizationId), Vec<StaleServerRow>>);

    impl Marked {
        fn mark(&mut self, ends: bool, organization: u8, servers: impl IntoIterator<Item = u8>, entries: u64) {
            let organization = OrganizationId::from_bytes([organization; 16]);
            let line = self.0.entry((ends, organization)).or_default();
            let row = |number| StaleServerRow { server: server(number), organization, entries };
            line.extend(servers.into_iter().map(row));
        }

        /// Picks a portion; the marks of what was picked are taken away.
        fn pick(&mut self, backlog: &mut Backlog) -> Vec<ServerId> {
            let mut picking = backlog.pick();
            while let Some((after, ends)) = picking.wants() {
                let next = self.0.iter().find(|((line, organization), rows)| {
                    *line == ends && !rows.is_empty() && after.is_none_or(|after| *organization > after)
                });
                let rows = next.map(|(_, rows)| rows.clone()).unwrap_or_default();
                picking.found(&rows);
            }
            let picked = picking.picked();
            for rows in self.0.values_mut() {
                rows.retain(|row| !picked.contains(&row.server));
            }
            picked
        }
    }

    fn server(number: u8) -> ServerId {
        ServerId::from_bytes([number; 16])
    }

    fn servers(numbers: impl IntoIterator<Item = u8>) -> Vec<ServerId> {
        numbers.into_iter().map(server).collect()
    }

    #[test]
    fn a_change_takes_what_is_small_and_the_backlog_takes_anything_but_one_at_a_time() {
        let mut change = Portion::of_a_change();
        assert!(!change.takes(ENTRIES_AT_ONCE + 1));
        assert!(change.takes(ENTRIES_AT_ONCE - 1) && !change.takes(2) && change.takes(1) && !change.takes(1));
        let mut backlog = Portion::of_the_backlog();
        assert!(backlog.takes(ENTRIES_AT_ONCE * 10) && !backlog.takes(1));
        let mut many = Portion::of_the_backlog();
        assert_eq!((0..100).filter(|_| many.takes(0)).count(), POLICIES_AT_ONCE);
    }

    #[test]
    fn who_left_much_behind_takes_turns_with_who_left_little() {
        let (mut marked, mut backlog) = (Marked::default(), Backlog::default());
        marked.mark(false, 1, 10..20, ENTRIES_AT_ONCE);
        marked.mark(false, 2, [20], 1);
        marked.mark(false, 3, [30, 31], ENTRIES_AT_ONCE);
        let portions: Vec<_> = (0..4).map(|_| marked.pick(&mut backlog)).collect();
        assert_eq!(portions, [servers([10]), servers([20]), servers([30]), servers([11])], "each in turn");
    }

    #[test]
    fn small_ones_of_many_go_together() {
        let (mut marked, mut backlog) = (Marked::default(), Backlog::default());
        for organization in 1..=9 {
            marked.mark(false, organization, [organization * 2, organization * 2 + 1], 5);
        }
        assert_eq!(marked.pick(&mut backlog), servers(2..20));
        assert!(marked.pick(&mut backlog).is_empty());
    }

    #[test]
    fn what_ends_something_goes_first_and_holds_up_the_rest_for_a_while_only() {
        let (mut marked, mut backlog) = (Marked::default(), Backlog::default());
        marked.mark(false, 1, [1], ENTRIES_AT_ONCE);
        marked.mark(true, 2, 20..30, ENTRIES_AT_ONCE);
        marked.mark(true, 3, [30], 10);
        let portions: Vec<_> = (0..4).map(|_| marked.pick(&mut backlog)).collect();
        assert_eq!(portions, [servers([20]), servers([30]), servers([21]), servers([1])]);
    }

    #[test]
    fn what_cannot_be_compiled_is_passed_over_until_the_next_round() {
        let (mut marked, mut backlog) = (Marked::default(), Backlog::default());
        marked.mark(true, 1, [1, 2], 10);
        backlog.pass_over(server(1));
        assert_eq!(marked.pick(&mut backlog), servers([2]));
        assert!(marked.pick(&mut backlog).is_empty(), "a round comes to its end");
        backlog.begin_round();
        assert_eq!(marked.pick(&mut backlog), servers([1]));
    }
}
