//! Reads the first segments of a frame as they pass, byte by byte.
//!
//! Everything here is fed by a peer: after [`MAX_HEADER`] bytes the reader stops looking.

use std::hash::Hasher;

use memchr::memchr2;
use siphasher::sip::SipHasher13;

use super::{AckCode, Answer, Content, ControlHash, HashKey, Header, MessageKind};

/// Bytes of one frame that are looked at for its header at most. An acknowledgement may carry software and user segments
/// before its MSA.
const MAX_HEADER: u16 = 8 << 10;
/// Bytes before the header that are skipped: a byte order mark, line ends and blanks that some engines write.
const MAX_LEAD: u8 = 8;

/// The fields of MSH that are read: message type and control id.
const MSH_TYPE: u8 = 9;
const MSH_CONTROL: u8 = 10;

const NOTHING: Header = Header { content: Content::Unknown, control: None, answer: None };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The three letters of a segment.
    Tag,
    /// The field separator after them.
    Separator,
    /// Fields of MSH or MSA.
    Fields(Segment),
    /// The rest of a segment that does not matter.
    Skip,
    /// Everything that matters was read.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Segment {
    Msh,
    Msa,
}

/// Reads the header of one frame after the other, field by field.
#[derive(Debug, Clone)]
pub(in crate::mllp) struct HeaderReader {
    key: HashKey,
    wants_answer: bool,
    phase: Phase,
    looked_at: u16,
    lead: u8,
    tag: Word<3>,
    segment: Segment,
    separator: u8,
    component: u8,
    field: u8,
    type_parts: [Word<3>; 2],
    part: u8,
    code: Word<2>,
    control: Option<SipHasher13>,
    found: Header,
}

impl HeaderReader {
    pub(in crate::mllp) fn of_messages(key: HashKey) -> Self {
        Self::new(key, false)
    }

    pub(in crate::mllp) fn of_answers(key: HashKey) -> Self {
        Self::new(key, true)
    }

    fn new(key: HashKey, wants_answer: bool) -> Self {
        Self {
            key,
            wants_answer,
            phase: Phase::Tag,
            looked_at: 0,
            lead: 0,
            tag: Word::default(),
            segment: Segment::Msh,
            separator: 0,
            component: 0,
            field: 0,
            type_parts: Default::default(),
            part: 0,
            code: Word::default(),
            control: None,
            found: NOTHING,
        }
    }

    /// A new frame.
    pub(in crate::mllp) fn begin(&mut self) {
        *self = Self::new(self.key, self.wants_answer);
    }

    /// Content of the frame, in order.
    pub(in crate::mllp) fn feed(&mut self, bytes: &[u8]) {
        if self.phase == Phase::Done {
            return;
        }
        let budget = usize::from(MAX_HEADER - self.looked_at).min(bytes.len());
        let mut bytes = &bytes[..budget];
        self.looked_at += u16::try_from(budget).unwrap_or(MAX_HEADER);
        while let (Some(first), true) = (bytes.first(), self.phase != Phase::Done) {
            // What lies before the next delimiter that matters is taken at once; everything else byte by byte.
            let run = match self.phase {
                Phase::Fields(Segment::Msh) if (3..MSH_TYPE).contains(&self.field) => self.pass_fields(bytes),
                Phase::Fields(segment) => self.take_field(segment, bytes),
                Phase::Skip => memchr2(b'\r', b'\n', bytes).unwrap_or(bytes.len()),
                Phase::Tag | Phase::Separator | Phase::Done => 0,
            };
            if run == 0 {
                self.byte(*first);
            }
            bytes = &bytes[run.max(1)..];
        }
        if self.looked_at == MAX_HEADER {
            self.phase = Phase::Done;
        }
    }

