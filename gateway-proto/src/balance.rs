//! Delivery proof: what the two ends of a connection counted, compared.
//!
//! Each gateway counts whole messages and answers as they pass and reports the counts; the control plane keeps a [`Tally`] for
//! each end and a [`Balance`] for the pair. Nothing but counts is ever compared.
//!
//! **In flight.** The two counts are never of the same moment, and one of a gateway that is out of reach is old. A message is counted
//! by the sender's gateway first and by the listener's within the grace; so what the sender had counted a grace before the listener
//! was heard last, and the listener has not counted, is missing; and what the listener had counted a grace before the sender was
//! heard last, and the sender has not counted, is a surplus. Between the two nothing is known: where the ends are equal,
//! that they are is always possible, and no difference is ever certain. A large message takes longer than the grace on a slow line,
//! and under its owner's rate, which the sender's gateway, an older one, does not keep: it counts the message when it is in the
//! tunnel. So an end that is in the midst of something is not heard as far as the comparison goes
//! ([`EndCounts::under_way`]), until that has passed or stands still. Where it is so at every look for 70 minutes (a backlog, one
//! connection after the other), the ends are compared all the same, and what waits for an answer at the sender's end may be what
//! is in flight.
//!
//! **Load.** A round in which something is in flight is uncertain, and under load all rounds are: a difference shows in a pause, where
//! one round finds nothing new. But an uncertain round takes nothing back, neither an alarm nor the suspicion before it: what was
//! certain once stands as long as it may still be so. So two pauses raise the alarm, whatever flows between them.
//!
//! **Restarts.** Counts begin at zero with each run of a gateway, under a new epoch; the tally adds the epochs up. What the sender's
//! gateway counted and could not report before it was killed is a difference, and rightly so: nobody can prove those.
//!
//! **Not counted is not missing.** A message that the listener's end did not count is not missing where its answer reached the
//! sender's end, which proves that it was handed over, or where it came again there and was counted. So a message is missing only
//! as far as there are more at the sender's end than at the listener's that were neither answered nor sent again
//! (`explained`).
//!
//! **Late and again.** Inside an epoch counts only grow, and an epoch is a name, not an order: clocks are set back. So the tally
//! knows the most that was told of each epoch, and it says the same whatever came twice, late, or through two replicas in
//! another order.
//!
//! **Blindness.** Where an end does not count all that passes, the ends are not compared, and what they differ by when both count
//! again is nobody's loss.
//!
//! **Hysteresis.** A difference that is certain, and certain again when it has lasted, raises the alarm. It is cleared when the ends
//! are known to be equal, with nothing in flight, and when nothing has told of another difference for a long time, under load
//! or not: then it is written off, and the comparison goes on from there.

mod explained;
mod tally;

use serde::{Deserialize, Serialize};

use explained::Explained;
use tally::Totals;
pub use tally::{EndCounts, Tally};

