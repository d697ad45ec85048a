//! The head of the audit log: when it is reported, and whether the log still holds what was reported before.
//!
//! It is reported with a report that goes out anyway, every few seconds at most; by itself only when there is none, and then once a
//! minute at most; never when it is the one that was reported before. So a gateway on which nothing happens sends nothing. A new link starts over.

use std::{
    io,
    time::{Duration, Instant},
};

use gateway_proto::{
    api::local::AuditHeld,
    audit::{
        heads::{HEAD_SECS, HeadReport, RIDE_SECS},
        line::Head,
    },
};
use tokio::{
    task::{JoinError, JoinHandle},
    time::sleep_until,
};

use crate::audit::AuditLog;

/// Between two looks into the files: one may have to read all of them.
const COMPARE_GAP: Duration = Duration::from_secs(10);

/// What a look into the files found.
pub(super) type Compared = Result<(Head, AuditHeld), CompareError>;

/// Why there was no look.
#[derive(Debug, thiserror::Error)]
pub(super) enum CompareError {
    #[error("the files cannot be read")]
    Read(#[from] io::Error),
    #[error("a task failed")]
    Task(#[from] JoinError),
}

/// Looks, one at a time, and beside the link, which goes on meanwhile.
#[derive(Debug)]
pub(super) struct Comparison {
    log: Option<AuditLog>,
    running: Option<(Head, JoinHandle<io::Result<AuditHeld>>)>,
    /// What was asked for last, and is still to be looked for.
    next: Option<Head>,
    not_before: tokio::time::Instant,
}

impl Comparison {
    /// With this log; none: nothing is looked for.
    pub(super) fn of(log: Option<AuditLog>) -> Self {
        Self { log, running: None, next: None, not_before: tokio::time::Instant::now() }
    }

    /// The log should hold this.
    pub(super) fn ask(&mut self, head: Head) {
        self.next = Some(head);
    }

    /// Resolves when a look is over; never, while nothing is asked for. Cancel-safe.
    pub(super) async fn outcome(&mut self) -> Compared {
        if self.running.is_none() {
            let (Some(log), true) = (self.log.clone(), self.next.is_some()) else {
                return std::future::pending().await;
            };
            sleep_until(self.not_before).await;
            let Some(head) = self.next.take() else { return std::future::pending().await };
            self.not_before = tokio::time::Instant::now() + COMPARE_GAP;
            let wanted = head.clone();
            self.running = Some((head, tokio::task::spawn_blocking(move || log.compare(wanted))));
        }
        let Some((_, task)) = &mut self.running else { return std::future::pending().await };
        let outcome = task.await;
        let Some((head, _)) = self.running.take() else { return std::future::pending().await };
        Ok((head, outcome??))
    }
}

/// What was reported on a link.
#[derive(Debug, Default)]
pub(super) struct AuditReporter {
    sent: Option<(Head, Instant)>,
    /// The control plane asked for it, and our files do not hold it.
    missing: Option<Head>,
    told_missing: Option<Head>,
}

impl AuditReporter {
    /// What the control plane asked for is not there; none: it is.
    pub(super) fn set_missing(&mut self, missing: Option<Head>) {
        self.missing = missing;
    }

    /// What goes along with a report now; `at`: the time, Unix milliseconds.
    pub(super) fn due(&self, head: Option<Head>, at: u64, now: Instant) -> Option<HeadReport> {
        let head = head?;
        if self.missing != self.told_missing {
            return Some(HeadReport { head, at, missing: self.missing.clone() });
        }
        let is_due = match &self.sent {
            None => true,
            Some((sent, when)) => *sent != head && now.duration_since(*when) >= Duration::from_secs(RIDE_SECS),
        };
        is_due.then_some(HeadReport { head, at, missing: None })
    }

    /// Whether it goes out even when no other report does.
    pub(super) fn goes_alone(&self, now: Instant) -> bool {
        self.missing != self.told_missing
            || self.sent.as_ref().is_none_or(|(_, when)| now.duration_since(*when) >= Duration::from_secs(HEAD_SECS))
    }

    /// It was sent.
    pub(super) fn sent(&mut self, report: HeadReport, now: Instant) {
        self.told_missing.clone_from(&self.missing);
        self.sent = Some((report.head, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(sequence: u64) -> Option<Head> {
        Some(Head { sequence, hash: "ab".repeat(32) })
    }

    #[test]
    fn a_head_is_reported_once_and_another_one_soon_with_company_and_later_alone() {
        let (mut reporter, start) = (AuditReporter::default(), Instant::now());
        let after = |secs| start + Duration::from_secs(secs);
        assert_eq!(reporter.due(None, 0, start), None, "nothing is on the disk for sure yet");
        let first = reporter.due(head(1), 0, start).unwrap();
        assert_eq!(reporter.due(head(1), 0, start).as_ref(), Some(&first), "what was not taken is tried again");
        reporter.sent(first, start);
        assert_eq!(reporter.due(head(1), 0, after(86_400)), None);
        assert_eq!(reporter.due(head(2), 0, after(4)), None);
        assert!(reporter.due(head(2), 0, after(5)).is_some_and(|report| report.missing.is_none()));
        assert!(!reporter.goes_alone(after(59)) && reporter.goes_alone(after(60)));
    }

    #[test]
    fn what_is_missing_is_told_at_once_and_once() {
        let (mut reporter, now) = (AuditReporter::default(), Instant::now());
        let first = reporter.due(head(1), 0, now).unwrap();
        reporter.sent(first, now);
        reporter.set_missing(head(9));
        let told = reporter.due(head(1), 0, now).unwrap();
        assert!(told.missing == head(9) && reporter.goes_alone(now));
        reporter.sent(told, now);
        assert_eq!(reporter.due(head(1), 0, now), None);
    }
}
