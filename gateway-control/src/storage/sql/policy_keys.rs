//! The keys that sign policies, and the tokens of the platform.

use async_trait::async_trait;
use gateway_proto::identity::GatewayPublicKey;

use super::{Columns, SqlTransaction, big, each, json, query, word};
use crate::storage::{PlatformTokenRow, PolicyKeyRow, PolicyKeys, Sealed, StorageResult};

#[async_trait]
impl PolicyKeys for SqlTransaction {
    async fn policy_keys(&mut self) -> StorageResult<Vec<PolicyKeyRow>> {
        let rows = query("SELECT * FROM policy_keys ORDER BY number").fetch_all(self.db()).await?;
        each(rows, |row| {
            Ok(PolicyKeyRow {
                number: row.number("number")?,
                key: row.parsed("public_key")?,
                seed: row.maybe_text("sealed_seed")?.map(Sealed),
                state: row.word("state")?,
                signs_from: row.number("signs_from")?,
                link: row.maybe_json("link")?,
                created_at: row.number("created_at")?,
            })
        })
    }

    async fn put_policy_key(&mut self, row: &PolicyKeyRow) -> StorageResult<()> {
        query(
            "INSERT INTO policy_keys (number, public_key, sealed_seed, state, signs_from, link, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (number) DO UPDATE SET sealed_seed = excluded.sealed_seed, state = excluded.state",
        )
        .bind(big(row.number))
        .bind(row.key.to_string())
        .bind(row.seed.as_ref().map(|seed| seed.0.clone()))
        .bind(word(&row.state))
        .bind(big(row.signs_from))
        .bind(row.link.as_ref().map(json))
        .bind(big(row.created_at))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn delete_policy_key(&mut self, key: GatewayPublicKey) -> StorageResult<()> {
        query("DELETE FROM policy_keys WHERE public_key = $1").bind(key.to_string()).execute(self.db()).await?;
        Ok(())
    }

    async fn gateways_behind(&mut self) -> StorageResult<u64> {
        let row = query(
            "SELECT COUNT(*) AS number FROM servers WHERE gateway_key IS NOT NULL AND removed_at IS NULL
             AND (stale OR applied_revision < (SELECT keys_since FROM policies WHERE server_id = servers.id))",
        )
        .fetch_one(self.db())
        .await?;
        row.number("number")
    }

    async fn has_gateways(&mut self) -> StorageResult<bool> {
        let any = "SELECT id FROM servers WHERE gateway_key IS NOT NULL AND removed_at IS NULL LIMIT 1";
        Ok(query(any).fetch_optional(self.db()).await?.is_some())
    }

    async fn platform_tokens(&mut self, kind: &str) -> StorageResult<Vec<PlatformTokenRow>> {
        let rows = query("SELECT * FROM platform_tokens WHERE kind = $1 ORDER BY created_at, token_hash")
            .bind(kind)
            .fetch_all(self.db())
            .await?;
        each(rows, |row| {
            Ok(PlatformTokenRow {
                hash: row.text("token_hash")?,
                expires_at: row.maybe_number("expires_at")?,
                created_at: row.number("created_at")?,
            })
        })
    }

    async fn put_platform_token(&mut self, kind: &str, row: &PlatformTokenRow) -> StorageResult<()> {
        query(
            "INSERT INTO platform_tokens (kind, token_hash, expires_at, created_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (kind, token_hash) DO UPDATE SET expires_at = excluded.expires_at",
        )
        .bind(kind)
        .bind(&row.hash)
        .bind(row.expires_at.map(big))
        .bind(big(row.created_at))
        .execute(self.db())
        .await?;
        Ok(())
    }
}
