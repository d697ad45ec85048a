//! What is told of the gateway's audit log.

use serde::{Deserialize, Serialize};

use crate::audit::{line::Head, record::Record};

/// The newest records of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditNewest {
    /// Oldest first.
    pub lines: Vec<AuditLine>,
    /// Whether the chain of the files read for them is whole; otherwise lines were changed or removed.
    pub whole: bool,
}

/// One record of the audit log with its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    /// 64 hex digits.
    pub hash: String,
    /// The record.
    #[serde(flatten)]
    pub record: Record,
}

/// Admin calls since the daemon started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AdminCounters {
    /// Answered by the engine.
    pub passed: u64,
    /// Refused by the guard.
    pub refused: u64,
    /// Neither: the engine did not answer, or the caller or the permission went before it did.
    pub unanswered: u64,
    /// Could not be written to the log.
    pub unrecorded: u64,
}

/// Our audit log beside what the control plane knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditComparison {
    /// The head that we reported and that the control plane asked for, when we last looked for it.
    pub asked: Head,
    /// What the files hold.
    pub held: AuditHeld,
}

/// Whether the files of an audit log hold a record that was reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditHeld {
    /// Yes, and the lines before it in its file lead to it.
    Held,
    /// It was removed in order, when there was no more room or time for it.
    Removed,
    /// The log ends before it: its newest lines were removed.
    CutOff,
    /// It is another record, or the lines that lead to it were changed or removed.
    Changed,
}

impl AuditHeld {
    /// Whether somebody has to look.
    pub fn is_alarm(self) -> bool {
        matches!(self, Self::CutOff | Self::Changed)
    }
}
