//! The directory: organizations that chose to be found.

use std::collections::BTreeSet;

use gateway_proto::{
    api::{Page, platform::DirectoryEntry},
    id::OrganizationId,
};

use super::{
    Actor, Service, ServiceError, ServiceResult, bounds,
    page::{Paging, cut},
    permission::Act,
    validate,
};
use crate::storage::{Ahead, OrganizationRow, Transaction};

impl Service {
    /// Organizations that chose to be found.
    pub async fn directory(&self, actor: &Actor, search: &str, paging: &Paging) -> ServiceResult<Page<DirectoryEntry>> {
        actor.may(Act::ReadDirectory)?;
        let search = validate::single_line("search", search, bounds::MAX_SEARCH)?;
        let slice = paging.slice()?;
        let mut tx = self.storage.read().await?;
        let now = self.clock.unix_secs();
        let rows = tx.directory(&search, &slice).await?;
        let (rows, next) = cut(rows, &slice, |(key, _)| key.clone());
        let others: BTreeSet<_> = rows.iter().map(|(_, row)| row.id).collect();
        tx.read_ahead(Ahead::AgreementsWith(actor.id(), others.clone())).await?;
        tx.read_ahead(Ahead::RequestsWith(actor.id(), others, now)).await?;
        let mut items = Vec::with_capacity(rows.len());
        for (_, row) in rows {
            items.push(show(&mut *tx, actor.id(), row, now).await?);
        }
        Ok(Page { items, next })
    }

    /// One of them, which whoever knows its id finds if, and only if, it is in the list. One that does not want to be found is as good
    /// as none.
    pub async fn directory_entry(&self, actor: &Actor, id: OrganizationId) -> ServiceResult<DirectoryEntry> {
        actor.may(Act::ReadDirectory)?;
        let mut tx = self.storage.read().await?;
        let row = tx.organization(id).await?.filter(|row| row.discoverable && row.removed_at.is_none());
        let row = row.ok_or(ServiceError::NotFound("organization or directory entry"))?;
        show(&mut *tx, actor.id(), row, self.clock.unix_secs()).await
    }
}

async fn show(
    tx: &mut dyn Transaction,
    own: OrganizationId,
    row: OrganizationRow,
    now: u64,
) -> ServiceResult<DirectoryEntry> {
    let relation = relation(tx, own, row.id, now).await?.to_owned();
    Ok(DirectoryEntry { id: row.id, name: row.name, description: row.description, relation })
}

/// What two organizations have to do with each other.
async fn relation(
    tx: &mut dyn Transaction,
    own: OrganizationId,
    other: OrganizationId,
    now: u64,
) -> ServiceResult<&'static str> {
    if own == other {
        return Ok("self");
    }
    if tx.agreement_between(own, other).await?.is_some() {
        return Ok("peer");
    }
    Ok(match tx.pending_between(own, other, now).await? {
        Some(request) if request.from == own => "requested",
        Some(_) => "invited",
        None => "none",
    })
}
