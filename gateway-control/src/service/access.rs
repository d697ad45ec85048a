//! Who has access: to a channel, and to a server with everything on it, in one list for its owner.

use gateway_proto::{
    api::platform::{AccessEntry, AccessKind},
    id::{ChannelId, OrganizationId, ServerId},
    peering::GrantStatus,
};

use super::{
    Actor, Service, ServiceResult, channels::own_channel, connections::status_at, peering::name_of, permission::Act,
    servers::own_server,
};
use crate::storage::{ChannelRow, Transaction};

impl Service {
    /// Who may use a channel, and who waits for it.
    pub async fn channel_access(&self, actor: &Actor, id: ChannelId) -> ServiceResult<Vec<AccessEntry>> {
        actor.may(Act::Read)?;
        let mut tx = self.storage.read().await?;
        let channel = own_channel(&mut *tx, actor.id(), id).await?;
        granted(&mut *tx, actor.id(), &channel).await
    }

    /// Who may use the channels of a server, administer its engine, or see its figures.
    pub async fn server_access(&self, actor: &Actor, id: ServerId) -> ServiceResult<Vec<AccessEntry>> {
        actor.may(Act::Read)?;
        let own = actor.id();
        let mut tx = self.storage.read().await?;
        own_server(&mut *tx, own, id).await?;
        let mut entries = Vec::new();
        for channel in tx.channels_of_server(id).await? {
            entries.extend(granted(&mut *tx, own, &channel).await?);
        }
        for share in tx.open_shares_of_server(id).await? {
            entries.push(AccessEntry {
                kind: AccessKind::Share,
                id: share.id.to_string(),
                organization_id: share.peer,
                organization_name: name_of(&mut *tx, share.peer, own).await?,
                what: format!("{:?}", share.level).to_lowercase(),
                in_force: true,
                expires_at: share.expires_at,
                created_at: share.created_at,
            });
        }
        let now = self.clock.unix_secs();
        for row in tx.open_connections_of_server(id).await? {
            let Some(admin) = row.admin.as_ref().filter(|_| row.listener.server == Some(id)) else { continue };
            let status = status_at(&row, now);
            if status.is_ended() {
                continue;
            }
            entries.push(AccessEntry {
                kind: AccessKind::Admin,
                id: row.id.to_string(),
                organization_id: row.sender.organization,
                organization_name: name_of(&mut *tx, row.sender.organization, own).await?,
                what: format!("{}, {status}", if admin.terms.access.writes() { "read-write" } else { "read-only" }),
                in_force: row.sender.server.is_some(),
                expires_at: admin.expires_at,
                created_at: row.created_at,
            });
        }
        Ok(entries)
    }
}

async fn granted(
    tx: &mut dyn Transaction,
    own: OrganizationId,
    channel: &ChannelRow,
) -> ServiceResult<Vec<AccessEntry>> {
    let mut entries = Vec::new();
    for grant in tx.open_grants_of_channel(channel.id).await? {
        entries.push(AccessEntry {
            kind: AccessKind::Grant,
            id: grant.id.to_string(),
            organization_id: grant.peer,
            organization_name: name_of(tx, grant.peer, own).await?,
            what: format!("{}, {}", channel.name, grant.status),
            in_force: grant.status == GrantStatus::Active,
            expires_at: grant.expires_at,
            created_at: grant.created_at,
        });
    }
    Ok(entries)
}
