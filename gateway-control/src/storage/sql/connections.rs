//! Connections.

use async_trait::async_trait;
use gateway_proto::id::{AgreementId, ConnectionId, GrantId, OrganizationId, ServerId};

use super::{Columns, Row, SqlTransaction, big, each, ids, json, limit, limit_of, query, word};
use crate::storage::{
    AdminRow, ConnectionFilter, ConnectionRow, Connections, EndRow, RotationRow, Slice, StorageResult,
};

/// Whether the time of the grant is over that a connection was made from; `$now` is the place of the time.
macro_rules! grant_is_over {
    ($now:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM grants WHERE grants.id = connections.grant_id
             AND grants.status = 'active' AND grants.expires_at <= ",
            $now,
            ")"
        )
    };
}
pub(super) use grant_is_over;

/// Whether the time of a connection is over; unknown where it has no end.
macro_rules! is_over {
    ($now:literal) => {
        concat!(
            "admin_expires_at <= ",
            $now,
            " OR (admin_answer_by <= ",
            $now,
            " AND status IN ('provisioning', 'offered')) OR ",
            grant_is_over!($now)
        )
    };
}

/// A page of an organization's connections. Each end has its own index, so each end gets its own half: an OR of the two
/// would be read whole and sorted for every page. What time has ended is left out, whether or not it was written down; where there
/// is no end, CASE takes what is unknown for no.
pub(super) const OPEN_CONNECTIONS: &str = concat!(
    "SELECT * FROM (
         SELECT * FROM connections WHERE sender_organization = $1 AND ended = FALSE AND id > $2
         AND ($4 OR (grant_id IS NULL) = $5) AND ($6 = '' OR agreement_id = $6)
         AND ($7 = '' OR sender_server_id = $7 OR listener_server_id = $7) AND ($8 = '' OR status = $8) AND",
    " CASE WHEN ",
    is_over!("$9"),
    " THEN 'over' ELSE '' END = ''
         ORDER BY id LIMIT $3) AS sent
     UNION SELECT * FROM (
         SELECT * FROM connections WHERE listener_organization = $1 AND ended = FALSE AND id > $2
         AND ($4 OR (grant_id IS NULL) = $5) AND ($6 = '' OR agreement_id = $6)
         AND ($7 = '' OR sender_server_id = $7 OR listener_server_id = $7) AND ($8 = '' OR status = $8)
         AND CASE WHEN ",
    is_over!("$9"),
    " THEN 'over' ELSE '' END = ''
         ORDER BY id LIMIT $3) AS received
     ORDER BY id LIMIT $3"
);

/// The same with those that ended.
pub(super) const ALL_CONNECTIONS: &str = concat!(
    "SELECT * FROM (
         SELECT * FROM connections WHERE sender_organization = $1 AND id > $2
         AND ($4 OR (grant_id IS NULL) = $5) AND ($6 = '' OR agreement_id = $6)
         AND ($7 = '' OR sender_server_id = $7 OR listener_server_id = $7) AND",
    " ($8 = '' OR $8 = CASE WHEN ended THEN status WHEN ",
    is_over!("$9"),
    " THEN 'expired' ELSE status END)
         ORDER BY id LIMIT $3) AS sent
     UNION SELECT * FROM (
         SELECT * FROM connections WHERE listener_organization = $1 AND id > $2
         AND ($4 OR (grant_id IS NULL) = $5) AND ($6 = '' OR agreement_id = $6)
         AND ($7 = '' OR sender_server_id = $7 OR listener_server_id = $7)
         AND ($8 = '' OR $8 = CASE WHEN ended THEN status WHEN ",
    is_over!("$9"),
    " THEN 'expired' ELSE status END)
         ORDER BY id LIMIT $3) AS received
     ORDER BY id LIMIT $3"
);

