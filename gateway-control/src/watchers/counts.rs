//! What gateways counted on their connections and nobody has entered yet.
//!
//! It stays until it is entered, whatever becomes of the watch that told it, and what was told while a round of the delivery proof
//! was under way is for the next one. To enter something twice, late or in another order does no harm ([`Tally`]), so nothing is
//! taken away before it is durable.
//!
//! [`Tally`]: gateway_proto::balance::Tally

use std::collections::BTreeMap;

use gateway_proto::{
    balance::EndCounts,
    id::{ConnectionId, ServerId},
};

/// Connections at most. A round takes them all; what finds no room comes with the next message that is counted there.
const MOST: usize = 250_000;
/// So often the gateways of one connection may begin anew between two rounds; the oldest runs go.
const RUNS: usize = 16;

/// Whose gateway counted something, and what.
pub type Told = (ServerId, EndCounts);

/// What waits to be entered, by connection.
#[derive(Debug, Default)]
pub(super) struct Unentered(BTreeMap<ConnectionId, Vec<Told>>);

impl Unentered {
    /// A gateway tells what it counted; false: there is no room for it.
    pub(super) fn tell(&mut self, id: ConnectionId, (server, counts): Told) -> bool {
        if self.0.len() >= MOST && !self.0.contains_key(&id) {
            return false;
        }
        let told = self.0.entry(id).or_default();
        told.retain(|(of, known)| *of != server || !counts.covers(known));
        told.push((server, counts));
        told.drain(..told.len().saturating_sub(RUNS));
        true
    }

    /// The connections on which something waits.
    pub(super) fn connections(&self) -> impl Iterator<Item = ConnectionId> {
        self.0.keys().copied()
    }

    /// What waits of a connection, oldest first.
    pub(super) fn of(&self, id: ConnectionId) -> Vec<Told> {
        self.0.get(&id).cloned().unwrap_or_default()
    }

    /// What was read of a connection is entered.
    pub(super) fn entered(&mut self, id: ConnectionId, read: &[Told]) {
        let Some(told) = self.0.get_mut(&id) else { return };
        told.retain(|waits| !read.contains(waits));
        if told.is_empty() {
            self.0.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use gateway_proto::balance::Tally;

    use super::*;

    fn id(n: u64) -> ConnectionId {
        ConnectionId::new(n, [1; 10])
    }

    fn server(n: u8) -> ServerId {
        ServerId::new(1, [n; 10])
    }

    fn counts(epoch: u64, messages: u64) -> EndCounts {
        EndCounts { epoch, messages, accepted: messages, ..EndCounts::default() }
    }

    fn enter(tally: &mut Tally, read: &[Told]) {
        let counts: Vec<_> = read.iter().map(|(_, counts)| *counts).collect();
        tally.report(&counts, 60);
    }

    #[test]
    fn what_is_told_while_a_round_is_under_way_is_entered_once_and_so_is_the_run_before_it() {
        let (mut unentered, mut tally) = (Unentered::default(), Tally::default());
        unentered.tell(id(1), (server(1), counts(1, 90)));
        unentered.tell(id(1), (server(1), counts(1, 100)));
        unentered.tell(id(1), (server(1), counts(2, 5)));
        let first = unentered.of(id(1));
        assert_eq!(first.len(), 2, "of one run the newest counts say it all");
        enter(&mut tally, &first);
        unentered.tell(id(1), (server(1), counts(2, 9)));
        unentered.entered(id(1), &first);

        let second = unentered.of(id(1));
        assert_eq!(second, [(server(1), counts(2, 9))]);
        enter(&mut tally, &second);
        unentered.entered(id(1), &second);
        assert_eq!((tally.messages(), unentered.connections().count()), (109, 0));
    }

    #[test]
    fn a_round_that_failed_is_done_again_with_what_came_meanwhile() {
        let (mut unentered, mut tally) = (Unentered::default(), Tally::default());
        unentered.tell(id(1), (server(1), counts(1, 100)));
        // Perhaps it was committed, and only the answer was lost.
        enter(&mut tally, &unentered.of(id(1)));
        unentered.tell(id(1), (server(1), counts(2, 1)));
        enter(&mut tally, &unentered.of(id(1)));
        assert_eq!(tally.messages(), 101);
    }

    #[test]
    fn what_was_counted_at_two_replicas_comes_to_the_same_in_either_order() {
        let (mut here, mut there) = (Unentered::default(), Unentered::default());
        here.tell(id(1), (server(1), counts(1, 100)));
        there.tell(id(1), (server(1), counts(1, 105)));
        for order in [[&here, &there], [&there, &here]] {
            let mut tally = Tally::default();
            order.into_iter().for_each(|replica| enter(&mut tally, &replica.of(id(1))));
            assert_eq!(tally.messages(), 105);
        }
    }

    #[test]
    fn what_waits_has_an_end() {
        let mut unentered = Unentered::default();
        for n in 0..MOST as u64 {
            assert!(unentered.tell(id(n), (server(1), counts(1, 1))));
        }
        assert!(!unentered.tell(id(MOST as u64), (server(1), counts(1, 1))));
        for epoch in 1..=100 {
            assert!(unentered.tell(id(0), (server(1), counts(epoch, 1))));
        }
        let told = unentered.of(id(0));
        assert_eq!((told.len(), told.last()), (RUNS, Some(&(server(1), counts(100, 1)))));
    }
}
