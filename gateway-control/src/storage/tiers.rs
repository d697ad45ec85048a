//! Tiers and what counts against them.

use async_trait::async_trait;
use gateway_proto::id::{ChannelId, OrganizationId, ServerId};

use super::{Slice, StorageResult, rows::rows};

/// Subscription tiers, and how many of what there are.
#[async_trait]
pub trait Tiers: Send {
    /// All tiers, ordered by name.
    async fn tiers(&mut self) -> StorageResult<Vec<TierRow>>;
    /// Adds or replaces one; an initial one takes that from the others.
    async fn put_tier(&mut self, row: &TierRow) -> StorageResult<()>;
    /// The tier of an organization.
    async fn tier_of(&mut self, organization: OrganizationId) -> StorageResult<Option<TierRow>>;
    /// Puts an organization into a tier.
    async fn assign_tier(&mut self, organization: OrganizationId, name: &str) -> StorageResult<()>;
    /// Servers of an organization that are not removed.
    async fn count_servers(&mut self, organization: OrganizationId) -> StorageResult<u64>;
    /// Agreements of an organization with others that have not ended.
    async fn count_peers(&mut self, organization: OrganizationId) -> StorageResult<u64>;
    /// Channels of a server that are not removed.
    async fn count_channels(&mut self, server: ServerId) -> StorageResult<u64>;
    /// The servers of an organization with the most channels, the fullest first.
    async fn fullest_servers(&mut self, organization: OrganizationId, most: u32) -> StorageResult<Vec<ServerCountRow>>;
    /// The servers of an organization with the most connections that have not ended, as it is written down, those first.
    async fn busiest_servers(
        &mut self,
        organization: OrganizationId,
        most: u32,
    ) -> StorageResult<Vec<ServerConnectionsRow>>;
    /// Grants of a channel that wait now, or are in force as it is written down.
    async fn count_open_grants(&mut self, channel: ChannelId, now: u64) -> StorageResult<u64>;
    /// The channels of an organization with the most of those grants, those first.
    async fn most_granted_channels(
        &mut self,
        organization: OrganizationId,
        most: u32,
        now: u64,
    ) -> StorageResult<Vec<ChannelGrantsRow>>;
    /// All organizations.
    async fn platform_organizations(&mut self, slice: &Slice) -> StorageResult<Vec<PlatformOrganizationRow>>;
    /// When an organization asked another one without success since then, newest first, so many at most.
    async fn vain_requests(
        &mut self,
        from: OrganizationId,
        to: OrganizationId,
        since: u64,
        most: u32,
    ) -> StorageResult<Vec<u64>>;
}

rows! {
    /// A subscription tier.
    TierRow {
        /// Its name.
        name: String,
        /// Servers of an organization.
        max_servers: Option<u32>,
        /// Agreements of an organization with others.
        max_peers: Option<u32>,
        /// Channels of a server.
        max_channels_per_server: Option<u32>,
        /// Grants of a channel that wait or are in force.
        max_grants_per_channel: Option<u32>,
        /// Connections of a server that have not ended.
        max_connections_per_server: Option<u32>,
        /// Whether admin connections may be read-write.
        admin_read_write: bool,
        /// Whether new organizations begin with it.
        initial: bool,
    }
    /// How many channels a server has.
    ServerCountRow {
        /// Server.
        server: ServerId,
        /// Its name.
        name: String,
        /// Its channels.
        channels: u64,
    }
    /// How many connections a server has.
    ServerConnectionsRow {
        /// Server.
        server: ServerId,
        /// Its name.
        name: String,
        /// Its connections.
        connections: u64,
    }
    /// How many grants a channel has.
    ChannelGrantsRow {
        /// Channel.
        channel: ChannelId,
        /// Its name.
        name: String,
        /// Its grants.
        grants: u64,
    }
    /// An organization and its tier.
    PlatformOrganizationRow {
        /// Id.
        id: OrganizationId,
        /// Name.
        name: String,
        /// Name of its tier.
        tier: String,
        /// Creation.
        created_at: u64,
    }
}
