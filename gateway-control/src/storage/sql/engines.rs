//! Engines beside gateways.

use std::collections::BTreeSet;

use async_trait::async_trait;
use gateway_proto::{
    engine::EngineChannel,
    id::{ChannelId, OrganizationId, ServerId},
};

use super::{Columns, Row, SqlTransaction, big, each, json, query, word};
use crate::storage::{EngineLinkRow, EngineRow, Engines, StorageResult};

#[async_trait]
impl Engines for SqlTransaction {
    async fn engine(&mut self, server: ServerId) -> StorageResult<Option<EngineRow>> {
        let row = query("SELECT * FROM engines WHERE server_id = $1")
            .bind(server.to_string())
            .fetch_optional(self.db())
            .await?;
        row.map(|row| Ok(EngineRow { server, head: row.json("head")?, reported_at: row.number("reported_at")? }))
            .transpose()
    }

    async fn put_engine(&mut self, row: &EngineRow) -> StorageResult<()> {
        query(
            "INSERT INTO engines (server_id, head, reported_at) VALUES ($1, $2, $3)
             ON CONFLICT (server_id) DO UPDATE SET head = excluded.head, reported_at = excluded.reported_at",
        )
        .bind(row.server.to_string())
        .bind(json(&row.head))
        .bind(big(row.reported_at))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn engine_channels(&mut self, server: ServerId) -> StorageResult<Vec<EngineChannel>> {
        let rows = query("SELECT detail FROM engine_channels WHERE server_id = $1 ORDER BY engine_channel")
            .bind(server.to_string())
            .fetch_all(self.db())
            .await?;
        each(rows, |row| row.json("detail"))
    }

    async fn engine_channel(&mut self, server: ServerId, engine_channel: &str) -> StorageResult<Option<EngineChannel>> {
        let row = query("SELECT detail FROM engine_channels WHERE server_id = $1 AND engine_channel = $2")
            .bind(server.to_string())
            .bind(engine_channel)
            .fetch_optional(self.db())
            .await?;
        row.map(|row| row.json("detail")).transpose()
    }

    async fn engine_channel_ids(&mut self, server: ServerId) -> StorageResult<BTreeSet<String>> {
        let rows = query("SELECT engine_channel FROM engine_channels WHERE server_id = $1")
            .bind(server.to_string())
            .fetch_all(self.db())
            .await?;
        rows.iter().map(|row| row.text("engine_channel")).collect()
    }

    async fn put_engine_channel(&mut self, server: ServerId, channel: &EngineChannel) -> StorageResult<()> {
        query(
            "INSERT INTO engine_channels (server_id, engine_channel, detail) VALUES ($1, $2, $3)
             ON CONFLICT (server_id, engine_channel) DO UPDATE SET detail = excluded.detail",
        )
        .bind(server.to_string())
        .bind(&channel.id)
        .bind(json(channel))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn delete_engine_channel(&mut self, server: ServerId, engine_channel: &str) -> StorageResult<()> {
        query("DELETE FROM engine_channels WHERE server_id = $1 AND engine_channel = $2")
            .bind(server.to_string())
            .bind(engine_channel)
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn delete_engine_channels(&mut self, server: ServerId) -> StorageResult<()> {
        query("DELETE FROM engine_channels WHERE server_id = $1").bind(server.to_string()).execute(self.db()).await?;
        Ok(())
    }

    async fn engine_links(&mut self, server: ServerId) -> StorageResult<Vec<EngineLinkRow>> {
        let rows = query(
            "SELECT engine_links.* FROM engine_links JOIN channels ON channels.id = engine_links.channel_id
             WHERE engine_links.server_id = $1 AND channels.removed_at IS NULL ORDER BY engine_links.channel_id",
        )
        .bind(server.to_string())
        .fetch_all(self.db())
        .await?;
        each(rows, link)
    }

    async fn engine_link(&mut self, channel: ChannelId) -> StorageResult<Option<EngineLinkRow>> {
        let row = query("SELECT * FROM engine_links WHERE channel_id = $1")
            .bind(channel.to_string())
            .fetch_optional(self.db())
            .await?;
        row.as_ref().map(link).transpose()
    }

    async fn linked_channel(&mut self, server: ServerId, engine_channel: &str) -> StorageResult<Option<ChannelId>> {
        let row = query(
            "SELECT engine_links.channel_id FROM engine_links JOIN channels ON channels.id = engine_links.channel_id
             WHERE engine_links.server_id = $1 AND engine_links.engine_channel = $2 AND channels.removed_at IS NULL",
        )
        .bind(server.to_string())
        .bind(engine_channel)
        .fetch_optional(self.db())
        .await?;
        row.map(|row| row.parsed("channel_id")).transpose()
    }

    async fn channels_not_started(&mut self, organization: OrganizationId) -> StorageResult<Vec<ChannelId>> {
        let rows = query(
            "SELECT engine_links.channel_id FROM engine_links
             JOIN channels ON channels.id = engine_links.channel_id
             WHERE channels.organization_id = $1 AND channels.published AND channels.removed_at IS NULL
             AND engine_links.state <> 'started' ORDER BY engine_links.channel_id",
        )
        .bind(organization.to_string())
        .fetch_all(self.db())
        .await?;
        each(rows, |row| row.parsed("channel_id"))
    }

    async fn put_engine_link(&mut self, row: &EngineLinkRow) -> StorageResult<()> {
        // A channel that was removed gives its place free.
        query("DELETE FROM engine_links WHERE server_id = $1 AND engine_channel = $2 AND channel_id <> $3")
            .bind(row.server.to_string())
            .bind(&row.engine_channel)
            .bind(row.channel.to_string())
            .execute(self.db())
            .await?;
        query(
            "INSERT INTO engine_links (channel_id, server_id, engine_channel, state) VALUES ($1, $2, $3, $4)
             ON CONFLICT (channel_id) DO UPDATE SET engine_channel = excluded.engine_channel, state = excluded.state",
        )
        .bind(row.channel.to_string())
        .bind(row.server.to_string())
        .bind(&row.engine_channel)
        .bind(word(&row.state))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn delete_engine_link(&mut self, channel: ChannelId) -> StorageResult<()> {
        query("DELETE FROM engine_links WHERE channel_id = $1").bind(channel.to_string()).execute(self.db()).await?;
        Ok(())
    }
}

fn link(row: &Row) -> StorageResult<EngineLinkRow> {
    Ok(EngineLinkRow {
        channel: row.parsed("channel_id")?,
        server: row.parsed("server_id")?,
        engine_channel: row.text("engine_channel")?,
        state: row.word("state")?,
    })
}
