//! What comes out of an agent: the selected path, why, what to send, and what to show.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{CandidateKind, NatMapping, Obstacle};

/// One of our UDP sockets: the main one, or one of those that a run of port guessing opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalSocket(pub u16);

impl LocalSocket {
    /// The socket of the tunnel, from which everything leaves but a path that was guessed.
    pub const MAIN: Self = Self(0);
}

/// Our end of a path. A machine with several uplinks may be reached at an address from which the kernel would not answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LocalEnd {
    /// The socket.
    pub socket: LocalSocket,
    /// Our address there; `None`: the one that the kernel chooses for the remote address, whichever that is.
    pub address: Option<IpAddr>,
}

impl From<LocalSocket> for LocalEnd {
    fn from(socket: LocalSocket) -> Self {
        Self { socket, address: None }
    }
}

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
        /// Our socket on this path.
        socket: LocalSocket,
        /// Our address on this path, where the kernel would choose another one; packets have to leave by it.
        local: Option<IpAddr>,
        /// Where that address comes from.
        kind: CandidateKind,
        /// The smoothed round trip.
        rtt: Duration,
        /// The path is in doubt: send everything over the relay too.
        duplicate: bool,
    },
}

/// Why the selected path is the selected one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathReason {
    /// Nothing was up yet.
    Starting,
    /// The relay is up and no direct path is proved.
    RelayFirst,
    /// A direct path carried a full round trip, and a small one.
    DirectProved,
    /// Another direct path is better.
    BetterPath,
    /// The direct path fell silent and another one answers.
    Failover,
    /// The direct path fell silent.
    HeartbeatLost,
    /// The direct path answers small packets only: 1200 bytes do not pass. A peer that answers nothing, because it stands
    /// still or is gone, is [`HeartbeatLost`](Self::HeartbeatLost).
    PacketsTooSmall,
    /// The direct path answers large packets only: small ones, as the tunnel's acknowledgements are, do not pass.
    SmallPacketsLost,
    /// The direct path lost more than 30 % of the packets.
    Lossy,
    /// The peer's packets come from another address, and the one in use does not answer.
    PeerMoved,
    /// The direct path left by an address of ours that is gone.
    LocalAddressGone,
    /// The relay link went down and no direct path is proved.
    RelayLost,
    /// No connection with this peer may carry data.
    NotWanted,
}

impl PathReason {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Starting,
        Self::RelayFirst,
        Self::DirectProved,
        Self::BetterPath,
        Self::Failover,
        Self::HeartbeatLost,
        Self::PacketsTooSmall,
        Self::SmallPacketsLost,
        Self::Lossy,
        Self::PeerMoved,
        Self::LocalAddressGone,
        Self::RelayLost,
        Self::NotWanted,
    ];

    /// The one that a code means, as reports and docs/paths.md write it; none: no version that we know says so.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| format!("{reason:?}") == code)
    }
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
            Self::PacketsTooSmall => "the direct path no longer carries 1200 bytes (MTU too small)",
            Self::SmallPacketsLost => "the direct path no longer carries small packets",
            Self::Lossy => "the direct path lost more than 30 % of the packets",
            Self::PeerMoved => "the other end's packets come from another address now",
            Self::LocalAddressGone => "the own address that the direct path used is gone",
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
        /// The socket it leaves from.
        socket: LocalSocket,
        /// The address of ours it leaves by; `None`: as the kernel chooses. One that is gone loses it.
        local: Option<IpAddr>,
        /// The destination, in normal form.
        to: SocketAddr,
        /// Hops it may make, when it shall open our NAT and not arrive.
        ttl: Option<u8>,
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
    /// The tunnel's packets may be too large for its new path: a round trip on it shows QUIC at once which ones were lost, so that it
    /// sends shorter ones.
    AskTunnel,
    /// An authentic probe came from there: QUIC packets from this address may be attributed to the peer.
    AddressAuthenticated(SocketAddr),
    /// Not heard from for long, or pushed out: no longer attribute packets from there.
    AddressForgotten(SocketAddr),
    /// The session ids by which probes find this agent changed.
    SessionsChanged,
    /// A run of port guessing begins: it counts over a restart.
    GuessBegan,
    /// Open the sockets 1 to `count`; what they receive goes to [`PathAgent::handle_probe`](super::PathAgent::handle_probe).
    OpenSockets {
        /// How many; fewer make success less likely and nothing else.
        count: u16,
    },
    /// Close all of them but one.
    CloseSockets {
        /// The one that carries the path now.
        keep: Option<LocalSocket>,
    },
    /// A run of port guessing is over; one line in the log.
    GuessEnded(GuessOutcome),
}

/// What a run of port guessing came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuessOutcome {
    /// Probes this side sent.
    pub probes: u32,
    /// How long it took.
    pub took: Duration,
    /// Whether the pair is direct now.
    pub direct: bool,
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
    /// How many carried round trips of both sizes lately. Why one that was heard did not, is said by [`obstacle`](Self::obstacle).
    pub proved_pairs: usize,
    /// Why there is no direct path, when there is none.
    pub obstacle: Option<Obstacle>,
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
    /// Direct paths left for their loss.
    pub lossy: u64,
    /// Runs of port guessing.
    pub guess_runs: u64,
    /// Probes of those runs.
    pub guess_probes: u64,
    /// Bytes of probes sent, UDP payload.
    pub probe_bytes_sent: u64,
    /// Outputs dropped because the driver did not fetch them.
    pub outputs_dropped: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_known_by_its_code_and_nothing_else_is() {
        for (n, reason) in PathReason::ALL.into_iter().enumerate() {
            assert_eq!((reason as usize, PathReason::from_code(&format!("{reason:?}"))), (n, Some(reason)));
        }
        assert_eq!(PathReason::ALL.len(), PathReason::NotWanted as usize + 1);
        for code in ["", "local", "notwanted", "NotWanted "] {
            assert_eq!(PathReason::from_code(code), None, "{code:?}");
        }
    }
}
