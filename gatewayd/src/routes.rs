//! Where packets of a peer go, and whose packets are let in.
//!
//! QUIC sees one made-up, stable address per peer ([`peer_address`]); [`Routes`] maps it to the path in use, and real
//! source addresses back to the peer that authenticated them. Both tables grow with the peers of the policy and the
//! addresses their path agents authenticate, both capped elsewhere; nothing a stranger sends adds an entry.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Instant,
};

use gateway_proto::{
    id::RelayId,
    identity::GatewayPublicKey,
    relay::{Heard, Hearing, RelayAddress},
};
use sha2::{Digest, Sha256};

use crate::{
    relay_link::{DatagramSender, RelayInbound},
    side_socket::SideSocket,
};

/// Every made-up address has this port.
const PORT: u16 = 7;
/// First byte of unique local addresses with the L bit (RFC 4193).
const PREFIX: u8 = 0xfd;

/// The made-up address under which QUIC knows a peer: `fd` and 120 bits of a hash of its key. Packets from the real
/// network never carry it: the socket replaces every source address by the one of the peer it belongs to.
pub fn peer_address(key: &RelayAddress) -> SocketAddr {
    let hash = Sha256::new().chain_update(b"gateway/address/1").chain_update(key.as_bytes()).finalize();
    let mut octets = [0; 16];
    octets[0] = PREFIX;
    octets[1..].copy_from_slice(&hash[..15]);
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(octets)), PORT)
}

/// How packets to a peer travel now.
#[derive(Debug, Clone)]
pub struct Route {
    /// The real address of a direct path.
    pub direct: Option<SocketAddr>,
    /// The socket of the direct path, when it is not the main one.
    pub side: Option<Arc<SideSocket>>,
    /// The relay link where the peer can be reached.
    pub relay: Option<DatagramSender>,
    /// Another one, while that is in doubt: what is relayed goes over both.
    pub spare: Option<DatagramSender>,
    /// Send on both: the direct path is in doubt.
    pub duplicate: bool,
    /// Packets go back to ourselves: both ends of the tunnel are this gateway.
    pub local: bool,
}

impl Route {
    /// No way to the peer yet: packets are dropped and counted, QUIC sends them again.
    pub const NONE: Self = Self { direct: None, side: None, relay: None, spare: None, duplicate: false, local: false };
}

/// How a relayed packet of a peer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Our packets to it go another way than over a relay.
    pub another_way: bool,
    /// Over which relay it is heard is another matter than before ([`Heard`]).
    pub another_relay: bool,
}

impl Arrival {
    /// What there is to tell of it.
    pub(crate) fn hint(self, peer: RelayAddress, relay: RelayId) -> Option<RelayInbound> {
        match self {
            Self { another_way: true, .. } => Some(RelayInbound::AnotherWay(peer)),
            Self { another_relay: true, .. } => Some(RelayInbound::AnotherRelay { relay, peer }),
            Self { another_way: false, another_relay: false } => None,
        }
    }
}

/// A peer that packets go to.
#[derive(Debug)]
struct Outbound {
    peer: GatewayPublicKey,
    route: Route,
    /// The relays over which its packets came.
    heard: Mutex<Heard>,
}

/// The two tables.
#[derive(Debug, Default)]
pub struct Routes {
    outbound: RwLock<HashMap<SocketAddr, Outbound>>,
    inbound: RwLock<HashMap<SocketAddr, SocketAddr>>,
}

impl Routes {
    /// Sets the route of a peer.
    pub fn set(&self, peer: GatewayPublicKey, route: Route) {
        let mut outbound = self.outbound.write().unwrap_or_else(PoisonError::into_inner);
        match outbound.entry(peer_address(&peer.into())) {
            Entry::Occupied(mut entry) => entry.get_mut().route = route,
            Entry::Vacant(entry) => {
                entry.insert(Outbound { peer, route, heard: Mutex::default() });
            }
        }
    }

    /// A peer to which there is no way yet. `follows`: we use the relay over which it is heard, not it the one over which it
    /// hears us ([`Heard::new`]).
    pub fn meet(&self, peer: GatewayPublicKey, follows: bool) {
        let heard = Mutex::new(Heard::new(follows));
        let mut outbound = self.outbound.write().unwrap_or_else(PoisonError::into_inner);
        outbound.insert(peer_address(&peer.into()), Outbound { peer, route: Route::NONE, heard });
    }

    /// Which relay to use for a peer, as far as its packets say; `usual` is the one chosen otherwise.
    pub fn hearing(&self, peer: GatewayPublicKey, usual: Option<RelayId>, now: Instant) -> Hearing {
        let outbound = self.outbound.read().unwrap_or_else(PoisonError::into_inner);
        let heard = outbound.get(&peer_address(&peer.into())).map(|entry| &entry.heard);
        heard.map_or(Hearing::Usual, |heard| heard.lock().unwrap_or_else(PoisonError::into_inner).hearing(usual, now))
    }

    /// Forgets a peer and every address it authenticated.
    pub fn remove(&self, peer: GatewayPublicKey) {
        let address = peer_address(&peer.into());
        self.outbound.write().unwrap_or_else(PoisonError::into_inner).remove(&address);
        self.inbound.write().unwrap_or_else(PoisonError::into_inner).retain(|_, owner| *owner != address);
    }

