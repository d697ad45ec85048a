//! The bytes of a text with what stands for them in the answer: what passes, passes as it was written, however often it is
//! escaped.

use std::ops::Range;

use super::MAX_HELD;

/// What held units may take in the answer, in bytes: an escape is longer than what it stands for.
const MAX_RAW: usize = 4 * MAX_HELD;

/// One byte of a text: as it reads, and as it is written in the answer. An escaped character beyond ASCII reads as one byte
/// above 0x7f, as no syntax and no name of a secret needs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit<'a> {
    pub(super) byte: u8,
    pub(super) raw: &'a [u8],
}

impl<'a> Unit<'a> {
    /// A byte of the answer itself.
    pub(super) fn written(byte: &'a u8) -> Self {
        Self { byte: *byte, raw: std::slice::from_ref(byte) }
    }
}

/// Units that are held back until it is known whether they may pass.
#[derive(Debug, Default)]
pub(super) struct Held {
    text: Vec<u8>,
    raw: Vec<u8>,
    /// Where in `raw` each unit ends.
    ends: Vec<usize>,
}

impl Held {
    pub(super) fn push(&mut self, unit: Unit<'_>) {
        self.text.push(unit.byte);
        self.raw.extend_from_slice(unit.raw);
        self.ends.push(self.raw.len());
    }

    /// As it reads.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// How many units are held.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Whether no more may be held.
    pub(super) fn is_full(&self) -> bool {
        self.text.len() > MAX_HELD || self.raw.len() > MAX_RAW
    }

    /// Everything, as it is written.
    pub(super) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Some of it, as it is written.
    pub(super) fn raw_of(&self, units: Range<usize>) -> &[u8] {
        &self.raw[self.start_of(units.start)..self.start_of(units.end)]
    }

    pub(super) fn units(&self, units: Range<usize>) -> impl Iterator<Item = Unit<'_>> {
        units.map(move |at| Unit { byte: self.text[at], raw: self.raw_of(at..at + 1) })
    }

    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.raw.clear();
        self.ends.clear();
    }

    fn start_of(&self, unit: usize) -> usize {
        unit.checked_sub(1).map_or(0, |before| self.ends[before])
    }
}
