//! Which peer has which number in a session.

use std::collections::HashMap;

use super::MAX_SLOTS;
use crate::relay::RelayAddress;

/// The slots of one session, at either end. At most [`MAX_SLOTS`]; numbers are given in order and never taken back as long
/// as the session lasts.
#[derive(Debug, Default)]
pub struct Slots {
    peers: Vec<Slot>,
    numbers: HashMap<RelayAddress, u16>,
}

#[derive(Debug)]
struct Slot {
    peer: RelayAddress,
    /// The relay knows it too.
    bound: bool,
}

impl Slots {
    /// The gateway: the number for a new peer, to tell the relay; `None` if it has one already or there are no more.
    pub fn assign(&mut self, peer: RelayAddress) -> Option<u16> {
        if self.numbers.contains_key(&peer) || self.peers.len() >= MAX_SLOTS {
            return None;
        }
        let number = self.peers.len() as u16;
        self.peers.push(Slot { peer, bound: false });
        self.numbers.insert(peer, number);
        Some(number)
    }

    /// The gateway: the relay knows the number now.
    pub fn confirm(&mut self, number: u16) {
        if let Some(slot) = self.peers.get_mut(usize::from(number)) {
            slot.bound = true;
        }
    }

    /// The relay: takes over a number a gateway chose; false if it is not the next one, or a second one for the same peer.
    pub fn bind(&mut self, number: u16, peer: RelayAddress) -> bool {
        if usize::from(number) != self.peers.len() || self.assign(peer).is_none() {
            return false;
        }
        self.confirm(number);
        true
    }

    /// The number both ends know for a peer.
    pub fn number(&self, peer: &RelayAddress) -> Option<u16> {
        let number = *self.numbers.get(peer)?;
        self.peers.get(usize::from(number)).filter(|slot| slot.bound).map(|_| number)
    }

    /// The peer behind a number.
    pub fn peer(&self, number: u16) -> Option<RelayAddress> {
        self.peers.get(usize::from(number)).map(|slot| slot.peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u16) -> RelayAddress {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        RelayAddress::from_bytes(bytes)
    }

    #[test]
    fn a_number_is_used_once_both_ends_know_it() {
        let (mut gateway, mut relay) = (Slots::default(), Slots::default());
        let number = gateway.assign(peer(1)).unwrap();
        assert_eq!(gateway.assign(peer(1)), None, "asked once");
        assert_eq!(gateway.number(&peer(1)), None);
        assert!(relay.bind(number, peer(1)));
        gateway.confirm(number);
        assert_eq!((gateway.number(&peer(1)), relay.number(&peer(1))), (Some(0), Some(0)));
        assert_eq!(relay.peer(0), Some(peer(1)));
    }

    #[test]
    fn a_hostile_gateway_makes_no_more_than_its_slots() {
        let mut relay = Slots::default();
        assert!(!relay.bind(7, peer(1)), "numbers come in order");
        for number in 0..MAX_SLOTS as u16 {
            assert!(relay.bind(number, peer(number)));
        }
        assert!(!relay.bind(MAX_SLOTS as u16, peer(u16::MAX)));
        assert!(!relay.bind(0, peer(u16::MAX)), "a number keeps its peer");
        assert_eq!(relay.peer(0), Some(peer(0)));
    }
}
