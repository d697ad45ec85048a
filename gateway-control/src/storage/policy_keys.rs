//! The keys that sign policy, and tokens of the platform.

use async_trait::async_trait;
use gateway_proto::{identity::GatewayPublicKey, signed::Envelope, succession::PolicyKeyState};

use super::{Sealed, StorageResult, rows::rows};

/// The keys that sign policies, and the tokens of the platform.
#[async_trait]
pub trait PolicyKeys: Send {
    /// The keys, oldest first.
    async fn policy_keys(&mut self) -> StorageResult<Vec<PolicyKeyRow>>;
    /// Adds one, or stores what it does now.
    async fn put_policy_key(&mut self, row: &PolicyKeyRow) -> StorageResult<()>;
    /// Forgets one.
    async fn delete_policy_key(&mut self, key: GatewayPublicKey) -> StorageResult<()>;
    /// How many gateways have confirmed no policy since the keys that policies name changed last.
    async fn gateways_behind(&mut self) -> StorageResult<u64>;
    /// Whether any gateway is enrolled.
    async fn has_gateways(&mut self) -> StorageResult<bool>;
    /// Tokens of one kind, oldest first.
    async fn platform_tokens(&mut self, kind: &str) -> StorageResult<Vec<PlatformTokenRow>>;
    /// Adds one, or stores its end.
    async fn put_platform_token(&mut self, kind: &str, row: &PlatformTokenRow) -> StorageResult<()>;
}

rows! {
    /// A key that signs policies.
    PolicyKeyRow {
        /// Its place: the oldest has the lowest.
        number: u64,
        /// The public half.
        key: GatewayPublicKey,
        /// The seed, sealed; none: the key is a file, or has retired.
        seed: Option<Sealed>,
        /// What it does.
        state: PolicyKeyState,
        /// When it begins to sign.
        signs_from: u64,
        /// The word of the key before it.
        link: Option<Envelope>,
        /// Creation.
        created_at: u64,
    }
    /// A token of the platform.
    PlatformTokenRow {
        /// Its hash.
        hash: String,
        /// When it counts no more; none: it counts until the next one is made.
        expires_at: Option<u64>,
        /// Creation, or when it was replaced first.
        created_at: u64,
    }
}
