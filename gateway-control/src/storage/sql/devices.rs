//! Devices and behaviors.

use async_trait::async_trait;
use gateway_proto::id::{DeviceId, OrganizationId, ServerId};

use super::{Columns, Row, SqlTransaction, big, each, json, key, limit, query, word};
use crate::storage::{BehaviorRow, DeviceRow, Devices, Slice, StorageResult};

/// One device.
pub(super) const DEVICE: &str = "SELECT * FROM devices WHERE id = $1";
/// Many.
pub(super) const DEVICES: &str = "SELECT * FROM devices WHERE id IN ({})";

#[async_trait]
impl Devices for SqlTransaction {
    async fn device(&mut self, id: DeviceId) -> StorageResult<Option<DeviceRow>> {
        let row = query(DEVICE).bind(id.to_string()).fetch_optional(self.db()).await?;
        row.as_ref().map(device).transpose()
    }

    async fn devices(&mut self, owner: Option<OrganizationId>, slice: &Slice) -> StorageResult<Vec<DeviceRow>> {
        let rows = match owner {
            Some(organization) => query(
                "SELECT * FROM devices WHERE organization_id = $1 AND id > $2 AND removed_at IS NULL
                     ORDER BY id LIMIT $3",
            )
            .bind(organization.to_string()),
            None => query(
                "SELECT * FROM devices WHERE organization_id IS NULL AND id > $1 AND removed_at IS NULL
                 ORDER BY id LIMIT $2",
            ),
        };
        let rows = rows.bind(&slice.after).bind(limit(slice)).fetch_all(self.db()).await?;
        each(rows, device)
    }

    async fn devices_of_server(&mut self, server: ServerId) -> StorageResult<Vec<DeviceRow>> {
        let rows = query("SELECT * FROM devices WHERE server_id = $1 AND removed_at IS NULL ORDER BY id")
            .bind(server.to_string())
            .fetch_all(self.db())
            .await?;
        each(rows, device)
    }

    async fn count_devices(&mut self, owner: Option<OrganizationId>) -> StorageResult<u64> {
        let row = match owner {
            Some(organization) => query(
                "SELECT COUNT(*) AS number FROM devices
                 WHERE organization_id = $1 AND kind <> 'server' AND removed_at IS NULL",
            )
            .bind(organization.to_string()),
            None => {
                query("SELECT COUNT(*) AS number FROM devices WHERE organization_id IS NULL AND removed_at IS NULL")
            }
        };
        row.fetch_one(self.db()).await?.number("number")
    }

    async fn insert_device(&mut self, row: &DeviceRow) -> StorageResult<()> {
        query(
            "INSERT INTO devices (id, organization_id, kind, name, name_key, description, server_id, behaviors,
             linkable_by, created_at, removed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(row.id.to_string())
        .bind(row.organization.map(|id| id.to_string()))
        .bind(word(&row.kind))
        .bind(&row.name)
        .bind(key(&row.name))
        .bind(&row.description)
        .bind(row.server.map(|id| id.to_string()))
        .bind(json(&row.behaviors))
        .bind(word(&row.linkable_by))
        .bind(big(row.created_at))
        .bind(row.removed_at.map(big))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn update_device(&mut self, row: &DeviceRow) -> StorageResult<()> {
        query(
            "UPDATE devices SET name = $2, name_key = CASE WHEN name = $2 THEN name_key ELSE $3 END,
             description = $4, server_id = $5, behaviors = $6, linkable_by = $7, removed_at = $8 WHERE id = $1",
        )
        .bind(row.id.to_string())
        .bind(&row.name)
        .bind(key(&row.name))
        .bind(&row.description)
        .bind(row.server.map(|id| id.to_string()))
        .bind(json(&row.behaviors))
        .bind(word(&row.linkable_by))
        .bind(row.removed_at.map(big))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn behaviors(&mut self) -> StorageResult<Vec<BehaviorRow>> {
        let rows = query("SELECT * FROM behaviors ORDER BY name").fetch_all(self.db()).await?;
        each(rows, |row| Ok(BehaviorRow { name: row.text("name")?, description: row.text("description")? }))
    }

    async fn put_behavior(&mut self, row: &BehaviorRow) -> StorageResult<()> {
        query(
            "INSERT INTO behaviors (name, description) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET description = excluded.description",
        )
        .bind(&row.name)
        .bind(&row.description)
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn delete_behavior(&mut self, name: &str) -> StorageResult<bool> {
        Ok(query("DELETE FROM behaviors WHERE name = $1").bind(name).execute(self.db()).await? > 0)
    }

    async fn is_behavior_used(&mut self, name: &str) -> StorageResult<bool> {
        // Names are words of a-z, 0-9 and '-': nothing in them is a wildcard, and the quotes of JSON end them.
        let row = query(
            "SELECT (SELECT COUNT(*) FROM channels WHERE behavior = $1 AND removed_at IS NULL)
             + (SELECT COUNT(*) FROM devices WHERE behaviors LIKE $2 AND removed_at IS NULL) AS number",
        )
        .bind(name)
        .bind(format!("%\"{name}\"%"))
        .fetch_one(self.db())
        .await?;
        Ok(row.number("number")? > 0)
    }
}

pub(super) fn device(row: &Row) -> StorageResult<DeviceRow> {
    Ok(DeviceRow {
        id: row.parsed("id")?,
        organization: row.maybe_parsed("organization_id")?,
        kind: row.word("kind")?,
        name: row.text("name")?,
        description: row.text("description")?,
        server: row.maybe_parsed("server_id")?,
        behaviors: row.json("behaviors")?,
        linkable_by: row.word("linkable_by")?,
        created_at: row.number("created_at")?,
        removed_at: row.maybe_number("removed_at")?,
    })
}
