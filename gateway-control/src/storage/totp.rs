//! Second factors.

use async_trait::async_trait;
use gateway_proto::id::UserId;

use super::{Sealed, StorageResult, rows::rows};

/// Second factors of users.
#[async_trait]
pub trait SecondFactors: Send {
    /// That of a user, confirmed or not.
    async fn totp(&mut self, user: UserId) -> StorageResult<Option<TotpRow>>;
    /// Stores it, new or changed.
    async fn put_totp(&mut self, row: &TotpRow) -> StorageResult<()>;
    /// Removes it with the recovery codes.
    async fn delete_totp(&mut self, user: UserId) -> StorageResult<()>;
    /// Adds a recovery code.
    async fn insert_recovery_code(&mut self, user: UserId, hash: &str) -> StorageResult<()>;
    /// Spends a recovery code; whether it was there.
    async fn use_recovery_code(&mut self, user: UserId, hash: &str) -> StorageResult<bool>;
    /// How many are left.
    async fn count_recovery_codes(&mut self, user: UserId) -> StorageResult<u64>;
}

rows! {
    /// The second factor of a user.
    TotpRow {
        /// User.
        user: UserId,
        /// The secret, sealed.
        secret: Sealed,
        /// It is needed at sign-in.
        confirmed: bool,
        /// The step of the last code that was accepted.
        last_step: u64,
        /// Creation.
        created_at: u64,
    }
}
