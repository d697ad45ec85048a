//! Channels and grants.

use async_trait::async_trait;
use gateway_proto::{
    id::{AgreementId, ChannelId, GrantId, OrganizationId, ServerId},
    limits::ChannelLimits,
};

use super::{Columns, Row, SqlTransaction, big, containing, each, ids, json, key, limit, query, unreadable};
use crate::storage::{ChannelFilter, ChannelRow, Channels, GrantFilter, GrantRow, Slice, StorageResult};

/// One channel.
pub(super) const CHANNEL: &str = "SELECT * FROM channels WHERE id = $1";
/// Many.
pub(super) const CHANNELS: &str = "SELECT * FROM channels WHERE id IN ({})";

/// One grant.
pub(super) const GRANT: &str = "SELECT * FROM grants WHERE id = $1";
/// Many.
pub(super) const GRANTS: &str = "SELECT * FROM grants WHERE id IN ({})";

/// Open grants of a channel.
pub(super) const GRANTS_OF: &str =
    "SELECT * FROM grants WHERE channel_id = $1 AND status IN ('pending', 'requested', 'active') ORDER BY id";
/// Of many.
pub(super) const GRANTS_OF_ALL: &str =
    "SELECT * FROM grants WHERE channel_id IN ({}) AND status IN ('pending', 'requested', 'active') ORDER BY id";

#[async_trait]
impl Channels for SqlTransaction {
    async fn channel(&mut self, id: ChannelId) -> StorageResult<Option<ChannelRow>> {
        let row = query(CHANNEL).bind(id.to_string()).fetch_optional(self.db()).await?;
        row.as_ref().map(channel).transpose()
    }

    async fn channels(
        &mut self,
        organization: OrganizationId,
        filter: &ChannelFilter,
        slice: &Slice,
    ) -> StorageResult<Vec<ChannelRow>> {
        let rows = query(
            "SELECT * FROM channels WHERE organization_id = $1 AND removed_at IS NULL AND id > $2
             AND ($4 = '' OR server_id = $4) AND ($5 OR published = $6) AND name_key LIKE $7 ESCAPE '!'
             ORDER BY id LIMIT $3",
        )
        .bind(organization.to_string())
        .bind(&slice.after)
        .bind(limit(slice))
        .bind(filter.server.map(|id| id.to_string()).unwrap_or_default())
        .bind(filter.published.is_none())
        .bind(filter.published.unwrap_or_default())
        .bind(containing(&filter.search))
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

    async fn channel_named(&mut self, server: ServerId, name: &str) -> StorageResult<Option<ChannelId>> {
        let row = query("SELECT id FROM channels WHERE server_id = $1 AND name_key = $2 AND removed_at IS NULL")
            .bind(server.to_string())
            .bind(key(name))
            .fetch_optional(self.db())
            .await?;
        row.map(|row| row.parsed("id")).transpose()
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
            "UPDATE channels SET name = $2, name_key = CASE WHEN name = $2 THEN name_key ELSE $3 END, engine = $4,
             published = $5, public_name = $6, public_description = $7, removed_at = $8 WHERE id = $1",
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
        let row = query(GRANT).bind(id.to_string()).fetch_optional(self.db()).await?;
        row.as_ref().map(grant).transpose()
    }

    async fn grants(
        &mut self,
        organization: OrganizationId,
        filter: &GrantFilter,
        slice: &Slice,
        now: u64,
    ) -> StorageResult<Vec<GrantRow>> {
        let text = |text: Option<String>| text.unwrap_or_default();
        let rows = query(
            "SELECT * FROM (
                 SELECT * FROM grants WHERE owner_organization = $1 AND id > $2 AND ($7 OR $8)
                 AND ($4 = '' OR $4 = CASE
                     WHEN status IN ('pending', 'requested') AND answer_by <= $9 THEN 'expired'
                     WHEN status IN ('pending', 'requested', 'active') AND expires_at <= $9 THEN 'expired'
                     ELSE status END)
                 AND ($5 = '' OR agreement_id = $5) AND ($6 = '' OR channel_id = $6)
                 ORDER BY id LIMIT $3) AS given
             UNION SELECT * FROM (
                 SELECT * FROM grants WHERE peer_organization = $1 AND id > $2 AND ($7 OR NOT $8)
                 AND ($4 = '' OR $4 = CASE
                     WHEN status IN ('pending', 'requested') AND answer_by <= $9 THEN 'expired'
                     WHEN status IN ('pending', 'requested', 'active') AND expires_at <= $9 THEN 'expired'
                     ELSE status END)
                 AND ($5 = '' OR agreement_id = $5) AND ($6 = '' OR channel_id = $6)
                 ORDER BY id LIMIT $3) AS received
             ORDER BY id LIMIT $3",
        )
        .bind(organization.to_string())
        .bind(&slice.after)
        .bind(limit(slice))
        .bind(text(filter.status.map(|status| status.as_str().to_owned())))
        .bind(text(filter.agreement.map(|id| id.to_string())))
        .bind(text(filter.channel.map(|id| id.to_string())))
        .bind(filter.given.is_none())
        .bind(filter.given.unwrap_or_default())
        .bind(big(now))
        .fetch_all(self.db())
        .await?;
        each(rows, grant)
    }

