//! Servers, gateways, enrolment codes, policies, relays.

use std::collections::BTreeMap;

use async_trait::async_trait;
use gateway_proto::{
    id::{EnrollmentCodeId, OrganizationId, RelayId, ServerId, UserId},
    identity::GatewayPublicKey,
    policy::Secret,
};

use super::{Columns, IDS_AT_ONCE, Row, SqlTransaction, big, each, id_texts, json, key, limit, query, query_in, word};
use crate::storage::{
    EnrollmentCodeRow, PolicyRow, RelayRow, Sealed, ServerRow, Servers, Slice, StaleServerRow, StorageError,
    StorageResult,
};

/// One server.
pub(super) const SERVER: &str = "SELECT * FROM servers WHERE id = $1";
/// Many.
pub(super) const SERVERS: &str = "SELECT * FROM servers WHERE id IN ({})";

/// The revision of a policy.
pub(super) const REVISION: &str = "SELECT revision FROM policies WHERE server_id = $1";
/// Of many.
pub(super) const REVISIONS: &str = "SELECT server_id, revision FROM policies WHERE server_id IN ({})";

/// The time of a mark that is there already stays, and so does that something ends by it.
const MARK_STALE: &str = "UPDATE servers SET stale_since = CASE WHEN stale THEN stale_since ELSE $1 END,
     stale_ends = (stale AND stale_ends) OR $2, stale = TRUE WHERE gateway_key IS NOT NULL AND id IN ({})";
/// Marks of the next organization that has any.
const STALE_BY_AN_END: &str = "SELECT id, organization_id,
         (SELECT COUNT(*) FROM connections WHERE NOT ended AND sender_server_id = servers.id)
         + (SELECT COUNT(*) FROM connections WHERE NOT ended AND listener_server_id = servers.id) AS entries
     FROM servers WHERE stale AND stale_ends AND organization_id = (
         SELECT MIN(organization_id) FROM servers WHERE stale AND stale_ends AND organization_id > $1)
     ORDER BY stale_since, id LIMIT $2";
/// The same of marks by which nothing ends.
const STALE_BY_OTHERS: &str = "SELECT id, organization_id,
         (SELECT COUNT(*) FROM connections WHERE NOT ended AND sender_server_id = servers.id)
         + (SELECT COUNT(*) FROM connections WHERE NOT ended AND listener_server_id = servers.id) AS entries
     FROM servers WHERE stale AND NOT stale_ends AND organization_id = (
         SELECT MIN(organization_id) FROM servers WHERE stale AND NOT stale_ends AND organization_id > $1)
     ORDER BY stale_since, id LIMIT $2";

#[async_trait]
impl Servers for SqlTransaction {
    async fn server(&mut self, id: ServerId) -> StorageResult<Option<ServerRow>> {
        let row = query(SERVER).bind(id.to_string()).fetch_optional(self.db()).await?;
        row.as_ref().map(server).transpose()
    }

    async fn server_by_gateway(&mut self, key: GatewayPublicKey) -> StorageResult<Option<ServerRow>> {
        let row = query("SELECT * FROM servers WHERE gateway_key = $1")
            .bind(key.to_string())
            .fetch_optional(self.db())
            .await?;
        row.as_ref().map(server).transpose()
    }

    async fn servers(&mut self, organization: OrganizationId, slice: &Slice) -> StorageResult<Vec<ServerRow>> {
        let rows = query(
            "SELECT * FROM servers WHERE organization_id = $1 AND removed_at IS NULL AND id > $2 ORDER BY id LIMIT $3",
        )
        .bind(organization.to_string())
        .bind(&slice.after)
        .bind(limit(slice))
        .fetch_all(self.db())
        .await?;
        each(rows, server)
    }

