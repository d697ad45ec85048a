//! Subscription tiers, and what an organization uses of its own.

use serde::{Deserialize, Serialize};

use crate::id::{ChannelId, OrganizationId, ServerId};

/// Grants of one channel in any tier.
pub const MAX_GRANTS_PER_CHANNEL: u32 = 2_000;
/// Connections of one server in any tier: its policy is compiled and sent whole.
pub const MAX_CONNECTIONS_PER_SERVER: u32 = 2_000;

api_types! {
    /// A subscription tier; a limit that is left out is none.
    Tier {
        /// Its name.
        name: String,
        /// Servers of an organization.
        max_servers: Option<u32>,
        /// Agreements of an organization with others.
        max_peers: Option<u32>,
        /// Channels of a server.
        max_channels_per_server: Option<u32>,
        /// Grants of a channel that wait or are in force; left out: 2,000, which is the most.
        max_grants_per_channel: Option<u32>,
        /// Connections of a server, at either end, that have not ended; left out: 2,000, which is the most.
        max_connections_per_server: Option<u32>,
        /// Whether admin connections may be read-write.
        admin_read_write: bool,
        /// Whether new organizations begin with it.
        initial: bool,
    }
    /// The limits of a tier, all of them; it is made if there is none of that name. The two limits that came later stay as they are
    /// where they are left out: whoever does not know them does not lift them.
    #[serde(deny_unknown_fields)]
    PutTier {
        /// Servers of an organization; left out: any number.
        #[serde(default)]
        max_servers: Option<u32>,
        /// Agreements of an organization with others; left out: any number.
        #[serde(default)]
        max_peers: Option<u32>,
        /// Channels of a server; left out: any number.
        #[serde(default)]
        max_channels_per_server: Option<u32>,
        /// Grants of a channel that wait or are in force, 2,000 at most; left out: as it is, and 2,000 of a new tier.
        #[serde(default)]
        max_grants_per_channel: Option<u32>,
        /// Connections of a server, at either end, that have not ended, 2,000 at most; left out: as it is, and 2,000 of a
        /// new tier.
        #[serde(default)]
        max_connections_per_server: Option<u32>,
        /// Whether admin connections may be read-write.
        admin_read_write: bool,
        /// Whether new organizations begin with it, instead of the one they began with until now.
        #[serde(default)]
        initial: bool,
    }
    /// Put an organization into a tier.
    #[serde(deny_unknown_fields)]
    AssignTier {
        /// Name of the tier.
        tier: String,
    }
    /// What there is of something that has a limit.
    Count {
        /// How many there are.
        used: u32,
        /// How many there may be; none: any number.
        limit: Option<u32>,
        /// How many there are above the limit: they stay, and nothing new comes.
        surplus: u32,
    }
    /// The channels of a server, counted.
    ServerCount {
        /// Server.
        server_id: ServerId,
        /// Its name.
        server_name: String,
        /// Its channels.
        channels: Count,
    }
    /// The connections of a server, counted.
    ServerConnections {
        /// Server.
        server_id: ServerId,
        /// Its name.
        server_name: String,
        /// Its connections, at either end.
        connections: Count,
    }
    /// The grants of a channel, counted.
    ChannelGrants {
        /// Channel.
        channel_id: ChannelId,
        /// Its name.
        channel_name: String,
        /// Its grants that wait or are in force.
        grants: Count,
    }
    /// What an organization uses of its tier.
    Usage {
        /// Organization.
        organization_id: OrganizationId,
        /// Its tier.
        tier: Tier,
        /// Servers.
        servers: Count,
        /// Agreements with others.
        peers: Count,
        /// Servers with channels, the fullest first; at most 100.
        channels: Vec<ServerCount>,
        /// Servers with connections, those with the most first; at most 100.
        #[serde(default)]
        connections: Vec<ServerConnections>,
        /// Channels with grants, those with the most first; at most 100.
        #[serde(default)]
        grants: Vec<ChannelGrants>,
    }
    /// An organization, as the operator of the platform sees it.
    PlatformOrganization {
        /// Id.
        id: OrganizationId,
        /// Name.
        name: String,
        /// Name of its tier.
        tier: String,
        /// Creation, Unix seconds.
        created_at: u64,
    }
}