    /// Takes what lies before the next delimiter: how many bytes. Fields of a header are some bytes long: a vectorised search costs
    /// more than it saves.
    fn take_field(&mut self, segment: Segment, bytes: &[u8]) -> usize {
        let delimiter = |byte: &u8| *byte == self.separator || matches!(byte, b'\r' | b'\n');
        let length = bytes.iter().position(delimiter).unwrap_or(bytes.len());
        self.field_bytes(segment, &bytes[..length]);
        length
    }

    /// Passes over fields of MSH that do not matter, up to the message type or the end of the segment: how many bytes.
    fn pass_fields(&mut self, bytes: &[u8]) -> usize {
        for (position, byte) in bytes.iter().enumerate() {
            if *byte == self.separator {
                self.field += 1;
                if self.field == MSH_TYPE {
                    return position + 1;
                }
            } else if matches!(byte, b'\r' | b'\n') {
                return position;
            }
        }
        bytes.len()
    }

    /// Whether the frame is certain to have no header.
    pub(in crate::mllp) fn is_none(&self) -> bool {
        self.phase == Phase::Done && self.found.content == Content::Unknown
    }

    /// What the frame said; call it at its end.
    pub(in crate::mllp) fn found(&mut self) -> Header {
        // The segment may end with the frame.
        self.end_of_field();
        if self.found.content == Content::Unknown && self.segment_is_header() {
            self.found.content = Content::Untyped;
        }
        self.phase = Phase::Done;
        self.found
    }

    fn segment_is_header(&self) -> bool {
        matches!(self.phase, Phase::Fields(Segment::Msh))
    }

    fn byte(&mut self, byte: u8) {
        let ends_segment = matches!(byte, b'\r' | b'\n');
        match self.phase {
            Phase::Tag if ends_segment => self.tag = Word::default(),
            Phase::Tag => self.tag_byte(byte),
            Phase::Separator if ends_segment => self.end_of_segment(),
            Phase::Separator => {
                self.separator = byte;
                // MSH-1 is the separator itself, so what follows it is MSH-2; in MSA it is MSA-1.
                self.field = if self.segment == Segment::Msh { 2 } else { 1 };
                self.phase = Phase::Fields(self.segment);
            }
            Phase::Fields(_) if ends_segment => self.end_of_segment(),
            Phase::Fields(_) if byte == self.separator => {
                self.end_of_field();
                self.field = self.field.saturating_add(1);
                self.part = 0;
            }
            Phase::Skip if ends_segment => self.begin_segment(),
            // The bytes of fields and of skipped segments come in runs.
            Phase::Fields(_) | Phase::Skip | Phase::Done => {}
        }
    }

    fn tag_byte(&mut self, byte: u8) {
        let is_first = self.found.content == Content::Unknown;
        let is_lead = matches!(byte, b' ' | 0xef | 0xbb | 0xbf);
        if is_first && is_lead && self.tag.is_empty() && self.lead < MAX_LEAD {
            self.lead += 1;
            return;
        }
        self.tag.push(byte);
        let Some(tag) = self.tag.whole() else { return };
        self.phase = match (&tag, is_first) {
            (b"MSH", true) => {
                self.segment = Segment::Msh;
                Phase::Separator
            }
            (b"FHS" | b"BHS", true) => {
                self.found.content = Content::Batch;
                Phase::Done
            }
            (_, true) => Phase::Done,
            (b"MSA", false) => {
                self.segment = Segment::Msa;
                Phase::Separator
            }
            (_, false) => Phase::Skip,
        };
    }

    fn field_bytes(&mut self, segment: Segment, bytes: &[u8]) {
        match (segment, self.field) {
            (Segment::Msh, 2) if self.component == 0 => self.component = bytes.first().copied().unwrap_or(0),
            (Segment::Msh, MSH_TYPE) => self.type_bytes(bytes),
            (Segment::Msa, 1) => self.code.extend(bytes),
            (Segment::Msh, MSH_CONTROL) | (Segment::Msa, 2) => {
                let key = &self.key.0;
                for part in bytes.split(|byte| *byte == b' ').filter(|part| !part.is_empty()) {
                    self.control.get_or_insert_with(|| SipHasher13::new_with_key(key)).write(part);
                }
            }
            _ => {}
        }
    }

