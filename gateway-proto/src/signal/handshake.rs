//! Sealing and opening: Noise `KKpsk0` and the channel that follows it.

use std::fmt;

use snow::{
    Builder, HandshakeState, StatelessTransportState,
    params::{CipherChoice, DHChoice, HashChoice, NoiseParams},
    resolvers::{CryptoResolver, DefaultResolver},
    types::{Cipher, Dh, Hash, Random},
};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{Envelope, MAX_SIGNAL_LEN, SeededRandom, SessionId, SignalError, SignalKind, SignalPayload, Trickle};

const NOISE_PATTERN: &str = "Noise_KKpsk0_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"gateway/signal/1";

/// Which side of the exchange we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Made the offer.
    Initiator,
    /// Answered it.
    Responder,
}

impl Role {
    /// The byte that keeps the two directions of the probes apart: the role of the sender.
    pub fn code(self) -> u8 {
        match self {
            Self::Initiator => 1,
            Self::Responder => 2,
        }
    }

    /// The role of the other side.
    pub fn peer(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }
}

/// Everything one pair of gateways seals with, from the policy.
#[derive(Clone)]
pub struct SignalKeys {
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
}

impl fmt::Debug for SignalKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignalKeys(…)")
    }
}

/// The two secrets that went over the sealed exchange; the keys of the probes are made from them.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ProbeSecrets {
    /// From the offer.
    pub offer: [u8; 32],
    /// From the answer.
    pub answer: [u8; 32],
}

impl fmt::Debug for ProbeSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProbeSecrets(…)")
    }
}

/// An offer of ours that waits for its answer.
pub struct Offer {
    session_id: SessionId,
    probe_secret: Zeroizing<[u8; 32]>,
    handshake: HandshakeState,
}

impl Offer {
    /// Seals an offer; returns what is needed to open the answer, and the bytes for the relay.
    pub fn seal(
        keys: &SignalKeys,
        payload: &SignalPayload,
        random: &mut SeededRandom,
    ) -> Result<(Self, Vec<u8>), SignalError> {
        let session_id = random.bytes();
        let mut handshake = handshake(keys, Role::Initiator, random)?;
        let sealed = write_handshake(&mut handshake, &Zeroizing::new(payload.encode()?))?;
        let bytes = Envelope { kind: SignalKind::Offer, session_id, sealed: &sealed }.encode()?;
        Ok((Self { session_id, probe_secret: Zeroizing::new(payload.probe_secret), handshake }, bytes))
    }

    /// The id of the exchange.
    pub fn session_id(&self) -> SessionId {
        self.session_id
    }

    /// Opens the answer to this offer. A forged answer gives the offer back, so that it stays open for the true one.
    pub fn open_answer(mut self, sealed: &[u8]) -> Result<OpenedAnswer, (Box<Self>, SignalError)> {
        let payload = match read_handshake(&mut self.handshake, sealed).and_then(|clear| SignalPayload::decode(&clear))
        {
            Ok(payload) => payload,
            Err(error) => return Err((Box::new(self), error)),
        };
        let secrets = ProbeSecrets { offer: *self.probe_secret, answer: payload.probe_secret };
        let transport = self.handshake.into_stateless_transport_mode();
        let transport = transport.expect("invariant: reading the second of two messages finishes the handshake");
        Ok(OpenedAnswer { payload, channel: Channel::new(self.session_id, transport), secrets })
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer").field("session_id", &self.session_id).finish_non_exhaustive()
    }
}

/// What an answer brings.
#[derive(Debug)]
pub struct OpenedAnswer {
    /// The responder's candidates and network.
    pub payload: SignalPayload,
    /// For later candidates.
    pub channel: Channel,
    /// For the keys of the probes.
    pub secrets: ProbeSecrets,
}

/// An authentic offer of the peer, not yet answered.
#[derive(Debug)]
pub struct ReceivedOffer {
    session_id: SessionId,
    payload: SignalPayload,
    handshake: HandshakeState,
}

impl ReceivedOffer {
    /// Opens an offer. Whether it is fresh is for [`OfferGuard`](super::OfferGuard) to say.
    pub fn open(keys: &SignalKeys, envelope: &Envelope<'_>, random: &mut SeededRandom) -> Result<Self, SignalError> {
        let mut handshake = handshake(keys, Role::Responder, random)?;
        let clear = read_handshake(&mut handshake, envelope.sealed)?;
        Ok(Self { session_id: envelope.session_id, payload: SignalPayload::decode(&clear)?, handshake })
    }

    /// What the initiator says.
    pub fn payload(&self) -> &SignalPayload {
        &self.payload
    }

    /// The id of the exchange.
    pub fn session_id(&self) -> SessionId {
        self.session_id
    }

