//! How people and programs show who they are: API tokens, invitations, passwords.

use async_trait::async_trait;
use gateway_proto::{
    api::platform::Role,
    id::{ApiTokenId, InvitationId, OrganizationId, UserId},
};

use super::{PasswordHash, Slice, StorageResult, rows::rows};

/// Tokens of automation, invitations, passwords.
#[async_trait]
pub trait Credentials: Send {
    /// One token.
    async fn api_token(&mut self, id: ApiTokenId) -> StorageResult<Option<ApiTokenRow>>;
    /// A token that has not ended, by its hash.
    async fn api_token_by_hash(&mut self, hash: &str, now: u64) -> StorageResult<Option<ApiTokenRow>>;
    /// Tokens of an organization's users.
    async fn api_tokens(&mut self, organization: OrganizationId, slice: &Slice) -> StorageResult<Vec<ApiTokenRow>>;
    /// Tokens of a user.
    async fn api_tokens_of_user(&mut self, user: UserId) -> StorageResult<Vec<ApiTokenRow>>;
    /// How many of a user have not ended.
    async fn count_api_tokens(&mut self, user: UserId, now: u64) -> StorageResult<u64>;
    /// Adds one.
    async fn insert_api_token(&mut self, row: &ApiTokenRow, hash: &str) -> StorageResult<()>;
    /// Notes its use.
    async fn api_token_used(&mut self, id: ApiTokenId, at: u64) -> StorageResult<()>;
    /// Removes one.
    async fn delete_api_token(&mut self, id: ApiTokenId) -> StorageResult<()>;
    /// Removes the tokens of a user.
    async fn delete_api_tokens(&mut self, user: UserId) -> StorageResult<()>;
    /// Changes a user's password; the user's tokens go.
    async fn set_password(&mut self, user: UserId, hash: &PasswordHash) -> StorageResult<()>;
    /// Ends the sessions of a user, but for one.
    async fn delete_other_sessions(&mut self, user: UserId, keep: &str) -> StorageResult<()>;
    /// One invitation.
    async fn invitation(&mut self, id: InvitationId) -> StorageResult<Option<InvitationRow>>;
    /// An invitation that has not ended, by the hash of its code.
    async fn invitation_by_hash(&mut self, hash: &str, now: u64) -> StorageResult<Option<InvitationRow>>;
    /// Invitations of an organization.
    async fn invitations(&mut self, organization: OrganizationId, slice: &Slice) -> StorageResult<Vec<InvitationRow>>;
    /// Invitations that a user made.
    async fn invitations_by(&mut self, inviter: UserId) -> StorageResult<Vec<InvitationRow>>;
    /// How many invitations of an organization have not ended.
    async fn count_invitations(&mut self, organization: OrganizationId, now: u64) -> StorageResult<u64>;
    /// The invitation of an address into an organization.
    async fn invitation_to(
        &mut self,
        organization: OrganizationId,
        email: &str,
    ) -> StorageResult<Option<InvitationRow>>;
    /// Adds one, in the place of an older one to the same address.
    async fn insert_invitation(&mut self, row: &InvitationRow, hash: &str) -> StorageResult<()>;
    /// Removes one.
    async fn delete_invitation(&mut self, id: InvitationId) -> StorageResult<()>;
    /// Removes tokens and invitations that have ended.
    async fn purge_credentials(&mut self, now: u64) -> StorageResult<()>;
}

rows! {
    /// A token of automation.
    ApiTokenRow {
        /// Id.
        id: ApiTokenId,
        /// The user it acts as.
        user: UserId,
        /// That user's organization.
        organization: OrganizationId,
        /// What it is for.
        name: String,
        /// What it may do.
        scopes: Vec<String>,
        /// End.
        expires_at: u64,
        /// When it was last used, to the hour.
        last_used_at: Option<u64>,
        /// Creation.
        created_at: u64,
    }
    /// An invitation that waits.
    InvitationRow {
        /// Id.
        id: InvitationId,
        /// Organization.
        organization: OrganizationId,
        /// Who invited.
        invited_by: UserId,
        /// Sign-in name, lower case.
        email: String,
        /// Name.
        name: String,
        /// Role.
        role: Role,
        /// End.
        expires_at: u64,
        /// Creation.
        created_at: u64,
    }
}
