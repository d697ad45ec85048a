//! Grants of channels.

use serde::{Deserialize, Serialize};

use crate::{
    id::{AgreementId, ChannelId, ConnectionId, GrantId, ServerId},
    peering::GrantStatus,
};

api_types! {
    /// Offer an own channel to the peer of an agreement, or ask for one of the peer's.
    #[serde(deny_unknown_fields)]
    CreateGrant {
        /// Agreement.
        agreement_id: AgreementId,
        /// Channel: an own published one is offered, one of the peer's is asked for.
        channel_id: ChannelId,
        /// When the grant ends, Unix seconds.
        #[serde(default)]
        expires_at: Option<u64>,
        /// Open streams at most, 1–10,000; default 64.
        #[serde(default)]
        max_streams: Option<u32>,
        /// Payload in each direction at most, bytes per second, all streams together, 1,000–10,000,000,000; default: as fast as it
        /// goes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes_per_second: Option<u64>,
        /// A stream in which no byte passes for so many seconds, in neither direction, is reset, 10–604,800; default: never.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        receive_timeout_secs: Option<u32>,
        /// The kinds of exchange that a connection from it may have, the channel's among them; default: whatever the channel has.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        behaviors: Vec<String>,
        /// How long data may go on without the control plane, seconds, 60–2,592,000; default 72 hours. More than the default
        /// is the channel owner's to offer, not the peer's to ask for.
        #[serde(default)]
        staleness_secs: Option<u64>,
        /// Require a post-quantum tunnel.
        #[serde(default)]
        require_post_quantum: bool,
        /// The sending server, for requests and self-agreements.
        #[serde(default)]
        sender_server_id: Option<ServerId>,
        /// The local port the sending gateway opens; default: it picks one and keeps it.
        #[serde(default)]
        sender_port: Option<u16>,
    }
    /// Approve a grant.
    #[serde(deny_unknown_fields)]
    ApproveGrant {
        /// The sending server (approving peer only; default: its only one).
        #[serde(default)]
        sender_server_id: Option<ServerId>,
        /// The local port its gateway opens; default: it picks one and keeps it.
        #[serde(default)]
        sender_port: Option<u16>,
        /// Make the connection active by itself once both gateways confirmed; default true.
        #[serde(default)]
        auto_activate: Option<bool>,
        /// When the grant ends, Unix seconds. This and the limits below are for the channel's owner, who answers a request; each may
        /// be tighter than the request, not wider; default: as asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<u64>,
        /// Open streams at most, 1–10,000.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_streams: Option<u32>,
        /// Payload in each direction at most, bytes per second, all streams together, 1,000–10,000,000,000.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes_per_second: Option<u64>,
        /// A stream in which no byte passes for so many seconds, in neither direction, is reset, 10–604,800.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        receive_timeout_secs: Option<u32>,
    }
    /// A grant.
    Grant {
        /// Id.
        id: GrantId,
        /// Agreement.
        agreement_id: AgreementId,
        /// Channel.
        channel_id: ChannelId,
        /// Public name of the channel; of a grant that is over, the name it had then.
        endpoint: String,
        /// `given` (our channel), `received` (the peer's) or `self`.
        direction: String,
        /// The other organization's name, `Self` for the own one.
        peer_name: String,
        /// Kind of exchange.
        behavior: String,
        /// Status.
        status: GrantStatus,
        /// The connection it made.
        connection_id: Option<ConnectionId>,
        /// When it ends, Unix seconds.
        expires_at: Option<u64>,
        /// Open streams at most.
        max_streams: u32,
        /// Payload in each direction at most, bytes per second; none: as fast as it goes.
        #[serde(default)]
        bytes_per_second: Option<u64>,
        /// A stream in which no byte passes for so many seconds is reset; none: never.
        #[serde(default)]
        receive_timeout_secs: Option<u32>,
        /// The kinds of exchange that its connection may have; none: whatever the channel has.
        #[serde(default)]
        behaviors: Vec<String>,
        /// How long data may go on without the control plane, seconds.
        staleness_secs: u64,
        /// Whether it requires a post-quantum tunnel.
        require_post_quantum: bool,
        /// Offer or request, Unix seconds.
        created_at: u64,
        /// Approval, Unix seconds; none: it was never approved, or an older control plane does not say.
        #[serde(default)]
        approved_at: Option<u64>,
    }
}
