//! Two agents, a relay, two NATs and the way between them, on virtual time.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use gateway_proto::{
    id::RelayId,
    path::{
        Candidate, CandidateKind, GuessOutcome, LocalSocket, MAX_GUESS_PROBES, MAX_GUESS_RUNS_PER_DAY,
        MAX_PROBES_PER_MINUTE, NatMapping, NatView, PathAgent, PathConfig, PathEvent, PathReason, PathTransmit,
        Selected, Told, Weighed, probe_session_id,
    },
    signal::SeededRandom,
};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::nat::{Mapping, Nat};

const UNIX_MS: u64 = 1_800_000_000_000;
const RELAY: RelayId = RelayId::from_bytes([1; 16]);
/// Two relays with two STUN ports each.
const REFLECTORS: [([u8; 4], u16); 4] =
    [([203, 0, 113, 1], 3478), ([203, 0, 113, 1], 3479), ([203, 0, 113, 2], 3478), ([203, 0, 113, 2], 3479)];
const DATA_INTERVAL: Duration = Duration::from_millis(50);
const GATHER_INTERVAL: Duration = Duration::from_secs(23);

/// What the way between the two sites does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) latency: Duration,
    /// Up to so much is added to a packet's latency, at random: packets overtake each other.
    pub(crate) jitter: Duration,
    /// Routers between the sites: a packet that may make fewer hops dies after its own NAT.
    pub(crate) hops: u8,
    pub(crate) relay_latency: Duration,
    /// What answers to offers take longer, one way.
    pub(crate) answer_delay: Duration,
    /// Packets lost of a hundred, on the direct way.
    pub(crate) loss_percent: u32,
    /// Nothing passes on the direct way.
    pub(crate) cut: bool,
    /// Only small packets pass on the direct way.
    pub(crate) mtu: usize,
    /// Of what each site sends only packets of so many bytes and more pass on the direct way.
    pub(crate) shortest: [usize; 2],
}

impl Default for Link {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(20),
            jitter: Duration::ZERO,
            hops: 9,
            relay_latency: Duration::from_millis(35),
            answer_delay: Duration::ZERO,
            loss_percent: 0,
            cut: false,
            mtu: 1_500,
            shortest: [0; 2],
        }
    }
}

/// One gateway and its router.
pub(crate) struct Site {
    pub(crate) agent: PathAgent,
    pub(crate) host: SocketAddr,
    pub(crate) nat: Option<Nat>,
    pub(crate) relay_up: bool,
    /// Its process stands still: it does nothing, and nobody reads what arrives.
    pub(crate) frozen: bool,
    /// Sockets besides the main one that are open.
    pub(crate) extra_sockets: BTreeSet<LocalSocket>,
    pub(crate) outcomes: Vec<GuessOutcome>,
    /// Changes of path, in order.
    pub(crate) history: Vec<(Duration, Selected, PathReason)>,
    pub(crate) data_received: u64,
    /// The longest time without data from the peer, since data flowed first.
    pub(crate) longest_gap: Duration,
    last_data_at: Option<Duration>,
    peer_addresses: BTreeSet<SocketAddr>,
    probes_sent: VecDeque<Duration>,
    pub(crate) most_probes_in_a_minute: usize,
    generation: u8,
    guessing: bool,
}

pub(crate) struct World {
    start: Instant,
    pub(crate) now: Duration,
    pub(crate) link: Link,
    pub(crate) sites: [Site; 2],
    /// Everything the relay saw of the signals.
    pub(crate) overheard: Vec<Vec<u8>>,
    random: SeededRandom,
    in_flight: BTreeMap<(Duration, u64), (usize, InFlight)>,
    sequence: u64,
    next_data_at: Duration,
    next_gather_at: Duration,
}

#[derive(Debug, Clone)]
enum InFlight {
    Signal(Vec<u8>),
    RelayedData,
    Direct { from: SocketAddr, to: SocketAddr, packet: Vec<u8> },
}

