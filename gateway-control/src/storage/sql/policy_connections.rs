//! What policies say about connections, and which of it gateways have in force.

use std::collections::BTreeMap;

use async_trait::async_trait;
use gateway_proto::{
    id::{ConnectionId, ServerId},
    limits::ChannelLimits,
};

use super::{
    Columns, IDS_AT_ONCE, Row, SqlTransaction, big, channels::limits, connections::connection, each, query, query_in,
    servers, unreadable,
};
use crate::storage::{ADMIN_BEHAVIOR, ConnectionRow, PolicyConnectionRow, PolicyConnections, ServerRow, StorageResult};

/// A new revision, at the ends that a server has of some connections.
const NEW_TO_SENDER: &str = "UPDATE connections SET sender_revision = $2, sender_in_force_at = NULL
     WHERE sender_server_id = $1 AND id IN ({})";
/// The same where it listens.
const NEW_TO_LISTENER: &str = "UPDATE connections SET listener_revision = $2, listener_in_force_at = NULL
     WHERE listener_server_id = $1 AND id IN ({})";
/// The first revision that names them, at the ends that a server has of some connections.
const INTRODUCED_TO_SENDER: &str = "UPDATE connections SET sender_introduced = $2
     WHERE sender_server_id = $1 AND id IN ({})";
/// The same where it listens.
const INTRODUCED_TO_LISTENER: &str = "UPDATE connections SET listener_introduced = $2
     WHERE listener_server_id = $1 AND id IN ({})";

#[async_trait]
impl PolicyConnections for SqlTransaction {
    async fn policy_connections(&mut self, server: ServerId) -> StorageResult<Vec<PolicyConnectionRow>> {
        let rows = query(
            "SELECT connections.*, agreements.status AS agreement_status, owners.name AS owner_name, channels.engine, channels.public_name,
             engine_links.engine_channel, channels.behavior, grants.expires_at, grants.max_streams, grants.staleness_secs,
             grants.require_post_quantum, grants.bytes_per_second, grants.receive_timeout_secs,
             grants.behaviors AS granted_behaviors, organizations.name AS peer_organization_name,
             CASE WHEN connections.sender_server_id = $1 THEN connections.listener_server_id
                  ELSE connections.sender_server_id END AS peer_server_id
             FROM (SELECT * FROM connections WHERE NOT ended AND sender_server_id = $1
                   UNION SELECT * FROM connections
                   WHERE NOT ended AND listener_server_id = $1 AND sender_server_id IS NOT NULL) AS connections
             JOIN agreements ON agreements.id = connections.agreement_id
             JOIN servers AS owners ON owners.id = connections.listener_server_id
             LEFT JOIN channels ON channels.id = connections.channel_id
             LEFT JOIN engine_links ON engine_links.channel_id = connections.channel_id
             LEFT JOIN grants ON grants.id = connections.grant_id
             JOIN organizations ON organizations.id =
                  CASE WHEN connections.sender_server_id = $1 THEN connections.listener_organization
                       ELSE connections.sender_organization END
             ORDER BY connections.id",
        )
        .bind(server.to_string())
        .fetch_all(self.db())
        .await?;
        let peers = self.peers_of(server).await?;
        rows.iter()
            .map(|row| {
                let id: ServerId = row.parsed("peer_server_id")?;
                let peer = peers.get(&id).cloned().ok_or_else(|| unreadable("peer_server_id"))?;
                policy_connection(row, peer)
            })
            .collect()
    }

    async fn confirmed_connections_of_server(
        &mut self,
        server: ServerId,
        limit: u32,
    ) -> StorageResult<Vec<ConnectionRow>> {
        let rows = query(
            "SELECT connections.* FROM connections
             JOIN servers AS senders ON senders.id = connections.sender_server_id
             JOIN servers AS listeners ON listeners.id = connections.listener_server_id
             WHERE connections.status = 'ready' AND connections.sender_server_id = $1 AND connections.auto_activate
             AND connections.sender_revision > 0 AND senders.applied_revision >= connections.sender_revision
             AND connections.listener_revision > 0 AND listeners.applied_revision >= connections.listener_revision
             UNION SELECT connections.* FROM connections
             JOIN servers AS senders ON senders.id = connections.sender_server_id
             JOIN servers AS listeners ON listeners.id = connections.listener_server_id
             WHERE connections.status = 'ready' AND connections.listener_server_id = $1 AND connections.auto_activate
             AND connections.sender_revision > 0 AND senders.applied_revision >= connections.sender_revision
             AND connections.listener_revision > 0 AND listeners.applied_revision >= connections.listener_revision
             ORDER BY id LIMIT $2",
        )
        .bind(server.to_string())
        .bind(i64::from(limit))
        .fetch_all(self.db())
        .await?;
        each(rows, connection)
    }

    async fn introduced_connections(
        &mut self,
        server: ServerId,
        after: u64,
        up_to: u64,
        limit: u32,
    ) -> StorageResult<Vec<ConnectionRow>> {
        let rows = query(
            "SELECT * FROM connections WHERE status = 'ready' AND sender_server_id = $1
             AND sender_introduced > $2 AND sender_introduced <= $3
             UNION SELECT * FROM connections WHERE status = 'ready' AND listener_server_id = $1
             AND listener_introduced > $2 AND listener_introduced <= $3
             ORDER BY id LIMIT $4",
        )
        .bind(server.to_string())
        .bind(big(after))
        .bind(big(up_to))
        .bind(i64::from(limit))
        .fetch_all(self.db())
        .await?;
        each(rows, connection)
    }

