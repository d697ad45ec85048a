//! What one end of an MLLP connection saw: counts, types, codes, times.
//!
//! All conversations of the end write here, so that a message which comes again on another connection is noticed: the sign
//! of a partner whose acknowledgement takes longer than the sending engine waits.

mod counts;
mod passage;
mod under_way;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

pub use counts::{Counts, Kinds};
pub(crate) use counts::{Repetition, Taken};
pub(crate) use passage::Passage;
pub(crate) use under_way::Moving;
use under_way::UnderWay;

use super::latency::Latency;
use crate::mllp::{AckCode, Answer, Commit, ControlHash, End, Fault, HashKey, Header, MessageKind};

/// How long a sending engine waits for an acknowledgement unless somebody says otherwise: its response timeout by default.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Unanswered messages remembered for repetitions; the oldest goes first.
const MAX_UNANSWERED: usize = 64;
/// An engine repeats within its retry interval (10 s by default); what comes later is a message sent again by people.
const REPEATED_WITHIN: Duration = Duration::from_secs(900);
/// A warning is shown for this long after its last cause.
const WARN_FOR: Duration = Duration::from_secs(3600);

/// What is known of the time an answer took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// This long.
    Measured(Duration),
    /// Its message is not among those that wait.
    Mismatched,
    /// Nothing waits.
    Unknown,
}

/// An answer, as a conversation saw it.
#[derive(Debug, Clone, Copy)]
pub struct AnswerSeen {
    /// Its acknowledgement.
    pub answer: Option<Answer>,
    /// How long it took.
    pub wait: Wait,
    /// Whether a message waited for one.
    pub was_waited_for: bool,
    /// A commit block had taken responsibility for its message before: no engine sends that again for want of this answer.
    pub was_committed: bool,
}

/// What a person should know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warning {
    /// The same control id came again on a new connection without an acknowledgement; the engine had waited this long.
    Duplicate {
        /// From the message to its repetition.
        after: Duration,
    },
    /// A message waits for its acknowledgement for longer than a sending engine does.
    Waiting {
        /// So far.
        lasts: Duration,
        /// How long such an engine waits.
        patience: Duration,
    },
    /// An acknowledgement came later than a sending engine waits for it.
    Late {
        /// From the message to it.
        took: Duration,
        /// How long such an engine waits.
        patience: Duration,
    },
    /// A message took longer to pass, from its first byte to its last, than a sending engine waits for its acknowledgement; or it was
    /// cut while it did.
    Slow {
        /// From its first byte to the last one that passed.
        took: Duration,
        /// What passed meanwhile in all conversations, bytes.
        bytes: u64,
        /// How long such an engine waits.
        patience: Duration,
    },
    /// An answer named another message than the one that waited.
    Mismatched,
    /// The framing is broken in this way.
    Framing(Fault),
}

#[derive(Debug, Clone, Copy)]
struct Unanswered {
    control: ControlHash,
    conversation: u64,
    at: Instant,
    ended: Option<End>,
    came_again: bool,
}

/// What one end of an MLLP connection saw. A few KiB at most.
#[derive(Debug)]
pub struct Ledger {
    key: HashKey,
    conversations: u64,
    /// Messages that passed, taken by the far side or not.
    passed: u64,
    /// Bytes of all conversations on the way that messages go.
    message_bytes: u64,
    counts: Counts,
    latency: Latency,
    taken: Taken,
    last_code: Option<AckCode>,
    /// How long a sending engine waits for an acknowledgement.
    patience: Duration,
    /// Since when the first message of each open conversation waits for its own: one entry for an open stream at most.
    waiting: BTreeMap<u64, Instant>,
    under_way: UnderWay,
    unanswered: VecDeque<Unanswered>,
    warnings: VecDeque<(Warning, Instant)>,
}

impl Ledger {
    /// An empty one; `key` is random.
    pub fn new(key: HashKey) -> Self {
        Self {
            key,
            conversations: 0,
            passed: 0,
            message_bytes: 0,
            counts: Counts::default(),
            latency: Latency::default(),
            taken: Taken::default(),
            last_code: None,
            patience: RESPONSE_TIMEOUT,
            waiting: BTreeMap::new(),
            under_way: UnderWay::default(),
            unanswered: VecDeque::new(),
            warnings: VecDeque::new(),
        }
    }

    /// The counts.
    pub fn counts(&self) -> Counts {
        let Taken { messages, duplicates, retries, .. } = self.taken;
        Counts { messages, duplicates, retries, ..self.counts }
    }

