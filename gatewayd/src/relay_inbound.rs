//! What relays hand us for the peers beside their datagrams: sealed signals, and hints that a peer is absent.
//!
//! The links share one queue to the mesh, and each has places of its own in it. A place is free again when the path actor has
//! dealt with what took it, so a relay that floods loses what is its own: neither the queue nor the mailbox of a peer has
//! less room for the others.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use gateway_proto::{id::RelayId, relay::RelayAddress};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::{mesh::MAX_LINKS, socket::SocketCounters};

/// Places of one link: half of the mailbox of a path actor. After a restart a gateway gets a signal or two of each peer.
const PLACES: usize = 64;

/// Something for one peer.
#[derive(Debug)]
pub struct RelayInbound {
    /// Over which relay it came.
    pub relay: RelayId,
    /// Whom it is from, or about, as the relay says.
    pub peer: RelayAddress,
    /// What it is.
    pub news: RelayNews,
    /// Taken from the relay's share for as long as this lives.
    _place: OwnedSemaphorePermit,
}

/// What a relay hands us.
#[derive(Debug, PartialEq, Eq)]
pub enum RelayNews {
    /// A sealed signal of the peer; only the seal proves who sent it.
    Signal(Vec<u8>),
    /// The relay does not see the peer; a hint.
    Absent,
}

/// Where a link puts them. Cheap to clone; clones share their places.
#[derive(Debug, Clone)]
pub struct RelayInbox {
    queue: mpsc::Sender<RelayInbound>,
    places: Arc<Semaphore>,
    counters: Arc<SocketCounters>,
}

impl RelayInbox {
    /// One link's, and the queue that the mesh empties. `counters` knows what was dropped.
    pub fn new(counters: Arc<SocketCounters>) -> (Self, mpsc::Receiver<RelayInbound>) {
        let (queue, inbound) = mpsc::channel(MAX_LINKS * PLACES);
        (Self { queue, places: Arc::new(Semaphore::new(PLACES)), counters }, inbound)
    }

    /// Another link's, with places of its own in the same queue.
    pub fn of_another_link(&self) -> Self {
        Self { places: Arc::new(Semaphore::new(PLACES)), ..self.clone() }
    }

    /// Hands on what came over `relay`. Dropped and counted when the link's places are taken: whoever sent a signal sends
    /// another, and an absence is told again.
    pub fn put(&self, relay: RelayId, peer: RelayAddress, news: RelayNews) {
        let queued = self
            .places
            .clone()
            .try_acquire_owned()
            .is_ok_and(|place| self.queue.try_send(RelayInbound { relay, peer, news, _place: place }).is_ok());
        if !queued {
            self.counters.relay_inbound_dropped.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: RelayId = RelayId::from_bytes([1; 16]);
    const HONEST: RelayId = RelayId::from_bytes([2; 16]);
    const PEER: RelayAddress = RelayAddress::from_bytes([7; 32]);

    #[tokio::test]
    async fn a_relay_that_floods_takes_no_place_of_another_and_gets_its_own_back() {
        let (hostile, mut inbound) = RelayInbox::new(Arc::default());
        let honest = hostile.of_another_link();
        for _ in 0..10_000 {
            hostile.put(HOSTILE, PEER, RelayNews::Signal(vec![0; 8]));
        }
        honest.put(HONEST, PEER, RelayNews::Absent);
        assert_eq!(hostile.counters.relay_inbound_dropped.load(Relaxed), 10_000 - PLACES as u64);
        let mut taken = Vec::new();
        while let Ok(next) = inbound.try_recv() {
            taken.push(next);
        }
        assert_eq!(taken.len(), PLACES + 1);
        assert!(taken.last().is_some_and(|last| (last.relay, &last.news) == (HONEST, &RelayNews::Absent)));
        hostile.put(HOSTILE, PEER, RelayNews::Absent);
        assert!(inbound.try_recv().is_err(), "what the path actors have not dealt with yet holds its places");
        taken.clear();
        hostile.put(HOSTILE, PEER, RelayNews::Absent);
        assert!(inbound.try_recv().is_ok());
    }
}
