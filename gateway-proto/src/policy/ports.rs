//! Which of our connections has which local port.
//!
//! The engine is set up to send to a port, and goes on doing so while the connection behind it is paused, waits or cannot be opened:
//! the port belongs to that connection as long as the policy lists it, whatever its state, and to no other one meanwhile.

use std::collections::{BTreeMap, btree_map::Entry};

use super::{Activation, LocalEnd, Policy};
use crate::id::ConnectionId;

/// Local ports and the connections that have them, one each. Holds no more than the policy that it was settled by last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortOwners {
    ports: BTreeMap<ConnectionId, u16>,
    owners: BTreeMap<u16, ConnectionId>,
    /// They are of a build that opened a port that was asked for whoever had picked it.
    were_shared: bool,
}

impl LocalEnd {
    /// The local port that was asked for at this end, 0 for any; none: this end opens none.
    pub fn asked_port(&self) -> Option<u16> {
        match self {
            Self::Sender { port } | Self::AdminUser { port } => Some(*port),
            Self::Listener { .. } | Self::AdminOwner => None,
        }
    }
}

impl PortOwners {
    /// As it was kept before. Of two connections with one port, the older one has it.
    pub fn new(kept: &BTreeMap<ConnectionId, u16>) -> Self {
        let mut owners = Self::default();
        for (id, port) in kept {
            owners.give(*id, *port);
        }
        owners
    }

    /// As an earlier build kept them: ports that were picked, and none that were asked for. It opened those too while the connection
    /// that had picked one was closed, and the engine sends there: by the first policy they belong to whoever has them open.
    pub fn of_picked(kept: &BTreeMap<ConnectionId, u16>) -> Self {
        Self { were_shared: true, ..Self::new(kept) }
    }

    /// Goes by another policy: whoever it lists keeps the port it has, unless it asks for another one now; then those get what they ask
    /// for who find it free, older connections first. Ports of connections that it does not list are free.
    pub fn settle(&mut self, policy: &Policy) {
        let ends = policy.connections.iter();
        let asked: BTreeMap<_, _> =
            ends.filter_map(|entry| entry.local.asked_port().map(|port| (entry.id, port))).collect();
        let mut before = std::mem::take(self);
        if before.were_shared {
            before.yield_to_open(policy);
        }
        for (id, asked) in &asked {
            if let Some(port) = before.of(*id).filter(|port| *asked == 0 || asked == port) {
                self.give(*id, port);
            }
        }
        for (id, asked) in asked {
            self.give(id, asked);
        }
    }

    /// An active connection gets the port it asks for in place of one that is not active.
    fn yield_to_open(&mut self, policy: &Policy) {
        let active = || policy.connections.iter().filter(|entry| entry.activation == Activation::Active);
        for entry in active() {
            let Some(port) = entry.local.asked_port() else { continue };
            let owner = self.owner(port).filter(|owner| active().all(|entry| entry.id != *owner));
            if let Some(owner) = owner {
                self.ports.remove(&owner);
                self.owners.remove(&port);
            }
            self.give(entry.id, port);
        }
    }

    /// Gives a connection this port, in place of one that it had. `false`: it belongs to another connection, or is 0 and thus none,
    /// and nothing changed.
    pub fn give(&mut self, id: ConnectionId, port: u16) -> bool {
        if port == 0 {
            return false;
        }
        match self.owners.entry(port) {
            Entry::Occupied(owner) => return *owner.get() == id,
            Entry::Vacant(free) => {
                free.insert(id);
            }
        }
        if let Some(former) = self.ports.insert(id, port) {
            self.owners.remove(&former);
        }
        true
    }

    /// The port of a connection; none: it asks for none and none was picked, or the one that it asks for is another's.
    pub fn of(&self, id: ConnectionId) -> Option<u16> {
        self.ports.get(&id).copied()
    }

    /// Whose this port is.
    pub fn owner(&self, port: u16) -> Option<ConnectionId> {
        self.owners.get(&port).copied()
    }

