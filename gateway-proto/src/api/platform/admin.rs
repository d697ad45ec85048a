//! Admin connections and shared servers.

use serde::{Deserialize, Serialize};

use crate::{
    id::{AgreementId, ConnectionId, ServerId, ShareId},
    policy::{AdminPerson, AdminScope},
};

/// What an admin connection lets its users do with the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdminAccess {
    /// Look, and change nothing: enforced by the gateway of the server's owner.
    #[default]
    ReadOnly,
    /// Everything its options do not exclude.
    ReadWrite,
}

impl AdminAccess {
    /// Whether the engine may be changed.
    pub fn writes(self) -> bool {
        self == Self::ReadWrite
    }
}

/// How far a server is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShareLevel {
    /// Administer it: an admin connection, read-write.
    Operator,
    /// Look into it: an admin connection, read-only.
    Viewer,
    /// See its state and counters on the platform; no tunnel.
    Metrics,
}

impl ShareLevel {
    /// The access of its admin connections; none: it has no tunnel.
    pub fn access(self) -> Option<AdminAccess> {
        match self {
            Self::Operator => Some(AdminAccess::ReadWrite),
            Self::Viewer => Some(AdminAccess::ReadOnly),
            Self::Metrics => None,
        }
    }
}

api_types! {
    /// Offer a partner the engine's admin API of an own server; the partner has 7 days to accept.
    #[serde(deny_unknown_fields)]
    OfferAdmin {
        /// Agreement.
        agreement_id: AgreementId,
        /// The own server whose engine is to be administered.
        server_id: ServerId,
        /// Read-only (the default) or read-write.
        #[serde(default)]
        access: AdminAccess,
        /// What the connection may do beyond that; nothing by default.
        #[serde(default)]
        scope: AdminScope,
        /// The end of a time-box, Unix seconds; default: none.
        #[serde(default)]
        expires_at: Option<u64>,
        /// Requests at the same time at most, 1–10,000; default 64.
        #[serde(default)]
        max_streams: Option<u32>,
        /// How long it may be used without the control plane, seconds, 60–86,400; default 15 minutes.
        #[serde(default)]
        staleness_secs: Option<u64>,
        /// Require a post-quantum tunnel.
        #[serde(default)]
        require_post_quantum: bool,
        /// A word to them, up to 500 characters.
        #[serde(default)]
        message: String,
        /// Inside a self-agreement: the own server it is used from; the offer is accepted at once.
        #[serde(default)]
        user_server_id: Option<ServerId>,
        /// Inside a self-agreement: the local port of that server's gateway; default: it picks one and keeps it.
        #[serde(default)]
        user_port: Option<u16>,
    }
    /// Accept an offered admin connection.
    #[serde(deny_unknown_fields)]
    AcceptAdmin {
        /// The server it is used from, which needs an enrolled gateway; default: the only one.
        #[serde(default)]
        server_id: Option<ServerId>,
        /// The local port its gateway opens for administrators; default: it picks one and keeps it.
        #[serde(default)]
        port: Option<u16>,
        /// Make the connection active by itself once both gateways confirmed; default true.
        #[serde(default)]
        auto_activate: Option<bool>,
    }
    /// Name oneself as the person behind an account or address of the own side at an admin connection.
    #[serde(deny_unknown_fields)]
    EnterAdmin {
        /// The operating system's account on the machine of the own gateway, for programs that run there.
        #[serde(default)]
        account: Option<String>,
        /// The address of the own machine, for programs that reach the gateway's port over the network.
        #[serde(default)]
        address: Option<String>,
        /// For how long, seconds, 60–86,400; default 8 hours.
        #[serde(default)]
        valid_secs: Option<u64>,
    }
    /// The second person's word, where the owner's side demands two for an admin connection.
    AdminApproval {
        /// Who offered it or shared the server; for the owner's side only.
        offered_by: Option<String>,
        /// The second person, who approved it; for the owner's side only.
        approved_by: Option<String>,
        /// When that was, Unix seconds; none: it waits for a second person.
        approved_at: Option<u64>,
    }
    /// What an admin connection was offered with.
    AdminTerms {
        /// Read-only or read-write.
        access: AdminAccess,
        /// What it may do beyond that.
        scope: AdminScope,
        /// The word that came with the offer.
        message: String,
        /// When the offer expires unanswered, Unix seconds.
        answer_by: u64,
        /// The end of its time-box, Unix seconds.
        expires_at: Option<u64>,
        /// Requests at the same time at most.
        max_streams: u32,
        /// How long it may be used without the control plane, seconds.
        staleness_secs: u64,
        /// Whether it requires a post-quantum tunnel.
        require_post_quantum: bool,
        /// The share it belongs to.
        share_id: Option<ShareId>,
        /// The approval of a second person; none: one is enough.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        approval: Option<AdminApproval>,
        /// Who named himself, and is still behind an acting user of the side that uses it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        people: Vec<AdminPerson>,
    }
    /// Share an own server with the partner of an agreement, at once.
    #[serde(deny_unknown_fields)]
    CreateShare {
        /// Agreement.
        agreement_id: AgreementId,
        /// The own server.
        server_id: ServerId,
        /// How far.
        level: ShareLevel,
        /// What its admin connections may do beyond their level; nothing by default.
        #[serde(default)]
        scope: AdminScope,
        /// When it ends by itself, Unix seconds; default: never.
        #[serde(default)]
        expires_at: Option<u64>,
    }
    /// Open a tunnel to a server that was shared with us.
    #[serde(deny_unknown_fields)]
    OpenShare {
        /// The own server it is used from, which needs an enrolled gateway; default: the only one.
        #[serde(default)]
        server_id: Option<ServerId>,
        /// The local port its gateway opens for administrators; default: it picks one and keeps it.
        #[serde(default)]
        port: Option<u16>,
    }
    /// A shared server.
    ServerShare {
        /// Id.
        id: ShareId,
        /// Agreement.
        agreement_id: AgreementId,
        /// Server.
        server_id: ServerId,
        /// Its name.
        server_name: String,
        /// `given` (our server), `received` (the peer's) or `self`.
        direction: String,
        /// The other organization's name, `Self` for the own one.
        peer_name: String,
        /// How far.
        level: ShareLevel,
        /// What its admin connections may do beyond their level.
        scope: AdminScope,
        /// Its admin connections that have not ended.
        connections: Vec<ConnectionId>,
        /// How the server is, where one share is asked for; none in lists, and once the share has ended.
        metrics: Option<ServerMetrics>,
        /// When it ends by itself, Unix seconds.
        expires_at: Option<u64>,
        /// Creation, Unix seconds.
        created_at: u64,
        /// End, Unix seconds.
        ended_at: Option<u64>,
    }
    /// How a server is, in figures: nothing about whom it talks with.
    ServerMetrics {
        /// Whether its gateway watches the policy now.
        online: bool,
        /// Last sign of life, Unix seconds.
        last_seen_at: Option<u64>,
        /// Version of its gateway.
        gateway_version: Option<String>,
        /// Whether its gateway has the newest policy in force.
        policy_in_force: bool,
        /// Its connections that have not ended.
        connections: u32,
        /// Those that may carry data.
        active: u32,
        /// Those whose tunnel its gateway proved.
        connected: u32,
        /// Open streams.
        streams: u32,
        /// Bytes sent since its gateway started.
        bytes_sent: u64,
        /// Bytes received since its gateway started.
        bytes_received: u64,
    }
}
