//! The registry: which gateway is attached through which link.
//!
//! The only state that links share. The lock is held for single map operations, never across an await. At most `max` gateways;
//! a newer link of the same key takes the place of the older one, which is told so. It is only called for links that have proved
//! their key, so nobody can push out a gateway that is not himself.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use gateway_proto::{relay::RelayAddress, twice::Instance};
use tokio_util::sync::CancellationToken;

use crate::{outbound::OutboundSender, seats::Seats, udp::Session};

/// What others use to reach a gateway.
#[derive(Debug)]
pub(crate) struct Front {
    /// The queues of its link.
    pub(crate) outbound: OutboundSender,
    /// Its UDP session, if the relay has UDP.
    pub(crate) udp: Option<Arc<Session>>,
}

#[derive(Debug)]
pub(crate) struct Clients {
    links: RwLock<HashMap<RelayAddress, Link>>,
    /// Locked before the links, if both are.
    seats: Seats,
    max: usize,
    next: AtomicU64,
}

#[derive(Debug)]
struct Link {
    number: u64,
    /// Which process of the gateway it is; none: it does not say.
    instance: Option<Instance>,
    front: Arc<Front>,
    replaced: CancellationToken,
}

/// The registry is full.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// A link's place in the registry, to leave it again.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) address: RelayAddress,
    instance: Option<Instance>,
    number: u64,
    /// Cancelled when a newer link took the place.
    pub(crate) replaced: CancellationToken,
}

impl Clients {
    pub(crate) fn new(max: usize) -> Self {
        Self { links: RwLock::default(), seats: Seats::new(max), max, next: AtomicU64::new(0) }
    }

    /// Whether this process of a gateway that has proved its key may attach: not while another one of it keeps the place.
    pub(crate) fn admits(&self, address: RelayAddress, instance: Option<Instance>) -> bool {
        let Some(instance) = instance else { return true };
        self.seats.admits(address, instance, |address| {
            let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
            links.get(&address).is_some_and(|link| link.instance.is_some())
        })
    }

    /// Attaches a gateway that has proved its key.
    pub(crate) fn attach(
        &self,
        address: RelayAddress,
        instance: Option<Instance>,
        front: Front,
    ) -> Result<Attached, Full> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let replaced = CancellationToken::new();
        let link = Link { number, instance, front: Arc::new(front), replaced: replaced.clone() };
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        let count = links.len();
        match links.entry(address) {
            Entry::Occupied(mut entry) => entry.insert(link).replaced.cancel(),
            Entry::Vacant(_) if count >= self.max => return Err(Full),
            Entry::Vacant(entry) => {
                entry.insert(link);
            }
        }
        Ok(Attached { address, instance, number, replaced })
    }

    /// Detaches a link, unless a newer one has its place.
    pub(crate) fn detach(&self, attached: &Attached) {
        if self.take_out(attached)
            && let Some(instance) = attached.instance
        {
            self.seats.leave(attached.address, instance);
        }
    }

    fn take_out(&self, attached: &Attached) -> bool {
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        let is_there = links.get(&attached.address).is_some_and(|link| link.number == attached.number);
        if is_there {
            links.remove(&attached.address);
        }
        is_there
    }

    /// The front of an attached gateway.
    pub(crate) fn find(&self, address: RelayAddress) -> Option<Arc<Front>> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.get(&address).map(|link| link.front.clone())
    }

    pub(crate) fn len(&self) -> usize {
        self.links.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, outbound::outbound};

    fn sender() -> Front {
        let config = Config::load(std::path::Path::new("tests/config/valid/minimal.toml")).unwrap();
        Front { outbound: outbound(&config.limits).0, udp: None }
    }

    #[test]
    fn a_newer_link_takes_the_place_and_the_older_cannot_take_it_back_by_leaving() {
        let clients = Clients::new(1);
        let address = RelayAddress::from_bytes([1; 32]);
        let old = clients.attach(address, None, sender()).unwrap();
        let new = clients.attach(address, None, sender()).unwrap();
        assert!(old.replaced.is_cancelled() && !new.replaced.is_cancelled());
        clients.detach(&old);
        assert!(clients.find(address).is_some());
        clients.detach(&new);
        assert_eq!(clients.len(), 0);
    }

    #[test]
    fn a_full_registry_refuses_newcomers_only() {
        let clients = Clients::new(1);
        let _known = clients.attach(RelayAddress::from_bytes([1; 32]), None, sender()).unwrap();
        assert_eq!(clients.attach(RelayAddress::from_bytes([2; 32]), None, sender()).unwrap_err(), Full);
        assert!(clients.attach(RelayAddress::from_bytes([1; 32]), None, sender()).is_ok());
    }
}
