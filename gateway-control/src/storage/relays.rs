//! The relay map.

use async_trait::async_trait;
use gateway_proto::id::RelayId;

use super::{StorageResult, rows::rows};

/// The relay map.
#[async_trait]
pub trait Relays: Send {
    /// Relays of the map, ordered by id.
    async fn relays(&mut self) -> StorageResult<Vec<RelayRow>>;
    /// Adds a relay; [`super::StorageError::Duplicate`] when id or URL is taken.
    async fn insert_relay(&mut self, row: &RelayRow) -> StorageResult<()>;
    /// Stores a changed one; [`super::StorageError::Duplicate`] when another relay has its URL.
    async fn update_relay(&mut self, row: &RelayRow) -> StorageResult<()>;
    /// Removes a relay; whether it was there.
    async fn delete_relay(&mut self, id: RelayId) -> StorageResult<bool>;
}

rows! {
    /// A relay of the map.
    RelayRow {
        /// Id.
        id: RelayId,
        /// Name.
        name: String,
        /// URL.
        url: String,
        /// SHA-256 of its TLS public key.
        tls_pin: Option<String>,
        /// STUN listeners.
        stun: Vec<String>,
        /// Where it stands.
        region: Option<String>,
    }
}
