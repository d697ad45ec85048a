//! Sender channels.

use async_trait::async_trait;
use gateway_proto::id::{ConnectionId, OrganizationId};

use super::{Columns, Row, SqlTransaction, big, connections::grant_is_over, containing, each, key, limit, query};
use crate::storage::{ChannelFilter, SenderRow, Senders, Slice, StorageResult};

/// A page of the senders of an organization.
pub(super) const SENDERS: &str = concat!(
    "SELECT connections.id, connections.sender_server_id, connections.sender_organization, connections.sender_port,
     connections.sender_name, connections.listener_organization, connections.created_at, channels.public_name,
     channels.behavior FROM connections
     LEFT JOIN channels ON channels.id = connections.channel_id
     LEFT JOIN organizations AS peers ON peers.id = connections.listener_organization
     WHERE connections.sender_organization = $1 AND connections.ended = FALSE AND connections.id > $2
     AND connections.grant_id IS NOT NULL AND ($4 = '' OR connections.sender_server_id = $4)
     AND COALESCE(connections.sender_name_key,
         CASE WHEN connections.listener_organization = $1 THEN 'self' ELSE peers.name_key END
         || '/' || LOWER(channels.public_name)) LIKE $5 ESCAPE '!' AND",
    " NOT ",
    grant_is_over!("$6"),
    " ORDER BY connections.id LIMIT $3"
);

/// One sender.
pub(super) const SENDER: &str = concat!(
    "SELECT connections.id, connections.sender_server_id, connections.sender_organization, connections.sender_port,
     connections.sender_name, connections.listener_organization, connections.created_at, channels.public_name,
     channels.behavior FROM connections
     LEFT JOIN channels ON channels.id = connections.channel_id
     WHERE connections.id = $1 AND connections.ended = FALSE AND connections.grant_id IS NOT NULL AND",
    " NOT ",
    grant_is_over!("$2")
);

#[async_trait]
impl Senders for SqlTransaction {
    async fn senders(
        &mut self,
        organization: OrganizationId,
        filter: &ChannelFilter,
        slice: &Slice,
        now: u64,
    ) -> StorageResult<Vec<SenderRow>> {
        let rows = query(SENDERS)
            .bind(organization.to_string())
            .bind(&slice.after)
            .bind(limit(slice))
            .bind(filter.server.map(|id| id.to_string()).unwrap_or_default())
            .bind(containing(&filter.search))
            .bind(big(now))
            .fetch_all(self.db())
            .await?;
        each(rows, sender)
    }

    async fn sender(&mut self, connection: ConnectionId, now: u64) -> StorageResult<Option<SenderRow>> {
        let row = query(SENDER).bind(connection.to_string()).bind(big(now)).fetch_optional(self.db()).await?;
        row.as_ref().map(sender).transpose()
    }

    async fn name_sender(&mut self, connection: ConnectionId, name: &str) -> StorageResult<()> {
        query("UPDATE connections SET sender_name = $2, sender_name_key = $3 WHERE id = $1")
            .bind(connection.to_string())
            .bind(name)
            .bind(key(name))
            .execute(self.db())
            .await?;
        Ok(())
    }
}

fn sender(row: &Row) -> StorageResult<SenderRow> {
    Ok(SenderRow {
        connection: row.parsed("id")?,
        server: row.parsed("sender_server_id")?,
        organization: row.parsed("sender_organization")?,
        port: row.small("sender_port")?,
        name: row.maybe_text("sender_name")?,
        peer: row.parsed("listener_organization")?,
        endpoint: row.text("public_name")?,
        behavior: row.text("behavior")?,
        created_at: row.number("created_at")?,
    })
}
