//! The header: layout, MAC, counter.

use std::fmt;

use siphasher::sip::SipHasher24;

use super::OVERHEAD;
use crate::path::replay::ReplayWindow;

const SESSION: usize = 1;
const SLOT: usize = 5;
const COUNTER: usize = 7;
const MAC: usize = 13;
/// The body of a ping or a pong, in front of its padding.
const CONTROL_LEN: usize = 17;
/// The counter has 48 bits: at a million packets a second, nine years.
const COUNTERS: u64 = 1 << 48;
/// Words of the replay window: 2,000 packets may overtake each other, two trains of a fast path.
const WINDOW_WORDS: usize = 32;

/// What a datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Sealed bytes for, or of, the peer in the slot.
    Data,
    /// Asks the relay for a pong of the same length.
    Ping,
    /// Answers a ping.
    Pong,
}

/// The body of a pong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Which ping it answers.
    pub id: u64,
    /// What the next ping has to say to prove that pongs reach this address.
    pub challenge: u64,
    /// Whether this address has proved it already.
    pub validated: bool,
}

/// The secret of a session, as the relay drew it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UdpSecret([u8; 32]);

impl UdpSecret {
    /// From 32 random bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The wire form.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The keys towards the relay and from it.
    fn keys(&self) -> [SipHasher24; 2] {
        let (first, second) = self.0.split_at(16);
        [first, second].map(|half| SipHasher24::new_with_key(half.try_into().expect("invariant: half of 32 bytes")))
    }
}

impl fmt::Debug for UdpSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UdpSecret(…)")
    }
}

/// Why a datagram is dropped. Nothing is answered to any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UdpError {
    /// Too short, or of no known kind.
    #[error("the datagram is malformed")]
    Malformed,
    /// Not by the holder of the session's secret.
    #[error("the datagram's MAC is wrong")]
    BadMac,
    /// Seen before, or too old to tell.
    #[error("the datagram was seen before, or is too old to tell")]
    Replayed,
}

/// An authentic datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// What it is.
    pub kind: Kind,
    /// The peer's slot; 0 for pings and pongs.
    pub slot: u16,
}

/// The session a datagram names, nothing of it proved yet.
pub fn session_of(datagram: &[u8]) -> Option<u32> {
    if datagram.len() < OVERHEAD { None } else { datagram[SESSION..SLOT].try_into().ok().map(u32::from_be_bytes) }
}

/// One end of a session: seals what goes out, opens what comes in.
#[derive(Clone)]
pub struct UdpSession {
    id: u32,
    sealing: SipHasher24,
    opening: SipHasher24,
    next: u64,
    seen: ReplayWindow<WINDOW_WORDS>,
}

impl UdpSession {
    /// The gateway's end.
    pub fn of_gateway(id: u32, secret: &UdpSecret) -> Self {
        let [sealing, opening] = secret.keys();
        Self { id, sealing, opening, next: 0, seen: ReplayWindow::default() }
    }

    /// The relay's end.
    pub fn of_relay(id: u32, secret: &UdpSecret) -> Self {
        let [opening, sealing] = secret.keys();
        Self { id, sealing, opening, next: 0, seen: ReplayWindow::default() }
    }

    /// Writes a data header over the first [`OVERHEAD`] bytes of `datagram`. False when nothing was written: it is shorter, or
    /// the session has used up its counters.
    pub fn seal(&mut self, slot: u16, datagram: &mut [u8]) -> bool {
        self.write(0x30, slot, datagram)
    }

    /// A train for one slot: a header before each segment, into `train`, whose old content is dropped. False when the
    /// session has used up its counters. A `segment_size` of 0 means a single datagram.
    pub fn seal_train(&mut self, slot: u16, payload: &[u8], segment_size: usize, train: &mut Vec<u8>) -> bool {
        train.clear();
        let size = if segment_size == 0 { payload.len() } else { segment_size };
        payload.chunks(size.max(1)).all(|segment| {
            let at = train.len();
            train.extend_from_slice(&[0; OVERHEAD]);
            train.extend_from_slice(segment);
            self.seal(slot, &mut train[at..])
        })
    }

    /// A ping of `payload` bytes behind the header, at least as many as its body needs.
    pub fn ping(&mut self, id: u64, echo: u64, payload: usize) -> Vec<u8> {
        let mut datagram = vec![0; OVERHEAD + payload.max(CONTROL_LEN)];
        datagram[OVERHEAD..OVERHEAD + 8].copy_from_slice(&id.to_be_bytes());
        datagram[OVERHEAD + 8..OVERHEAD + 16].copy_from_slice(&echo.to_be_bytes());
        self.write(0x31, 0, &mut datagram);
        datagram
    }

