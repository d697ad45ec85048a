//! The agent of one peer: the pieces it is made of, its inputs and its time.

mod config;
mod guessing;
mod outputs;
mod probing;
mod selecting;
mod signalling;
mod sizing;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

pub use config::PathConfig;

use super::{
    Candidate, LocalSocket, NatView, PathCounters, PathEvent, PathReason, PathTransmit,
    budget::{Budget, OfferBudgets},
    guess::{Run, RunsToday},
    heartbeat::{Heartbeat, Suspicion},
    loss::LossMeter,
    pair::Pair,
    pairs::Pairs,
    punch::Punch,
    session::Sessions,
};
use crate::signal::{GuessReport, MAX_SIGNALLED_CANDIDATES, NatReport, OfferGuard, SeededRandom, SignalKeys};
use config::signal_keys;
use signalling::{PendingOffer, Told};
use sizing::Sizing;

/// A first offer waits this long for the first candidates.
const GATHER_TIME: Duration = Duration::from_secs(1);

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
    /// What the peer offered last, as far as we take it.
    peer_named: Vec<Candidate>,
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
    /// The pause before the next look began then.
    looked_at: Instant,

    /// A run may begin then.
    guess_at: Option<Instant>,
    guess_run: Option<Run>,
    guess_runs: RunsToday,
    guess_began: Instant,
    /// Sockets besides the main one are open.
    extra_sockets: bool,

    loss: LossMeter,
    sizing: Sizing,
    /// The last time a direct path was distrusted or lossy, or left in doubt.
    doubted_at: Option<Instant>,
    /// When the other pairs were asked last because an answer on the present path was missing.
    looked_elsewhere_at: Option<Instant>,
    current: Current,
    reason: PathReason,
    changed_at: Instant,

    transmits: VecDeque<PathTransmit>,
    events: VecDeque<PathEvent>,
    attempts: u64,
    counters: PathCounters,
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
            peer_named: Vec::new(),
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
            looked_at: now,
            guess_at: None,
            guess_run: None,
            guess_runs: RunsToday::default(),
            guess_began: now,
            extra_sockets: false,
            loss: LossMeter::default(),
            sizing: Sizing::default(),
            doubted_at: None,
            looked_elsewhere_at: None,
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
        // Addresses of the peer that there was no way to have one now.
        let opened = nat.nat64 && !self.nat.nat64;
        self.nat = nat;
        let local = self.accepted_candidates(&candidates, MAX_SIGNALLED_CANDIDATES);
        let gained = opened || local.iter().any(|candidate| !self.local.contains(candidate));
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

    /// Whether streams are open: the heartbeat follows, and how often a better path is looked for.
    pub fn set_active(&mut self, active: bool, now: Instant) {
        self.active = active;
        if let Current::Direct { heartbeat, .. } = &mut self.current {
            heartbeat.set_active(active, now);
        }
        if active {
            self.look_sooner(now);
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
        self.poll_sizing(now);
        self.pairs.iter_mut().for_each(|pair| pair.end_rest(now));
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
        [heartbeat, self.punch.next_at(self.active), self.guess_due(), chase, relook, expiry, self.sizing.next_at()]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }

    /// Whether a direct path is wanted and there is none, or one that is slow or was in doubt lately: a better one may be behind NATs,
    /// which both sides' packets pass only while what we offer is up to date.
    pub fn looks_for_path(&self, now: Instant) -> bool {
        self.wanted && self.direct_remote().is_none_or(|remote| !self.is_good(remote, now))
    }

    fn is_direct(&self) -> bool {
        self.direct_remote().is_some()
    }

    fn direct_socket(&self) -> Option<LocalSocket> {
        self.direct_remote().and_then(|remote| self.pairs.get(remote)).map(|pair| pair.via.socket)
    }

    fn direct_remote(&self) -> Option<SocketAddr> {
        match &self.current {
            Current::Direct { remote, .. } => Some(*remote),
            Current::None | Current::Relayed => None,
        }
    }

    /// What of a candidate list may be used: unicast addresses, each once under its best kind, best kinds first, and those of one kind in
    /// the order in which they were listed.
    fn accepted_candidates(&mut self, candidates: &[Candidate], limit: usize) -> Vec<Candidate> {
        let mut accepted: Vec<Candidate> = Vec::new();
        let mut ranked: Vec<_> = candidates.iter().map(|c| Candidate::new(c.kind, c.addr)).collect();
        ranked.sort_by_key(|candidate| candidate.kind);
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
}
