//! Delivery proof: what the two ends of a connection counted, compared.
//!
//! Each gateway counts whole messages and answers as they pass and reports the counts; the control plane keeps a [`Tally`] for
//! each end and a [`Balance`] for the pair. Nothing but counts is ever compared.
//!
//! **In flight.** The two counts are never of the same moment. A message is counted by the sender's gateway first and by the
//! listener's within the grace; so what the sender counted a grace ago and the listener has not counted now is missing, and
//! what the listener counted a grace ago and the sender has not counted now is a surplus. Between the two nothing
//! is known, and nothing is said: under load a difference shows at the next pause.
//!
//! **Restarts.** Counts begin at zero with each run of a gateway, under a new epoch; the tally adds the epochs up. What a
//! gateway counted and could not report before it was killed is a difference, and rightly so: nobody can prove those.
//!
//! **Hysteresis.** A difference that lasts raises the alarm. It is cleared when the ends are equal again, and when
//! it has not changed for a long time: then it is written off, and the comparison goes on from there.

use serde::{Deserialize, Serialize};

/// Cumulative counts of one end of a connection in one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EndCounts {
    /// Identifies the run they belong to: counts of another epoch began at zero. Unix milliseconds of its beginning.
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
}

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
    /// All epochs before this one.
    base: Totals,
    /// This epoch.
    current: Totals,
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
    /// The gateway reported at `now`, Unix seconds. Call it no more often than the grace.
    pub fn report(&mut self, counts: &EndCounts, now: u64) {
        let reported = counts.totals();
        self.before = self.total();
        let is_same = self.epoch == Some(counts.epoch);
        // Counts only grow; those that do not are of another run, whatever their epoch says.
        if !is_same || reported.messages < self.current.messages || reported.answers < self.current.answers {
            self.base = self.base.plus(self.current);
            self.epoch = Some(counts.epoch);
            self.runs = self.runs.saturating_add(1);
        }
        self.current = reported;
        self.at = now;
    }

    /// Whether a report says something new.
    pub fn is_news(&self, counts: &EndCounts) -> bool {
        self.epoch != Some(counts.epoch) || self.current != counts.totals()
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
    /// The ends are equal again.
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
        let difference = Difference {
            messages: certain(sent.map(|t| t.messages), heard.map(|t| t.messages), self.written_off.messages),
            answers: certain(heard.map(|t| t.answers), sent.map(|t| t.answers), self.written_off.answers),
        };
        if difference == Difference::NONE {
            let alarm = self.alarm();
            (self.since, self.is_alarm, self.difference) = (None, false, difference);
            return alarm.map(BalanceEvent::Cleared);
        }
        let since = *self.since.get_or_insert(now);
        if difference != self.difference {
            self.difference = difference;
            self.unchanged_since = now;
        }
        let alarm = DeliveryAlarm { since, difference };
        if !self.is_alarm && now.saturating_sub(since) >= times.lasting {
            self.is_alarm = true;
            return Some(BalanceEvent::Raised(alarm));
        }
        if self.is_alarm && now.saturating_sub(self.unchanged_since) >= times.settled {
            let sum = |a: i64, b: i64| a.saturating_add(b);
            self.written_off = Difference {
                messages: sum(self.written_off.messages, difference.messages),
                answers: sum(self.written_off.answers, difference.answers),
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

/// How much the second is certainly behind (positive) or ahead (negative) of the first.
fn certain(first: Span<i128>, second: Span<i128>, written_off: i64) -> i64 {
    let written_off = i128::from(written_off);
    let least = first.then - second.now - written_off;
    let most = first.now - second.then - written_off;
    let certain = if least > 0 { least } else { most.min(0) };
    i64::try_from(certain).unwrap_or(if certain > 0 { i64::MAX } else { i64::MIN })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIMES: BalanceTimes = BalanceTimes { grace: 10, lasting: 60, settled: 900 };

    fn counts(epoch: u64, messages: u64, accepted: u64) -> EndCounts {
        EndCounts { epoch, messages, accepted, ..EndCounts::default() }
    }

    #[derive(Default)]
    struct Pair {
        sender: Tally,
        listener: Tally,
        balance: Balance,
    }

    impl Pair {
        fn minute(&mut self, now: u64, sender: EndCounts, listener: EndCounts) -> Option<BalanceEvent> {
            if self.sender.is_news(&sender) {
                self.sender.report(&sender, now);
            }
            if self.listener.is_news(&listener) {
                self.listener.report(&listener, now);
            }
            self.balance.handle_tallies(&self.sender, &self.listener, now, &TIMES)
        }
    }

    #[test]
    fn equal_counts_are_no_news_and_what_is_in_flight_is_no_difference() {
        let mut pair = Pair::default();
        for minute in 1..100 {
            let (sent, heard) = (minute * 600, minute * 600 - minute % 7);
            assert_eq!(pair.minute(minute * 60, counts(1, sent, heard), counts(2, heard, heard)), None);
            assert_eq!(pair.balance.alarm(), None, "minute {minute}");
        }
        assert!(pair.balance.is_open(&pair.sender, &pair.listener, 99 * 60, &TIMES));
    }

    #[test]
    fn a_message_that_never_arrives_raises_the_alarm_and_equality_clears_it() {
        let mut pair = Pair::default();
        let (sender, short) = (counts(1, 5, 4), counts(2, 4, 4));
        assert_eq!(pair.minute(60, sender, short), None, "it may be in flight");
        assert_eq!(pair.minute(120, sender, short), None, "it may arrive");
        let alarm = DeliveryAlarm { since: 120, difference: Difference { messages: 1, answers: 0 } };
        assert_eq!(pair.minute(180, sender, short), Some(BalanceEvent::Raised(alarm)));
        assert_eq!(pair.balance.alarm(), Some(alarm));
        assert_eq!(pair.minute(240, sender, short), None, "once");
        // The report that was missing.
        let whole = counts(2, 5, 4);
        assert_eq!(pair.minute(300, sender, whole), Some(BalanceEvent::Cleared(alarm)));
        assert_eq!(pair.balance.alarm(), None);
    }

    #[test]
    fn an_answer_that_is_lost_on_its_way_back_is_a_difference_too() {
        let mut pair = Pair::default();
        for minute in 1..=4 {
            pair.minute(minute * 60, counts(1, 5, 4), counts(2, 5, 5));
        }
        assert_eq!(pair.balance.alarm().map(|a| a.difference), Some(Difference { messages: 0, answers: 1 }));
    }

    #[test]
    fn counts_go_on_over_a_restart_and_what_was_not_reported_is_a_difference() {
        let mut pair = Pair::default();
        pair.minute(60, counts(1, 100, 100), counts(2, 100, 100));
        assert_eq!(pair.minute(120, counts(1, 103, 103), counts(3, 3, 3)), None);
        pair.minute(180, counts(1, 103, 103), counts(3, 3, 3));
        assert_eq!((pair.listener.messages(), pair.listener.runs()), (103, 2));
        assert_eq!(pair.balance.alarm(), None);
        // Killed before it reported two more.
        for minute in 4..=6 {
            pair.minute(minute * 60, counts(1, 106, 106), counts(4, 1, 1));
        }
        assert_eq!(pair.balance.alarm().map(|a| a.difference), Some(Difference { messages: 2, answers: -2 }));
    }

    #[test]
    fn a_difference_that_stays_the_same_for_long_is_written_off_and_a_new_one_is_seen() {
        let mut pair = Pair::default();
        let events: Vec<_> = (1..30).filter_map(|m| pair.minute(m * 60, counts(1, 5, 5), counts(2, 4, 5))).collect();
        assert!(matches!(events[..], [BalanceEvent::Raised(_), BalanceEvent::WrittenOff(_)]), "{events:?}");
        assert_eq!(pair.balance.written_off(), Difference { messages: 1, answers: 0 });
        for minute in 30..=33 {
            pair.minute(minute * 60, counts(1, 9, 9), counts(2, 8, 9));
            assert_eq!(pair.balance.alarm(), None);
        }
        assert!(!pair.balance.is_open(&pair.sender, &pair.listener, 33 * 60, &TIMES));
        for minute in 34..=36 {
            pair.minute(minute * 60, counts(1, 10, 9), counts(2, 8, 9));
        }
        assert_eq!(pair.balance.alarm().map(|a| a.difference.messages), Some(1));
    }

    #[test]
    fn tallies_and_balance_survive_being_written_down() {
        let mut pair = Pair::default();
        for minute in 1..=4 {
            pair.minute(minute * 60, counts(1, 5, 4), counts(2, 4, 4));
        }
        let text = serde_json::to_string(&(&pair.sender, &pair.balance)).unwrap_or_default();
        let read: Option<(Tally, Balance)> = serde_json::from_str(&text).ok();
        assert_eq!(read, Some((pair.sender, pair.balance)));
    }

    proptest! {
        #[test]
        fn whatever_gateways_report_nothing_overflows(reports in proptest::collection::vec(any::<[u64; 8]>(), 0..20)) {
            let mut pair = Pair::default();
            for [now, epoch, a, b, c, d, e, f] in reports {
                let sender = EndCounts { epoch, messages: a, accepted: b, errors: c, ..EndCounts::default() };
                let listener = EndCounts { epoch, messages: d, accepted: e, other: f, ..EndCounts::default() };
                pair.minute(now >> 1, sender, listener);
            }
        }
    }
}
