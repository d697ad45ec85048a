//! The relay map.

use async_trait::async_trait;
use gateway_proto::id::RelayId;

use super::{Columns, SqlTransaction, each, json, query};
use crate::storage::{RelayRow, Relays, StorageResult};

#[async_trait]
impl Relays for SqlTransaction {
    async fn relays(&mut self) -> StorageResult<Vec<RelayRow>> {
        let rows = query("SELECT * FROM relays ORDER BY id").fetch_all(self.db()).await?;
        each(rows, |row| {
            Ok(RelayRow {
                id: row.parsed("id")?,
                name: row.text("name")?,
                url: row.text("url")?,
                tls_pin: row.maybe_text("tls_pin")?,
                stun: row.json("stun")?,
                region: row.maybe_text("region")?,
            })
        })
    }

    async fn insert_relay(&mut self, row: &RelayRow) -> StorageResult<()> {
        query("INSERT INTO relays (id, name, url, tls_pin, stun, region) VALUES ($1, $2, $3, $4, $5, $6)")
            .bind(row.id.to_string())
            .bind(&row.name)
            .bind(&row.url)
            .bind(&row.tls_pin)
            .bind(json(&row.stun))
            .bind(&row.region)
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn update_relay(&mut self, row: &RelayRow) -> StorageResult<()> {
        query("UPDATE relays SET name = $2, url = $3, tls_pin = $4, stun = $5, region = $6 WHERE id = $1")
            .bind(row.id.to_string())
            .bind(&row.name)
            .bind(&row.url)
            .bind(&row.tls_pin)
            .bind(json(&row.stun))
            .bind(&row.region)
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn delete_relay(&mut self, id: RelayId) -> StorageResult<bool> {
        let done = query("DELETE FROM relays WHERE id = $1").bind(id.to_string()).execute(self.db()).await?;
        Ok(done > 0)
    }
}