    /// All of them, to be kept across restarts.
    pub fn ports(&self) -> &BTreeMap<ConnectionId, u16> {
        &self.ports
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::{Activation, tests};

    fn id(n: u8) -> ConnectionId {
        ConnectionId::new(u64::from(n), [n; 10])
    }

    /// A policy with these senders: connection, port asked for, state.
    fn policy(senders: &[(u8, u16, Activation)]) -> Policy {
        let mut policy = tests::policy(1);
        let template = policy.connections[0].clone();
        let entry = |(n, port, activation): &(u8, u16, Activation)| {
            let mut entry = (*template).clone();
            (entry.id, entry.local, entry.activation) = (id(*n), LocalEnd::Sender { port: *port }, *activation);
            Arc::new(entry)
        };
        policy.connections = senders.iter().map(entry).collect();
        policy
    }

    fn ports(owners: &PortOwners) -> Vec<(ConnectionId, u16)> {
        owners.ports().iter().map(|(id, port)| (*id, *port)).collect()
    }

    const STATES: [Activation; 4] = [Activation::Ready, Activation::Active, Activation::Paused, Activation::Suspended];

    #[test]
    fn a_port_stays_with_its_connection_in_every_state_until_the_policy_lists_that_one_no_more() {
        for state in STATES {
            let mut owners = PortOwners::default();
            owners.settle(&policy(&[(2, 0, Activation::Active)]));
            assert!(owners.give(id(2), 7001), "picked");
            // Also for an older connection, and wherever the policy has it.
            for other in [1, 3] {
                for senders in [[(2, 0, state), (other, 7001, state)], [(other, 7001, state), (2, 0, state)]] {
                    owners.settle(&policy(&senders));
                    assert_eq!(ports(&owners), [(id(2), 7001)], "{state:?}");
                    assert_eq!((owners.of(id(other)), owners.owner(7001)), (None, Some(id(2))));
                }
            }
            // A gateway that is started again.
            let mut owners = PortOwners::new(owners.ports());
            owners.settle(&policy(&[(1, 7001, state), (2, 0, state)]));
            assert_eq!(ports(&owners), [(id(2), 7001)]);
            owners.settle(&policy(&[(1, 7001, state)]));
            assert_eq!(ports(&owners), [(id(1), 7001)], "the first one ended");
        }
    }

    #[test]
    fn a_port_that_is_asked_for_is_not_picked_for_another_connection_whatever_the_state_of_the_one_that_asks() {
        for state in STATES {
            let mut owners = PortOwners::default();
            owners.settle(&policy(&[(1, 0, Activation::Active), (2, 7001, state)]));
            assert!(!owners.give(id(1), 7001), "{state:?}");
            assert!(owners.give(id(1), 7002));
            assert_eq!(ports(&owners), [(id(1), 7002), (id(2), 7001)]);
        }
    }

    #[test]
    fn after_an_update_a_port_belongs_to_whoever_had_it_open_and_from_then_on_to_that_one() {
        let (active, paused) = (Activation::Active, Activation::Paused);
        let picked = BTreeMap::from([(id(2), 7001)]);
        // Older ones that ask for it too and are closed change nothing.
        let closed = [(active, active, 2), (active, paused, 2), (paused, paused, 2)];
        for (picking, asking, owner) in closed.into_iter().chain([(paused, active, 3)]) {
            let mut owners = PortOwners::of_picked(&picked);
            owners.settle(&policy(&[(1, 7001, paused), (2, 0, picking), (3, 7001, asking)]));
            assert_eq!(ports(&owners), [(id(owner), 7001)], "{picking:?} {asking:?}");
            owners.settle(&policy(&[(1, 7001, active), (2, 0, active), (3, 7001, paused)]));
            assert_eq!(ports(&owners), [(id(owner), 7001)], "{picking:?} {asking:?}");
        }
        // One that asked for another port, and one that is listed no more, had picked theirs before.
        let mut owners = PortOwners::of_picked(&BTreeMap::from([(id(2), 7001), (id(3), 7002), (id(4), 7003)]));
        owners.settle(&policy(&[(2, 7002, active), (3, 7003, active)]));
        assert_eq!(ports(&owners), [(id(2), 7002), (id(3), 7003)]);
    }

    #[test]
    fn of_two_connections_that_ask_for_one_port_the_first_to_have_it_keeps_it() {
        let (active, paused) = (Activation::Active, Activation::Paused);
        let both = policy(&[(2, 7001, active), (1, 7001, paused)]);
        let mut owners = PortOwners::default();
        owners.settle(&both);
        assert_eq!(ports(&owners), [(id(1), 7001)], "they came together: the older one");
        let mut owners = PortOwners::default();
        owners.settle(&policy(&[(2, 7001, paused)]));
        owners.settle(&both);
        assert_eq!(ports(&owners), [(id(2), 7001)]);
        let mut owners = PortOwners::new(owners.ports());
        owners.settle(&both);
        assert_eq!(ports(&owners), [(id(2), 7001)], "also after a restart");
    }

    #[test]
    fn another_port_asked_for_takes_the_place_of_the_one_before() {
        let mut owners = PortOwners::new(&BTreeMap::from([(id(1), 7001), (id(2), 7002), (id(3), 7002)]));
        assert_eq!(ports(&owners), [(id(1), 7001), (id(2), 7002)], "a file that says otherwise is not believed");
        let active = Activation::Active;
        owners.settle(&policy(&[(1, 7003, active), (2, 0, active), (3, 7001, active)]));
        assert_eq!(ports(&owners), [(id(1), 7003), (id(2), 7002), (id(3), 7001)]);
        assert!(owners.give(id(2), 7004));
        assert_eq!((owners.owner(7002), owners.owner(7004)), (None, Some(id(2))));
    }
}
