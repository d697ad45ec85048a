//! What of HTTP and DICOM is over, for the delivery proof and the metering.
//!
//! A message of MLLP is counted when it passes: its engine keeps it until it is acknowledged, and sends it again. A request or an
//! association is not kept by anybody, and who asked knows that there was no answer. So it is counted when it is over, and
//! what is under way, for however long, is no difference. What may differ is the end: an answer that the listener's gateway
//! saw and the sender's did not.
//!
//! The sender's end sees every request before the listener's does, and every answer after it. So what it counts is never less,
//! unless something took the answer on its way: an engine that ended its connection waits for none, the tunnel takes what somebody
//! waits for.

use super::uncounted::Counted;
use crate::{balance::EndCounts, mllp::End};

/// Exchanges that are over, of all streams of a connection's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Completed {
    /// Those whose answer passed.
    pub answered: u64,
    /// Those without an answer, whose connection an engine ended, at either side.
    pub given_up: u64,
    /// Those without an answer, whose stream ended otherwise.
    pub lost: u64,
    /// Streams in which something was asked, and that could not be followed to the answer.
    pub adrift: u64,
    /// Those of them that are over.
    pub adrift_over: u64,
    /// Streams in which nothing that was asked could be read.
    pub unread: u64,
}

impl Counted for Completed {
    fn add(&mut self, later: Self) {
        let Self { answered, given_up, lost, adrift, adrift_over, unread } = later;
        self.answered += answered;
        self.given_up += given_up;
        self.lost += lost;
        self.adrift += adrift;
        self.adrift_over += adrift_over;
        self.unread += unread;
    }
}

impl Completed {
    /// What the sender's end tells, where the sending engine asks. What an engine gave up is told as answered, because the
    /// listener's gateway may have seen an answer that nobody waited for; what it did not see, answered or not, is
    /// explained (docs/adr/0058). What was lost counts as somebody's who knows.
    pub fn at_sender(&self, epoch: u64) -> EndCounts {
        EndCounts {
            epoch,
            messages: self.answered.saturating_add(self.given_up).saturating_add(self.lost),
            accepted: self.answered,
            other: self.given_up,
            unacknowledged: self.given_up.saturating_add(self.lost),
            repeated: self.lost,
            streams: self.unread,
            // The listener's gateway may follow where we cannot, and how far, nobody knows before the stream is over. Either
            // engine can bring that about at will: it shall not last longer than its stream.
            uncompared: self.adrift > self.adrift_over,
            adrift: self.adrift_over,
            ..EndCounts::default()
        }
    }

    /// What the listener's end tells: only what its engine answered.
    pub fn at_listener(&self, epoch: u64) -> EndCounts {
        EndCounts {
            epoch,
            messages: self.answered,
            accepted: self.answered,
            unacknowledged: self.given_up.saturating_add(self.lost),
            streams: self.unread,
            ..EndCounts::default()
        }
    }
}

/// What was asked in one stream, and how much of it is over.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Followed {
    asked: u64,
    over: u64,
    is_adrift: bool,
}

impl Followed {
    pub(super) fn asked(&mut self) {
        self.asked = self.asked.saturating_add(1);
    }

    pub(super) fn has_asked(self) -> bool {
        self.asked > 0
    }

    /// An answer passed; one that nobody asked for is none.
    pub(super) fn answered(&mut self, completed: &mut Completed) {
        if self.over < self.asked {
            self.over += 1;
            completed.answered += 1;
        }
    }

    /// It cannot be followed any more. Once all is answered, neither end counts more of it.
    pub(super) fn lost_track(&mut self, completed: &mut Completed) {
        if self.asked == 0 {
            completed.unread += 1;
        } else if self.over < self.asked {
            completed.adrift += 1;
            self.is_adrift = true;
        }
    }

    /// The stream is over, and was not followed to its end.
    pub(super) fn end_unfollowed(self, completed: &mut Completed) {
        if self.is_adrift {
            completed.adrift_over += 1;
        }
    }

    /// The stream is over, and was followed to its end.
    pub(super) fn end(self, completed: &mut Completed, end: End) {
        let open = self.asked.saturating_sub(self.over);
        match end {
            End::ByTheSender | End::ByTheReceiver => completed.given_up += open,
            End::Refused | End::Otherwise => completed.lost += open,
        }
    }
}

#[cfg(test)]
mod tests;
