//! Asks the other end of a tunnel whether it is there, and says what its answers prove.
//!
//! Both ends of a tunnel have one. While streams are open each asks once a second; otherwise the two take turns, because a
//! question and its answer prove the way for both and keep the tunnel from idling out. What is not answered is asked again
//! soon. Time comes in; [`Pulse::next_at`] says when [`Pulse::on_timer`] wants to be called.
//!
//! An answer is a packet that QUIC acknowledges in turn. So most idle questions want none: that QUIC at the other end acknowledged the
//! question shows as well that packets pass both ways, and is one packet less. Whoever was not told of an acknowledgement within a
//! second asks for an answer. A gateway of an earlier build answers every question, which serves as well.

use std::time::{Duration, Instant};

/// Between questions while streams are open, and until one without an answer is repeated.
const ACTIVE_PAUSE: Duration = Duration::from_secs(1);
/// Between questions when none is, after the last one of either side: below the 8 s after which a tunnel ends.
const IDLE_PAUSE: Duration = Duration::from_secs(7);
/// The side that asked last waits so much longer, so that they take turns: three packets every time, where a question of
/// both would cost twice as many. The side that was dialled waits twice as much, so that two that asked in one moment part
/// again.
const BEHIND: Duration = Duration::from_millis(300);
/// Whoever was asked asks so much earlier at most: by a round trip, so that the question is there before the other side would ask again.
const MOST_AHEAD: Duration = Duration::from_secs(1);
/// A peer that asks again this soon while idle did not get our answer: our way to it is in question.
const ASKED_AGAIN: Duration = Duration::from_millis(3_500);
/// So many idle questions in a row want no answer; the next one does, and proves that the other end's daemon lives too, beside its QUIC.
const QUIET_RUN: u32 = 32;
/// A question unanswered for this long means: not connected.
pub const ANSWER_LIMIT: Duration = Duration::from_millis(2_500);

/// A question to be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Its number; the answer carries it.
    pub sequence: u64,
    /// One that went a second ago or earlier has no answer yet: the way is in question.
    pub is_repeated: bool,
    /// The peer is to answer it; else QUIC's acknowledgement is enough, and an answer is no harm.
    pub wants_answer: bool,
}

/// See the module's description.
#[derive(Debug)]
pub struct Pulse {
    /// Between our own questions when idle, as long as the peer asks nothing.
    own_pause: Duration,
    is_active: bool,
    /// The number of the last question, and when it went; none went before number one.
    last: Option<(u64, Instant)>,
    /// The oldest question without an answer, and when it went.
    unanswered: Option<(u64, Instant)>,
    /// The last question wants no answer.
    is_quiet: bool,
    /// Such questions in a row.
    quiet_run: u32,
    /// How many acknowledgements QUIC had from the peer, as told last.
    acknowledgements: u64,
    /// When we ask if nothing happens until then and no stream is open.
    idle_at: Instant,
    /// When the peer asked last.
    asked_at: Option<Instant>,
    is_proved: bool,
    rtt: Option<Duration>,
}

impl Pulse {
    /// For a tunnel that has just been made: the first question is due at once. One of the two sides leads, the one that dialled.
    pub fn new(leads: bool, now: Instant) -> Self {
        Self {
            own_pause: IDLE_PAUSE + if leads { BEHIND } else { 2 * BEHIND },
            is_active: false,
            last: None,
            unanswered: None,
            is_quiet: false,
            quiet_run: 0,
            acknowledgements: 0,
            idle_at: now,
            asked_at: None,
            is_proved: false,
            rtt: None,
        }
    }

    /// Whether streams are open.
    pub fn set_active(&mut self, is_active: bool) {
        self.is_active = is_active;
    }

    /// Whether the peer answered, and nothing says otherwise since: it has answered, or its QUIC acknowledged, each question of ours that is
    /// not just on its way.
    pub fn is_connected(&self, now: Instant) -> bool {
        let overdue = self.unanswered.is_some_and(|(_, since)| now.saturating_duration_since(since) > ANSWER_LIMIT);
        self.is_proved && !overdue
    }

