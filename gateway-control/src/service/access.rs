//! Who has access: to a channel, and to a server with everything on it, in one list for its owner.

use gateway_proto::{
    api::{
        Page,
        platform::{AccessEntry, AccessKind},
    },
    id::{ChannelId, OrganizationId, ServerId},
    peering::{ConnectionStatus, GrantStatus},
};

use super::{
    Actor, Service, ServiceResult,
    channels::own_channel,
    connections::status_at,
    grants,
    page::{Paging, cut},
    peering::name_of,
    permission::Act,
    senders::has_no_access,
    servers::own_server,
    shares,
};
use crate::storage::{Ahead, ChannelRow, Transaction};

impl Service {
    /// Who may use a channel, and who waits for it.
    pub async fn channel_access(
        &self,
        actor: &Actor,
        id: ChannelId,
        paging: &Paging,
    ) -> ServiceResult<Page<AccessEntry>> {
        actor.may(Act::Read)?;
        let mut tx = self.storage.read().await?;
        if let Some(sender) = self.own_sender(&mut *tx, actor.id(), id).await? {
            return Err(has_no_access(&sender));
        }
        let channel = own_channel(&mut *tx, actor.id(), id).await?;
        let entries = granted(&mut *tx, &channel, self.clock.unix_secs()).await?;
        named_page(&mut *tx, actor.id(), entries, paging).await
    }

    /// Who may use the channels of a server, administer its engine, or see its figures.
    pub async fn server_access(
        &self,
        actor: &Actor,
        id: ServerId,
        paging: &Paging,
    ) -> ServiceResult<Page<AccessEntry>> {
        actor.may(Act::Read)?;
        let own = actor.id();
        let mut tx = self.storage.read().await?;
        own_server(&mut *tx, own, id).await?;
        let now = self.clock.unix_secs();
        let mut entries = Vec::new();
        let channels = tx.channels_of_server(id).await?;
        tx.read_ahead(Ahead::GrantsOfChannels(channels.iter().map(|channel| channel.id).collect())).await?;
        for channel in channels {
            entries.extend(granted(&mut *tx, &channel, now).await?);
        }
        let shares = tx.open_shares_of_server(id).await?;
        for share in shares.into_iter().filter(|share| !shares::is_overdue(share, now)) {
            entries.push(AccessEntry {
                kind: AccessKind::Share,
                id: share.id.to_string(),
                organization_id: share.peer,
                organization_name: String::new(),
                what: format!("{:?}", share.level).to_lowercase(),
                in_force: true,
                expires_at: share.expires_at,
                created_at: share.created_at,
            });
        }
        for row in tx.open_connections_of_server(id).await? {
            let Some(admin) = row.admin.as_ref().filter(|_| row.listener.server == Some(id)) else { continue };
            let status = status_at(&row, now);
            let in_force = match status {
                ConnectionStatus::Ready
                | ConnectionStatus::Active
                | ConnectionStatus::Paused
                | ConnectionStatus::Failed => true,
                // Named or not, its user waits: for an answer, for a gateway, or for the owner's second person.
                ConnectionStatus::Provisioning | ConnectionStatus::Offered => false,
                ConnectionStatus::Declined | ConnectionStatus::Expired | ConnectionStatus::Terminated => continue,
            };
            entries.push(AccessEntry {
                kind: AccessKind::Admin,
                id: row.id.to_string(),
                organization_id: row.sender.organization,
                organization_name: String::new(),
                what: format!("{}, {status}", if admin.terms.access.writes() { "read-write" } else { "read-only" }),
                in_force,
                expires_at: admin.expires_at,
                created_at: row.created_at,
            });
        }
        named_page(&mut *tx, own, entries, paging).await
    }
}

/// A page of the entries in the order of their ids, with the names of the organizations.
async fn named_page(
    tx: &mut dyn Transaction,
    own: OrganizationId,
    mut entries: Vec<AccessEntry>,
    paging: &Paging,
) -> ServiceResult<Page<AccessEntry>> {
    let slice = paging.slice()?;
    entries.sort_unstable_by(|one, other| one.id.cmp(&other.id));
    entries.retain(|entry| entry.id > slice.after);
    let (mut items, next) = cut(entries, &slice, |entry| entry.id.clone());
    tx.read_ahead(Ahead::Organizations(items.iter().map(|entry| entry.organization_id).collect())).await?;
    for entry in &mut items {
        entry.organization_name = name_of(tx, entry.organization_id, own).await?;
    }
    Ok(Page { items, next })
}

/// The grants of a channel that time has not ended, whether or not it was written down.
async fn granted(tx: &mut dyn Transaction, channel: &ChannelRow, now: u64) -> ServiceResult<Vec<AccessEntry>> {
    let mut entries = Vec::new();
    let grants = tx.open_grants_of_channel(channel.id).await?;
    for grant in grants.into_iter().filter(|grant| !grants::is_overdue(grant, now)) {
        entries.push(AccessEntry {
            kind: AccessKind::Grant,
            id: grant.id.to_string(),
            organization_id: grant.peer,
            organization_name: String::new(),
            what: format!("{}, {}", channel.name, grant.status),
            in_force: grant.status == GrantStatus::Active,
            expires_at: grant.expires_at,
            created_at: grant.created_at,
        });
    }
    Ok(entries)
}
