//! The probe on the wire: sealed, counted, told apart from everything else by its first byte.
//!
//! ```text
//! 0x20 'G' 'W' 0x01, session id 8, counter 8,
//! ChaCha20-Poly1305(key of the direction, nonce = 4 zero bytes ‖ counter, aad = first 12 bytes, body)
//! body = postcard(ProbeBody), then zero bytes up to the wanted size
//! ```

use std::{fmt, net::SocketAddr};

use chacha20poly1305::{AeadInPlace, ChaCha20Poly1305, Key, KeyInit, Nonce, Tag};
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::replay::ReplayWindow;
use crate::signal::{ProbeSecrets, Role, SessionId};

/// UDP payload of a padded probe: what QUIC needs of a path (RFC 9000, section 14).
pub const PADDED_PROBE_LEN: usize = 1_200;

const MAGIC: [u8; 4] = [0x20, b'G', b'W', 0x01];
const AAD_LEN: usize = 12;
const HEADER_LEN: usize = 20;
const TAG_LEN: usize = 16;

/// What a UDP payload is, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketClass {
    /// RFC 8489.
    Stun,
    /// One of ours.
    Probe,
    /// RFC 9000 with the fixed bit set.
    Quic,
    /// To be dropped and counted.
    Unknown,
}

/// Tells the three protocols of the one UDP socket apart.
pub fn classify(packet: &[u8]) -> PacketClass {
    match packet.first() {
        Some(0x00..=0x03) => PacketClass::Stun,
        Some(0x20) => PacketClass::Probe,
        Some(0x40..=0xff) => PacketClass::Quic,
        Some(_) | None => PacketClass::Unknown,
    }
}

/// The session a probe claims to belong to, if it has the form of a probe.
pub fn probe_session_id(packet: &[u8]) -> Option<SessionId> {
    if packet.len() < HEADER_LEN + TAG_LEN || packet[..4] != MAGIC {
        return None;
    }
    packet[4..AAD_LEN].try_into().ok()
}

/// Why a received probe was dropped. Nothing is answered to any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// Not the form of a probe.
    #[error("the packet is no probe")]
    Malformed,
    /// No such session here.
    #[error("the probe belongs to no session of this peer")]
    UnknownSession,
    /// The seal does not fit.
    #[error("the probe is not authentic")]
    NotAuthentic,
    /// Seen before, or too old to tell.
    #[error("the probe was seen before")]
    Replayed,
    /// Authentic, but from an address that nothing may be sent to.
    #[error("the probe comes from an address that may not be probed")]
    UnusableSource,
}

/// The content of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProbeBody {
    /// Asks for a [`ProbeBody::Pong`], padded to [`PADDED_PROBE_LEN`] where the ping has at least that size.
    Ping {
        /// Chosen at random by the asker.
        transaction: [u8; 8],
    },
    /// Answers a ping.
    Pong {
        /// From the ping.
        transaction: [u8; 8],
        /// The source address of the ping.
        observed: SocketAddr,
    },
}

/// The keys and counters of one session's probes.
pub struct ProbeCipher {
    session_id: SessionId,
    send: ChaCha20Poly1305,
    receive: ChaCha20Poly1305,
    next_counter: u64,
    window: ReplayWindow,
}

impl ProbeCipher {
    /// The cipher for our side of a session.
    pub fn new(session_id: SessionId, secrets: &ProbeSecrets, role: Role) -> Self {
        let cipher =
            |sender: Role| ChaCha20Poly1305::new(Key::from_slice(probe_key(&session_id, secrets, sender).as_ref()));
        Self {
            session_id,
            send: cipher(role),
            receive: cipher(role.peer()),
            next_counter: 0,
            window: ReplayWindow::default(),
        }
    }

    /// Seals a probe; with `padded` it is exactly [`PADDED_PROBE_LEN`] bytes long.
    pub fn seal(&mut self, body: ProbeBody, padded: bool) -> Vec<u8> {
        self.seal_to(body, if padded { PADDED_PROBE_LEN } else { 0 })
    }