    fn type_bytes(&mut self, bytes: &[u8]) {
        for (later, piece) in bytes.split(|byte| *byte == self.component).enumerate() {
            self.part = self.part.saturating_add(u8::from(later > 0));
            if let Some(part) = self.type_parts.get_mut(usize::from(self.part)) {
                part.extend(piece);
            }
        }
    }

    fn end_of_field(&mut self) {
        match (self.phase, self.field) {
            (Phase::Fields(Segment::Msh), MSH_TYPE) => self.found.content = self.message(),
            (Phase::Fields(Segment::Msh), MSH_CONTROL) => self.found.control = self.take_control(),
            (Phase::Fields(Segment::Msa), 1) => {
                let code = self.code.whole().and_then(|code| AckCode::from_bytes(&code));
                self.found.answer = Some(Answer { code, of: None });
            }
            (Phase::Fields(Segment::Msa), 2) => {
                let of = self.take_control();
                if let Some(answer) = &mut self.found.answer {
                    answer.of = of;
                }
            }
            _ => {}
        }
        let is_read = match self.phase {
            Phase::Fields(Segment::Msh) => self.field >= MSH_CONTROL && !self.wants_answer,
            Phase::Fields(Segment::Msa) => self.field >= 2,
            Phase::Tag | Phase::Separator | Phase::Skip | Phase::Done => false,
        };
        if is_read {
            self.phase = Phase::Done;
        } else if self.field >= MSH_CONTROL && self.segment_is_header() {
            self.phase = Phase::Skip;
        }
    }

    fn end_of_segment(&mut self) {
        self.end_of_field();
        if self.found.content == Content::Unknown {
            self.found.content = Content::Untyped;
        }
        if self.phase == Phase::Done {
            return;
        }
        // A header segment, whole or not, comes once; an acknowledgement too.
        if self.wants_answer && self.found.answer.is_none() {
            self.begin_segment();
        } else {
            self.phase = Phase::Done;
        }
    }

    fn begin_segment(&mut self) {
        self.tag = Word::default();
        self.control = None;
        self.phase = Phase::Tag;
    }

    fn message(&self) -> Content {
        let restricted = |bytes: &[u8; 3]| bytes.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        let [kind, trigger] = &self.type_parts;
        let kind = kind.whole().filter(restricted);
        let trigger = match trigger.whole().filter(restricted) {
            Some(trigger) => Some(trigger),
            None if trigger.is_empty() => None,
            None => return Content::Untyped,
        };
        kind.map_or(Content::Untyped, |kind| Content::Message(MessageKind { kind, trigger }))
    }

    fn take_control(&mut self) -> Option<ControlHash> {
        self.control.take().map(|hasher| ControlHash(hasher.finish()))
    }
}

/// A word of exactly `N` bytes; a longer one is none.
#[derive(Debug, Clone, Copy)]
struct Word<const N: usize> {
    bytes: [u8; N],
    length: u8,
}

impl<const N: usize> Default for Word<N> {
    fn default() -> Self {
        Self { bytes: [0; N], length: 0 }
    }
}

impl<const N: usize> Word<N> {
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(usize::from(self.length)) {
            *slot = byte;
        }
        self.length = self.length.saturating_add(1);
    }

    fn extend(&mut self, bytes: &[u8]) {
        // One byte more than fits shows as well as any number of them that the word is too long.
        bytes.iter().take(N + 1).for_each(|byte| self.push(*byte));
    }

    fn whole(&self) -> Option<[u8; N]> {
        (usize::from(self.length) == N).then_some(self.bytes)
    }

    fn is_empty(&self) -> bool {
        self.length == 0
    }
}

#[cfg(test)]
mod tests;
