//! The audit log, and what time alone removes.

use std::collections::BTreeSet;

use async_trait::async_trait;
use gateway_proto::api::platform::{AuditAnchor, AuditEntry, AuditOrder};

use super::{Columns, Row, SqlTransaction, big, each, escaped, query};
use crate::storage::{Audit, AuditFilter, AuditRow, StorageResult};

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

    async fn audit(
        &mut self,
        chain: &str,
        filter: &AuditFilter,
        order: AuditOrder,
        beyond: u64,
        limit: u32,
    ) -> StorageResult<Vec<AuditRow>> {
        let (after, before) = match (order, beyond) {
            (AuditOrder::Oldest, after) => (after, None),
            (AuditOrder::Newest, 0) => (0, None),
            (AuditOrder::Newest, before) => (0, Some(before)),
        };
        let text = match order {
            AuditOrder::Oldest => {
                "SELECT * FROM audit WHERE chain = $1 AND sequence > $9 AND sequence < $2 AND act LIKE $4 ESCAPE '!'
                 AND ($5 = '' OR object = $5) AND ($6 = '' OR actor = $6) AND at >= $7 AND at < $8
                 ORDER BY sequence LIMIT $3"
            }
            AuditOrder::Newest => {
                "SELECT * FROM audit WHERE chain = $1 AND sequence > $9 AND sequence < $2 AND act LIKE $4 ESCAPE '!'
                 AND ($5 = '' OR object = $5) AND ($6 = '' OR actor = $6) AND at >= $7 AND at < $8
                 ORDER BY sequence DESC LIMIT $3"
            }
        };
        let rows = query(text)
            .bind(chain)
            .bind(before.map_or(i64::MAX, big))
            .bind(i64::from(limit))
            .bind(format!("{}%", escaped(&filter.act)))
            .bind(&filter.object)
            .bind(&filter.actor)
            .bind(big(filter.since))
            .bind(filter.until.map_or(i64::MAX, big))
            .bind(big(after))
            .fetch_all(self.db())
            .await?;
        each(rows, entry)
    }

    async fn audit_anchor(&mut self, chain: &str) -> StorageResult<Option<AuditAnchor>> {
        let row = query("SELECT * FROM audit_anchors WHERE chain = $1").bind(chain).fetch_optional(self.db()).await?;
        row.map(|row| {
            Ok(AuditAnchor {
                sequence: row.number("sequence")?,
                hash: row.text("hash")?,
                removed_at: Some(row.number("removed_at")?),
            })
        })
        .transpose()
    }

    async fn chains_before(&mut self, before: u64, limit: u32) -> StorageResult<Vec<String>> {
        let rows = query("SELECT chain FROM audit WHERE at < $1 ORDER BY at LIMIT $2")
            .bind(big(before))
            .bind(i64::from(limit))
            .fetch_all(self.db())
            .await?;
        let chains: BTreeSet<String> = rows.iter().map(|row| row.text("chain")).collect::<StorageResult<_>>()?;
        Ok(chains.into_iter().collect())
    }

    async fn audit_before(&mut self, chain: &str, before: u64, limit: u32) -> StorageResult<Vec<AuditRow>> {
        let rows = query("SELECT * FROM audit WHERE chain = $1 ORDER BY sequence LIMIT $2")
            .bind(chain)
            .bind(i64::from(limit))
            .fetch_all(self.db())
            .await?;
        let rows = each(rows, entry)?;
        Ok(rows.into_iter().take_while(|row| row.entry.at < before).collect())
    }

    async fn remove_audit(&mut self, chain: &str, anchor: &AuditAnchor) -> StorageResult<()> {
        query("DELETE FROM audit WHERE chain = $1 AND sequence <= $2")
            .bind(chain)
            .bind(big(anchor.sequence))
            .execute(self.db())
            .await?;
        query(
            "INSERT INTO audit_anchors (chain, sequence, hash, removed_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (chain) DO UPDATE
             SET sequence = excluded.sequence, hash = excluded.hash, removed_at = excluded.removed_at",
        )
        .bind(chain)
        .bind(big(anchor.sequence))
        .bind(&anchor.hash)
        .bind(big(anchor.removed_at.unwrap_or_default()))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn purge(&mut self, now: u64, latest: u64, codes: u64, gateways: u64) -> StorageResult<()> {
        query("DELETE FROM sessions WHERE expires_at <= $1 OR expires_at > $2")
            .bind(big(now))
            .bind(big(latest))
            .execute(self.db())
            .await?;
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
