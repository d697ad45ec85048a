//! Links: a source device to a target device, whose behaviors are switched on for it.
//!
//! Who may link to a device is its owner's choice ([`LinkableBy`]); by that choice the owner has agreed, and may remove any
//! link to it. A link lasts as long as both devices, and as long as it would be allowed anew: when an agreement ends, or
//! a device is not linkable any more, the links that stood on it go in the same transaction. While an agreement is
//! suspended, the links that stand on it stay and count for nothing.

use std::collections::BTreeSet;

use gateway_proto::{
    api::{
        Page,
        platform::{CreateLink, Link, LinkableBy, LinkableDevice, LinkedDevice},
    },
    id::{DeviceId, LinkId, OrganizationId},
    peering::AgreementStatus,
};

use super::{
    Actor, Service, ServiceError, ServiceResult, Work,
    devices::own_device,
    error::OrConflict,
    page::{Paging, cut},
    peering::name_of,
    permission::Act,
};
use crate::storage::{Ahead, DeviceRow, LinkRow, Transaction};

/// Links of one device, from it and to it.
const LINKS_PER_DEVICE: u64 = 1_000;

impl Service {
    /// Links from and to devices of the own organization.
    pub async fn links(&self, actor: &Actor, paging: &Paging) -> ServiceResult<Page<Link>> {
        actor.may(Act::Read)?;
        let slice = paging.slice()?;
        let mut tx = self.storage.read().await?;
        let (rows, next) = cut(tx.links(actor.id(), &slice).await?, &slice, |row| row.id.to_string());
        tx.read_ahead(Ahead::Devices(rows.iter().flat_map(|row| [row.source, row.target]).collect())).await?;
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            items.push(show(&mut *tx, row).await?);
        }
        Ok(Page { items, next })
    }

    /// One link.
    pub async fn link(&self, actor: &Actor, id: LinkId) -> ServiceResult<Link> {
        actor.may(Act::Read)?;
        let mut tx = self.storage.read().await?;
        let row = own_link(&mut *tx, actor.id(), id).await?;
        show(&mut *tx, row).await
    }

    /// Devices of others that the own ones may be linked to.
    pub async fn linkable_devices(&self, actor: &Actor, paging: &Paging) -> ServiceResult<Page<LinkableDevice>> {
        actor.may(Act::Read)?;
        let slice = paging.slice()?;
        let mut tx = self.storage.read().await?;
        let rows = tx.linkable_devices(actor.id(), actor.organization.tenant, &slice).await?;
        let (rows, next) = cut(rows, &slice, |row| row.id.to_string());
        tx.read_ahead(Ahead::Organizations(rows.iter().filter_map(|row| row.organization).collect())).await?;
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            let organization_name = match row.organization {
                Some(owner) => Some(name_of(&mut *tx, owner, actor.id()).await?),
                None => None,
            };
            items.push(LinkableDevice {
                id: row.id,
                organization_id: row.organization,
                organization_name,
                kind: row.kind,
                name: row.name,
                description: row.description,
                behaviors: row.behaviors,
            });
        }
        Ok(Page { items, next })
    }

    /// Links an own device to another one.
    pub async fn create_link(&self, actor: &Actor, body: CreateLink) -> ServiceResult<Link> {
        actor.may(Act::CreateLink)?;
        let own = actor.id();
        let mut work = self.work_of(actor).await?;
        let source = own_device(work.tx(), own, body.source_device_id).await?;
        let target = work.device(body.target_device_id).await?.filter(|row| row.removed_at.is_none());
        let target = target.ok_or(ServiceError::NotFound("device"))?;
        // What may not be linked to looks like what is not there.
        if !may_link(work.tx(), own, &target, true).await? {
            return Err(ServiceError::NotFound("device"));
        }
        if source.id == target.id {
            return Err(ServiceError::Invalid("a device is not linked to itself".to_owned()));
        }
        for device in [source.id, target.id] {
            // The platform's devices are for everybody.
            let counts = device == source.id || target.organization.is_some();
            if counts && work.count_links_of_device(device).await? >= LINKS_PER_DEVICE {
                return Err(ServiceError::Conflict(format!("the device has {LINKS_PER_DEVICE} links already")));
            }
        }
        if let Some(other) = target.organization {
            self.may_link_on(actor, other)?;
        }
        let (ms, random) = work.seed();
        let row = LinkRow {
            id: LinkId::new(ms, random),
            source: source.id,
            source_organization: own,
            target: target.id,
            target_organization: target.organization,
            created_at: work.now,
        };
        work.insert_link(&row).await.or_conflict(|| "the two devices are linked already".to_owned())?;
        work.audit_link("link.create", &row).await?;
        let shown = show(work.tx(), row).await?;
        work.commit().await?;
        Ok(shown)
    }

    /// Removes a link, from either side.
    pub async fn delete_link(&self, actor: &Actor, id: LinkId) -> ServiceResult<()> {
        actor.may(Act::RemoveLink)?;
        let mut work = self.work_of(actor).await?;
        let row = own_link(work.tx(), actor.id(), id).await?;
        if actor.is_conditional() {
            actor.check_match(&show(work.tx(), row.clone()).await?)?;
        }
        for other in [Some(row.source_organization), row.target_organization].into_iter().flatten() {
            self.unlinks(actor, other);
        }
        work.remove_link(row).await?;
        work.commit().await
    }
}

