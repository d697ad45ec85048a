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
mod tests;
