//! Tokens of automation and invitations.

use async_trait::async_trait;
use gateway_proto::id::{ApiTokenId, InvitationId, OrganizationId, UserId};

use super::{Columns, Row, SqlTransaction, big, each, json, limit, query, word};
use crate::storage::{ApiTokenRow, Credentials, InvitationRow, PasswordHash, Slice, StorageResult};

#[async_trait]
impl Credentials for SqlTransaction {
    async fn api_token(&mut self, id: ApiTokenId) -> StorageResult<Option<ApiTokenRow>> {
        let row =
            query("SELECT * FROM api_tokens WHERE id = $1").bind(id.to_string()).fetch_optional(self.db()).await?;
        row.as_ref().map(token).transpose()
    }

    async fn api_token_by_hash(&mut self, hash: &str, now: u64) -> StorageResult<Option<ApiTokenRow>> {
        let row = query("SELECT * FROM api_tokens WHERE token_hash = $1 AND expires_at > $2")
            .bind(hash)
            .bind(big(now))
            .fetch_optional(self.db())
            .await?;
        row.as_ref().map(token).transpose()
    }

    async fn api_tokens(&mut self, organization: OrganizationId, slice: &Slice) -> StorageResult<Vec<ApiTokenRow>> {
        let rows = query("SELECT * FROM api_tokens WHERE organization_id = $1 AND id > $2 ORDER BY id LIMIT $3")
            .bind(organization.to_string())
            .bind(&slice.after)
            .bind(limit(slice))
            .fetch_all(self.db())
            .await?;
        each(rows, token)
    }

    async fn api_tokens_of_user(&mut self, user: UserId) -> StorageResult<Vec<ApiTokenRow>> {
        let rows = query("SELECT * FROM api_tokens WHERE user_id = $1 ORDER BY id")
            .bind(user.to_string())
            .fetch_all(self.db())
            .await?;
        each(rows, token)
    }

    async fn count_api_tokens(&mut self, user: UserId, now: u64) -> StorageResult<u64> {
        let row = query("SELECT COUNT(*) AS number FROM api_tokens WHERE user_id = $1 AND expires_at > $2")
            .bind(user.to_string())
            .bind(big(now))
            .fetch_one(self.db())
            .await?;
        row.number("number")
    }