impl World {
    /// Two sites, each behind its NAT or none.
    pub(crate) fn new(nats: [Option<Nat>; 2], link: Link, seed: u64) -> Self {
        Self::with_guessing(nats, link, seed, [false; 2])
    }

    /// The same, with port guessing allowed on some sides.
    pub(crate) fn with_guessing(nats: [Option<Nat>; 2], link: Link, seed: u64, guessing: [bool; 2]) -> Self {
        let start = start();
        let hosts = [0_usize, 1].map(|site| match &nats[site] {
            Some(nat) if nat.mapping == Mapping::Transparent => SocketAddr::new(nat.public_ip, 7_000),
            Some(_) => SocketAddr::from(([10, site as u8, 0, 5], 7_000)),
            None => SocketAddr::from(([198, 51, 100, 10 + site as u8], 7_000)),
        });
        let [first, second] = nats;
        let site = |index: usize, nat| {
            Site::new(agent(index, 0, seed, guessing[index], start), guessing[index], hosts[index], nat)
        };
        Self {
            start,
            now: Duration::ZERO,
            link,
            sites: [site(0, first), site(1, second)],
            overheard: Vec::new(),
            random: SeededRandom::new(seed_bytes(seed)),
            in_flight: BTreeMap::new(),
            sequence: 0,
            next_data_at: Duration::ZERO,
            next_gather_at: Duration::ZERO,
        }
    }

    /// Both relay links up, both sides want a direct path and have streams open.
    pub(crate) fn start_both(&mut self) {
        for site in 0..2 {
            self.set_relay(site, true);
            self.sites[site].agent.wants_direct(true, self.start + self.now);
            self.sites[site].agent.set_active(true, self.start + self.now);
        }
    }

    /// Streams are open on both sides again, and data flows.
    pub(crate) fn wake(&mut self) {
        let now = self.instant();
        for site in &mut self.sites {
            site.agent.set_active(true, now);
            (site.last_data_at, site.longest_gap) = (None, Duration::ZERO);
        }
        self.next_data_at = self.now;
    }

    /// Streams end on both sides, and no data is sent any more.
    pub(crate) fn rest(&mut self) {
        let now = self.instant();
        self.sites.iter_mut().for_each(|site| site.agent.set_active(false, now));
        self.next_data_at = Duration::MAX;
    }

    pub(crate) fn set_relay(&mut self, site: usize, up: bool) {
        let rtt = up.then_some(self.link.relay_latency);
        self.sites[site].relay_up = up;
        self.sites[site].agent.handle_relay_state(up, rtt, self.start + self.now);
        self.drain(site);
    }

    /// The process of one site starts anew, with another clock-based generation and no memory.
    pub(crate) fn restart(&mut self, site: usize) {
        let s = &mut self.sites[site];
        s.generation += 1;
        s.agent = agent(site, s.generation, s.generation.into(), s.guessing, self.start + self.now);
        s.peer_addresses.clear();
        self.set_relay(site, true);
        self.gather(site);
        self.sites[site].agent.wants_direct(true, self.start + self.now);
        self.sites[site].agent.set_active(true, self.start + self.now);
        self.drain(site);
    }

    pub(crate) fn instant(&self) -> Instant {
        self.start + self.now
    }

    pub(crate) fn is_direct(&self, site: usize) -> bool {
        matches!(self.sites[site].agent.selected(), Selected::Direct { .. })
    }

    pub(crate) fn both_direct(&self) -> bool {
        self.is_direct(0) && self.is_direct(1)
    }

