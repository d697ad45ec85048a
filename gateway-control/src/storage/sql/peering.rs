//! Peering requests and agreements.

use async_trait::async_trait;
use gateway_proto::{
    id::{AgreementId, OrganizationId, PeeringRequestId},
    peering::AgreementStatus,
};

use super::{Columns, Row, SqlTransaction, big, each, ids, limit, query};
use crate::storage::{AgreementRow, Peering, PeeringFilter, PeeringRequestRow, Slice, StorageResult};

/// One agreement.
pub(super) const AGREEMENT: &str = "SELECT * FROM agreements WHERE id = $1";
/// Many.
pub(super) const AGREEMENTS: &str = "SELECT * FROM agreements WHERE id IN ({})";

/// Between two.
pub(super) const AGREEMENT_BETWEEN: &str = "SELECT * FROM agreements WHERE ended_at IS NULL
             AND ((first_organization = $1 AND second_organization = $2)
               OR (first_organization = $2 AND second_organization = $1)) ORDER BY id LIMIT 1";
/// Between one and many.
pub(super) const AGREEMENTS_WITH: &str =
    "SELECT * FROM agreements WHERE ended_at IS NULL AND first_organization = $1 AND second_organization IN ({})
     UNION SELECT * FROM agreements WHERE ended_at IS NULL AND second_organization = $1 AND first_organization IN ({})
     ORDER BY id";

/// Between two.
pub(super) const PENDING_BETWEEN: &str = "SELECT * FROM peering_requests WHERE status = 'pending' AND expires_at > $3
             AND ((from_organization = $1 AND to_organization = $2) OR (from_organization = $2 AND to_organization = $1))
             ORDER BY id LIMIT 1";
/// Between one and many.
pub(super) const PENDING_WITH: &str =
    "SELECT * FROM peering_requests WHERE status = 'pending' AND expires_at > $2 AND from_organization = $1
     AND to_organization IN ({})
     UNION SELECT * FROM peering_requests WHERE status = 'pending' AND expires_at > $2 AND to_organization = $1
     AND from_organization IN ({})
     ORDER BY id";

#[async_trait]
impl Peering for SqlTransaction {
    async fn peering_request(&mut self, id: PeeringRequestId) -> StorageResult<Option<PeeringRequestRow>> {
        let row = query("SELECT * FROM peering_requests WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(self.db())
            .await?;
        row.as_ref().map(request).transpose()
    }

    async fn peering_requests(
        &mut self,
        organization: OrganizationId,
        filter: &PeeringFilter,
        slice: &Slice,
        now: u64,
    ) -> StorageResult<Vec<PeeringRequestRow>> {
        let rows = query(
            "SELECT * FROM (
                 SELECT * FROM peering_requests WHERE from_organization = $1 AND id > $2
                 AND ($4 = '' OR $4 = CASE WHEN status = 'pending' AND expires_at <= $7 THEN 'expired' ELSE status END)
                 AND ($5 OR $6) ORDER BY id LIMIT $3) AS outgoing
             UNION SELECT * FROM (
                 SELECT * FROM peering_requests WHERE to_organization = $1 AND id > $2
                 AND ($4 = '' OR $4 = CASE WHEN status = 'pending' AND expires_at <= $7 THEN 'expired' ELSE status END)
                 AND ($5 OR NOT $6) ORDER BY id LIMIT $3) AS incoming
             ORDER BY id LIMIT $3",
        )
        .bind(organization.to_string())
        .bind(&slice.after)
        .bind(limit(slice))
        .bind(filter.status.map(|status| status.as_str()).unwrap_or_default())
        .bind(filter.outgoing.is_none())
        .bind(filter.outgoing.unwrap_or_default())
        .bind(big(now))
        .fetch_all(self.db())
        .await?;
        each(rows, request)
    }

    async fn pending_between(
        &mut self,
        one: OrganizationId,
        other: OrganizationId,
        now: u64,
    ) -> StorageResult<Option<PeeringRequestRow>> {
        let row = query(PENDING_BETWEEN)
            .bind(one.to_string())
            .bind(other.to_string())
            .bind(big(now))
            .fetch_optional(self.db())
            .await?;
        row.as_ref().map(request).transpose()
    }

