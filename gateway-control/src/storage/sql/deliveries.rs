//! What the two ends of connections counted.

use async_trait::async_trait;
use gateway_proto::id::ConnectionId;

use super::{Columns, Row, SqlTransaction, each, query, unreadable};
use crate::storage::{Deliveries, DeliveryRow, StorageResult};

/// Of one connection.
pub(super) const DELIVERY: &str = "SELECT * FROM deliveries WHERE connection_id = $1";
/// Of many.
pub(super) const DELIVERIES: &str = "SELECT * FROM deliveries WHERE connection_id IN ({})";

#[async_trait]
impl Deliveries for SqlTransaction {
    async fn delivery(&mut self, connection: ConnectionId) -> StorageResult<Option<DeliveryRow>> {
        let row = query(DELIVERY).bind(connection.to_string()).fetch_optional(self.db()).await?;
        row.as_ref().map(delivery).transpose()
    }

    async fn put_delivery(&mut self, row: &DeliveryRow) -> StorageResult<()> {
        query(
            "INSERT INTO deliveries (connection_id, sender, listener, balance, is_open) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (connection_id) DO UPDATE SET sender = excluded.sender, listener = excluded.listener,
             balance = excluded.balance, is_open = excluded.is_open",
        )
        .bind(row.connection.to_string())
        .bind(json(&row.sender, "sender")?)
        .bind(json(&row.listener, "listener")?)
        .bind(json(&row.balance, "balance")?)
        .bind(row.is_open)
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn open_deliveries(&mut self, after: &str, limit: u32) -> StorageResult<Vec<ConnectionId>> {
        let rows = query(
            "SELECT connection_id FROM deliveries WHERE is_open AND connection_id > $1 ORDER BY connection_id LIMIT $2",
        )
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(self.db())
        .await?;
        each(rows, |row| row.parsed("connection_id"))
    }
}

fn delivery(row: &Row) -> StorageResult<DeliveryRow> {
    Ok(DeliveryRow {
        connection: row.parsed("connection_id")?,
        sender: row.json("sender")?,
        listener: row.json("listener")?,
        balance: row.json("balance")?,
        is_open: row.flag("is_open")?,
    })
}

fn json(value: &impl serde::Serialize, column: &str) -> StorageResult<String> {
    serde_json::to_string(value).map_err(|_| unreadable(column))
}