    /// Runs for that long.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_while(end, |_| true);
    }

    /// Runs until the condition holds; false when the limit came first.
    pub(crate) fn run_until(&mut self, limit: Duration, mut condition: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        self.run_while(end, |world| !condition(world));
        condition(self)
    }

    fn run_while(&mut self, end: Duration, mut wanted: impl FnMut(&Self) -> bool) {
        let (mut at, mut turns) = (self.now, 0);
        while wanted(self) {
            let next = self.next_event_at();
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            turns = if at == self.now { turns + 1 } else { 0 };
            at = self.now;
            assert!(
                turns < 1_000,
                "the agents spin without time passing: {:?}",
                self.sites.each_ref().map(|s| s.agent.poll_timeout())
            );
            self.step();
        }
    }

    fn next_event_at(&self) -> Duration {
        let timers = self
            .sites
            .iter()
            .filter(|site| !site.frozen)
            .filter_map(|site| site.agent.poll_timeout())
            .map(|(at, _)| at.saturating_duration_since(self.start));
        let arrivals = self.in_flight.keys().next().map(|(at, _)| *at);
        timers.chain(arrivals).chain([self.next_data_at, self.next_gather_at]).min().unwrap()
    }

    fn step(&mut self) {
        let now = self.start + self.now;
        if self.next_gather_at <= self.now {
            self.next_gather_at = self.now + GATHER_INTERVAL;
            self.running().for_each(|site| self.gather(site));
        }
        if self.next_data_at <= self.now {
            self.next_data_at = self.now + DATA_INTERVAL;
            self.running().for_each(|site| self.send_data(site));
        }
        while self.in_flight.first_key_value().is_some_and(|((at, _), _)| *at <= self.now) {
            let (_, (site, message)) = self.in_flight.pop_first().unwrap();
            self.arrive(site, message);
        }
        for site in self.running() {
            if self.sites[site].agent.poll_timeout().is_some_and(|(at, _)| at <= now) {
                let unix_ms = UNIX_MS + self.now.as_millis() as u64;
                self.sites[site].agent.handle_timeout(now, unix_ms);
            }
            self.drain(site);
        }
    }

    fn running(&self) -> impl Iterator<Item = usize> + use<> {
        let frozen = self.sites.each_ref().map(|site| site.frozen);
        (0..2).filter(move |site| !frozen[*site])
    }

    fn gather(&mut self, site: usize) {
        let at = self.now;
        let s = &mut self.sites[site];
        let mut candidates = vec![Candidate::new(CandidateKind::Host, s.host)];
        let view = match &mut s.nat {
            Some(nat) => {
                let seen = REFLECTORS.map(|reflector| nat.outbound(s.host, reflector.into(), at));
                let reflexive: BTreeSet<_> = seen.into_iter().filter(|seen| *seen != s.host).collect();
                candidates.extend(reflexive.iter().map(|seen| Candidate::new(CandidateKind::ServerReflexive, *seen)));
                let told = REFLECTORS.into_iter().zip(seen).map(|(server, outer)| {
                    let relay = if server.0[3] == 1 { "one.example" } else { "two.example" };
                    Told { relay, server: server.into(), outer }
                });
                Weighed::of(told).view
            }
            None => NatView::of_mapping(NatMapping::EndpointIndependent),
        };
        s.agent.handle_local_candidates(candidates, view, self.start + at);
        self.drain(site);
    }

    fn send_data(&mut self, site: usize) {
        let (direct, relayed) = match self.sites[site].agent.selected() {
            Selected::None => (None, false),
            Selected::Relayed => (None, true),
            Selected::Direct { remote, socket, duplicate, .. } => (Some((socket, remote)), duplicate),
        };
        if let Some((socket, to)) = direct {
            self.send_direct(site, socket, to, None, vec![0x40; 1_200]);
        }
        if relayed && self.sites[0].relay_up && self.sites[1].relay_up {
            self.send(1 - site, self.link.relay_latency, InFlight::RelayedData);
        }
    }

    fn drain(&mut self, site: usize) {
        while let Some(transmit) = self.sites[site].agent.poll_transmit() {
            match transmit {
                PathTransmit::Probe { socket, local: _, to, ttl, packet } => {
                    let now = self.now;
                    self.assert_solicited(site, to);
                    self.sites[site].count_probe(now);
                    self.send_direct(site, socket, to, ttl, packet);
                }
                PathTransmit::Signal { sealed } => {
                    self.overheard.push(sealed.clone());
                    if self.sites[0].relay_up && self.sites[1].relay_up {
                        let is_answer = sealed.get(1) == Some(&2);
                        let extra = if is_answer { self.link.answer_delay } else { Duration::ZERO };
                        self.send(1 - site, self.link.relay_latency + extra, InFlight::Signal(sealed));
                    }
                }
            }
        }
        let s = &mut self.sites[site];
        while let Some(event) = s.agent.poll_event() {
            match event {
                PathEvent::Selected { selected, reason } => s.history.push((self.now, selected, reason)),
                PathEvent::AddressAuthenticated(addr) => drop(s.peer_addresses.insert(addr)),
                PathEvent::AddressForgotten(addr) => assert!(s.peer_addresses.remove(&addr), "{addr} was not known"),
                PathEvent::OpenSockets { count } => s.extra_sockets = (1..=count).map(LocalSocket).collect(),
                PathEvent::CloseSockets { keep } => s.extra_sockets.retain(|socket| Some(*socket) == keep),
                PathEvent::GuessEnded(outcome) => s.outcomes.push(outcome),
                PathEvent::Distrusted
                | PathEvent::Trusted
                | PathEvent::AskTunnel
                | PathEvent::GuessBegan
                | PathEvent::SessionsChanged => {}
            }
        }
    }

    /// Nothing is ever sent to anybody but the peer: its own address, or its NAT's.
    fn assert_solicited(&self, site: usize, to: SocketAddr) {
        let peer = &self.sites[1 - site];
        let outer = peer.nat.as_ref().map(|nat| nat.public_ip);
        assert!(to == peer.host || Some(to.ip()) == outer, "a probe to {to}, which is not the peer's");
    }

    fn send_direct(&mut self, site: usize, socket: LocalSocket, to: SocketAddr, ttl: Option<u8>, packet: Vec<u8>) {
        let neighbours = is_private(to) && same_lan(self.sites[0].host, self.sites[1].host);
        if is_private(to) && !neighbours {
            return;
        }
        let s = &mut self.sites[site];
        if socket != LocalSocket::MAIN && !s.extra_sockets.contains(&socket) {
            return;
        }
        let inside = SocketAddr::new(s.host.ip(), s.host.port() + socket.0);
        let from = match &mut s.nat {
            Some(nat) if !neighbours => nat.outbound(inside, to, self.now),
            Some(_) | None => inside,
        };
        if ttl.is_some_and(|ttl| ttl < self.link.hops) {
            return;
        }
        let lost = self.random.number() % 100 < self.link.loss_percent;
        let fits = (self.link.shortest[site]..=self.link.mtu).contains(&(packet.len() + 28));
        if !lost && !self.link.cut && fits {
            let jitter = self.link.jitter.mul_f64(f64::from(self.random.number()) / f64::from(u32::MAX));
            self.send(1 - site, self.link.latency + jitter, InFlight::Direct { from, to, packet });
        }
    }

    fn send(&mut self, site: usize, latency: Duration, message: InFlight) {
        self.sequence += 1;
        self.in_flight.insert((self.now + latency, self.sequence), (site, message));
    }

    fn arrive(&mut self, site: usize, message: InFlight) {
        let (at, now) = (self.now, self.start + self.now);
        let s = &mut self.sites[site];
        if s.frozen {
            return;
        }
        match message {
            InFlight::Signal(sealed) => {
                // A refused signal is part of some tests; the agents count it.
                let _ = s.agent.handle_signal(RELAY, &sealed, now, UNIX_MS + at.as_millis() as u64);
            }
            InFlight::RelayedData => s.receive_data(at),
            InFlight::Direct { from, to, packet } => {
                let reached = match &mut s.nat {
                    // A firewall stands before the host's own address.
                    Some(nat) if nat.public_ip == to.ip() => nat.inbound(to.port(), from, at),
                    _ if to == s.host => Some(to),
                    Some(_) | None => None,
                };
                let at_us = reached.filter(|inside| inside.ip() == s.host.ip());
                let Some(socket) = at_us.and_then(|inside| inside.port().checked_sub(s.host.port())) else { return };
                let socket = LocalSocket(socket);
                if socket != LocalSocket::MAIN && !s.extra_sockets.contains(&socket) {
                    return;
                }
                if probe_session_id(&packet).is_some() {
                    let _ = s.agent.handle_probe(socket, from, &packet, now);
                } else if s.peer_addresses.contains(&from) {
                    s.receive_data(at);
                }
            }
        }
        self.drain(site);
    }
}

