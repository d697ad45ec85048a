//! Listener channels, and what a peer sees of them.

use serde::{Deserialize, Serialize};

use crate::id::{ChannelId, ServerId};

api_types! {
    /// A listener channel of an own server.
    Channel {
        /// Id.
        id: ChannelId,
        /// Server.
        server_id: ServerId,
        /// Internal name, never shown to a peer.
        name: String,
        /// The engine's port, `host:port`, seen from the gateway.
        engine: String,
        /// Kind of exchange.
        behavior: String,
        /// Whether partners may see it.
        published: bool,
        /// Public name.
        public_name: String,
        /// Public description.
        public_description: String,
        /// Creation, Unix seconds.
        created_at: u64,
    }
    /// A new listener channel.
    #[serde(deny_unknown_fields)]
    CreateChannel {
        /// Server.
        server_id: ServerId,
        /// Internal name, 1–120 characters, unique on the server.
        name: String,
        /// The engine's port, `ip:port`.
        engine: String,
        /// Kind of exchange; default `hl7v2-mllp`.
        #[serde(default)]
        behavior: Option<String>,
        /// Publish at once under this public name.
        #[serde(default)]
        public_name: Option<String>,
        /// Public description.
        #[serde(default)]
        public_description: Option<String>,
    }
    /// Changes to a channel; what is left out stays.
    #[serde(deny_unknown_fields)]
    UpdateChannel {
        /// New internal name.
        #[serde(default)]
        name: Option<String>,
        /// New engine port; of a channel that follows the engine, the engine says it.
        #[serde(default)]
        engine: Option<String>,
        /// The engine's id of another of its channels to bind it to, reached where that one listens; not together with
        /// `engine`. Empty: it follows none any more, and is reached where `engine` says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        engine_channel: Option<String>,
        /// Publish or withdraw.
        #[serde(default)]
        published: Option<bool>,
        /// New public name.
        #[serde(default)]
        public_name: Option<String>,
        /// New public description.
        #[serde(default)]
        public_description: Option<String>,
    }
    /// A channel as the peer of an agreement sees it.
    PublishedEndpoint {
        /// Channel id, to ask for a grant.
        channel_id: ChannelId,
        /// Public name.
        name: String,
        /// Public description.
        description: String,
        /// Kind of exchange.
        behavior: String,
        /// Whether its owner's engine has it stopped now: nothing arrives there until it is started.
        #[serde(default)]
        stopped: bool,
    }
}