    async fn waiting_grant(
        &mut self,
        channel: ChannelId,
        agreement: AgreementId,
        now: u64,
    ) -> StorageResult<Option<GrantRow>> {
        let row = query(
            "SELECT * FROM grants WHERE channel_id = $1 AND agreement_id = $2 AND status IN ('pending', 'requested')
             AND answer_by > $3 AND (expires_at IS NULL OR expires_at > $3) ORDER BY id LIMIT 1",
        )
        .bind(channel.to_string())
        .bind(agreement.to_string())
        .bind(big(now))
        .fetch_optional(self.db())
        .await?;
        row.as_ref().map(grant).transpose()
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

    async fn waiting_grants_of_sender(&mut self, server: ServerId) -> StorageResult<Vec<GrantRow>> {
        let rows = query(
            "SELECT * FROM grants WHERE sender_server_id = $1 AND status IN ('pending', 'requested') ORDER BY id",
        )
        .bind(server.to_string())
        .fetch_all(self.db())
        .await?;
        each(rows, grant)
    }

    async fn open_grants_of_channel(&mut self, channel: ChannelId) -> StorageResult<Vec<GrantRow>> {
        let rows = query(GRANTS_OF).bind(channel.to_string()).fetch_all(self.db()).await?;
        each(rows, grant)
    }

    async fn overdue_grants(&mut self, now: u64, limit: u32) -> StorageResult<Vec<GrantId>> {
        let rows = query(
            "SELECT id FROM grants WHERE id IN (
                 SELECT id FROM (SELECT id FROM grants WHERE status IN ('pending', 'requested') AND answer_by <= $1
                     ORDER BY answer_by LIMIT $2) AS unanswered
                 UNION SELECT id FROM (SELECT id FROM grants WHERE expires_at <= $1 AND expires_at IS NOT NULL
                     AND status IN ('pending', 'requested', 'active') ORDER BY expires_at LIMIT $2) AS over_now)
             ORDER BY id LIMIT $2",
        )
        .bind(big(now))
        .bind(i64::from(limit))
        .fetch_all(self.db())
        .await?;
        ids(&rows)
    }

    async fn insert_grant(&mut self, row: &GrantRow) -> StorageResult<()> {
        query(
            "INSERT INTO grants (id, agreement_id, channel_id, owner_organization, peer_organization, status,
             answer_by, expires_at, max_streams, staleness_secs, require_post_quantum, sender_server_id, sender_port,
             created_at, bytes_per_second, receive_timeout_secs, behaviors)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
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
        .bind(row.limits.bytes_per_second.map(big))
        .bind(row.limits.receive_timeout_secs.map(i64::from))
        .bind((!row.behaviors.is_empty()).then(|| json(&row.behaviors)))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn update_grant(&mut self, row: &GrantRow) -> StorageResult<()> {
        query(
            "UPDATE grants SET status = $2, sender_server_id = $3, sender_port = $4, kept_endpoint = $5, expires_at = $6,
             max_streams = $7, bytes_per_second = $8, receive_timeout_secs = $9
             WHERE id = $1",
        )
        .bind(row.id.to_string())
        .bind(row.status.as_str())
        .bind(row.sender_server.map(|id| id.to_string()))
        .bind(i64::from(row.sender_port))
        .bind(&row.kept_endpoint)
        .bind(row.expires_at.map(big))
        .bind(i64::from(row.max_streams))
        .bind(row.limits.bytes_per_second.map(big))
        .bind(row.limits.receive_timeout_secs.map(i64::from))
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

/// What a grant limits beside its open streams.
pub(super) fn limits(row: &Row) -> StorageResult<ChannelLimits> {
    let secs = row.maybe_number("receive_timeout_secs")?.map(u32::try_from).transpose();
    Ok(ChannelLimits {
        bytes_per_second: row.maybe_number("bytes_per_second")?,
        receive_timeout_secs: secs.map_err(|_| unreadable("receive_timeout_secs"))?,
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
        limits: limits(row)?,
        behaviors: row.maybe_json("behaviors")?.unwrap_or_default(),
        staleness_secs: row.number("staleness_secs")?,
        require_post_quantum: row.flag("require_post_quantum")?,
        sender_server: row.maybe_parsed("sender_server_id")?,
        sender_port: row.small("sender_port")?,
        kept_endpoint: row.maybe_text("kept_endpoint")?,
        created_at: row.number("created_at")?,
    })
}