    async fn provisioning_connections(&mut self, server: ServerId) -> StorageResult<Vec<ConnectionId>> {
        let rows = query(
            "SELECT id FROM connections WHERE status = 'provisioning' AND sender_server_id = $1
             UNION SELECT id FROM connections WHERE status = 'provisioning' AND listener_server_id = $1 ORDER BY id",
        )
        .bind(server.to_string())
        .fetch_all(self.db())
        .await?;
        each(rows, |row| row.parsed("id"))
    }

    async fn put_revision(
        &mut self,
        server: ServerId,
        revision: u64,
        connections: &[ConnectionId],
        introduced: &[ConnectionId],
    ) -> StorageResult<()> {
        let written = [
            (connections, [NEW_TO_SENDER, NEW_TO_LISTENER]),
            (introduced, [INTRODUCED_TO_SENDER, INTRODUCED_TO_LISTENER]),
        ];
        for (all, texts) in written {
            for some in all.chunks(IDS_AT_ONCE) {
                for text in texts {
                    let same = vec![server.to_string().into(), big(revision).into()];
                    let ids = some.iter().map(ToString::to_string).collect();
                    query_in(text, same, ids).execute(self.db()).await?;
                }
            }
        }
        Ok(())
    }

    async fn put_in_force(&mut self, server: ServerId, revision: u64, now: u64) -> StorageResult<u64> {
        let mut ends = 0;
        for text in [
            "UPDATE connections SET sender_in_force_at = $3 WHERE sender_server_id = $1 AND sender_in_force_at IS NULL
             AND sender_revision > 0 AND sender_revision <= $2",
            "UPDATE connections SET listener_in_force_at = $3 WHERE listener_server_id = $1
             AND listener_in_force_at IS NULL AND listener_revision > 0 AND listener_revision <= $2",
        ] {
            let confirmed = query(text).bind(server.to_string()).bind(big(revision)).bind(big(now));
            ends += confirmed.execute(self.db()).await?;
        }
        Ok(ends)
    }

    async fn take_out_of_force(&mut self, server: ServerId, revision: u64) -> StorageResult<u64> {
        let mut ends = 0;
        for text in [
            "UPDATE connections SET sender_in_force_at = NULL WHERE sender_server_id = $1 AND NOT ended
             AND sender_revision > $2 AND sender_in_force_at IS NOT NULL",
            "UPDATE connections SET listener_in_force_at = NULL WHERE listener_server_id = $1 AND NOT ended
             AND listener_revision > $2 AND listener_in_force_at IS NOT NULL",
        ] {
            ends += query(text).bind(server.to_string()).bind(big(revision)).execute(self.db()).await?;
        }
        Ok(ends)
    }
}

impl SqlTransaction {
    /// The servers at the other ends of the connections of a server that have not ended, itself included if it is one.
    async fn peers_of(&mut self, server: ServerId) -> StorageResult<BTreeMap<ServerId, ServerRow>> {
        let rows = query(
            "SELECT * FROM servers WHERE id IN (
                 SELECT listener_server_id FROM connections WHERE NOT ended AND sender_server_id = $1
                 UNION SELECT sender_server_id FROM connections WHERE NOT ended AND listener_server_id = $1)",
        )
        .bind(server.to_string())
        .fetch_all(self.db())
        .await?;
        rows.iter().map(|row| servers::server(row).map(|server| (server.id, server))).collect()
    }
}

fn policy_connection(row: &Row, peer: ServerRow) -> StorageResult<PolicyConnectionRow> {
    let connection = connection(row)?;
    let (agreement, name) = (row.parsed("agreement_status")?, row.text("peer_organization_name")?);
    if let Some(admin) = &connection.admin {
        let terms = admin.terms.clone();
        return Ok(PolicyConnectionRow {
            agreement,
            engine: None,
            engine_channel: None,
            endpoint: row.text("owner_name")?,
            behavior: ADMIN_BEHAVIOR.to_owned(),
            expires_at: admin.expires_at,
            max_streams: terms.max_streams,
            limits: ChannelLimits::default(),
            behaviors: Vec::new(),
            staleness_secs: terms.staleness_secs,
            require_post_quantum: terms.require_post_quantum,
            peer,
            peer_organization_name: name,
            connection,
        });
    }
    Ok(PolicyConnectionRow {
        agreement,
        engine: Some(row.text("engine")?),
        engine_channel: row.maybe_text("engine_channel")?,
        endpoint: row.text("public_name")?,
        behavior: row.text("behavior")?,
        expires_at: row.maybe_number("expires_at")?,
        max_streams: row.small("max_streams")?,
        limits: limits(row)?,
        behaviors: row.maybe_json("granted_behaviors")?.unwrap_or_default(),
        staleness_secs: row.number("staleness_secs")?,
        require_post_quantum: row.flag("require_post_quantum")?,
        peer,
        peer_organization_name: name,
        connection,
    })
}
