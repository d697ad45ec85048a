//! What a ledger counts: messages by type, answers by code, and what went wrong.

use std::time::{Duration, Instant};

use crate::{
    mllp::{Content, MessageKind},
    observe::uncounted::Counted,
};

/// Message types counted one by one; others together. A channel has a few.
const MAX_KINDS: usize = 16;

/// Counts since the daemon started; they only grow, except `outstanding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Whole messages that passed to a far side that takes them.
    pub messages: u64,
    /// Answers `AA` and `CA`.
    pub accepted: u64,
    /// Answers `AE` and `CE`.
    pub errors: u64,
    /// Answers `AR` and `CR`.
    pub rejected: u64,
    /// Answers with no such code.
    pub other_answers: u64,
    /// Commit blocks that accept, either way: neither messages nor answers.
    pub commits_accepted: u64,
    /// Commit blocks that refuse.
    pub commits_refused: u64,
    /// Messages without an answer now, also those that a commit block has accepted.
    pub outstanding: u64,
    /// Messages whose connection ended before an answer passed or a commit block accepted them.
    pub unacknowledged: u64,
    /// Messages that came again on another connection, unanswered, after the sending engine had given up.
    pub duplicates: u64,
    /// Messages that came again after something else ended their connection: the repetition that is meant to be.
    pub retries: u64,
    /// Acknowledgements that passed later than a sending engine waits for them, or after their message had come again elsewhere.
    pub late_answers: u64,
    /// Answers that name another message than those that wait.
    pub mismatched_answers: u64,
    /// Bytes between frames.
    pub junk: u64,
    /// Frames without an end.
    pub end_missing: u64,
    /// Frames that hold no HL7.
    pub no_header: u64,
    /// Frames that hold nothing.
    pub empty: u64,
    /// Frames that were cut by the end of their connection.
    pub cut: u64,
}

/// How often each message type passed; at most a handful of types one by one.
#[derive(Debug, Clone, Default)]
pub struct Kinds {
    known: Vec<(MessageKind, u64)>,
    other: u64,
}

impl Kinds {
    /// Types in the order of their first message, with their counts.
    pub fn known(&self) -> &[(MessageKind, u64)] {
        &self.known
    }

    /// Messages of types beyond the table, batches, and messages without a well-formed type.
    pub fn other(&self) -> u64 {
        self.other
    }

    /// The kind, if it is one of the table.
    fn count(&mut self, content: Content) -> Option<MessageKind> {
        let kind = match content {
            Content::Message(kind) => Some(kind),
            Content::Untyped | Content::Batch | Content::Unknown => None,
        };
        self.add(kind, 1)
    }

    fn add(&mut self, kind: Option<MessageKind>, more: u64) -> Option<MessageKind> {
        if let Some(kind) = kind {
            if let Some((_, count)) = self.known.iter_mut().find(|(known, _)| *known == kind) {
                *count += more;
                return Some(kind);
            }
            if self.known.len() < MAX_KINDS {
                self.known.push((kind, more));
                return Some(kind);
            }
        }
        self.other += more;
        None
    }
}

/// A message that came before on another connection and was not answered there.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Repetition {
    /// The sending engine had given up.
    Duplicate {
        /// From the message to its repetition.
        after: Duration,
        /// When it came again.
        at: Instant,
    },
    /// Something else had ended the connection.
    Retry,
}

/// Messages that the far side took, their types, and those of them that came again: a repetition that is refused is delivered to
/// nobody, and the engine comes once more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    pub(super) messages: u64,
    pub(super) kinds: Kinds,
    /// Type of the last one, if it is one of the table.
    pub(super) last_kind: Option<MessageKind>,
    pub(super) duplicates: u64,
    pub(super) retries: u64,
    /// The last duplicate: how long after the first one it came, and when.
    pub(super) last_duplicate: Option<(Duration, Instant)>,
}

impl Taken {
    /// One more.
    pub(crate) fn count(&mut self, content: Content) {
        self.messages += 1;
        self.last_kind = self.kinds.count(content);
    }

    /// The last one that was counted was a repetition.
    pub(crate) fn repeated(&mut self, repetition: Repetition) {
        match repetition {
            Repetition::Duplicate { after, at } => {
                self.duplicates += 1;
                self.last_duplicate = Some((after, at));
            }
            Repetition::Retry => self.retries += 1,
        }
    }
}

impl Counted for Taken {
    fn add(&mut self, later: Self) {
        self.messages += later.messages;
        for (kind, count) in later.kinds.known {
            self.kinds.add(Some(kind), count);
        }
        self.kinds.add(None, later.kinds.other);
        if later.messages > 0 {
            // Its own table had room for it, this one perhaps not.
            self.last_kind = later.last_kind.filter(|last| self.kinds.known.iter().any(|(kind, _)| kind == last));
        }
        self.duplicates += later.duplicates;
        self.retries += later.retries;
        let duplicates = self.last_duplicate.into_iter().chain(later.last_duplicate);
        self.last_duplicate = duplicates.max_by_key(|(_, at)| *at);
    }
}