    /// What an opened ping says: its id, and the challenge it echoes.
    pub fn read_ping(datagram: &[u8]) -> Option<(u64, u64)> {
        let body = datagram.get(OVERHEAD..OVERHEAD + 16)?;
        let (id, echo) = body.split_at(8);
        Some((u64::from_be_bytes(id.try_into().ok()?), u64::from_be_bytes(echo.try_into().ok()?)))
    }

    /// Turns an opened ping into its pong, in place and of the same length.
    pub fn pong(&mut self, answer: Answer, datagram: &mut [u8]) -> bool {
        let Some(body) = datagram.get_mut(OVERHEAD..OVERHEAD + CONTROL_LEN) else { return false };
        body[..8].copy_from_slice(&answer.id.to_be_bytes());
        body[8..16].copy_from_slice(&answer.challenge.to_be_bytes());
        body[16] = u8::from(answer.validated);
        self.write(0x32, 0, datagram)
    }

    /// What an opened pong says.
    pub fn read_pong(datagram: &[u8]) -> Option<Answer> {
        let (id, challenge) = Self::read_ping(datagram)?;
        Some(Answer { id, challenge, validated: *datagram.get(OVERHEAD + 16)? == 1 })
    }

    /// Checks a datagram of this session and marks its counter as seen.
    pub fn open(&mut self, datagram: &[u8]) -> Result<Opened, UdpError> {
        let kind = match datagram.first() {
            Some(0x30) => Kind::Data,
            Some(0x31) => Kind::Ping,
            Some(0x32) => Kind::Pong,
            Some(_) | None => return Err(UdpError::Malformed),
        };
        let least = if kind == Kind::Data { OVERHEAD + 1 } else { OVERHEAD + CONTROL_LEN };
        if datagram.len() < least || session_of(datagram) != Some(self.id) {
            return Err(UdpError::Malformed);
        }
        let expected = mac(&self.opening, datagram);
        // Both are numbers in registers: no byte of a guess is told apart by time.
        if u64::from_le_bytes(array(&datagram[MAC..OVERHEAD])) != expected {
            return Err(UdpError::BadMac);
        }
        let mut counter = [0; 8];
        counter[2..].copy_from_slice(&datagram[COUNTER..MAC]);
        let counter = u64::from_be_bytes(counter);
        if !self.seen.is_new(counter) {
            return Err(UdpError::Replayed);
        }
        self.seen.mark(counter);
        Ok(Opened { kind, slot: u16::from_be_bytes(array(&datagram[SLOT..COUNTER])) })
    }

    fn write(&mut self, kind: u8, slot: u16, datagram: &mut [u8]) -> bool {
        if datagram.len() < OVERHEAD || self.next >= COUNTERS {
            return false;
        }
        datagram[0] = kind;
        datagram[SESSION..SLOT].copy_from_slice(&self.id.to_be_bytes());
        datagram[SLOT..COUNTER].copy_from_slice(&slot.to_be_bytes());
        datagram[COUNTER..MAC].copy_from_slice(&self.next.to_be_bytes()[2..]);
        self.next += 1;
        let mac = mac(&self.sealing, datagram);
        datagram[MAC..OVERHEAD].copy_from_slice(&mac.to_le_bytes());
        true
    }
}

impl fmt::Debug for UdpSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSession").field("id", &self.id).field("next", &self.next).finish_non_exhaustive()
    }
}

