//! Shared servers.

use async_trait::async_trait;
use gateway_proto::id::{AgreementId, OrganizationId, ServerId, ShareId};

use super::{Columns, Row, SqlTransaction, big, connections::connection, each, ids, json, limit, query, word};
use crate::storage::{ConnectionRow, ShareRow, Shares, Slice, StorageResult};

/// Those of a share.
pub(super) const CONNECTIONS_OF: &str = "SELECT * FROM connections WHERE NOT ended AND share_id = $1 ORDER BY id";
/// Of many.
pub(super) const CONNECTIONS_OF_ALL: &str =
    "SELECT * FROM connections WHERE NOT ended AND share_id IN ({}) ORDER BY id";

#[async_trait]
impl Shares for SqlTransaction {
    async fn share(&mut self, id: ShareId) -> StorageResult<Option<ShareRow>> {
        let row =
            query("SELECT * FROM server_shares WHERE id = $1").bind(id.to_string()).fetch_optional(self.db()).await?;
        row.as_ref().map(share).transpose()
    }

    async fn shares(
        &mut self,
        organization: OrganizationId,
        ended: bool,
        slice: &Slice,
        now: u64,
    ) -> StorageResult<Vec<ShareRow>> {
        let rows = query(
            "SELECT * FROM (
                 SELECT * FROM server_shares WHERE owner_organization = $1 AND id > $3
                 AND ($2 OR (ended_at IS NULL AND (expires_at IS NULL OR expires_at > $5)))
                 ORDER BY id LIMIT $4) AS given
             UNION SELECT * FROM (
                 SELECT * FROM server_shares WHERE peer_organization = $1 AND id > $3
                 AND ($2 OR (ended_at IS NULL AND (expires_at IS NULL OR expires_at > $5)))
                 ORDER BY id LIMIT $4) AS received
             ORDER BY id LIMIT $4",
        )
        .bind(organization.to_string())
        .bind(ended)
        .bind(&slice.after)
        .bind(limit(slice))
        .bind(big(now))
        .fetch_all(self.db())
        .await?;
        each(rows, share)
    }

    async fn open_shares_of_agreement(&mut self, agreement: AgreementId) -> StorageResult<Vec<ShareRow>> {
        let rows = query("SELECT * FROM server_shares WHERE ended_at IS NULL AND agreement_id = $1 ORDER BY id")
            .bind(agreement.to_string())
            .fetch_all(self.db())
            .await?;
        each(rows, share)
    }

    async fn open_shares_of_server(&mut self, server: ServerId) -> StorageResult<Vec<ShareRow>> {
        let rows = query("SELECT * FROM server_shares WHERE ended_at IS NULL AND server_id = $1 ORDER BY id")
            .bind(server.to_string())
            .fetch_all(self.db())
            .await?;
        each(rows, share)
    }

    async fn overdue_shares(&mut self, now: u64, limit: u32) -> StorageResult<Vec<ShareId>> {
        let rows = query(
            "SELECT id FROM server_shares WHERE ended_at IS NULL AND expires_at <= $1 ORDER BY expires_at LIMIT $2",
        )
        .bind(big(now))
        .bind(i64::from(limit))
        .fetch_all(self.db())
        .await?;
        ids(&rows)
    }

    async fn open_connections_of_share(&mut self, share: ShareId) -> StorageResult<Vec<ConnectionRow>> {
        let rows = query(CONNECTIONS_OF).bind(share.to_string()).fetch_all(self.db()).await?;
        each(rows, connection)
    }

    async fn insert_share(&mut self, row: &ShareRow) -> StorageResult<()> {
        query(
            "INSERT INTO server_shares (id, agreement_id, server_id, owner_organization, peer_organization, level,
             scope, expires_at, created_at, shared_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(row.id.to_string())
        .bind(row.agreement.to_string())
        .bind(row.server.to_string())
        .bind(row.owner.to_string())
        .bind(row.peer.to_string())
        .bind(word(&row.level))
        .bind(json(&row.scope))
        .bind(row.expires_at.map(big))
        .bind(big(row.created_at))
        .bind(row.shared_by.map(|id| id.to_string()))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn update_share(&mut self, row: &ShareRow) -> StorageResult<()> {
        query("UPDATE server_shares SET ended_at = $2 WHERE id = $1")
            .bind(row.id.to_string())
            .bind(row.ended_at.map(big))
            .execute(self.db())
            .await?;
        Ok(())
    }
}

fn share(row: &Row) -> StorageResult<ShareRow> {
    Ok(ShareRow {
        id: row.parsed("id")?,
        agreement: row.parsed("agreement_id")?,
        server: row.parsed("server_id")?,
        owner: row.parsed("owner_organization")?,
        peer: row.parsed("peer_organization")?,
        shared_by: row.maybe_parsed("shared_by")?,
        level: row.word("level")?,
        scope: row.json("scope")?,
        expires_at: row.maybe_number("expires_at")?,
        created_at: row.number("created_at")?,
        ended_at: row.maybe_number("ended_at")?,
    })
}
