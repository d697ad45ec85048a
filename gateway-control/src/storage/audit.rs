//! The chains of audit entries, and the heads of gateways' logs.

use async_trait::async_trait;
use gateway_proto::{
    api::platform::{AuditAnchor, AuditEntry, AuditOrder},
    audit::heads::{HeadBook, ReportedHead},
    id::ServerId,
    identity::GatewayPublicKey,
};

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
    /// Removes ended sessions, enrolment codes that ended before `codes`, and removed gateways from before `gateways`.
    async fn purge(&mut self, now: u64, codes: u64, gateways: u64) -> StorageResult<()>;
}

/// Heads of the audit logs of gateways.
#[async_trait]
pub trait GatewayAudits: Send {
    /// What the gateway of a server reported; none: nothing.
    async fn head_book(&mut self, server: ServerId) -> StorageResult<Option<HeadBook>>;
    /// Stores it, new or changed.
    async fn put_head_book(&mut self, server: ServerId, book: &HeadBook) -> StorageResult<()>;
    /// Whether an alarm stands, for lists of servers.
    async fn set_audit_alarm(&mut self, server: ServerId, stands: bool) -> StorageResult<()>;
    /// Adds a head to the history, of which the newest `keep` stay.
    async fn insert_kept_head(&mut self, row: &KeptHeadRow, keep: u64) -> StorageResult<()>;
    /// The history before an entry, newest first.
    async fn kept_heads(&mut self, server: ServerId, before: u64, limit: u32) -> StorageResult<Vec<KeptHeadRow>>;
    /// Removes heads of the history that were reported before a time.
    async fn purge_kept_heads(&mut self, before: u64) -> StorageResult<()>;
}

rows! {
    /// An entry of the audit log.
    AuditRow {
        /// The chain: an organization's id, or `platform`.
        chain: String,
        /// The entry.
        entry: AuditEntry,
    }
    /// A head of the history of a gateway's audit log.
    KeptHeadRow {
        /// Server.
        server: ServerId,
        /// Counts up for each server.
        entry: u64,
        /// The gateway that reported it.
        gateway: GatewayPublicKey,
        /// The head.
        head: ReportedHead,
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
