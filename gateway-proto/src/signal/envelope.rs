//! The clear part of a signal: version, kind and session id.

use super::{MAX_SIGNAL_LEN, SIGNAL_VERSION, SessionId, SignalError};

/// Which message of an exchange this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalKind {
    /// First handshake message.
    Offer,
    /// Second handshake message.
    Answer,
    /// After the handshake: candidates that came later.
    Transport,
}

impl SignalKind {
    fn code(self) -> u8 {
        match self {
            Self::Offer => 1,
            Self::Answer => 2,
            Self::Transport => 3,
        }
    }

    fn from_code(code: u8) -> Result<Self, SignalError> {
        match code {
            1 => Ok(Self::Offer),
            2 => Ok(Self::Answer),
            3 => Ok(Self::Transport),
            other => Err(SignalError::UnknownKind(other)),
        }
    }
}

/// A signal taken apart, not yet opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Which message.
    pub kind: SignalKind,
    /// Of which exchange.
    pub session_id: SessionId,
    /// The Noise message, for a transport message with its counter in front.
    pub sealed: &'a [u8],
}

/// Version, kind, session id.
const HEADER_LEN: usize = 10;

impl<'a> Envelope<'a> {
    /// Reads the clear part.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, SignalError> {
        if bytes.len() > MAX_SIGNAL_LEN {
            return Err(SignalError::TooLong(bytes.len()));
        }
        let (header, sealed) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(SignalError::Truncated)?;
        let [version, kind, session_id @ ..] = *header;
        if version != SIGNAL_VERSION {
            return Err(SignalError::UnsupportedVersion(version));
        }
        Ok(Self { kind: SignalKind::from_code(kind)?, session_id, sealed })
    }

    /// The bytes for the relay.
    pub fn encode(&self) -> Result<Vec<u8>, SignalError> {
        let len = HEADER_LEN + self.sealed.len();
        if len > MAX_SIGNAL_LEN {
            return Err(SignalError::TooLong(len));
        }
        let mut bytes = Vec::with_capacity(len);
        bytes.extend([SIGNAL_VERSION, self.kind.code()]);
        bytes.extend(self.session_id);
        bytes.extend(self.sealed);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_ten_bytes_and_the_sealed_part() {
        let envelope = Envelope { kind: SignalKind::Answer, session_id: *b"abcdefgh", sealed: &[9, 8] };
        let bytes = envelope.encode().unwrap();
        assert_eq!(bytes, [&[1, 2][..], b"abcdefgh", &[9, 8]].concat());
        assert_eq!(Envelope::parse(&bytes), Ok(envelope));
    }

    #[test]
    fn what_is_no_envelope_is_named() {
        assert_eq!(Envelope::parse(&[1, 1, 0]), Err(SignalError::Truncated));
        assert_eq!(Envelope::parse(&[2; 20]), Err(SignalError::UnsupportedVersion(2)));
        let mut bytes = [1; 20];
        bytes[1] = 4;
        assert_eq!(Envelope::parse(&bytes), Err(SignalError::UnknownKind(4)));
        assert_eq!(Envelope::parse(&[1; MAX_SIGNAL_LEN + 1]), Err(SignalError::TooLong(MAX_SIGNAL_LEN + 1)));
    }
}