    /// Seals the answer and opens the channel.
    pub fn answer(mut self, answer: &SignalPayload) -> Result<(Channel, ProbeSecrets, Vec<u8>), SignalError> {
        let sealed = write_handshake(&mut self.handshake, &Zeroizing::new(answer.encode()?))?;
        let bytes = Envelope { kind: SignalKind::Answer, session_id: self.session_id, sealed: &sealed }.encode()?;
        let secrets = ProbeSecrets { offer: self.payload.probe_secret, answer: answer.probe_secret };
        let transport = self.handshake.into_stateless_transport_mode().map_err(|_| SignalError::Setup)?;
        Ok((Channel::new(self.session_id, transport), secrets, bytes))
    }
}

/// The sealed channel after a handshake; messages may be lost, so every one carries its counter.
#[derive(Debug)]
pub struct Channel {
    session_id: SessionId,
    transport: StatelessTransportState,
    next_counter: u64,
    last_received: Option<u64>,
}

const COUNTER_LEN: usize = 8;
const TAG_LEN: usize = 16;

impl Channel {
    fn new(session_id: SessionId, transport: StatelessTransportState) -> Self {
        Self { session_id, transport, next_counter: 0, last_received: None }
    }

    /// Seals the current candidates.
    pub fn seal(&mut self, trickle: &Trickle) -> Result<Vec<u8>, SignalError> {
        let clear = trickle.encode()?;
        let counter = self.next_counter;
        let mut sealed = vec![0; COUNTER_LEN + clear.len() + TAG_LEN];
        sealed[..COUNTER_LEN].copy_from_slice(&counter.to_be_bytes());
        self.transport.write_message(counter, &clear, &mut sealed[COUNTER_LEN..]).map_err(|_| SignalError::Setup)?;
        self.next_counter += 1;
        Envelope { kind: SignalKind::Transport, session_id: self.session_id, sealed: &sealed }.encode()
    }

    /// Opens a transport message; one that was overtaken by a newer is of no use any more.
    pub fn open(&mut self, sealed: &[u8]) -> Result<Trickle, SignalError> {
        let (counter, sealed) = sealed.split_first_chunk::<COUNTER_LEN>().ok_or(SignalError::Truncated)?;
        let counter = u64::from_be_bytes(*counter);
        if self.last_received.is_some_and(|last| counter <= last) {
            return Err(SignalError::Replayed);
        }
        let mut clear = vec![0; sealed.len()];
        let len = self.transport.read_message(counter, sealed, &mut clear).map_err(|_| SignalError::NotAuthentic)?;
        self.last_received = Some(counter);
        Trickle::decode(&clear[..len])
    }
}

fn handshake(keys: &SignalKeys, role: Role, random: &mut SeededRandom) -> Result<HandshakeState, SignalError> {
    let (initiator, responder) = match role {
        Role::Initiator => (&keys.local_key, &keys.remote_key),
        Role::Responder => (&keys.remote_key, &keys.local_key),
    };
    let prologue = [PROLOGUE, initiator, responder].concat();
    let params: NoiseParams = NOISE_PATTERN.parse().map_err(|_| SignalError::Setup)?;
    let builder = Builder::with_resolver(params, Box::new(SeededResolver(random.bytes())))
        .prologue(&prologue)
        .and_then(|builder| builder.local_private_key(keys.noise_private.as_ref()))
        .and_then(|builder| builder.remote_public_key(&keys.remote_noise))
        .and_then(|builder| builder.psk(0, &keys.pair_secret))
        .map_err(|_| SignalError::Setup)?;
    match role {
        Role::Initiator => builder.build_initiator(),
        Role::Responder => builder.build_responder(),
    }
    .map_err(|_| SignalError::Setup)
}

fn write_handshake(handshake: &mut HandshakeState, clear: &[u8]) -> Result<Vec<u8>, SignalError> {
    let mut sealed = vec![0; MAX_SIGNAL_LEN];
    let len = handshake.write_message(clear, &mut sealed).map_err(|_| SignalError::Setup)?;
    sealed.truncate(len);
    Ok(sealed)
}

fn read_handshake(handshake: &mut HandshakeState, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SignalError> {
    let mut clear = Zeroizing::new(vec![0; sealed.len()]);
    let len = handshake.read_message(sealed, &mut clear).map_err(|_| SignalError::NotAuthentic)?;
    clear.truncate(len);
    Ok(clear)
}

/// snow's own primitives, with a random generator seeded by us: the crate has no global one.
struct SeededResolver([u8; 32]);

impl CryptoResolver for SeededResolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(SeededRandom::new(self.0)))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

impl Random for SeededRandom {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        self.fill(dest);
        Ok(())
    }
}

impl Drop for SeededResolver {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
