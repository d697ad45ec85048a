//! The agent of one peer: inputs, outputs and the pieces it is made of.

mod guessing;
mod probing;
mod selecting;
mod signalling;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    fmt,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use zeroize::Zeroizing;

use super::{
    Candidate, CandidateKind, LocalSocket, NatMapping, NatView, Obstacle, PathCounters, PathEvent, PathReason,
    PathSnapshot, PathTransmit, Selected,
    budget::{Budget, OfferBudgets},
    guess::{Run, RunsToday},
    heartbeat::{Heartbeat, Suspicion},
    loss::LossMeter,
    pair::Pair,
    pairs::Pairs,
    punch::{Phase, Punch},
    session::Sessions,
};
use crate::signal::{
    GuessReport, MAX_SIGNALLED_CANDIDATES, NatReport, Offer, OfferGuard, SeededRandom, SessionId, SignalKeys,
};

/// Outputs kept for the driver. One input makes at most a burst and as many events; a driver that fetches them never
/// meets this limit, and without one the oldest are dropped and counted.
const MAX_QUEUED: usize = 256;

/// New looks at the pairs: on a relay, on a direct path that is slow or was in doubt lately, on a good one, and without any
/// path.
const RELOOK_RELAYED: Duration = Duration::from_secs(30);
const RELOOK_POOR: Duration = Duration::from_secs(60);
const RELOOK_GOOD: Duration = Duration::from_secs(600);
const RELOOK_NONE: Duration = Duration::from_secs(5);

/// A first offer waits this long for the first candidates.
const GATHER_TIME: Duration = Duration::from_secs(1);

/// What an agent needs to know of its pair; everything comes from the policy and the key files.
#[derive(Clone)]
pub struct PathConfig {
    /// Our gateway key.
    pub local_key: [u8; 32],
    /// The peer's gateway key.
    pub remote_key: [u8; 32],
    /// Our Noise key, private half.
    pub noise_private: Zeroizing<[u8; 32]>,
    /// The peer's Noise key.
    pub remote_noise: [u8; 32],
    /// The secret of the pair.
    pub pair_secret: Zeroizing<[u8; 32]>,
    /// Whether loopback addresses are candidates: for demonstrations on one machine.
    pub allow_loopback: bool,
    /// Whether direct paths may be used at all.
    pub allow_direct: bool,
    /// Whether ports behind hard NATs may be guessed, when the peer allows it too.
    pub allow_guessing: bool,
}

impl fmt::Debug for PathConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathConfig")
            .field("allow_loopback", &self.allow_loopback)
            .field("allow_direct", &self.allow_direct)
            .field("allow_guessing", &self.allow_guessing)
            .finish_non_exhaustive()
    }
}

/// The path agent of one peer; see [the module](super) for what it does.
///
/// # Driving it
///
/// After every input, fetch [`poll_transmit`](Self::poll_transmit) and [`poll_event`](Self::poll_event) until `None`, then
/// arm one timer for [`poll_timeout`](Self::poll_timeout) (which may have passed) and call
/// [`handle_timeout`](Self::handle_timeout) when it is due.
#[derive(Debug)]
pub struct PathAgent {
    keys: SignalKeys,
    allow_loopback: bool,
    allow_direct: bool,
    allow_guessing: bool,
    random: SeededRandom,

    relay_up: bool,
    relay_rtt: Option<Duration>,
    /// A connection of this pair may carry data.
    needed: bool,
    /// That, and a direct path may be used.
    wanted: bool,
    active: bool,

    /// What we offer, best kind first.
    local: Vec<Candidate>,
    nat: NatView,
    peer_nat: NatReport,
    peer_guess: GuessReport,
    /// What the peer knows of us in the newest session.
    told: Told,

    guard: OfferGuard,
    last_generation: u64,
    offer: Option<PendingOffer>,
    offer_budgets: OfferBudgets,
    sessions: Sessions,
    punch: Punch,

