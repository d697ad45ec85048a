//! Heads of the audit logs of gateways.

use async_trait::async_trait;
use gateway_proto::{
    audit::heads::{HeadBook, ReportedHead},
    id::ServerId,
};

use super::{Columns, Row, SqlTransaction, big, each, limit_of, query, unreadable};
use crate::storage::{GatewayAudits, KeptHeadRow, StorageResult};

#[async_trait]
impl GatewayAudits for SqlTransaction {
    async fn head_book(&mut self, server: ServerId) -> StorageResult<Option<HeadBook>> {
        let row = query("SELECT book FROM gateway_audits WHERE server_id = $1")
            .bind(server.to_string())
            .fetch_optional(self.db())
            .await?;
        row.as_ref().map(|row| row.json("book")).transpose()
    }

    async fn put_head_book(&mut self, server: ServerId, book: &HeadBook) -> StorageResult<()> {
        query(
            "INSERT INTO gateway_audits (server_id, book) VALUES ($1, $2)
             ON CONFLICT (server_id) DO UPDATE SET book = excluded.book",
        )
        .bind(server.to_string())
        .bind(serde_json::to_string(book).map_err(|_| unreadable("book"))?)
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn set_audit_alarm(&mut self, server: ServerId, stands: bool) -> StorageResult<()> {
        query("UPDATE servers SET audit_alarm = $2 WHERE id = $1")
            .bind(server.to_string())
            .bind(stands)
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn insert_kept_head(&mut self, row: &KeptHeadRow, keep: u64) -> StorageResult<()> {
        query(
            "INSERT INTO gateway_audit_heads (server_id, entry, gateway_key, sequence, hash, at, received_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(row.server.to_string())
        .bind(big(row.entry))
        .bind(row.gateway.to_string())
        .bind(big(row.head.sequence))
        .bind(&row.head.hash)
        .bind(big(row.head.at))
        .bind(big(row.head.received_at))
        .execute(self.db())
        .await?;
        query("DELETE FROM gateway_audit_heads WHERE server_id = $1 AND entry <= $2")
            .bind(row.server.to_string())
            .bind(big(row.entry.saturating_sub(keep)))
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn kept_heads(&mut self, server: ServerId, before: u64, limit: u32) -> StorageResult<Vec<KeptHeadRow>> {
        let rows =
            query("SELECT * FROM gateway_audit_heads WHERE server_id = $1 AND entry < $2 ORDER BY entry DESC LIMIT $3")
                .bind(server.to_string())
                .bind(big(before))
                .bind(limit_of(limit))
                .fetch_all(self.db())
                .await?;
        each(rows, |row| kept(server, row))
    }

    async fn purge_kept_heads(&mut self, before: u64) -> StorageResult<()> {
        query("DELETE FROM gateway_audit_heads WHERE received_at < $1").bind(big(before)).execute(self.db()).await?;
        Ok(())
    }
}

fn kept(server: ServerId, row: &Row) -> StorageResult<KeptHeadRow> {
    Ok(KeptHeadRow {
        server,
        entry: row.number("entry")?,
        gateway: row.parsed("gateway_key")?,
        head: ReportedHead {
            sequence: row.number("sequence")?,
            hash: row.text("hash")?,
            at: row.number("at")?,
            received_at: row.number("received_at")?,
        },
    })
}
