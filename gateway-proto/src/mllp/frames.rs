//! Frames in the bytes of one direction.

use memchr::{memchr, memchr2, memmem};

use super::header::{Content, HashKey, Header, HeaderReader};

const START: u8 = 0x0b;
const END: u8 = 0x1c;
const CR: u8 = 0x0d;
const ACK: u8 = 0x06;
const NAK: u8 = 0x15;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    Inside,
    AfterEnd,
}

/// How much of a frame's content has passed, as far as a commit block is told by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Empty,
    One(u8),
    Longer,
}

/// What is wrong with the framing. Nothing is done about it: the engines decide what they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// Bytes between two frames that are neither white space nor zero.
    Junk,
    /// A start byte inside a message: the end of the one before was left out.
    EndMissing,
    /// A frame that begins neither with MSH nor with FHS or BHS.
    NoHeader,
    /// A frame without content.
    Empty,
    /// The bytes ended inside a frame.
    Cut,
}

/// A commit block (release 2 of the protocol): a frame whose whole content is one byte. It speaks for the transport and is
/// neither a message nor an application's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Commit {
    /// 0x06: stored, and in the receiver's responsibility.
    Accepted,
    /// 0x15: not taken.
    Refused,
}

/// What a direction shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// A whole frame, and what its header says.
    Frame(Header),
    /// A commit block.
    Commit(Commit),
    /// A fault.
    Fault(Fault),
}

/// Finds the frames of one direction, however the bytes are cut.
#[derive(Debug, Clone)]
pub struct FrameReader {
    state: State,
    header: HeaderReader,
    body: Body,
    /// The bytes between these two frames were called junk already.
    junk_seen: bool,
}

impl FrameReader {
    /// Reads the headers of messages.
    pub fn of_messages(key: HashKey) -> Self {
        Self::new(HeaderReader::of_messages(key))
    }

    /// Reads the headers of answers, with their acknowledgement.
    pub fn of_answers(key: HashKey) -> Self {
        Self::new(HeaderReader::of_answers(key))
    }

    fn new(header: HeaderReader) -> Self {
        Self { state: State::Between, header, body: Body::Empty, junk_seen: false }
    }

    /// Looks at bytes that pass, and tells `seen` what they complete.
    pub fn observe(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Seen)) {
        while !bytes.is_empty() {
            match self.state {
                State::Between => {
                    let start = memchr(START, bytes);
                    if !self.junk_seen && is_junk(&bytes[..start.unwrap_or(bytes.len())]) {
                        self.junk_seen = true;
                        seen(Seen::Fault(Fault::Junk));
                    }
                    let Some(start) = start else { return };
                    self.begin();
                    bytes = &bytes[start + 1..];
                }
                State::Inside => {
                    let end = if self.header.is_none() { end_of_noise(bytes) } else { memchr2(END, START, bytes) };
                    self.content(&bytes[..end.unwrap_or(bytes.len())]);
                    let Some(end) = end else { return };
                    if bytes[end] == START {
                        // Engines read on to the next end and take both for one message; so the frame goes on.
                        if !self.header.is_none() {
                            seen(Seen::Fault(Fault::EndMissing));
                        }
                        self.note_content(&[START]);
                    } else {
                        self.state = State::AfterEnd;
                    }
                    bytes = &bytes[end + 1..];
                }
                State::AfterEnd => {
                    if bytes[0] == CR {
                        self.end(&mut seen);
                        bytes = &bytes[1..];
                    } else {
                        // A lone 0x1C inside the message (binary content): look at this byte again as content.
                        self.state = State::Inside;
                        self.content(&[END]);
                    }
                }
            }
        }
    }

    /// Whether the direction stopped in the middle of a frame.
    pub fn is_inside_frame(&self) -> bool {
        self.state != State::Between
    }

    /// The same, and the bytes did not stop at its end either: some engines leave out the last byte of a frame, and theirs stop there
    /// each time.
    pub fn is_amid_content(&self) -> bool {
        self.state == State::Inside
    }

    fn begin(&mut self) {
        self.state = State::Inside;
        self.body = Body::Empty;
        self.junk_seen = false;
        self.header.begin();
    }

    fn content(&mut self, bytes: &[u8]) {
        self.note_content(bytes);
        self.header.feed(bytes);
    }

    fn note_content(&mut self, bytes: &[u8]) {
        self.body = match (self.body, bytes) {
            (body, []) => body,
            (Body::Empty, [only]) => Body::One(*only),
            (Body::Empty | Body::One(_) | Body::Longer, _) => Body::Longer,
        };
    }

    fn end(&mut self, seen: &mut impl FnMut(Seen)) {
        self.state = State::Between;
        match self.body {
            Body::One(ACK) => return seen(Seen::Commit(Commit::Accepted)),
            Body::One(NAK) => return seen(Seen::Commit(Commit::Refused)),
            Body::Empty | Body::One(_) | Body::Longer => {}
        }
        let header = self.header.found();
        if self.body == Body::Empty {
            seen(Seen::Fault(Fault::Empty));
        } else if header.content == Content::Unknown {
            seen(Seen::Fault(Fault::NoHeader));
        }
        seen(Seen::Frame(header));
    }
}

