//! What the first segments of a frame say: message type, control id (hashed at once), acknowledgement.
//!
//! Everything here comes from a peer. A type is three letters or digits, or it is not a type; a control id is never kept, only
//! its hash under a key that was drawn for this connection and never leaves the process.

mod reader;

use std::fmt;

pub(super) use reader::HeaderReader;

/// The key of the hashes: random, one per connection and run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey([u8; 16]);

impl HashKey {
    /// From random bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(masked)")
    }
}

/// The keyed hash of a control id (MSH-10, MSA-2). Blanks do not count: engines pad and trim.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ControlHash(u64);

impl fmt::Debug for ControlHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ControlHash(masked)")
    }
}

/// A message type with its trigger event, `ADT^A01`: letters A to Z and digits only, so that it cannot carry payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageKind {
    kind: [u8; 3],
    trigger: Option<[u8; 3]>,
}

impl fmt::Display for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part =
            |f: &mut fmt::Formatter<'_>, bytes: [u8; 3]| bytes.iter().try_for_each(|b| write!(f, "{}", *b as char));
        part(f, self.kind)?;
        match self.trigger {
            Some(trigger) => {
                f.write_str("^")?;
                part(f, trigger)
            }
            None => Ok(()),
        }
    }
}

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// A message of a type that is well-formed.
    Message(MessageKind),
    /// A message without one.
    Untyped,
    /// A file or batch (FHS, BHS).
    Batch,
    /// No HL7 version 2.
    Unknown,
}

/// MSA-1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AckCode {
    /// `AA`: the application accepts.
    Accept,
    /// `AE`: the application found an error.
    Error,
    /// `AR`: the application rejects.
    Reject,
    /// `CA`: safely stored.
    CommitAccept,
    /// `CE`: not stored, an error.
    CommitError,
    /// `CR`: not stored, rejected.
    CommitReject,
}

impl AckCode {
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes {
            b"AA" => Some(Self::Accept),
            b"AE" => Some(Self::Error),
            b"AR" => Some(Self::Reject),
            b"CA" => Some(Self::CommitAccept),
            b"CE" => Some(Self::CommitError),
            b"CR" => Some(Self::CommitReject),
            _ => None,
        }
    }

    /// Its two letters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "AA",
            Self::Error => "AE",
            Self::Reject => "AR",
            Self::CommitAccept => "CA",
            Self::CommitError => "CE",
            Self::CommitReject => "CR",
        }
    }
}

/// What an answer says of the message it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// MSA-1; none: not one of the six codes.
    pub code: Option<AckCode>,
    /// Hash of MSA-2; none: empty or missing.
    pub of: Option<ControlHash>,
}

/// What is known of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What it holds.
    pub content: Content,
    /// Hash of MSH-10; none: empty or missing.
    pub control: Option<ControlHash>,
    /// The acknowledgement in it, when the reader looks for one.
    pub answer: Option<Answer>,
}