/// SipHash-2-4 over the header without the MAC, the length, and the body of a ping or pong.
fn mac(key: &SipHasher24, datagram: &[u8]) -> u64 {
    let mut covered = [0; MAC + 2 + CONTROL_LEN];
    covered[..MAC].copy_from_slice(&datagram[..MAC]);
    // No UDP datagram is longer than its 16-bit length says.
    covered[MAC..MAC + 2].copy_from_slice(&(datagram.len() as u16).to_be_bytes());
    if datagram[0] == 0x30 {
        return key.hash(&covered[..MAC + 2]);
    }
    let body = &datagram[OVERHEAD..datagram.len().min(OVERHEAD + CONTROL_LEN)];
    covered[MAC + 2..MAC + 2 + body.len()].copy_from_slice(body);
    key.hash(&covered)
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("invariant: a slice of constant length")
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    fn ends() -> (UdpSession, UdpSession) {
        let secret = UdpSecret::from_bytes(std::array::from_fn(|n| n as u8));
        (UdpSession::of_gateway(0x0102_0304, &secret), UdpSession::of_relay(0x0102_0304, &secret))
    }

    fn data(session: &mut UdpSession, slot: u16, payload: &[u8]) -> Vec<u8> {
        let mut train = Vec::new();
        assert!(session.seal_train(slot, payload, 0, &mut train));
        train
    }

    #[test]
    fn datagrams_have_the_bytes_of_the_protocol_document() {
        let (mut gateway, mut relay) = ends();
        let first = data(&mut gateway, 5, &[0xaa, 0xbb, 0xcc]);
        assert_eq!(HEXLOWER.encode(&first), "30010203040005000000000000dbbadedced0db07baabbcc");
        let mut ping = gateway.ping(7, 9, 0);
        assert_eq!(
            HEXLOWER.encode(&ping),
            "3101020304000000000000000195710a84f57ceb3f0000000000000007000000000000000900"
        );
        relay.open(&ping).unwrap();
        assert!(relay.pong(Answer { id: 7, challenge: 10, validated: true }, &mut ping));
        assert_eq!(
            HEXLOWER.encode(&ping),
            "320102030400000000000000009fee99ce1d4c95210000000000000007000000000000000a01"
        );
    }

    #[test]
    fn a_train_is_opened_segment_by_segment_and_sealed_again_in_place() {
        let (mut gateway, mut relay) = ends();
        let (_, mut other_relay) = ends();
        let mut train = Vec::new();
        assert!(gateway.seal_train(3, &[7; 2500], 1200, &mut train));
        assert_eq!(train.len(), 2500 + 3 * OVERHEAD);
        for segment in train.chunks_mut(1200 + OVERHEAD) {
            assert_eq!(relay.open(segment), Ok(Opened { kind: Kind::Data, slot: 3 }));
            assert!(other_relay.seal(9, segment));
        }
        let (mut receiver, _) = ends();
        for segment in train.chunks(1200 + OVERHEAD) {
            assert_eq!(receiver.open(segment), Ok(Opened { kind: Kind::Data, slot: 9 }));
            assert!(segment[OVERHEAD..].iter().all(|byte| *byte == 7), "the payload is untouched");
        }
    }

    #[test]
    fn every_datagram_opens_once_and_only_at_the_other_end() {
        let (mut gateway, mut relay) = ends();
        let datagram = data(&mut gateway, 1, b"sealed");
        assert_eq!(gateway.clone().open(&datagram), Err(UdpError::BadMac), "the two directions have two keys");
        assert!(relay.open(&datagram).is_ok());
        assert_eq!(relay.open(&datagram), Err(UdpError::Replayed));
    }

    #[test]
    fn a_change_of_header_length_or_control_body_is_seen() {
        let (mut gateway, mut relay) = ends();
        let datagram = data(&mut gateway, 1, b"sealed");
        for at in 0..OVERHEAD {
            let mut changed = datagram.clone();
            changed[at] ^= 1;
            assert!(relay.clone().open(&changed).is_err(), "byte {at}");
        }
        let mut longer = datagram;
        longer.push(0);
        assert_eq!(relay.clone().open(&longer), Err(UdpError::BadMac));
        let ping = gateway.ping(1, 2, 100);
        for at in OVERHEAD..OVERHEAD + CONTROL_LEN {
            let mut changed = ping.clone();
            changed[at] ^= 1;
            assert_eq!(relay.clone().open(&changed), Err(UdpError::BadMac), "byte {at}");
        }
        assert_eq!(relay.open(&ping[..60]), Err(UdpError::BadMac));
    }

    #[test]
    fn a_used_up_session_seals_nothing_more() {
        let (mut gateway, _) = ends();
        gateway.next = COUNTERS;
        assert!(!gateway.seal_train(0, b"late", 0, &mut Vec::new()));
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), kind in 0x30_u8..0x33) {
            let (_, mut relay) = ends();
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            if let Some(session) = bytes.get_mut(1..5) {
                session.copy_from_slice(&[1, 2, 3, 4]);
            }
            prop_assert!(relay.open(&bytes).is_err());
            let _ = (session_of(&bytes), UdpSession::read_ping(&bytes), UdpSession::read_pong(&bytes));
        }
    }
}
