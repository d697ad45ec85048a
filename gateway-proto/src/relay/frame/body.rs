//! The body of a frame, written and read field by field.

use super::FrameError;
use crate::relay::{MAX_FRAME, MAX_SEGMENTS, MAX_SIGNAL, RelayAddress};

pub(super) fn concat(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    bytes.push(kind);
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes
}

/// The unread rest of a frame's body.
pub(super) struct Body<'a> {
    kind: u8,
    pub(super) rest: &'a [u8],
}

impl<'a> Body<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<(u8, Self), FrameError> {
        if bytes.len() > MAX_FRAME {
            return Err(FrameError::TooLong(bytes.len()));
        }
        let (&kind, rest) = bytes.split_first().ok_or(FrameError::Empty)?;
        Ok((kind, Self { kind, rest }))
    }

    fn malformed(&self) -> FrameError {
        FrameError::Malformed(self.kind)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(*array)
    }

    pub(super) fn u16(&mut self) -> Result<u16, FrameError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn address(&mut self) -> Result<RelayAddress, FrameError> {
        self.array().map(RelayAddress::from_bytes)
    }

    pub(super) fn text(&mut self, length: usize, limit: usize) -> Result<&'a str, FrameError> {
        let (text, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.malformed())?;
        self.rest = rest;
        let text = std::str::from_utf8(text).map_err(|_| self.malformed())?;
        if text.len() > limit { Err(self.malformed()) } else { Ok(text) }
    }

    pub(super) fn datagrams(&mut self) -> Result<(RelayAddress, u16, &'a [u8]), FrameError> {
        let (address, segment_size) = (self.address()?, self.u16()?);
        let payload = std::mem::take(&mut self.rest);
        let count = if segment_size == 0 { 1 } else { payload.len().div_ceil(segment_size.into()) };
        if payload.is_empty() || count > MAX_SEGMENTS {
            return Err(self.malformed());
        }
        Ok((address, segment_size, payload))
    }

    pub(super) fn signal(&mut self) -> Result<(RelayAddress, &'a [u8]), FrameError> {
        let address = self.address()?;
        let sealed = std::mem::take(&mut self.rest);
        if sealed.is_empty() || sealed.len() > MAX_SIGNAL {
            return Err(self.malformed());
        }
        Ok((address, sealed))
    }

    pub(super) fn end(&self) -> Result<(), FrameError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed()) }
    }
}
