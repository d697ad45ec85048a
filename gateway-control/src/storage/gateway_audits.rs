//! Heads of the audit logs of gateways.

use async_trait::async_trait;
use gateway_proto::{
    audit::heads::{HeadBook, ReportedHead},
    id::ServerId,
    identity::GatewayPublicKey,
};

use super::{StorageResult, rows::rows};

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
