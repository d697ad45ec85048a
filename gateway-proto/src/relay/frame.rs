//! Frames of the relay link, both directions.

mod body;

use std::net::{IpAddr, SocketAddr};

use self::body::{Body, concat};
use super::{Limit, LimitKind, MAX_DATAGRAMS, MAX_DETAIL, MAX_SIGNAL, RefusalCode, RelayAddress, udp::UdpSecret};
use crate::{id::RelayId, signed::MAX_TOKEN_LEN};

const ADMIT: u8 = 0x01;
const SEND_DATAGRAMS: u8 = 0x02;
const SEND_SIGNAL: u8 = 0x03;
const PING: u8 = 0x04;
const PONG: u8 = 0x05;
const BIND_SLOT: u8 = 0x06;
const UDP_LIMIT: u8 = 0x07;
const CHALLENGE: u8 = 0x81;
const RECV_DATAGRAMS: u8 = 0x82;
const RECV_SIGNAL: u8 = 0x83;
const ADMITTED: u8 = 0x84;
const REFUSED: u8 = 0x85;
const PEER_ABSENT: u8 = 0x86;
const RESTARTING: u8 = 0x87;
const UDP_SESSION: u8 = 0x88;
const SLOT_BOUND: u8 = 0x89;
const LIMIT_REACHED: u8 = 0x8a;

/// What a gateway says to a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientFrame<'a> {
    /// The answer to a challenge.
    Admit {
        /// The relay token's text.
        token: &'a str,
        /// The proof, see [`super::sign_admission`].
        signature: [u8; 64],
    },
    /// Datagrams for a peer; [`segments`] tells them apart. At most [`MAX_DATAGRAMS`] bytes.
    SendDatagrams {
        /// The peer.
        destination: RelayAddress,
        /// Length of each datagram but the last; 0 for a single one.
        segment_size: u16,
        /// The datagrams.
        payload: &'a [u8],
    },
    /// A sealed offer or answer for a peer. At most [`MAX_SIGNAL`] bytes.
    SendSignal {
        /// The peer.
        destination: RelayAddress,
        /// The sealed bytes.
        sealed: &'a [u8],
    },
    /// Asks for a `Pong` with the same bytes.
    Ping([u8; 8]),
    /// Answers a `Ping`.
    Pong([u8; 8]),
    /// The number of a peer in the session's datagrams. Numbers are given in order, from 0.
    BindSlot {
        /// The number.
        slot: u16,
        /// The peer.
        peer: RelayAddress,
    },
    /// The largest sealed datagram that reaches this gateway over UDP; 0: none does, use the WebSocket. With
    /// [`super::udp::LIMIT_IN_DOUBT`]: use both.
    UdpLimit(u16),
}

/// What a relay says to a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayFrame<'a> {
    /// The first frame of a link.
    Challenge {
        /// Version of the protocol.
        version: u8,
        /// Who the relay is.
        relay: RelayId,
        /// Fresh random bytes to sign.
        nonce: [u8; 32],
    },
    /// Datagrams of a peer; [`segments`] tells them apart.
    RecvDatagrams {
        /// The peer, as it proved itself to the relay.
        source: RelayAddress,
        /// Length of each datagram but the last; 0 for a single one.
        segment_size: u16,
        /// The datagrams.
        payload: &'a [u8],
    },
    /// A sealed offer or answer of a peer.
    RecvSignal {
        /// The peer, as it proved itself to the relay.
        source: RelayAddress,
        /// The sealed bytes.
        sealed: &'a [u8],
    },
    /// The gateway is attached.
    Admitted {
        /// Where the link comes from, as the relay sees it.
        observed: SocketAddr,
        /// How often the relay pings an idle link, in milliseconds.
        heartbeat_ms: u32,
        /// The most bytes per second this gateway may send; 0 for no limit.
        bytes_per_second: u64,
    },
    /// The link ends, and why. A longer text than [`MAX_DETAIL`] is cut.
    Refused {
        /// The reason to act on.
        code: RefusalCode,
        /// The reason for people.
        detail: &'a str,
    },
    /// Nobody with this key is attached here: a hint, not a proof.
    PeerAbsent(RelayAddress),
    /// The relay is about to stop; this link still works until it closes.
    Restarting {
        /// When to attach here again.
        reconnect_after_ms: u32,
    },
    /// Asks for a `Pong` with the same bytes.
    Ping([u8; 8]),
    /// Answers a `Ping`.
    Pong([u8; 8]),
    /// Datagrams may also travel over UDP, see [`super::udp`].
    UdpSession {
        /// The session's number.
        session: u32,
        /// The session's secret.
        secret: UdpSecret,
        /// The relay's UDP port, at the host of its URL unless the relay map says otherwise.
        port: u16,
    },
    /// The relay knows this number now.
    SlotBound(u16),
    /// Much of what this gateway sends is dropped, because a limit is reached. Told once in some seconds while that lasts.
    LimitReached(Limit),
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// More than [`MAX_FRAME`](super::MAX_FRAME) bytes.
    #[error("a frame of {0} bytes is longer than the largest frame")]
    TooLong(usize),
    /// The body is shorter or longer than its type says, or a field is out of its range.
    #[error("the body of a frame of type {0:#04x} is malformed")]
    Malformed(u8),
    /// No frame of this direction has this type. From a relay: ignore it, a newer relay may say more.
    #[error("unknown frame type {0:#04x}")]
    UnknownType(u8),
    /// No bytes at all.
    #[error("an empty frame")]
    Empty,
}

