//! Tokens of devices, and the keys that sign them.

use async_trait::async_trait;
use gateway_proto::id::{DeviceId, DeviceTokenId, OrganizationId};

use super::{Columns, Row, SqlTransaction, big, each, limit, query};
use crate::storage::{DeviceTokenRow, DeviceTokens, Sealed, Slice, StorageResult, TokenKeyRow};

#[async_trait]
impl DeviceTokens for SqlTransaction {
    async fn device_token(&mut self, id: DeviceTokenId) -> StorageResult<Option<DeviceTokenRow>> {
        let row =
            query("SELECT * FROM device_tokens WHERE id = $1").bind(id.to_string()).fetch_optional(self.db()).await?;
        row.as_ref().map(token).transpose()
    }

    async fn device_tokens(
        &mut self,
        organization: OrganizationId,
        device: Option<DeviceId>,
        now: u64,
        slice: &Slice,
    ) -> StorageResult<Vec<DeviceTokenRow>> {
        let rows = query(
            "SELECT * FROM device_tokens WHERE organization_id = $1 AND (device_id = $2 OR $3) AND expires_at > $4
             AND id > $5 ORDER BY id LIMIT $6",
        )
        .bind(organization.to_string())
        .bind(device.map(|id| id.to_string()).unwrap_or_default())
        .bind(device.is_none())
        .bind(big(now))
        .bind(&slice.after)
        .bind(limit(slice))
        .fetch_all(self.db())
        .await?;
        each(rows, token)
    }

    async fn count_device_tokens(&mut self, device: DeviceId, now: u64) -> StorageResult<u64> {
        let row = query("SELECT COUNT(*) AS number FROM device_tokens WHERE device_id = $1 AND expires_at > $2")
            .bind(device.to_string())
            .bind(big(now))
            .fetch_one(self.db())
            .await?;
        row.number("number")
    }

    async fn insert_device_token(&mut self, row: &DeviceTokenRow) -> StorageResult<()> {
        query(
            "INSERT INTO device_tokens (id, device_id, organization_id, audience, kid, key_thumbprint, issued_by,
             expires_at, revoked_at, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(row.id.to_string())
        .bind(row.device.to_string())
        .bind(row.organization.to_string())
        .bind(&row.audience)
        .bind(&row.kid)
        .bind(&row.key_thumbprint)
        .bind(&row.issued_by)
        .bind(big(row.expires_at))
        .bind(row.revoked_at.map(big))
        .bind(big(row.created_at))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn revoke_device_token(&mut self, id: DeviceTokenId, now: u64) -> StorageResult<()> {
        query("UPDATE device_tokens SET revoked_at = $2 WHERE id = $1")
            .bind(id.to_string())
            .bind(big(now))
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn revoke_tokens_of_device(&mut self, device: DeviceId, now: u64) -> StorageResult<u64> {
        query("UPDATE device_tokens SET revoked_at = $2 WHERE device_id = $1 AND revoked_at IS NULL")
            .bind(device.to_string())
            .bind(big(now))
            .execute(self.db())
            .await
    }

    async fn revoke_tokens_issued_by(
        &mut self,
        organization: OrganizationId,
        issuer: &str,
        now: u64,
    ) -> StorageResult<u64> {
        query(
            "UPDATE device_tokens SET revoked_at = $3 WHERE organization_id = $1 AND issued_by = $2
             AND revoked_at IS NULL AND expires_at > $3",
        )
        .bind(organization.to_string())
        .bind(issuer)
        .bind(big(now))
        .execute(self.db())
        .await
    }

    async fn revoke_all_device_tokens(&mut self, now: u64) -> StorageResult<u64> {
        query("UPDATE device_tokens SET revoked_at = $1 WHERE revoked_at IS NULL")
            .bind(big(now))
            .execute(self.db())
            .await
    }

    async fn purge_device_tokens(&mut self, now: u64) -> StorageResult<()> {
        query("DELETE FROM device_tokens WHERE expires_at <= $1").bind(big(now)).execute(self.db()).await?;
        Ok(())
    }

    async fn token_keys(&mut self) -> StorageResult<Vec<TokenKeyRow>> {
        let rows = query("SELECT * FROM token_keys ORDER BY signs_from, kid").fetch_all(self.db()).await?;
        each(rows, |row| {
            Ok(TokenKeyRow {
                kid: row.text("kid")?,
                public: row.text("public_key")?,
                seed: Sealed(row.text("sealed_seed")?),
                signs_from: row.number("signs_from")?,
                created_at: row.number("created_at")?,
            })
        })
    }

    async fn insert_token_key(&mut self, row: &TokenKeyRow) -> StorageResult<()> {
        query(
            "INSERT INTO token_keys (kid, public_key, sealed_seed, signs_from, created_at) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(&row.kid)
        .bind(&row.public)
        .bind(&row.seed.0)
        .bind(big(row.signs_from))
        .bind(big(row.created_at))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn delete_token_key(&mut self, kid: &str) -> StorageResult<()> {
        query("DELETE FROM token_keys WHERE kid = $1").bind(kid).execute(self.db()).await?;
        Ok(())
    }

    async fn token_terms(&mut self) -> StorageResult<(u64, u64)> {
        let row = query("SELECT default_secs, max_secs FROM token_terms").fetch_one(self.db()).await?;
        Ok((row.number("default_secs")?, row.number("max_secs")?))
    }

    async fn put_token_terms(&mut self, default_secs: u64, max_secs: u64) -> StorageResult<()> {
        query("UPDATE token_terms SET default_secs = $1, max_secs = $2")
            .bind(big(default_secs))
            .bind(big(max_secs))
            .execute(self.db())
            .await?;
        Ok(())
    }
}

fn token(row: &Row) -> StorageResult<DeviceTokenRow> {
    Ok(DeviceTokenRow {
        id: row.parsed("id")?,
        device: row.parsed("device_id")?,
        organization: row.parsed("organization_id")?,
        audience: row.text("audience")?,
        kid: row.text("kid")?,
        key_thumbprint: row.maybe_text("key_thumbprint")?,
        issued_by: row.text("issued_by")?,
        expires_at: row.number("expires_at")?,
        revoked_at: row.maybe_number("revoked_at")?,
        created_at: row.number("created_at")?,
    })
}