    /// The peer behind a made-up address.
    pub fn peer(&self, address: &SocketAddr) -> Option<GatewayPublicKey> {
        self.outbound.read().unwrap_or_else(PoisonError::into_inner).get(address).map(|entry| entry.peer)
    }

    /// Does something with the route of a made-up address, without a copy of it; `act` must be quick and not block.
    pub fn with<T>(&self, address: &SocketAddr, act: impl FnOnce(&Route) -> T) -> Option<T> {
        let outbound = self.outbound.read().unwrap_or_else(PoisonError::into_inner);
        outbound.get(address).map(|entry| act(&entry.route))
    }

    /// Packets from `real` belong to `peer`, unless they are another peer's already: an authentic packet proves who sent
    /// it, but its source address may be borrowed.
    pub fn admit(&self, real: SocketAddr, peer: GatewayPublicKey) {
        let owner = peer_address(&peer.into());
        self.inbound.write().unwrap_or_else(PoisonError::into_inner).entry(real).or_insert(owner);
    }

    /// Packets from `real` belong to `peer` from now on, whoever's they were: a full round trip proved the address.
    pub fn claim(&self, real: SocketAddr, peer: GatewayPublicKey) {
        let owner = peer_address(&peer.into());
        self.inbound.write().unwrap_or_else(PoisonError::into_inner).insert(real, owner);
    }

    /// Packets from `real` are a stranger's again, if they were `peer`'s.
    pub fn dismiss(&self, real: SocketAddr, peer: GatewayPublicKey) {
        let owner = peer_address(&peer.into());
        let mut inbound = self.inbound.write().unwrap_or_else(PoisonError::into_inner);
        if inbound.get(&real) == Some(&owner) {
            inbound.remove(&real);
        }
    }

    /// The made-up address of whoever authenticated the real one.
    pub fn owner(&self, real: &SocketAddr) -> Option<SocketAddr> {
        self.inbound.read().unwrap_or_else(PoisonError::into_inner).get(real).copied()
    }

    /// Whether the source of a packet that came over `relay` is a peer of ours: its made-up address, and how it came.
    pub fn known(&self, source: &RelayAddress, relay: RelayId, now: Instant) -> Option<(SocketAddr, Arrival)> {
        let address = peer_address(source);
        Some((address, self.known_at(&address, relay, now)?))
    }

    /// Like [`Self::known`], by the made-up address.
    pub fn known_at(&self, address: &SocketAddr, relay: RelayId, now: Instant) -> Option<Arrival> {
        let outbound = self.outbound.read().unwrap_or_else(PoisonError::into_inner);
        let Outbound { route, heard, .. } = outbound.get(address)?;
        let another_relay = heard.lock().unwrap_or_else(PoisonError::into_inner).note(relay, now);
        Some(Arrival { another_way: route.direct.is_some() && !route.duplicate, another_relay })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use gateway_proto::identity::GatewayKey;

    const RELAYS: [RelayId; 2] = [RelayId::from_bytes([1; 16]), RelayId::from_bytes([2; 16])];

    fn key(n: u8) -> GatewayPublicKey {
        GatewayKey::from_seed(&[n; 32]).public()
    }

    #[test]
    fn a_removed_peer_leaves_no_address_that_is_let_in() {
        let (routes, real) = (Routes::default(), "192.0.2.1:4000".parse().unwrap());
        routes.set(key(1), Route::NONE);
        routes.admit(real, key(1));
        assert_eq!(routes.owner(&real), Some(peer_address(&key(1).into())));
        routes.remove(key(1));
        assert_eq!(routes.owner(&real), None);
        assert!(routes.known(&key(1).into(), RELAYS[0], Instant::now()).is_none());
    }

    #[test]
    fn what_is_heard_of_a_peer_outlives_a_change_of_its_route() {
        let (routes, start) = (Routes::default(), Instant::now());
        routes.meet(key(1), true);
        let arrives = |relay: usize, secs: u64| {
            let now = start + Duration::from_secs(secs);
            routes.known(&key(1).into(), RELAYS[relay], now).unwrap().1.another_relay
        };
        assert_eq!(routes.hearing(key(1), Some(RELAYS[0]), start), Hearing::Usual);
        assert!(!arrives(0, 0) && arrives(1, 1));
        routes.set(key(1), Route::NONE);
        assert!(arrives(1, 3), "and over that one only");
        let now = start + Duration::from_secs(3);
        assert_eq!(routes.hearing(key(1), Some(RELAYS[0]), now), Hearing::Instead(RELAYS[1]));
        assert_eq!(routes.hearing(key(2), Some(RELAYS[0]), now), Hearing::Usual, "of a stranger nothing is known");
    }

    #[test]
    fn an_address_is_taken_over_by_a_round_trip_only_and_not_dismissed_by_the_former_owner() {
        let (routes, real) = (Routes::default(), "192.0.2.1:4000".parse().unwrap());
        routes.admit(real, key(1));
        routes.admit(real, key(2));
        assert_eq!(routes.owner(&real), Some(peer_address(&key(1).into())), "one packet proves no address");
        routes.claim(real, key(2));
        routes.dismiss(real, key(1));
        assert_eq!(routes.owner(&real), Some(peer_address(&key(2).into())));
    }
}
