//! Where packets of a peer go, and whose packets are let in.
//!
//! QUIC sees one made-up, stable address per peer ([`peer_address`]); [`Routes`] maps it to the path in use, and real
//! source addresses back to the peer that authenticated them. Both tables grow with the peers of the policy and the
//! addresses their path agents authenticate, both capped elsewhere; nothing a stranger sends adds an entry.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
};

use gateway_proto::{identity::GatewayPublicKey, relay::RelayAddress};
use sha2::{Digest, Sha256};

use crate::{relay_link::DatagramSender, side_socket::SideSocket};

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
    /// Send on both: the direct path is in doubt.
    pub duplicate: bool,
    /// Packets go back to ourselves: both ends of the tunnel are this gateway.
    pub local: bool,
}

impl Route {
    /// No way to the peer yet: packets are dropped and counted, QUIC sends them again.
    pub const NONE: Self = Self { direct: None, side: None, relay: None, duplicate: false, local: false };
}

/// The two tables.
#[derive(Debug, Default)]
pub struct Routes {
    outbound: RwLock<HashMap<SocketAddr, (GatewayPublicKey, Route)>>,
    inbound: RwLock<HashMap<SocketAddr, SocketAddr>>,
}

impl Routes {
    /// Sets the route of a peer.
    pub fn set(&self, peer: GatewayPublicKey, route: Route) {
        self.outbound.write().unwrap_or_else(PoisonError::into_inner).insert(peer_address(&peer.into()), (peer, route));
    }

    /// Forgets a peer and every address it authenticated.
    pub fn remove(&self, peer: GatewayPublicKey) {
        let address = peer_address(&peer.into());
        self.outbound.write().unwrap_or_else(PoisonError::into_inner).remove(&address);
        self.inbound.write().unwrap_or_else(PoisonError::into_inner).retain(|_, owner| *owner != address);
    }

    /// The peer behind a made-up address.
    pub fn peer(&self, address: &SocketAddr) -> Option<GatewayPublicKey> {
        self.outbound.read().unwrap_or_else(PoisonError::into_inner).get(address).map(|(peer, _)| *peer)
    }

    /// Does something with the route of a made-up address, without a copy of it; `act` must be quick and not block.
    pub fn with<T>(&self, address: &SocketAddr, act: impl FnOnce(&Route) -> T) -> Option<T> {
        let outbound = self.outbound.read().unwrap_or_else(PoisonError::into_inner);
        outbound.get(address).map(|(_, route)| act(route))
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

    /// Whether a relayed packet's source is a peer of ours: its made-up address, and whether our packets to it go another
    /// way than over the relay.
    pub fn known(&self, source: &RelayAddress) -> Option<(SocketAddr, bool)> {
        let address = peer_address(source);
        Some((address, self.known_at(&address)?))
    }

    /// Like [`Self::known`], by the made-up address.
    pub fn known_at(&self, address: &SocketAddr) -> Option<bool> {
        let outbound = self.outbound.read().unwrap_or_else(PoisonError::into_inner);
        let (_, route) = outbound.get(address)?;
        Some(route.direct.is_some() && !route.duplicate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_proto::identity::GatewayKey;

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
        assert!(routes.known(&key(1).into()).is_none());
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
