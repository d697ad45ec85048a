//! Channels and grants.

use async_trait::async_trait;
use gateway_proto::id::{AgreementId, ChannelId, GrantId, OrganizationId, ServerId};

use super::{Columns, Row, SqlTransaction, big, each, key, limit, query};
use crate::storage::{ChannelRow, Channels, GrantRow, Slice, StorageResult};

#[async_trait]
impl Channels for SqlTransaction {
    async fn channel(&mut self, id: ChannelId) -> StorageResult<Option<ChannelRow>> {
        let row = query("SELECT * FROM channels WHERE id = $1").bind(id.to_string()).fetch_optional(self.db()).await?;
        row.as_ref().map(channel).transpose()
    }

    async fn channels(&mut self, organization: OrganizationId, slice: &Slice) -> StorageResult<Vec<ChannelRow>> {
        let rows = query(
            "SELECT * FROM channels WHERE organization_id = $1 AND removed_at IS NULL AND id > $2 ORDER BY id LIMIT $3",
        )
        .bind(organization.to_string())
        .bind(&slice.after)
        .bind(limit(slice))
        .fetch_all(self.db())
        .await?;
        each(rows, channel)
    }

    async fn channels_of_server(&mut self, server: ServerId) -> StorageResult<Vec<ChannelRow>> {
        let rows = query("SELECT * FROM channels WHERE server_id = $1 AND removed_at IS NULL ORDER BY id")
            .bind(server.to_string())
            .fetch_all(self.db())
            .await?;
        each(rows, channel)
    }

    async fn endpoints(&mut self, organization: OrganizationId, slice: &Slice) -> StorageResult<Vec<ChannelRow>> {
        let rows = query(
            "SELECT * FROM channels
             WHERE organization_id = $1 AND published AND removed_at IS NULL AND id > $2 ORDER BY id LIMIT $3",
        )
        .bind(organization.to_string())
        .bind(&slice.after)
        .bind(limit(slice))
        .fetch_all(self.db())
        .await?;
        each(rows, channel)
    }