    /// Seals a probe of `size` bytes, or as many as it needs if these are more; `size` is at most that of a UDP payload.
    pub fn seal_to(&mut self, body: ProbeBody, size: usize) -> Vec<u8> {
        let counter = self.next_counter;
        self.next_counter += 1;
        let mut packet = Vec::with_capacity(size.max(PADDED_PROBE_LEN));
        packet.extend(MAGIC);
        packet.extend(self.session_id);
        packet.extend(counter.to_be_bytes());
        packet.extend(postcard::to_stdvec(&body).expect("invariant: a probe body always has a postcard form"));
        packet.resize(packet.len().max(size.saturating_sub(TAG_LEN)), 0);
        let (header, body) = packet.split_at_mut(HEADER_LEN);
        let tag = self
            .send
            .encrypt_in_place_detached(&nonce(counter), &header[..AAD_LEN], body)
            .expect("invariant: a probe is far below the limit of the cipher");
        packet.extend(tag);
        packet
    }

    /// Opens a probe and marks its counter as seen.
    pub fn open(&mut self, packet: &[u8]) -> Result<ProbeBody, ProbeError> {
        if probe_session_id(packet) != Some(self.session_id) {
            return Err(ProbeError::UnknownSession);
        }
        let (header, sealed) = packet.split_first_chunk::<HEADER_LEN>().ok_or(ProbeError::Malformed)?;
        let (sealed, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(ProbeError::Malformed)?;
        let [_, _, _, _, _, _, _, _, _, _, _, _, counter @ ..] = *header;
        let counter = u64::from_be_bytes(counter);
        if !self.window.is_new(counter) {
            return Err(ProbeError::Replayed);
        }
        let mut body = sealed.to_vec();
        self.receive
            .decrypt_in_place_detached(&nonce(counter), &header[..AAD_LEN], &mut body, Tag::from_slice(tag))
            .map_err(|_| ProbeError::NotAuthentic)?;
        self.window.mark(counter);
        postcard::take_from_bytes(&body).map(|(body, _padding)| body).map_err(|_| ProbeError::Malformed)
    }
}

impl fmt::Debug for ProbeCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeCipher").field("next_counter", &self.next_counter).finish_non_exhaustive()
    }
}

