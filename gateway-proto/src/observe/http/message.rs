//! One direction of HTTP/1.1: heads line by line, bodies skipped.

use std::fmt;

use memchr::memchr;

use super::MethodClass;

/// Bytes of a line that are kept until its end: every line that matters fits.
const KEPT: usize = 64;
/// A head longer than this is none (servers take 8 to 64 KiB).
const MAX_HEAD: u32 = 128 << 10;
/// A chunk-size line longer than this is none.
const MAX_CHUNK_LINE: u32 = 1 << 10;

/// Which direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Request,
    Answer,
}

/// A head that is complete. [`MessageReader::begin_body`] goes on behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    Request { class: MethodClass, is_head: bool, is_connect: bool },
    Answer { status: u16 },
}

/// This is no HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Start,
    Fields,
    Sized(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    UntilClose,
}

#[derive(Debug, Clone)]
pub(super) struct MessageReader {
    side: Side,
    phase: Phase,
    line: Line,
    head_length: u32,
    head: Option<Head>,
    length: Option<u64>,
    chunked: bool,
}

impl MessageReader {
    pub(super) fn new(side: Side) -> Self {
        let line = Line { bytes: [0; KEPT], length: 0 };
        Self { side, phase: Phase::Start, line, head_length: 0, head: None, length: None, chunked: false }
    }

    /// Reads on, and takes what it read from `bytes`. A head is given once, when it is complete.
    pub(super) fn read(&mut self, bytes: &mut &[u8]) -> Result<Option<Head>, Malformed> {
        match self.phase {
            Phase::Sized(left) => {
                let left = skip(bytes, left);
                self.phase = if left == 0 { Phase::Start } else { Phase::Sized(left) };
                Ok(None)
            }
            Phase::Chunk(left) => {
                let left = skip(bytes, left);
                self.phase = if left == 0 { Phase::ChunkEnd } else { Phase::Chunk(left) };
                Ok(None)
            }
            Phase::UntilClose => {
                *bytes = &[];
                Ok(None)
            }
            Phase::Start | Phase::Fields | Phase::ChunkSize | Phase::ChunkEnd | Phase::Trailers => {
                let is_complete = self.take_line(bytes)?;
                if is_complete { self.line() } else { Ok(None) }
            }
        }
    }

    /// What follows the head that was given last. `empty`: nothing, whatever the head says.
    pub(super) fn begin_body(&mut self, empty: bool) {
        let (length, chunked) = (self.length.take(), std::mem::take(&mut self.chunked));
        self.phase = match (empty, chunked, length, self.side) {
            (true, ..) | (false, false, Some(0), _) | (false, false, None, Side::Request) => Phase::Start,
            (false, true, ..) => Phase::ChunkSize,
            (false, false, Some(length), _) => Phase::Sized(length),
            (false, false, None, Side::Answer) => Phase::UntilClose,
        };
    }

    /// Whether the line is complete now.
    fn take_line(&mut self, bytes: &mut &[u8]) -> Result<bool, Malformed> {
        let end = memchr(b'\n', bytes);
        let taken = end.unwrap_or(bytes.len());
        self.line.push(&bytes[..taken]);
        *bytes = &bytes[end.map_or(taken, |end| end + 1)..];
        self.head_length = self.head_length.saturating_add(u32::try_from(taken).unwrap_or(u32::MAX));
        let most = if self.phase == Phase::ChunkSize { MAX_CHUNK_LINE } else { MAX_HEAD };
        // What cannot be the start of a message is not waited for to its first line end.
        let is_foreign = self.phase == Phase::Start && !self.line.is_printable();
        if self.head_length > most || is_foreign { Err(Malformed) } else { Ok(end.is_some()) }
    }

