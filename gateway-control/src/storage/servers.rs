//! Servers and their gateways.

use async_trait::async_trait;
use gateway_proto::{
    id::{AgreementId, OrganizationId, RelayId, ServerId},
    identity::{GatewayPublicKey, NoiseBinding},
    twice::Seat,
};

use super::{Slice, StorageResult, rows::rows};

/// Servers and their gateways.
#[async_trait]
pub trait Servers: Send {
    /// One server, removed or not.
    async fn server(&mut self, id: ServerId) -> StorageResult<Option<ServerRow>>;
    /// The server of a gateway.
    async fn server_by_gateway(&mut self, key: GatewayPublicKey) -> StorageResult<Option<ServerRow>>;
    /// Servers of an organization that are not removed.
    async fn servers(&mut self, organization: OrganizationId, slice: &Slice) -> StorageResult<Vec<ServerRow>>;
    /// Adds one; [`super::StorageError::Duplicate`] when the name is taken.
    async fn insert_server(&mut self, row: &ServerRow) -> StorageResult<()>;
    /// Stores a changed one.
    async fn update_server(&mut self, row: &ServerRow) -> StorageResult<()>;
    /// Stores which process of its gateway holds the place.
    async fn set_seat(&mut self, id: ServerId, seat: &Seat) -> StorageResult<()>;
    /// The servers at the other ends of the open connections of a server.
    async fn neighbours(&mut self, server: ServerId) -> StorageResult<Vec<ServerId>>;
    /// The same of all servers of an organization; its own are among them where they are connected with each other.
    async fn neighbours_of_organization(&mut self, organization: OrganizationId) -> StorageResult<Vec<ServerId>>;
    /// The servers at both ends of the open connections of an agreement.
    async fn servers_of_agreement(&mut self, agreement: AgreementId) -> StorageResult<Vec<ServerId>>;
    /// Remembers a removed gateway.
    async fn insert_removed_gateway(&mut self, key: GatewayPublicKey, at: u64) -> StorageResult<()>;
    /// Forgets a removed gateway, because it is enrolled again.
    async fn delete_removed_gateway(&mut self, key: GatewayPublicKey) -> StorageResult<()>;
    /// Whether the gateway was removed.
    async fn is_removed_gateway(&mut self, key: GatewayPublicKey) -> StorageResult<bool>;
}

rows! {
    /// A server.
    ServerRow {
        /// Id.
        id: ServerId,
        /// Organization.
        organization: OrganizationId,
        /// Name.
        name: String,
        /// Key of its gateway.
        gateway: Option<GatewayPublicKey>,
        /// Noise key of its gateway.
        noise: Option<NoiseBinding>,
        /// Version of its gateway.
        gateway_version: Option<String>,
        /// Last sign of life that was written down.
        last_seen_at: Option<u64>,
        /// Relay where its gateway can be reached.
        home_relay: Option<RelayId>,
        /// Revision in force at its gateway.
        applied_revision: u64,
        /// Why its gateway refused the newest policy.
        policy_problem: Option<String>,
        /// The audit log of its gateway is not the one that was reported. Not written with the server.
        audit_alarm: bool,
        /// Which process of its gateway holds the place, see [`ServerRow::seat`]. Not written with the server.
        seat: Option<String>,
        /// Its policy must be compiled.
        stale: bool,
        /// A revision that its gateway has and the storage does not remember: the next policy exceeds it; 0: there was none. Not
        /// written with the server.
        policy_floor: u64,
        /// Creation.
        created_at: u64,
        /// Removal.
        removed_at: Option<u64>,
    }
}

impl ServerRow {
    /// A server without a gateway.
    pub fn new(id: ServerId, organization: OrganizationId, name: String, created_at: u64) -> Self {
        Self {
            id,
            organization,
            name,
            gateway: None,
            noise: None,
            gateway_version: None,
            last_seen_at: None,
            home_relay: None,
            applied_revision: 0,
            policy_problem: None,
            audit_alarm: false,
            seat: None,
            stale: false,
            policy_floor: 0,
            created_at,
            removed_at: None,
        }
    }

    /// Which process of its gateway holds the place. What cannot be read is as nothing: it is only about now.
    pub fn seat(&self) -> Seat {
        self.seat.as_deref().and_then(|seat| serde_json::from_str(seat).ok()).unwrap_or_default()
    }
}