    /// How many answers passed, whatever they said.
    pub fn answers(&self) -> u64 {
        let Counts { accepted, errors, rejected, other_answers, .. } = self.counts;
        accepted + errors + rejected + other_answers
    }

    /// Times from a message to its answer.
    pub fn latency(&self) -> &Latency {
        &self.latency
    }

    /// The message types.
    pub fn kinds(&self) -> &Kinds {
        &self.taken.kinds
    }

    /// Type of the last message that was taken, if it has one that is in the table.
    pub fn last_kind(&self) -> Option<MessageKind> {
        self.taken.last_kind
    }

    /// Code of the last answer, if it had one.
    pub fn last_code(&self) -> Option<AckCode> {
        self.last_code
    }

    /// How long the first of the messages that nobody has acknowledged waits; none: none does. Of those of one conversation
    /// the first few are followed.
    pub fn longest_wait(&self, now: Instant) -> Option<Duration> {
        self.waiting.values().min().map(|since| now.saturating_duration_since(*since))
    }

    /// What is wrong now, then what went wrong within the last hour, the last first; one of each sort.
    pub fn warnings(&self, now: Instant) -> impl Iterator<Item = Warning> {
        let patience = self.patience;
        let lasts = self.longest_wait(now).filter(|lasts| *lasts > patience);
        let duplicate = self.taken.last_duplicate.map(|(after, at)| (Warning::Duplicate { after }, at));
        let mut warnings: Vec<_> = self.warnings.iter().rev().copied().chain(duplicate).collect();
        warnings.retain(|(_, at)| now.saturating_duration_since(*at) < WARN_FOR);
        warnings.sort_by_key(|(_, at)| Reverse(*at));
        let waiting = lasts.map(|lasts| Warning::Waiting { lasts, patience });
        waiting.into_iter().chain(warnings.into_iter().map(|(warning, _)| warning))
    }

    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    pub(crate) fn key(&self) -> HashKey {
        self.key
    }

    pub(crate) fn begin(&mut self) -> u64 {
        self.conversations += 1;
        self.conversations
    }

    /// The messages that were taken; a conversation that is not taken yet keeps its own.
    pub(crate) fn taken(&mut self) -> &mut Taken {
        &mut self.taken
    }

    /// A message passed. Whether it came before; that counts where the message counts.
    pub(crate) fn message(&mut self, conversation: u64, header: &Header, now: Instant) -> Option<Repetition> {
        self.passed += 1;
        self.counts.outstanding += 1;
        let control = header.control?;
        let repetition = self.find_repeated(conversation, control, now);
        let is_old = |first: &Unanswered| now.saturating_duration_since(first.at) > REPEATED_WITHIN;
        while self.unanswered.len() >= MAX_UNANSWERED || self.unanswered.front().is_some_and(is_old) {
            self.unanswered.pop_front();
        }
        let entry = Unanswered { control, conversation, at: now, ended: None, came_again: false };
        self.unanswered.push_back(entry);
        repetition
    }

    fn find_repeated(&mut self, conversation: u64, control: ControlHash, now: Instant) -> Option<Repetition> {
        let mut before = self.unanswered.iter_mut().rev();
        let first = before.find(|e| e.control == control && e.conversation != conversation)?;
        let after = now.saturating_duration_since(first.at);
        if after > REPEATED_WITHIN {
            return None;
        }
        // Whatever becomes of the repetition: the engine does not wait for the first one's answer any more.
        first.came_again = true;
        Some(match first.ended {
            Some(End::ByTheReceiver | End::Otherwise) => Repetition::Retry,
            // Also while the first conversation is half open: the engine has left it.
            Some(End::ByTheSender | End::Refused) | None => Repetition::Duplicate { after, at: now },
        })
    }

