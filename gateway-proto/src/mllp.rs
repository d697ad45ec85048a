//! MLLP as it passes: frames, what their headers say, and whether a conversation may end; never changes, keeps or delays a
//! byte.
//!
//! An integration engine takes a FIN after its message for success in some settings, even when no acknowledgement
//! came (never a FIN where a message is unacknowledged). [`Conversation`] tells whether the end of a
//! conversation leaves a message unacknowledged; the gateway then ends the engine's socket with RST instead of FIN.
//! The same pass over the bytes feeds the [`Ledger`](crate::observe::Ledger) of the connection: one scanner, never a second one.
//!
//! Framing (HL7 Minimal Lower Layer Protocol): `0x0B` message `0x1C 0x0D`. Bytes between frames are ignored, as
//! engines do. Of a message only the first segment is read (of an answer the first few), byte by byte as it passes;
//! what is kept of it is a restricted type, a keyed hash of the control id and the code of an acknowledgement. The rest is
//! skipped with `memchr`. A frame of one byte, 0x06 or 0x15, is a commit block of release 2 of the protocol and no message
//! ([`Commit`]). The state of a conversation is a few hundred bytes, whatever passes.

mod conversation;
mod frames;
mod header;

pub use conversation::{Conversation, End};
pub use frames::{Commit, Fault, FrameReader, Seen};
pub use header::{AckCode, Answer, Content, ControlHash, HashKey, Header, MessageKind};
