//! What comes out of an agent: what is to be sent, what happened, where data goes, and how it stands.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use super::{Current, PathAgent};
use crate::{
    path::{
        Candidate, CandidateKind, NatMapping, Obstacle, PathEvent, PathReason, PathSnapshot, PathTransmit, Selected,
        pair::Pair, punch::Phase,
    },
    signal::SessionId,
};

/// Outputs kept for the driver. One input makes at most a burst and as many events; a driver that fetches them never
/// meets this limit, and without one the oldest are dropped and counted.
const MAX_QUEUED: usize = 256;

impl PathAgent {
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
                    socket: pair.via.socket,
                    local: pair.via.address,
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
        let large_only = self.pairs.iter().any(|pair| pair.carries_large_only_since(self.changed_at));
        let is_in_round = matches!(self.punch.phase, Phase::Round(_));
        let rests = self.pairs.iter().any(Pair::rests);
        // Until a small answer comes from there, or the peer has it no more.
        let loses_small = self.pairs.iter().any(|pair| pair.loses_small() && (pair.signalled || pair.is_heard()));
        let hard = |mapping| matches!(mapping, Random | Regular);
        Some(if !self.needed {
            Obstacle::NotWanted
        } else if !self.allow_direct {
            Obstacle::SwitchedOff
        } else if rests && self.reason == PathReason::Lossy {
            Obstacle::Lossy
        } else if (rests && self.reason == PathReason::SmallPacketsLost) || (large_only && !is_in_round) {
            Obstacle::SmallPacketsLost
        } else if small_only && !is_in_round {
            Obstacle::PacketsTooSmall
        } else if self.local.is_empty() {
            Obstacle::NoAddress
        } else if self.pairs.len() == 0 {
            if self.relay_up { Obstacle::NoAnswer } else { Obstacle::NoRelay }
        } else if self.punch.peer_absent {
            Obstacle::NoAnswer
        } else if loses_small {
            Obstacle::SmallPacketsLost
        } else if self.punch.is_under_way() || self.guess_run.is_some() {
            Obstacle::Trying
        } else if let Some(obstacle) = self.no_common_family() {
            obstacle
        } else if hard(self.nat.mapping) && hard(self.peer_nat.mapping) {
            Obstacle::TwoHardNats
        } else if hard(self.nat.mapping) || hard(self.peer_nat.mapping) {
            match self.counters.guess_runs {
                0 => Obstacle::HardNat { we_allow: self.allow_guessing },
                _ => Obstacle::PortNotGuessed,
            }
        } else if self.shares_public_address() {
            Obstacle::SameNat
        } else if self.punch.is_conclusive() {
            self.unknown_nat().unwrap_or(Obstacle::NothingPasses)
        } else {
            Obstacle::NotProved
        })
    }

    /// A NAT that too few servers look at may be the reason: one that stands between, by an address that a server saw.
    fn unknown_nat(&self) -> Option<Obstacle> {
        let is_outer =
            |candidate: &Candidate| candidate.kind == CandidateKind::ServerReflexive && candidate.addr.is_ipv4();
        let unknown = |mapping: NatMapping| mapping == NatMapping::Unknown;
        let ours = unknown(self.nat.mapping) && self.local.iter().any(is_outer);
        let mut theirs = self.pairs.iter().filter(|pair| pair.signalled).map(|pair| &pair.candidate);
        let is_theirs = unknown(self.peer_nat.mapping) && theirs.any(is_outer);
        (ours || is_theirs).then_some(Obstacle::UnknownNat { ours })
    }

    /// The two machines have no family of addresses in common. Only their own addresses tell: one that a NAT64 lends can be seen by a
    /// server and not be sent from to a peer. Where we know ours we have IPv4 by it.
    fn no_common_family(&self) -> Option<Obstacle> {
        let is_host = |candidate: &&Candidate| candidate.kind == CandidateKind::Host;
        let own = || self.local.iter().filter(is_host);
        let theirs = || self.pairs.iter().filter(|pair| pair.signalled).map(|pair| &pair.candidate).filter(is_host);
        let ipv6_here = own().next()?.addr.is_ipv6();
        let is_other = |theirs: &Candidate| theirs.addr.is_ipv6() != ipv6_here;
        let is_split = theirs().next().is_some() && theirs().all(is_other) && own().all(|own| !is_other(own));
        (is_split && !self.nat.nat64).then_some(Obstacle::NoCommonFamily { ipv6_here })
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
            Phase::Backoff { .. } => self.punch.phase.pause_ends(self.active),
            Phase::Idle | Phase::Offered { .. } | Phase::Round(_) => None,
        };
        punch.into_iter().chain(self.relook_at).min()
    }

    pub(super) fn transmit(&mut self, transmit: PathTransmit) {
        if let PathTransmit::Probe { packet, .. } = &transmit {
            self.counters.probe_bytes_sent += packet.len() as u64;
        }
        if self.transmits.len() == MAX_QUEUED {
            self.transmits.pop_front();
            self.counters.outputs_dropped += 1;
        }
        self.transmits.push_back(transmit);
    }

    pub(super) fn event(&mut self, event: PathEvent) {
        if self.events.len() == MAX_QUEUED {
            self.events.pop_front();
            self.counters.outputs_dropped += 1;
        }
        self.events.push_back(event);
    }

    pub(super) fn forget(&mut self, forgotten: Vec<SocketAddr>) {
        for remote in forgotten {
            self.event(PathEvent::AddressForgotten(remote));
        }
    }
}
