//! What comes out of an agent: the selected path, why, what to send, and what to show.

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{CandidateKind, NatMapping};

/// Where data for the peer goes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selected {
    /// There is no path.
    None,
    /// Over the relay.
    Relayed,
    /// To the peer itself.
    Direct {
        /// The peer's address on this path.
        remote: SocketAddr,
        /// Where that address comes from.
        kind: CandidateKind,
        /// The smoothed round trip.
        rtt: Duration,
        /// The path is in doubt: send everything over the relay too.
        duplicate: bool,
    },
}

/// Why the selected path is the selected one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathReason {
    /// Nothing was up yet.
    Starting,
    /// The relay is up and no direct path is proved.
    RelayFirst,
    /// A direct path carried a full round trip.
    DirectProved,
    /// Another direct path is better.
    BetterPath,
    /// The direct path fell silent and another one answers.
    Failover,
    /// The direct path fell silent.
    HeartbeatLost,
    /// The relay link went down and no direct path is proved.
    RelayLost,
    /// No connection with this peer may carry data.
    NotWanted,
}

impl fmt::Display for PathReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "just started",
            Self::RelayFirst => "the relay is up and no direct path is proved yet",
            Self::DirectProved => "the direct path carried a full round trip",
            Self::BetterPath => "a better direct path was found",
            Self::Failover => "the direct path in use fell silent and another one answers",
            Self::HeartbeatLost => "the direct path stopped answering",
            Self::RelayLost => "the relay link went down",
            Self::NotWanted => "no connection with this peer needs a direct path",
        })
    }
}

/// Something to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathTransmit {
    /// A UDP payload for that address.
    Probe {
        /// The destination, in normal form.
        to: SocketAddr,
        /// The payload.
        packet: Vec<u8>,
    },
    /// Sealed bytes for the peer, over the relay.
    Signal {
        /// The signal, envelope included.
        sealed: Vec<u8>,
    },
}

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathEvent {
    /// The path changed; it is to be used from now on.
    Selected {
        /// The new path.
        selected: Selected,
        /// Why.
        reason: PathReason,
    },
    /// The selected direct path missed two answers: duplicate data onto the relay.
    Distrusted,
    /// It answers again.
    Trusted,
    /// An authentic probe came from there: QUIC packets from this address may be attributed to the peer.
    AddressAuthenticated(SocketAddr),
    /// Not heard from for long, or pushed out: no longer attribute packets from there.
    AddressForgotten(SocketAddr),
    /// The session ids by which probes find this agent changed.
    SessionsChanged,
}

/// The state of an agent for `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathSnapshot {
    /// The path in use.
    pub selected: Selected,
    /// Why.
    pub reason: PathReason,
    /// Since when.
    pub changed_at: Instant,
    /// Whether the relay link is up.
    pub relay_up: bool,
    /// Round trip to the relay.
    pub relay_rtt: Option<Duration>,
    /// Our NAT.
    pub nat: NatMapping,
    /// The peer's NAT, as it told us.
    pub peer_nat: NatMapping,
    /// How many candidates we offer.
    pub own_candidates: usize,
    /// How many of the peer's addresses are under test.
    pub pairs: usize,
    /// How many of them were heard from lately.
    pub heard_pairs: usize,
    /// How many carried a full round trip lately. Heard but not proved means: small packets pass, 1200 bytes do not.
    pub proved_pairs: usize,
    /// Punch attempts so far.
    pub attempts: u64,
    /// When the next look at the direct addresses is due.
    pub next_attempt_at: Option<Instant>,
    /// What was counted.
    pub counters: PathCounters,
}

/// Counters since the agent was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathCounters {
    /// Offers sent.
    pub offers_sent: u64,
    /// Offers that got no answer in time.
    pub offers_unanswered: u64,
    /// Offers of the peer that were answered.
    pub answers_sent: u64,
    /// Offers of the peer set aside because ours crossed it and won.
    pub offers_crossed: u64,
    /// Candidate updates sent.
    pub trickles_sent: u64,
    /// Signals taken.
    pub signals_received: u64,
    /// Signals refused.
    pub signals_refused: u64,
    /// Pings sent.
    pub pings_sent: u64,
    /// Pongs sent.
    pub pongs_sent: u64,
    /// Authentic probes received.
    pub probes_received: u64,
    /// Probes refused.
    pub probes_refused: u64,
    /// Probes not sent because the minute's limit was reached.
    pub probes_suppressed: u64,
    /// Candidates of either side dropped because they may not be probed or are too many.
    pub candidates_dropped: u64,
    /// Addresses learned from authentic probes.
    pub addresses_learned: u64,
    /// Addresses pushed out by newer ones.
    pub addresses_evicted: u64,
    /// Changes to a direct path.
    pub promotions: u64,
    /// Direct paths that fell silent.
    pub demotions: u64,
    /// Times a direct path was in doubt.
    pub distrusts: u64,
    /// Outputs dropped because the driver did not fetch them.
    pub outputs_dropped: u64,
}
