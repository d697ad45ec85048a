//! What is inside the seal.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::{MAX_SIGNALLED_CANDIDATES, SignalError};
use crate::path::Candidate;

/// How a NAT maps the addresses behind it (RFC 4787), as far as three reflectors can tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NatMapping {
    /// Not measured.
    #[default]
    Unknown,
    /// The same outer port towards every destination: hole punching works.
    EndpointIndependent,
    /// Outer ports a few steps apart.
    Regular,
    /// Outer ports without a pattern.
    Random,
}

impl fmt::Display for NatMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "not known yet",
            Self::EndpointIndependent => "the same port towards everybody (easy)",
            Self::Regular => "another port per destination, in small steps (hard)",
            Self::Random => "another, random port per destination (hard)",
        })
    }
}

/// What the other side should know of our network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatReport {
    /// How our NAT maps.
    pub mapping: NatMapping,
    /// Our round trip to the relay in milliseconds, when measured; the other side times its first probes by it.
    pub relay_rtt_ms: Option<u16>,
}

impl NatReport {
    /// The round trip to the relay.
    pub fn relay_rtt(&self) -> Option<Duration> {
        self.relay_rtt_ms.map(|ms| Duration::from_millis(ms.into()))
    }
}

/// Where the counter of a regular NAT stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortPattern {
    /// The outer port it gave last.
    pub last: u16,
    /// 1: it counts upwards, -1: downwards, 0: not known.
    pub direction: i8,
}

/// What the other side must know before ports are guessed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuessReport {
    /// The sender opted in, and has runs left today.
    pub allowed: bool,
    /// Of a regular NAT: where its counter stands.
    pub ports: Option<PortPattern>,
}

/// The content of an offer and of an answer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalPayload {
    /// Grows with every offer of this sender, over restarts too: milliseconds of its clock, or one more than the last.
    pub generation: u64,
    /// The sender's clock.
    pub sent_at_unix_ms: u64,
    /// The sender's half of the key of the probes.
    pub probe_secret: [u8; 32],
    /// The sender's network.
    pub nat: NatReport,
    /// Where the sender might be reached.
    pub candidates: Vec<Candidate>,
    /// Whether and how the sender's port may be guessed. A sender that does not know this field says no.
    pub guess: GuessReport,
}

impl SignalPayload {
    pub(super) fn encode(&self) -> Result<Vec<u8>, SignalError> {
        check_count(&self.candidates)?;
        postcard::to_stdvec(self).map_err(|_| SignalError::Setup)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, SignalError> {
        let payload: Self = decode_extended(bytes)?;
        check_count(&payload.candidates)?;
        Ok(payload)
    }
}

impl Drop for SignalPayload {
    fn drop(&mut self) {
        self.probe_secret.zeroize();
    }
}

impl fmt::Debug for SignalPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalPayload")
            .field("generation", &self.generation)
            .field("sent_at_unix_ms", &self.sent_at_unix_ms)
            .field("nat", &self.nat)
            .field("candidates", &self.candidates.len())
            .field("guess", &self.guess)
            .finish_non_exhaustive()
    }
}

/// The content of a transport message: the sender's whole candidate set, so that a lost message is cured by the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trickle {
    /// Where the sender might be reached now.
    pub candidates: Vec<Candidate>,
    /// The sender's network now, in the messages of senders that know this field.
    pub network: Option<(NatReport, GuessReport)>,
}

impl Trickle {
    pub(super) fn encode(&self) -> Result<Vec<u8>, SignalError> {
        check_count(&self.candidates)?;
        postcard::to_stdvec(self).map_err(|_| SignalError::Setup)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, SignalError> {
        let trickle: Self = decode_extended(bytes)?;
        check_count(&trickle.candidates)?;
        Ok(trickle)
    }
}

/// Decodes a message whose last field may be missing: zeros in its place say "no" and "none".
fn decode_extended<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, SignalError> {
    let extended = Zeroizing::new([bytes, &[0; 2]].concat());
    postcard::take_from_bytes(&extended).map(|(message, _)| message).map_err(|_| SignalError::MalformedPayload)
}

fn check_count(candidates: &[Candidate]) -> Result<(), SignalError> {
    if candidates.len() > MAX_SIGNALLED_CANDIDATES {
        return Err(SignalError::TooManyCandidates(candidates.len()));
    }
    Ok(())
}
