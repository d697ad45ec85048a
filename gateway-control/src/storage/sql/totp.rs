//! Second factors.

use async_trait::async_trait;
use gateway_proto::id::UserId;

use super::{Columns, SqlTransaction, big, query};
use crate::storage::{Sealed, SecondFactors, StorageResult, TotpRow};

#[async_trait]
impl SecondFactors for SqlTransaction {
    async fn totp(&mut self, user: UserId) -> StorageResult<Option<TotpRow>> {
        let row = query("SELECT * FROM user_totp WHERE user_id = $1")
            .bind(user.to_string())
            .fetch_optional(self.db())
            .await?;
        row.map(|row| {
            Ok(TotpRow {
                user: row.parsed("user_id")?,
                secret: Sealed(row.text("sealed_secret")?),
                confirmed: row.flag("confirmed")?,
                last_step: row.number("last_step")?,
                created_at: row.number("created_at")?,
            })
        })
        .transpose()
    }

    async fn put_totp(&mut self, row: &TotpRow) -> StorageResult<()> {
        query(
            "INSERT INTO user_totp (user_id, sealed_secret, confirmed, last_step, created_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (user_id) DO UPDATE SET sealed_secret = excluded.sealed_secret,
             confirmed = excluded.confirmed, last_step = excluded.last_step, created_at = excluded.created_at",
        )
        .bind(row.user.to_string())
        .bind(&row.secret.0)
        .bind(row.confirmed)
        .bind(big(row.last_step))
        .bind(big(row.created_at))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn delete_totp(&mut self, user: UserId) -> StorageResult<()> {
        let id = user.to_string();
        query("DELETE FROM user_totp WHERE user_id = $1").bind(&id).execute(self.db()).await?;
        query("DELETE FROM recovery_codes WHERE user_id = $1").bind(&id).execute(self.db()).await?;
        Ok(())
    }

    async fn insert_recovery_code(&mut self, user: UserId, hash: &str) -> StorageResult<()> {
        query("INSERT INTO recovery_codes (code_hash, user_id) VALUES ($1, $2)")
            .bind(hash)
            .bind(user.to_string())
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn use_recovery_code(&mut self, user: UserId, hash: &str) -> StorageResult<bool> {
        let used = query("DELETE FROM recovery_codes WHERE code_hash = $1 AND user_id = $2")
            .bind(hash)
            .bind(user.to_string())
            .execute(self.db())
            .await?;
        Ok(used > 0)
    }

    async fn count_recovery_codes(&mut self, user: UserId) -> StorageResult<u64> {
        let row = query("SELECT COUNT(*) AS number FROM recovery_codes WHERE user_id = $1")
            .bind(user.to_string())
            .fetch_one(self.db())
            .await?;
        row.number("number")
    }
}
