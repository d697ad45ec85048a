//! Runs of port guessing: when one begins, and when it is over.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::PathAgent;
use crate::{
    path::{
        CandidateKind, GuessOutcome, LocalEnd, LocalSocket, PathEvent, PathTransmit, ProbeBody,
        candidate::is_public,
        guess::{GUESS_DELAY, GUESS_SOCKETS, MAX_GUESS_PROBES, Plan, Run, Shot, plan},
    },
    signal::GuessReport,
};

impl PathAgent {
    /// Both sides know each other's candidates: probes start at `at`, and guessing a little later if it may help.
    pub(super) fn start_round(&mut self, at: Instant) {
        self.punch.start_round(at, self.sessions.offered());
        if self.guess_run.is_none() {
            self.guess_at = Some(at + GUESS_DELAY);
        }
    }

    /// Ports of this peer were guessed so long ago, by an agent before this one.
    pub fn resume_guess_runs(&mut self, ages: impl IntoIterator<Item = Duration>, now: Instant) {
        self.guess_runs.resume(ages, now);
    }

    /// What the peer is told of guessing.
    pub(super) fn guess_report(&self, now: Instant) -> GuessReport {
        GuessReport { allowed: self.allow_guessing && self.guess_runs.may_run(now), ports: self.nat.ports }
    }

    pub(super) fn poll_guess(&mut self, now: Instant) {
        if self.guess_at.is_some_and(|at| at <= now) {
            self.guess_at = None;
            self.begin_run(now);
        }
        let Some(run) = &mut self.guess_run else { return };
        if run.is_over(now) {
            self.end_run(now);
            return;
        }
        for shot in run.take_volley(now) {
            self.shoot(shot);
        }
    }

    /// When guessing wants to go on.
    pub(super) fn guess_due(&self) -> Option<(Instant, &'static str)> {
        let run = self.guess_run.as_ref().map(|run| (run.next_at(), "port guess due"));
        run.or(self.guess_at.map(|at| (at, "port guessing due")))
    }

    /// A run is over: with a path or without. Of the many sockets only the one of the path stays.
    pub(super) fn end_run(&mut self, now: Instant) {
        let Some(run) = self.guess_run.take() else { return };
        let kept = self.direct_socket().filter(|socket| *socket != LocalSocket::MAIN);
        if matches!(run.plan, Plan::ManySockets { .. }) {
            self.close_sockets(kept);
        }
        let outcome =
            GuessOutcome { probes: run.sent(), took: now.duration_since(self.guess_began), direct: self.is_direct() };
        self.event(PathEvent::GuessEnded(outcome));
    }

    /// Guessing is no longer wanted, nor the socket it left.
    pub(super) fn stop_guessing(&mut self, now: Instant) {
        self.guess_at = None;
        self.end_run(now);
        self.close_sockets(None);
    }

    fn begin_run(&mut self, now: Instant) {
        let both = self.allow_guessing && self.peer_guess.allowed && self.guess_runs.may_run(now);
        if !both || !self.wanted || !self.relay_up || self.is_direct() || self.guess_run.is_some() {
            return;
        }
        let Some(peer) = self.peer_outer_address() else { return };
        let Some(plan) = plan(self.nat, self.peer_nat.mapping, self.peer_guess, peer) else { return };
        self.guess_runs.note(now);
        self.guess_began = now;
        self.counters.guess_runs += 1;
        self.event(PathEvent::GuessBegan);
        if matches!(plan, Plan::ManySockets { .. }) {
            self.close_sockets(None);
            self.extra_sockets = true;
            self.event(PathEvent::OpenSockets { count: GUESS_SOCKETS });
        }
        self.guess_run = Some(Run::new(plan, self.random.number(), now));
    }

    /// The one address of the peer that may be guessed at: public, IPv4, as a STUN server saw it; that of a peer without NAT
    /// is its own. Of several the peer's first, which most relays saw: a relay that lies aims no run at a stranger.
    fn peer_outer_address(&self) -> Option<SocketAddr> {
        let is_open = |addr: SocketAddr| matches!(addr.ip(), IpAddr::V4(ip) if is_public(ip));
        let first = |kind| self.peer_named.iter().find(|named| named.kind == kind && is_open(named.addr));
        first(CandidateKind::ServerReflexive).or_else(|| first(CandidateKind::Host)).map(|named| named.addr)
    }

    fn shoot(&mut self, shot: Shot) {
        let Some(session) = self.sessions.newest() else { return };
        if self.counters.guess_probes >= self.counters.guess_runs * u64::from(MAX_GUESS_PROBES) {
            return;
        }
        let packet = session.seal_probe(ProbeBody::Ping { transaction: self.random.bytes() }, false);
        self.counters.guess_probes += 1;
        self.transmit(PathTransmit::Probe { socket: shot.socket, local: None, to: shot.to, ttl: None, packet });
    }

    fn close_sockets(&mut self, keep: Option<LocalSocket>) {
        if !self.extra_sockets {
            return;
        }
        self.extra_sockets = keep.is_some();
        let is_closed = |socket: LocalSocket| socket != LocalSocket::MAIN && Some(socket) != keep;
        for pair in self.pairs.iter_mut().filter(|pair| is_closed(pair.via.socket)) {
            pair.via = LocalEnd::default();
        }
        self.event(PathEvent::CloseSockets { keep });
    }
}
