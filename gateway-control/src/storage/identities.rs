//! Accounts at providers of OpenID Connect, linked to users.

use async_trait::async_trait;
use gateway_proto::id::{IdentityId, OrganizationId, UserId};

use super::{InvitationRow, Sealed, StorageResult, UserRow, rows::rows};

/// Accounts at providers of OpenID Connect, linked to users.
#[async_trait]
pub trait Identities: Send {
    /// Those of an account, one in each organization at most.
    async fn identities_of_account(&mut self, issuer: &str, subject: &str) -> StorageResult<Vec<IdentityRow>>;
    /// Those of a user, one of each issuer at most.
    async fn identities_of_user(&mut self, user: UserId) -> StorageResult<Vec<IdentityRow>>;
    /// Adds one; [`super::StorageError::Duplicate`] when the account or the user is linked already.
    async fn insert_identity(&mut self, row: &IdentityRow) -> StorageResult<()>;
    /// Notes its use.
    async fn identity_used(&mut self, id: IdentityId, at: u64) -> StorageResult<()>;
    /// Removes one.
    async fn delete_identity(&mut self, id: IdentityId) -> StorageResult<()>;
    /// Users of all organizations with this address, oldest first, so many at most.
    async fn users_with_address(&mut self, email: &str, limit: u32) -> StorageResult<Vec<UserRow>>;
    /// Invitations of all organizations to this address that have not ended, oldest first, so many at most.
    async fn invitations_to_address(&mut self, email: &str, now: u64, limit: u32) -> StorageResult<Vec<InvitationRow>>;
    /// Through which provider a session was made; none: through none.
    async fn session_provider(&mut self, token_hash: &str) -> StorageResult<Option<SessionProviderRow>>;
    /// Notes it.
    async fn put_session_provider(&mut self, token_hash: &str, row: &SessionProviderRow) -> StorageResult<()>;
}

rows! {
    /// An account at a provider of OpenID Connect, linked to a user.
    IdentityRow {
        /// Id.
        id: IdentityId,
        /// Who issued it.
        issuer: String,
        /// The account there.
        subject: String,
        /// The user's organization.
        organization: OrganizationId,
        /// The user.
        user: UserId,
        /// Unix seconds.
        linked_at: u64,
        /// Unix seconds.
        last_used_at: u64,
    }
    /// Through which provider a session was made.
    SessionProviderRow {
        /// Its issuer.
        issuer: String,
        /// The ID token; none: it is not kept.
        id_token: Option<Sealed>,
    }
}