impl<'a> ClientFrame<'a> {
    /// The bytes of the frame. Token, payload and signal must be within their limits, else the relay refuses the frame.
    pub fn encode(&self) -> Vec<u8> {
        match *self {
            Self::Admit { token, signature } => {
                debug_assert!(token.len() <= MAX_TOKEN_LEN);
                let length = (token.len() as u16).to_be_bytes();
                concat(ADMIT, &[&length, token.as_bytes(), &signature])
            }
            Self::SendDatagrams { destination, segment_size, payload } => {
                debug_assert!(payload.len() <= MAX_DATAGRAMS);
                concat(SEND_DATAGRAMS, &[destination.as_bytes(), &segment_size.to_be_bytes(), payload])
            }
            Self::SendSignal { destination, sealed } => {
                debug_assert!(sealed.len() <= MAX_SIGNAL);
                concat(SEND_SIGNAL, &[destination.as_bytes(), sealed])
            }
            Self::Ping(bytes) => concat(PING, &[&bytes]),
            Self::Pong(bytes) => concat(PONG, &[&bytes]),
            Self::BindSlot { slot, peer } => concat(BIND_SLOT, &[&slot.to_be_bytes(), peer.as_bytes()]),
            Self::UdpLimit(limit) => concat(UDP_LIMIT, &[&limit.to_be_bytes()]),
        }
    }

    /// Reads one frame; hostile bytes are an error, never a panic.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let (kind, mut body) = Body::open(bytes)?;
        let frame = match kind {
            ADMIT => {
                let length = body.u16()?;
                let token = body.text(length.into(), MAX_TOKEN_LEN)?;
                Self::Admit { token, signature: body.array()? }
            }
            SEND_DATAGRAMS => {
                let (destination, segment_size, payload) = body.datagrams()?;
                Self::SendDatagrams { destination, segment_size, payload }
            }
            SEND_SIGNAL => {
                let (destination, sealed) = body.signal()?;
                Self::SendSignal { destination, sealed }
            }
            PING => Self::Ping(body.array()?),
            PONG => Self::Pong(body.array()?),
            BIND_SLOT => Self::BindSlot { slot: body.u16()?, peer: body.address()? },
            UDP_LIMIT => Self::UdpLimit(body.u16()?),
            other => return Err(FrameError::UnknownType(other)),
        };
        body.end()?;
        Ok(frame)
    }
}

