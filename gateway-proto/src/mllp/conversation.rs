//! Both directions of one MLLP connection: messages one way, acknowledgements the other.

use std::{collections::VecDeque, time::Instant};

use super::{
    frames::{Commit, FrameReader, Seen},
    header::{ControlHash, HashKey},
};
use crate::observe::{AnswerSeen, Ledger, Moving, Passage, Taken, Uncounted, Wait};

/// Messages on their way whose acknowledgement is matched by control id at most. Engines send one and wait; beyond this
/// many, messages are counted, but not timed.
const MAX_TRACKED: usize = 8;
/// Answers that passed and are known again at most; the oldest goes first. Who repeats answers repeats those of the last few messages.
const MAX_ANSWERED: usize = 8;

/// How a conversation ended, for what a repetition of its messages means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The sending engine gave up, or closed.
    ByTheSender,
    /// The far side did not take it: nothing of it was delivered.
    Refused,
    /// The receiving engine gave up, or closed.
    ByTheReceiver,
    /// Anything else: the tunnel, the policy.
    Otherwise,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    control: Option<ControlHash>,
    at: Instant,
}

/// An answer that was waited for.
#[derive(Debug, Clone, Copy)]
struct Answered {
    /// The message it named.
    of: ControlHash,
    /// Its own control id.
    by: Option<ControlHash>,
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
    outstanding: u32,
    /// Of them, those for which a commit block has taken responsibility: the application's answer may still come.
    committed: u32,
    /// A commit block has refused the last message, and the engine has not gone on since.
    refused: bool,
    waiting: VecDeque<Sent>,
    /// Since when the first of them waits, as the ledger was told.
    waits_since: Option<Instant>,
    /// The message, and the answer, that has begun and not ended.
    passage: Option<Passage>,
    moving_answer: Option<Moving>,
    /// Until when they are waited for, as the ledger was told.
    moves_until: Option<Instant>,
    /// A message that is not tracked has the control id of another one, and not all have been answered since.
    shares_id: bool,
    /// The answers that passed, the last one first. Some engines send former ones once more on a connection that is kept open.
    answered: VecDeque<Answered>,
    /// Messages that passed before the far side took the conversation.
    uncounted: Uncounted<Taken>,
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
            committed: 0,
            refused: false,
            waiting: VecDeque::new(),
            waits_since: None,
            passage: None,
            moving_answer: None,
            moves_until: None,
            shares_id: false,
            answered: VecDeque::new(),
            uncounted: Uncounted::new(accepted),
        }
    }

    /// The far side has taken the conversation.
    pub fn accepted(&mut self, ledger: &mut Ledger) {
        self.uncounted.accepted(ledger.taken());
    }

    /// Bytes from the engine that sends.
    pub fn observe_message_bytes(&mut self, bytes: &[u8], ledger: &mut Ledger, now: Instant) {
        ledger.passes(bytes.len());
        let Self { number, messages, outstanding, refused, waiting, passage, shares_id, answered, uncounted, .. } =
            self;
        messages.observe(bytes, |seen| match seen {
            Seen::Frame(header) => {
                if let Some(begun) = passage.take() {
                    ledger.has_passed(begun, now);
                }
                *outstanding = outstanding.saturating_add(1);
                *refused = false;
                if waiting.len() < MAX_TRACKED {
                    waiting.push_back(Sent { control: header.control, at: now });
                } else if let Some(control) = header.control {
                    let is_answered = answered.iter().any(|answered| answered.of == control);
                    *shares_id |= is_answered || is_waiting(waiting, control);
                }
                uncounted.counts(ledger.taken()).count(header.content);
                if let Some(repetition) = ledger.message(*number, &header, now) {
                    uncounted.counts(ledger.taken()).repeated(repetition);
                }
            }
            // For an application's answer, which is a message like any other in release 2.
            Seen::Commit(commit) => {
                *passage = None;
                ledger.commit(commit, None, now);
            }
            Seen::Fault(fault) => ledger.fault(fault, now),
        });
        let is_inside = self.messages.is_inside_frame();
        self.passage = is_inside.then(|| ledger.passage(self.passage, bytes.len(), now));
        self.note_wait(ledger);
        self.note_move(ledger);
    }

    /// Bytes from the engine that receives.
    pub fn observe_acknowledgement_bytes(&mut self, bytes: &[u8], ledger: &mut Ledger, now: Instant) {
        let Self { number, answers, outstanding, committed, refused, waiting, shares_id, answered, .. } = self;
        let moving = &mut self.moving_answer;
        answers.observe(bytes, |seen| match seen {
            Seen::Frame(header) => {
                *moving = None;
                let of = header.answer.and_then(|answer| answer.of);
                let are_tracked = waiting.len() >= usize::try_from(*outstanding).unwrap_or(usize::MAX);
                let came_before = |of| came_before(answered, waiting, Answered { of, by: header.control });
                let is_repeated = of.is_some_and(came_before) && (are_tracked || !*shares_id);
                let wait = match settle(waiting, of, is_repeated) {
                    Some(sent) => Wait::Measured(now.saturating_duration_since(sent.at)),
                    None if waiting.is_empty() || !are_tracked => Wait::Unknown,
                    None => Wait::Mismatched,
                };
                let was_waited_for = *outstanding > 0 && !is_repeated;
                let was_committed = *committed > 0;
                if was_waited_for {
                    *outstanding -= 1;
                    *committed = committed.saturating_sub(1);
                    if let Some(of) = of {
                        answered.push_front(Answered { of, by: header.control });
                        answered.truncate(MAX_ANSWERED);
                    }
                }
                if *outstanding == 0 {
                    waiting.clear();
                    *shares_id = false;
                }
                let seen = AnswerSeen { answer: header.answer, wait, was_waited_for, was_committed };
                ledger.answer(*number, seen, now);
            }
            Seen::Commit(commit) => {
                *moving = None;
                // Blocks come in the order of the messages. One that nobody waits for is not credited to a later message.
                let position = usize::try_from(*committed).unwrap_or(usize::MAX);
                let sent = waiting.get(position).copied().filter(|_| *committed < *outstanding);
                ledger.commit(commit, sent.map(|sent| now.saturating_duration_since(sent.at)), now);
                if *committed == *outstanding {
                    return;
                }
                match commit {
                    Commit::Accepted => *committed += 1,
                    Commit::Refused => {
                        *outstanding -= 1;
                        *refused = true;
                        waiting.remove(position);
                        ledger.not_taken(*number, sent.and_then(|sent| sent.control));
                    }
                }
            }
            Seen::Fault(fault) => ledger.fault(fault, now),
        });
        let is_inside = self.answers.is_inside_frame();
        self.moving_answer = is_inside.then(|| Moving::on(self.moving_answer, bytes.len(), now));
        self.note_wait(ledger);
        self.note_move(ledger);
    }

    /// Tells the ledger until when what passes is waited for, where that has changed.
    fn note_move(&mut self, ledger: &mut Ledger) {
        let message = self.passage.map(Passage::moving).filter(|_| self.messages.is_amid_content());
        let answer = self.moving_answer.filter(|_| self.answers.is_amid_content());
        let until = message.into_iter().chain(answer).map(Moving::waited_for_until).max();
        if until != self.moves_until {
            self.moves_until = until;
            ledger.moves(self.number, until);
        }
    }

    /// Tells the ledger since when the first message waits for which nobody has taken responsibility, where that has changed.
    fn note_wait(&mut self, ledger: &mut Ledger) {
        let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        // One that an answer with a wrong id may have been for is tracked still.
        let surplus = self.waiting.len().saturating_sub(count(self.outstanding));
        let first = self.waiting.get(surplus.saturating_add(count(self.committed)));
        let since = first.filter(|_| self.committed < self.outstanding).map(|sent| sent.at);
        if since != self.waits_since {
            self.waits_since = since;
            ledger.waits(self.number, since);
        }
    }

    /// Messages that were sent (also one that was begun) for which nobody has taken responsibility: no complete frame has
    /// answered them, and no commit block has accepted them. One that a commit block has refused is among them until the
    /// engine sends the next one.
    pub fn unacknowledged(&self) -> u64 {
        let begun = u64::from(self.messages.is_inside_frame());
        self.without_responsibility() + u64::from(self.refused) + begun
    }

    fn without_responsibility(&self) -> u64 {
        u64::from(self.outstanding.saturating_sub(self.committed))
    }

    /// Whether the receiving side may end the conversation with a FIN: no message is unacknowledged, no answer is cut.
    pub fn may_end_cleanly(&self) -> bool {
        self.unacknowledged() == 0 && !self.answers.is_inside_frame()
    }

    /// The connection is over.
    pub fn end(self, ledger: &mut Ledger, end: End) {
        let unacknowledged = self.without_responsibility();
        for _ in [&self.messages, &self.answers].iter().filter(|reader| reader.is_inside_frame()) {
            ledger.cut();
        }
        if let Some(begun) = self.passage {
            ledger.was_cut(begun);
        }
        ledger.moves(self.number, None);
        self.uncounted.end(ledger.taken(), end);
        ledger.end(self.number, u64::from(self.outstanding), unacknowledged, end);
    }
}

