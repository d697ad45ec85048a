//! Mutating requests that came with a key.

use async_trait::async_trait;
use gateway_proto::id::UserId;

use super::{StorageResult, rows::rows};

/// Whose a key is: what two of them choose has nothing to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyHolder {
    /// A user; the keys go with the user.
    User(UserId),
    /// The operator of the platform, whichever operator token was shown: it may be replaced before the answer is asked for again.
    Operator,
}

/// Mutating requests that came with a key.
#[async_trait]
pub trait Idempotency: Send {
    /// What is known of a key that was used since then.
    async fn idempotency_key(
        &mut self,
        holder: KeyHolder,
        key: &str,
        since: u64,
    ) -> StorageResult<Option<IdempotencyRow>>;
    /// Claims a key; [`super::StorageError::Duplicate`] when it is claimed already. A claim that is not from after `since`
    /// is over, and gives way. The oldest of the holder above `keep` go.
    async fn insert_idempotency_key(
        &mut self,
        holder: KeyHolder,
        key: &str,
        request_hash: &str,
        now: u64,
        since: u64,
        keep: u32,
    ) -> StorageResult<()>;
    /// Keeps the answer to a claimed key.
    async fn put_idempotent_answer(
        &mut self,
        holder: KeyHolder,
        key: &str,
        request_hash: &str,
        answer: &KeptAnswer,
    ) -> StorageResult<()>;
    /// Removes keys from before.
    async fn purge_idempotency_keys(&mut self, before: u64) -> StorageResult<()>;
}

rows! {
    /// A mutating request that came with a key.
    IdempotencyRow {
        /// What was asked for, hashed.
        request_hash: String,
        /// The answer, once it is known.
        answer: Option<KeptAnswer>,
    }

    /// An answer that is given again.
    KeptAnswer {
        /// Its status.
        status: u16,
        /// Its text, unless that is not kept.
        text: Option<String>,
        /// The entity tag that came with it.
        etag: Option<String>,
    }
}
