//! The peers of the policy: a path actor and a tunnel keeper each.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gateway_proto::{
    identity::GatewayPublicKey,
    policy::{PeerEntry, Policy, ServerName},
    relay::RelayAddress,
};
use quinn::{Connection, VarInt};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::{Mesh, handshakes::PEER_HANDSHAKES};
use crate::{
    authority::PolicyView,
    gate::role,
    keeper::{Handover, Keeper, serve_self},
    path_actor::PathActor,
    peer::Peer,
    traffic::Role,
};

/// A peer, and how it is reached by what concerns it.
#[derive(Debug)]
pub(super) struct RunningPeer {
    pub(super) peer: Arc<Peer>,
    /// Tunnels it dialled, for its keeper.
    inbound: Handover<Connection>,
    pub(super) handshakes: Arc<Semaphore>,
    updates: watch::Sender<Option<PeerEntry>>,
    stop: CancellationToken,
}

impl Mesh {
    /// Makes the peers that run equal to those of the policy.
    pub(super) fn reconcile_peers(&mut self, policy: Option<&Policy>) {
        let own = self.context.path.local;
        let mut listed: BTreeMap<GatewayPublicKey, Option<&PeerEntry>> = BTreeMap::new();
        if let Some(policy) = policy {
            listed.extend(policy.peers.iter().map(|entry| (entry.key, Some(entry))));
            if policy.connections.iter().any(|connection| connection.peer == own) {
                listed.insert(own, None);
            }
        }
        self.context.allowed.replace(listed.keys().copied().collect());
        let registry = self.registry.clone();
        self.peers.retain(|_, running| {
            let kept = listed.contains_key(&running.peer.key);
            if !kept {
                running.stop.cancel();
                registry.lock().peers.remove(&running.peer.key);
            }
            kept
        });
        for (key, entry) in listed {
            match self.peers.get_mut(&key.into()) {
                Some(running) => {
                    running.updates.send_if_modified(|current| {
                        let changed = current.as_ref() != entry;
                        *current = entry.cloned();
                        changed
                    });
                    if let Some(entry) = entry {
                        running.peer.rename(entry.server.clone());
                    }
                }
                None => {
                    let name = entry.map(|e| e.server.clone()).or_else(|| policy.map(|p| p.server.clone()));
                    if let Some(name) = name {
                        self.start_peer(key, entry, name);
                    }
                }
            }
        }
    }

    fn start_peer(&mut self, key: GatewayPublicKey, entry: Option<&PeerEntry>, name: ServerName) {
        let stop = self.stop.child_token();
        let (own, routes) = (self.context.path.local, &self.context.routes);
        let counters = self.context.path.socket.counters().clone();
        let (peer, mailbox) = Peer::new(key, entry.is_none(), name, self.context.changed.clone(), counters);
        let updates = watch::Sender::new(entry.cloned());
        match entry {
            Some(entry) => {
                self.relays.tell_home(&peer, entry);
                // Each side knows both keys, so exactly one of them follows.
                let arrivals = routes.meet(key, own < key);
                let context = self.context.path.clone();
                let actor = PathActor::new(peer.clone(), entry, updates.subscribe(), arrivals, context, mailbox);
                self.tasks.spawn(actor.run(stop.clone()));
            }
            None => routes.meet_self(key),
        }
        let inbound = Handover::default();
        let keeper = Keeper {
            peer: peer.clone(),
            local: own,
            endpoint: self.context.endpoint.clone(),
            inbound: inbound.clone(),
            listener: self.context.listener.clone(),
            home: self.context.home.subscribe(),
        };
        self.tasks.spawn(keeper.run(stop.clone()));
        self.registry.lock().peers.insert(key, peer.clone());
        let handshakes = Arc::new(Semaphore::new(PEER_HANDSHAKES));
        self.peers.insert(key.into(), RunningPeer { peer, inbound, handshakes, updates, stop });
    }

    /// A tunnel is wanted while a connection of the pair may carry data.
    pub(super) fn mark_wanted(&self, view: &PolicyView) {
        let now = self.context.authority.now();
        let connections = view.policy.iter().flat_map(|policy| &policy.connections);
        let wanted: BTreeSet<_> = connections
            .filter(|entry| view.authorize(entry.id, role(entry) == Role::Sender, now).is_ok())
            .map(|entry| entry.peer)
            .collect();
        for running in self.peers.values() {
            let next = wanted.contains(&running.peer.key);
            running.peer.wanted.send_if_modified(|current| std::mem::replace(current, next) != next);
        }
    }

    /// A tunnel that the peer behind this address dialled.
    pub(super) fn hand_over(&self, address: RelayAddress, connection: Connection) {
        let Some(running) = self.peers.get(&address) else { return };
        if running.peer.is_self {
            let stop = running.stop.clone();
            let serving = serve_self(connection, running.peer.clone(), self.context.listener.clone());
            self.tasks.spawn(async move {
                stop.run_until_cancelled(serving).await;
            });
        } else if let Some(older) = running.inbound.put(connection) {
            // Nobody took the older one yet; the newest is the one the peer uses.
            older.close(VarInt::from_u32(0), b"replaced by a newer tunnel");
        }
    }
}