/// How long things take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BalanceTimes {
    /// A message is counted by both ends within this time, seconds.
    pub grace: u64,
    /// A difference that lasts for so long raises the alarm, seconds.
    pub lasting: u64,
    /// An alarm whose difference has not changed for so long is written off, seconds.
    pub settled: u64,
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

    /// Whether a later one may have something of this one in it.
    fn lasts_in(self, later: Self) -> bool {
        let lasts = |before: i64, later: i64| before.signum() * later.signum() > 0;
        lasts(self.messages, later.messages) || lasts(self.answers, later.answers)
    }
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
    #[serde(default)]
    explained: Explained,
    /// What is told, or suspected as long as there is no alarm.
    difference: Difference,
    /// Since when there is one, Unix seconds.
    since: Option<u64>,
    /// Since when an alarm is as it is.
    unchanged_since: u64,
    is_alarm: bool,
    /// An end did not count all that passed: what the ends differ by when both do is where the comparison begins.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_blind: bool,
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

    /// By how much the counts differ without a message or an answer that is missing: messages of which an answer came, or that came
    /// again, and (negative) such answers.
    pub fn explained(&self) -> Difference {
        self.explained.difference()
    }

    /// Whether the ends are not compared until both count again, and nothing is in flight between them.
    pub fn is_blind(&self) -> bool {
        self.is_blind
    }

    /// An end does not count all that passes: its gateway cannot, or was told not to.
    pub fn handle_blindness(&mut self) {
        self.is_blind = true;
    }

    /// Whether a later look may say something else: there is a difference, or an end was not heard, with nothing under way, since a
    /// grace after the other one counted something.
    pub fn is_open(&self, sender: &Tally, listener: &Tally, times: &BalanceTimes) -> bool {
        let is_behind = |end: &Tally, other: &Tally| end.complete_at() < other.changed_at().saturating_add(times.grace);
        let is_overdue = sender.is_overdue() || listener.is_overdue();
        let is_behind = is_behind(sender, listener) || is_behind(listener, sender);
        self.is_blind || self.since.is_some() || is_overdue || is_behind
    }

    /// Compares at `now`, Unix seconds.
    pub fn handle_tallies(
        &mut self,
        sender: &Tally,
        listener: &Tally,
        now: u64,
        times: &BalanceTimes,
    ) -> Option<BalanceEvent> {
        let (sent, heard) = (Span::of(sender, listener, times), Span::of(listener, sender, times));
        let is_overdue = sender.is_overdue() || listener.is_overdue();
        let in_flight = if is_overdue { sender.outstanding() } else { 0 };
        let messages = Possible::of(sent.map(|t| t.messages), heard.map(|t| t.messages), self.written_off.messages);
        let answers = Possible::of(heard.map(|t| t.answers), sent.map(|t| t.answers), self.written_off.answers);
        let unanswered = Possible::of(sent.unanswered(), heard.unanswered(), 0);
        let [messages, answers, unanswered] = [messages, answers, unanswered].map(|all| all.without(in_flight));
        if self.is_blind {
            return self.see_again(messages, answers, unanswered);
        }
        let (messages, answers) = self.explained.leaves(messages, answers, unanswered);
        if messages.is_none() && answers.is_none() {
            let alarm = self.alarm();
            self.forget();
            return alarm.map(BalanceEvent::Cleared);
        }
        let nearest = |told: Difference| Difference {
            messages: messages.nearest(told.messages),
            answers: answers.nearest(told.answers),
        };
        // What was told stands as far as it may still be so; what is nearest to none is certain.
        let (difference, certain) = (nearest(self.difference), nearest(Difference::NONE));
        if self.is_alarm { self.stand(difference, now, times) } else { self.suspect(difference, certain, now, times) }
    }

    /// Both count again: in a pause it is known by what they differ from the time before, and that is no difference of deliveries.
    /// Nothing of it is explained either: what one end alone counted is nobody's who may tell it after all.
    fn see_again(&mut self, messages: Possible, answers: Possible, unanswered: Possible) -> Option<BalanceEvent> {
        let (messages, answers) = self.explained.less(messages, answers);
        let (messages, answers) = (messages.only()?, answers.only()?);
        let alarm = self.alarm();
        self.explained.begin_at(unanswered);
        self.write_off(Difference { messages: narrow(messages), answers: narrow(answers) });
        self.is_blind = false;
        alarm.map(BalanceEvent::WrittenOff)
    }

    /// Without an alarm. A suspicion ends where nothing of it can be left, and not where nothing is certain.
    fn suspect(
        &mut self,
        difference: Difference,
        certain: Difference,
        now: u64,
        times: &BalanceTimes,
    ) -> Option<BalanceEvent> {
        let told = std::mem::replace(&mut self.difference, difference);
        let Some(since) = self.since.filter(|_| told.lasts_in(difference)) else {
            self.since = (difference != Difference::NONE).then_some(now);
            return None;
        };
        if !told.lasts_in(certain) || now.saturating_sub(since) < times.lasting {
            return None;
        }
        (self.is_alarm, self.unchanged_since) = (true, now);
        Some(BalanceEvent::Raised(DeliveryAlarm { since, difference }))
    }

    /// With one.
    fn stand(&mut self, difference: Difference, now: u64, times: &BalanceTimes) -> Option<BalanceEvent> {
        if difference != self.difference {
            self.unchanged_since = now;
            // Gone, and not yet known to be equal: the last one that was known stays until one of the two is certain.
            if difference != Difference::NONE {
                self.difference = difference;
            }
        }
        if now.saturating_sub(self.unchanged_since) < times.settled {
            return None;
        }
        let alarm = self.alarm();
        self.write_off(self.difference);
        alarm.map(BalanceEvent::WrittenOff)
    }

    fn write_off(&mut self, difference: Difference) {
        self.written_off = Difference {
            messages: self.written_off.messages.saturating_add(difference.messages),
            answers: self.written_off.answers.saturating_add(difference.answers),
        };
        self.forget();
    }

    fn forget(&mut self) {
        (self.since, self.is_alarm, self.difference) = (None, false, Difference::NONE);
    }
}

/// A count a grace before the other end was heard last, with nothing under way there, and as it is known now.
#[derive(Debug, Clone, Copy)]
struct Span<T> {
    then: T,
    now: T,
}

impl Span<Totals> {
    fn of(end: &Tally, other: &Tally, times: &BalanceTimes) -> Self {
        Self { then: end.total_at(other.complete_at().saturating_sub(times.grace)), now: end.total() }
    }

    /// Messages that were neither answered nor sent again, at least and at most.
    fn unanswered(self) -> Span<i128> {
        let messages = |total: Totals| i128::from(total.messages);
        let settled = |total: Totals| i128::from(total.answers) + i128::from(total.repeated);
        Span { then: messages(self.then) - settled(self.now), now: messages(self.now) - settled(self.then) }
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

    fn exactly(difference: i128) -> Self {
        Self { least: difference, most: difference }
    }

    /// So many of them may be on their way.
    fn without(self, in_flight: u64) -> Self {
        Self { least: self.least - i128::from(in_flight), ..self }
    }

    /// The one number, where nothing is in flight.
    fn only(self) -> Option<i128> {
        (self.least == self.most).then_some(self.least)
    }

    fn less(self, known: i128) -> Self {
        Self { least: self.least - known, most: self.most - known }
    }

    /// The difference that needs the least to have changed since it was this one. Nearest to none is what is certain.
    fn nearest(self, told: i64) -> i64 {
        narrow(i128::from(told).max(self.least).min(self.most))
    }

    /// There is none, and none can be hidden in what is in flight.
    fn is_none(self) -> bool {
        (self.least, self.most) == (0, 0)
    }
}

fn narrow(number: i128) -> i64 {
    i64::try_from(number).unwrap_or(if number > 0 { i64::MAX } else { i64::MIN })
}

#[cfg(test)]
mod tests;
