//! Policies, which of them are to be compiled, and the secrets of pairs of gateways.

use std::collections::BTreeMap;

use async_trait::async_trait;
use gateway_proto::{
    id::{OrganizationId, ServerId},
    identity::GatewayPublicKey,
    policy::Secret,
};

use super::{Columns, IDS_AT_ONCE, SqlTransaction, big, each, ids, query, query::Value, query_in, query_rows, word};
use crate::storage::{Policies, PolicyRow, Sealed, StaleServerRow, StorageResult};

/// The revision of a policy.
pub(super) const REVISION: &str = "SELECT revision FROM policies WHERE server_id = $1";
/// Of many.
pub(super) const REVISIONS: &str = "SELECT server_id, revision FROM policies WHERE server_id IN ({})";

/// Marks for compilation since `$1`; `$2`: something ends by it. The time of a mark that is there already stays, and so does
/// that something ends by it.
macro_rules! mark {
    ($those:literal) => {
        concat!(
            "UPDATE servers SET stale_since = CASE WHEN stale THEN stale_since ELSE $1 END,
             stale_ends = (stale AND stale_ends) OR $2, stale = TRUE WHERE gateway_key IS NOT NULL",
            $those
        )
    };
}
/// Marks some servers.
pub(super) const MARK_SOME: &str = mark!(" AND id IN ({})");
/// Marks all of them.
pub(super) const MARK_ALL: &str = mark!("");
/// Marks those that are connected with one.
pub(super) const MARK_NEIGHBOURS: &str = mark!(
    " AND id IN (
         SELECT listener_server_id FROM connections WHERE NOT ended AND sender_server_id = $3
         UNION SELECT sender_server_id FROM connections WHERE NOT ended AND listener_server_id = $3)"
);
/// Marks of the next organization that has any.
macro_rules! stale {
    ($which:literal) => {
        concat!(
            "SELECT id, organization_id,
                 (SELECT COUNT(*) FROM connections WHERE NOT ended AND sender_server_id = servers.id)
                 + (SELECT COUNT(*) FROM connections WHERE NOT ended AND listener_server_id = servers.id) AS entries
             FROM servers WHERE stale AND ",
            $which,
            " AND organization_id = (SELECT MIN(organization_id) FROM servers WHERE stale AND ",
            $which,
            " AND organization_id > $1) ORDER BY stale_since, id LIMIT $2"
        )
    };
}
pub(super) const STALE_BY_AN_END: &str = stale!("stale_ends");
/// The same of marks by which nothing ends.
pub(super) const STALE_BY_OTHERS: &str = stale!("NOT stale_ends");

#[async_trait]
impl Policies for SqlTransaction {
    async fn policy(&mut self, server: ServerId) -> StorageResult<Option<PolicyRow>> {
        let row = query("SELECT * FROM policies WHERE server_id = $1")
            .bind(server.to_string())
            .fetch_optional(self.db())
            .await?;
        row.map(|row| {
            Ok(PolicyRow {
                server: row.parsed("server_id")?,
                revision: row.number("revision")?,
                keys_since: row.number("keys_since")?,
                envelope: Sealed(row.text("envelope")?),
                delta: row.maybe_text("delta")?.map(Sealed),
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
            "INSERT INTO policies (server_id, revision, envelope, keys_since, delta) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (server_id) DO UPDATE SET revision = excluded.revision, envelope = excluded.envelope,
                 keys_since = excluded.keys_since, delta = excluded.delta",
        )
        .bind(row.server.to_string())
        .bind(big(row.revision))
        .bind(&row.envelope.0)
        .bind(big(row.keys_since))
        .bind(row.delta.as_ref().map(|delta| delta.0.clone()))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn raise_floor(&mut self, server: ServerId, revision: u64) -> StorageResult<()> {
        query("UPDATE servers SET policy_floor = $2 WHERE id = $1")
            .bind(server.to_string())
            .bind(big(revision))
            .execute(self.db())
            .await?;
        Ok(())
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

    async fn put_pair_secrets(
        &mut self,
        key: GatewayPublicKey,
        others: &BTreeMap<GatewayPublicKey, Secret>,
    ) -> StorageResult<()> {
        let rows: Vec<Vec<Value>> = others
            .iter()
            .map(|(other, secret)| {
                let (first, second) = (key.min(*other).to_string(), key.max(*other).to_string());
                vec![first.into(), second.into(), word(secret).into()]
            })
            .collect();
        for some in rows.chunks(IDS_AT_ONCE) {
            let text = "INSERT INTO pair_secrets (first_key, second_key, secret) VALUES {}
                 ON CONFLICT (first_key, second_key) DO NOTHING";
            query_rows(text, some.to_vec()).execute(self.db()).await?;
        }
        Ok(())
    }

    async fn delete_pair_secrets(&mut self, key: GatewayPublicKey) -> StorageResult<()> {
        query("DELETE FROM pair_secrets WHERE first_key = $1 OR second_key = $1")
            .bind(key.to_string())
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn mark_stale(&mut self, servers: &[ServerId], ends: bool, now_ms: u64) -> StorageResult<()> {
        for some in servers.chunks(IDS_AT_ONCE) {
            let same = vec![big(now_ms).into(), ends.into()];
            query_in(MARK_SOME, same, some.iter().map(ToString::to_string).collect()).execute(self.db()).await?;
        }
        Ok(())
    }

    async fn mark_all_stale(&mut self, now_ms: u64) -> StorageResult<()> {
        query(MARK_ALL).bind(big(now_ms)).bind(false).execute(self.db()).await?;
        Ok(())
    }

    async fn mark_neighbours_stale(&mut self, server: ServerId, now_ms: u64) -> StorageResult<()> {
        query(MARK_NEIGHBOURS).bind(big(now_ms)).bind(false).bind(server.to_string()).execute(self.db()).await?;
        Ok(())
    }

    async fn stale_servers(&mut self, after: &str, limit: u32) -> StorageResult<Vec<ServerId>> {
        let rows = query("SELECT id FROM servers WHERE stale AND id > $1 ORDER BY id LIMIT $2")
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(self.db())
            .await?;
        ids(&rows)
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
        query("UPDATE servers SET stale_since = $2 WHERE id = $1")
            .bind(server.to_string())
            .bind(big(now_ms))
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn stale_policy_of(&mut self, signer: GatewayPublicKey) -> StorageResult<Option<(ServerId, String)>> {
        // How the envelope begins names the key that signed it.
        let row = query(
            "SELECT servers.id, servers.name FROM servers JOIN policies ON policies.server_id = servers.id
             WHERE servers.stale AND servers.gateway_key IS NOT NULL AND policies.envelope LIKE $1
             ORDER BY servers.id LIMIT 1",
        )
        .bind(format!("{{\"key\":\"{signer}\"%"))
        .fetch_optional(self.db())
        .await?;
        row.map(|row| Ok((row.parsed("id")?, row.text("name")?))).transpose()
    }
}