    async fn insert_server(&mut self, row: &ServerRow) -> StorageResult<()> {
        query(
            "INSERT INTO servers (id, organization_id, name, name_key, applied_revision, stale, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(row.id.to_string())
        .bind(row.organization.to_string())
        .bind(&row.name)
        .bind(key(&row.name))
        .bind(big(row.applied_revision))
        .bind(row.stale)
        .bind(big(row.created_at))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn update_server(&mut self, row: &ServerRow) -> StorageResult<()> {
        query(
            "UPDATE servers SET name = $2, name_key = CASE WHEN name = $2 THEN name_key ELSE $3 END, gateway_key = $4,
             noise = $5, gateway_version = $6, last_seen_at = $7, home_relay = $8, applied_revision = $9,
             policy_problem = $10, stale = $11, removed_at = $12 WHERE id = $1",
        )
        .bind(row.id.to_string())
        .bind(&row.name)
        .bind(key(&row.name))
        .bind(row.gateway.map(|key| key.to_string()))
        .bind(row.noise.as_ref().map(json))
        .bind(&row.gateway_version)
        .bind(row.last_seen_at.map(big))
        .bind(row.home_relay.map(|id| id.to_string()))
        .bind(big(row.applied_revision))
        .bind(&row.policy_problem)
        .bind(row.stale)
        .bind(row.removed_at.map(big))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn mark_stale(&mut self, servers: &[ServerId], ends: bool, now_ms: u64) -> StorageResult<()> {
        for some in servers.chunks(IDS_AT_ONCE) {
            let same = vec![big(now_ms).into(), ends.into()];
            query_in(MARK_STALE, same, some.iter().map(ToString::to_string).collect()).execute(self.db()).await?;
        }
        Ok(())
    }

    async fn mark_all_stale(&mut self) -> StorageResult<()> {
        query("UPDATE servers SET stale_ends = stale AND stale_ends, stale = TRUE WHERE gateway_key IS NOT NULL")
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn mark_neighbours_stale(&mut self, server: ServerId) -> StorageResult<()> {
        query(
            "UPDATE servers SET stale_ends = stale AND stale_ends, stale = TRUE
             WHERE gateway_key IS NOT NULL AND id IN (
                 SELECT listener_server_id FROM connections WHERE NOT ended AND sender_server_id = $1
                 UNION SELECT sender_server_id FROM connections WHERE NOT ended AND listener_server_id = $1)",
        )
        .bind(server.to_string())
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn stale_servers(&mut self, after: &str, limit: u32) -> StorageResult<Vec<ServerId>> {
        let rows = query("SELECT id FROM servers WHERE stale AND id > $1 ORDER BY id LIMIT $2")
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(self.db())
            .await?;
        id_texts(&rows, "id")
    }

    async fn stale_servers_of_next(
        &mut self,
        after: Option<OrganizationId>,
        ends: bool,
        limit: u32,
    ) -> StorageResult<Vec<StaleServerRow>> {
        let rows = query(if ends { STALE_BY_AN_END } else { STALE_BY_OTHERS })
            .bind(after.map(|id| id.to_string()).unwrap_or_default())
            .bind(i64::from(limit))
            .fetch_all(self.db())
            .await?;
        each(rows, |row| {
            Ok(StaleServerRow {
                server: row.parsed("id")?,
                organization: row.parsed("organization_id")?,
                entries: row.number("entries")?,
            })
        })
    }

    async fn put_behind(&mut self, server: ServerId, now_ms: u64) -> StorageResult<()> {
        query("UPDATE servers SET stale_since = $2, stale_ends = FALSE WHERE id = $1")
            .bind(server.to_string())
            .bind(big(now_ms))
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn insert_removed_gateway(&mut self, key: GatewayPublicKey, at: u64) -> StorageResult<()> {
        self.delete_removed_gateway(key).await?;
        query("INSERT INTO removed_gateways (gateway_key, removed_at) VALUES ($1, $2)")
            .bind(key.to_string())
            .bind(big(at))
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn delete_removed_gateway(&mut self, key: GatewayPublicKey) -> StorageResult<()> {
        query("DELETE FROM removed_gateways WHERE gateway_key = $1").bind(key.to_string()).execute(self.db()).await?;
        Ok(())
    }

    async fn is_removed_gateway(&mut self, key: GatewayPublicKey) -> StorageResult<bool> {
        let row = query("SELECT 1 FROM removed_gateways WHERE gateway_key = $1")
            .bind(key.to_string())
            .fetch_optional(self.db())
            .await?;
        Ok(row.is_some())
    }

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

    async fn policy(&mut self, server: ServerId) -> StorageResult<Option<PolicyRow>> {
        let row = query("SELECT * FROM policies WHERE server_id = $1")
            .bind(server.to_string())
            .fetch_optional(self.db())
            .await?;
        row.map(|row| {
            Ok(PolicyRow {
                server: row.parsed("server_id")?,
                revision: row.number("revision")?,
                envelope: Sealed(row.text("envelope")?),
            })
        })
        .transpose()
    }

    async fn policy_revision(&mut self, server: ServerId) -> StorageResult<u64> {
        let row = query(REVISION).bind(server.to_string()).fetch_optional(self.db()).await?;
        row.map_or(Ok(0), |row| row.number("revision"))
    }

    async fn put_policy(&mut self, row: &PolicyRow) -> StorageResult<()> {
        query(
            "INSERT INTO policies (server_id, revision, envelope) VALUES ($1, $2, $3)
             ON CONFLICT (server_id) DO UPDATE SET revision = excluded.revision, envelope = excluded.envelope",
        )
        .bind(row.server.to_string())
        .bind(big(row.revision))
        .bind(&row.envelope.0)
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn pair_secret(
        &mut self,
        one: GatewayPublicKey,
        other: GatewayPublicKey,
        fresh: &Secret,
    ) -> StorageResult<Secret> {
        let (first, second) = (one.min(other).to_string(), one.max(other).to_string());
        query(
            "INSERT INTO pair_secrets (first_key, second_key, secret) VALUES ($1, $2, $3)
             ON CONFLICT (first_key, second_key) DO NOTHING",
        )
        .bind(&first)
        .bind(&second)
        .bind(word(fresh))
        .execute(self.db())
        .await?;
        let row = query("SELECT secret FROM pair_secrets WHERE first_key = $1 AND second_key = $2")
            .bind(&first)
            .bind(&second)
            .fetch_one(self.db())
            .await?;
        row.secret("secret")
    }

    async fn pair_secrets(&mut self, key: GatewayPublicKey) -> StorageResult<BTreeMap<GatewayPublicKey, Secret>> {
        let rows = query(
            "SELECT second_key AS other, secret FROM pair_secrets WHERE first_key = $1
             UNION ALL SELECT first_key AS other, secret FROM pair_secrets WHERE second_key = $1",
        )
        .bind(key.to_string())
        .fetch_all(self.db())
        .await?;
        rows.iter().map(|row| Ok((row.parsed("other")?, row.secret("secret")?))).collect()
    }

    async fn delete_pair_secrets(&mut self, key: GatewayPublicKey) -> StorageResult<()> {
        query("DELETE FROM pair_secrets WHERE first_key = $1 OR second_key = $1")
            .bind(key.to_string())
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn relays(&mut self) -> StorageResult<Vec<RelayRow>> {
        let rows = query("SELECT * FROM relays ORDER BY id").fetch_all(self.db()).await?;
        each(rows, |row| {
            Ok(RelayRow {
                id: row.parsed("id")?,
                name: row.text("name")?,
                url: row.text("url")?,
                tls_pin: row.maybe_text("tls_pin")?,
                stun: row.json("stun")?,
                region: row.maybe_text("region")?,
            })
        })
    }

    async fn insert_relay(&mut self, row: &RelayRow) -> StorageResult<()> {
        query("INSERT INTO relays (id, name, url, tls_pin, stun, region) VALUES ($1, $2, $3, $4, $5, $6)")
            .bind(row.id.to_string())
            .bind(&row.name)
            .bind(&row.url)
            .bind(&row.tls_pin)
            .bind(json(&row.stun))
            .bind(&row.region)
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn update_relay(&mut self, row: &RelayRow) -> StorageResult<()> {
        query("UPDATE relays SET name = $2, region = $3 WHERE id = $1")
            .bind(row.id.to_string())
            .bind(&row.name)
            .bind(&row.region)
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn delete_relay(&mut self, id: RelayId) -> StorageResult<bool> {
        let done = query("DELETE FROM relays WHERE id = $1").bind(id.to_string()).execute(self.db()).await?;
        Ok(done > 0)
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

pub(super) fn server(row: &Row) -> StorageResult<ServerRow> {
    let noise = row.maybe_text("noise")?;
    Ok(ServerRow {
        id: row.parsed("id")?,
        organization: row.parsed("organization_id")?,
        name: row.text("name")?,
        gateway: row.maybe_parsed("gateway_key")?,
        noise: noise
            .map(|text| serde_json::from_str(&text).map_err(|_| StorageError::Unreadable("noise".to_owned())))
            .transpose()?,
        gateway_version: row.maybe_text("gateway_version")?,
        last_seen_at: row.maybe_number("last_seen_at")?,
        home_relay: row.maybe_parsed("home_relay")?,
        applied_revision: row.number("applied_revision")?,
        policy_problem: row.maybe_text("policy_problem")?,
        audit_alarm: row.flag("audit_alarm")?,
        stale: row.flag("stale")?,
        created_at: row.number("created_at")?,
        removed_at: row.maybe_number("removed_at")?,
    })
}