impl Site {
    fn new(agent: PathAgent, guessing: bool, host: SocketAddr, nat: Option<Nat>) -> Self {
        Self {
            agent,
            host,
            nat,
            relay_up: false,
            frozen: false,
            extra_sockets: BTreeSet::new(),
            outcomes: Vec::new(),
            history: Vec::new(),
            data_received: 0,
            longest_gap: Duration::ZERO,
            last_data_at: None,
            peer_addresses: BTreeSet::new(),
            probes_sent: VecDeque::new(),
            most_probes_in_a_minute: 0,
            generation: 0,
            guessing,
        }
    }

    fn receive_data(&mut self, at: Duration) {
        self.data_received += 1;
        if let Some(last) = self.last_data_at {
            self.longest_gap = self.longest_gap.max(at - last);
        }
        self.last_data_at = Some(at);
    }

    fn count_probe(&mut self, at: Duration) {
        self.probes_sent.push_back(at);
        while self.probes_sent.front().is_some_and(|first| *first + Duration::from_secs(60) < at) {
            self.probes_sent.pop_front();
        }
        self.most_probes_in_a_minute = self.most_probes_in_a_minute.max(self.probes_sent.len());
        let counters = self.agent.snapshot().counters;
        assert!(counters.guess_runs <= MAX_GUESS_RUNS_PER_DAY as u64, "too many runs of guessing");
        assert!(counters.guess_probes <= counters.guess_runs * u64::from(MAX_GUESS_PROBES), "too many guesses");
        let guesses = usize::try_from(counters.guess_probes).unwrap();
        assert!(self.probes_sent.len() <= 2 * MAX_PROBES_PER_MINUTE as usize + guesses, "a probe storm");
    }
}

