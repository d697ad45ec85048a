//! Devices and behaviors.

use async_trait::async_trait;
use gateway_proto::{
    api::platform::{DeviceKind, LinkableBy},
    id::{DeviceId, OrganizationId, ServerId},
};

use super::{Slice, StorageResult, rows::rows};

/// Devices, and the kinds of exchange they perform.
#[async_trait]
pub trait Devices: Send {
    /// One device, removed or not.
    async fn device(&mut self, id: DeviceId) -> StorageResult<Option<DeviceRow>>;
    /// Devices of an organization, or of the platform, that are not removed.
    async fn devices(&mut self, owner: Option<OrganizationId>, slice: &Slice) -> StorageResult<Vec<DeviceRow>>;
    /// Devices that are a server or are reached by its gateway, and are not removed.
    async fn devices_of_server(&mut self, server: ServerId) -> StorageResult<Vec<DeviceRow>>;
    /// How many devices that are no servers an organization, or the platform, has.
    async fn count_devices(&mut self, owner: Option<OrganizationId>) -> StorageResult<u64>;
    /// Adds one; [`super::StorageError::Duplicate`] when the name is taken.
    async fn insert_device(&mut self, row: &DeviceRow) -> StorageResult<()>;
    /// Stores a changed one; [`super::StorageError::Duplicate`] when the name is taken.
    async fn update_device(&mut self, row: &DeviceRow) -> StorageResult<()>;
    /// All behaviors, ordered by name.
    async fn behaviors(&mut self) -> StorageResult<Vec<BehaviorRow>>;
    /// Adds one, or describes it anew.
    async fn put_behavior(&mut self, row: &BehaviorRow) -> StorageResult<()>;
    /// Removes one; whether it was there.
    async fn delete_behavior(&mut self, name: &str) -> StorageResult<bool>;
    /// Whether a channel or a device that is not removed names it.
    async fn is_behavior_used(&mut self, name: &str) -> StorageResult<bool>;
}

rows! {
    /// A device.
    DeviceRow {
        /// Id.
        id: DeviceId,
        /// Organization; none: the platform.
        organization: Option<OrganizationId>,
        /// Kind.
        kind: DeviceKind,
        /// Name.
        name: String,
        /// Description.
        description: String,
        /// The server it is, or whose gateway reaches it.
        server: Option<ServerId>,
        /// What it performs.
        behaviors: Vec<String>,
        /// Who may link to it.
        linkable_by: LinkableBy,
        /// Creation.
        created_at: u64,
        /// Removal.
        removed_at: Option<u64>,
    }
    /// A kind of exchange.
    BehaviorRow {
        /// Name.
        name: String,
        /// What it is.
        description: String,
    }
}