/// `HMAC-SHA256(offer secret ‖ answer secret, "gateway/probe/1" ‖ role of the sender ‖ session id)`.
fn probe_key(session_id: &SessionId, secrets: &ProbeSecrets, sender: Role) -> Zeroizing<[u8; 32]> {
    let key = Zeroizing::new([secrets.offer, secrets.answer].concat());
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&key).expect("invariant: HMAC takes keys of any length");
    mac.update(b"gateway/probe/1");
    mac.update(&[sender.code()]);
    mac.update(session_id);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = Nonce::default();
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    const SESSION: SessionId = *b"session1";

    fn ciphers() -> (ProbeCipher, ProbeCipher) {
        let secrets = ProbeSecrets { offer: [1; 32], answer: [2; 32] };
        (ProbeCipher::new(SESSION, &secrets, Role::Initiator), ProbeCipher::new(SESSION, &secrets, Role::Responder))
    }

    const PING: ProbeBody = ProbeBody::Ping { transaction: *b"12345678" };

    fn pong(observed: &str) -> ProbeBody {
        ProbeBody::Pong { transaction: *b"12345678", observed: observed.parse().unwrap() }
    }

    /// Vectors of docs/protocol.md: session id "session1", offer secret 32 × 01, answer secret 32 × 02.
    #[test]
    fn probes_look_as_documented() {
        let (mut initiator, mut responder) = ciphers();
        assert_eq!(
            HEXLOWER.encode(&initiator.seal(PING, false)),
            "2047570173657373696f6e310000000000000000cccd0693b090adf82049cf9ce736a39e39484d40d467d4a791"
        );
        assert_eq!(
            HEXLOWER.encode(&responder.seal(pong("192.0.2.1:5000"), false)),
            concat!(
                "2047570173657373696f6e310000000000000000430f4339370d534ef4badf740cd22615d94c4af8d1dc53737336b8a7",
                "9fa1f3a2",
            )
        );
        assert_eq!(
            HEXLOWER.encode(&responder.seal(pong("[2001:db8::1]:5000"), false)),
            concat!(
                "2047570173657373696f6e310000000000000001f7f75e9f1e72ecc4476e0a1fcbbae76d5c34a2c2a3368bd7ef6d00c6",
                "c39fde6c81f4bf33a6521a7b005600f5",
            )
        );
    }

    #[test]
    fn both_directions_open_and_a_reflected_probe_does_not() {
        let (mut initiator, mut responder) = ciphers();
        let ping = initiator.seal(PING, false);
        assert_eq!(initiator.open(&ping), Err(ProbeError::NotAuthentic), "our own probe comes back");
        assert_eq!(responder.open(&ping), Ok(PING));
        let answer = responder.seal(pong("[2001:db8::1]:5000"), false);
        assert_eq!(initiator.open(&answer), Ok(pong("[2001:db8::1]:5000")));
    }

    #[test]
    fn a_padded_probe_has_the_size_quic_needs() {
        let (mut initiator, mut responder) = ciphers();
        let ping = initiator.seal(PING, true);
        assert_eq!(ping.len(), 1_200);
        assert_eq!(responder.open(&ping), Ok(PING));
    }

    #[test]
    fn a_probe_counts_once_and_any_change_is_noticed() {
        let (mut initiator, mut responder) = ciphers();
        let ping = initiator.seal(PING, false);
        for index in 0..ping.len() {
            let mut changed = ping.clone();
            changed[index] ^= 1;
            assert!(responder.open(&changed).is_err(), "byte {index}");
        }
        assert!(responder.open(&ping[..ping.len() - 1]).is_err());
        assert_eq!(responder.open(&ping), Ok(PING));
        assert_eq!(responder.open(&ping), Err(ProbeError::Replayed));
    }

    #[test]
    fn a_forged_counter_does_not_move_the_window() {
        let (mut initiator, mut responder) = ciphers();
        let mut forged = initiator.seal(PING, false);
        forged[12..20].copy_from_slice(&u64::MAX.to_be_bytes()[..8]);
        assert!(responder.open(&forged).is_err());
        forged[12..20].copy_from_slice(&(1_u64 << 60).to_be_bytes());
        assert_eq!(responder.open(&forged), Err(ProbeError::NotAuthentic));
        assert_eq!(responder.open(&initiator.seal(PING, false)), Ok(PING));
    }

    #[test]
    fn the_first_byte_tells_the_protocols_apart() {
        assert_eq!(classify(&[0x01, 0x01]), PacketClass::Stun);
        assert_eq!(classify(&ciphers().0.seal(PING, false)), PacketClass::Probe);
        assert_eq!(classify(&[0xc3]), PacketClass::Quic);
        assert_eq!(classify(&[0x40]), PacketClass::Quic);
        for unknown in [&[][..], &[0x04], &[0x1f], &[0x21], &[0x3f]] {
            assert_eq!(classify(unknown), PacketClass::Unknown, "{unknown:?}");
        }
        assert_eq!(probe_session_id(&ciphers().0.seal(PING, false)), Some(SESSION));
    }

    proptest! {
        #[test]
        fn random_bytes_are_never_a_probe_and_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..1_300), form in any::<bool>()) {
            if form && bytes.len() >= 12 {
                bytes[..4].copy_from_slice(&MAGIC);
                bytes[4..12].copy_from_slice(&SESSION);
            }
            classify(&bytes);
            prop_assert!(ciphers().1.open(&bytes).is_err());
        }
    }
}
