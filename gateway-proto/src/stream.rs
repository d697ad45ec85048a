//! What two gateways say inside a tunnel: the header and the answer of a stream, and the control stream's frames.
//!
//! A stream proves its connection by a MAC with the connection's secret over the tunnel's TLS exporter and the header
//! itself, so a header copied into another tunnel, or changed by a bit, is refused. Layout: `docs/protocol.md` §6.

mod answer;

pub use answer::{Answer, MAX_DETAIL_LEN, RefusalCode};

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::{
    id::{ConnectionId, RelayId},
    policy::Secret,
};

/// ALPN of a tunnel.
pub const ALPN: &[u8] = b"gateway/1";
/// Label of the TLS exporter (RFC 8446 §7.5); its context is the connection id.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-gateway-stream";
/// Length of a stream header in bytes.
pub const HEADER_LEN: usize = 60;
/// The longest control frame, in bytes.
pub const MAX_CONTROL_FRAME_LEN: usize = 4096;

const MAC_AT: usize = 28;
const VERSION: u8 = 1;

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// Bytes of one TCP connection of a channel.
    ChannelData,
    /// HTTP of the engine's admin API.
    Admin,
}

/// The first bytes of every stream but the control stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamHeader {
    /// What it carries.
    pub kind: StreamKind,
    /// The connection it belongs to.
    pub connection: ConnectionId,
    /// Random; the same at both ends, for logs.
    pub trace: u64,
}

/// Why a header was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Another version.
    #[error("stream header version {0} is not spoken here")]
    Version(u8),
    /// Unknown kind or flags.
    #[error("the stream header is malformed")]
    Malformed,
}

impl StreamHeader {
    /// The wire form, with its MAC.
    pub fn encode(&self, secret: &Secret, exporter: &[u8; 32]) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = VERSION;
        bytes[1] = match self.kind {
            StreamKind::ChannelData => 1,
            StreamKind::Admin => 2,
        };
        bytes[4..20].copy_from_slice(&self.connection.to_bytes());
        bytes[20..MAC_AT].copy_from_slice(&self.trace.to_be_bytes());
        let tag = mac(secret, exporter, &bytes[..MAC_AT]).finalize().into_bytes();
        bytes[MAC_AT..].copy_from_slice(&tag);
        bytes
    }

    /// Reads the wire form. Nothing in it is true before [`verify`](Self::verify) said so.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, HeaderError> {
        if bytes[0] != VERSION {
            return Err(HeaderError::Version(bytes[0]));
        }
        let kind = match bytes[1] {
            1 => StreamKind::ChannelData,
            2 => StreamKind::Admin,
            _ => return Err(HeaderError::Malformed),
        };
        if bytes[2..4] != [0, 0] {
            return Err(HeaderError::Malformed);
        }
        let mut connection = [0; 16];
        connection.copy_from_slice(&bytes[4..20]);
        let mut trace = [0; 8];
        trace.copy_from_slice(&bytes[20..MAC_AT]);
        Ok(Self { kind, connection: ConnectionId::from_bytes(connection), trace: u64::from_be_bytes(trace) })
    }

    /// Whether one of `secrets` made this header in this tunnel (constant time per secret).
    pub fn verify<'a>(
        bytes: &[u8; HEADER_LEN],
        secrets: impl IntoIterator<Item = &'a Secret>,
        exporter: &[u8; 32],
    ) -> bool {
        secrets.into_iter().any(|s| mac(s, exporter, &bytes[..MAC_AT]).verify_slice(&bytes[MAC_AT..]).is_ok())
    }
}

fn mac(secret: &Secret, exporter: &[u8; 32], header: &[u8]) -> Hmac<Sha256> {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(secret.expose()).expect("HMAC takes keys of any length");
    mac.update(b"gateway/stream/1");
    mac.update(exporter);
    mac.update(header);
    mac
}

/// Application error codes of RESET_STREAM and STOP_SENDING in a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[repr(u32)]
pub enum ResetCode {
    /// The local TCP socket was reset or failed.
    #[error("the engine at the other end reset its socket")]
    SocketReset = 1,
    /// The policy stopped allowing the stream.
    #[error("the connection is no longer allowed")]
    NotAllowed = 2,
    /// The gateway is shutting down.
    #[error("the gateway is shutting down")]
    ShuttingDown = 3,
    /// The stream was refused; the answer says why.
    #[error("the stream was refused")]
    Refused = 4,
    /// The peer broke the protocol.
    #[error("the protocol was broken")]
    Protocol = 5,
    /// Whoever opened the stream gave up waiting for its answer; its engine's socket was reset for that, and not by the engine.
    #[error("the gateway at the other end gave up waiting for an answer")]
    GaveUp = 6,
    /// No byte passed for longer than the receive timeout of the grant.
    #[error("no byte passed for longer than the receive timeout of the grant")]
    Silent = 7,
}

