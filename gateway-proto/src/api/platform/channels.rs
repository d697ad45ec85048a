//! Channels of both directions, and what a peer sees of the listeners.

use serde::{Deserialize, Serialize};

use crate::id::{ChannelId, ConnectionId, ServerId};

/// Which way a channel carries data, from the point of view of the engine beside its server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChannelDirection {
    /// It receives from peers, from many if so many were granted it: the gateway connects to the engine's port.
    #[default]
    Listener,
    /// It delivers to one peer: the gateway opens a local port that the engine connects to.
    Sender,
}

api_types! {
    /// A channel of an own server: a listener, or the sending end of a connection.
    Channel {
        /// Id; that of a sender is the id of its connection but for the prefix.
        id: ChannelId,
        /// Server.
        server_id: ServerId,
        /// Internal name, never shown to a peer. A sender that nobody named is called as what it feeds.
        name: String,
        /// Which way it carries data; an older control plane knows listeners only.
        #[serde(default)]
        direction: ChannelDirection,
        /// The engine's port, `host:port`, seen from the gateway; empty of a sender.
        engine: String,
        /// Of a sender, the port that its gateway opens for the engine; none: the gateway picks it, and does not report which.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        local_port: Option<u16>,
        /// Of a sender, the one connection that it feeds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        connection_id: Option<ConnectionId>,
        /// Of a sender, where that leads: `PEER/ENDPOINT`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        feeds: Option<String>,
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
    /// Changes to a channel; what is left out stays. A sender has a name to change, and nothing else.
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
