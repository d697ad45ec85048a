//! Devices, behaviors and device tokens.

use async_trait::async_trait;
use gateway_proto::{
    api::platform::{DeviceKind, LinkableBy},
    id::{DeviceId, DeviceTokenId, OrganizationId, ServerId},
};

use super::{Sealed, Slice, StorageResult, rows::rows};

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

/// Tokens of devices, and the keys that sign them.
#[async_trait]
pub trait DeviceTokens: Send {
    /// What is known of one token.
    async fn device_token(&mut self, id: DeviceTokenId) -> StorageResult<Option<DeviceTokenRow>>;
    /// Tokens of an organization's devices, or of one of them, that have not ended.
    async fn device_tokens(
        &mut self,
        organization: OrganizationId,
        device: Option<DeviceId>,
        now: u64,
        slice: &Slice,
    ) -> StorageResult<Vec<DeviceTokenRow>>;
    /// How many tokens of a device have not ended.
    async fn count_device_tokens(&mut self, device: DeviceId, now: u64) -> StorageResult<u64>;
    /// Adds one.
    async fn insert_device_token(&mut self, row: &DeviceTokenRow) -> StorageResult<()>;
    /// Revokes one.
    async fn revoke_device_token(&mut self, id: DeviceTokenId, now: u64) -> StorageResult<()>;
    /// Revokes those of a device; how many.
    async fn revoke_tokens_of_device(&mut self, device: DeviceId, now: u64) -> StorageResult<u64>;
    /// Revokes those of an organization that a user asked for and that have not ended; how many.
    async fn revoke_tokens_issued_by(
        &mut self,
        organization: OrganizationId,
        issuer: &str,
        now: u64,
    ) -> StorageResult<u64>;
    /// Revokes every one there is; how many.
    async fn revoke_all_device_tokens(&mut self, now: u64) -> StorageResult<u64>;
    /// Removes those that have ended.
    async fn purge_device_tokens(&mut self, now: u64) -> StorageResult<()>;
    /// The keys, in the order in which they sign.
    async fn token_keys(&mut self) -> StorageResult<Vec<TokenKeyRow>>;
    /// Adds one.
    async fn insert_token_key(&mut self, row: &TokenKeyRow) -> StorageResult<()>;
    /// Removes one.
    async fn delete_token_key(&mut self, kid: &str) -> StorageResult<()>;
    /// How long tokens live by default and at most, seconds.
    async fn token_terms(&mut self) -> StorageResult<(u64, u64)>;
    /// Changes that.
    async fn put_token_terms(&mut self, default_secs: u64, max_secs: u64) -> StorageResult<()>;
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
    /// What is known of a device's token.
    DeviceTokenRow {
        /// Id.
        id: DeviceTokenId,
        /// Device.
        device: DeviceId,
        /// Its organization.
        organization: OrganizationId,
        /// Whom it is for.
        audience: String,
        /// The key that signed it.
        kid: String,
        /// Thumbprint of the key it is bound to.
        key_thumbprint: Option<String>,
        /// Who asked for it.
        issued_by: String,
        /// End.
        expires_at: u64,
        /// Revocation.
        revoked_at: Option<u64>,
        /// Creation.
        created_at: u64,
    }
    /// A key that signs tokens.
    TokenKeyRow {
        /// Its thumbprint.
        kid: String,
        /// The public half, base64url.
        public: String,
        /// The seed, sealed.
        seed: Sealed,
        /// When it begins to sign.
        signs_from: u64,
        /// Creation.
        created_at: u64,
    }
}
