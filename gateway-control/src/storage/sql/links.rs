//! Links between devices, and counted executions.

use async_trait::async_trait;
use gateway_proto::id::{DeviceId, LinkId, OrganizationId, TenantId};

use super::{Columns, Row, SqlTransaction, big, devices::device, each, limit, query};
use crate::storage::{DeviceRow, ExecutionsFilter, ExecutionsRow, LinkRow, Links, Slice, StorageResult};

#[async_trait]
impl Links for SqlTransaction {
    async fn link(&mut self, id: LinkId) -> StorageResult<Option<LinkRow>> {
        let row = query("SELECT * FROM links WHERE id = $1").bind(id.to_string()).fetch_optional(self.db()).await?;
        row.as_ref().map(link).transpose()
    }

    async fn links(&mut self, organization: OrganizationId, slice: &Slice) -> StorageResult<Vec<LinkRow>> {
        let rows = query(
            "SELECT * FROM links WHERE (source_organization = $1 OR target_organization = $1) AND id > $2
             ORDER BY id LIMIT $3",
        )
        .bind(organization.to_string())
        .bind(&slice.after)
        .bind(limit(slice))
        .fetch_all(self.db())
        .await?;
        each(rows, link)
    }

    async fn links_of_device(&mut self, id: DeviceId) -> StorageResult<Vec<LinkRow>> {
        let rows = query("SELECT * FROM links WHERE source_device = $1 OR target_device = $1 ORDER BY id")
            .bind(id.to_string())
            .fetch_all(self.db())
            .await?;
        each(rows, link)
    }

    async fn count_links_of_device(&mut self, id: DeviceId) -> StorageResult<u64> {
        let row = query("SELECT COUNT(*) AS number FROM links WHERE source_device = $1 OR target_device = $1")
            .bind(id.to_string())
            .fetch_one(self.db())
            .await?;
        row.number("number")
    }

    async fn links_between(&mut self, one: OrganizationId, other: OrganizationId) -> StorageResult<Vec<LinkRow>> {
        let rows = query(
            "SELECT * FROM links WHERE (source_organization = $1 AND target_organization = $2)
             OR (source_organization = $2 AND target_organization = $1) ORDER BY id",
        )
        .bind(one.to_string())
        .bind(other.to_string())
        .fetch_all(self.db())
        .await?;
        each(rows, link)
    }

    async fn linked_devices(&mut self, source: DeviceId) -> StorageResult<Vec<DeviceRow>> {
        let rows = query(
            "SELECT devices.* FROM devices JOIN links ON links.target_device = devices.id
             WHERE links.source_device = $1 AND devices.removed_at IS NULL ORDER BY devices.id",
        )
        .bind(source.to_string())
        .fetch_all(self.db())
        .await?;
        each(rows, device)
    }

    async fn linkable_devices(
        &mut self,
        organization: OrganizationId,
        tenant: TenantId,
        slice: &Slice,
    ) -> StorageResult<Vec<DeviceRow>> {
        let rows = query(
            "SELECT devices.* FROM devices LEFT JOIN organizations ON organizations.id = devices.organization_id
             WHERE devices.removed_at IS NULL AND devices.id > $3 AND (
                 devices.organization_id IS NULL
                 OR (devices.organization_id <> $1 AND (
                     (organizations.tenant_id = $2 AND devices.linkable_by <> 'organization')
                     OR (devices.linkable_by = 'partners' AND EXISTS (
                         SELECT 1 FROM agreements WHERE agreements.status = 'active' AND (
                             (first_organization = $1 AND second_organization = devices.organization_id)
                             OR (second_organization = $1 AND first_organization = devices.organization_id)))))))
             ORDER BY devices.id LIMIT $4",
        )
        .bind(organization.to_string())
        .bind(tenant.to_string())
        .bind(&slice.after)
        .bind(limit(slice))
        .fetch_all(self.db())
        .await?;
        each(rows, device)
    }

    async fn insert_link(&mut self, row: &LinkRow) -> StorageResult<()> {
        query(
            "INSERT INTO links (id, source_device, source_organization, target_device, target_organization, created_at)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(row.id.to_string())
        .bind(row.source.to_string())
        .bind(row.source_organization.to_string())
        .bind(row.target.to_string())
        .bind(row.target_organization.map(|id| id.to_string()))
        .bind(big(row.created_at))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn delete_link(&mut self, id: LinkId) -> StorageResult<()> {
        query("DELETE FROM links WHERE id = $1").bind(id.to_string()).execute(self.db()).await?;
        Ok(())
    }

    async fn add_executions(&mut self, row: &ExecutionsRow) -> StorageResult<()> {
        query(
            "INSERT INTO executions (organization_id, day, device_id, behavior, number) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (organization_id, day, device_id, behavior)
             DO UPDATE SET number = executions.number + excluded.number",
        )
        .bind(row.organization.to_string())
        .bind(&row.day)
        .bind(row.device.to_string())
        .bind(&row.behavior)
        .bind(big(row.number))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn executions(
        &mut self,
        organization: OrganizationId,
        filter: &ExecutionsFilter,
        slice: &Slice,
    ) -> StorageResult<Vec<ExecutionsRow>> {
        // The key of a row, as the cursor has it.
        let rows = query(
            "SELECT * FROM executions WHERE organization_id = $1 AND day >= $2 AND day <= $3
             AND ($4 = '' OR device_id = $4) AND ($5 = '' OR behavior = $5)
             AND day || ' ' || device_id || ' ' || behavior > $6 ORDER BY day, device_id, behavior LIMIT $7",
        )
        .bind(organization.to_string())
        .bind(&filter.from)
        .bind(&filter.to)
        .bind(filter.device.map(|id| id.to_string()).unwrap_or_default())
        .bind(filter.behavior.clone().unwrap_or_default())
        .bind(&slice.after)
        .bind(limit(slice))
        .fetch_all(self.db())
        .await?;
        each(rows, |row| {
            Ok(ExecutionsRow {
                organization: row.parsed("organization_id")?,
                day: row.text("day")?,
                device: row.parsed("device_id")?,
                behavior: row.text("behavior")?,
                number: row.number("number")?,
            })
        })
    }

    async fn purge_executions(&mut self, before: &str) -> StorageResult<()> {
        query("DELETE FROM executions WHERE day < $1").bind(before).execute(self.db()).await?;
        Ok(())
    }
}

fn link(row: &Row) -> StorageResult<LinkRow> {
    Ok(LinkRow {
        id: row.parsed("id")?,
        source: row.parsed("source_device")?,
        source_organization: row.parsed("source_organization")?,
        target: row.parsed("target_device")?,
        target_organization: row.maybe_parsed("target_organization")?,
        created_at: row.number("created_at")?,
    })
}
