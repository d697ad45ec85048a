//! What the control plane keeps of the chain of one gateway's audit log: the heads that the gateway reported.
//!
//! A chain alone cannot show that its newest lines were cut off. So a gateway reports its head now and then, and the control plane,
//! which the gateway cannot rewrite, remembers it: a head commits to every record before it. A [`HeadBook`] takes the heads of one
//! gateway and tells when they contradict each other ([`HeadFault`]); the gateway itself is asked, on each new link, whether its
//! files still hold the head that was reported last ([`HeadBook::asked_of`]).
//!
//! **Series.** Heads that follow from each other are a series. A new one begins with another gateway key, and with a contradiction:
//! from then on the newest head is compared with the new series, and the [`HeadAlarm`] keeps the head that was contradicted until a
//! person acknowledges it.
//!
//! **Limits.** The newest head replaces the one before; into the history goes one of each hour ([`KEEP_SECS`]), the first of each
//! series, and none because a gateway contradicts itself again while the alarm stands. So one that was taken over cannot push out
//! what it reported before.

use serde::{Deserialize, Serialize};

use super::line::{Head, LineChain};
use crate::identity::GatewayPublicKey;

/// A gateway reports its head no more often than this, seconds, and only when it is another one and a report goes out anyway.
pub const RIDE_SECS: u64 = 5;
/// When no other report goes out, no more often than this, seconds.
pub const HEAD_SECS: u64 = 60;
/// A head goes into the history when the last one that did is so old, seconds.
pub const KEEP_SECS: u64 = 3600;
/// Heads of one gateway's server in the history: more than forty days of one an hour.
pub const MAX_KEPT: u64 = 1000;
/// While an alarm stands, the log is told of further contradictions this often, seconds.
pub const TELL_SECS: u64 = 3600;
/// The highest sequence, and time in milliseconds, that is believed: what every reader of JSON keeps exactly.
const MAX_NUMBER: u64 = (1 << 53) - 1;

/// What a gateway says of its audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadReport {
    /// The newest record that is on the disk for sure.
    #[serde(flatten)]
    pub head: Head,
    /// When that was looked at, Unix milliseconds of the gateway.
    pub at: u64,
    /// A head that the control plane asked for and the files do not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Head>,
}

impl HeadReport {
    /// Whether it can be true at all.
    pub fn is_possible(&self) -> bool {
        let fits = |head: &Head| head.sequence <= MAX_NUMBER && LineChain::from_hash(&head.hash).is_some();
        fits(&self.head) && self.at <= MAX_NUMBER && self.missing.as_ref().is_none_or(fits)
    }
}

/// A head that a gateway reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReportedHead {
    /// Sequence of the record.
    pub sequence: u64,
    /// Hash of its line, 64 hex digits.
    pub hash: String,
    /// When the gateway looked, by its own clock, Unix milliseconds.
    pub at: u64,
    /// When it was reported, Unix seconds.
    pub received_at: u64,
}

impl ReportedHead {
    /// A head that arrives at `now`, Unix seconds.
    pub fn new(report: &HeadReport, now: u64) -> Self {
        let Head { sequence, hash } = report.head.clone();
        Self { sequence, hash, at: report.at, received_at: now }
    }

    /// Without its times.
    pub fn head(&self) -> Head {
        Head { sequence: self.sequence, hash: self.hash.clone() }
    }
}

/// How a log is not the one that was reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeadFault {
    /// It ends before a record that was reported.
    WentBack,
    /// A record that was reported has another hash.
    OtherHash,
    /// The gateway says itself that its files do not hold what was reported.
    NotContained,
}

impl HeadFault {
    /// The code in documents and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::WentBack => "went_back",
            Self::OtherHash => "other_hash",
            Self::NotContained => "not_contained",
        }
    }

    /// The same in words.
    pub fn what(self) -> &'static str {
        match self {
            Self::WentBack => "the log ends before a record that was reported",
            Self::OtherHash => "a record that was reported has another hash now",
            Self::NotContained => "the gateway's files do not hold a record that was reported",
        }
    }
}