    pub(crate) fn answer(&mut self, conversation: u64, seen: AnswerSeen, now: Instant) {
        let counts = &mut self.counts;
        if seen.was_waited_for {
            counts.outstanding = counts.outstanding.saturating_sub(1);
        }
        let code = seen.answer.and_then(|answer| answer.code);
        match code {
            Some(AckCode::Accept | AckCode::CommitAccept) => counts.accepted += 1,
            Some(AckCode::Error | AckCode::CommitError) => counts.errors += 1,
            Some(AckCode::Reject | AckCode::CommitReject) => counts.rejected += 1,
            None => counts.other_answers += 1,
        }
        self.last_code = code;
        let mut is_late = false;
        match seen.wait {
            Wait::Measured(took) => {
                self.latency.record(took, now);
                is_late = !seen.was_committed && self.is_late(took, now);
            }
            Wait::Mismatched => {
                counts.mismatched_answers += 1;
                self.warn(Warning::Mismatched, now);
            }
            Wait::Unknown => {}
        }
        let of = seen.answer.and_then(|answer| answer.of);
        let is_answered = |e: &Unanswered| e.conversation == conversation && of.is_none_or(|of| e.control == of);
        let position = match of {
            Some(_) => self.unanswered.iter().rposition(is_answered),
            None => self.unanswered.iter().position(is_answered),
        };
        let entry = position.and_then(|position| self.unanswered.remove(position));
        if is_late || entry.is_some_and(|entry| entry.came_again) {
            self.counts.late_answers += 1;
        }
    }

    /// A commit block; `took`: since its message, where it is for one that is known.
    pub(crate) fn commit(&mut self, commit: Commit, took: Option<Duration>, now: Instant) {
        match commit {
            Commit::Accepted => self.counts.commits_accepted += 1,
            Commit::Refused => self.counts.commits_refused += 1,
        }
        if took.is_some_and(|took| self.is_late(took, now)) {
            self.counts.late_answers += 1;
        }
    }

    /// Whether an acknowledgement that took so long comes later than a sending engine waits for it; then somebody should know.
    fn is_late(&mut self, took: Duration, now: Instant) -> bool {
        let patience = self.patience;
        if took > patience {
            self.warn(Warning::Late { took, patience }, now);
        }
        took > patience
    }

    /// Since when the first message of a conversation waits for its acknowledgement; none: none does.
    pub(crate) fn waits(&mut self, conversation: u64, since: Option<Instant>) {
        match since {
            Some(since) => self.waiting.insert(conversation, since),
            None => self.waiting.remove(&conversation),
        };
    }

    /// A commit block has refused a message: no answer comes, and sent again it is no repetition.
    pub(crate) fn not_taken(&mut self, conversation: u64, control: Option<ControlHash>) {
        self.counts.outstanding = self.counts.outstanding.saturating_sub(1);
        let is_it = |e: &Unanswered| e.conversation == conversation && Some(e.control) == control;
        if let Some(position) = self.unanswered.iter().rposition(is_it) {
            self.unanswered.remove(position);
        }
    }

    pub(crate) fn fault(&mut self, fault: Fault, now: Instant) {
        // Junk between frames is taken by engines, and a cut frame shows as unacknowledged.
        if !matches!(fault, Fault::Junk | Fault::Cut) {
            self.warn(Warning::Framing(fault), now);
        }
        let counter = match fault {
            Fault::Junk => &mut self.counts.junk,
            Fault::EndMissing => &mut self.counts.end_missing,
            Fault::NoHeader => &mut self.counts.no_header,
            Fault::Empty => &mut self.counts.empty,
            Fault::Cut => &mut self.counts.cut,
        };
        *counter += 1;
    }

    pub(crate) fn cut(&mut self) {
        self.counts.cut += 1;
    }

    /// `outstanding`: messages of the conversation without an answer; `unacknowledged`: those of them that no commit block has
    /// accepted.
    pub(crate) fn end(&mut self, conversation: u64, outstanding: u64, unacknowledged: u64, end: End) {
        self.counts.outstanding = self.counts.outstanding.saturating_sub(outstanding);
        self.waiting.remove(&conversation);
        if end == End::Refused {
            // To the engine, as if it had not connected: nothing was delivered, and it comes again.
            self.unanswered.retain(|entry| entry.conversation != conversation);
            return;
        }
        self.counts.unacknowledged += unacknowledged;
        for entry in self.unanswered.iter_mut().filter(|entry| entry.conversation == conversation) {
            entry.ended = Some(end);
        }
    }

    /// One of each sort, the last of it.
    fn warn(&mut self, warning: Warning, now: Instant) {
        let sort = std::mem::discriminant(&warning);
        // Broken framing shows with every frame: what repeats itself costs next to nothing.
        if let Some(last) = self.warnings.back_mut().filter(|(last, _)| std::mem::discriminant(last) == sort) {
            *last = (warning, now);
            return;
        }
        self.warnings.retain(|(other, _)| std::mem::discriminant(other) != sort);
        self.warnings.push_back((warning, now));
    }
}
