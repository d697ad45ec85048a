//! How long messages take to pass: under a rate, on a slow line or from a slow engine longer than their engine waits perhaps.

use std::time::{Duration, Instant};

use super::{Ledger, Warning, under_way::Moving};

/// A message that has begun to pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passage {
    moving: Moving,
    /// What had passed in all conversations when it began, and when it last moved.
    bytes: [u64; 2],
}

impl Passage {
    /// The message by itself.
    pub(crate) fn moving(self) -> Moving {
        self.moving
    }
}

impl Ledger {
    /// So many bytes passed on the way that messages go.
    pub(crate) fn passes(&mut self, bytes: usize) {
        self.message_bytes = self.message_bytes.saturating_add(bytes as u64);
    }

    /// A message begins to pass, or goes on to, with so many bytes of its conversation.
    pub(crate) fn passage(&self, begun: Option<Passage>, bytes: usize, now: Instant) -> Passage {
        let before = begun.map_or(self.message_bytes, |begun| begun.bytes[0]);
        let moving = Moving::on(begun.map(Passage::moving), bytes, now);
        Passage { moving, bytes: [before, self.message_bytes] }
    }

    /// All of it passed.
    pub(crate) fn has_passed(&mut self, begun: Passage, now: Instant) {
        self.note_slow(self.passage(Some(begun), 0, now), self.patience);
    }

    /// Its conversation ended before. An engine that gave up did so a little after the last bytes that passed.
    pub(crate) fn was_cut(&mut self, begun: Passage) {
        self.note_slow(begun, self.patience * 3 / 4);
    }

    fn note_slow(&mut self, Passage { moving, bytes: [before, after] }: Passage, least: Duration) {
        let took = moving.moved_at.saturating_duration_since(moving.begun_at);
        if took > least {
            let (bytes, patience) = (after.saturating_sub(before), self.patience);
            self.warn(Warning::Slow { took, bytes, patience }, moving.moved_at);
        }
    }
}
