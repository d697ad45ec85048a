//! The audit log, and what time alone removes.

use async_trait::async_trait;
use gateway_proto::api::platform::AuditEntry;

use super::{Columns, Row, SqlTransaction, big, each, query};
use crate::storage::{Audit, AuditRow, StorageResult};

#[async_trait]
impl Audit for SqlTransaction {
    async fn last_audit(&mut self, chain: &str) -> StorageResult<Option<AuditRow>> {
        let row = query("SELECT * FROM audit WHERE chain = $1 ORDER BY sequence DESC LIMIT 1")
            .bind(chain)
            .fetch_optional(self.db())
            .await?;
        row.as_ref().map(entry).transpose()
    }

    async fn append_audit(&mut self, row: &AuditRow) -> StorageResult<()> {
        query(
            "INSERT INTO audit (chain, sequence, id, at, actor, act, object, detail, hash, request_id)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(&row.chain)
        .bind(big(row.entry.sequence))
        .bind(row.entry.id.to_string())
        .bind(big(row.entry.at))
        .bind(&row.entry.actor)
        .bind(&row.entry.act)
        .bind(&row.entry.object)
        .bind(&row.entry.detail)
        .bind(&row.entry.hash)
        .bind(&row.entry.request_id)
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn audit(&mut self, chain: &str, before: u64, limit: u32) -> StorageResult<Vec<AuditRow>> {
        let before = if before == 0 { i64::MAX } else { big(before) };
        let rows = query("SELECT * FROM audit WHERE chain = $1 AND sequence < $2 ORDER BY sequence DESC LIMIT $3")
            .bind(chain)
            .bind(before)
            .bind(i64::from(limit))
            .fetch_all(self.db())
            .await?;
        each(rows, entry)
    }

    async fn audit_after(&mut self, chain: &str, after: u64, limit: u32) -> StorageResult<Vec<AuditRow>> {
        let rows = query("SELECT * FROM audit WHERE chain = $1 AND sequence > $2 ORDER BY sequence LIMIT $3")
            .bind(chain)
            .bind(big(after))
            .bind(i64::from(limit))
            .fetch_all(self.db())
            .await?;
        each(rows, entry)
    }

    async fn purge(&mut self, now: u64, codes: u64, gateways: u64) -> StorageResult<()> {
        query("DELETE FROM sessions WHERE expires_at <= $1").bind(big(now)).execute(self.db()).await?;
        query("DELETE FROM nonces WHERE expires_at <= $1").bind(big(now)).execute(self.db()).await?;
        query("DELETE FROM enrollment_codes WHERE expires_at <= $1").bind(big(codes)).execute(self.db()).await?;
        query("DELETE FROM removed_gateways WHERE removed_at <= $1").bind(big(gateways)).execute(self.db()).await?;
        Ok(())
    }
}

fn entry(row: &Row) -> StorageResult<AuditRow> {
    Ok(AuditRow {
        chain: row.text("chain")?,
        entry: AuditEntry {
            id: row.parsed("id")?,
            sequence: row.number("sequence")?,
            at: row.number("at")?,
            actor: row.text("actor")?,
            act: row.text("act")?,
            object: row.text("object")?,
            detail: row.text("detail")?,
            request_id: row.text("request_id")?,
            hash: row.text("hash")?,
        },
    })
}