/// How a head contradicts one that is known; none: it may follow from it.
pub fn contradicts(known: &Head, head: &Head) -> Option<HeadFault> {
    if head.sequence < known.sequence {
        return Some(HeadFault::WentBack);
    }
    (head.sequence == known.sequence && head.hash != known.hash).then_some(HeadFault::OtherHash)
}

/// A log that is not the one that was reported, until a person acknowledges it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HeadAlarm {
    /// How.
    pub fault: HeadFault,
    /// The gateway's key.
    #[schema(value_type = String)]
    pub gateway: GatewayPublicKey,
    /// What was reported before.
    pub known: ReportedHead,
    /// The last head that contradicted it; none: the gateway said so itself.
    pub found: Option<ReportedHead>,
    /// Since when, Unix seconds.
    pub since: u64,
    /// How often heads contradicted each other since.
    pub times: u64,
    /// When the audit log was told last, Unix seconds.
    pub told_at: u64,
}

/// What became of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeadOutcome {
    /// The book has changed.
    pub is_news: bool,
    /// The newest head belongs into the history.
    pub keeps: bool,
    /// The audit log is to be told of this.
    pub tells: Option<HeadFault>,
    /// An alarm stands that did not stand before.
    pub is_raised: bool,
}

/// The heads of one server's gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadBook {
    /// Whose head the newest one is.
    pub gateway: GatewayPublicKey,
    /// The newest one.
    pub newest: ReportedHead,
    /// What has to be looked at.
    pub alarm: Option<HeadAlarm>,
    /// Entries that went into the history so far.
    pub entries: u64,
    /// The first of them that is of the same series as the newest head.
    pub series_from: u64,
    /// When the last of them did, Unix seconds.
    kept_at: u64,
}

impl HeadBook {
    /// The book of a gateway that reports for the first time. Its first head belongs into the history.
    pub fn new(gateway: GatewayPublicKey, first: ReportedHead) -> Self {
        let kept_at = first.received_at;
        Self { gateway, newest: first, alarm: None, entries: 1, series_from: 1, kept_at }
    }

    /// The head that this gateway must hold, or have removed when its time was over.
    pub fn asked_of(&self, gateway: GatewayPublicKey) -> Option<ReportedHead> {
        match &self.alarm {
            Some(alarm) if alarm.gateway == gateway => Some(alarm.known.clone()),
            Some(_) | None => (self.gateway == gateway).then(|| self.newest.clone()),
        }
    }

    /// A gateway reports its head. `late`: it was reported a while ago and is entered now, so that a newer one may be known.
    pub fn handle_head(&mut self, gateway: GatewayPublicKey, head: ReportedHead, late: bool) -> HeadOutcome {
        if gateway != self.gateway {
            self.gateway = gateway;
            return self.begin_series(head);
        }
        let (known, now) = (self.newest.head(), head.received_at);
        if head.head() == known {
            return HeadOutcome::default();
        }
        match contradicts(&known, &head.head()) {
            None => {
                self.newest = head;
                let keeps = self.keep_if_due(now);
                HeadOutcome { is_news: true, keeps, ..HeadOutcome::default() }
            }
            Some(HeadFault::WentBack) if late && self.alarm.is_none() => HeadOutcome::default(),
            Some(fault) => self.contradicted(fault, head),
        }
    }

    /// The gateway says that its files do not hold `asked`, which it was asked for.
    pub fn handle_missing(&mut self, gateway: GatewayPublicKey, asked: ReportedHead, now: u64) -> HeadOutcome {
        if gateway != self.gateway || self.alarm.is_some() {
            return HeadOutcome::default();
        }
        let (fault, known) = (HeadFault::NotContained, asked);
        self.alarm = Some(HeadAlarm { fault, gateway, known, found: None, since: now, times: 1, told_at: now });
        // What it reports from now on is another log.
        self.series_from = self.entries + 1;
        HeadOutcome { is_news: true, keeps: false, tells: Some(fault), is_raised: true }
    }

