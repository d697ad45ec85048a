//! The path agent: how data of one pair of gateways finds its way, and changes it while flowing.
//!
//! One [`PathAgent`] per peer. It touches no socket and no clock; the daemon moves its bytes and wakes it.
//!
//! **Start.** As soon as the relay link is up, [`Selected::Relayed`] is chosen: data flows at once. When a direct path is
//! wanted, the agent sends a sealed offer over the relay and gets an answer ([`crate::signal`]); both sides then know
//! each other's candidates and hold a session with its own probe keys. When offers cross, the one of the smaller
//! gateway key wins. A lost message only means a new offer.
//!
//! **Punch.** Both sides start at the same moment (the answering side waits for the way of its answer) and send small
//! probes to every pair at 0/33/67/133/267/533/1066 ms, up to three attempts, so that first packets cross and open both
//! NATs. There is one UDP socket, so a pair is named by the remote address. An authentic probe from an unknown address
//! makes that address a peer-reflexive candidate.
//!
//! Every probe is answered by the address of ours at which it came, and a pair remembers the one over which it was
//! proved: the kernel's own choice is tried first, and where it fails the one at which the peer is heard. Whoever hears
//! the peer sends three more probes: the early ones of the peer's side may have died. A miss leads to another round
//! after 60 s, doubling to 15 min; an address change of either side starts over at once; between the rounds every pair
//! is looked at again every 30 s. Both are rarer while no stream is open: nobody waits for a better path. Nothing is
//! latched.
//!
//! **Promotion.** Only a round trip of 1200 bytes promotes: an address that answers small packets is no path yet. A path
//! of a better tier (own addresses, then direct, then relay) is used at once; within a tier the new one must be faster
//! by 5 ms and by 10 %.
//!
//! **Leaving.** The selected direct path carries heartbeats, every second while streams are open. Half a second
//! without an answer is a miss; at the first the path is asked four times a second, at the second it is distrusted
//! (data is duplicated onto the relay) 2.5 s after the last answer at the latest, at the third it is demoted. Only
//! answers to our own probes count as life, because nothing else proves both directions. That packets are too large for
//! a path is said only when small probes are answered that were sent after the first full-size one without an answer.
//!
//! **Restart of the peer.** Its new offer makes a new session. The old one keeps answering until the new one has proved
//! a path, and heartbeats stay on it until the peer was heard in the new one, so a lost answer breaks nothing.
//!
//! **Invariants.** At most [`MAX_PAIRS`] pairs, [`MAX_LEARNED_PAIRS`] of them not signalled; at most
//! [`MAX_PROBES_PER_MINUTE`] probes of each kind in any minute; every change of path carries a [`PathReason`].

mod agent;
mod budget;
mod candidate;
mod guess;
mod heartbeat;
mod loss;
mod nat;
mod obstacle;
mod pair;
mod pairs;
mod probe;
mod punch;
mod regather;
pub(crate) mod replay;
mod score;
mod selection;
mod session;

pub use agent::{PathAgent, PathConfig};
pub use budget::MAX_PROBES_PER_MINUTE;
pub use candidate::{Candidate, CandidateKind, Tier, is_public, normalize};
pub use guess::{GUESS_SOCKETS, GuessLedger, MAX_GUESS_PROBES, MAX_GUESS_RUNS_PER_DAY};
pub use loss::Carried;
pub use nat::{Missing, NatView, Told, Weighed, Word};
pub use obstacle::Obstacle;
pub use pairs::{MAX_LEARNED_PAIRS, MAX_PAIRS};
pub use probe::{PADDED_PROBE_LEN, PacketClass, ProbeBody, ProbeCipher, ProbeError, classify, probe_session_id};
pub use regather::Regather;
pub use selection::{
    GuessOutcome, LocalEnd, LocalSocket, PathCounters, PathEvent, PathReason, PathSnapshot, PathTransmit, Selected,
};

pub use crate::signal::{NatMapping, PortPattern, SignalError};

#[cfg(test)]
mod test_clock {
    use std::time::Instant;

    #[expect(clippy::disallowed_methods, reason = "an Instant has no other source; tests only add to it")]
    pub(super) fn start() -> Instant {
        Instant::now()
    }
}
