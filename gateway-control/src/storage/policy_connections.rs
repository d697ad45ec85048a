//! What policies say about connections, and which of it gateways have in force.

use async_trait::async_trait;
use gateway_proto::{
    id::{ConnectionId, ServerId},
    limits::ChannelLimits,
    peering::AgreementStatus,
};

use super::{ConnectionRow, ServerRow, StorageResult, rows::rows};

/// What policies say about connections.
#[async_trait]
pub trait PolicyConnections: Send {
    /// Everything a policy of this server says about its connections, ordered by id.
    async fn policy_connections(&mut self, server: ServerId) -> StorageResult<Vec<PolicyConnectionRow>>;
    /// Connections of a server that become active by themselves, and that both gateways have in force now, ordered by id, so many
    /// at most.
    async fn confirmed_connections_of_server(
        &mut self,
        server: ServerId,
        limit: u32,
    ) -> StorageResult<Vec<ConnectionRow>>;
    /// Ready connections that the policy of a server began to name with a revision after the one and up to the other, ordered by
    /// id, so many at most.
    async fn introduced_connections(
        &mut self,
        server: ServerId,
        after: u64,
        up_to: u64,
        limit: u32,
    ) -> StorageResult<Vec<ConnectionRow>>;
    /// Connections of a server that wait for a gateway at one of their ends, ordered by id.
    async fn provisioning_connections(&mut self, server: ServerId) -> StorageResult<Vec<ConnectionId>>;
    /// The policy of a server says something new about these connections with this revision, which nobody has confirmed yet; it
    /// began to name those `introduced`, which are among them.
    async fn put_revision(
        &mut self,
        server: ServerId,
        revision: u64,
        connections: &[ConnectionId],
        introduced: &[ConnectionId],
    ) -> StorageResult<()>;
    /// The gateway of a server has a revision in force since now: so its ends that were waiting for it are. How many.
    async fn put_in_force(&mut self, server: ServerId, revision: u64, now: u64) -> StorageResult<u64>;
    /// The gateway of a server has nothing newer than this revision in force, whatever it said before. How many ends that concerns.
    async fn take_out_of_force(&mut self, server: ServerId, revision: u64) -> StorageResult<u64>;
}

rows! {
    /// What a server's policy says about one connection, and the other end of it.
    PolicyConnectionRow {
        /// The connection.
        connection: ConnectionRow,
        /// Status of its agreement.
        agreement: AgreementStatus,
        /// The channel's engine port; none: an admin connection.
        engine: Option<String>,
        /// The engine's id of the channel; none: an admin connection, or not known.
        engine_channel: Option<String>,
        /// The channel's public name; of an admin connection, the name of the administered server.
        endpoint: String,
        /// Kind of exchange.
        behavior: String,
        /// When the grant, or the time-box of an admin connection, ends.
        expires_at: Option<u64>,
        /// Open streams at most.
        max_streams: u32,
        /// What the grant limits beside.
        limits: ChannelLimits,
        /// The kinds of exchange that the grant allows; empty: whatever the channel has.
        behaviors: Vec<String>,
        /// How long data may go on without the control plane.
        staleness_secs: u64,
        /// Whether a post-quantum tunnel is required.
        require_post_quantum: bool,
        /// The server at the other end.
        peer: ServerRow,
        /// The name of its organization.
        peer_organization_name: String,
    }
}