    pairs: Pairs,
    pings: Budget,
    pongs: Budget,
    relook_at: Option<Instant>,

    /// A run may begin then.
    guess_at: Option<Instant>,
    guess_run: Option<Run>,
    guess_runs: RunsToday,
    guess_began: Instant,
    /// Sockets besides the main one are open.
    extra_sockets: bool,

    loss: LossMeter,
    /// The last time a direct path was distrusted or lossy.
    doubted_at: Option<Instant>,
    current: Current,
    reason: PathReason,
    changed_at: Instant,

    transmits: VecDeque<PathTransmit>,
    events: VecDeque<PathEvent>,
    attempts: u64,
    counters: PathCounters,
}

/// Our offer under way, and what it told.
struct PendingOffer {
    offer: Offer,
    told: Told,
    /// The offer as it was sent, to be sent once more if the peer turns out not to have been there yet.
    again: Option<Vec<u8>>,
}

impl fmt::Debug for PendingOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingOffer").field("offer", &self.offer).field("told", &self.told).finish_non_exhaustive()
    }
}

/// What the peer was told of us, as far as a change is worth a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Told {
    candidates: Vec<Candidate>,
    mapping: NatMapping,
}

/// The path in use.
#[derive(Debug)]
enum Current {
    None,
    Relayed,
    Direct { remote: SocketAddr, heartbeat: Heartbeat },
}

impl PathAgent {
    /// An agent that knows nothing yet; `seed` is 32 bytes of the operating system's generator.
    pub fn new(config: PathConfig, seed: [u8; 32], now: Instant) -> Self {
        Self {
            allow_loopback: config.allow_loopback,
            allow_direct: config.allow_direct,
            allow_guessing: config.allow_guessing,
            keys: signal_keys(config),
            random: SeededRandom::new(seed),
            relay_up: false,
            relay_rtt: None,
            needed: false,
            wanted: false,
            active: false,
            local: Vec::new(),
            nat: NatView::default(),
            peer_nat: NatReport::default(),
            peer_guess: GuessReport::default(),
            told: Told::default(),
            guard: OfferGuard::default(),
            last_generation: 0,
            offer: None,
            offer_budgets: OfferBudgets::default(),
            sessions: Sessions::default(),
            punch: Punch::default(),
            pairs: Pairs::default(),
            pings: Budget::for_probes(now),
            pongs: Budget::for_probes(now),
            relook_at: None,
            guess_at: None,
            guess_run: None,
            guess_runs: RunsToday::default(),
            guess_began: now,
            extra_sockets: false,
            loss: LossMeter::default(),
            doubted_at: None,
            current: Current::None,
            reason: PathReason::Starting,
            changed_at: now,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            attempts: 0,
            counters: PathCounters::default(),
        }
    }

    /// The policy changed, for example the pair secret was rotated. Sessions live on; the next offer uses the new keys.
    pub fn handle_config(&mut self, config: PathConfig, now: Instant) {
        self.allow_loopback = config.allow_loopback;
        self.allow_direct = config.allow_direct;
        self.allow_guessing = config.allow_guessing;
        self.keys = signal_keys(config);
        self.want(now);
    }

    /// All addresses at which we may be reached, and our NAT. The whole set every time; an unchanged one does nothing.
    pub fn handle_local_candidates(&mut self, candidates: Vec<Candidate>, nat: NatView, now: Instant) {
        self.nat = nat;
        let local = self.accepted_candidates(&candidates, MAX_SIGNALLED_CANDIDATES);
        let gained = local.iter().any(|candidate| !self.local.contains(candidate));
        self.local = local;
        let told = self.tell_candidates(now);
        if !gained || !self.wanted {
            return;
        }
        self.punch.rearm();
        if told {
            self.start_round(now + self.signal_delay());
        } else {
            self.request_punch(now);
        }
    }

