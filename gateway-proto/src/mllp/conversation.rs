//! Both directions of one MLLP connection: messages one way, acknowledgements the other.

use std::{collections::VecDeque, time::Instant};

use super::{
    frames::{FrameReader, Seen},
    header::{Answer, ControlHash, HashKey},
};
use crate::observe::{AnswerSeen, Ledger, Wait};

/// Messages on their way whose acknowledgement is matched by control id at most. Engines send one and wait; beyond this
/// many, messages are counted, but not timed.
const MAX_TRACKED: usize = 8;

/// How a conversation ended, for what a repetition of its messages means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The sending engine gave up, or closed.
    ByTheSender,
    /// The far side did not take it: nothing of it was delivered.
    Refused,
    /// Anything else: the tunnel, the receiving engine, the policy.
    Otherwise,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    control: Option<ControlHash>,
    at: Instant,
}

/// Both directions of one MLLP connection. What passes is entered into the [`Ledger`] of the connection's end.
///
/// A few hundred bytes, whatever passes. [`end`](Self::end) must be called once, at the end.
#[derive(Debug, Clone)]
pub struct Conversation {
    /// Its number in the ledger: tells a repetition on another connection from one on the same.
    number: u64,
    messages: FrameReader,
    answers: FrameReader,
    /// Complete messages without an answer. An answer nobody waits for is not credited to a later message.
    outstanding: u64,
    waiting: VecDeque<Sent>,
    /// Messages that passed before the far side took the conversation: counted once it does.
    uncounted: Option<u64>,
}

impl Conversation {
    /// A conversation of the connection whose ledger this is. `accepted`: the far side has taken it; otherwise
    /// [`accepted`](Self::accepted) follows, or its end.
    pub fn new(ledger: &mut Ledger, accepted: bool) -> Self {
        let key: HashKey = ledger.key();
        Self {
            number: ledger.begin(),
            messages: FrameReader::of_messages(key),
            answers: FrameReader::of_answers(key),
            outstanding: 0,
            waiting: VecDeque::new(),
            uncounted: (!accepted).then_some(0),
        }
    }

    /// The far side has taken the conversation.
    pub fn accepted(&mut self, ledger: &mut Ledger) {
        ledger.count_messages(self.uncounted.take().unwrap_or(0));
    }

    /// Bytes from the engine that sends.
    pub fn observe_message_bytes(&mut self, bytes: &[u8], ledger: &mut Ledger, now: Instant) {
        let Self { number, messages, outstanding, waiting, uncounted, .. } = self;
        messages.observe(bytes, |seen| match seen {
            Seen::Frame(header) => {
                *outstanding += 1;
                if waiting.len() < MAX_TRACKED {
                    waiting.push_back(Sent { control: header.control, at: now });
                }
                match uncounted {
                    Some(uncounted) => *uncounted += 1,
                    None => ledger.count_messages(1),
                }
                ledger.message(*number, &header, now);
            }
            Seen::Fault(fault) => ledger.fault(fault, now),
        });
    }

    /// Bytes from the engine that receives.
    pub fn observe_acknowledgement_bytes(&mut self, bytes: &[u8], ledger: &mut Ledger, now: Instant) {
        let Self { number, answers, outstanding, waiting, .. } = self;
        answers.observe(bytes, |seen| match seen {
            Seen::Frame(header) => {
                let wait = settle(waiting, header.answer, now);
                let was_waited_for = *outstanding > 0;
                *outstanding = outstanding.saturating_sub(1);
                if *outstanding == 0 {
                    waiting.clear();
                }
                ledger.answer(*number, AnswerSeen { answer: header.answer, wait, was_waited_for }, now);
            }
            Seen::Fault(fault) => ledger.fault(fault, now),
        });
    }

    /// Messages that were sent (also one that was begun) and not answered by a complete frame.
    pub fn unacknowledged(&self) -> u64 {
        self.outstanding + u64::from(self.messages.is_inside_frame())
    }

    /// Whether the receiving side may end the conversation with a FIN: every message is answered, no answer is cut.
    pub fn may_end_cleanly(&self) -> bool {
        self.unacknowledged() == 0 && !self.answers.is_inside_frame()
    }

    /// The connection is over.
    pub fn end(mut self, ledger: &mut Ledger, end: End) {
        if end != End::Refused {
            // Without an answer from the far side nobody knows what became of them: they were sent.
            self.accepted(ledger);
        }
        for _ in [&self.messages, &self.answers].iter().filter(|reader| reader.is_inside_frame()) {
            ledger.cut();
        }
        ledger.end(self.number, self.outstanding, end);
    }
}

/// Finds the message an answer belongs to: by control id, and by order when the answer names none.
fn settle(waiting: &mut VecDeque<Sent>, answer: Option<Answer>, now: Instant) -> Wait {
    let Some(of) = answer.and_then(|answer| answer.of) else {
        return waiting
            .pop_front()
            .map_or(Wait::Unknown, |sent| Wait::Measured(now.saturating_duration_since(sent.at)));
    };
    match waiting.iter().position(|sent| sent.control == Some(of)) {
        Some(position) => waiting
            .remove(position)
            .map_or(Wait::Unknown, |sent| Wait::Measured(now.saturating_duration_since(sent.at))),
        None if waiting.is_empty() => Wait::Unknown,
        None => Wait::Mismatched,
    }
}

#[cfg(test)]
mod tests;
