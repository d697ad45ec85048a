//! Why a relay ends a link, as a code both sides act on.

use std::fmt;

/// The code of a `Refused` frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusalCode {
    /// A frame was not understood, or came out of turn.
    Malformed,
    /// The token is not signed by a control plane this relay serves.
    BadToken,
    /// The token is not valid at this time.
    Expired,
    /// The token is for other relays.
    WrongRelay,
    /// The signature over the challenge is not by the token's gateway.
    BadProof,
    /// The relay is full.
    Busy,
    /// Too many attempts in too short a time.
    RateLimited,
    /// A newer link of the same gateway has proved itself.
    Replaced,
    /// The relay does not speak this version.
    UnsupportedVersion,
    /// Another process with the same key holds the gateway's place here.
    RunsTwice,
    /// A code this version does not know.
    Other(u8),
}

impl RefusalCode {
    /// The byte on the wire.
    pub fn code(self) -> u8 {
        match self {
            Self::Malformed => 1,
            Self::BadToken => 2,
            Self::Expired => 3,
            Self::WrongRelay => 4,
            Self::BadProof => 5,
            Self::Busy => 6,
            Self::RateLimited => 7,
            Self::Replaced => 8,
            Self::UnsupportedVersion => 9,
            Self::RunsTwice => 10,
            Self::Other(code) => code,
        }
    }

    /// Reads the byte on the wire; every byte is a code.
    pub fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Malformed,
            2 => Self::BadToken,
            3 => Self::Expired,
            4 => Self::WrongRelay,
            5 => Self::BadProof,
            6 => Self::Busy,
            7 => Self::RateLimited,
            8 => Self::Replaced,
            9 => Self::UnsupportedVersion,
            10 => Self::RunsTwice,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "a frame was malformed or came out of turn",
            Self::BadToken => "the relay token is not signed by a control plane this relay serves",
            Self::Expired => "the relay token is not valid at this time (compare the clocks of both machines)",
            Self::WrongRelay => "the relay token is for other relays",
            Self::BadProof => "the relay token belongs to another gateway",
            Self::Busy => "the relay is full",
            Self::RateLimited => "too many attempts in too short a time",
            Self::Replaced => "a newer link of the same gateway took over",
            Self::UnsupportedVersion => "the relay does not speak this version of the protocol",
            Self::RunsTwice => {
                "another process with the same key holds this gateway's place at the relay: it runs twice"
            }
            Self::Other(code) => return write!(f, "refused with the unknown code {code}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_one_code_and_back() {
        for byte in 0..=u8::MAX {
            assert_eq!(RefusalCode::from_code(byte).code(), byte);
        }
    }
}
