//! Links between devices, and what was exchanged over them.

use async_trait::async_trait;
use gateway_proto::id::{DeviceId, LinkId, OrganizationId, TenantId};

use super::{DeviceRow, Slice, StorageResult, rows::rows};

/// Links between devices, and counted executions.
#[async_trait]
pub trait Links: Send {
    /// One link.
    async fn link(&mut self, id: LinkId) -> StorageResult<Option<LinkRow>>;
    /// Links from and to devices of an organization.
    async fn links(&mut self, organization: OrganizationId, slice: &Slice) -> StorageResult<Vec<LinkRow>>;
    /// Links from and to a device.
    async fn links_of_device(&mut self, id: DeviceId) -> StorageResult<Vec<LinkRow>>;
    /// How many there are of them.
    async fn count_links_of_device(&mut self, id: DeviceId) -> StorageResult<u64>;
    /// Links between devices of two organizations, either way.
    async fn links_between(&mut self, one: OrganizationId, other: OrganizationId) -> StorageResult<Vec<LinkRow>>;
    /// The devices a device is linked to.
    async fn linked_devices(&mut self, source: DeviceId) -> StorageResult<Vec<DeviceRow>>;
    /// Devices of others that those of an organization may be linked to.
    async fn linkable_devices(
        &mut self,
        organization: OrganizationId,
        tenant: TenantId,
        slice: &Slice,
    ) -> StorageResult<Vec<DeviceRow>>;
    /// Adds one; [`super::StorageError::Duplicate`] when the two are linked already.
    async fn insert_link(&mut self, row: &LinkRow) -> StorageResult<()>;
    /// Removes one.
    async fn delete_link(&mut self, id: LinkId) -> StorageResult<()>;
    /// Adds to the executions of a device on a day.
    async fn add_executions(&mut self, row: &ExecutionsRow) -> StorageResult<()>;
    /// Executions of an organization's devices, ordered by day, device and behavior.
    async fn executions(
        &mut self,
        organization: OrganizationId,
        filter: &ExecutionsFilter,
        slice: &Slice,
    ) -> StorageResult<Vec<ExecutionsRow>>;
    /// Removes days from before.
    async fn purge_executions(&mut self, before: &str) -> StorageResult<()>;
}

rows! {
    /// A link between two devices.
    LinkRow {
        /// Id.
        id: LinkId,
        /// The device that asks.
        source: DeviceId,
        /// Its organization.
        source_organization: OrganizationId,
        /// The device that is asked.
        target: DeviceId,
        /// Its organization; none: the platform.
        target_organization: Option<OrganizationId>,
        /// Creation.
        created_at: u64,
    }
    /// How often a device took part in a behavior on a day.
    ExecutionsRow {
        /// Organization of the device.
        organization: OrganizationId,
        /// Day, UTC, `2026-01-31`.
        day: String,
        /// Device.
        device: DeviceId,
        /// Behavior.
        behavior: String,
        /// How often.
        number: u64,
    }
    /// Which executions.
    ExecutionsFilter {
        /// First day.
        from: String,
        /// Last day.
        to: String,
        /// Those of one device.
        device: Option<DeviceId>,
        /// Those of one behavior.
        behavior: Option<String>,
    }
}
