//! Where packets of a peer go, and whose packets are let in.
//!
//! QUIC sees one made-up, stable address per peer ([`peer_address`]); [`Routes`] maps it to the path in use, and real
//! source addresses back to the peer that authenticated them. Both tables grow with the peers of the policy and the
//! addresses their path agents authenticate, both capped elsewhere; nothing a stranger sends adds an entry.

mod arrivals;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

pub use arrivals::Arrivals;
use gateway_proto::{id::RelayId, identity::GatewayPublicKey, relay::RelayAddress};
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
    /// The address of ours by which its packets leave, where the kernel would choose another one.
    pub source: Option<IpAddr>,
    /// The socket of the direct path, when it is not the main one.
    pub side: Option<Arc<SideSocket>>,
    /// The relay link where the peer can be reached.
    pub relay: Option<DatagramSender>,
    /// Others, while that is in doubt: what is relayed goes over all of them.
    pub spares: Vec<DatagramSender>,
    /// Send on both: the direct path is in doubt.
    pub duplicate: bool,
    /// Packets go back to ourselves: both ends of the tunnel are this gateway.
    pub local: bool,
}

impl Route {
    /// No way to the peer yet: packets are dropped and counted, QUIC sends them again.
    pub const NONE: Self = Self {
        direct: None,
        source: None,
        side: None,
        relay: None,
        spares: Vec::new(),
        duplicate: false,
        local: false,
    };
}

/// A peer that packets go to.
#[derive(Debug)]
struct Outbound {
    peer: GatewayPublicKey,
    route: Route,
    arrivals: Arc<Arrivals>,
}

/// The two tables.
#[derive(Debug, Default)]
pub struct Routes {
    outbound: RwLock<HashMap<SocketAddr, Outbound>>,
    inbound: RwLock<HashMap<SocketAddr, SocketAddr>>,
}

impl Routes {
    /// A peer to which there is no way yet. `follows`: of the two sides, this one uses the relay over which it hears the other; that
    /// with the smaller key. What is noted of its packets is for its path actor.
    pub fn meet(&self, peer: GatewayPublicKey, follows: bool) -> Arc<Arrivals> {
        let arrivals = Arc::new(Arrivals::new(follows));
        self.insert(Outbound { peer, route: Route::NONE, arrivals: arrivals.clone() });
        arrivals
    }

    /// This gateway as its own peer.
    pub fn meet_self(&self, own: GatewayPublicKey) {
        let route = Route { local: true, ..Route::NONE };
        self.insert(Outbound { peer: own, route, arrivals: Arc::new(Arrivals::new(false)) });
    }

    fn insert(&self, entry: Outbound) {
        let address = peer_address(&entry.peer.into());
        self.outbound.write().unwrap_or_else(PoisonError::into_inner).insert(address, entry);
    }

    /// Sets the route of a peer that was met.
    pub fn set(&self, peer: GatewayPublicKey, route: Route) {
        let mut outbound = self.outbound.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = outbound.get_mut(&peer_address(&peer.into())) {
            entry.route = route;
        }
    }

    /// Forgets a peer and every address it authenticated, unless it was met anew since it gave these.
    pub fn remove(&self, peer: GatewayPublicKey, arrivals: &Arc<Arrivals>) {
        let address = peer_address(&peer.into());
        let mut outbound = self.outbound.write().unwrap_or_else(PoisonError::into_inner);
        if outbound.get(&address).is_none_or(|entry| !Arc::ptr_eq(&entry.arrivals, arrivals)) {
            return;
        }
        outbound.remove(&address);
        self.inbound.write().unwrap_or_else(PoisonError::into_inner).retain(|_, owner| *owner != address);
    }

    /// The peer behind a made-up address.
    pub fn peer(&self, address: &SocketAddr) -> Option<GatewayPublicKey> {
        self.outbound.read().unwrap_or_else(PoisonError::into_inner).get(address).map(|entry| entry.peer)
    }

    /// Does something with the route of a made-up address, without a copy of it, and with what its path actor is to know; `act` must be
    /// quick and not block.
    pub fn with<T>(&self, address: &SocketAddr, act: impl FnOnce(&Route, &Arrivals) -> T) -> Option<T> {
        let outbound = self.outbound.read().unwrap_or_else(PoisonError::into_inner);
        outbound.get(address).map(|entry| act(&entry.route, &entry.arrivals))
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

    /// Whether the source of QUIC that came over `relay` is a peer of ours: its made-up address. Its path actor is told where
    /// that is news.
    pub fn known(&self, source: &RelayAddress, relay: RelayId, now: Instant) -> Option<SocketAddr> {
        let address = peer_address(source);
        self.is_known_at(&address, relay, now).then_some(address)
    }

    /// Like [`Self::known`], by the made-up address.
    pub fn is_known_at(&self, address: &SocketAddr, relay: RelayId, now: Instant) -> bool {
        let outbound = self.outbound.read().unwrap_or_else(PoisonError::into_inner);
        let Some(Outbound { route, arrivals, .. }) = outbound.get(address) else { return false };
        arrivals.note(relay, route.direct.is_some() && !route.duplicate, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gateway_proto::{
        identity::GatewayKey,
        relay::{Seen, Standing},
    };

    use super::*;

    const RELAYS: [RelayId; 2] = [RelayId::from_bytes([1; 16]), RelayId::from_bytes([2; 16])];

    fn key(n: u8) -> GatewayPublicKey {
        GatewayKey::from_seed(&[n; 32]).public()
    }

    #[test]
    fn a_removed_peer_leaves_no_address_that_is_let_in() {
        let (routes, real) = (Routes::default(), "192.0.2.1:4000".parse().unwrap());
        let former = routes.meet(key(1), true);
        let arrivals = routes.meet(key(1), true);
        routes.admit(real, key(1));
        routes.remove(key(1), &former);
        assert_eq!(routes.owner(&real), Some(peer_address(&key(1).into())));
        assert!(routes.known(&key(1).into(), RELAYS[0], Instant::now()).is_some());
        routes.remove(key(1), &arrivals);
        assert_eq!(routes.owner(&real), None);
        assert!(routes.known(&key(1).into(), RELAYS[0], Instant::now()).is_none());
    }

    #[test]
    fn a_route_makes_no_peer_of_whoever_was_not_met() {
        let routes = Routes::default();
        routes.set(key(1), Route::NONE);
        assert!(routes.known(&key(1).into(), RELAYS[0], Instant::now()).is_none());
    }

    #[test]
    fn what_is_heard_of_a_peer_outlives_a_change_of_its_route() {
        let (routes, start) = (Routes::default(), Instant::now());
        let arrivals = routes.meet(key(1), true);
        let links =
            RELAYS.map(|relay| Seen { relay, standing: Standing::Sound, restarting: false, falls: 0, drops: None });
        let used = |at| arrivals.with(|choice| choice.choose(&links, Some(at), at));
        assert_eq!(used(start).best, Some(RELAYS[0]));
        let arrives = |relay: usize, secs: u64| {
            let at = start + Duration::from_secs(secs);
            assert_eq!(routes.known(&key(1).into(), RELAYS[relay], at), Some(peer_address(&key(1).into())));
            at
        };
        arrives(0, 0);
        assert_eq!(used(arrives(1, 1)).spare, Some(RELAYS[1]));
        routes.set(key(1), Route::NONE);
        assert_eq!(used(arrives(1, 3)).best, Some(RELAYS[1]), "and over that one only");
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