    /// The relay link came up, went down, or its round trip was measured.
    pub fn handle_relay_state(&mut self, up: bool, rtt: Option<Duration>, now: Instant) {
        self.relay_rtt = rtt;
        if up == self.relay_up {
            return;
        }
        self.relay_up = up;
        match (&self.current, up) {
            (Current::None, true) => self.select(Current::Relayed, PathReason::RelayFirst, now),
            (Current::Relayed, false) => self.select(Current::None, PathReason::RelayLost, now),
            (Current::None | Current::Relayed | Current::Direct { .. }, _) => {}
        }
        if up {
            self.tell_candidates(now);
        }
        if self.wanted && !self.is_direct() {
            self.punch.rearm();
            self.request_punch(now);
        }
    }

    /// Whether a direct path is needed: a connection of this pair may carry data. It is wanted where one may be used.
    pub fn wants_direct(&mut self, needed: bool, now: Instant) {
        self.needed = needed;
        self.want(now);
    }

    fn want(&mut self, now: Instant) {
        let wanted = self.needed && self.allow_direct;
        if wanted == self.wanted {
            return;
        }
        self.wanted = wanted;
        if wanted {
            self.punch.rearm();
            self.request_punch(if self.local.is_empty() { now + GATHER_TIME } else { now });
            self.schedule_relook(now);
        } else {
            self.stop_punching(now);
        }
    }

    /// Whether streams are open: the heartbeat follows.
    pub fn set_active(&mut self, active: bool, now: Instant) {
        self.active = active;
        if let Current::Direct { heartbeat, .. } = &mut self.current {
            heartbeat.set_active(active, now);
        }
    }

    /// Something outside makes the selected direct path doubtful (an answer is missing end to end): the path is asked now, and left with the usual patience if it does not answer.
    pub fn check(&mut self, now: Instant) {
        if let Current::Direct { heartbeat, .. } = &mut self.current {
            heartbeat.ask(now);
        }
    }

    /// The peer's packets come over the relay while ours go to it directly. That is a hint, but when the path is dead the
    /// peer waits for us: the path gets little time to answer before data goes over the relay too.
    pub fn peer_doubts(&mut self, now: Instant) {
        self.suspect(Suspicion::PeerDoubts, now);
    }

    /// A tunnel is being dialled and its handshake has no answer for a moment. Without a tunnel nobody else misses the peer on
    /// an idle path, and every handshake would go into a dead one: it gets little time to answer before packets go over the
    /// relay too.
    pub fn dialled_in_vain(&mut self, now: Instant) {
        self.suspect(Suspicion::DialledInVain, now);
    }

    /// Offers of an earlier run of this gateway had generations up to this one: ours are above it, even when our clock was set
    /// back meanwhile, as far as the peer accepts that.
    pub fn resume_above(&mut self, generation: u64) {
        self.last_generation = self.last_generation.max(generation);
    }

    /// The generation of our last offer.
    pub fn generation(&self) -> u64 {
        self.last_generation
    }

    /// Our own network changed, or the machine slept: like [`Self::relook`], and the path in use gets little time to answer
    /// before data goes over the relay too.
    pub fn network_changed(&mut self, now: Instant) {
        self.suspect(Suspicion::NetworkChanged, now);
        self.relook(now);
    }

    fn suspect(&mut self, suspicion: Suspicion, now: Instant) {
        if let Current::Direct { remote, heartbeat } = &mut self.current {
            let rtt = self.pairs.get(*remote).map(Pair::rtt).unwrap_or_default();
            heartbeat.suspect(suspicion, rtt, now);
        }
    }

    /// Everything may have changed, or an operator asks for it. Every path is asked at once and a new offer is made.
    pub fn relook(&mut self, now: Instant) {
        self.check(now);
        self.pairs.iter_mut().for_each(Pair::unbar);
        if self.wanted {
            self.punch.rearm();
            self.request_punch(now);
            self.relook_at = Some(now);
        }
    }

