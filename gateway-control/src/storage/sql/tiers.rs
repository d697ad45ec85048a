//! Tiers, and how many of what there are.

use async_trait::async_trait;
use gateway_proto::id::{ChannelId, OrganizationId, ServerId};

use super::{Columns, Row, SqlTransaction, big, each, limit, query};
use crate::storage::{
    ChannelGrantsRow, PlatformOrganizationRow, ServerConnectionsRow, ServerCountRow, Slice, StorageResult, TierRow,
    Tiers,
};

#[async_trait]
impl Tiers for SqlTransaction {
    async fn tiers(&mut self) -> StorageResult<Vec<TierRow>> {
        let rows = query("SELECT * FROM tiers ORDER BY name").fetch_all(self.db()).await?;
        each(rows, tier)
    }

    async fn put_tier(&mut self, row: &TierRow) -> StorageResult<()> {
        if row.initial {
            query("UPDATE tiers SET initial = FALSE").execute(self.db()).await?;
        }
        let number = |limit: Option<u32>| limit.map(i64::from);
        query(
            "INSERT INTO tiers (name, max_servers, max_peers, max_channels_per_server, admin_read_write, initial,
             max_grants_per_channel, max_connections_per_server) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (name) DO UPDATE SET max_servers = excluded.max_servers, max_peers = excluded.max_peers,
             max_channels_per_server = excluded.max_channels_per_server,
             admin_read_write = excluded.admin_read_write, initial = excluded.initial,
             max_grants_per_channel = excluded.max_grants_per_channel,
             max_connections_per_server = excluded.max_connections_per_server",
        )
        .bind(&row.name)
        .bind(number(row.max_servers))
        .bind(number(row.max_peers))
        .bind(number(row.max_channels_per_server))
        .bind(row.admin_read_write)
        .bind(row.initial)
        .bind(number(row.max_grants_per_channel))
        .bind(number(row.max_connections_per_server))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn tier_of(&mut self, organization: OrganizationId) -> StorageResult<Option<TierRow>> {
        let row = query(
            "SELECT tiers.* FROM tiers JOIN organization_tiers ON organization_tiers.tier = tiers.name
             WHERE organization_tiers.organization_id = $1",
        )
        .bind(organization.to_string())
        .fetch_optional(self.db())
        .await?;
        row.as_ref().map(tier).transpose()
    }

    async fn assign_tier(&mut self, organization: OrganizationId, name: &str) -> StorageResult<()> {
        query(
            "INSERT INTO organization_tiers (organization_id, tier) VALUES ($1, $2)
             ON CONFLICT (organization_id) DO UPDATE SET tier = excluded.tier",
        )
        .bind(organization.to_string())
        .bind(name)
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn count_servers(&mut self, organization: OrganizationId) -> StorageResult<u64> {
        let row = query("SELECT COUNT(*) AS number FROM servers WHERE organization_id = $1 AND removed_at IS NULL")
            .bind(organization.to_string())
            .fetch_one(self.db())
            .await?;
        row.number("number")
    }

    async fn count_peers(&mut self, organization: OrganizationId) -> StorageResult<u64> {
        let row = query(
            "SELECT COUNT(*) AS number FROM agreements WHERE ended_at IS NULL
             AND (first_organization = $1 OR second_organization = $1) AND first_organization <> second_organization",
        )
        .bind(organization.to_string())
        .fetch_one(self.db())
        .await?;
        row.number("number")
    }

    async fn count_channels(&mut self, server: ServerId) -> StorageResult<u64> {
        let row = query("SELECT COUNT(*) AS number FROM channels WHERE server_id = $1 AND removed_at IS NULL")
            .bind(server.to_string())
            .fetch_one(self.db())
            .await?;
        row.number("number")
    }

    async fn fullest_servers(&mut self, organization: OrganizationId, most: u32) -> StorageResult<Vec<ServerCountRow>> {
        let rows = query(
            "SELECT servers.id AS server_id, servers.name AS server_name, COUNT(*) AS number
             FROM channels JOIN servers ON servers.id = channels.server_id
             WHERE channels.organization_id = $1 AND channels.removed_at IS NULL
             GROUP BY servers.id, servers.name ORDER BY COUNT(*) DESC, servers.id LIMIT $2",
        )
        .bind(organization.to_string())
        .bind(i64::from(most))
        .fetch_all(self.db())
        .await?;
        each(rows, |row| {
            Ok(ServerCountRow {
                server: row.parsed("server_id")?,
                name: row.text("server_name")?,
                channels: row.number("number")?,
            })
        })
    }

    async fn busiest_servers(
        &mut self,
        organization: OrganizationId,
        most: u32,
    ) -> StorageResult<Vec<ServerConnectionsRow>> {
        // A server that is connected with itself is one connection's both ends.
        let rows = query(
            "SELECT ends.server_id, servers.name AS server_name, COUNT(*) AS number FROM (
                 SELECT sender_server_id AS server_id FROM connections
                 WHERE sender_organization = $1 AND ended = FALSE AND sender_server_id IS NOT NULL
                 UNION ALL SELECT listener_server_id AS server_id FROM connections
                 WHERE listener_organization = $1 AND ended = FALSE
                 AND (sender_server_id IS NULL OR sender_server_id <> listener_server_id)) AS ends
             LEFT JOIN servers ON servers.id = ends.server_id
             GROUP BY ends.server_id, servers.name ORDER BY COUNT(*) DESC, ends.server_id LIMIT $2",
        )
        .bind(organization.to_string())
        .bind(i64::from(most))
        .fetch_all(self.db())
        .await?;
        each(rows, |row| {
            Ok(ServerConnectionsRow {
                server: row.parsed("server_id")?,
                name: row.text("server_name")?,
                connections: row.number("number")?,
            })
        })
    }