    fn line(&mut self) -> Result<Option<Head>, Malformed> {
        let line = self.line.take();
        match self.phase {
            // Empty lines before a message are allowed (RFC 9112 §2.2).
            Phase::Start if line.length == 0 => Ok(None),
            Phase::Start => {
                self.head = Some(match self.side {
                    Side::Request => request(line.kept())?,
                    Side::Answer => answer(line.kept())?,
                });
                self.phase = Phase::Fields;
                Ok(None)
            }
            Phase::Fields if line.length == 0 => {
                self.head_length = 0;
                Ok(self.head.take())
            }
            Phase::Fields => self.field(&line).map(|()| None),
            Phase::ChunkSize => {
                self.head_length = 0;
                let size = chunk_size(line.kept()).ok_or(Malformed)?;
                self.phase = if size == 0 { Phase::Trailers } else { Phase::Chunk(size) };
                Ok(None)
            }
            Phase::ChunkEnd if line.length == 0 => {
                self.head_length = 0;
                self.phase = Phase::ChunkSize;
                Ok(None)
            }
            Phase::Trailers => {
                if line.length == 0 {
                    self.head_length = 0;
                    self.phase = Phase::Start;
                }
                Ok(None)
            }
            Phase::ChunkEnd | Phase::Sized(_) | Phase::Chunk(_) | Phase::UntilClose => Err(Malformed),
        }
    }

    fn field(&mut self, line: &Line) -> Result<(), Malformed> {
        let kept = line.kept();
        let Some(colon) = memchr(b':', kept) else {
            return if line.is_whole() { Err(Malformed) } else { Ok(()) };
        };
        let (name, value) = (&kept[..colon], kept[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = decimal(value).filter(|_| line.is_whole()).ok_or(Malformed)?;
            if self.length.is_some_and(|before| before != length) {
                return Err(Malformed);
            }
            self.length = Some(length);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
            self.chunked = last.eq_ignore_ascii_case(b"chunked");
        }
        Ok(())
    }
}

/// Skips; gives what is left to skip.
fn skip(bytes: &mut &[u8], left: u64) -> u64 {
    let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    *bytes = &bytes[count..];
    left - count as u64
}

fn request(line: &[u8]) -> Result<Head, Malformed> {
    let method = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    let is_token = !method.is_empty() && method.len() < line.len() && method.iter().all(u8::is_ascii_uppercase);
    // PRI begins HTTP/2.
    if !is_token || method == b"PRI" {
        return Err(Malformed);
    }
    let class = match method {
        b"GET" | b"HEAD" | b"OPTIONS" => MethodClass::Read,
        b"POST" | b"PUT" | b"PATCH" | b"DELETE" => MethodClass::Write,
        _ => MethodClass::Other,
    };
    Ok(Head::Request { class, is_head: method == b"HEAD", is_connect: method == b"CONNECT" })
}

fn answer(line: &[u8]) -> Result<Head, Malformed> {
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1', b' ', status @ ..] = line else {
        return Err(Malformed);
    };
    let [a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..] = status else { return Err(Malformed) };
    if rest.first().is_some_and(|byte| *byte != b' ') {
        return Err(Malformed);
    }
    let digit = |byte: &u8| u16::from(byte - b'0');
    Ok(Head::Answer { status: digit(a) * 100 + digit(b) * 10 + digit(c) })
}

fn decimal(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| is_number)?.parse().ok()
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let size = line.split(|byte| matches!(byte, b';' | b' ' | b'\t')).next()?;
    let is_number = !size.is_empty() && size.iter().all(u8::is_ascii_hexdigit);
    u64::from_str_radix(std::str::from_utf8(size).ok().filter(|_| is_number)?, 16).ok()
}

/// The beginning of a line and its length without its end.
#[derive(Clone)]
struct Line {
    bytes: [u8; KEPT],
    length: usize,
}

/// Without the bytes, which are somebody's path or header.
impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Line {
    fn push(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.length..) {
            let count = room.len().min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
        }
        self.length = self.length.saturating_add(bytes.len());
    }

    /// The line without its end; this one is empty afterwards. Only a kept carriage return is known to be one.
    fn take(&mut self) -> Self {
        let mut line = self.clone();
        if line.is_whole() && line.kept().last() == Some(&b'\r') {
            line.length -= 1;
        }
        self.length = 0;
        line
    }

    fn kept(&self) -> &[u8] {
        &self.bytes[..self.length.min(KEPT)]
    }

    fn is_whole(&self) -> bool {
        self.length <= KEPT
    }

    fn is_printable(&self) -> bool {
        self.kept().iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | 0x80..))
    }
}
