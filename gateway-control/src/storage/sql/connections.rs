//! Connections, and what policies say about them.

use async_trait::async_trait;
use gateway_proto::id::{AgreementId, ConnectionId, GrantId, OrganizationId, ServerId};

use super::{Columns, Row, SqlTransaction, big, each, limit, query, unreadable, word};
use crate::storage::{
    ConnectionRow, Connections, EndRow, PolicyConnectionRow, ServerRow, Servers, Slice, StorageResult,
};

#[async_trait]
impl Connections for SqlTransaction {
    async fn connection(&mut self, id: ConnectionId) -> StorageResult<Option<ConnectionRow>> {
        let row =
            query("SELECT * FROM connections WHERE id = $1").bind(id.to_string()).fetch_optional(self.db()).await?;
        row.as_ref().map(connection).transpose()
    }

    async fn connection_of_grant(&mut self, grant: GrantId) -> StorageResult<Option<ConnectionRow>> {
        let row = query("SELECT * FROM connections WHERE grant_id = $1")
            .bind(grant.to_string())
            .fetch_optional(self.db())
            .await?;
        row.as_ref().map(connection).transpose()
    }

    async fn connections(
        &mut self,
        organization: OrganizationId,
        ended: bool,
        slice: &Slice,
    ) -> StorageResult<Vec<ConnectionRow>> {
        let rows = query(
            "SELECT * FROM connections
             WHERE (sender_organization = $1 OR listener_organization = $1) AND (NOT ended OR $2) AND id > $3
             ORDER BY id LIMIT $4",
        )
        .bind(organization.to_string())
        .bind(ended)
        .bind(&slice.after)
        .bind(limit(slice))
        .fetch_all(self.db())
        .await?;
        each(rows, connection)
    }

    async fn open_connections_of_server(&mut self, server: ServerId) -> StorageResult<Vec<ConnectionRow>> {
        let rows = query(
            "SELECT * FROM connections
             WHERE NOT ended AND (sender_server_id = $1 OR listener_server_id = $1) ORDER BY id",
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

    async fn policy_connections(&mut self, server: ServerId) -> StorageResult<Vec<PolicyConnectionRow>> {
        let rows = query(
            "SELECT connections.*, agreements.status AS agreement_status, channels.engine, channels.public_name,
             channels.behavior, grants.expires_at, grants.max_streams, grants.staleness_secs,
             grants.require_post_quantum, organizations.name AS peer_organization_name,
             CASE WHEN connections.sender_server_id = $1 THEN connections.listener_server_id
                  ELSE connections.sender_server_id END AS peer_server_id
             FROM connections
             JOIN agreements ON agreements.id = connections.agreement_id
             JOIN channels ON channels.id = connections.channel_id
             JOIN grants ON grants.id = connections.grant_id
             JOIN organizations ON organizations.id =
                  CASE WHEN connections.sender_server_id = $1 THEN connections.listener_organization
                       ELSE connections.sender_organization END
             WHERE NOT connections.ended
             AND (connections.sender_server_id = $1 OR connections.listener_server_id = $1)
             ORDER BY connections.id",
        )
        .bind(server.to_string())
        .fetch_all(self.db())
        .await?;
        let mut connections = Vec::with_capacity(rows.len());
        let mut peers = std::collections::BTreeMap::<ServerId, ServerRow>::new();
        for row in &rows {
            let id: ServerId = row.parsed("peer_server_id")?;
            if let std::collections::btree_map::Entry::Vacant(entry) = peers.entry(id) {
                entry.insert(self.server(id).await?.ok_or_else(|| unreadable("peer_server_id"))?);
            }
            let peer = peers.get(&id).cloned().ok_or_else(|| unreadable("peer_server_id"))?;
            connections.push(policy_connection(row, peer)?);
        }
        Ok(connections)
    }

    async fn insert_connection(&mut self, row: &ConnectionRow) -> StorageResult<()> {
        query(
            "INSERT INTO connections (id, grant_id, agreement_id, channel_id, kind, status, ended, auto_activate,
             secret, sender_server_id, sender_organization, sender_port, sender_paused, sender_revision,
             listener_server_id, listener_organization, listener_paused, listener_revision, created_at, ended_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)",
        )
        .bind(row.id.to_string())
        .bind(row.grant.to_string())
        .bind(row.agreement.to_string())
        .bind(row.channel.to_string())
        .bind(word(&row.kind))
        .bind(row.status.as_str())
        .bind(row.status.is_ended())
        .bind(row.auto_activate)
        .bind(word(&row.secret))
        .bind(row.sender.server.to_string())
        .bind(row.sender.organization.to_string())
        .bind(i64::from(row.sender_port))
        .bind(row.sender.paused)
        .bind(big(row.sender.revision))
        .bind(row.listener.server.to_string())
        .bind(row.listener.organization.to_string())
        .bind(row.listener.paused)
        .bind(big(row.listener.revision))
        .bind(big(row.created_at))
        .bind(row.ended_at.map(big))
        .execute(self.db())
        .await?;
        Ok(())
    }

    async fn update_connection(&mut self, row: &ConnectionRow) -> StorageResult<()> {
        query(
            "UPDATE connections SET status = $2, ended = $3, sender_paused = $4, sender_revision = $5,
             listener_paused = $6, listener_revision = $7, ended_at = $8 WHERE id = $1",
        )
        .bind(row.id.to_string())
        .bind(row.status.as_str())
        .bind(row.status.is_ended())
        .bind(row.sender.paused)
        .bind(big(row.sender.revision))
        .bind(row.listener.paused)
        .bind(big(row.listener.revision))
        .bind(row.ended_at.map(big))
        .execute(self.db())
        .await?;
        Ok(())
    }
}

fn connection(row: &Row) -> StorageResult<ConnectionRow> {
    Ok(ConnectionRow {
        id: row.parsed("id")?,
        grant: row.parsed("grant_id")?,
        agreement: row.parsed("agreement_id")?,
        channel: row.parsed("channel_id")?,
        kind: row.word("kind")?,
        status: row.parsed("status")?,
        auto_activate: row.flag("auto_activate")?,
        secret: row.secret("secret")?,
        sender: EndRow {
            server: row.parsed("sender_server_id")?,
            organization: row.parsed("sender_organization")?,
            paused: row.flag("sender_paused")?,
            revision: row.number("sender_revision")?,
        },
        sender_port: row.small("sender_port")?,
        listener: EndRow {
            server: row.parsed("listener_server_id")?,
            organization: row.parsed("listener_organization")?,
            paused: row.flag("listener_paused")?,
            revision: row.number("listener_revision")?,
        },
        created_at: row.number("created_at")?,
        ended_at: row.maybe_number("ended_at")?,
    })
}

fn policy_connection(row: &Row, peer: ServerRow) -> StorageResult<PolicyConnectionRow> {
    Ok(PolicyConnectionRow {
        connection: connection(row)?,
        agreement: row.parsed("agreement_status")?,
        engine: row.text("engine")?,
        endpoint: row.text("public_name")?,
        behavior: row.text("behavior")?,
        expires_at: row.maybe_number("expires_at")?,
        max_streams: row.small("max_streams")?,
        staleness_secs: row.number("staleness_secs")?,
        require_post_quantum: row.flag("require_post_quantum")?,
        peer,
        peer_organization_name: row.text("peer_organization_name")?,
    })
}