impl Work {
    /// Removes every link of a device.
    pub(super) async fn remove_links_of(&mut self, device: DeviceId) -> ServiceResult<()> {
        for row in self.links_of_device(device).await? {
            self.remove_link(row).await?;
        }
        Ok(())
    }

    /// Removes the links to a device that would not be allowed anew.
    pub(super) async fn review_links_to(&mut self, device: &DeviceRow) -> ServiceResult<()> {
        for row in self.links_of_device(device.id).await? {
            if row.target == device.id && !may_link(self.tx(), row.source_organization, device, false).await? {
                self.remove_link(row).await?;
            }
        }
        Ok(())
    }

    /// The same for all links between two organizations: what stood between them has ended.
    pub(super) async fn review_links_between(
        &mut self,
        one: OrganizationId,
        other: OrganizationId,
    ) -> ServiceResult<()> {
        for row in self.links_between(one, other).await? {
            let target = self.device(row.target).await?.ok_or(ServiceError::Internal("a link without target"))?;
            if !may_link(self.tx(), row.source_organization, &target, false).await? {
                self.remove_link(row).await?;
            }
        }
        Ok(())
    }

    async fn remove_link(&mut self, row: LinkRow) -> ServiceResult<()> {
        self.delete_link(row.id).await?;
        self.audit_link("link.delete", &row).await
    }

    async fn audit_link(&mut self, act: &str, row: &LinkRow) -> ServiceResult<()> {
        let concerned: Vec<_> =
            [Some(row.source_organization), row.target_organization].into_iter().flatten().collect();
        let detail = format!("{} → {}", row.source, row.target);
        self.audit(&concerned, act, row.id, detail).await
    }
}

/// Whether devices of an organization may be linked to a device. A link that is there outlives a suspension.
async fn may_link(
    tx: &mut dyn Transaction,
    source: OrganizationId,
    target: &DeviceRow,
    anew: bool,
) -> ServiceResult<bool> {
    let Some(owner) = target.organization else { return Ok(true) };
    if owner == source {
        return Ok(true);
    }
    let is_tenant = async |tx: &mut dyn Transaction| -> ServiceResult<bool> {
        let (one, other) = (tx.organization(owner).await?, tx.organization(source).await?);
        Ok(matches!((one, other), (Some(one), Some(other)) if one.tenant == other.tenant))
    };
    Ok(match target.linkable_by {
        LinkableBy::Organization => false,
        LinkableBy::Tenant => is_tenant(tx).await?,
        LinkableBy::Partners => {
            let agreement = tx.agreement_between(owner, source).await?.map(|agreement| agreement.status);
            let in_force = match agreement {
                Some(AgreementStatus::Active) => true,
                Some(AgreementStatus::Suspended) => !anew,
                Some(AgreementStatus::Ended) | None => false,
            };
            in_force || is_tenant(tx).await?
        }
        LinkableBy::Everyone => true,
    })
}

/// The devices that a device of an organization is linked to now, for the gateways that act for them.
pub(super) async fn linked(
    tx: &mut dyn Transaction,
    organization: OrganizationId,
    source: DeviceId,
) -> ServiceResult<Vec<LinkedDevice>> {
    let rows = tx.linked_devices(source).await?;
    let others: BTreeSet<_> =
        rows.iter().filter_map(|row| row.organization).filter(|owner| *owner != organization).collect();
    if !others.is_empty() {
        tx.read_ahead(Ahead::AgreementsWith(organization, others.clone())).await?;
        tx.read_ahead(Ahead::Organizations(others.into_iter().chain([organization]).collect())).await?;
    }
    let mut devices = Vec::with_capacity(rows.len());
    for row in rows {
        if may_link(tx, organization, &row, true).await? {
            devices.push(LinkedDevice {
                id: row.id,
                organization_id: row.organization,
                kind: row.kind,
                name: row.name,
                behaviors: row.behaviors,
                server_id: row.server,
            });
        }
    }
    Ok(devices)
}

async fn own_link(tx: &mut dyn Transaction, own: OrganizationId, id: LinkId) -> ServiceResult<LinkRow> {
    let row = tx.link(id).await?;
    let row = row.filter(|row| row.source_organization == own || row.target_organization == Some(own));
    row.ok_or(ServiceError::NotFound("link"))
}

async fn show(tx: &mut dyn Transaction, row: LinkRow) -> ServiceResult<Link> {
    let lost = ServiceError::Internal("a link without its devices");
    let (Some(source), Some(target)) = (tx.device(row.source).await?, tx.device(row.target).await?) else {
        return Err(lost);
    };
    Ok(Link {
        id: row.id,
        source_device_id: row.source,
        source_name: source.name,
        source_organization_id: row.source_organization,
        target_device_id: row.target,
        target_name: target.name,
        target_kind: target.kind,
        target_organization_id: row.target_organization,
        behaviors: target.behaviors,
        created_at: row.created_at,
    })
}