    /// Round-trip time of the last question that was answered before the next one went.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// When the next question is due, as far as is known now.
    pub fn next_at(&self) -> Instant {
        match self.last {
            Some((_, at)) if self.is_active || self.unanswered.is_some() => at + ACTIVE_PAUSE,
            _ => self.idle_at,
        }
    }

    /// The question that is due. [`Self::on_acknowledgements`] comes first.
    pub fn on_timer(&mut self, now: Instant) -> Option<Question> {
        if now < self.next_at() {
            return None;
        }
        let is_idle = self.is_proved && !self.is_active && self.unanswered.is_none();
        Some(self.say(is_idle && self.quiet_run < QUIET_RUN, now))
    }

    /// A question out of turn, because somebody wants to know now.
    pub fn ask(&mut self, now: Instant) -> Question {
        self.say(false, now)
    }

    fn say(&mut self, is_quiet: bool, now: Instant) -> Question {
        let sequence = self.last.map_or(0, |(sequence, _)| sequence) + 1;
        // One out of turn may come while an answer is on its way, however many want to know at once.
        let is_overdue = |since: Instant| now.saturating_duration_since(since) >= ACTIVE_PAUSE;
        let is_repeated = self.unanswered.is_some_and(|(_, since)| is_overdue(since));
        self.last = Some((sequence, now));
        self.unanswered.get_or_insert((sequence, now));
        self.idle_at = now + self.own_pause;
        self.is_quiet = is_quiet;
        self.quiet_run = if is_quiet { self.quiet_run + 1 } else { 0 };
        Question { sequence, is_repeated, wants_answer: !is_quiet }
    }

    /// QUIC had so many acknowledgements from the peer until now. True: they prove the way for the last question, which wants no answer.
    /// To be told right before a question goes out, too: what came before says nothing of it.
    pub fn on_acknowledgements(&mut self, count: u64) -> bool {
        let came = count > std::mem::replace(&mut self.acknowledgements, count);
        let proves = came && self.is_quiet && self.unanswered.is_some();
        if proves {
            self.unanswered = None;
        }
        proves
    }

    /// The peer asked, and is answered if it wants that; sometimes it is asked as well. [`Self::on_acknowledgements`] is not told between
    /// the arrival of the question and this: the packet that brought it may repeat an acknowledgement of long ago.
    pub fn on_question(&mut self, now: Instant) -> Option<Question> {
        let again = self.asked_at.replace(now).is_some_and(|at| now.saturating_duration_since(at) < ASKED_AGAIN);
        // Theirs crossed one of ours that wants no answer: whether that was acknowledged cannot be told any more.
        if self.is_quiet && self.unanswered.is_some() {
            return Some(self.ask(now));
        }
        // While our own question is open, theirs crossed it and takes no turn away; and our first one waits for nobody's, because only an
        // answer shows that we are connected.
        if self.unanswered.is_none() && self.last.is_some() {
            self.idle_at = now + IDLE_PAUSE - self.rtt.unwrap_or_default().min(MOST_AHEAD);
        }
        let rested = self.last.is_none_or(|(_, at)| at + ACTIVE_PAUSE <= now);
        (again && !self.is_active && rested).then(|| self.ask(now))
    }

    /// The peer answered: that proves the way for this question and for those before it. An answer to a question that was
    /// never asked proves nothing, and is told by `false`.
    pub fn on_answer(&mut self, sequence: u64, now: Instant) -> bool {
        let Some((last, at)) = self.last.filter(|(last, _)| (1..=*last).contains(&sequence)) else { return false };
        if self.unanswered.is_some_and(|(first, _)| sequence >= first) {
            self.unanswered = None;
        }
        self.is_proved = true;
        if sequence == last {
            self.rtt = Some(now.saturating_duration_since(at));
        }
        true
    }
}

#[cfg(test)]
mod tests;
