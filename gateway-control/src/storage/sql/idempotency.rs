//! Mutating requests that came with a key, and their answers.

use async_trait::async_trait;
use gateway_proto::id::UserId;

use super::{Columns, SqlTransaction, big, query};
use crate::storage::{Idempotency, IdempotencyRow, StorageResult};

#[async_trait]
impl Idempotency for SqlTransaction {
    async fn idempotency_key(&mut self, user: UserId, key: &str, since: u64) -> StorageResult<Option<IdempotencyRow>> {
        let row =
            query("SELECT * FROM idempotency_keys WHERE user_id = $1 AND idempotency_key = $2 AND created_at > $3")
                .bind(user.to_string())
                .bind(key)
                .bind(big(since))
                .fetch_optional(self.db())
                .await?;
        row.map(|row| {
            Ok(IdempotencyRow {
                request_hash: row.text("request_hash")?,
                status: row.maybe_number("status")?.and_then(|status| u16::try_from(status).ok()),
                answer: row.maybe_text("answer")?,
            })
        })
        .transpose()
    }

    async fn insert_idempotency_key(
        &mut self,
        user: UserId,
        key: &str,
        request_hash: &str,
        now: u64,
        keep: u32,
    ) -> StorageResult<()> {
        query(
            "INSERT INTO idempotency_keys (user_id, idempotency_key, request_hash, created_at) VALUES ($1, $2, $3, $4)",
        )
        .bind(user.to_string())
        .bind(key)
        .bind(request_hash)
        .bind(big(now))
        .execute(self.db())
        .await?;
        query(
            "DELETE FROM idempotency_keys WHERE user_id = $1 AND idempotency_key NOT IN
             (SELECT idempotency_key FROM idempotency_keys WHERE user_id = $1
              ORDER BY created_at DESC, idempotency_key DESC LIMIT $2) AND idempotency_key <> $3",
        )
        .bind(user.to_string())
        .bind(i64::from(keep))
        .bind(key)
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn put_idempotent_answer(
        &mut self,
        user: UserId,
        key: &str,
        request_hash: &str,
        status: u16,
        answer: Option<&str>,
    ) -> StorageResult<()> {
        query(
            "UPDATE idempotency_keys SET status = $4, answer = $5
             WHERE user_id = $1 AND idempotency_key = $2 AND request_hash = $3",
        )
        .bind(user.to_string())
        .bind(key)
        .bind(request_hash)
        .bind(i64::from(status))
        .bind(answer.map(str::to_owned))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn purge_idempotency_keys(&mut self, before: u64) -> StorageResult<()> {
        query("DELETE FROM idempotency_keys WHERE created_at <= $1").bind(big(before)).execute(self.db()).await?;
        Ok(())
    }
}
