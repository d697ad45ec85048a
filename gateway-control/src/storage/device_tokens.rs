//! Tokens of devices, and the keys that sign them.

use async_trait::async_trait;
use gateway_proto::id::{DeviceId, DeviceTokenId, OrganizationId};

use super::{Sealed, Slice, StorageResult, rows::rows};

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