    async fn insert_peering_request(&mut self, row: &PeeringRequestRow) -> StorageResult<()> {
        query(
            "INSERT INTO peering_requests
             (id, from_organization, to_organization, message, status, agreement_id, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(row.id.to_string())
        .bind(row.from.to_string())
        .bind(row.to.to_string())
        .bind(&row.message)
        .bind(row.status.as_str())
        .bind(row.agreement.map(|id| id.to_string()))
        .bind(big(row.created_at))
        .bind(big(row.expires_at))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn update_peering_request(&mut self, row: &PeeringRequestRow) -> StorageResult<()> {
        let (from, to) = row.kept_names.clone().unzip();
        query(
            "UPDATE peering_requests SET status = $2, agreement_id = $3, from_kept_name = $4, to_kept_name = $5
             WHERE id = $1",
        )
        .bind(row.id.to_string())
        .bind(row.status.as_str())
        .bind(row.agreement.map(|id| id.to_string()))
        .bind(from)
        .bind(to)
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn overdue_peering_requests(&mut self, now: u64, limit: u32) -> StorageResult<Vec<PeeringRequestId>> {
        let rows = query(
            "SELECT id FROM peering_requests WHERE status = 'pending' AND expires_at <= $1 ORDER BY expires_at LIMIT $2",
        )
        .bind(big(now))
        .bind(i64::from(limit))
        .fetch_all(self.db())
        .await?;
        ids(&rows)
    }

    async fn agreement(&mut self, id: AgreementId) -> StorageResult<Option<AgreementRow>> {
        let row = query(AGREEMENT).bind(id.to_string()).fetch_optional(self.db()).await?;
        row.as_ref().map(agreement).transpose()
    }

    async fn agreements(
        &mut self,
        organization: OrganizationId,
        status: Option<AgreementStatus>,
        slice: &Slice,
    ) -> StorageResult<Vec<AgreementRow>> {
        let rows = query(
            "SELECT * FROM (
                 SELECT * FROM agreements WHERE first_organization = $1 AND id > $2
                 AND ($4 = '' OR status = $4) ORDER BY id LIMIT $3) AS asked
             UNION SELECT * FROM (
                 SELECT * FROM agreements WHERE second_organization = $1 AND id > $2
                 AND ($4 = '' OR status = $4) ORDER BY id LIMIT $3) AS accepted
             ORDER BY id LIMIT $3",
        )
        .bind(organization.to_string())
        .bind(&slice.after)
        .bind(limit(slice))
        .bind(status.map(|status| status.as_str()).unwrap_or_default())
        .fetch_all(self.db())
        .await?;
        each(rows, agreement)
    }

    async fn agreement_between(
        &mut self,
        one: OrganizationId,
        other: OrganizationId,
    ) -> StorageResult<Option<AgreementRow>> {
        let row =
            query(AGREEMENT_BETWEEN).bind(one.to_string()).bind(other.to_string()).fetch_optional(self.db()).await?;
        row.as_ref().map(agreement).transpose()
    }

    async fn insert_agreement(&mut self, row: &AgreementRow) -> StorageResult<()> {
        query(
            "INSERT INTO agreements
             (id, first_organization, second_organization, status, first_suspends, second_suspends, created_at, ended_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(row.id.to_string())
        .bind(row.first.to_string())
        .bind(row.second.to_string())
        .bind(row.status.as_str())
        .bind(row.first_suspends)
        .bind(row.second_suspends)
        .bind(big(row.created_at))
        .bind(row.ended_at.map(big))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn update_agreement(&mut self, row: &AgreementRow) -> StorageResult<()> {
        let (first, second) = row.kept_names.clone().unzip();
        query(
            "UPDATE agreements SET status = $2, first_suspends = $3, second_suspends = $4, ended_at = $5,
             first_kept_name = $6, second_kept_name = $7 WHERE id = $1",
        )
        .bind(row.id.to_string())
        .bind(row.status.as_str())
        .bind(row.first_suspends)
        .bind(row.second_suspends)
        .bind(row.ended_at.map(big))
        .bind(first)
        .bind(second)
        .execute(self.db())
        .await?;
        Ok(())
    }
}

/// Two names, of what is over.
fn kept_names(row: &Row, one: &str, other: &str) -> StorageResult<Option<(String, String)>> {
    Ok(row.maybe_text(one)?.zip(row.maybe_text(other)?))
}

fn request(row: &Row) -> StorageResult<PeeringRequestRow> {
    Ok(PeeringRequestRow {
        id: row.parsed("id")?,
        from: row.parsed("from_organization")?,
        to: row.parsed("to_organization")?,
        message: row.text("message")?,
        status: row.parsed("status")?,
        agreement: row.maybe_parsed("agreement_id")?,
        kept_names: kept_names(row, "from_kept_name", "to_kept_name")?,
        created_at: row.number("created_at")?,
        expires_at: row.number("expires_at")?,
    })
}

fn agreement(row: &Row) -> StorageResult<AgreementRow> {
    Ok(AgreementRow {
        id: row.parsed("id")?,
        first: row.parsed("first_organization")?,
        second: row.parsed("second_organization")?,
        status: row.parsed("status")?,
        first_suspends: row.flag("first_suspends")?,
        second_suspends: row.flag("second_suspends")?,
        kept_names: kept_names(row, "first_kept_name", "second_kept_name")?,
        created_at: row.number("created_at")?,
        ended_at: row.maybe_number("ended_at")?,
    })
}