    async fn insert_api_token(&mut self, row: &ApiTokenRow, hash: &str) -> StorageResult<()> {
        query(
            "INSERT INTO api_tokens (id, token_hash, user_id, organization_id, name, scopes, expires_at, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(row.id.to_string())
        .bind(hash)
        .bind(row.user.to_string())
        .bind(row.organization.to_string())
        .bind(&row.name)
        .bind(json(&row.scopes))
        .bind(big(row.expires_at))
        .bind(big(row.created_at))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn api_token_used(&mut self, id: ApiTokenId, at: u64) -> StorageResult<()> {
        query("UPDATE api_tokens SET last_used_at = $2 WHERE id = $1")
            .bind(id.to_string())
            .bind(big(at))
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn delete_api_token(&mut self, id: ApiTokenId) -> StorageResult<()> {
        query("DELETE FROM api_tokens WHERE id = $1").bind(id.to_string()).execute(self.db()).await?;
        Ok(())
    }

    async fn delete_api_tokens(&mut self, user: UserId) -> StorageResult<()> {
        query("DELETE FROM api_tokens WHERE user_id = $1").bind(user.to_string()).execute(self.db()).await?;
        Ok(())
    }

    async fn set_password(&mut self, user: UserId, hash: &PasswordHash) -> StorageResult<()> {
        query("UPDATE users SET password_hash = $2 WHERE id = $1")
            .bind(user.to_string())
            .bind(&hash.0)
            .execute(self.db())
            .await?;
        self.delete_api_tokens(user).await
    }

    async fn delete_other_sessions(&mut self, user: UserId, keep: &str) -> StorageResult<()> {
        query("DELETE FROM sessions WHERE user_id = $1 AND token_hash <> $2")
            .bind(user.to_string())
            .bind(keep)
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn invitation(&mut self, id: InvitationId) -> StorageResult<Option<InvitationRow>> {
        let row =
            query("SELECT * FROM invitations WHERE id = $1").bind(id.to_string()).fetch_optional(self.db()).await?;
        row.as_ref().map(invitation).transpose()
    }

    async fn invitation_by_hash(&mut self, hash: &str, now: u64) -> StorageResult<Option<InvitationRow>> {
        let row = query("SELECT * FROM invitations WHERE code_hash = $1 AND expires_at > $2")
            .bind(hash)
            .bind(big(now))
            .fetch_optional(self.db())
            .await?;
        row.as_ref().map(invitation).transpose()
    }

    async fn invitations(&mut self, organization: OrganizationId, slice: &Slice) -> StorageResult<Vec<InvitationRow>> {
        let rows = query("SELECT * FROM invitations WHERE organization_id = $1 AND id > $2 ORDER BY id LIMIT $3")
            .bind(organization.to_string())
            .bind(&slice.after)
            .bind(limit(slice))
            .fetch_all(self.db())
            .await?;
        each(rows, invitation)
    }

    async fn invitations_by(&mut self, inviter: UserId) -> StorageResult<Vec<InvitationRow>> {
        let rows = query("SELECT * FROM invitations WHERE invited_by = $1 ORDER BY id")
            .bind(inviter.to_string())
            .fetch_all(self.db())
            .await?;
        each(rows, invitation)
    }

    async fn count_invitations(&mut self, organization: OrganizationId, now: u64) -> StorageResult<u64> {
        let row = query("SELECT COUNT(*) AS number FROM invitations WHERE organization_id = $1 AND expires_at > $2")
            .bind(organization.to_string())
            .bind(big(now))
            .fetch_one(self.db())
            .await?;
        row.number("number")
    }

    async fn invitation_to(
        &mut self,
        organization: OrganizationId,
        email: &str,
    ) -> StorageResult<Option<InvitationRow>> {
        let row = query("SELECT * FROM invitations WHERE organization_id = $1 AND email = $2")
            .bind(organization.to_string())
            .bind(email)
            .fetch_optional(self.db())
            .await?;
        row.as_ref().map(invitation).transpose()
    }

    async fn insert_invitation(&mut self, row: &InvitationRow, hash: &str) -> StorageResult<()> {
        // The newest invitation of an address counts.
        query("DELETE FROM invitations WHERE organization_id = $1 AND email = $2")
            .bind(row.organization.to_string())
            .bind(&row.email)
            .execute(self.db())
            .await?;
        query(
            "INSERT INTO invitations (id, code_hash, organization_id, invited_by, email, name, role, expires_at, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(row.id.to_string())
        .bind(hash)
        .bind(row.organization.to_string())
        .bind(row.invited_by.to_string())
        .bind(&row.email)
        .bind(&row.name)
        .bind(word(&row.role))
        .bind(big(row.expires_at))
        .bind(big(row.created_at))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn delete_invitation(&mut self, id: InvitationId) -> StorageResult<()> {
        query("DELETE FROM invitations WHERE id = $1").bind(id.to_string()).execute(self.db()).await?;
        Ok(())
    }

    async fn purge_credentials(&mut self, now: u64) -> StorageResult<()> {
        query("DELETE FROM api_tokens WHERE expires_at <= $1").bind(big(now)).execute(self.db()).await?;
        query("DELETE FROM invitations WHERE expires_at <= $1").bind(big(now)).execute(self.db()).await?;
        Ok(())
    }
}

fn token(row: &Row) -> StorageResult<ApiTokenRow> {
    Ok(ApiTokenRow {
        id: row.parsed("id")?,
        user: row.parsed("user_id")?,
        organization: row.parsed("organization_id")?,
        name: row.text("name")?,
        scopes: row.json("scopes")?,
        expires_at: row.number("expires_at")?,
        last_used_at: row.maybe_number("last_used_at")?,
        created_at: row.number("created_at")?,
    })
}

pub(super) fn invitation(row: &Row) -> StorageResult<InvitationRow> {
    Ok(InvitationRow {
        id: row.parsed("id")?,
        organization: row.parsed("organization_id")?,
        invited_by: row.parsed("invited_by")?,
        email: row.text("email")?,
        name: row.text("name")?,
        role: row.word("role")?,
        expires_at: row.number("expires_at")?,
        created_at: row.number("created_at")?,
    })
}