/// In what is no message only its end matters, both bytes of it, or the first where nothing has come after it yet.
fn end_of_noise(bytes: &[u8]) -> Option<usize> {
    memmem::find(bytes, &[END, CR]).or_else(|| bytes.ends_with(&[END]).then(|| bytes.len() - 1))
}

fn is_junk(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n' | b' ' | b'\t' | 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: &[u8] = b"\x0bMSH|^~\\&|A\rPID|1\r\x1c\r";

    fn look(parts: &[&[u8]]) -> (u64, Vec<Fault>, bool) {
        let mut reader = FrameReader::of_messages(HashKey::from_bytes([1; 16]));
        let (mut frames, mut faults) = (0, Vec::new());
        for part in parts {
            reader.observe(part, |seen| match seen {
                Seen::Frame(_) | Seen::Commit(_) => frames += 1,
                Seen::Fault(fault) => faults.push(fault),
            });
        }
        (frames, faults, reader.is_inside_frame())
    }

    #[test]
    fn frames_are_counted_however_the_bytes_are_cut() {
        for cut in 0..=FRAME.len() {
            assert_eq!(look(&[&FRAME[..cut], &FRAME[cut..]]), (1, vec![], false), "cut at {cut}");
        }
    }

    #[test]
    fn junk_between_frames_and_end_bytes_inside_them_do_not_count() {
        let (frames, faults, inside) = look(&[b"junk\r\n\x0bMSH|bin \x1c in \x1c\x1c\r\0\0\r\n \x0bMSH|next\x1c\r"]);
        assert_eq!((frames, inside), (2, false));
        assert_eq!(faults, [Fault::Junk]);
    }

    fn commits(bytes: &[u8], piece: usize) -> (Vec<Commit>, u64) {
        let mut reader = FrameReader::of_answers(HashKey::from_bytes([1; 16]));
        let (mut commits, mut others) = (Vec::new(), 0);
        for part in bytes.chunks(piece) {
            reader.observe(part, |seen| match seen {
                Seen::Commit(commit) => commits.push(commit),
                Seen::Frame(_) | Seen::Fault(_) => others += 1,
            });
        }
        (commits, others)
    }

    #[test]
    fn a_frame_of_one_commit_byte_is_a_commit_block_and_no_message() {
        for piece in [1, 2, 3, usize::MAX] {
            let blocks = b"\x0b\x06\x1c\r\x0b\x15\x1c\r\n\x0b\x06\x1c\r";
            assert_eq!(commits(blocks, piece), (vec![Commit::Accepted, Commit::Refused, Commit::Accepted], 0));
            // A frame each that is something else: with its fault, and twice with two.
            for frame in [&b"\x0b\x06\x06\x1c\r"[..], b"\x0b\x06\r\x1c\r", b"\x0b\x07\x1c\r", b"\x0b\x1c\r"] {
                assert_eq!(commits(frame, piece), (vec![], 2), "{frame:?}");
            }
            for frame in [&b"\x0b\x0b\x06\x1c\r"[..], b"\x0b\x06\x0b\x1c\r"] {
                assert_eq!(commits(frame, piece), (vec![], 3), "{frame:?}: an end is missing as well");
            }
            assert_eq!(commits(b"\x0b\x06\x1c\x1c\r", piece), (vec![], 2), "an end byte inside is content");
        }
    }

    #[test]
    fn what_is_no_message_is_one_fault_however_many_start_bytes_it_holds() {
        let noise = b"\x0b\x89PNG\x0b\x0b12\x1c3\x0b\x1c\x1c\r\x0bMSH|^~\\&|A\r\x1c\r";
        for cut in 0..=noise.len() {
            assert_eq!(look(&[&noise[..cut], &noise[cut..]]), (2, vec![Fault::NoHeader], false), "cut at {cut}");
        }
    }

    #[test]
    fn each_fault_has_its_name() {
        assert_eq!(look(&[b"\x0b\x1c\r"]).1, [Fault::Empty]);
        assert_eq!(look(&[b"\x0bHTTP/1.1 400\x1c\r"]).1, [Fault::NoHeader]);
        assert_eq!(look(&[b"\x0bMSH|1\r\x0bMSH|2\r\x1c\r"]), (1, vec![Fault::EndMissing], false));
        assert_eq!(look(&[b"ju", b"nk", b" more"]).1, [Fault::Junk], "one stretch of junk is one fault");
        assert_eq!(look(&[b"\x0bFHS|^~\\&|A\rBHS|^~\\&\r\x1c\r"]).1, []);
    }
}