fn is_waiting(waiting: &VecDeque<Sent>, control: ControlHash) -> bool {
    waiting.iter().any(|sent| sent.control == Some(control))
}

/// Whether an answer passed before: it names a message that was answered, and none that waits. Beside a message without an id of
/// its own, whose answer may name anything, it has to be the very same one.
fn came_before(answered: &VecDeque<Answered>, waiting: &VecDeque<Sent>, answer: Answered) -> bool {
    let may_name_anything = waiting.iter().any(|sent| sent.control.is_none());
    let is_same = |former: &Answered| former.of == answer.of && (!may_name_anything || former.by == answer.by);
    answered.iter().any(is_same) && !is_waiting(waiting, answer.of)
}

/// Takes the message an answer belongs to: by control id; by order where the answer names none, or where the message has none of
/// its own (a batch, whose answer names a message inside it). An answer that came before belongs to none.
fn settle(waiting: &mut VecDeque<Sent>, of: Option<ControlHash>, is_repeated: bool) -> Option<Sent> {
    let position = match of {
        None => Some(0),
        Some(_) if is_repeated => None,
        Some(_) => {
            let named = waiting.iter().position(|sent| sent.control == of);
            named.or_else(|| waiting.iter().position(|sent| sent.control.is_none()))
        }
    };
    waiting.remove(position?)
}

#[cfg(test)]
mod tests;