fn seed_bytes(seed: u64) -> [u8; 32] {
    let mut bytes = [seed as u8; 32];
    bytes[24..].copy_from_slice(&seed.to_be_bytes());
    bytes
}

fn agent(site: usize, generation: u8, seed: u64, allow_guessing: bool, now: Instant) -> PathAgent {
    let secret = |site: usize| StaticSecret::from([site as u8 + 1; 32]);
    let config = PathConfig {
        local_key: [site as u8 + 1; 32],
        remote_key: [2 - site as u8; 32],
        noise_private: Zeroizing::new(secret(site).to_bytes()),
        remote_noise: PublicKey::from(&secret(1 - site)).to_bytes(),
        pair_secret: Zeroizing::new([9; 32]),
        allow_loopback: false,
        allow_direct: true,
        allow_guessing,
    };
    let mut seed = seed_bytes(seed);
    seed[0] = site as u8;
    seed[1] = generation;
    PathAgent::new(config, seed, now)
}

fn is_private(addr: SocketAddr) -> bool {
    matches!(addr, SocketAddr::V4(v4) if v4.ip().is_private())
}

fn same_lan(a: SocketAddr, b: SocketAddr) -> bool {
    match (a, b) {
        (SocketAddr::V4(a), SocketAddr::V4(b)) => a.ip().octets()[..3] == b.ip().octets()[..3] && a.ip().is_private(),
        (SocketAddr::V4(_) | SocketAddr::V6(_), _) => false,
    }
}

#[expect(clippy::disallowed_methods, reason = "an Instant has no other source; the simulation only adds to it")]
fn start() -> Instant {
    Instant::now()
}