impl ResetCode {
    /// Reads the wire form; an unknown code counts as a socket reset.
    pub fn from_u64(code: u64) -> Self {
        match code {
            2 => Self::NotAllowed,
            3 => Self::ShuttingDown,
            4 => Self::Refused,
            5 => Self::Protocol,
            6 => Self::GaveUp,
            7 => Self::Silent,
            _ => Self::SocketReset,
        }
    }
}

/// A frame of the control stream: length u16, then the number and the sequence in postcard, then a byte that says what else there is.
///
/// A ping that wants no pong says nothing of homes, and is as short as it can be: most of what an idle pair costs is such pings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlFrame {
    /// Asks for an end-to-end sign of life.
    Ping {
        /// Comes back in the answer.
        sequence: u64,
        /// Else QUIC's acknowledgement is answer enough. Earlier builds do not read so far, and answer.
        wants_answer: bool,
        /// The home relay of the sender; none where it does not say, as earlier builds and pings that want no answer.
        home: Option<RelayId>,
    },
    /// The answer.
    Pong {
        /// The sequence of the ping.
        sequence: u64,
        /// The home relay of the sender; none where it does not say, as earlier builds.
        home: Option<RelayId>,
    },
}

/// What of it is postcard.
#[derive(Serialize, Deserialize)]
enum ControlBody {
    Ping { sequence: u64 },
    Pong { sequence: u64 },
}

/// Behind a ping that wants no pong.
const NO_ANSWER: u8 = 1;
/// Behind any other frame, and before the 16 bytes of the sender's home relay.
const HOME: u8 = 2;

/// Why control bytes were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of the control stream is malformed")]
pub struct ControlFrameError;

impl ControlFrame {
    /// The wire form with its length in front.
    pub fn encode(&self) -> Vec<u8> {
        let (body, rest) = match *self {
            Self::Ping { sequence, wants_answer: false, home: _ } => (ControlBody::Ping { sequence }, vec![NO_ANSWER]),
            Self::Ping { sequence, wants_answer: true, home } => (ControlBody::Ping { sequence }, home_field(home)),
            Self::Pong { sequence, home } => (ControlBody::Pong { sequence }, home_field(home)),
        };
        let mut body = postcard::to_stdvec(&body).expect("plain numbers serialize");
        body.extend(rest);
        let length = u16::try_from(body.len()).expect("frames are far below 4,096 bytes");
        [&length.to_be_bytes()[..], &body].concat()
    }

    /// Reads a body (without its length). What follows and is not known is of a newer gateway, and passed over.
    pub fn decode(body: &[u8]) -> Result<Self, ControlFrameError> {
        let (body, rest): (ControlBody, &[u8]) = postcard::take_from_bytes(body).map_err(|_| ControlFrameError)?;
        Ok(match body {
            ControlBody::Ping { sequence } => {
                Self::Ping { sequence, wants_answer: rest.first() != Some(&NO_ANSWER), home: home_in(rest) }
            }
            ControlBody::Pong { sequence } => Self::Pong { sequence, home: home_in(rest) },
        })
    }
}

fn home_field(home: Option<RelayId>) -> Vec<u8> {
    home.map_or_else(Vec::new, |home| [&[HOME][..], &home.to_bytes()].concat())
}

