//! Replicas: who watches where, what gateways reported, nonces, facts.

use async_trait::async_trait;
use gateway_proto::{
    api::gateway::ConnectionReport,
    id::{ConnectionId, ServerId},
};

use super::{Columns, SqlTransaction, big, json, limit_of, query};
use crate::storage::{Replicas, StorageResult};

/// When the replica of a watch was heard.
pub(super) const WATCH_HEARD: &str =
    "SELECT replicas.heard_at FROM watches JOIN replicas ON replicas.id = watches.replica_id
             WHERE watches.server_id = $1 AND replicas.heard_at >= $2";
/// Of many.
pub(super) const WATCHES_HEARD: &str =
    "SELECT watches.server_id, replicas.heard_at FROM watches JOIN replicas ON replicas.id = watches.replica_id
     WHERE replicas.heard_at >= $1 AND watches.server_id IN ({})";

/// What was reported of an end of a connection.
pub(super) const REPORT: &str = "SELECT reports.report, reports.reported_at FROM reports
             JOIN watches ON watches.server_id = reports.server_id
             JOIN replicas ON replicas.id = watches.replica_id
             WHERE reports.server_id = $1 AND reports.connection_id = $2 AND replicas.heard_at >= $3";
/// Of many, found by their connections: each has two at most, one of each end.
pub(super) const REPORTS: &str =
    "SELECT reports.server_id, reports.connection_id, reports.report, reports.reported_at FROM reports
     JOIN watches ON watches.server_id = reports.server_id
     JOIN replicas ON replicas.id = watches.replica_id
     WHERE replicas.heard_at >= $1 AND reports.connection_id IN ({})";

#[async_trait]
impl Replicas for SqlTransaction {
    async fn fact(&mut self, name: &str, fresh: &str) -> StorageResult<String> {
        query("INSERT INTO facts (name, content) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
            .bind(name)
            .bind(fresh)
            .execute(self.db())
            .await?;
        query("SELECT content FROM facts WHERE name = $1").bind(name).fetch_one(self.db()).await?.text("content")
    }

    async fn known_fact(&mut self, name: &str) -> StorageResult<Option<String>> {
        let row = query("SELECT content FROM facts WHERE name = $1").bind(name).fetch_optional(self.db()).await?;
        row.map(|row| row.text("content")).transpose()
    }

    async fn spend_nonce(&mut self, digest: &str, until: u64) -> StorageResult<bool> {
        let new = query("INSERT INTO nonces (digest, expires_at) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING")
            .bind(digest)
            .bind(big(until))
            .execute(self.db())
            .await?;
        Ok(new > 0)
    }

    async fn put_replica(&mut self, replica: &str, now: u64) -> StorageResult<()> {
        query(
            "INSERT INTO replicas (id, heard_at) VALUES ($1, $2)
             ON CONFLICT (id) DO UPDATE SET heard_at = excluded.heard_at",
        )
        .bind(replica)
        .bind(big(now))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn delete_replicas(&mut self, silent_since: u64) -> StorageResult<()> {
        query("DELETE FROM replicas WHERE heard_at < $1").bind(big(silent_since)).execute(self.db()).await?;
        query("DELETE FROM watches WHERE replica_id NOT IN (SELECT id FROM replicas)").execute(self.db()).await?;
        query("DELETE FROM reports WHERE server_id NOT IN (SELECT server_id FROM watches)").execute(self.db()).await?;
        Ok(())
    }

    async fn put_watch(&mut self, server: ServerId, replica: &str, session: u64) -> StorageResult<bool> {
        let changed = query(
            "INSERT INTO watches (server_id, replica_id, session) VALUES ($1, $2, $3)
             ON CONFLICT (server_id) DO UPDATE SET replica_id = excluded.replica_id, session = excluded.session
             WHERE watches.replica_id <> excluded.replica_id OR watches.session < excluded.session",
        )
        .bind(server.to_string())
        .bind(replica)
        .bind(big(session))
        .execute(self.db())
        .await?;
        if changed > 0 {
            query("DELETE FROM reports WHERE server_id = $1").bind(server.to_string()).execute(self.db()).await?;
        }
        Ok(changed > 0)
    }

    async fn delete_watch(&mut self, server: ServerId, replica: &str, session: u64) -> StorageResult<()> {
        query("DELETE FROM watches WHERE server_id = $1 AND replica_id = $2 AND session = $3")
            .bind(server.to_string())
            .bind(replica)
            .bind(big(session))
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn watch_heard(&mut self, server: ServerId, alive_since: u64) -> StorageResult<Option<u64>> {
        let row = query(WATCH_HEARD).bind(server.to_string()).bind(big(alive_since)).fetch_optional(self.db()).await?;
        row.map(|row| row.number("heard_at")).transpose()
    }

    async fn put_report(&mut self, server: ServerId, report: &ConnectionReport, at: u64) -> StorageResult<()> {
        query(
            "INSERT INTO reports (server_id, connection_id, report, reported_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (server_id, connection_id)
             DO UPDATE SET report = excluded.report, reported_at = excluded.reported_at",
        )
        .bind(server.to_string())
        .bind(report.id.to_string())
        .bind(json(report))
        .bind(big(at))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn delete_report(&mut self, server: ServerId, connection: ConnectionId) -> StorageResult<()> {
        query("DELETE FROM reports WHERE server_id = $1 AND connection_id = $2")
            .bind(server.to_string())
            .bind(connection.to_string())
            .execute(self.db())
            .await?;
        Ok(())
    }

    async fn report(
        &mut self,
        server: ServerId,
        connection: ConnectionId,
        alive_since: u64,
    ) -> StorageResult<Option<(ConnectionReport, u64)>> {
        let row = query(REPORT)
            .bind(server.to_string())
            .bind(connection.to_string())
            .bind(big(alive_since))
            .fetch_optional(self.db())
            .await?;
        row.map(|row| Ok((row.json("report")?, row.number("reported_at")?))).transpose()
    }

    async fn reports_of_server(&mut self, server: ServerId, alive_since: u64) -> StorageResult<Vec<ConnectionReport>> {
        let rows = query(
            "SELECT reports.report FROM reports
             JOIN watches ON watches.server_id = reports.server_id
             JOIN replicas ON replicas.id = watches.replica_id
             WHERE reports.server_id = $1 AND replicas.heard_at >= $2",
        )
        .bind(server.to_string())
        .bind(big(alive_since))
        .fetch_all(self.db())
        .await?;
        rows.iter().map(|row| row.json::<ConnectionReport>("report")).collect()
    }

    async fn policies_after(&mut self, revision: u64, limit: u32) -> StorageResult<Vec<(ServerId, u64)>> {
        let rows = query("SELECT server_id, revision FROM policies WHERE revision > $1 ORDER BY revision LIMIT $2")
            .bind(big(revision))
            .bind(limit_of(limit))
            .fetch_all(self.db())
            .await?;
        rows.iter().map(|row| Ok((row.parsed("server_id")?, row.number("revision")?))).collect()
    }
}
