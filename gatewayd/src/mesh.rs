//! Brings policy, relays, peers and connections together: what the policy lists runs, what it drops ends.
//!
//! The mesh owns every long-lived task of the tunnel side: a link per relay, a path actor and a tunnel keeper per
//! peer, a sender per sending connection. At each new policy it compares, starts and stops; each task has its own stop
//! token below the mesh's. It also hands probes, signals and dialled tunnels to the peers they belong to.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use gateway_proto::{
    audit::note::{OurReason, Refusable, Refusal},
    id::{ConnectionId, RelayId},
    identity::GatewayPublicKey,
    path::{LocalSocket, PacketClass, probe_session_id},
    policy::{PeerEntry, Policy, RelayEntry},
    relay::{HomeChooser, RelayAddress},
};
use quinn::{Connection, ConnectionError};
use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    task::JoinSet,
    time::{sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use crate::{
    authority::{Authority, PolicyView},
    credentials::{self, AllowedPeers},
    keeper::{HANDSHAKE_TIMEOUT, Keeper, serve_self},
    listener::ListenerContext,
    path_actor::{PathActor, PathContext},
    peer::{Links, PathCommand, Peer},
    registry::{self, Registry},
    relay_link::{LinkContext, LinkHandle, RelayInbound, link},
    relay_probe,
    routes::{Route, Routes},
    sender::{Sender, SenderContext},
    socket::PathPacket,
    traffic::Role,
    tunnel::TunnelEndpoint,
};

/// Relays that we attach to for their latency: the home relay, and a spare that is ready when it fails. The heir of the home comes on top.
const OWN_RELAYS: usize = 2;
/// Links at most, with the home relays of peers.
const MAX_LINKS: usize = 8;
/// Handshakes under way that one peer dialled: one that hangs, and the next.
const PEER_HANDSHAKES: usize = 2;
/// How often it is looked again whether tunnels are still wanted.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// STUN packets that wait for the gatherer.
pub const STUN_QUEUE: usize = 32;

/// Everything the mesh works with.
#[derive(Debug)]
pub struct MeshContext {
    /// Policy and keys.
    pub authority: Authority,
    /// QUIC.
    pub endpoint: TunnelEndpoint,
    /// Keys that may open tunnels.
    pub allowed: AllowedPeers,
    /// The socket's routes.
    pub routes: Arc<Routes>,
    /// What path actors share.
    pub path: PathContext,
    /// For relay links.
    pub link: LinkContext,
    /// For streams from peers.
    pub listener: ListenerContext,
    /// For local ports.
    pub sender: SenderContext,
    /// STUN servers of the policy, for the gatherer.
    pub stun_servers: watch::Sender<Vec<String>>,
    /// STUN packets, for the gatherer.
    pub stun_packets: mpsc::Sender<(SocketAddr, Vec<u8>)>,
    /// The links path actors choose from.
    pub links: watch::Sender<Links>,
    /// Told when something worth reporting changes.
    pub changed: Arc<Notify>,
    /// The relay where peers find us.
    pub home: watch::Sender<Option<RelayId>>,
    /// The relays whose latency is measured.
    pub relay_targets: watch::Sender<relay_probe::Targets>,
}

/// The queues the mesh empties.
#[derive(Debug)]
pub struct MeshQueues {
    /// Probes and STUN from the socket.
    pub path_packets: mpsc::Receiver<PathPacket>,
    /// Signals and hints from relay links.
    pub relay_inbound: mpsc::Receiver<RelayInbound>,
    /// Told when a relay link's state changes.
    pub link_changes: watch::Receiver<u64>,
    /// Round trips to relays.
    pub latencies: mpsc::Receiver<(RelayId, Duration)>,
}

struct RunningPeer {
    peer: Arc<Peer>,
    inbound: watch::Sender<Option<Connection>>,
    handshakes: Arc<Semaphore>,
    updates: watch::Sender<Option<PeerEntry>>,
    stop: CancellationToken,
}

struct RunningRelay {
    entry: RelayEntry,
    handle: LinkHandle,
    stop: CancellationToken,
}

/// See the module's description.
pub struct Mesh {
    context: MeshContext,
    registry: Registry,
    peers: HashMap<RelayAddress, RunningPeer>,
    senders: HashMap<ConnectionId, (GatewayPublicKey, CancellationToken)>,
    relays: BTreeMap<RelayId, RunningRelay>,
    chooser: HomeChooser,
    /// Relays of our own, as they were chosen last.
    own: Vec<RelayId>,
    handshakes: JoinSet<Option<(RelayAddress, Connection)>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Mesh {
    /// A mesh that runs nothing yet.
    pub fn new(context: MeshContext, registry: Registry, stop: CancellationToken) -> Self {
        Self {
            context,
            registry,
            peers: HashMap::new(),
            senders: HashMap::new(),
            relays: BTreeMap::new(),
            chooser: HomeChooser::default(),
            own: Vec::new(),
            handshakes: JoinSet::new(),
            tasks: TaskTracker::new(),
            stop,
        }
    }

    /// Runs until its stop token; then stops everything it started and waits for it.
    pub async fn run(mut self, queues: MeshQueues) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.drive(queues)).await;
        self.handshakes.shutdown().await;
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn drive(&mut self, mut queues: MeshQueues) {
        let mut views = self.context.authority.subscribe();
        views.mark_changed();
        // Permissions also end by time. The gate cuts streams and ports then; the tunnel may follow a little later.
        let mut again = tokio::time::interval(LOOK_AGAIN);
        loop {
            let falls_at = self.chooser.poll_timeout(Instant::now());
            let fallen = async {
                match falls_at {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = views.changed() => match changed {
                    Ok(()) => {
                        let view = views.borrow_and_update().clone();
                        self.reconcile(&view);
                    }
                    Err(_) => return,
                },
                _ = again.tick() => {
                    let view = self.context.authority.view();
                    self.mark_wanted(&view);
                    self.choose_relays();
                }
                Some(packet) = queues.path_packets.recv() => self.route_path_packet(packet),
                Some(inbound) = queues.relay_inbound.recv() => self.route_relay_inbound(inbound),
                Ok(()) = queues.link_changes.changed() => {
                    queues.link_changes.mark_unchanged();
                    self.choose_home();
                    self.choose_relays();
                }
                // A link has not been attached for long.
                () = fallen => self.choose_relays(),
                Some((relay, rtt)) = queues.latencies.recv() => {
                    self.chooser.measured(relay, rtt, Instant::now());
                    let view = self.context.authority.view();
                    if let Some(policy) = &view.policy {
                        self.reconcile_relays(&policy.relays, &policy.peers);
                    }
                }
                incoming = self.context.endpoint.accept() => match incoming {
                    Some(incoming) => self.answer(incoming),
                    None => return,
                },
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some((address, connection))) = done {
                        self.hand_over(address, connection);
                    }
                }
            }
        }
    }

    /// Makes what runs equal to what the policy lists.
    fn reconcile(&mut self, view: &PolicyView) {
        let policy: &Option<Arc<Policy>> = &view.policy;
        let (relays, peers, connections) = match policy {
            Some(policy) => (&policy.relays[..], &policy.peers[..], &policy.connections[..]),
            None => (&[][..], &[][..], &[][..]),
        };
        self.reconcile_relays(relays, peers);
        self.reconcile_peers(policy.as_deref());
        let senders: BTreeMap<_, _> = connections
            .iter()
            .filter(|entry| entry.local.opens_streams())
            .map(|entry| (entry.id, entry.peer))
            .collect();
        self.reconcile_senders(&senders);
        let listed: BTreeSet<_> = connections.iter().map(|entry| (entry.id, crate::gate::role(entry))).collect();
        self.context.listener.traffic.retain(|id, role| listed.contains(&(id, role)));
        // Without a policy nothing is known to have ended.
        if policy.is_some() {
            self.context.sender.ports.retain(|id| senders.contains_key(&id));
        }
        self.mark_wanted(view);
    }

    fn reconcile_relays(&mut self, relays: &[RelayEntry], peers: &[PeerEntry]) {
        self.chooser.set_map(relays.iter().map(|relay| (relay.id, relay.region.as_deref())));
        self.see_links();
        self.own = self.chooser.wanted(OWN_RELAYS, MAX_LINKS, Instant::now());
        let own = &self.own;
        let homes: BTreeSet<_> = peers.iter().filter_map(|peer| peer.home_relay).collect();
        let mut chosen: Vec<_> =
            relays.iter().filter(|relay| own.contains(&relay.id) || homes.contains(&relay.id)).collect();
        chosen.sort_by_key(|relay| own.iter().position(|id| *id == relay.id).unwrap_or(MAX_LINKS));
        chosen.truncate(MAX_LINKS);
        self.relays.retain(|_, running| {
            let same = |relay: &&&RelayEntry| {
                RelayEntry { region: running.entry.region.clone(), ..(**relay).clone() } == running.entry
            };
            match chosen.iter().find(same) {
                // Where it stands is no reason to attach anew.
                Some(relay) => running.entry.region.clone_from(&relay.region),
                None => running.stop.cancel(),
            }
            !running.stop.is_cancelled()
        });
        for relay in &chosen {
            if !self.relays.contains_key(&relay.id) {
                let stop = self.stop.child_token();
                let (handle, future) = link((*relay).clone(), self.context.link.clone(), stop.clone());
                self.tasks.spawn(future);
                self.relays.insert(relay.id, RunningRelay { entry: (*relay).clone(), handle, stop });
            }
        }
        let ordered: Vec<_> = chosen.iter().filter_map(|relay| self.relays.get(&relay.id)).collect();
        let links: Links = Arc::new(ordered.iter().map(|r| (r.entry.id, r.handle.clone())).collect());
        let now = Instant::now();
        let running = |relay: &&RunningRelay| registry::RunningRelay {
            entry: relay.entry.clone(),
            link: relay.handle.clone(),
            latency: self.chooser.latency(relay.entry.id, now),
        };
        self.registry.lock().relays = ordered.iter().map(running).collect();
        self.context.links.send_replace(links);
        let stun = relays.iter().flat_map(|relay| relay.stun.iter().cloned()).collect::<Vec<_>>();
        self.context.stun_servers.send_if_modified(|current| {
            let changed = *current != stun;
            *current = stun;
            changed
        });
        let targets = relays.iter().filter_map(|relay| Some((relay.id, relay.stun.first()?.clone()))).collect();
        self.context.relay_targets.send_if_modified(|current| {
            let changed = *current != targets;
            *current = targets;
            changed
        });
        self.see_links();
        self.choose_home();
    }

    /// Tells the chooser how the links stand.
    fn see_links(&mut self) {
        let running = self.relays.iter().map(|(id, running)| (*id, stands(&running.handle)));
        self.chooser.links(running, Instant::now());
    }

    /// Attaches to other relays, if the links that stand or fell ask for it.
    fn choose_relays(&mut self) {
        self.see_links();
        if self.chooser.wanted(OWN_RELAYS, MAX_LINKS, Instant::now()) == self.own {
            return;
        }
        let view = self.context.authority.view();
        if let Some(policy) = &view.policy {
            self.reconcile_relays(&policy.relays, &policy.peers);
        }
    }

    /// The relay where peers find us.
    fn choose_home(&mut self) {
        let links = self.context.links.borrow().clone();
        let attached: Vec<_> = links.iter().filter(|(_, link)| stands(link)).map(|(id, _)| *id).collect();
        let next = self.chooser.decide(&attached, Instant::now());
        let reason = self.chooser.reason();
        self.registry.lock().home_reason = reason;
        let changed = self.context.home.send_if_modified(|home| std::mem::replace(home, next) != next);
        if let (true, Some(relay), Some(reason)) = (changed, next, reason) {
            info!(%relay, reason = reason.code(), "home relay: {reason}");
        }
    }

    fn reconcile_peers(&mut self, policy: Option<&Policy>) {
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

    fn start_peer(
        &mut self,
        key: GatewayPublicKey,
        entry: Option<&PeerEntry>,
        name: gateway_proto::policy::ServerName,
    ) {
        let stop = self.stop.child_token();
        let (peer, mailbox) = Peer::new(key, entry.is_none(), name, self.context.changed.clone());
        let updates = watch::Sender::new(entry.cloned());
        match entry {
            Some(entry) => {
                self.context.routes.set(key, Route::NONE);
                let context = self.context.path.clone();
                let actor = PathActor::new(peer.clone(), entry, updates.subscribe(), context, mailbox);
                self.tasks.spawn(actor.run(stop.clone()));
            }
            None => self.context.routes.set(key, Route { local: true, ..Route::NONE }),
        }
        let (inbound, inbound_rx) = watch::channel(None);
        let keeper = Keeper {
            peer: peer.clone(),
            local: self.context.path.local,
            endpoint: self.context.endpoint.clone(),
            inbound: inbound_rx,
            listener: self.context.listener.clone(),
        };
        self.tasks.spawn(keeper.run(stop.clone()));
        self.registry.lock().peers.insert(key, peer.clone());
        self.peers.insert(
            key.into(),
            RunningPeer { peer, inbound, handshakes: Arc::new(Semaphore::new(PEER_HANDSHAKES)), updates, stop },
        );
    }

    fn reconcile_senders(&mut self, listed: &BTreeMap<ConnectionId, GatewayPublicKey>) {
        let registry = self.registry.clone();
        self.senders.retain(|id, (peer, stop)| {
            let kept = listed.get(id) == Some(peer);
            if !kept {
                stop.cancel();
                registry.lock().senders.remove(id);
            }
            kept
        });
        for (id, key) in listed {
            let Some(running) = self.peers.get(&(*key).into()) else { continue };
            if self.senders.contains_key(id) {
                continue;
            }
            let stop = self.stop.child_token();
            let (sender, handle) = Sender::new(*id, running.peer.clone(), self.context.sender.clone());
            self.tasks.spawn(sender.run(stop.clone()));
            self.registry.lock().senders.insert(*id, handle);
            self.senders.insert(*id, (*key, stop));
        }
    }

    /// A tunnel is wanted while a connection of the pair may carry data.
    fn mark_wanted(&self, view: &PolicyView) {
        let now = self.context.authority.now();
        let connections = view.policy.iter().flat_map(|policy| &policy.connections);
        let wanted: BTreeSet<_> = connections
            .filter(|entry| view.authorize(entry.id, crate::gate::role(entry) == Role::Sender, now).is_ok())
            .map(|entry| entry.peer)
            .collect();
        for running in self.peers.values() {
            let next = wanted.contains(&running.peer.key);
            running.peer.wanted.send_if_modified(|current| std::mem::replace(current, next) != next);
        }
    }

    fn route_path_packet(&self, packet: PathPacket) {
        match packet.class {
            PacketClass::Stun => {
                let _ = self.context.stun_packets.try_send((packet.from, packet.packet));
            }
            PacketClass::Probe => {
                let Some(id) = probe_session_id(&packet.packet) else { return };
                for key in self.context.path.sessions.peers(&id) {
                    if let Some(running) = self.peers.get(&key.into()) {
                        let (from, packet) = (packet.from, packet.packet.clone());
                        running.peer.command(PathCommand::Probe { socket: LocalSocket::MAIN, from, packet });
                    }
                }
            }
            PacketClass::Quic | PacketClass::Unknown => {}
        }
    }

    fn route_relay_inbound(&self, inbound: RelayInbound) {
        match inbound {
            RelayInbound::Signal { source, sealed } => match self.peers.get(&source) {
                Some(running) => running.peer.command(PathCommand::Signal(sealed)),
                None => {
                    self.refused(Refusal { what: Refusable::Signal, ..Refusal::of_stream(OurReason::UnknownGateway) });
                    debug!("signal from a gateway that is no peer dropped");
                }
            },
            RelayInbound::AnotherWay(peer) => {
                if let Some(running) = self.peers.get(&peer) {
                    running.peer.command(PathCommand::Doubt);
                }
            }
            RelayInbound::AnotherRelay { relay, peer } => {
                if let Some(running) = self.peers.get(&peer) {
                    running.peer.command(PathCommand::HeardOver(relay));
                }
            }
            // A hint, not a proof: silence on the wire decides (design notes, rule on relay presence).
            RelayInbound::Absent { relay, peer } => {
                if let Some(running) = self.peers.get(&peer) {
                    running.peer.command(PathCommand::Absent(relay));
                }
            }
        }
    }

    fn refused(&self, refusal: Refusal) {
        self.context.listener.audit.refused(refusal);
    }

    /// Lets a known peer go on with its handshake.
    fn answer(&mut self, incoming: quinn::Incoming) {
        let Some(key) = self.context.routes.peer(&incoming.remote_address()) else { return incoming.ignore() };
        let Some(running) = self.peers.get(&key.into()) else {
            // Not proved: whoever it is uses this gateway's address.
            self.refused(Refusal::of_tunnel(OurReason::UnknownGateway, Some(key)));
            return incoming.ignore();
        };
        let Ok(place) = running.handshakes.clone().try_acquire_owned() else {
            self.refused(Refusal::of_tunnel(OurReason::TooManyHandshakes, Some(key)));
            return incoming.refuse();
        };
        let Ok(connecting) = self.context.endpoint.answer(incoming, &running.peer.path_epoch) else { return };
        let audit = self.context.listener.audit.clone();
        self.handshakes.spawn(async move {
            let _place = place;
            let Ok(shaken) = timeout(HANDSHAKE_TIMEOUT, connecting).await else {
                debug!(peer = %key.short(), "handshake takes too long");
                return None;
            };
            match shaken {
                Ok(connection) if credentials::proved_key(&connection) == Some(key) => Some((key.into(), connection)),
                Ok(connection) => {
                    warn!(peer = %key.short(), "a peer used another peer's address");
                    audit.refused(Refusal::of_tunnel(OurReason::WrongKey, credentials::proved_key(&connection)));
                    connection.close(quinn::VarInt::from_u32(0), b"wrong key");
                    None
                }
                Err(error) => {
                    // What TLS does not accept is a key that is not allowed, or no proof of it.
                    if matches!(error, ConnectionError::TransportError(_)) {
                        audit.refused(Refusal::of_tunnel(OurReason::WrongKey, Some(key)));
                    }
                    debug!(peer = %key.short(), %error, "handshake failed");
                    None
                }
            }
        });
    }

    fn hand_over(&self, address: RelayAddress, connection: Connection) {
        let Some(running) = self.peers.get(&address) else { return };
        if running.peer.is_self {
            let stop = running.stop.clone();
            let serving = serve_self(connection, running.peer.clone(), self.context.listener.clone());
            self.tasks.spawn(async move {
                stop.run_until_cancelled(serving).await;
            });
        } else if let Some(older) = running.inbound.send_replace(Some(connection)) {
            // Nobody took the older one yet; the newest is the one the peer uses.
            older.close(quinn::VarInt::from_u32(0), b"replaced by a newer tunnel");
        }
    }
}

/// Attached, to a relay that is not about to stop.
fn stands(link: &LinkHandle) -> bool {
    let state = link.state();
    let state = state.borrow();
    state.attached && !state.restarting
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh").field("peers", &self.peers.len()).finish_non_exhaustive()
    }
}
