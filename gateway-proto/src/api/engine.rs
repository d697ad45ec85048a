//! People and automation with the control plane, about the engines beside servers.
//!
//! | method and path | body → answer |
//! |---|---|
//! | `GET /servers/{id}/engine` | [`ServerEngine`] |
//! | `POST /servers/{id}/engine/channels` | [`PublishEngineChannel`] → [`Channel`](super::platform::Channel) |

use serde::{Deserialize, Serialize};

use super::gateway::EngineHead;
use crate::{
    engine::{EngineChannel, plan::EndState},
    id::{ChannelId, ServerId},
};

/// The engine beside an own server, as its gateway described it last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServerEngine {
    /// Server.
    pub server_id: ServerId,
    /// How its gateway gets on with the engine; none: it told nothing of one.
    pub head: Option<EngineHead>,
    /// When its gateway told the last news, Unix seconds.
    pub reported_at: Option<u64>,
    /// The engine's channels.
    pub channels: Vec<EngineChannel>,
    /// Which registered channel is which of them.
    pub links: Vec<EngineLink>,
    /// Ids of channels that listen and are not registered.
    pub proposals: Vec<String>,
}

/// A registered channel that is, or was, one of the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EngineLink {
    /// The registered channel.
    pub channel_id: ChannelId,
    /// The engine's id.
    pub engine_channel: String,
    /// State of the engine's end.
    pub state: EndState,
}

/// Registers a channel of the engine and publishes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishEngineChannel {
    /// The engine's id of the channel.
    pub engine_channel: String,
    /// Internal name; default: the engine's.
    #[serde(default)]
    pub name: Option<String>,
    /// Public name.
    pub public_name: String,
    /// Public description.
    #[serde(default)]
    pub public_description: Option<String>,
}
