//! What the counts themselves say of messages that the listener's end did not count, and that are not missing.
//!
//! Each message of the sender's end that has an answer was handed over, though a gateway that was killed may not have lived to
//! report it. One that was cut on its way and came again is counted by the listener's end once and by the sender's twice. Both
//! show in what is left when answers and repetitions are taken off the messages: of a message that is missing for good,
//! one more is left at the sender's end than at the listener's.
//!
//! Other things move that number as well: an answer that is lost, a gateway that does not know after a restart that a message
//! came before. So only what has changed since the last pause is evidence, and what nothing needed then explains nothing later.

use serde::{Deserialize, Serialize};

use super::{Difference, Possible, narrow};

/// What is explained so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Explained {
    /// Messages, none of them missing.
    messages: i64,
    /// Answers that the listener's end did not count; not more than messages.
    answers: i64,
    /// How many more are left at the sender's end than at the listener's without anything missing.
    left: i64,
}

impl Explained {
    pub(super) fn difference(&self) -> Difference {
        Difference { messages: self.messages, answers: self.answers.saturating_neg() }
    }

    /// A difference of messages and one of answers without what is explained already.
    pub(super) fn less(&self, messages: Possible, answers: Possible) -> (Possible, Possible) {
        (messages.less(self.messages.into()), answers.less(-i128::from(self.answers)))
    }

    /// Only what is left beyond this, in a pause, is evidence from now on.
    pub(super) fn begin_at(&mut self, unanswered: Possible) {
        self.left = narrow(unanswered.most);
    }

    /// What remains of a difference of messages and of one of answers. `unanswered`: by how much more messages are left at the
    /// sender's end than at the listener's. Only a pause teaches something; before it, nothing is certain that may be explained.
    pub(super) fn leaves(
        &mut self,
        messages: Possible,
        answers: Possible,
        unanswered: Possible,
    ) -> (Possible, Possible) {
        let (messages, answers) = self.less(messages, answers);
        match (messages.only(), answers.only()) {
            (Some(messages), Some(answers)) => self.settle(messages, answers, unanswered.most),
            (_, _) => self.doubt(messages, answers, unanswered.least),
        }
    }

    fn settle(&mut self, mut messages: i128, mut answers: i128, unanswered: i128) -> (Possible, Possible) {
        let (mut known_messages, mut known_answers) = (i128::from(self.messages), i128::from(self.answers));
        // What the listener's end had counted is told after all.
        let told = answers.min(-messages).min(known_answers).max(0);
        (messages, known_messages) = (messages + told, known_messages - told);
        (answers, known_answers) = (answers - told, known_answers - told);
        let told = (-messages).min(known_messages - known_answers).max(0);
        (messages, known_messages) = (messages + told, known_messages - told);

        let evidence = unanswered - i128::from(self.left);
        if messages > 0 {
            let missing = evidence.clamp(0, messages);
            let here = messages - missing;
            let uncounted = here.min(-answers).max(0);
            (messages, known_messages) = (missing, known_messages + here);
            (answers, known_answers) = (answers + uncounted, known_answers + uncounted);
        }
        // A lost answer leaves one more, too, until its message comes again.
        let (missing, lost) = (messages.max(0), answers.max(0));
        let left = unanswered - evidence.clamp(missing, missing + lost);
        *self = Self { messages: narrow(known_messages), answers: narrow(known_answers), left: narrow(left) };
        (Possible::exactly(messages), Possible::exactly(answers))
    }

    fn doubt(&self, mut messages: Possible, mut answers: Possible, unanswered: i128) -> (Possible, Possible) {
        if messages.least > 0 {
            messages.least = (unanswered - i128::from(self.left)).clamp(0, messages.least);
        } else if messages.most < 0 {
            messages.most = (messages.most + i128::from(self.messages)).min(0);
        }
        if answers.least > 0 {
            answers.least = (answers.least - i128::from(self.answers)).max(0);
        } else if answers.most < 0 {
            answers.most = (answers.most + messages.most.max(0)).min(0);
        }
        (messages, answers)
    }
}
