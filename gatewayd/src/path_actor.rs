//! Drives the path agent of one peer.
//!
//! The decisions are the agent's, and which relays are used is decided by [`Arrivals`]' choice (gateway-proto, sans-IO); the
//! actor moves bytes, arms a timer for each and writes the chosen path into the socket's routes.

mod relays;
mod sessions;
mod sources;
mod traffic;

use std::{sync::Arc, time::Instant};

use gateway_net::{entropy::random, time::unix_ms};
use gateway_proto::{
    id::RelayId,
    identity::{GatewayPublicKey, NoiseKey},
    path::{LocalEnd, LocalSocket, PathAgent, PathConfig, PathEvent, PathTransmit, Selected},
    policy::PeerEntry,
    relay::PeerHome,
};
use relays::Relays;
pub use sessions::SessionIndex;
use sources::{Sources, are_ours};
use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use traffic::{TRAFFIC_INTERVAL, Traffic};
use zeroize::Zeroizing;

use crate::{
    candidates::{Punching, PunchingPeer},
    generations::Generations,
    guesses::Guesses,
    net_watch::way_to,
    peer::{Links, LocalCandidates, PathCommand, Peer},
    relay_inbound::RelayNews,
    relay_link::LinkHandle,
    routes::{Arrivals, Route, Routes},
    side_socket::SideSockets,
    socket::TunnelSocket,
    timer::until,
};

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
    /// The runs of port guessing of the last 24 hours.
    pub guesses: Guesses,
    /// Told when another relay is a peer's home, as the policy says or the peer itself: links may be wanted there.
    pub homes_moved: Arc<Notify>,
    /// Whether loopback addresses are candidates.
    pub allow_loopback: bool,
    /// Whether direct paths may be used at all.
    pub direct: bool,
    /// Whether ports may be guessed.
    pub guessing: bool,
    /// Those that look for a direct path.
    pub punching: Punching,
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
            allow_direct: self.direct,
            allow_guessing: self.guessing,
        }
    }
}

/// Drives the path agent of one peer.
#[derive(Debug)]
pub struct PathActor {
    peer: Arc<Peer>,
    entries: watch::Receiver<Option<PeerEntry>>,
    agent: PathAgent,
    context: PathContext,
    mailbox: mpsc::Receiver<PathCommand>,
    /// What comes of the peer over relays, and the choice of those that are used.
    arrivals: Arc<Arrivals>,
    relays: Relays,
    /// Since when a tunnel is being dialled.
    dialled_at: Option<Instant>,
    /// The generation of the last offer or answer that was sent.
    generation: u64,
    sessions: Vec<[u8; 8]>,
    side: SideSockets,
    /// While a direct path is wanted and there is none.
    punching: Option<PunchingPeer>,
    sources: Sources,
    traffic: Traffic,
}

impl PathActor {
    /// An actor for a peer of the policy. `arrivals` are those of its routes.
    pub fn new(
        peer: Arc<Peer>,
        entry: &PeerEntry,
        entries: watch::Receiver<Option<PeerEntry>>,
        arrivals: Arc<Arrivals>,
        context: PathContext,
        mailbox: mpsc::Receiver<PathCommand>,
    ) -> Self {
        let mut agent = PathAgent::new(context.config(entry), random(), Instant::now());
        let generation = context.generations.used();
        agent.resume_above(generation);
        agent.resume_guess_runs(context.guesses.ages(&peer.key), Instant::now());
        let side = SideSockets::new(context.guess_runs.clone());
        Self {
            peer,
            entries,
            agent,
            context,
            mailbox,
            arrivals,
            relays: Relays::default(),
            dialled_at: None,
            generation,
            sessions: Vec::new(),
            side,
            sources: Sources::default(),
            traffic: Traffic::default(),
            punching: None,
        }
    }