    async fn count_open_grants(&mut self, channel: ChannelId, now: u64) -> StorageResult<u64> {
        let row = query(
            "SELECT COUNT(*) AS number FROM grants WHERE channel_id = $1
             AND status IN ('pending', 'requested', 'active')
             AND (status = 'active' OR (answer_by > $2 AND (expires_at IS NULL OR expires_at > $2)))",
        )
        .bind(channel.to_string())
        .bind(big(now))
        .fetch_one(self.db())
        .await?;
        row.number("number")
    }

    async fn most_granted_channels(
        &mut self,
        organization: OrganizationId,
        most: u32,
        now: u64,
    ) -> StorageResult<Vec<ChannelGrantsRow>> {
        let rows = query(
            "SELECT grants.channel_id, channels.name AS channel_name, COUNT(*) AS number
             FROM grants LEFT JOIN channels ON channels.id = grants.channel_id
             WHERE grants.owner_organization = $1 AND grants.status IN ('pending', 'requested', 'active')
             AND (grants.status = 'active'
                 OR (grants.answer_by > $3 AND (grants.expires_at IS NULL OR grants.expires_at > $3)))
             GROUP BY grants.channel_id, channels.name ORDER BY COUNT(*) DESC, grants.channel_id LIMIT $2",
        )
        .bind(organization.to_string())
        .bind(i64::from(most))
        .bind(big(now))
        .fetch_all(self.db())
        .await?;
        each(rows, |row| {
            Ok(ChannelGrantsRow {
                channel: row.parsed("channel_id")?,
                name: row.text("channel_name")?,
                grants: row.number("number")?,
            })
        })
    }

    async fn platform_organizations(&mut self, slice: &Slice) -> StorageResult<Vec<PlatformOrganizationRow>> {
        let rows = query(
            "SELECT organizations.id, organizations.name, organizations.created_at, organization_tiers.tier
             FROM organizations LEFT JOIN organization_tiers ON organization_tiers.organization_id = organizations.id
             WHERE organizations.id > $1 AND organizations.removed_at IS NULL ORDER BY organizations.id LIMIT $2",
        )
        .bind(&slice.after)
        .bind(limit(slice))
        .fetch_all(self.db())
        .await?;
        each(rows, |row| {
            Ok(PlatformOrganizationRow {
                id: row.parsed("id")?,
                name: row.text("name")?,
                tier: row.maybe_text("tier")?.unwrap_or_default(),
                created_at: row.number("created_at")?,
            })
        })
    }

    async fn vain_requests(
        &mut self,
        from: OrganizationId,
        to: OrganizationId,
        since: u64,
        most: u32,
    ) -> StorageResult<Vec<u64>> {
        let rows = query(
            "SELECT created_at FROM peering_requests
             WHERE from_organization = $1 AND to_organization = $2 AND created_at > $3 AND status <> 'accepted'
             ORDER BY created_at DESC LIMIT $4",
        )
        .bind(from.to_string())
        .bind(to.to_string())
        .bind(big(since))
        .bind(i64::from(most))
        .fetch_all(self.db())
        .await?;
        each(rows, |row| row.number("created_at"))
    }
}

fn tier(row: &Row) -> StorageResult<TierRow> {
    let limit = |column: &str| -> StorageResult<Option<u32>> {
        Ok(row.maybe_number(column)?.map(|number| u32::try_from(number).unwrap_or(u32::MAX)))
    };
    Ok(TierRow {
        name: row.text("name")?,
        max_servers: limit("max_servers")?,
        max_peers: limit("max_peers")?,
        max_channels_per_server: limit("max_channels_per_server")?,
        max_grants_per_channel: limit("max_grants_per_channel")?,
        max_connections_per_server: limit("max_connections_per_server")?,
        admin_read_write: row.flag("admin_read_write")?,
        initial: row.flag("initial")?,
    })
}
