//! The relay link: what a gateway and a relay say to each other (docs/protocol.md §3).
//!
//! One WebSocket message is one frame: a type byte and a body. The two directions are two enums, [`ClientFrame`] and
//! [`RelayFrame`], so that neither side can decode what only the other may say. Payloads borrow from the message: a relay forwards by
//! [`readdress`]ing the bytes it received.
//!
//! Life of a link: the relay sends `Challenge`, the gateway answers `Admit` with its token and a signature over relay
//! and nonce ([`sign_admission`], [`verify_admission`]), the relay answers `Admitted` or `Refused`. After that datagrams and
//! signals flow until one side closes. What must be secret is sealed before it comes here. Beside the link, datagrams may travel over
//! UDP ([`udp`]).

mod address;
mod admission;
mod choice;
mod doubt;
mod frame;
mod heard;
mod hint;
mod home;
pub mod keys;
mod lately;
mod limit;
mod rate;
mod refusal;
mod retry;
pub mod udp;

pub use address::RelayAddress;
pub use admission::{Admission, sign_admission, verify_admission};
pub use choice::{Choice, LossVerdict, RelayChoice, Seen, Share};
pub use doubt::{Doubt, Standing};
pub use frame::{ClientFrame, FrameError, RelayFrame, readdress, segments};
pub use hint::{HintOutcome, HomeWord, PeerHome};
pub use home::{HomeChooser, HomeReason, MAX_RELAYS};
pub use limit::{Limit, LimitKind, LimitWatch};
pub use rate::{SourceLimiter, TokenBucket, aggregate};
pub use refusal::RefusalCode;
pub use retry::{LinkEnd, LinkRetry};

/// Path of the WebSocket endpoint.
pub const PATH: &str = "/relay";
/// WebSocket sub-protocol.
pub const SUB_PROTOCOL: &str = "gateway-relay.1";
/// Version in the challenge.
pub const VERSION: u8 = 1;
/// The largest frame in bytes.
pub const MAX_FRAME: usize = 65_535;
/// The largest sealed signal in bytes.
pub const MAX_SIGNAL: usize = 8_192;
/// The most datagram bytes in one frame.
pub const MAX_DATAGRAMS: usize = MAX_FRAME - 35;
/// The most datagrams in one frame: what a kernel takes in one batch (UDP GSO).
pub const MAX_SEGMENTS: usize = 64;
/// The longest text of a refusal in bytes.
pub const MAX_DETAIL: usize = 256;