    /// Runs until `stop`; leaves no route and no session behind.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.drive()).await;
        self.context.sessions.replace(self.peer.key, &self.sessions, &[]);
        self.context.routes.remove(self.peer.key, &self.arrivals);
        self.peer.reachable.send_replace(false);
    }

    async fn drive(&mut self) {
        let (peer, arrivals) = (self.peer.clone(), self.arrivals.clone());
        let mut wanted = self.peer.wanted.subscribe();
        let (mut streams, mut dialling) = (self.peer.streams.subscribe(), self.peer.dialling.subscribe());
        let mut candidates = self.context.candidates.clone();
        let mut links = self.context.links.clone();
        let mut link_changes = self.context.link_changes.clone();
        let mut network = self.context.network.clone();
        let mut homes = self.peer.home.subscribe();
        let (mut tunnel, mut answers) = (self.peer.tunnel.subscribe(), self.peer.proof.answers());
        let mut traffic = tokio::time::interval(TRAFFIC_INTERVAL);
        traffic.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.want_direct(&mut wanted);
        self.take_candidates(&mut candidates);
        self.take_home(&mut homes);
        loop {
            self.settle();
            let due = self.agent.poll_timeout().map(|(at, _)| at);
            tokio::select! {
                command = self.mailbox.recv() => match command {
                    Some(command) => self.handle(command),
                    None => return,
                },
                () = peer.proof.missed() => {
                    self.agent.check(Instant::now());
                    self.miss_answer();
                }
                Ok(()) = answers.changed(), if self.relays.choice.awaits_proof => self.choose_relays(),
                () = arrivals.told() => self.look_at_arrivals(),
                () = until(self.relays.choose_at) => self.choose_relays(),
                () = until(due) => {
                    self.measure_tunnel();
                    self.agent.handle_timeout(Instant::now(), unix_ms());
                }
                _ = traffic.tick(), if self.is_watched() => self.watch_traffic(),
                Ok(()) = self.entries.changed() => self.take_entry(),
                Ok(()) = homes.changed() => {
                    self.take_home(&mut homes);
                    self.context.homes_moved.notify_one();
                }
                Ok(()) = wanted.changed() => self.want_direct(&mut wanted),
                Ok(()) = streams.changed() => { streams.mark_unchanged(); self.take_activity() }
                Ok(()) = dialling.changed() => { dialling.mark_unchanged(); self.take_activity() }
                Ok(()) = tunnel.changed() => { tunnel.mark_unchanged(); self.choose_relays() }
                Ok(()) = candidates.changed() => self.take_candidates(&mut candidates),
                Ok(()) = links.changed() => { links.mark_unchanged(); self.choose_relays() }
                Ok(()) = network.changed() => { network.mark_unchanged(); self.take_network() }
                Ok(()) = link_changes.changed() => { link_changes.mark_unchanged(); self.choose_relays() }
            }
        }
    }

    fn handle(&mut self, command: PathCommand) {
        let now = Instant::now();
        match command {
            PathCommand::Probe { socket, local, from, packet } => {
                self.measure_tunnel();
                let end = LocalEnd { socket, address: self.sources.unusual(local, from, now) };
                if let Err(error) = self.agent.handle_probe(end, from, &packet, now) {
                    debug!(peer = ?self.peer.key, %error, "probe refused");
                }
            }
            PathCommand::Relay(inbound) => match &inbound.news {
                RelayNews::Signal(sealed) => match self.agent.handle_signal(inbound.relay, sealed, now, unix_ms()) {
                    // A peer that looks for a path may have lost the one we use, with its whole memory of it.
                    Ok(()) => self.agent.check(now),
                    Err(error) => debug!(peer = ?self.peer.key, %error, "signal refused"),
                },
                RelayNews::Absent => {
                    self.arrivals.with(|choice| choice.absent(inbound.relay, now));
                    self.choose_relays();
                }
            },
            PathCommand::Relook => self.agent.relook(now),
        }
    }

    fn take_network(&mut self) {
        let now = Instant::now();
        self.sources.forget();
        if self.agent.local_addresses().next().is_some() {
            if let Some(ours) = are_ours() {
                self.agent.handle_local_addresses(ours, now);
            }
            self.agent.handle_ways(way_to);
            self.write_route();
        }
        self.agent.network_changed(now);
    }

    fn want_direct(&mut self, wanted: &mut watch::Receiver<bool>) {
        self.agent.wants_direct(*wanted.borrow_and_update(), Instant::now());
    }

    fn take_entry(&mut self) {
        let entry = self.entries.borrow_and_update().clone();
        if let Some(entry) = entry {
            self.agent.handle_config(self.context.config(&entry), Instant::now());
            self.choose_relays();
        }
    }

    fn take_home(&mut self, homes: &mut watch::Receiver<PeerHome>) {
        let home = homes.borrow_and_update().home();
        self.arrivals.with(|choice| choice.set_home(home));
        self.choose_relays();
    }

    fn take_candidates(&mut self, candidates: &mut watch::Receiver<LocalCandidates>) {
        let local = candidates.borrow_and_update().clone();
        self.agent.handle_local_candidates(local.candidates, local.nat, Instant::now());
    }

    /// Packets take another way than those before: congestion control starts anew, and a round trip shows what was lost.
    fn doubt_path(&self) {
        self.peer.path_doubted();
        self.peer.proof.nudge();
    }

    /// Carries out what the agent wants, until it wants nothing.
    fn settle(&mut self) {
        while let Some(transmit) = self.agent.poll_transmit() {
            match transmit {
                PathTransmit::Probe { socket: LocalSocket::MAIN, local, to, ttl: None, packet } => {
                    self.context.socket.send_probe_from(local, to, &packet);
                }
                PathTransmit::Probe { socket: LocalSocket::MAIN, local, to, ttl: Some(ttl), packet } => {
                    self.context.socket.send_short_lived(local, to, ttl, &packet);
                }
                PathTransmit::Probe { socket, local: _, to, ttl: _, packet } => {
                    self.side.send_probe(socket, to, &packet);
                }
                PathTransmit::Signal { sealed } => {
                    let generation = self.agent.generation();
                    if std::mem::replace(&mut self.generation, generation) != generation {
                        self.context.generations.reserve(generation);
                    }
                    if let Some((_, link)) = &self.relays.link {
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
                    self.choose_relays();
                    self.peer.proof.nudge();
                }
                PathEvent::Distrusted => {
                    // The relay is another path: nothing that was lost on this one holds back what goes there.
                    self.choose_relays();
                    self.doubt_path();
                    self.peer.handshake_doubted();
                }
                PathEvent::Trusted => self.choose_relays(),
                PathEvent::AskTunnel => self.peer.proof.nudge(),
                PathEvent::AddressAuthenticated(address) => self.context.routes.admit(address, self.peer.key),
                PathEvent::AddressForgotten(address) => self.context.routes.dismiss(address, self.peer.key),
                PathEvent::SessionsChanged => {
                    let sessions: Vec<_> = self.agent.probe_session_ids().collect();
                    self.context.sessions.replace(self.peer.key, &self.sessions, &sessions);
                    self.sessions = sessions;
                }
                PathEvent::GuessBegan => self.context.guesses.note(self.peer.key),
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
        let looks = self.agent.looks_for_path(Instant::now());
        if looks != self.punching.is_some() {
            self.punching = looks.then(|| self.context.punching.begin());
        }
        self.peer.set_path(self.agent.snapshot());
    }

    fn write_route(&self) {
        let to_peer = |(_, link): &(RelayId, LinkHandle)| link.datagrams_to(self.peer.key.into());
        let relay = self.relays.link.as_ref().map(to_peer);
        let spares = self.relays.spares.iter().map(to_peer).collect();
        let route = match self.agent.selected() {
            Selected::None => Route::NONE,
            Selected::Relayed => Route { relay, spares, ..Route::NONE },
            Selected::Direct { remote, socket, local, duplicate, .. } => {
                let side = self.side.get(socket);
                Route { direct: Some(remote), source: local, side, relay, spares, duplicate, local: false }
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
