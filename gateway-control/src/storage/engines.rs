//! What gateways found in their engines.

use std::collections::BTreeSet;

use async_trait::async_trait;
use gateway_proto::{
    api::gateway::EngineHead,
    engine::EngineChannel,
    engine::plan::EndState,
    id::{ChannelId, OrganizationId, ServerId},
};

use super::{StorageResult, rows::rows};

/// Engines beside gateways.
#[async_trait]
pub trait Engines: Send {
    /// How the gateway of a server gets on with its engine.
    async fn engine(&mut self, server: ServerId) -> StorageResult<Option<EngineRow>>;
    /// Stores that.
    async fn put_engine(&mut self, row: &EngineRow) -> StorageResult<()>;
    /// The channels of that engine, ordered by id.
    async fn engine_channels(&mut self, server: ServerId) -> StorageResult<Vec<EngineChannel>>;
    /// One of them.
    async fn engine_channel(&mut self, server: ServerId, engine_channel: &str) -> StorageResult<Option<EngineChannel>>;
    /// Their ids.
    async fn engine_channel_ids(&mut self, server: ServerId) -> StorageResult<BTreeSet<String>>;
    /// Stores one of them.
    async fn put_engine_channel(&mut self, server: ServerId, channel: &EngineChannel) -> StorageResult<()>;
    /// Forgets one of them.
    async fn delete_engine_channel(&mut self, server: ServerId, engine_channel: &str) -> StorageResult<()>;
    /// Forgets all of them.
    async fn delete_engine_channels(&mut self, server: ServerId) -> StorageResult<()>;
    /// Which registered channels of a server are which of its engine; removed ones are not.
    async fn engine_links(&mut self, server: ServerId) -> StorageResult<Vec<EngineLinkRow>>;
    /// Which channel of the engine a registered one is.
    async fn engine_link(&mut self, channel: ChannelId) -> StorageResult<Option<EngineLinkRow>>;
    /// The registered channel of a server that is this one of its engine; removed ones are not.
    async fn linked_channel(&mut self, server: ServerId, engine_channel: &str) -> StorageResult<Option<ChannelId>>;
    /// Published channels of an organization whose engine end is not started.
    async fn channels_not_started(&mut self, organization: OrganizationId) -> StorageResult<Vec<ChannelId>>;
    /// Links a registered channel, or notes another state.
    async fn put_engine_link(&mut self, row: &EngineLinkRow) -> StorageResult<()>;
    /// Forgets which channel of the engine a registered one is.
    async fn delete_engine_link(&mut self, channel: ChannelId) -> StorageResult<()>;
}

rows! {
    /// The engine beside a server's gateway.
    EngineRow {
        /// Server.
        server: ServerId,
        /// How its gateway gets on with it.
        head: EngineHead,
        /// When its gateway told the last news.
        reported_at: u64,
    }
    /// A registered channel that is one of the engine.
    EngineLinkRow {
        /// The registered channel.
        channel: ChannelId,
        /// Its server.
        server: ServerId,
        /// The engine's id.
        engine_channel: String,
        /// State of the engine's end.
        state: EndState,
    }
}
