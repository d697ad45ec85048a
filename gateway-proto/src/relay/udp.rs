//! Relaying over UDP, beside the WebSocket (docs/protocol.md §3.1).
//!
//! After the admission the relay hands out a session over the WebSocket: a number and a secret. A datagram then carries a short
//! header in front of the sealed bytes: session, slot, counter, MAC. A *slot* is the number under which one session knows a peer; the
//! gateway chooses it and tells it once, so that no 32-byte key travels per packet. Header and layout are the same both ways: a relay turns a batch for one
//! session into a batch for another by writing new headers over the old ones, in place.
//!
//! The MAC proves who sent the header and how long the datagram is; the bytes behind it are sealed between the gateways and need no second proof. Only
//! pings and pongs are covered whole, up to their padding. Nothing is kept for a stranger: what names no session, or has a wrong
//! MAC, is dropped before anything is written down.
//!
//! [`UdpCarrier`] decides at the gateway whether UDP is used; [`UdpReach`] decides at the relay where a gateway can be sent datagrams.
//! Both may say no at any time: the WebSocket stays open, and carries what UDP does not. What a tunnel says while nobody uses it is no data
//! to either ([`Murmurs`]).

mod carrier;
mod datagram;
#[cfg(test)]
mod idle;
mod murmur;
mod reach;
mod slots;

pub use carrier::{CarrierReason, Ping, UdpCarrier};
pub use datagram::{Answer, Kind, Opened, UdpError, UdpSecret, UdpSession, session_of};
pub use murmur::Murmurs;
pub use reach::{UdpReach, Via, Way};
pub use slots::Slots;

/// Bytes in front of the sealed datagram.
pub const OVERHEAD: usize = 21;
/// The largest datagram with its header: what IPv6 and UDP leave of an Ethernet frame.
pub const MAX_DATAGRAM: usize = 1452;
/// The largest sealed datagram that fits behind a header.
pub const MAX_PAYLOAD: usize = MAX_DATAGRAM - OVERHEAD;
/// The sealed datagram that every path must carry: QUIC needs it.
pub const MIN_PAYLOAD: usize = 1200;
/// What a tunnel says while nobody uses it is no longer (sealed: 44 to 79 bytes), and a stream does not begin with less (88 and more).
pub const SHORT_PAYLOAD: usize = 80;
/// Peers one session can have slots for; the others are reached over the WebSocket.
pub const MAX_SLOTS: usize = 1024;

/// In [`super::ClientFrame::UdpLimit`]: in doubt, send over UDP and over the WebSocket.
pub const LIMIT_IN_DOUBT: u16 = 0x8000;

/// Whether a first byte can be one of a relayed datagram: STUN, probes and QUIC have others.
pub const fn is_relayed(first: u8) -> bool {
    matches!(first, 0x30..=0x32)
}
