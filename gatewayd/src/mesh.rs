//! Brings policy, relays, peers and connections together: what the policy lists runs, what it drops ends.
//!
//! The mesh owns every long-lived task of the tunnel side: a link per relay, a path actor and a tunnel keeper per
//! peer, a sender per sending connection. At each new policy it compares, starts and stops; each task has its own stop
//! token below the mesh's. It also hands probes, signals and dialled tunnels to the peers they belong to.

mod handshakes;
mod peers;
mod relays;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use gateway_proto::{
    audit::note::{OurReason, Refusable, Refusal},
    id::{ConnectionId, RelayId},
    identity::GatewayPublicKey,
    path::{LocalSocket, PacketClass, probe_session_id},
    policy::Policy,
    relay::RelayAddress,
};
use peers::RunningPeer;
use quinn::Connection;
pub(crate) use relays::MAX_LINKS;
use relays::Relays;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use crate::{
    authority::{Authority, PolicyView},
    credentials::AllowedPeers,
    gate::role,
    listener::ListenerContext,
    path_actor::PathContext,
    peer::{Links, PathCommand},
    registry::Registry,
    relay_inbound::{RelayInbound, RelayNews},
    relay_link::LinkContext,
    relay_probe,
    routes::Routes,
    sender::{Sender, SenderContext},
    socket::PathPacket,
    timer::until,
    tunnel::TunnelEndpoint,
};

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

/// See the module's description.
pub struct Mesh {
    context: MeshContext,
    registry: Registry,
    peers: HashMap<RelayAddress, RunningPeer>,
    senders: HashMap<ConnectionId, (GatewayPublicKey, CancellationToken)>,
    relays: Relays,
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
            relays: Relays::default(),
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
        let homes_moved = self.context.path.homes_moved.clone();
        loop {
            let falls_at = self.relays.chooser.poll_timeout(Instant::now());
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
                () = homes_moved.notified() => self.attach(),
                // A link has not been attached for long.
                () = until(falls_at) => self.choose_relays(),
                Some((relay, rtt)) = queues.latencies.recv() => self.take_latency(relay, rtt),
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
        // One that stands by runs nothing, as without a policy; but nothing of the policy has ended.
        let policy: Option<&Arc<Policy>> = view.policy.as_ref().filter(|_| view.takes_part());
        let (relays, peers, connections) = match policy {
            Some(policy) => (&policy.relays[..], &policy.peers[..], &policy.connections[..]),
            None => (&[][..], &[][..], &[][..]),
        };
        self.take_homes(relays, peers);
        self.reconcile_relays(relays, peers);
        self.reconcile_peers(policy.map(|policy| &**policy));
        let senders: BTreeMap<_, _> = connections
            .iter()
            .filter(|entry| entry.local.opens_streams())
            .map(|entry| (entry.id, entry.peer))
            .collect();
        // Before any of them opens its own.
        self.context.sender.ports.settle();
        self.reconcile_senders(&senders);
        let all = view.policy.iter().flat_map(|policy| &policy.connections);
        let listed: BTreeSet<_> = all.map(|entry| (entry.id, role(entry))).collect();
        self.context.listener.traffic.retain(|id, role| listed.contains(&(id, role)));
        self.mark_wanted(view);
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

    fn route_path_packet(&self, packet: PathPacket) {
        match packet.class {
            PacketClass::Stun => {
                if self.context.stun_packets.try_send((packet.from, packet.packet)).is_err() {
                    self.context.path.socket.counters().stun_dropped.fetch_add(1, Relaxed);
                }
            }
            PacketClass::Probe => {
                let Some(id) = probe_session_id(&packet.packet) else { return };
                for key in self.context.path.sessions.peers(&id) {
                    if let Some(running) = self.peers.get(&key.into()) {
                        let (from, local, packet) = (packet.from, packet.local, packet.packet.clone());
                        running.peer.command(PathCommand::Probe { socket: LocalSocket::MAIN, local, from, packet });
                    }
                }
            }
            PacketClass::Quic | PacketClass::Unknown => {}
        }
    }

    fn route_relay_inbound(&self, inbound: RelayInbound) {
        let Some(running) = self.peers.get(&inbound.peer) else {
            if matches!(inbound.news, RelayNews::Signal(_)) {
                self.refused(Refusal { what: Refusable::Signal, ..Refusal::of_stream(OurReason::UnknownGateway) });
                debug!("signal from a gateway that is no peer dropped");
            }
            return;
        };
        if matches!(inbound.news, RelayNews::Signal(_)) {
            running.peer.shows_itself();
        }
        running.peer.command(PathCommand::Relay(inbound));
    }

    fn refused(&self, refusal: Refusal) {
        self.context.listener.audit.refused(refusal);
    }
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh").field("peers", &self.peers.len()).finish_non_exhaustive()
    }
}
