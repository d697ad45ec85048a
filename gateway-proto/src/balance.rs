//! Delivery proof: what the two ends of a connection counted, compared.
//!
//! Each gateway counts whole messages and answers as they pass and reports the counts; the control plane keeps a [`Tally`] for
//! each end and a [`Balance`] for the pair. Nothing but counts is ever compared.
//!
//! **In flight.** The two counts are never of the same moment. A message is counted by the sender's gateway first and by the
//! listener's within the grace; so what the sender counted a grace ago and the listener has not counted now is missing, and
//! what the listener counted a grace ago and the sender has not counted now is a surplus. Between the two nothing
//! is known, and nothing is said: under load a difference shows at the next pause. Nor does load take anything back: an alarm
//! keeps its difference as long as that may still be the one.
//!
//! **Restarts.** Counts begin at zero with each run of a gateway, under a new epoch; the tally adds the epochs up. What a
//! gateway counted and could not report before it was killed is a difference, and rightly so: nobody can prove those.
//!
//! **Late and again.** Inside an epoch counts only grow, and an epoch is a name, not an order: clocks are set back. So the tally
//! knows the most that was told of each epoch, and it says the same whatever came twice, late, or through two replicas in
//! another order.
//!
//! **Hysteresis.** A difference that lasts raises the alarm. It is cleared when the ends are known to be equal, with nothing in
//! flight, and when nothing has told of another difference for a long time, under load or not: then it is written off, and
//! the comparison goes on from there.

use serde::{Deserialize, Serialize};

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
        Totals { messages: self.messages, answers }
    }
}

/// Messages and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Totals {
    messages: u64,
    answers: u64,
}

impl Totals {
    fn plus(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_add(other.messages),
            answers: self.answers.saturating_add(other.answers),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(other.messages),
            answers: self.answers.saturating_sub(other.answers),
        }
    }

    /// Of two counts of one epoch the later one: each number only grows.
    fn most(self, other: Self) -> Self {
        Self { messages: self.messages.max(other.messages), answers: self.answers.max(other.answers) }
    }
}

/// Epochs beside the newest whose counts are known one by one. Something of an older one that comes again would be counted again:
/// the gateway has run so many times anew meanwhile, with messages in each run.
const FORMER: usize = 16;

/// How long things take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BalanceTimes {
    /// A message is counted by both ends within this time, seconds.
    pub grace: u64,
    /// A difference that lasts for so long raises the alarm, seconds.
    pub lasting: u64,
    /// A difference that has not changed for so long is written off, seconds.
    pub settled: u64,
}

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
    /// Runs of the gateway that were seen.
    runs: u32,
    /// When the counts were last known to be all there is, Unix seconds.
    confirmed_at: u64,
}

impl Tally {
    /// Enters what is known of the end at `now`, Unix seconds: counts of any epochs in any order, also those that were entered
    /// before. Returns how many messages that is more. Call it no more often than the grace.
    pub fn report(&mut self, counts: &[EndCounts], now: u64) -> u64 {
        let before = self.total();
        for told in counts {
            self.enter(told.epoch, told.totals());
        }
        let total = self.total();
        if total != before {
            (self.before, self.at) = (before, now);
        }
        total.minus(before).messages
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
        self.confirmed_at = now;
    }

    /// When that was known last, Unix seconds.
    pub fn confirmed_at(&self) -> u64 {
        self.confirmed_at
    }

    /// Messages over all epochs.
    pub fn messages(&self) -> u64 {
        self.total().messages
    }

    /// Answers over all epochs.
    pub fn answers(&self) -> u64 {
        self.total().answers
    }

    /// Runs of the gateway that were seen.
    pub fn runs(&self) -> u32 {
        self.runs
    }

    fn total(&self) -> Totals {
        self.base.plus(self.current)
    }

    fn total_at(&self, moment: u64) -> Totals {
        if self.at <= moment { self.total() } else { self.before }
    }
}

/// What the listener's end is missing (positive) or has beyond the sender's (negative); of answers, the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Difference {
    /// Messages the sender's gateway counted and the listener's did not.
    pub messages: i64,
    /// Answers the listener's gateway counted and the sender's did not.
    pub answers: i64,
}

impl Difference {
    /// None.
    pub const NONE: Self = Self { messages: 0, answers: 0 };
}

/// A difference that lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeliveryAlarm {
    /// Since when the ends differ, Unix seconds.
    pub since: u64,
    /// By how much.
    pub difference: Difference,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BalanceEvent {
    /// The ends differ, and that lasts.
    Raised(DeliveryAlarm),
    /// The ends are known to be equal again.
    Cleared(DeliveryAlarm),
    /// The ends have differed by the same for long: it is written off.
    WrittenOff(DeliveryAlarm),
}

