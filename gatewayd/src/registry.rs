//! What runs now: peers, local ports, relay links. Written by the mesh, read by status and reports.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gateway_proto::{
    id::ConnectionId,
    identity::GatewayPublicKey,
    policy::RelayEntry,
    relay::{HomeReason, udp::CarrierReason},
};

use crate::{peer::Peer, relay_link::LinkHandle, sender::SenderHandle};

/// What runs for the policy now, for status and reports.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Mutex<RegistryState>>);

#[derive(Debug, Default)]
pub(crate) struct RegistryState {
    pub(crate) peers: BTreeMap<GatewayPublicKey, Arc<Peer>>,
    pub(crate) senders: HashMap<ConnectionId, SenderHandle>,
    pub(crate) relays: Vec<RunningRelay>,
    pub(crate) home_reason: Option<HomeReason>,
    pub(crate) home_changes: BTreeMap<HomeReason, u64>,
    /// Of links that are no more: what is counted never goes back.
    former_carrier_changes: BTreeMap<CarrierReason, u64>,
}

impl RegistryState {
    /// The links that run now.
    pub(crate) fn show_relays(&mut self, relays: Vec<RunningRelay>) {
        let former = std::mem::replace(&mut self.relays, relays);
        for gone in former.iter().filter(|relay| !self.relays.iter().any(|other| other.link.is_same(&relay.link))) {
            add(&mut self.former_carrier_changes, &gone.link.carrier_changes());
        }
    }
}

/// A relay that is attached to, or to be.
#[derive(Debug, Clone)]
pub struct RunningRelay {
    /// As the policy lists it.
    pub entry: RelayEntry,
    /// The link.
    pub link: LinkHandle,
    /// How far it is: the median of the last minutes.
    pub latency: Option<Duration>,
    /// TLS to it goes through the HTTP proxy.
    pub proxied: bool,
}

impl Registry {
    pub(crate) fn lock(&self) -> MutexGuard<'_, RegistryState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A peer.
    pub fn peer(&self, key: &GatewayPublicKey) -> Option<Arc<Peer>> {
        self.lock().peers.get(key).cloned()
    }

    /// All peers, by key.
    pub fn peers(&self) -> Vec<Arc<Peer>> {
        self.lock().peers.values().cloned().collect()
    }

    /// Where the engine connects to for a sender, while that port is open.
    pub fn local_address(&self, id: ConnectionId) -> Option<SocketAddr> {
        self.lock().senders.get(&id).and_then(SenderHandle::local_address)
    }

    /// The local port that belongs to a sender, also while it is closed.
    pub fn kept_port(&self, id: ConnectionId) -> Option<u16> {
        self.sender(id).and_then(|sender| sender.kept_port())
    }

    /// Where the engine connects to for a sender, or will while that port is closed.
    pub fn kept_address(&self, id: ConnectionId) -> Option<SocketAddr> {
        self.sender(id).and_then(|sender| sender.kept_address())
    }

    /// A copy: a choice of a port that is being written to disk is waited for, which is not done with the lock held.
    fn sender(&self, id: ConnectionId) -> Option<SenderHandle> {
        self.lock().senders.get(&id).cloned()
    }

    /// The relay links.
    pub fn relays(&self) -> Vec<RunningRelay> {
        self.lock().relays.clone()
    }

    /// How often UDP to relays took over from TLS and the other way round, over all links since start.
    pub fn carrier_changes(&self) -> BTreeMap<CarrierReason, u64> {
        let state = self.lock();
        let mut sum = state.former_carrier_changes.clone();
        for relay in &state.relays {
            add(&mut sum, &relay.link.carrier_changes());
        }
        sum
    }

    /// How often another relay became home.
    pub fn home_changes(&self) -> BTreeMap<HomeReason, u64> {
        self.lock().home_changes.clone()
    }

    /// Why the home relay is home.
    pub fn home_reason(&self) -> Option<HomeReason> {
        self.lock().home_reason
    }
}

fn add(sum: &mut BTreeMap<CarrierReason, u64>, more: &BTreeMap<CarrierReason, u64>) {
    for (reason, count) in more {
        let known = sum.entry(*reason).or_default();
        *known = known.saturating_add(*count);
    }
}