/// That of a grant.
pub(super) const OF_GRANT: &str = "SELECT * FROM connections WHERE grant_id = $1";
/// Those of many.
pub(super) const OF_GRANTS: &str = "SELECT * FROM connections WHERE grant_id IN ({})";

#[async_trait]
impl Connections for SqlTransaction {
    async fn connection(&mut self, id: ConnectionId) -> StorageResult<Option<ConnectionRow>> {
        let row =
            query("SELECT * FROM connections WHERE id = $1").bind(id.to_string()).fetch_optional(self.db()).await?;
        row.as_ref().map(connection).transpose()
    }

    async fn connection_of_grant(&mut self, grant: GrantId) -> StorageResult<Option<ConnectionRow>> {
        let row = query(OF_GRANT).bind(grant.to_string()).fetch_optional(self.db()).await?;
        row.as_ref().map(connection).transpose()
    }

    async fn connections(
        &mut self,
        organization: OrganizationId,
        filter: &ConnectionFilter,
        slice: &Slice,
        now: u64,
    ) -> StorageResult<Vec<ConnectionRow>> {
        let (any, admin) = (filter.admin.is_none(), filter.admin.unwrap_or_default());
        let text = |text: Option<String>| text.unwrap_or_default();
        let rows = query(if filter.ended { ALL_CONNECTIONS } else { OPEN_CONNECTIONS })
            .bind(organization.to_string())
            .bind(&slice.after)
            .bind(limit(slice))
            .bind(any)
            .bind(admin)
            .bind(text(filter.agreement.map(|id| id.to_string())))
            .bind(text(filter.server.map(|id| id.to_string())))
            .bind(text(filter.status.map(|status| status.as_str().to_owned())))
            .bind(big(now))
            .fetch_all(self.db())
            .await?;
        each(rows, connection)
    }

    async fn open_connections_of_server(&mut self, server: ServerId) -> StorageResult<Vec<ConnectionRow>> {
        let rows = query(
            "SELECT * FROM connections WHERE NOT ended AND sender_server_id = $1
             UNION SELECT * FROM connections WHERE NOT ended AND listener_server_id = $1 ORDER BY id",
        )
        .bind(server.to_string())
        .fetch_all(self.db())
        .await?;
        each(rows, connection)
    }

    async fn open_connections_of_agreement(&mut self, agreement: AgreementId) -> StorageResult<Vec<ConnectionRow>> {
        let rows = query("SELECT * FROM connections WHERE NOT ended AND agreement_id = $1 ORDER BY id")
            .bind(agreement.to_string())
            .fetch_all(self.db())
            .await?;
        each(rows, connection)
    }

