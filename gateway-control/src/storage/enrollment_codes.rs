//! Enrolment codes.

use async_trait::async_trait;
use gateway_proto::{
    id::{EnrollmentCodeId, ServerId, UserId},
    identity::GatewayPublicKey,
};

use super::{StorageResult, rows::rows};

/// Enrolment codes.
#[async_trait]
pub trait EnrollmentCodes: Send {
    /// Adds an enrolment code and ends the unused ones of the same server.
    async fn insert_enrollment_code(&mut self, row: &EnrollmentCodeRow) -> StorageResult<()>;
    /// An enrolment code by the hash of its secret.
    async fn enrollment_code(&mut self, secret_hash: &str) -> StorageResult<Option<EnrollmentCodeRow>>;
    /// Enrolment codes of a server that can still be used.
    async fn open_enrollment_codes(&mut self, server: ServerId, now: u64) -> StorageResult<Vec<EnrollmentCodeRow>>;
    /// Enrolment codes that a user made and nobody used, ended or not.
    async fn unused_codes_of_user(&mut self, user: UserId) -> StorageResult<Vec<EnrollmentCodeRow>>;
    /// Ends a code that nobody used.
    async fn delete_enrollment_code(&mut self, id: EnrollmentCodeId) -> StorageResult<()>;
    /// Binds a code to the key that used it.
    async fn use_enrollment_code(&mut self, secret_hash: &str, key: GatewayPublicKey, now: u64) -> StorageResult<()>;
}

rows! {
    /// An enrolment code.
    EnrollmentCodeRow {
        /// Id.
        id: EnrollmentCodeId,
        /// SHA-256 of the secret, hex.
        secret_hash: String,
        /// Server.
        server: ServerId,
        /// The user who made it; none: it is from a time when that was not written down.
        issued_by: Option<UserId>,
        /// End.
        expires_at: u64,
        /// The key that used it.
        used_by: Option<GatewayPublicKey>,
        /// When.
        used_at: Option<u64>,
    }
}
