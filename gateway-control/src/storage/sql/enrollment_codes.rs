//! Enrolment codes.

use async_trait::async_trait;
use gateway_proto::{
    id::{EnrollmentCodeId, ServerId, UserId},
    identity::GatewayPublicKey,
};

use super::{Columns, Row, SqlTransaction, big, each, query};
use crate::storage::{EnrollmentCodeRow, EnrollmentCodes, StorageResult};

#[async_trait]
impl EnrollmentCodes for SqlTransaction {
    async fn insert_enrollment_code(&mut self, row: &EnrollmentCodeRow) -> StorageResult<()> {
        query("DELETE FROM enrollment_codes WHERE server_id = $1 AND used_by IS NULL")
            .bind(row.server.to_string())
            .execute(self.db())
            .await?;
        query(
            "INSERT INTO enrollment_codes (secret_hash, server_id, expires_at, id, issued_by)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(&row.secret_hash)
        .bind(row.server.to_string())
        .bind(big(row.expires_at))
        .bind(row.id.to_string())
        .bind(row.issued_by.map(|id| id.to_string()))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn enrollment_code(&mut self, secret_hash: &str) -> StorageResult<Option<EnrollmentCodeRow>> {
        let row = query("SELECT * FROM enrollment_codes WHERE secret_hash = $1")
            .bind(secret_hash)
            .fetch_optional(self.db())
            .await?;
        row.as_ref().map(code).transpose()
    }

    async fn open_enrollment_codes(&mut self, server: ServerId, now: u64) -> StorageResult<Vec<EnrollmentCodeRow>> {
        let rows = query(
            "SELECT * FROM enrollment_codes WHERE server_id = $1 AND used_by IS NULL AND expires_at > $2 ORDER BY id",
        )
        .bind(server.to_string())
        .bind(big(now))
        .fetch_all(self.db())
        .await?;
        each(rows, code)
    }

    async fn unused_codes_of_user(&mut self, user: UserId) -> StorageResult<Vec<EnrollmentCodeRow>> {
        let rows = query("SELECT * FROM enrollment_codes WHERE issued_by = $1 AND used_by IS NULL ORDER BY id")
            .bind(user.to_string())
            .fetch_all(self.db())
            .await?;
        each(rows, code)
    }

    async fn delete_enrollment_code(&mut self, id: EnrollmentCodeId) -> StorageResult<()> {
        query("DELETE FROM enrollment_codes WHERE id = $1 AND used_by IS NULL")
            .bind(id.to_string())
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn use_enrollment_code(&mut self, secret_hash: &str, key: GatewayPublicKey, now: u64) -> StorageResult<()> {
        query("UPDATE enrollment_codes SET used_by = $2, used_at = $3 WHERE secret_hash = $1")
            .bind(secret_hash)
            .bind(key.to_string())
            .bind(big(now))
            .execute(self.db())
            .await?;
        Ok(())
    }
}

fn code(row: &Row) -> StorageResult<EnrollmentCodeRow> {
    Ok(EnrollmentCodeRow {
        id: row.parsed("id")?,
        secret_hash: row.text("secret_hash")?,
        server: row.parsed("server_id")?,
        issued_by: row.maybe_parsed("issued_by")?,
        expires_at: row.number("expires_at")?,
        used_by: row.maybe_parsed("used_by")?,
        used_at: row.maybe_number("used_at")?,
    })
}
