//! Noise-sealed offers and answers: how two gateways tell each other where they can be reached, past a relay that may
//! read nothing of it.
//!
//! One exchange is one Noise handshake (`KKpsk0`): both static keys and the pair secret come from the policy, so the
//! first message is already private and authentic. The [`Offer`] carries the initiator's [`SignalPayload`], the answer
//! the responder's; both then hold a [`Channel`] for trickled candidates and the two [`ProbeSecrets`] from which the
//! probe keys are made. A lost message costs nothing but a new offer.
//!
//! ```text
//! envelope: version u8 = 1, kind u8, session id 8, then
//!   kind 1, 2 (offer, answer)  Noise handshake message, payload = postcard(SignalPayload)
//!   kind 3    (transport)      counter u64, Noise transport message with that nonce, payload = postcard(Trickle)
//! ```
//!
//! Rules against replay: an offer is refused when its clock differs by more than [`MAX_CLOCK_SKEW_MS`] or when its
//! generation is not greater than the last one accepted ([`OfferGuard`]); an answer is bound to its offer by the
//! handshake; trickle counters only go up. A generation may not run ahead of the sender's own clock by more than the
//! same limit, so a clock that was wrong once cannot lock a peer out for ever.

mod envelope;
mod guard;
mod handshake;
mod payload;
mod random;
#[cfg(test)]
mod tests;

pub use envelope::{Envelope, SignalKind};
pub use guard::OfferGuard;
pub use handshake::{Channel, Offer, OpenedAnswer, ProbeSecrets, ReceivedOffer, Role, SignalKeys};
pub use payload::{GuessReport, NatMapping, NatReport, PortPattern, SignalPayload, Trickle};
pub use random::SeededRandom;

/// The only version of the envelope.
pub const SIGNAL_VERSION: u8 = 1;

/// Largest sealed signal, envelope included: the relay carries no more.
pub const MAX_SIGNAL_LEN: usize = 8_192;

/// Most candidates in one message: more than any machine has, few enough to be probed.
pub const MAX_SIGNALLED_CANDIDATES: usize = 32;

/// Most that the sender's clock may differ from ours: an offer is acted upon at once or never.
pub const MAX_CLOCK_SKEW_MS: u64 = 60_000;

/// Names one exchange; chosen at random by the initiator, and carried in every probe of the session.
pub type SessionId = [u8; 8];

/// Why a signal was refused. Nothing is answered to any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    /// Longer than [`MAX_SIGNAL_LEN`].
    #[error("the signal is {0} bytes long, at most {MAX_SIGNAL_LEN} are allowed")]
    TooLong(usize),
    /// Shorter than its fixed part.
    #[error("the signal ends within its fixed part")]
    Truncated,
    /// A version we do not speak.
    #[error("the signal has version {0}, only {SIGNAL_VERSION} is understood: update the older gateway")]
    UnsupportedVersion(u8),
    /// A kind we do not know.
    #[error("the signal has the unknown kind {0}")]
    UnknownKind(u8),
    /// Not sealed by the expected peer with the current pair secret.
    #[error("the signal is not authentic: the peer's key or the pair secret differs, or it was altered on the way")]
    NotAuthentic,
    /// Authentic, but not what the sealed bytes should hold.
    #[error("the sealed content cannot be read")]
    MalformedPayload,
    /// Authentic, but with too many candidates.
    #[error("the signal lists {0} candidates, at most {MAX_SIGNALLED_CANDIDATES} are allowed")]
    TooManyCandidates(usize),
    /// An offer made too long ago by the sender's clock.
    #[error("the offer is {age_ms} ms old: a replay, or the clocks of the two gateways differ")]
    Stale {
        /// Our clock minus the sender's.
        age_ms: u64,
    },
    /// An offer from the future.
    #[error("the offer is {ahead_ms} ms ahead of our clock: the clocks of the two gateways differ")]
    FromTheFuture {
        /// The sender's clock minus ours.
        ahead_ms: u64,
    },
    /// An offer, or a trickle, that was seen before or was overtaken.
    #[error("the signal was seen before or is older than one that was")]
    Replayed,
    /// The generation runs ahead of the sender's own clock.
    #[error("the offer's generation is ahead of its own clock")]
    GenerationAhead,
    /// An answer or a trickle for an exchange we do not have.
    #[error("the signal belongs to no exchange that is open here")]
    UnknownSession,
    /// More offers than an honest peer makes.
    #[error("too many offers in a short time, this one is not opened")]
    TooMany,
    /// Nothing here wants a direct path to this peer.
    #[error("no connection with this peer may carry data now, the offer is not answered")]
    NotWanted,
    /// Our own configuration wants no direct paths.
    #[error("direct paths are switched off on this side (tunnel.direct = false), the offer is not answered")]
    SwitchedOff,
    /// Our own side could not seal or set up a handshake.
    #[error("our own keys do not make a handshake: check the policy's Noise keys")]
    Setup,
}