    /// Time passed; `unix_ms` is the wall clock that goes into offers.
    pub fn handle_timeout(&mut self, now: Instant, unix_ms: u64) {
        self.poll_heartbeat(now);
        self.poll_punch(now, unix_ms);
        self.poll_guess(now);
        self.poll_chases(now);
        self.poll_relook(now);
        let forgotten = self.pairs.expire(self.direct_remote(), now);
        self.forget(forgotten);
    }

    /// When [`Self::handle_timeout`] is due, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let heartbeat = match &self.current {
            Current::Direct { heartbeat, .. } => Some((heartbeat.next_at(), "heartbeat due")),
            Current::None | Current::Relayed => None,
        };
        let chase = self.pairs.iter().filter_map(Pair::chase_at).min().map(|at| (at, "path proof due"));
        let expiry = self.pairs.next_expiry(self.direct_remote()).map(|at| (at, "address expires"));
        let relook = self.relook_at.map(|at| (at, "new look due"));
        [heartbeat, self.punch.next_at(), self.guess_due(), chase, relook, expiry]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }

    /// The next thing to send.
    pub fn poll_transmit(&mut self) -> Option<PathTransmit> {
        self.transmits.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<PathEvent> {
        self.events.pop_front()
    }

    /// Where data goes now.
    pub fn selected(&self) -> Selected {
        match &self.current {
            Current::None => Selected::None,
            Current::Relayed => Selected::Relayed,
            Current::Direct { remote, heartbeat } => {
                let pair = self.pairs.get(*remote).expect("invariant: the selected pair is never removed");
                Selected::Direct {
                    remote: *remote,
                    socket: pair.via,
                    kind: pair.candidate.kind,
                    rtt: pair.rtt(),
                    duplicate: heartbeat.is_distrusted(),
                }
            }
        }
    }

    /// The ids by which probes for this agent are known; at most two. A hostile peer may choose the id of another pair,
    /// so a driver offers a probe to every agent that has its id.
    pub fn probe_session_ids(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.sessions.ids()
    }

    /// The state for `status`.
    pub fn snapshot(&self) -> PathSnapshot {
        PathSnapshot {
            selected: self.selected(),
            reason: self.reason,
            changed_at: self.changed_at,
            relay_up: self.relay_up,
            relay_rtt: self.relay_rtt,
            nat: self.nat.mapping,
            peer_nat: self.peer_nat.mapping,
            own_candidates: self.local.len(),
            pairs: self.pairs.len(),
            heard_pairs: self.pairs.iter().filter(|pair| pair.is_heard()).count(),
            proved_pairs: self.pairs.iter().filter(|pair| pair.is_proved()).count(),
            obstacle: self.obstacle(),
            attempts: self.attempts,
            next_attempt_at: self.next_attempt_at(),
            counters: self.counters,
        }
    }

    /// Why there is no direct path.
    fn obstacle(&self) -> Option<Obstacle> {
        use NatMapping::{Random, Regular};
        if self.is_direct() {
            return None;
        }
        // An answer from before the path was left says nothing of now.
        let small_only = self.pairs.iter().any(|pair| pair.carries_small_only_since(self.changed_at));
        let hard = |mapping| matches!(mapping, Random | Regular);
        Some(if !self.needed {
            Obstacle::NotWanted
        } else if !self.allow_direct {
            Obstacle::SwitchedOff
        } else if self.reason == PathReason::Lossy {
            Obstacle::Lossy
        } else if small_only && !matches!(self.punch.phase, Phase::Round(_)) {
            Obstacle::PacketsTooSmall
        } else if self.local.is_empty() {
            Obstacle::NoAddress
        } else if self.pairs.len() == 0 {
            if self.relay_up { Obstacle::NoAnswer } else { Obstacle::NoRelay }
        } else if self.punch.peer_absent {
            Obstacle::NoAnswer
        } else if self.punch.is_under_way() || self.guess_run.is_some() {
            Obstacle::Trying
        } else if hard(self.nat.mapping) && hard(self.peer_nat.mapping) {
            Obstacle::TwoHardNats
        } else if hard(self.nat.mapping) || hard(self.peer_nat.mapping) {
            match self.counters.guess_runs {
                0 => Obstacle::HardNat { we_allow: self.allow_guessing },
                _ => Obstacle::PortNotGuessed,
            }
        } else if self.shares_public_address() {
            Obstacle::SameNat
        } else {
            Obstacle::NothingPasses
        })
    }

    /// Whether the peer names the address that our NAT has outside.
    fn shares_public_address(&self) -> bool {
        let is_own = |ip: IpAddr| self.local.iter().any(|own| own.kind == CandidateKind::Host && own.addr.ip() == ip);
        let outer = self.local.iter().filter(|own| own.kind == CandidateKind::ServerReflexive);
        let mut outer = outer.map(|own| own.addr.ip()).filter(|ip| !is_own(*ip));
        outer.any(|ip| self.pairs.iter().any(|pair| pair.signalled && pair.candidate.addr.ip() == ip))
    }

    fn next_attempt_at(&self) -> Option<Instant> {
        let punch = match self.punch.phase {
            Phase::OfferDue { at, .. } => Some(at),
            Phase::Backoff { until } => Some(until),
            Phase::Idle | Phase::Offered { .. } | Phase::Round(_) => None,
        };
        punch.into_iter().chain(self.relook_at).min()
    }

    fn is_direct(&self) -> bool {
        self.direct_remote().is_some()
    }

    fn direct_socket(&self) -> Option<LocalSocket> {
        self.direct_remote().and_then(|remote| self.pairs.get(remote)).map(|pair| pair.via)
    }

    fn direct_remote(&self) -> Option<SocketAddr> {
        match &self.current {
            Current::Direct { remote, .. } => Some(*remote),
            Current::None | Current::Relayed => None,
        }
    }

    /// What of a candidate list may be used: unicast addresses, each once under its best kind, best kinds first.
    fn accepted_candidates(&mut self, candidates: &[Candidate], limit: usize) -> Vec<Candidate> {
        let mut accepted: Vec<Candidate> = Vec::new();
        let mut ranked: Vec<_> = candidates.iter().map(|c| Candidate::new(c.kind, c.addr)).collect();
        ranked.sort_unstable();
        for candidate in ranked {
            let known = accepted.iter().any(|other| other.addr == candidate.addr);
            if candidate.is_usable(self.allow_loopback) && accepted.len() < limit {
                if !known {
                    accepted.push(candidate);
                }
            } else {
                self.counters.candidates_dropped += 1;
            }
        }
        accepted
    }

    fn transmit(&mut self, transmit: PathTransmit) {
        if let PathTransmit::Probe { packet, .. } = &transmit {
            self.counters.probe_bytes_sent += packet.len() as u64;
        }
        if self.transmits.len() == MAX_QUEUED {
            self.transmits.pop_front();
            self.counters.outputs_dropped += 1;
        }
        self.transmits.push_back(transmit);
    }

    fn event(&mut self, event: PathEvent) {
        if self.events.len() == MAX_QUEUED {
            self.events.pop_front();
            self.counters.outputs_dropped += 1;
        }
        self.events.push_back(event);
    }

    fn forget(&mut self, forgotten: Vec<SocketAddr>) {
        for remote in forgotten {
            self.event(PathEvent::AddressForgotten(remote));
        }
    }
}

fn signal_keys(config: PathConfig) -> SignalKeys {
    SignalKeys {
        local_key: config.local_key,
        remote_key: config.remote_key,
        noise_private: config.noise_private,
        remote_noise: config.remote_noise,
        pair_secret: config.pair_secret,
    }
}