    async fn overdue_connections(&mut self, now: u64, limit: u32) -> StorageResult<Vec<ConnectionId>> {
        let rows = query(
            "SELECT id FROM connections WHERE id IN (
                 SELECT id FROM (SELECT id FROM connections
                     WHERE (status = 'provisioning' OR status = 'offered') AND admin_answer_by <= $1
                     ORDER BY admin_answer_by LIMIT $2) AS unanswered
                 UNION SELECT id FROM (SELECT id FROM connections WHERE NOT ended AND admin_expires_at <= $1
                     ORDER BY admin_expires_at LIMIT $2) AS over_now)
             ORDER BY id LIMIT $2",
        )
        .bind(big(now))
        .bind(i64::from(limit))
        .fetch_all(self.db())
        .await?;
        ids(&rows)
    }

    async fn connections_with_secret_due(&mut self, now: u64, limit: u32) -> StorageResult<Vec<ConnectionId>> {
        let rows = query("SELECT id FROM connections WHERE secret_due_at <= $1 ORDER BY secret_due_at LIMIT $2")
            .bind(big(now))
            .bind(i64::from(limit))
            .fetch_all(self.db())
            .await?;
        ids(&rows)
    }

    async fn insert_connection(&mut self, row: &ConnectionRow) -> StorageResult<()> {
        query(
            "INSERT INTO connections (id, grant_id, agreement_id, channel_id, kind, status, ended, auto_activate,
             secret, sender_server_id, sender_organization, sender_port, sender_paused, sender_revision,
             listener_server_id, listener_organization, listener_paused, listener_revision, created_at, ended_at,
             admin_terms, admin_answer_by, admin_expires_at, share_id, admin_approval, old_secret, secret_turns_at,
             old_secret_until, secret_due_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
             $21, $22, $23, $24, $25, $26, $27, $28, $29)",
        )
        .bind(row.id.to_string())
        .bind(row.grant.map(|id| id.to_string()))
        .bind(row.agreement.to_string())
        .bind(row.channel.map(|id| id.to_string()))
        .bind(word(&row.kind))
        .bind(row.status.as_str())
        .bind(row.status.is_ended())
        .bind(row.auto_activate)
        .bind(word(&row.secret))
        .bind(row.sender.server.map(|id| id.to_string()))
        .bind(row.sender.organization.to_string())
        .bind(i64::from(row.sender_port))
        .bind(row.sender.paused)
        .bind(big(row.sender.revision))
        .bind(row.listener.server.map(|id| id.to_string()))
        .bind(row.listener.organization.to_string())
        .bind(row.listener.paused)
        .bind(big(row.listener.revision))
        .bind(big(row.created_at))
        .bind(row.ended_at.map(big))
        .bind(row.admin.as_ref().map(|admin| json(&admin.terms)))
        .bind(row.admin.as_ref().map(|admin| big(admin.answer_by)))
        .bind(row.admin.as_ref().and_then(|admin| admin.expires_at).map(big))
        .bind(row.admin.as_ref().and_then(|admin| admin.share).map(|id| id.to_string()))
        .bind(approval(row))
        .bind(row.rotation.as_ref().map(|rotation| word(&rotation.old)))
        .bind(row.rotation.as_ref().map(|rotation| big(rotation.turns_at)))
        .bind(row.rotation.as_ref().map(|rotation| big(rotation.until)))
        .bind(row.rotation.as_ref().map(|rotation| big(rotation.due_at)))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn update_connection(&mut self, row: &ConnectionRow) -> StorageResult<()> {
        query(
            "UPDATE connections SET status = $2, ended = $3, sender_paused = $4, sender_revision = $5,
             listener_paused = $6, listener_revision = $7, ended_at = $8, sender_server_id = $9, sender_port = $10,
             auto_activate = $11, sender_in_force_at = $12, listener_in_force_at = $13, admin_answer_by = $14,
             admin_approval = $15, admin_people = $16, secret = $17, old_secret = $18, secret_turns_at = $19,
             old_secret_until = $20, secret_due_at = $21 WHERE id = $1",
        )
        .bind(row.id.to_string())
        .bind(row.status.as_str())
        .bind(row.status.is_ended())
        .bind(row.sender.paused)
        .bind(big(row.sender.revision))
        .bind(row.listener.paused)
        .bind(big(row.listener.revision))
        .bind(row.ended_at.map(big))
        .bind(row.sender.server.map(|id| id.to_string()))
        .bind(i64::from(row.sender_port))
        .bind(row.auto_activate)
        .bind(row.sender.in_force_at.map(big))
        .bind(row.listener.in_force_at.map(big))
        .bind(row.admin.as_ref().map(|admin| big(admin.answer_by)))
        .bind(approval(row))
        .bind(row.admin.as_ref().filter(|admin| !admin.people.is_empty()).map(|admin| json(&admin.people)))
        .bind(word(&row.secret))
        .bind(row.rotation.as_ref().map(|rotation| word(&rotation.old)))
        .bind(row.rotation.as_ref().map(|rotation| big(rotation.turns_at)))
        .bind(row.rotation.as_ref().map(|rotation| big(rotation.until)))
        .bind(row.rotation.as_ref().map(|rotation| big(rotation.due_at)))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn count_open_connections(&mut self, server: ServerId) -> StorageResult<u64> {
        // A server that is connected with itself is one connection's both ends.
        let row = query(
            "SELECT (SELECT COUNT(*) FROM connections WHERE NOT ended AND sender_server_id = $1)
             + (SELECT COUNT(*) FROM connections WHERE NOT ended AND listener_server_id = $1
                AND (sender_server_id IS NULL OR sender_server_id <> $1)) AS number",
        )
        .bind(server.to_string())
        .fetch_one(self.db())
        .await?;
        row.number("number")
    }

    async fn count_ended_connections(&mut self, organization: OrganizationId, limit: u32) -> StorageResult<u64> {
        // Of each end no more entries of its index are read than are counted; one between two own servers counts once.
        let row = query(
            "SELECT COUNT(*) AS number FROM (
                 SELECT id FROM (
                     SELECT id FROM connections WHERE sender_organization = $1 AND ended = TRUE LIMIT $2) AS sent
                 UNION SELECT id FROM (
                     SELECT id FROM connections WHERE listener_organization = $1 AND ended = TRUE LIMIT $2) AS received
             ) AS over_now",
        )
        .bind(organization.to_string())
        .bind(limit_of(limit))
        .fetch_one(self.db())
        .await?;
        Ok(row.number("number")?.min(limit.into()))
    }
}

