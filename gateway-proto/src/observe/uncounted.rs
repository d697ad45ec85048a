//! What a stream showed before the far side has taken it.
//!
//! An engine's bytes do not wait for the far side's answer (docs/adr/0012). When that is a refusal, nothing of them was
//! delivered, and nothing of them is counted: the two ends of a connection see the same traffic.

use crate::mllp::End;

/// Something that is counted of one stream, and added up for all.
pub(crate) trait Counted: Default {
    /// What was seen later.
    fn add(&mut self, later: Self);
}

/// The counts of one stream, as long as nobody knows whether it is taken; after that it counts with the others of its
/// connection, and this takes one word.
#[derive(Debug, Clone, Default)]
pub(crate) struct Uncounted<C>(Option<Box<C>>);

impl<C: Counted> Uncounted<C> {
    /// `accepted`: the far side has taken the stream already.
    pub(crate) fn new(accepted: bool) -> Self {
        Self((!accepted).then(Box::default))
    }

    /// Where to count now.
    pub(crate) fn counts<'a>(&'a mut self, counted: &'a mut C) -> &'a mut C {
        self.0.as_deref_mut().unwrap_or(counted)
    }

    /// The far side has taken the stream.
    pub(crate) fn accepted(&mut self, counted: &mut C) {
        if let Some(uncounted) = self.0.take() {
            counted.add(*uncounted);
        }
    }

    /// The stream is over. Without an answer from the far side nobody knows what became of what was sent: it counts.
    pub(crate) fn end(mut self, counted: &mut C, end: End) {
        if end != End::Refused {
            self.accepted(counted);
        }
    }
}