impl<'a> RelayFrame<'a> {
    /// The bytes of the frame. Payload and signal must be within their limits, else the gateway refuses the frame.
    pub fn encode(&self) -> Vec<u8> {
        match *self {
            Self::Challenge { version, relay, nonce } => concat(CHALLENGE, &[&[version], &relay.to_bytes(), &nonce]),
            Self::RecvDatagrams { source, segment_size, payload } => {
                debug_assert!(payload.len() <= MAX_DATAGRAMS);
                concat(RECV_DATAGRAMS, &[source.as_bytes(), &segment_size.to_be_bytes(), payload])
            }
            Self::RecvSignal { source, sealed } => {
                debug_assert!(sealed.len() <= MAX_SIGNAL);
                concat(RECV_SIGNAL, &[source.as_bytes(), sealed])
            }
            Self::Admitted { observed, heartbeat_ms, bytes_per_second } => {
                let ip = match observed.ip() {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                let (port, heartbeat) = (observed.port().to_be_bytes(), heartbeat_ms.to_be_bytes());
                concat(ADMITTED, &[&ip.octets(), &port, &heartbeat, &bytes_per_second.to_be_bytes()])
            }
            Self::Refused { code, detail } => {
                let end = detail.floor_char_boundary(MAX_DETAIL);
                concat(REFUSED, &[&[code.code()], &detail.as_bytes()[..end]])
            }
            Self::PeerAbsent(peer) => concat(PEER_ABSENT, &[peer.as_bytes()]),
            Self::Restarting { reconnect_after_ms } => concat(RESTARTING, &[&reconnect_after_ms.to_be_bytes()]),
            Self::Ping(bytes) => concat(PING, &[&bytes]),
            Self::Pong(bytes) => concat(PONG, &[&bytes]),
            Self::UdpSession { session, secret, port } => {
                concat(UDP_SESSION, &[&session.to_be_bytes(), secret.expose(), &port.to_be_bytes()])
            }
            Self::SlotBound(slot) => concat(SLOT_BOUND, &[&slot.to_be_bytes()]),
            Self::LimitReached(Limit { kind, percent }) => concat(LIMIT_REACHED, &[&[kind.code(), percent]]),
        }
    }

    /// Reads one frame; hostile bytes are an error, never a panic. [`FrameError::UnknownType`] is to be ignored.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let (kind, mut body) = Body::open(bytes)?;
        let frame = match kind {
            CHALLENGE => {
                let [version] = body.array()?;
                Self::Challenge { version, relay: RelayId::from_bytes(body.array()?), nonce: body.array()? }
            }
            RECV_DATAGRAMS => {
                let (source, segment_size, payload) = body.datagrams()?;
                Self::RecvDatagrams { source, segment_size, payload }
            }
            RECV_SIGNAL => {
                let (source, sealed) = body.signal()?;
                Self::RecvSignal { source, sealed }
            }
            ADMITTED => {
                let ip = IpAddr::from(body.array::<16>()?).to_canonical();
                let observed = SocketAddr::new(ip, body.u16()?);
                let heartbeat_ms = u32::from_be_bytes(body.array()?);
                Self::Admitted { observed, heartbeat_ms, bytes_per_second: u64::from_be_bytes(body.array()?) }
            }
            REFUSED => {
                let [code] = body.array()?;
                let length = body.rest.len();
                Self::Refused { code: RefusalCode::from_code(code), detail: body.text(length, MAX_DETAIL)? }
            }
            PEER_ABSENT => Self::PeerAbsent(body.address()?),
            RESTARTING => Self::Restarting { reconnect_after_ms: u32::from_be_bytes(body.array()?) },
            PING => Self::Ping(body.array()?),
            PONG => Self::Pong(body.array()?),
            UDP_SESSION => {
                let session = u32::from_be_bytes(body.array()?);
                let secret = UdpSecret::from_bytes(body.array()?);
                Self::UdpSession { session, secret, port: body.u16()? }
            }
            SLOT_BOUND => Self::SlotBound(body.u16()?),
            LIMIT_REACHED => {
                let [kind, percent] = body.array()?;
                Self::LimitReached(Limit { kind: LimitKind::from_code(kind), percent })
            }
            other => return Err(FrameError::UnknownType(other)),
        };
        body.end()?;
        Ok(frame)
    }
}

/// Turns a decoded `SendDatagrams` or `SendSignal` into the `RecvDatagrams` or `RecvSignal` for its destination, in
/// place: both have the same layout, only the type and the address differ. Other frames stay as they are (false).
pub fn readdress(frame: &mut [u8], source: RelayAddress) -> bool {
    let kind = match frame.first() {
        Some(&SEND_DATAGRAMS) => RECV_DATAGRAMS,
        Some(&SEND_SIGNAL) => RECV_SIGNAL,
        _ => return false,
    };
    let Some((head, _)) = frame.split_first_chunk_mut::<33>() else {
        return false;
    };
    head[0] = kind;
    head[1..].copy_from_slice(source.as_bytes());
    true
}

/// The datagrams of a frame.
pub fn segments(segment_size: u16, payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let size = if segment_size == 0 { payload.len() } else { segment_size.into() };
    payload.chunks(size.max(1))
}

#[cfg(test)]
mod tests;