    /// A person has looked at the alarm; what it was.
    pub fn acknowledge(&mut self) -> Option<HeadAlarm> {
        self.alarm.take()
    }

    fn contradicted(&mut self, fault: HeadFault, head: ReportedHead) -> HeadOutcome {
        let now = head.received_at;
        if let Some(alarm) = &mut self.alarm {
            alarm.times = alarm.times.saturating_add(1);
            alarm.found = Some(head.clone());
            let tells = (now >= alarm.told_at.saturating_add(TELL_SECS)).then_some(fault);
            if tells.is_some() {
                alarm.told_at = now;
            }
            self.newest = head;
            self.series_from = self.entries + 1;
            let keeps = self.keep_if_due(now);
            return HeadOutcome { is_news: true, keeps, tells, is_raised: false };
        }
        let alarm = HeadAlarm {
            fault,
            gateway: self.gateway,
            known: self.newest.clone(),
            found: Some(head.clone()),
            since: now,
            times: 1,
            told_at: now,
        };
        self.alarm = Some(alarm);
        HeadOutcome { tells: Some(fault), is_raised: true, ..self.begin_series(head) }
    }

    fn begin_series(&mut self, head: ReportedHead) -> HeadOutcome {
        self.kept_at = head.received_at;
        self.newest = head;
        self.entries += 1;
        self.series_from = self.entries;
        HeadOutcome { is_news: true, keeps: true, ..HeadOutcome::default() }
    }

