//! Organizations, users, sessions.

use async_trait::async_trait;
use gateway_proto::{
    api::platform::Role,
    id::{OrganizationId, TenantId, UserId},
};

use super::{Columns, Row, SqlTransaction, big, containing, each, key, limit, query, word};
use crate::storage::{Accounts, OrganizationRow, PasswordHash, Slice, StorageResult, UserRow};

/// One organization.
pub(super) const ORGANIZATION: &str = "SELECT * FROM organizations WHERE id = $1";
/// Many.
pub(super) const ORGANIZATIONS: &str = "SELECT * FROM organizations WHERE id IN ({})";

/// One user.
pub(super) const USER: &str = "SELECT * FROM users WHERE id = $1";
/// Many.
pub(super) const USERS: &str = "SELECT * FROM users WHERE id IN ({})";

#[async_trait]
impl Accounts for SqlTransaction {
    async fn organization(&mut self, id: OrganizationId) -> StorageResult<Option<OrganizationRow>> {
        let row = query(ORGANIZATION).bind(id.to_string()).fetch_optional(self.db()).await?;
        row.as_ref().map(organization).transpose()
    }

    async fn organization_named(&mut self, name: &str) -> StorageResult<Option<OrganizationId>> {
        let row = query("SELECT id FROM organizations WHERE name_key = $1")
            .bind(key(name.trim()))
            .fetch_optional(self.db())
            .await?;
        row.as_ref().map(|row| row.parsed("id")).transpose()
    }