/// What a frame says of its sender's home, in what follows its sequence.
fn home_in(rest: &[u8]) -> Option<RelayId> {
    let (mark, rest) = rest.split_first()?;
    let home = rest.first_chunk::<16>().filter(|_| *mark == HOME)?;
    Some(RelayId::from_bytes(*home))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> StreamHeader {
        StreamHeader {
            kind: StreamKind::ChannelData,
            connection: ConnectionId::from_bytes([0x11; 16]),
            trace: 0x2222_3333_4444_5555,
        }
    }

    #[test]
    fn a_header_is_valid_only_with_its_secret_in_its_tunnel_and_unchanged() {
        let (secret, exporter) = (Secret::from_bytes([1; 32]), [2; 32]);
        let bytes = header().encode(&secret, &exporter);
        assert_eq!(StreamHeader::decode(&bytes), Ok(header()));
        assert!(StreamHeader::verify(&bytes, [&secret], &exporter));
        assert!(!StreamHeader::verify(&bytes, [&Secret::from_bytes([9; 32])], &exporter));
        assert!(!StreamHeader::verify(&bytes, [&secret], &[3; 32]));
        assert!(!StreamHeader::verify(&bytes, [], &exporter));
        for position in 0..HEADER_LEN {
            let mut changed = bytes;
            changed[position] ^= 1;
            assert!(!StreamHeader::verify(&changed, [&secret], &exporter), "byte {position}");
        }
    }

    #[test]
    fn a_retired_secret_of_a_rotation_is_accepted_beside_the_current_one() {
        let (old, new, exporter) = (Secret::from_bytes([1; 32]), Secret::from_bytes([2; 32]), [0; 32]);
        let bytes = header().encode(&old, &exporter);
        assert!(StreamHeader::verify(&bytes, [&new, &old], &exporter));
    }

    /// Vector of docs/protocol.md §7, computed independently (Python's hmac).
    #[test]
    fn the_header_has_the_documented_bytes() {
        let bytes = header().encode(&Secret::from_bytes([1; 32]), &[2; 32]);
        let expected = concat!(
            "01010000111111111111111111111111111111112222333344445555",
            "fc222f6d4dffd34e13d3e82f44eb592e8b15eee9a2c9e34e9da97e9f809267ba"
        );
        assert_eq!(data_encoding::HEXLOWER.encode(&bytes), expected);
    }

    #[test]
    fn other_versions_kinds_and_flags_are_refused() {
        let bytes = header().encode(&Secret::from_bytes([1; 32]), &[2; 32]);
        let with = |at: usize, value: u8| {
            let mut changed = bytes;
            changed[at] = value;
            StreamHeader::decode(&changed)
        };
        assert_eq!(with(0, 2), Err(HeaderError::Version(2)));
        assert_eq!(with(1, 0), Err(HeaderError::Malformed));
        assert_eq!(with(3, 1), Err(HeaderError::Malformed));
    }

    #[test]
    fn every_reset_code_survives_the_wire_and_one_of_a_newer_gateway_is_a_socket_reset() {
        use ResetCode::{GaveUp, NotAllowed, Protocol, Refused, ShuttingDown, Silent, SocketReset};
        for code in [SocketReset, NotAllowed, ShuttingDown, Refused, Protocol, GaveUp, Silent] {
            assert_eq!(ResetCode::from_u64(code as u64), code);
        }
        assert_eq!(ResetCode::from_u64(8), SocketReset);
    }

    #[test]
    fn control_frames_round_trip_and_garbage_is_an_error() {
        let ping = |wants_answer, home| ControlFrame::Ping { sequence: 300, wants_answer, home };
        let pong = |home| ControlFrame::Pong { sequence: 300, home };
        let home = Some(RelayId::from_bytes([7; 16]));
        for frame in [ping(true, None), ping(false, None), ping(true, home), pong(None), pong(home)] {
            assert!(frame.encode().len() <= MAX_CONTROL_FRAME_LEN);
            assert_eq!(ControlFrame::decode(&frame.encode()[2..]), Ok(frame));
        }
        assert!(ControlFrame::decode(&[9, 9]).is_err());
    }

    #[test]
    fn a_ping_that_wants_no_answer_is_a_ping_to_earlier_builds_and_theirs_wants_one() {
        let quiet = ControlFrame::Ping { sequence: 300, wants_answer: false, home: None }.encode();
        // Length, number of the frame, sequence; they stop reading here.
        assert_eq!(quiet, [0, 4, 0, 0xac, 0x02, NO_ANSWER]);
        let theirs = ControlFrame::decode(&quiet[2..5]);
        assert_eq!(theirs, Ok(ControlFrame::Ping { sequence: 300, wants_answer: true, home: None }));
        // What a newer gateway adds is passed over.
        let newer = ControlFrame::decode(&[0, 7, 9, 9]);
        assert_eq!(newer, Ok(ControlFrame::Ping { sequence: 7, wants_answer: true, home: None }));
    }

    #[test]
    fn a_home_stands_behind_what_earlier_builds_read_and_makes_no_idle_question_longer() {
        let home = Some(RelayId::from_bytes([0x11; 16]));
        let ping = ControlFrame::Ping { sequence: 300, wants_answer: true, home }.encode();
        let pong = ControlFrame::Pong { sequence: 300, home }.encode();
        assert_eq!(ping, [&[0, 20, 0, 0xac, 0x02, HOME][..], &[0x11; 16]].concat());
        assert_eq!(pong, [&[0, 20, 1, 0xac, 0x02, HOME][..], &[0x11; 16]].concat());
        for frame in [&ping, &pong] {
            // The whole of what a build reads that knows nothing of what follows.
            assert!(postcard::from_bytes::<ControlBody>(&frame[2..]).is_ok());
            // One that knows of pings that want no answer takes this for one that wants it.
            assert_ne!(frame[5], NO_ANSWER);
        }
        let quiet = |home| ControlFrame::Ping { sequence: 300, wants_answer: false, home }.encode();
        assert_eq!(quiet(home), quiet(None));
        // A field that ends too soon says nothing.
        assert_eq!(ControlFrame::decode(&pong[2..21]), Ok(ControlFrame::Pong { sequence: 300, home: None }));
    }
}
