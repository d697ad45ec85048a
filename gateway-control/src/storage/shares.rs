//! Shared servers.

use async_trait::async_trait;
use gateway_proto::{
    api::platform::ShareLevel,
    id::{AgreementId, OrganizationId, ServerId, ShareId, UserId},
    policy::AdminScope,
};

use super::{ConnectionRow, Slice, StorageResult, rows::rows};

/// Shared servers.
#[async_trait]
pub trait Shares: Send {
    /// One share, ended or not.
    async fn share(&mut self, id: ShareId) -> StorageResult<Option<ShareRow>>;
    /// Shares given or received by an organization, those that ended only when asked for: also those that time has ended by now.
    async fn shares(
        &mut self,
        organization: OrganizationId,
        ended: bool,
        slice: &Slice,
        now: u64,
    ) -> StorageResult<Vec<ShareRow>>;
    /// Shares of an agreement that have not ended.
    async fn open_shares_of_agreement(&mut self, agreement: AgreementId) -> StorageResult<Vec<ShareRow>>;
    /// Shares of a server that have not ended.
    async fn open_shares_of_server(&mut self, server: ServerId) -> StorageResult<Vec<ShareRow>>;
    /// Shares whose time is over.
    async fn overdue_shares(&mut self, now: u64, limit: u32) -> StorageResult<Vec<ShareId>>;
    /// Connections of a share that have not ended.
    async fn open_connections_of_share(&mut self, share: ShareId) -> StorageResult<Vec<ConnectionRow>>;
    /// Adds one.
    async fn insert_share(&mut self, row: &ShareRow) -> StorageResult<()>;
    /// Stores the end of one.
    async fn update_share(&mut self, row: &ShareRow) -> StorageResult<()>;
}

rows! {
    /// A shared server.
    ShareRow {
        /// Id.
        id: ShareId,
        /// Agreement.
        agreement: AgreementId,
        /// Server.
        server: ServerId,
        /// The organization whose server it is.
        owner: OrganizationId,
        /// The organization it is shared with.
        peer: OrganizationId,
        /// Who shared it; not known of older ones.
        shared_by: Option<UserId>,
        /// How far.
        level: ShareLevel,
        /// What its admin connections may do beyond their level.
        scope: AdminScope,
        /// When it ends by itself.
        expires_at: Option<u64>,
        /// Creation.
        created_at: u64,
        /// End.
        ended_at: Option<u64>,
    }
}
