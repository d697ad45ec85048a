//! What the two ends of connections counted.

use async_trait::async_trait;
use gateway_proto::{
    balance::{Balance, Tally},
    id::ConnectionId,
};

use super::{StorageResult, rows::rows};

/// What the two ends of connections counted.
#[async_trait]
pub trait Deliveries: Send {
    /// Of one connection; none before its gateways reported.
    async fn delivery(&mut self, connection: ConnectionId) -> StorageResult<Option<DeliveryRow>>;
    /// Stores it, new or changed.
    async fn put_delivery(&mut self, row: &DeliveryRow) -> StorageResult<()>;
    /// Connections whose comparison is open, ordered by id, after one of them.
    async fn open_deliveries(&mut self, after: &str, limit: u32) -> StorageResult<Vec<ConnectionId>>;
}

rows! {
    /// What the two ends of a connection counted, and how the two compare.
    DeliveryRow {
        /// The connection.
        connection: ConnectionId,
        /// What the sender's gateway counted.
        sender: Tally,
        /// What the listener's gateway counted.
        listener: Tally,
        /// How the two compare.
        balance: Balance,
        /// A later look may say something else.
        is_open: bool,
    }
}

impl DeliveryRow {
    /// Before anything was reported.
    pub fn new(connection: ConnectionId) -> Self {
        Self {
            connection,
            sender: Tally::default(),
            listener: Tally::default(),
            balance: Balance::default(),
            is_open: false,
        }
    }
}
