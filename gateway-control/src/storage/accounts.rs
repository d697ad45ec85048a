//! Organizations, users and sessions.

use async_trait::async_trait;
use gateway_proto::{
    api::platform::Role,
    id::{OrganizationId, TenantId, UserId},
};

use super::{Slice, StorageResult, rows::rows};

/// Organizations, users and sessions.
#[async_trait]
pub trait Accounts: Send {
    /// One organization.
    async fn organization(&mut self, id: OrganizationId) -> StorageResult<Option<OrganizationRow>>;
    /// The organization with this name, however it is written in capitals.
    async fn organization_named(&mut self, name: &str) -> StorageResult<Option<OrganizationId>>;
    /// Adds one; [`super::StorageError::Duplicate`] when the name is taken.
    async fn insert_organization(&mut self, row: &OrganizationRow) -> StorageResult<()>;
    /// Stores a changed one.
    async fn update_organization(&mut self, row: &OrganizationRow) -> StorageResult<()>;
    /// Discoverable ones whose search key contains the text, each with its name key and ordered by it.
    async fn directory(&mut self, search: &str, slice: &Slice) -> StorageResult<Vec<(String, OrganizationRow)>>;
    /// Organizations of a tenant that are not removed.
    async fn organizations_of_tenant(&mut self, tenant: TenantId, slice: &Slice)
    -> StorageResult<Vec<OrganizationRow>>;
    /// How many there are of them.
    async fn count_organizations(&mut self, tenant: TenantId) -> StorageResult<u64>;
    /// The organization that is the tenant itself.
    async fn tenant_itself(&mut self, tenant: TenantId) -> StorageResult<Option<OrganizationId>>;
    /// Adds the tenant that an organization is itself.
    async fn insert_tenant(&mut self, row: &OrganizationRow) -> StorageResult<()>;
    /// Removes the users of an organization with their sessions and tokens, and its invitations.
    async fn delete_people(&mut self, organization: OrganizationId) -> StorageResult<()>;
    /// One user.
    async fn user(&mut self, id: UserId) -> StorageResult<Option<UserRow>>;
    /// The user of an organization with this address.
    async fn user_of(&mut self, organization: OrganizationId, email: &str) -> StorageResult<Option<UserRow>>;
    /// The oldest user of the platform with this address.
    async fn oldest_user(&mut self, email: &str) -> StorageResult<Option<UserRow>>;
    /// How many users an organization has.
    async fn count_users(&mut self, organization: OrganizationId) -> StorageResult<u64>;
    /// Users of an organization.
    async fn users(&mut self, organization: OrganizationId, slice: &Slice) -> StorageResult<Vec<UserRow>>;
    /// How many owners an organization has.
    async fn owners(&mut self, organization: OrganizationId) -> StorageResult<u64>;
    /// Adds one; [`super::StorageError::Duplicate`] when the organization has a user with this address.
    async fn insert_user(&mut self, row: &UserRow) -> StorageResult<()>;
    /// Gives one another role.
    async fn set_role(&mut self, id: UserId, role: Role) -> StorageResult<()>;
    /// Removes one with its sessions.
    async fn delete_user(&mut self, id: UserId) -> StorageResult<()>;
    /// Adds a session, ends those of that user that would end after `latest`, and drops the oldest above `keep`.
    async fn insert_session(
        &mut self,
        token_hash: &str,
        user: UserId,
        end: u64,
        latest: u64,
        keep: u32,
    ) -> StorageResult<()>;
    /// The user of a session that has not ended, and does not end after `latest`.
    async fn session_user(&mut self, token_hash: &str, now: u64, latest: u64) -> StorageResult<Option<UserRow>>;
    /// Ends a session.
    async fn delete_session(&mut self, token_hash: &str) -> StorageResult<()>;
}

rows! {
    /// An organization.
    OrganizationRow {
        /// Id.
        id: OrganizationId,
        /// Tenant.
        tenant: TenantId,
        /// Name.
        name: String,
        /// Description for the directory.
        description: String,
        /// Whether strangers find it.
        discoverable: bool,
        /// Whether admin connections to its servers need a second person; of the tenant itself: to those of the tenant.
        two_person_admin: bool,
        /// Creation.
        created_at: u64,
        /// Removal.
        removed_at: Option<u64>,
    }
    /// A user.
    UserRow {
        /// Id.
        id: UserId,
        /// Organization.
        organization: OrganizationId,
        /// Sign-in name, lower case.
        email: String,
        /// Name.
        name: String,
        /// Role.
        role: Role,
        /// Argon2id, PHC form.
        password_hash: PasswordHash,
        /// Creation.
        created_at: u64,
    }
}

/// A password hash: masked in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(pub String);

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(masked)")
    }
}
