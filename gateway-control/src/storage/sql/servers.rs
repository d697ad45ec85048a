//! Servers and their gateways.

use async_trait::async_trait;
use gateway_proto::{
    id::{AgreementId, OrganizationId, ServerId},
    identity::GatewayPublicKey,
    twice::Seat,
};

use super::{Columns, Row, SqlTransaction, big, each, ids, json, key, limit, query};
use crate::storage::{ServerRow, Servers, Slice, StorageError, StorageResult};

/// One server.
pub(super) const SERVER: &str = "SELECT * FROM servers WHERE id = $1";
/// Many.
pub(super) const SERVERS: &str = "SELECT * FROM servers WHERE id IN ({})";

#[async_trait]
impl Servers for SqlTransaction {
    async fn server(&mut self, id: ServerId) -> StorageResult<Option<ServerRow>> {
        let row = query(SERVER).bind(id.to_string()).fetch_optional(self.db()).await?;
        row.as_ref().map(server).transpose()
    }

    async fn server_by_gateway(&mut self, key: GatewayPublicKey) -> StorageResult<Option<ServerRow>> {
        let row = query("SELECT * FROM servers WHERE gateway_key = $1")
            .bind(key.to_string())
            .fetch_optional(self.db())
            .await?;
        row.as_ref().map(server).transpose()
    }

    async fn servers(&mut self, organization: OrganizationId, slice: &Slice) -> StorageResult<Vec<ServerRow>> {
        let rows = query(
            "SELECT * FROM servers WHERE organization_id = $1 AND removed_at IS NULL AND id > $2 ORDER BY id LIMIT $3",
        )
        .bind(organization.to_string())
        .bind(&slice.after)
        .bind(limit(slice))
        .fetch_all(self.db())
        .await?;
        each(rows, server)
    }

    async fn insert_server(&mut self, row: &ServerRow) -> StorageResult<()> {
        query(
            "INSERT INTO servers (id, organization_id, name, name_key, applied_revision, stale, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(row.id.to_string())
        .bind(row.organization.to_string())
        .bind(&row.name)
        .bind(key(&row.name))
        .bind(big(row.applied_revision))
        .bind(row.stale)
        .bind(big(row.created_at))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn update_server(&mut self, row: &ServerRow) -> StorageResult<()> {
        query(
            "UPDATE servers SET name = $2, name_key = CASE WHEN name = $2 THEN name_key ELSE $3 END, gateway_key = $4,
             noise = $5, gateway_version = $6, last_seen_at = $7, home_relay = $8, applied_revision = $9,
             policy_problem = $10, stale = $11, removed_at = $12 WHERE id = $1",
        )
        .bind(row.id.to_string())
        .bind(&row.name)
        .bind(key(&row.name))
        .bind(row.gateway.map(|key| key.to_string()))
        .bind(row.noise.as_ref().map(json))
        .bind(&row.gateway_version)
        .bind(row.last_seen_at.map(big))
        .bind(row.home_relay.map(|id| id.to_string()))
        .bind(big(row.applied_revision))
        .bind(&row.policy_problem)
        .bind(row.stale)
        .bind(row.removed_at.map(big))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn set_seat(&mut self, id: ServerId, seat: &Seat) -> StorageResult<()> {
        query("UPDATE servers SET seat = $2 WHERE id = $1")
            .bind(id.to_string())
            .bind(json(seat))
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn neighbours(&mut self, server: ServerId) -> StorageResult<Vec<ServerId>> {
        let rows = query(
            "SELECT listener_server_id AS id FROM connections WHERE NOT ended AND sender_server_id = $1
             UNION SELECT sender_server_id AS id FROM connections
             WHERE NOT ended AND listener_server_id = $1 AND sender_server_id IS NOT NULL",
        )
        .bind(server.to_string())
        .fetch_all(self.db())
        .await?;
        ids(&rows)
    }

    async fn neighbours_of_organization(&mut self, organization: OrganizationId) -> StorageResult<Vec<ServerId>> {
        let rows = query(
            "SELECT listener_server_id AS id FROM connections WHERE sender_organization = $1 AND ended = FALSE
             UNION SELECT sender_server_id AS id FROM connections
             WHERE listener_organization = $1 AND ended = FALSE AND sender_server_id IS NOT NULL",
        )
        .bind(organization.to_string())
        .fetch_all(self.db())
        .await?;
        ids(&rows)
    }

    async fn servers_of_agreement(&mut self, agreement: AgreementId) -> StorageResult<Vec<ServerId>> {
        let rows = query(
            "SELECT listener_server_id AS id FROM connections WHERE NOT ended AND agreement_id = $1
             UNION SELECT sender_server_id AS id FROM connections
             WHERE NOT ended AND agreement_id = $1 AND sender_server_id IS NOT NULL",
        )
        .bind(agreement.to_string())
        .fetch_all(self.db())
        .await?;
        ids(&rows)
    }

    async fn insert_removed_gateway(&mut self, key: GatewayPublicKey, at: u64) -> StorageResult<()> {
        self.delete_removed_gateway(key).await?;
        query("INSERT INTO removed_gateways (gateway_key, removed_at) VALUES ($1, $2)")
            .bind(key.to_string())
            .bind(big(at))
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn delete_removed_gateway(&mut self, key: GatewayPublicKey) -> StorageResult<()> {
        query("DELETE FROM removed_gateways WHERE gateway_key = $1").bind(key.to_string()).execute(self.db()).await?;
        Ok(())
    }

    async fn is_removed_gateway(&mut self, key: GatewayPublicKey) -> StorageResult<bool> {
        let row = query("SELECT 1 FROM removed_gateways WHERE gateway_key = $1")
            .bind(key.to_string())
            .fetch_optional(self.db())
            .await?;
        Ok(row.is_some())
    }
}

pub(super) fn server(row: &Row) -> StorageResult<ServerRow> {
    let noise = row.maybe_text("noise")?;
    Ok(ServerRow {
        id: row.parsed("id")?,
        organization: row.parsed("organization_id")?,
        name: row.text("name")?,
        gateway: row.maybe_parsed("gateway_key")?,
        noise: noise
            .map(|text| serde_json::from_str(&text).map_err(|_| StorageError::Unreadable("noise".to_owned())))
            .transpose()?,
        gateway_version: row.maybe_text("gateway_version")?,
        last_seen_at: row.maybe_number("last_seen_at")?,
        home_relay: row.maybe_parsed("home_relay")?,
        applied_revision: row.number("applied_revision")?,
        policy_problem: row.maybe_text("policy_problem")?,
        audit_alarm: row.flag("audit_alarm")?,
        seat: row.maybe_text("seat")?,
        stale: row.flag("stale")?,
        policy_floor: row.number("policy_floor")?,
        created_at: row.number("created_at")?,
        removed_at: row.maybe_number("removed_at")?,
    })
}