pub(super) fn connection(row: &Row) -> StorageResult<ConnectionRow> {
    Ok(ConnectionRow {
        id: row.parsed("id")?,
        grant: row.maybe_parsed("grant_id")?,
        agreement: row.parsed("agreement_id")?,
        channel: row.maybe_parsed("channel_id")?,
        admin: admin(row)?,
        kind: row.word("kind")?,
        status: row.parsed("status")?,
        auto_activate: row.flag("auto_activate")?,
        secret: row.secret("secret")?,
        rotation: rotation(row)?,
        sender: EndRow {
            server: row.maybe_parsed("sender_server_id")?,
            organization: row.parsed("sender_organization")?,
            paused: row.flag("sender_paused")?,
            revision: row.number("sender_revision")?,
            in_force_at: row.maybe_number("sender_in_force_at")?,
        },
        sender_port: row.small("sender_port")?,
        listener: EndRow {
            server: row.maybe_parsed("listener_server_id")?,
            organization: row.parsed("listener_organization")?,
            paused: row.flag("listener_paused")?,
            revision: row.number("listener_revision")?,
            in_force_at: row.maybe_number("listener_in_force_at")?,
        },
        created_at: row.number("created_at")?,
        ended_at: row.maybe_number("ended_at")?,
    })
}

/// What an admin connection was offered with; channel data was granted, and has its terms there.
fn admin(row: &Row) -> StorageResult<Option<AdminRow>> {
    if row.maybe_text("admin_terms")?.is_none() {
        return Ok(None);
    }
    Ok(Some(AdminRow {
        terms: row.json("admin_terms")?,
        answer_by: row.number("admin_answer_by")?,
        expires_at: row.maybe_number("admin_expires_at")?,
        share: row.maybe_parsed("share_id")?,
        approval: if row.maybe_text("admin_approval")?.is_some() { Some(row.json("admin_approval")?) } else { None },
        people: if row.maybe_text("admin_people")?.is_some() { row.json("admin_people")? } else { Vec::new() },
    }))
}

/// A secret that is being replaced.
fn rotation(row: &Row) -> StorageResult<Option<RotationRow>> {
    if row.maybe_text("old_secret")?.is_none() {
        return Ok(None);
    }
    Ok(Some(RotationRow {
        old: row.secret("old_secret")?,
        turns_at: row.number("secret_turns_at")?,
        until: row.number("old_secret_until")?,
        due_at: row.number("secret_due_at")?,
    }))
}

fn approval(row: &ConnectionRow) -> Option<String> {
    row.admin.as_ref().and_then(|admin| admin.approval.as_ref()).map(json)
}
