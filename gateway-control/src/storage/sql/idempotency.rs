//! Mutating requests that came with a key, and their answers.

use async_trait::async_trait;

use super::{Columns, SqlTransaction, big, query};
use crate::storage::{Idempotency, IdempotencyRow, KeptAnswer, KeyHolder, StorageError, StorageResult};

/// How a holder is stored. Ids of users have a prefix: none is the operator.
fn named(holder: KeyHolder) -> String {
    match holder {
        KeyHolder::User(user) => user.to_string(),
        KeyHolder::Operator => "operator".to_owned(),
    }
}

/// The user whose end is the end of a key, too.
fn user(holder: KeyHolder) -> Option<String> {
    match holder {
        KeyHolder::User(user) => Some(user.to_string()),
        KeyHolder::Operator => None,
    }
}

#[async_trait]
impl Idempotency for SqlTransaction {
    async fn idempotency_key(
        &mut self,
        holder: KeyHolder,
        key: &str,
        since: u64,
    ) -> StorageResult<Option<IdempotencyRow>> {
        let row =
            query("SELECT * FROM idempotency_keys WHERE holder = $1 AND idempotency_key = $2 AND created_at > $3")
                .bind(named(holder))
                .bind(key)
                .bind(big(since))
                .fetch_optional(self.db())
                .await?;
        row.map(|row| {
            Ok(IdempotencyRow {
                request_hash: row.text("request_hash")?,
                answer: match row.maybe_number("status")?.and_then(|status| u16::try_from(status).ok()) {
                    Some(status) => {
                        let (text, etag) = (row.maybe_text("answer")?, row.maybe_text("etag")?);
                        Some(KeptAnswer { status, text, etag })
                    }
                    None => None,
                },
            })
        })
        .transpose()
    }

    async fn insert_idempotency_key(
        &mut self,
        holder: KeyHolder,
        key: &str,
        request_hash: &str,
        now: u64,
        since: u64,
        keep: u32,
    ) -> StorageResult<()> {
        let claimed = query(
            "INSERT INTO idempotency_keys (holder, user_id, idempotency_key, request_hash, created_at)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (holder, idempotency_key) DO UPDATE SET request_hash = excluded.request_hash,
             created_at = excluded.created_at, status = NULL, answer = NULL, etag = NULL
             WHERE idempotency_keys.created_at <= $6",
        )
        .bind(named(holder))
        .bind(user(holder))
        .bind(key)
        .bind(request_hash)
        .bind(big(now))
        .bind(big(since))
        .execute(self.db())
        .await?;
        if claimed == 0 {
            return Err(StorageError::Duplicate);
        }
        query(
            "DELETE FROM idempotency_keys WHERE holder = $1 AND idempotency_key NOT IN
             (SELECT idempotency_key FROM idempotency_keys WHERE holder = $1
              ORDER BY created_at DESC, idempotency_key DESC LIMIT $2) AND idempotency_key <> $3",
        )
        .bind(named(holder))
        .bind(i64::from(keep))
        .bind(key)
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn put_idempotent_answer(
        &mut self,
        holder: KeyHolder,
        key: &str,
        request_hash: &str,
        answer: &KeptAnswer,
    ) -> StorageResult<()> {
        query(
            "UPDATE idempotency_keys SET status = $4, answer = $5, etag = $6
             WHERE holder = $1 AND idempotency_key = $2 AND request_hash = $3",
        )
        .bind(named(holder))
        .bind(key)
        .bind(request_hash)
        .bind(i64::from(answer.status))
        .bind(&answer.text)
        .bind(&answer.etag)
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn purge_idempotency_keys(&mut self, before: u64) -> StorageResult<()> {
        query("DELETE FROM idempotency_keys WHERE created_at <= $1").bind(big(before)).execute(self.db()).await?;
        Ok(())
    }
}