    fn keep_if_due(&mut self, now: u64) -> bool {
        let is_due = now >= self.kept_at.saturating_add(KEEP_SECS);
        if is_due {
            self.kept_at = now;
            self.entries += 1;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::GatewayKey;

    fn key(n: u8) -> GatewayPublicKey {
        GatewayKey::from_seed(&[n; 32]).public()
    }

    fn head(sequence: u64, hash: u8, now: u64) -> ReportedHead {
        ReportedHead { sequence, hash: format!("{hash:02x}").repeat(32), at: now * 1000, received_at: now }
    }

    fn book() -> HeadBook {
        HeadBook::new(key(1), head(100, 1, 1000))
    }

    #[test]
    fn a_chain_that_grows_is_no_news_for_anybody_and_leaves_one_entry_an_hour() {
        let mut book = book();
        let mut kept = 0;
        for minute in 1..=180 {
            let outcome = book.handle_head(key(1), head(100 + minute, 2, 1000 + minute * 60), false);
            assert!(outcome.is_news && outcome.tells.is_none() && !outcome.is_raised);
            kept += u64::from(outcome.keeps);
        }
        assert_eq!((kept, book.entries, book.series_from, &book.alarm), (3, 4, 1, &None));
        assert_eq!(book.handle_head(key(1), book.newest.clone(), false), HeadOutcome::default());
    }

    #[test]
    fn a_log_that_went_back_or_was_written_anew_is_an_alarm_that_only_a_person_ends() {
        for (found, fault) in [(head(99, 1, 2000), HeadFault::WentBack), (head(100, 9, 2000), HeadFault::OtherHash)] {
            let mut book = book();
            let outcome = book.handle_head(key(1), found.clone(), false);
            assert!(outcome.is_raised && outcome.keeps && outcome.tells == Some(fault));
            let alarm = book.alarm.clone().unwrap();
            assert_eq!((alarm.known, alarm.found), (head(100, 1, 1000), Some(found.clone())));
            // It is asked for what it reported before, however its log goes on, and its log goes on in a series of its own.
            assert_eq!(book.handle_head(key(1), head(200, 3, 3000), false).tells, None);
            assert_eq!(book.asked_of(key(1)), Some(head(100, 1, 1000)));
            assert_eq!(book.series_from, 2);
            assert!(book.acknowledge().is_some() && book.alarm.is_none());
            assert_eq!(book.asked_of(key(1)), Some(head(200, 3, 3000)));
        }
    }

    #[test]
    fn what_is_entered_late_may_be_older_but_no_other_record() {
        let mut book = book();
        assert_eq!(book.handle_head(key(1), head(90, 5, 900), true), HeadOutcome::default());
        assert!(book.handle_head(key(1), head(100, 5, 900), true).is_raised);
    }

    #[test]
    fn what_the_gateway_misses_itself_is_an_alarm_once() {
        let mut book = book();
        // What it goes on with is entered before it has looked.
        book.handle_head(key(1), head(140, 6, 4), false);
        assert_eq!(book.handle_missing(key(2), head(100, 1, 0), 5), HeadOutcome::default());
        let outcome = book.handle_missing(key(1), head(100, 1, 0), 5);
        assert!(outcome.is_raised && outcome.tells == Some(HeadFault::NotContained));
        assert_eq!(book.asked_of(key(1)), Some(head(100, 1, 0)));
        assert_eq!(book.handle_missing(key(1), head(140, 6, 4), 6), HeadOutcome::default());
        book.handle_head(key(1), head(150, 7, 7), false);
        assert_eq!(book.series_from, 2, "the head from before is not of the series that follows");
    }

    #[test]
    fn another_gateway_begins_anew_and_is_not_asked_for_what_the_one_before_it_wrote() {
        let mut book = book();
        book.handle_head(key(1), head(50, 2, 2000), false);
        let outcome = book.handle_head(key(2), head(3, 3, 3000), false);
        assert!(outcome.keeps && outcome.tells.is_none());
        assert_eq!(book.asked_of(key(2)), Some(head(3, 3, 3000)));
        assert!(book.alarm.is_some(), "whoever put in another gateway does not end the alarm");
        // The one before it is asked for nothing but what the alarm is about.
        assert_eq!(book.asked_of(key(1)), Some(head(100, 1, 1000)));
    }

    #[test]
    fn what_cannot_be_true_is_told_from_what_can() {
        let report =
            |sequence, hash: &str, at| HeadReport { head: Head { sequence, hash: hash.into() }, at, missing: None };
        let hash = "ab".repeat(32);
        assert!(report(1, &hash, 1).is_possible());
        for (sequence, hash, at) in [
            (u64::MAX, hash.as_str(), 1),
            (1, "ab", 1),
            (1, &"AB".repeat(32), 1),
            (1, &"zz".repeat(32), 1),
            (1, &hash, u64::MAX),
        ] {
            assert!(!report(sequence, hash, at).is_possible());
        }
        let missing = Some(Head { sequence: 1, hash: "x".into() });
        assert!(!HeadReport { missing, ..report(1, &hash, 1) }.is_possible());
        let text = serde_json::to_string(&report(7, &hash, 1)).unwrap();
        assert_eq!(text, format!(r#"{{"sequence":7,"hash":"{hash}","at":1}}"#));
    }

    proptest! {
        /// Whatever a gateway reports, however often: what it reported first stays known, and the history grows by the hour.
        #[test]
        fn nothing_that_a_gateway_reports_takes_back_what_it_reported_before(
            reports in prop::collection::vec((0_u64..200, 0_u8..3, any::<bool>(), any::<bool>()), 1..200),
        ) {
            let mut book = book();
            let (mut now, mut told, mut kept) = (1000, 0, 1);
            for (sequence, hash, late, missing) in reports {
                now += 1;
                let outcome = if missing {
                    let newest = book.newest.clone();
                    book.handle_missing(key(1), newest, now)
                } else {
                    book.handle_head(key(1), head(sequence, hash, now), late)
                };
                told += u64::from(outcome.tells.is_some());
                kept += u64::from(outcome.keeps);
                prop_assert!(book.series_from <= book.entries + 1);
            }
            prop_assert_eq!(kept, book.entries);
            prop_assert!(told <= 1 && kept <= 2, "{} {}", told, kept);
            if let Some(alarm) = &book.alarm {
                prop_assert_eq!(book.asked_of(key(1)), Some(alarm.known.clone()));
            }
        }
    }
}
