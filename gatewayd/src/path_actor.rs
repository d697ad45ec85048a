//! Drives the path agent of one peer.
//!
//! The decisions are the agent's (gateway-proto, sans-IO); the actor moves bytes, arms one timer and writes the chosen
//! path into the socket's routes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use gateway_net::{entropy::random, time::unix_ms};
use gateway_proto::{
    id::RelayId,
    identity::{GatewayPublicKey, NoiseKey},
    path::{LocalSocket, Obstacle, PathAgent, PathConfig, PathEvent, PathTransmit, Selected, probe_session_id},
    policy::PeerEntry,
    relay::{Hearing, Standing},
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{MissedTickBehavior, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use zeroize::Zeroizing;

use crate::{
    generations::Generations,
    peer::{Links, LocalCandidates, PathCommand, Peer},
    relay_link::LinkHandle,
    routes::{Route, Routes},
    side_socket::SideSockets,
    socket::TunnelSocket,
    tunnel::Tunnel,
};

/// How long a relay that did not see the peer is avoided, while there is another.
const ABSENT_MEMORY: Duration = Duration::from_secs(10);

/// How often the loss and the silence of a path that carries data are looked at, and a handshake without an answer.
const TRAFFIC_INTERVAL: Duration = Duration::from_millis(250);

/// Which peers a probe's session id may belong to. Ids are chosen by the offering side, so two peers may share one.
#[derive(Debug, Clone, Default)]
pub struct SessionIndex(Arc<Mutex<HashMap<[u8; 8], Vec<GatewayPublicKey>>>>);

impl SessionIndex {
    /// The peers that know this id.
    pub fn peers(&self, id: &[u8; 8]) -> Vec<GatewayPublicKey> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned().unwrap_or_default()
    }

    /// Whether a probe carries an id that some peer knows.
    pub fn knows(&self, probe: &[u8]) -> bool {
        let index = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        probe_session_id(probe).is_some_and(|id| index.contains_key(&id))
    }

    pub(crate) fn replace(&self, peer: GatewayPublicKey, old: &[[u8; 8]], new: &[[u8; 8]]) {
        let mut index = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for id in old {
            if let Some(peers) = index.get_mut(id) {
                peers.retain(|p| *p != peer);
                if peers.is_empty() {
                    index.remove(id);
                }
            }
        }
        for id in new {
            index.entry(*id).or_default().push(peer);
        }
    }
}

/// What path actors share.
#[derive(Debug, Clone)]
pub struct PathContext {
    /// The socket that sends probes.
    pub socket: Arc<TunnelSocket>,
    /// Where chosen paths are written.
    pub routes: Arc<Routes>,
    /// Where session ids are announced.
    pub sessions: SessionIndex,
    /// Our addresses.
    pub candidates: watch::Receiver<LocalCandidates>,
    /// Our relay links.
    pub links: watch::Receiver<Links>,
    /// Told whenever a link's state changes.
    pub link_changes: watch::Receiver<u64>,
    /// Told whenever the machine's network changes or it slept.
    pub network: watch::Receiver<u64>,
    /// Which generations of our offers were used up.
    pub generations: Generations,
    /// Whether loopback addresses are candidates.
    pub allow_loopback: bool,
    /// Whether direct paths may be used at all.
    pub direct: bool,
    /// Whether ports may be guessed.
    pub guessing: bool,
    /// Runs with many sockets under way, over all peers.
    pub guess_runs: Arc<Semaphore>,
    /// Our key.
    pub local: GatewayPublicKey,
    /// Our Noise key.
    pub noise: NoiseKey,
}

impl PathContext {
    fn config(&self, entry: &PeerEntry) -> PathConfig {
        PathConfig {
            local_key: *self.local.as_bytes(),
            remote_key: *entry.key.as_bytes(),
            noise_private: self.noise.private(),
            remote_noise: *entry.noise.key.as_bytes(),
            pair_secret: Zeroizing::new(*entry.pair_secret.expose()),
            allow_loopback: self.allow_loopback,
            allow_guessing: self.guessing,
        }
    }
}

/// What the tunnel had sent, lost and received when it was asked last, and which tunnel.
#[derive(Debug, Default)]
struct Traffic {
    tunnel: usize,
    sent: u64,
    lost: u64,
    received: u64,
}

/// Drives the path agent of one peer.
#[derive(Debug)]
pub struct PathActor {
    peer: Arc<Peer>,
    entries: watch::Receiver<Option<PeerEntry>>,
    home_relay: Option<RelayId>,
    /// A relay that did not see the peer, and when it said so.
    absent: Option<(RelayId, Instant)>,
    agent: PathAgent,
    context: PathContext,
    mailbox: mpsc::Receiver<PathCommand>,
    link: Option<(RelayId, LinkHandle)>,
    /// Used beside it while it gives no sign of life.
    spare: Option<(RelayId, LinkHandle)>,
    /// The relay that is used when the peer's packets say nothing else, and what they say.
    usual: Option<RelayId>,
    hearing: Hearing,
    /// Since when a tunnel is being dialled.
    dialled_at: Option<Instant>,
    /// The generation of the last offer or answer that was sent.
    generation: u64,
    /// How often UDP to that relay had stopped passing when it was looked at last.
    carrier_falls: u64,
    sessions: Vec<[u8; 8]>,
    side: SideSockets,
    traffic: Traffic,
}

impl PathActor {
    /// An actor for a peer of the policy.
    pub fn new(
        peer: Arc<Peer>,
        entry: &PeerEntry,
        entries: watch::Receiver<Option<PeerEntry>>,
        context: PathContext,
        mailbox: mpsc::Receiver<PathCommand>,
    ) -> Self {
        let mut agent = PathAgent::new(context.config(entry), random(), Instant::now());
        let generation = context.generations.former();
        agent.resume_above(generation);
        let side = SideSockets::new(context.guess_runs.clone());
        Self {
            peer,
            entries,
            home_relay: entry.home_relay,
            absent: None,
            agent,
            context,
            mailbox,
            link: None,
            spare: None,
            usual: None,
            hearing: Hearing::Usual,
            dialled_at: None,
            generation,
            carrier_falls: 0,
            sessions: Vec::new(),
            side,
            traffic: Traffic::default(),
        }
    }

    /// Runs until `stop`; leaves no route and no session behind.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.drive()).await;
        self.context.sessions.replace(self.peer.key, &self.sessions, &[]);
        self.context.routes.remove(self.peer.key);
        self.peer.reachable.send_replace(false);
    }

    async fn drive(&mut self) {
        let peer = self.peer.clone();
        let mut wanted = self.peer.wanted.subscribe();
        let (mut streams, mut dialling) = (self.peer.streams.subscribe(), self.peer.dialling.subscribe());
        let mut candidates = self.context.candidates.clone();
        let mut links = self.context.links.clone();
        let mut link_changes = self.context.link_changes.clone();
        let mut network = self.context.network.clone();
        let mut traffic = tokio::time::interval(TRAFFIC_INTERVAL);
        traffic.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.context.routes.meet(self.peer.key, self.context.local < self.peer.key);
        self.want_direct(&mut wanted);
        self.take_candidates(&mut candidates);
        self.choose_link();
        loop {
            self.settle();
            let due = self.agent.poll_timeout().map(|(at, _)| tokio::time::Instant::from_std(at));
            let timer = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = self.mailbox.recv() => match command {
                    Some(command) => self.handle(command),
                    None => return,
                },
                () = peer.proof.missed() => {
                    self.agent.check(Instant::now());
                    self.ask_relay();
                }
                () = timer => self.agent.handle_timeout(Instant::now(), unix_ms()),
                _ = traffic.tick(), if self.is_watched() => self.watch_traffic(),
                Ok(()) = self.entries.changed() => self.take_entry(),
                Ok(()) = wanted.changed() => self.want_direct(&mut wanted),
                Ok(()) = streams.changed() => { streams.mark_unchanged(); self.take_activity() }
                Ok(()) = dialling.changed() => { dialling.mark_unchanged(); self.take_activity() }
                Ok(()) = candidates.changed() => self.take_candidates(&mut candidates),
                Ok(()) = links.changed() => { links.mark_unchanged(); self.choose_link() }
                Ok(()) = network.changed() => { network.mark_unchanged(); self.agent.network_changed(Instant::now()) }
                Ok(()) = link_changes.changed() => { link_changes.mark_unchanged(); self.choose_link() }
            }
        }
    }

    fn handle(&mut self, command: PathCommand) {
        let now = Instant::now();
        match command {
            PathCommand::Probe { socket, from, packet } => {
                if let Err(error) = self.agent.handle_probe(socket, from, &packet, now) {
                    debug!(peer = ?self.peer.key, %error, "probe refused");
                }
            }
            PathCommand::Signal(sealed) => {
                match self.agent.handle_signal(&sealed, now, unix_ms()) {
                    // A peer that looks for a path may have lost the one we use, with its whole memory of it.
                    Ok(()) => self.agent.check(now),
                    Err(error) => debug!(peer = ?self.peer.key, %error, "signal refused"),
                }
            }
            PathCommand::Absent(relay) => {
                self.absent = Some((relay, now));
                self.choose_link();
            }
            PathCommand::Doubt => self.agent.peer_doubts(now),
            PathCommand::HeardOver(relay) => {
                if self.link.as_ref().is_some_and(|(used, _)| *used != relay) {
                    self.ask_relay();
                }
                self.choose_link();
            }
            PathCommand::Relook => self.agent.relook(now),
        }
    }

    fn want_direct(&mut self, wanted: &mut watch::Receiver<bool>) {
        let wanted = *wanted.borrow_and_update() && self.context.direct;
        self.agent.wants_direct(wanted, Instant::now());
    }

    fn take_entry(&mut self) {
        let entry = self.entries.borrow_and_update().clone();
        if let Some(entry) = entry {
            self.agent.handle_config(self.context.config(&entry));
            self.home_relay = entry.home_relay;
            self.choose_link();
        }
    }

    fn take_candidates(&mut self, candidates: &mut watch::Receiver<LocalCandidates>) {
        let local = candidates.borrow_and_update().clone();
        self.agent.handle_local_candidates(local.candidates, local.nat, Instant::now());
    }

    /// The peer's home relay if we are attached there, else the first relay we are attached to; one that does not see the
    /// peer, gives no sign of life or is about to stop only when there is no other.
    ///
    /// One that is suspected stays, and another goes beside it; so does the one over which the peer is heard anew. That takes
    /// its place when the peer is heard over nothing else: what a relay says of itself is true for our half of the way.
    fn choose_link(&mut self) {
        let links = self.context.links.borrow().clone();
        let absent = self.absent.filter(|(_, at)| at.elapsed() < ABSENT_MEMORY).map(|(relay, _)| relay);
        let mut attached: Vec<_> = links.iter().filter(|(_, link)| link.state().borrow().attached).collect();
        let standing = |link: &LinkHandle| link.state().borrow().standing;
        attached.sort_by_key(|(id, link)| {
            let doubtful = standing(link) == Standing::Doubtful;
            let restarting = link.state().borrow().restarting;
            (absent == Some(*id), doubtful, restarting, self.home_relay != Some(*id))
        });
        self.usual = attached.first().map(|(id, _)| *id);
        self.hearing = self.context.routes.hearing(self.peer.key, self.usual, Instant::now());
        if let Hearing::Instead(relay) = self.hearing
            && absent != Some(relay)
            && let Some(at) = attached.iter().position(|(id, link)| {
                *id == relay && standing(link) != Standing::Doubtful && !link.state().borrow().restarting
            })
        {
            attached[..=at].rotate_right(1);
        }
        let best = attached.first().map(|best| (*best).clone());
        let beside = attached.into_iter().skip(1);
        let suspected = best.as_ref().is_some_and(|(_, link)| standing(link) == Standing::Suspected);
        let hearing = self.hearing;
        let mut spares = beside.filter(|(id, link)| match hearing {
            Hearing::Beside(heard) if heard == *id => true,
            Hearing::Usual | Hearing::Beside(_) | Hearing::Instead(_) => suspected && standing(link) == Standing::Sound,
        });
        let spare = spares.next().cloned();
        let id = |link: &Option<(RelayId, LinkHandle)>| link.as_ref().map(|(id, _)| *id);
        // One that was used beside the former one already has a congestion window of its own.
        let another = id(&self.link) != id(&best) && self.link.is_some() && id(&self.spare) != id(&best);
        let beside = spare.is_some() && self.spare.is_none();
        (self.link, self.spare) = (best, spare);
        let rtt = self.link.as_ref().and_then(|(_, link)| link.state().borrow().rtt);
        self.agent.handle_relay_state(self.link.is_some(), rtt, Instant::now());
        self.write_route();
        let falls = self.link.as_ref().map_or(0, |(_, link)| link.state().borrow().carrier_falls);
        let fell = std::mem::replace(&mut self.carrier_falls, falls) < falls;
        if (fell || another || beside) && self.agent.selected() == Selected::Relayed {
            self.doubt_path();
        }
    }

    /// Packets take another way than those before: congestion control starts anew, and a round trip shows what was lost.
    fn doubt_path(&self) {
        self.peer.path_doubted();
        self.peer.proof.nudge();
    }

    /// What went over the relay stays unanswered: the relay, or the peer's way to it, may be gone.
    fn ask_relay(&self) {
        if let (Selected::Relayed, Some((_, link))) = (self.agent.selected(), &self.link) {
            link.ask();
        }
    }

    /// A path with open streams: its loss and its silence count.
    fn carries_data(&self) -> bool {
        *self.peer.streams.borrow() > 0 && self.agent.selected() != Selected::None
    }

    /// Whether something of it is looked at four times a second.
    fn is_watched(&self) -> bool {
        self.carries_data() || self.dialled_at.is_some() || matches!(self.hearing, Hearing::Beside(_))
    }

    /// Streams opened or closed, or a tunnel begins to be dialled: meanwhile nobody else would miss an answer.
    fn take_activity(&mut self) {
        let (now, dialling) = (Instant::now(), *self.peer.dialling.borrow());
        self.dialled_at = dialling.then(|| self.dialled_at.unwrap_or(now));
        self.agent.set_active(dialling || *self.peer.streams.borrow() > 0, now);
        if dialling {
            self.agent.check(now);
        }
    }

    fn watch_traffic(&mut self) {
        if self.context.routes.hearing(self.peer.key, self.usual, Instant::now()) != self.hearing {
            self.choose_link();
        }
        if self.dialled_at.is_some_and(|at| at.elapsed() >= TRAFFIC_INTERVAL) {
            self.agent.dialled_in_vain(Instant::now());
            self.ask_relay();
        }
        if !self.carries_data() {
            return;
        }
        let Some((tunnel, stats)) =
            self.peer.tunnel.borrow().as_ref().map(Tunnel::connection).map(|t| (t.stable_id(), t.stats()))
        else {
            return;
        };
        let (sent, lost, received) = (stats.path.sent_packets, stats.path.lost_packets, stats.udp_rx.datagrams);
        let former = std::mem::replace(&mut self.traffic, Traffic { tunnel, sent, lost, received });
        if former.tunnel != tunnel {
            return;
        }
        let (now, sent) = (Instant::now(), sent.saturating_sub(former.sent));
        self.agent.handle_traffic(sent, lost.saturating_sub(former.lost), now);
        // Packets go out and nothing comes back: the next heartbeat would ask the same, but later.
        if sent > 0 && received == former.received {
            self.agent.check(now);
            self.ask_relay();
        }
    }

    /// Carries out what the agent wants, until it wants nothing.
    fn settle(&mut self) {
        while let Some(transmit) = self.agent.poll_transmit() {
            match transmit {
                PathTransmit::Probe { socket: LocalSocket::MAIN, to, ttl: None, packet } => {
                    self.context.socket.send_probe(to, &packet);
                }
                PathTransmit::Probe { socket: LocalSocket::MAIN, to, ttl: Some(ttl), packet } => {
                    self.context.socket.send_short_lived(to, ttl, &packet);
                }
                PathTransmit::Probe { socket, to, ttl: _, packet } => self.side.send_probe(socket, to, &packet),
                PathTransmit::Signal { sealed } => {
                    let generation = self.agent.generation();
                    if std::mem::replace(&mut self.generation, generation) != generation {
                        self.context.generations.reserve(generation);
                    }
                    if let Some((_, link)) = &self.link {
                        link.signal(self.peer.key.into(), &sealed);
                    }
                }
            }
        }
        while let Some(event) = self.agent.poll_event() {
            match event {
                PathEvent::Selected { selected, reason } => {
                    if let Selected::Direct { remote, .. } = selected {
                        self.context.routes.claim(remote, self.peer.key);
                    }
                    self.peer.path_changed(reason);
                    info!(peer = %self.peer.key.short(), path = kind(&selected), %reason, "path selected");
                    self.write_route();
                    self.peer.proof.nudge();
                }
                PathEvent::Distrusted => {
                    // The relay is another path: nothing that was lost on this one holds back what goes there.
                    self.write_route();
                    self.doubt_path();
                    self.peer.handshake_doubted();
                }
                PathEvent::Trusted => self.write_route(),
                PathEvent::AddressAuthenticated(address) => self.context.routes.admit(address, self.peer.key),
                PathEvent::AddressForgotten(address) => self.context.routes.dismiss(address, self.peer.key),
                PathEvent::SessionsChanged => {
                    let sessions: Vec<_> = self.agent.probe_session_ids().collect();
                    self.context.sessions.replace(self.peer.key, &self.sessions, &sessions);
                    self.sessions = sessions;
                }
                PathEvent::OpenSockets { count } => {
                    let PathContext { socket, sessions, .. } = &self.context;
                    self.side.open(count, &self.peer, sessions, &socket.injector());
                }
                PathEvent::CloseSockets { keep } => {
                    self.side.close(keep);
                    self.write_route();
                }
                PathEvent::GuessEnded(outcome) => info!(
                    peer = %self.peer.key.short(),
                    probes = outcome.probes,
                    seconds = outcome.took.as_secs_f32(),
                    direct = outcome.direct,
                    "port guessing ended"
                ),
            }
        }
        let mut snapshot = self.agent.snapshot();
        if !self.context.direct {
            snapshot.obstacle = snapshot.obstacle.map(|_| Obstacle::SwitchedOff);
        }
        self.peer.set_path(snapshot);
    }

    fn write_route(&self) {
        let to_peer = |link: &Option<(RelayId, LinkHandle)>| {
            link.as_ref().map(|(_, link)| link.datagrams_to(self.peer.key.into()))
        };
        let (relay, spare) = (to_peer(&self.link), to_peer(&self.spare));
        let route = match self.agent.selected() {
            Selected::None => Route::NONE,
            Selected::Relayed => Route { relay, spare, ..Route::NONE },
            Selected::Direct { remote, socket, duplicate, .. } => {
                let side = self.side.get(socket);
                Route { direct: Some(remote), side, relay, spare, duplicate, local: false }
            }
        };
        let reachable = route.direct.is_some() || route.relay.is_some();
        self.context.routes.set(self.peer.key, route);
        self.peer.reachable.send_if_modified(|was| std::mem::replace(was, reachable) != reachable);
    }
}

fn kind(selected: &Selected) -> &'static str {
    match selected {
        Selected::None => "none",
        Selected::Relayed => "relayed",
        Selected::Direct { .. } => "direct",
    }
}
