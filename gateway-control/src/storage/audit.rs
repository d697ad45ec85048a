//! The chains of audit entries.

use async_trait::async_trait;
use gateway_proto::api::platform::{AuditAnchor, AuditEntry, AuditOrder};

use super::{StorageResult, rows::rows};

/// The audit log, and what time alone removes.
#[async_trait]
pub trait Audit: Send {
    /// The newest entry of a chain.
    async fn last_audit(&mut self, chain: &str) -> StorageResult<Option<AuditRow>>;
    /// Appends an entry; its sequence must be the next one.
    async fn append_audit(&mut self, row: &AuditRow) -> StorageResult<()>;
    /// Entries of a chain, newest first; `before` 0: from the newest.
    /// Entries of a chain behind position `beyond` in this order; 0: from the first of them.
    async fn audit(
        &mut self,
        chain: &str,
        filter: &AuditFilter,
        order: AuditOrder,
        beyond: u64,
        limit: u32,
    ) -> StorageResult<Vec<AuditRow>>;
    /// Where a chain begins, once its oldest entries were removed.
    async fn audit_anchor(&mut self, chain: &str) -> StorageResult<Option<AuditAnchor>>;
    /// The chains of the oldest entries from before a time, of so many entries.
    async fn chains_before(&mut self, before: u64, limit: u32) -> StorageResult<Vec<String>>;
    /// The oldest entries of a chain, up to the first one that is not from before a time.
    async fn audit_before(&mut self, chain: &str, before: u64, limit: u32) -> StorageResult<Vec<AuditRow>>;
    /// Removes the oldest entries of a chain, up to this one, which becomes its anchor.
    async fn remove_audit(&mut self, chain: &str, anchor: &AuditAnchor) -> StorageResult<()>;
    /// Removes sessions that ended, or would end after `latest`, enrolment codes that ended before `codes`, and removed gateways from
    /// before `gateways`.
    async fn purge(&mut self, now: u64, latest: u64, codes: u64, gateways: u64) -> StorageResult<()>;
}

rows! {
    /// An entry of the audit log.
    AuditRow {
        /// The chain: an organization's id, or `platform`.
        chain: String,
        /// The entry.
        entry: AuditEntry,
    }
}

/// Which entries of a chain.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuditFilter {
    /// Those whose act begins with this; empty: all.
    pub act: String,
    /// Those about one object; empty: all.
    pub object: String,
    /// Those of one actor; empty: all.
    pub actor: String,
    /// Those from then on.
    pub since: u64,
    /// Those from before then.
    pub until: Option<u64>,
}
