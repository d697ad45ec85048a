//! Sender channels: the sending ends of connections, with the names that were given to them.

use async_trait::async_trait;
use gateway_proto::id::{ConnectionId, OrganizationId, ServerId};

use super::{ChannelFilter, Slice, StorageResult, rows::rows};

/// Sender channels.
#[async_trait]
pub trait Senders: Send {
    /// Senders of an organization whose connection has not ended, neither by what is written down nor by now, in the order of
    /// the ids of their connections, which the slice names. Nobody publishes a sender: the filter for that is not looked at.
    async fn senders(
        &mut self,
        organization: OrganizationId,
        filter: &ChannelFilter,
        slice: &Slice,
        now: u64,
    ) -> StorageResult<Vec<SenderRow>>;
    /// The sender that feeds this connection; none once that has ended, and of admin connections.
    async fn sender(&mut self, connection: ConnectionId, now: u64) -> StorageResult<Option<SenderRow>>;
    /// Gives a sender a name; [`super::StorageError::Duplicate`] when another one of its server has it.
    async fn name_sender(&mut self, connection: ConnectionId, name: &str) -> StorageResult<()>;
}

rows! {
    /// The sending end of a connection that carries channel data.
    SenderRow {
        /// Connection.
        connection: ConnectionId,
        /// Server.
        server: ServerId,
        /// Organization.
        organization: OrganizationId,
        /// The local port of the gateway, 0: it picks one.
        port: u16,
        /// The name that was given to it.
        name: Option<String>,
        /// The organization that it delivers to.
        peer: OrganizationId,
        /// The public name of what it delivers to.
        endpoint: String,
        /// Kind of exchange.
        behavior: String,
        /// Creation.
        created_at: u64,
    }
}
