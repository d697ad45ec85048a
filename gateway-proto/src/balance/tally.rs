//! What one end of a connection counted, over all runs of its gateway, now and a while ago.

use serde::{Deserialize, Serialize};

use crate::limits::{MAX_UNDER_WAY, MIN_BYTES_PER_SECOND};

/// Cumulative counts of one end of a connection in one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EndCounts {
    /// Identifies the run they belong to: counts of another epoch began at zero, and inside one they only grow. Unix milliseconds
    /// of its beginning, no two alike.
    pub epoch: u64,
    /// Whole messages.
    pub messages: u64,
    /// Answers that accept (`AA`, `CA`).
    pub accepted: u64,
    /// Answers that report an error (`AE`, `CE`).
    pub errors: u64,
    /// Answers that reject (`AR`, `CR`).
    pub rejected: u64,
    /// Answers without a code.
    pub other: u64,
    /// Messages without an answer at the moment.
    pub outstanding: u64,
    /// Messages whose connection ended without one.
    pub unacknowledged: u64,
    /// Of the messages, those that had passed before, without an answer, on another connection of the engine; none from older gateways.
    #[serde(default)]
    pub repeated: u64,
    /// Connections of engines that were carried and in which nothing can be counted: each is metered as one. None from older gateways.
    #[serde(default)]
    pub streams: u64,
    /// Of streams in which messages are counted, those that are over and could not be followed to their end: whenever there are more,
    /// the ends are compared anew from the next pause on. None from older gateways.
    #[serde(default)]
    pub adrift: u64,
    /// They are for the metering alone: this end does not see all that the other one counts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uncompared: bool,
    /// More has begun to pass than is counted: this end is in the midst of a message or an answer, or holds bytes of the other end back
    /// for their turn under a rate. Never from older gateways.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub under_way: bool,
}

impl EndCounts {
    /// Whether they say all that these others say: later counts of the same epoch.
    pub fn covers(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.totals(), other.totals());
        self.epoch == other.epoch && ours.most(theirs) == ours
    }

    fn totals(&self) -> Totals {
        let answers =
            self.accepted.saturating_add(self.errors).saturating_add(self.rejected).saturating_add(self.other);
        Totals { messages: self.messages, answers, repeated: self.repeated, streams: self.streams, adrift: self.adrift }
    }
}

/// Messages and answers, how many of the messages had passed before, connections in which none are counted, and those that could
/// not be followed to their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Totals {
    pub(super) messages: u64,
    pub(super) answers: u64,
    #[serde(default)]
    pub(super) repeated: u64,
    #[serde(default)]
    pub(super) streams: u64,
    #[serde(default)]
    pub(super) adrift: u64,
}

impl Totals {
    fn plus(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_add(other.messages),
            answers: self.answers.saturating_add(other.answers),
            repeated: self.repeated.saturating_add(other.repeated),
            streams: self.streams.saturating_add(other.streams),
            adrift: self.adrift.saturating_add(other.adrift),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(other.messages),
            answers: self.answers.saturating_sub(other.answers),
            repeated: self.repeated.saturating_sub(other.repeated),
            streams: self.streams.saturating_sub(other.streams),
            adrift: self.adrift.saturating_sub(other.adrift),
        }
    }

    /// Of two counts of one epoch the later one: each number only grows.
    fn most(self, other: Self) -> Self {
        Self {
            messages: self.messages.max(other.messages),
            answers: self.answers.max(other.answers),
            repeated: self.repeated.max(other.repeated),
            streams: self.streams.max(other.streams),
            adrift: self.adrift.max(other.adrift),
        }
    }
}

/// Epochs beside the newest whose counts are known one by one. Something of an older one that comes again would be counted again:
/// the gateway has run so many times anew meanwhile, with messages in each run.
const FORMER: usize = 16;
/// For so long an end that is in the midst of something at every look is waited for, seconds: what both gateways hold takes no longer at
/// the lowest rate.
const MAX_MIDWAY: u64 = MAX_UNDER_WAY as u64 / MIN_BYTES_PER_SECOND;