    async fn insert_channel(&mut self, row: &ChannelRow) -> StorageResult<()> {
        query(
            "INSERT INTO channels (id, organization_id, server_id, name, name_key, engine, behavior, published,
             public_name, public_description, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(row.id.to_string())
        .bind(row.organization.to_string())
        .bind(row.server.to_string())
        .bind(&row.name)
        .bind(key(&row.name))
        .bind(&row.engine)
        .bind(&row.behavior)
        .bind(row.published)
        .bind(&row.public_name)
        .bind(&row.public_description)
        .bind(big(row.created_at))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn update_channel(&mut self, row: &ChannelRow) -> StorageResult<()> {
        query(
            "UPDATE channels SET name = $2, name_key = $3, engine = $4, published = $5, public_name = $6,
             public_description = $7, removed_at = $8 WHERE id = $1",
        )
        .bind(row.id.to_string())
        .bind(&row.name)
        .bind(key(&row.name))
        .bind(&row.engine)
        .bind(row.published)
        .bind(&row.public_name)
        .bind(&row.public_description)
        .bind(row.removed_at.map(big))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn grant(&mut self, id: GrantId) -> StorageResult<Option<GrantRow>> {
        let row = query("SELECT * FROM grants WHERE id = $1").bind(id.to_string()).fetch_optional(self.db()).await?;
        row.as_ref().map(grant).transpose()
    }

    async fn grants(&mut self, organization: OrganizationId, slice: &Slice) -> StorageResult<Vec<GrantRow>> {
        let rows = query(
            "SELECT * FROM grants
             WHERE (owner_organization = $1 OR peer_organization = $1) AND id > $2 ORDER BY id LIMIT $3",
        )
        .bind(organization.to_string())
        .bind(&slice.after)
        .bind(limit(slice))
        .fetch_all(self.db())
        .await?;
        each(rows, grant)
    }

    async fn open_grants_of_agreement(&mut self, agreement: AgreementId) -> StorageResult<Vec<GrantRow>> {
        let rows = query(
            "SELECT * FROM grants
             WHERE agreement_id = $1 AND status IN ('pending', 'requested', 'active') ORDER BY id",
        )
        .bind(agreement.to_string())
        .fetch_all(self.db())
        .await?;
        each(rows, grant)
    }

    async fn open_grants_of_channel(&mut self, channel: ChannelId) -> StorageResult<Vec<GrantRow>> {
        let rows = query(
            "SELECT * FROM grants WHERE channel_id = $1 AND status IN ('pending', 'requested', 'active') ORDER BY id",
        )
        .bind(channel.to_string())
        .fetch_all(self.db())
        .await?;
        each(rows, grant)
    }

    async fn overdue_grants(&mut self, now: u64, limit: u32) -> StorageResult<Vec<GrantRow>> {
        let rows = query(
            "SELECT * FROM grants WHERE (status IN ('pending', 'requested') AND answer_by <= $1)
             OR (expires_at IS NOT NULL AND expires_at <= $1 AND status IN ('pending', 'requested', 'active'))
             ORDER BY id LIMIT $2",
        )
        .bind(big(now))
        .bind(i64::from(limit))
        .fetch_all(self.db())
        .await?;
        each(rows, grant)
    }

    async fn insert_grant(&mut self, row: &GrantRow) -> StorageResult<()> {
        query(
            "INSERT INTO grants (id, agreement_id, channel_id, owner_organization, peer_organization, status,
             answer_by, expires_at, max_streams, staleness_secs, require_post_quantum, sender_server_id, sender_port,
             created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        )
        .bind(row.id.to_string())
        .bind(row.agreement.to_string())
        .bind(row.channel.to_string())
        .bind(row.owner.to_string())
        .bind(row.peer.to_string())
        .bind(row.status.as_str())
        .bind(big(row.answer_by))
        .bind(row.expires_at.map(big))
        .bind(i64::from(row.max_streams))
        .bind(big(row.staleness_secs))
        .bind(row.require_post_quantum)
        .bind(row.sender_server.map(|id| id.to_string()))
        .bind(i64::from(row.sender_port))
        .bind(big(row.created_at))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn update_grant(&mut self, row: &GrantRow) -> StorageResult<()> {
        query("UPDATE grants SET status = $2, sender_server_id = $3, sender_port = $4 WHERE id = $1")
            .bind(row.id.to_string())
            .bind(row.status.as_str())
            .bind(row.sender_server.map(|id| id.to_string()))
            .bind(i64::from(row.sender_port))
            .execute(self.db())
            .await?;
        Ok(())
    }
}

fn channel(row: &Row) -> StorageResult<ChannelRow> {
    Ok(ChannelRow {
        id: row.parsed("id")?,
        organization: row.parsed("organization_id")?,
        server: row.parsed("server_id")?,
        name: row.text("name")?,
        engine: row.text("engine")?,
        behavior: row.text("behavior")?,
        published: row.flag("published")?,
        public_name: row.text("public_name")?,
        public_description: row.text("public_description")?,
        created_at: row.number("created_at")?,
        removed_at: row.maybe_number("removed_at")?,
    })
}

fn grant(row: &Row) -> StorageResult<GrantRow> {
    Ok(GrantRow {
        id: row.parsed("id")?,
        agreement: row.parsed("agreement_id")?,
        channel: row.parsed("channel_id")?,
        owner: row.parsed("owner_organization")?,
        peer: row.parsed("peer_organization")?,
        status: row.parsed("status")?,
        answer_by: row.number("answer_by")?,
        expires_at: row.maybe_number("expires_at")?,
        max_streams: row.small("max_streams")?,
        staleness_secs: row.number("staleness_secs")?,
        require_post_quantum: row.flag("require_post_quantum")?,
        sender_server: row.maybe_parsed("sender_server_id")?,
        sender_port: row.small("sender_port")?,
        created_at: row.number("created_at")?,
    })
}