    async fn insert_organization(&mut self, row: &OrganizationRow) -> StorageResult<()> {
        query(
            "INSERT INTO organizations
             (id, tenant_id, name, name_key, description, search_key, discoverable, created_at, two_person_admin)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(row.id.to_string())
        .bind(row.tenant.to_string())
        .bind(&row.name)
        .bind(key(&row.name))
        .bind(&row.description)
        .bind(search_key(row))
        .bind(row.discoverable)
        .bind(big(row.created_at))
        .bind(row.two_person_admin)
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn update_organization(&mut self, row: &OrganizationRow) -> StorageResult<()> {
        query(
            "UPDATE organizations SET name = $2, description = $4, search_key = $5, discoverable = $6, removed_at = $7,
             name_key = CASE WHEN name = $2 AND $9 THEN name_key ELSE $3 END, two_person_admin = $8 WHERE id = $1",
        )
        .bind(row.id.to_string())
        .bind(&row.name)
        .bind(name_key(row))
        .bind(&row.description)
        .bind(search_key(row))
        .bind(row.discoverable)
        .bind(row.removed_at.map(big))
        .bind(row.two_person_admin)
        .bind(row.removed_at.is_none())
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn directory(&mut self, search: &str, slice: &Slice) -> StorageResult<Vec<(String, OrganizationRow)>> {
        // `!` escapes what would be a wildcard in the text searched for.
        let rows = query(
            "SELECT * FROM organizations
             WHERE discoverable AND name_key > $1 AND search_key LIKE $2 ESCAPE '!' ORDER BY name_key LIMIT $3",
        )
        .bind(&slice.after)
        .bind(containing(search))
        .bind(limit(slice))
        .fetch_all(self.db())
        .await?;
        each(rows, |row| Ok((row.text("name_key")?, organization(row)?)))
    }

    async fn organizations_of_tenant(
        &mut self,
        tenant: TenantId,
        slice: &Slice,
    ) -> StorageResult<Vec<OrganizationRow>> {
        let rows = query(
            "SELECT * FROM organizations WHERE tenant_id = $1 AND id > $2 AND removed_at IS NULL ORDER BY id LIMIT $3",
        )
        .bind(tenant.to_string())
        .bind(&slice.after)
        .bind(limit(slice))
        .fetch_all(self.db())
        .await?;
        each(rows, organization)
    }

    async fn count_organizations(&mut self, tenant: TenantId) -> StorageResult<u64> {
        let row = query("SELECT COUNT(*) AS number FROM organizations WHERE tenant_id = $1 AND removed_at IS NULL")
            .bind(tenant.to_string())
            .fetch_one(self.db())
            .await?;
        row.number("number")
    }

    async fn tenant_itself(&mut self, tenant: TenantId) -> StorageResult<Option<OrganizationId>> {
        let row = query("SELECT organization_id FROM tenants WHERE id = $1")
            .bind(tenant.to_string())
            .fetch_optional(self.db())
            .await?;
        row.as_ref().map(|row| row.parsed("organization_id")).transpose()
    }

    async fn insert_tenant(&mut self, row: &OrganizationRow) -> StorageResult<()> {
        query("INSERT INTO tenants (id, organization_id, created_at) VALUES ($1, $2, $3)")
            .bind(row.tenant.to_string())
            .bind(row.id.to_string())
            .bind(big(row.created_at))
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn delete_people(&mut self, organization: OrganizationId) -> StorageResult<()> {
        let id = organization.to_string();
        query("DELETE FROM invitations WHERE organization_id = $1").bind(&id).execute(self.db()).await?;
        query("DELETE FROM api_tokens WHERE organization_id = $1").bind(&id).execute(self.db()).await?;
        query("DELETE FROM users WHERE organization_id = $1").bind(&id).execute(self.db()).await?;
        Ok(())
    }

    async fn user(&mut self, id: UserId) -> StorageResult<Option<UserRow>> {
        let row = query(USER).bind(id.to_string()).fetch_optional(self.db()).await?;
        row.as_ref().map(user).transpose()
    }

    async fn user_of(&mut self, organization: OrganizationId, email: &str) -> StorageResult<Option<UserRow>> {
        let row = query("SELECT * FROM users WHERE email = $1")
            .bind(address_key(organization, email))
            .fetch_optional(self.db())
            .await?;
        row.as_ref().map(user).transpose()
    }

    async fn oldest_user(&mut self, email: &str) -> StorageResult<Option<UserRow>> {
        let row = query("SELECT * FROM users WHERE address = $1 ORDER BY id LIMIT 1")
            .bind(email)
            .fetch_optional(self.db())
            .await?;
        row.as_ref().map(user).transpose()
    }

    async fn count_users(&mut self, organization: OrganizationId) -> StorageResult<u64> {
        let row = query("SELECT COUNT(*) AS number FROM users WHERE organization_id = $1")
            .bind(organization.to_string())
            .fetch_one(self.db())
            .await?;
        row.number("number")
    }

    async fn users(&mut self, organization: OrganizationId, slice: &Slice) -> StorageResult<Vec<UserRow>> {
        let rows = query("SELECT * FROM users WHERE organization_id = $1 AND id > $2 ORDER BY id LIMIT $3")
            .bind(organization.to_string())
            .bind(&slice.after)
            .bind(limit(slice))
            .fetch_all(self.db())
            .await?;
        each(rows, user)
    }

    async fn owners(&mut self, organization: OrganizationId) -> StorageResult<u64> {
        let row = query("SELECT COUNT(*) AS owners FROM users WHERE organization_id = $1 AND role = 'owner'")
            .bind(organization.to_string())
            .fetch_one(self.db())
            .await?;
        row.number("owners")
    }

    async fn insert_user(&mut self, row: &UserRow) -> StorageResult<()> {
        query(
            "INSERT INTO users (id, organization_id, email, address, name, role, password_hash, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(row.id.to_string())
        .bind(row.organization.to_string())
        .bind(address_key(row.organization, &row.email))
        .bind(&row.email)
        .bind(&row.name)
        .bind(word(&row.role))
        .bind(&row.password_hash.0)
        .bind(big(row.created_at))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn set_role(&mut self, id: UserId, role: Role) -> StorageResult<()> {
        query("UPDATE users SET role = $2 WHERE id = $1")
            .bind(id.to_string())
            .bind(word(&role))
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn delete_user(&mut self, id: UserId) -> StorageResult<()> {
        query("DELETE FROM users WHERE id = $1").bind(id.to_string()).execute(self.db()).await?;
        Ok(())
    }

    async fn insert_session(
        &mut self,
        token_hash: &str,
        user: UserId,
        end: u64,
        latest: u64,
        keep: u32,
    ) -> StorageResult<()> {
        query("DELETE FROM sessions WHERE user_id = $1 AND expires_at > $2")
            .bind(user.to_string())
            .bind(big(latest))
            .execute(self.db())
            .await?;
        query("INSERT INTO sessions (token_hash, user_id, expires_at) VALUES ($1, $2, $3)")
            .bind(token_hash)
            .bind(user.to_string())
            .bind(big(end))
            .execute(self.db())
            .await?;
        query(
            "DELETE FROM sessions WHERE user_id = $1 AND token_hash NOT IN
             (SELECT token_hash FROM sessions WHERE user_id = $1 ORDER BY expires_at DESC LIMIT $2)",
        )
        .bind(user.to_string())
        .bind(i64::from(keep))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn session_user(&mut self, token_hash: &str, now: u64, latest: u64) -> StorageResult<Option<UserRow>> {
        let row = query(
            "SELECT users.* FROM users JOIN sessions ON sessions.user_id = users.id
             WHERE sessions.token_hash = $1 AND sessions.expires_at > $2 AND sessions.expires_at <= $3",
        )
        .bind(token_hash)
        .bind(big(now))
        .bind(big(latest))
        .fetch_optional(self.db())
        .await?;
        row.as_ref().map(user).transpose()
    }

    async fn delete_session(&mut self, token_hash: &str) -> StorageResult<()> {
        query("DELETE FROM sessions WHERE token_hash = $1").bind(token_hash).execute(self.db()).await?;
        Ok(())
    }
}

/// What keeps names unique; a removed organization gives its name free.
fn name_key(row: &OrganizationRow) -> String {
    if row.removed_at.is_some() { row.id.to_string() } else { key(&row.name) }
}

/// What keeps addresses unique: one user with each inside an organization.
fn address_key(organization: OrganizationId, email: &str) -> String {
    format!("{organization} {email}")
}

fn search_key(row: &OrganizationRow) -> String {
    search_key_of(&row.name, &row.description)
}

/// What is searched for a text in the directory.
pub(super) fn search_key_of(name: &str, description: &str) -> String {
    format!("{}\n{}", key(name), key(description))
}

fn organization(row: &Row) -> StorageResult<OrganizationRow> {
    Ok(OrganizationRow {
        id: row.parsed("id")?,
        tenant: row.parsed("tenant_id")?,
        name: row.text("name")?,
        description: row.text("description")?,
        discoverable: row.flag("discoverable")?,
        two_person_admin: row.flag("two_person_admin")?,
        created_at: row.number("created_at")?,
        removed_at: row.maybe_number("removed_at")?,
    })
}

pub(super) fn user(row: &Row) -> StorageResult<UserRow> {
    Ok(UserRow {
        id: row.parsed("id")?,
        organization: row.parsed("organization_id")?,
        email: row.text("address")?,
        name: row.text("name")?,
        role: row.word("role")?,
        password_hash: PasswordHash(row.text("password_hash")?),
        created_at: row.number("created_at")?,
    })
}
