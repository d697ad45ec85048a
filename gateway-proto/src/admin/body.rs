//! The body of an HTTP/1.1 message, delimited strictly: lengths and plain chunks, no chunk extensions, no trailers.

use super::head::Framing;

/// Hex digits of a chunk size at most.
const MAX_SIZE_DIGITS: usize = 8;

/// Why a body was refused; the connection ends with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chunks of the body are malformed, extended or followed by trailers")]
pub struct BodyError;

/// Takes a body apart: feed it what was read, it says how much belongs to the body.
#[derive(Debug, Clone)]
pub struct BodyDecoder(State);

#[derive(Debug, Clone)]
enum State {
    Length(u64),
    Size { value: u64, digits: usize },
    SizeEnd { value: u64 },
    Data(u64),
    DataEnd { seen_cr: bool },
    LastEnd { seen_cr: bool },
    UntilClose,
    Done,
}

impl BodyDecoder {
    /// For a body delimited so.
    pub fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { value: 0, digits: 0 },
            Framing::UntilClose => State::UntilClose,
        })
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        matches!(self.0, State::Done)
    }

    /// Whether the end of the connection now is the end of the body.
    pub fn may_close(&self) -> bool {
        matches!(self.0, State::Done | State::UntilClose)
    }

    /// Appends the content of the next part of `input` to `content` and says how many bytes of `input` were used; fewer
    /// than all only when the body is complete.
    pub fn decode(&mut self, input: &[u8], content: &mut Vec<u8>) -> Result<usize, BodyError> {
        let mut used = 0;
        while used < input.len() {
            let rest = &input[used..];
            match self.0 {
                State::Done => break,
                State::UntilClose => {
                    content.extend_from_slice(rest);
                    used = input.len();
                }
                State::Length(left) => {
                    let taken = take(rest, left, content);
                    used += taken;
                    let left = left - taken as u64;
                    self.0 = if left == 0 { State::Done } else { State::Length(left) };
                }
                State::Data(left) => {
                    let taken = take(rest, left, content);
                    used += taken;
                    let left = left - taken as u64;
                    self.0 = if left == 0 { State::DataEnd { seen_cr: false } } else { State::Data(left) };
                }
                State::Size { .. } | State::SizeEnd { .. } | State::DataEnd { .. } | State::LastEnd { .. } => {
                    self.0 = self.0.after(rest[0])?;
                    used += 1;
                }
            }
        }
        Ok(used)
    }
}

impl State {
    /// The state after one byte between the data of two chunks.
    fn after(&self, byte: u8) -> Result<Self, BodyError> {
        match (self, byte) {
            (Self::Size { value, digits }, b'\r') if *digits > 0 => Ok(Self::SizeEnd { value: *value }),
            (Self::Size { value, digits }, _) if *digits < MAX_SIZE_DIGITS => {
                let digit = char::from(byte).to_digit(16).ok_or(BodyError)?;
                Ok(Self::Size { value: (value << 4) | u64::from(digit), digits: digits + 1 })
            }
            (Self::SizeEnd { value: 0 }, b'\n') => Ok(Self::LastEnd { seen_cr: false }),
            (Self::SizeEnd { value }, b'\n') => Ok(Self::Data(*value)),
            (Self::DataEnd { seen_cr: false }, b'\r') => Ok(Self::DataEnd { seen_cr: true }),
            (Self::DataEnd { seen_cr: true }, b'\n') => Ok(Self::Size { value: 0, digits: 0 }),
            (Self::LastEnd { seen_cr: false }, b'\r') => Ok(Self::LastEnd { seen_cr: true }),
            (Self::LastEnd { seen_cr: true }, b'\n') => Ok(Self::Done),
            _ => Err(BodyError),
        }
    }
}

fn take(rest: &[u8], left: u64, content: &mut Vec<u8>) -> usize {
    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
    content.extend_from_slice(&rest[..taken]);
    taken
}

/// One chunk on the wire; an empty one is nothing, as it would end the body.
pub fn chunk(content: &[u8]) -> Vec<u8> {
    if content.is_empty() {
        return Vec::new();
    }
    let mut bytes = format!("{:x}\r\n", content.len()).into_bytes();
    bytes.extend_from_slice(content);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// The end of a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(framing: Framing, input: &[u8]) -> Result<(Vec<u8>, usize, bool), BodyError> {
        let (mut decoder, mut content) = (BodyDecoder::new(framing), Vec::new());
        let used = decoder.decode(input, &mut content)?;
        Ok((content, used, decoder.is_done()))
    }

    #[test]
    fn a_length_takes_so_much_and_leaves_the_next_request() {
        assert_eq!(read(Framing::Length(3), b"abcGET"), Ok((b"abc".to_vec(), 3, true)));
        assert_eq!(read(Framing::None, b"GET"), Ok((vec![], 0, true)));
        assert_eq!(read(Framing::Length(3), b"ab"), Ok((b"ab".to_vec(), 2, false)));
    }

    #[test]
    fn extensions_trailers_and_other_oddities_are_refused() {
        for body in [
            &b"1;x=y\r\na\r\n0\r\n\r\n"[..],
            b"1 \r\na\r\n0\r\n\r\n",
            b"1\na\r\n0\r\n\r\n",
            b"1\r\nab\r\n0\r\n\r\n",
            b"1\r\na\n0\r\n\r\n",
            b"0x1\r\na\r\n0\r\n\r\n",
            b"-1\r\na\r\n0\r\n\r\n",
            b"\r\n",
            b"000000001\r\na\r\n0\r\n\r\n",
            b"0\r\nTrailer: x\r\n\r\n",
        ] {
            assert_eq!(read(Framing::Chunked, body), Err(BodyError), "{:?}", String::from_utf8_lossy(body));
        }
    }

    proptest! {
        #[test]
        fn chunks_come_back_whole_however_they_are_cut(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8), cut in 1usize..20) {
            let wire: Vec<u8> = parts.iter().flat_map(|part| chunk(part)).chain(LAST_CHUNK.iter().copied()).collect();
            let (mut decoder, mut content) = (BodyDecoder::new(Framing::Chunked), Vec::new());
            for piece in wire.chunks(cut) {
                prop_assert_eq!(decoder.decode(piece, &mut content).unwrap(), piece.len());
            }
            prop_assert!(decoder.is_done());
            prop_assert_eq!(content, parts.concat());
        }
    }
}