/// The comparison of one connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Balance {
    written_off: Difference,
    difference: Difference,
    /// Since when there is one, Unix seconds.
    since: Option<u64>,
    /// Since when it is as it is.
    unchanged_since: u64,
    is_alarm: bool,
}

impl Balance {
    /// The alarm, if there is one.
    pub fn alarm(&self) -> Option<DeliveryAlarm> {
        self.since.filter(|_| self.is_alarm).map(|since| DeliveryAlarm { since, difference: self.difference })
    }

    /// Differences written off so far.
    pub fn written_off(&self) -> Difference {
        self.written_off
    }

    /// Whether a later look at the same tallies may say something else.
    pub fn is_open(&self, sender: &Tally, listener: &Tally, now: u64, times: &BalanceTimes) -> bool {
        self.since.is_some() || sender.at.max(listener.at) + times.grace > now
    }

    /// Compares at `now`, Unix seconds. Both ends are known to have reported everything that changed.
    pub fn handle_tallies(
        &mut self,
        sender: &Tally,
        listener: &Tally,
        now: u64,
        times: &BalanceTimes,
    ) -> Option<BalanceEvent> {
        let (sent, heard) = (Span::of(sender, now, times), Span::of(listener, now, times));
        let messages = Possible::of(sent.map(|t| t.messages), heard.map(|t| t.messages), self.written_off.messages);
        let answers = Possible::of(heard.map(|t| t.answers), sent.map(|t| t.answers), self.written_off.answers);
        // What an alarm has told stands until it is known to be otherwise; without one only what is certain counts.
        let told = self.alarm().map_or(Difference::NONE, |alarm| alarm.difference);
        let difference =
            Difference { messages: messages.nearest(told.messages), answers: answers.nearest(told.answers) };
        let is_equal = messages.is_none() && answers.is_none();
        if is_equal || (difference == Difference::NONE && !self.is_alarm) {
            let alarm = self.alarm();
            (self.since, self.is_alarm, self.difference) = (None, false, Difference::NONE);
            return alarm.map(BalanceEvent::Cleared);
        }
        let since = *self.since.get_or_insert(now);
        if difference != self.difference {
            self.unchanged_since = now;
            // Gone, and not yet known to be equal: the last one that was known stays until one of the two is certain.
            if difference != Difference::NONE {
                self.difference = difference;
            }
        }
        let alarm = DeliveryAlarm { since, difference: self.difference };
        if !self.is_alarm && now.saturating_sub(since) >= times.lasting {
            self.is_alarm = true;
            return Some(BalanceEvent::Raised(alarm));
        }
        if self.is_alarm && now.saturating_sub(self.unchanged_since) >= times.settled {
            let sum = |a: i64, b: i64| a.saturating_add(b);
            self.written_off = Difference {
                messages: sum(self.written_off.messages, self.difference.messages),
                answers: sum(self.written_off.answers, self.difference.answers),
            };
            (self.since, self.is_alarm, self.difference) = (None, false, Difference::NONE);
            return Some(BalanceEvent::WrittenOff(alarm));
        }
        None
    }
}

/// A count a grace ago and now.
#[derive(Debug, Clone, Copy)]
struct Span<T> {
    then: T,
    now: T,
}

impl Span<Totals> {
    fn of(tally: &Tally, now: u64, times: &BalanceTimes) -> Self {
        Self { then: tally.total_at(now.saturating_sub(times.grace)), now: tally.total() }
    }

    fn map(self, part: impl Fn(Totals) -> u64) -> Span<i128> {
        Span { then: i128::from(part(self.then)), now: i128::from(part(self.now)) }
    }
}

/// By how much the second may be behind (positive) or ahead (negative) of the first; one number where nothing is in flight.
#[derive(Debug, Clone, Copy)]
struct Possible {
    least: i128,
    most: i128,
}

impl Possible {
    fn of(first: Span<i128>, second: Span<i128>, written_off: i64) -> Self {
        let written_off = i128::from(written_off);
        Self { least: first.then - second.now - written_off, most: first.now - second.then - written_off }
    }

    /// The difference that needs the least to have changed since it was this one. Nearest to none is what is certain.
    fn nearest(self, told: i64) -> i64 {
        let nearest = i128::from(told).max(self.least).min(self.most);
        i64::try_from(nearest).unwrap_or(if nearest > 0 { i64::MAX } else { i64::MIN })
    }

    /// There is none, and none can be hidden in what is in flight.
    fn is_none(self) -> bool {
        (self.least, self.most) == (0, 0)
    }
}

#[cfg(test)]
mod tests;