/// The counts of one end over all epochs, now and a while ago.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    epoch: Option<u64>,
    /// All epochs but this one.
    base: Totals,
    /// This epoch.
    current: Totals,
    /// What is in `base` of epochs that were known before this one, the last one last; at most [`FORMER`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    former: Vec<(u64, Totals)>,
    /// When it was reported, Unix seconds.
    at: u64,
    /// What was reported before that, over all epochs.
    before: Totals,
    /// When that was reported, Unix seconds.
    #[serde(default)]
    before_at: u64,
    /// Runs of the gateway that were seen.
    runs: u32,
    /// When the counts were last known to be all there is, Unix seconds.
    confirmed_at: u64,
    /// When that was so last and nothing was under way besides, Unix seconds.
    #[serde(default)]
    complete_at: u64,
    /// Since when something was under way at every look, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    midway_since: Option<u64>,
    /// Messages of this epoch that wait for their answers, as it was told last.
    #[serde(default)]
    outstanding: u64,
}

impl Tally {
    /// Enters what is known of the end at `now`, Unix seconds: counts of any epochs in any order, also those that were entered
    /// before. Returns how much there is more to meter: messages, and connections in which none can be counted.
    pub fn report(&mut self, counts: &[EndCounts], now: u64) -> u64 {
        let before = self.total();
        for told in counts {
            self.enter(told.epoch, told.totals());
        }
        if let Some(told) = counts.iter().rev().find(|told| self.epoch == Some(told.epoch)) {
            self.outstanding = told.outstanding;
        }
        let total = self.total();
        if total != before {
            (self.before, self.before_at, self.at) = (before, self.at, now);
        }
        let more = total.minus(before);
        more.messages.saturating_add(more.streams)
    }

    fn enter(&mut self, epoch: u64, told: Totals) {
        if self.epoch == Some(epoch) {
            self.current = self.current.most(told);
            return;
        }
        if let Some((_, known)) = self.former.iter_mut().find(|(former, _)| *former == epoch) {
            let most = known.most(told);
            self.base = self.base.plus(most.minus(*known));
            *known = most;
            return;
        }
        // A run that has counted nothing takes nobody's place.
        if told == Totals::default() {
            return;
        }
        if let Some(former) = self.epoch.replace(epoch) {
            self.former.push((former, self.current));
            self.former.drain(..self.former.len().saturating_sub(FORMER));
        }
        self.base = self.base.plus(self.current);
        self.current = told;
        self.runs = self.runs.saturating_add(1);
    }

    /// The gateway is heard, and has nothing newer at `now`, Unix seconds.
    pub fn confirm(&mut self, now: u64) {
        (self.confirmed_at, self.complete_at, self.midway_since) = (now, now, None);
    }

    /// The same, but something is under way that it has not counted ([`EndCounts::under_way`]). Where that is so at every
    /// look for 70 minutes, the end is heard all the same.
    pub fn confirm_midway(&mut self, now: u64) {
        // After a time without a look nothing is known of what was between.
        let was_looked_at = now.saturating_sub(self.confirmed_at) < MAX_MIDWAY;
        self.midway_since = self.midway_since.filter(|_| was_looked_at).or(Some(now));
        self.confirmed_at = now;
        if self.is_overdue() {
            self.complete_at = now;
        }
    }

    /// Whether something was under way for so long that it is no reason any more not to compare.
    pub(super) fn is_overdue(&self) -> bool {
        self.midway_since.is_some_and(|since| self.confirmed_at.saturating_sub(since) >= MAX_MIDWAY)
    }

    /// Messages that wait for their answers: of a sender's end whatever is in flight, in either direction, on connections that are open.
    pub(super) fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// When that was known last, Unix seconds.
    pub fn confirmed_at(&self) -> u64 {
        self.confirmed_at
    }

    /// When that was known last and nothing was under way besides, or had been for too long, Unix seconds.
    pub(super) fn complete_at(&self) -> u64 {
        self.complete_at
    }

    /// Messages over all epochs.
    pub fn messages(&self) -> u64 {
        self.total().messages
    }

    /// Answers over all epochs.
    pub fn answers(&self) -> u64 {
        self.total().answers
    }

    /// Streams over all epochs that are over and could not be followed to their end.
    pub fn adrift(&self) -> u64 {
        self.total().adrift
    }

    /// Runs of the gateway that were seen.
    pub fn runs(&self) -> u32 {
        self.runs
    }

    /// When something new was reported last, Unix seconds.
    pub fn changed_at(&self) -> u64 {
        self.at
    }

    pub(super) fn total(&self) -> Totals {
        self.base.plus(self.current)
    }

    /// What it had counted at a moment (Unix seconds) at least: of what was long ago nothing is remembered.
    pub(super) fn total_at(&self, moment: u64) -> Totals {
        if self.at <= moment {
            self.total()
        } else if self.before_at <= moment {
            self.before
        } else {
            Totals::default()
        }
    }
}

#[cfg(test)]
mod tests;
