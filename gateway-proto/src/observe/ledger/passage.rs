//! How long messages take to pass: under a rate, on a slow line or from a slow engine longer than their engine waits perhaps.

use std::time::{Duration, Instant};

use super::{Ledger, Warning};

/// A message that has begun to pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passage {
    begun_at: Instant,
    moved_at: Instant,
    /// What had passed in all conversations when it began, and when it last moved.
    bytes: [u64; 2],
}

impl Ledger {
    /// So many bytes passed on the way that messages go.
    pub(crate) fn passes(&mut self, bytes: usize) {
        self.message_bytes = self.message_bytes.saturating_add(bytes as u64);
    }

    /// A message begins to pass, or goes on to.
    pub(crate) fn passage(&self, begun: Option<Passage>, now: Instant) -> Passage {
        let (begun_at, before) = begun.map_or((now, self.message_bytes), |begun| (begun.begun_at, begun.bytes[0]));
        Passage { begun_at, moved_at: now, bytes: [before, self.message_bytes] }
    }

    /// All of it passed.
    pub(crate) fn has_passed(&mut self, begun: Passage, now: Instant) {
        self.note_slow(self.passage(Some(begun), now), self.patience);
    }

    /// Its conversation ended before. An engine that gave up did so a little after the last bytes that passed.
    pub(crate) fn was_cut(&mut self, begun: Passage) {
        self.note_slow(begun, self.patience * 3 / 4);
    }

    fn note_slow(&mut self, Passage { begun_at, moved_at, bytes: [before, after] }: Passage, least: Duration) {
        let took = moved_at.saturating_duration_since(begun_at);
        if took > least {
            let (bytes, patience) = (after.saturating_sub(before), self.patience);
            self.warn(Warning::Slow { took, bytes, patience }, moved_at);
        }
    }
}
