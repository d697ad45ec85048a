//! Accounts at providers of OpenID Connect, linked to users.

use async_trait::async_trait;
use gateway_proto::id::{IdentityId, UserId};

use super::{Columns, Row, SqlTransaction, accounts, big, credentials, each, limit_of, query};
use crate::storage::{Identities, IdentityRow, InvitationRow, Sealed, SessionProviderRow, StorageResult, UserRow};

#[async_trait]
impl Identities for SqlTransaction {
    async fn identities_of_account(&mut self, issuer: &str, subject: &str) -> StorageResult<Vec<IdentityRow>> {
        let rows = query("SELECT * FROM identities WHERE issuer = $1 AND subject = $2 ORDER BY organization_id")
            .bind(issuer)
            .bind(subject)
            .fetch_all(self.db())
            .await?;
        each(rows, identity)
    }

    async fn identities_of_user(&mut self, user: UserId) -> StorageResult<Vec<IdentityRow>> {
        let rows = query("SELECT * FROM identities WHERE user_id = $1 ORDER BY issuer")
            .bind(user.to_string())
            .fetch_all(self.db())
            .await?;
        each(rows, identity)
    }

    async fn insert_identity(&mut self, row: &IdentityRow) -> StorageResult<()> {
        query(
            "INSERT INTO identities (id, issuer, subject, organization_id, user_id, linked_at, last_used_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(row.id.to_string())
        .bind(&row.issuer)
        .bind(&row.subject)
        .bind(row.organization.to_string())
        .bind(row.user.to_string())
        .bind(big(row.linked_at))
        .bind(big(row.last_used_at))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn identity_used(&mut self, id: IdentityId, at: u64) -> StorageResult<()> {
        query("UPDATE identities SET last_used_at = $2 WHERE id = $1")
            .bind(id.to_string())
            .bind(big(at))
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn delete_identity(&mut self, id: IdentityId) -> StorageResult<()> {
        query("DELETE FROM identities WHERE id = $1").bind(id.to_string()).execute(self.db()).await?;
        Ok(())
    }

    async fn users_with_address(&mut self, email: &str, limit: u32) -> StorageResult<Vec<UserRow>> {
        let rows = query("SELECT * FROM users WHERE address = $1 ORDER BY id LIMIT $2")
            .bind(email)
            .bind(limit_of(limit))
            .fetch_all(self.db())
            .await?;
        each(rows, accounts::user)
    }

    async fn invitations_to_address(&mut self, email: &str, now: u64, limit: u32) -> StorageResult<Vec<InvitationRow>> {
        let rows = query("SELECT * FROM invitations WHERE email = $1 AND expires_at > $2 ORDER BY id LIMIT $3")
            .bind(email)
            .bind(big(now))
            .bind(limit_of(limit))
            .fetch_all(self.db())
            .await?;
        each(rows, credentials::invitation)
    }

    async fn session_provider(&mut self, token_hash: &str) -> StorageResult<Option<SessionProviderRow>> {
        let row = query("SELECT issuer, id_token FROM sessions WHERE token_hash = $1 AND issuer IS NOT NULL")
            .bind(token_hash)
            .fetch_optional(self.db())
            .await?;
        let read = |row: Row| {
            Ok(SessionProviderRow { issuer: row.text("issuer")?, id_token: row.maybe_text("id_token")?.map(Sealed) })
        };
        row.map(read).transpose()
    }

    async fn put_session_provider(&mut self, token_hash: &str, row: &SessionProviderRow) -> StorageResult<()> {
        query("UPDATE sessions SET issuer = $2, id_token = $3 WHERE token_hash = $1")
            .bind(token_hash)
            .bind(&row.issuer)
            .bind(row.id_token.as_ref().map(|sealed| sealed.0.clone()))
            .execute(self.db())
            .await?;
        Ok(())
    }
}

fn identity(row: &Row) -> StorageResult<IdentityRow> {
    Ok(IdentityRow {
        id: row.parsed("id")?,
        issuer: row.text("issuer")?,
        subject: row.text("subject")?,
        organization: row.parsed("organization_id")?,
        user: row.parsed("user_id")?,
        linked_at: row.number("linked_at")?,
        last_used_at: row.number("last_used_at")?,
    })
}
