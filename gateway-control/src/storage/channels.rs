//! Channels and grants.

use async_trait::async_trait;
use gateway_proto::{
    id::{AgreementId, ChannelId, GrantId, OrganizationId, ServerId},
    limits::ChannelLimits,
    peering::GrantStatus,
};

use super::{Slice, StorageResult, rows::rows};

/// Channels and grants.
#[async_trait]
pub trait Channels: Send {
    /// One channel, removed or not.
    async fn channel(&mut self, id: ChannelId) -> StorageResult<Option<ChannelRow>>;
    /// Channels of an organization that are not removed.
    async fn channels(
        &mut self,
        organization: OrganizationId,
        filter: &ChannelFilter,
        slice: &Slice,
    ) -> StorageResult<Vec<ChannelRow>>;
    /// Channels of a server that are not removed.
    async fn channels_of_server(&mut self, server: ServerId) -> StorageResult<Vec<ChannelRow>>;
    /// The channel of a server with this name, or with one that is the same to people; removed ones are not.
    async fn channel_named(&mut self, server: ServerId, name: &str) -> StorageResult<Option<ChannelId>>;
    /// Published channels of an organization.
    async fn endpoints(&mut self, organization: OrganizationId, slice: &Slice) -> StorageResult<Vec<ChannelRow>>;
    /// Adds one; [`super::StorageError::Duplicate`] when the name is taken.
    async fn insert_channel(&mut self, row: &ChannelRow) -> StorageResult<()>;
    /// Stores a changed one.
    async fn update_channel(&mut self, row: &ChannelRow) -> StorageResult<()>;
    /// One grant.
    async fn grant(&mut self, id: GrantId) -> StorageResult<Option<GrantRow>>;
    /// Grants given or received by an organization. For the status that is asked for, what time has ended by now has expired, whether
    /// or not it was written down.
    async fn grants(
        &mut self,
        organization: OrganizationId,
        filter: &GrantFilter,
        slice: &Slice,
        now: u64,
    ) -> StorageResult<Vec<GrantRow>>;
    /// A grant of a channel inside an agreement that waits for an answer now.
    async fn waiting_grant(
        &mut self,
        channel: ChannelId,
        agreement: AgreementId,
        now: u64,
    ) -> StorageResult<Option<GrantRow>>;
    /// Grants of an agreement that have not ended.
    async fn open_grants_of_agreement(&mut self, agreement: AgreementId) -> StorageResult<Vec<GrantRow>>;
    /// Grants that wait for an answer and would be sent from this server.
    async fn waiting_grants_of_sender(&mut self, server: ServerId) -> StorageResult<Vec<GrantRow>>;
    /// Grants of a channel that have not ended.
    async fn open_grants_of_channel(&mut self, channel: ChannelId) -> StorageResult<Vec<GrantRow>>;
    /// Waiting grants that nobody answered in time, and grants in force whose time is over.
    async fn overdue_grants(&mut self, now: u64, limit: u32) -> StorageResult<Vec<GrantId>>;
    /// Adds one.
    async fn insert_grant(&mut self, row: &GrantRow) -> StorageResult<()>;
    /// Stores a changed one.
    async fn update_grant(&mut self, row: &GrantRow) -> StorageResult<()>;
}

rows! {
    /// A channel.
    ChannelRow {
        /// Id.
        id: ChannelId,
        /// Organization.
        organization: OrganizationId,
        /// Server.
        server: ServerId,
        /// Internal name.
        name: String,
        /// The engine's port, `ip:port`.
        engine: String,
        /// Kind of exchange.
        behavior: String,
        /// Whether partners may see it.
        published: bool,
        /// Public name.
        public_name: String,
        /// Public description.
        public_description: String,
        /// Creation.
        created_at: u64,
        /// Removal.
        removed_at: Option<u64>,
    }
    /// A grant.
    GrantRow {
        /// Id.
        id: GrantId,
        /// Agreement.
        agreement: AgreementId,
        /// Channel.
        channel: ChannelId,
        /// The organization whose channel it is.
        owner: OrganizationId,
        /// The organization that may use it.
        peer: OrganizationId,
        /// Status.
        status: GrantStatus,
        /// When it expires unanswered.
        answer_by: u64,
        /// When it ends.
        expires_at: Option<u64>,
        /// Open streams at most.
        max_streams: u32,
        /// What is limited beside.
        limits: ChannelLimits,
        /// The kinds of exchange that its connection may have; empty: whatever its channel has.
        behaviors: Vec<String>,
        /// How long data may go on without the control plane.
        staleness_secs: u64,
        /// Whether a post-quantum tunnel is required.
        require_post_quantum: bool,
        /// The sending server, once named.
        sender_server: Option<ServerId>,
        /// The local port of the sending gateway, 0: it picks one.
        sender_port: u16,
        /// The public name that the channel had when the grant ended; none: it has not ended.
        kept_endpoint: Option<String>,
        /// Creation.
        created_at: u64,
    }
}

/// Which channels of an organization.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelFilter {
    /// Those of one server.
    pub server: Option<ServerId>,
    /// Those that are published, or those that are not.
    pub published: Option<bool>,
    /// Those whose name contains this.
    pub search: String,
}

/// Which grants of an organization.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GrantFilter {
    /// Those in one status.
    pub status: Option<GrantStatus>,
    /// Those of one agreement.
    pub agreement: Option<AgreementId>,
    /// Those of one channel.
    pub channel: Option<ChannelId>,
    /// Those it gave, or those it received.
    pub given: Option<bool>,
}
