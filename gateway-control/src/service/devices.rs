//! Devices: systems with an identity of their own. Every organization has one that is itself, every server is one, and the
//! platform has those that everybody may link to.
//!
//! The device of a server, and that of an organization, have the id of what they are, with the prefix of a device. They come
//! and go with it. The end of any device is the end of its tokens and links, in the same transaction.

use gateway_proto::{
    api::{
        Page,
        platform::{CreateDevice, CreateSystemDevice, Device, DeviceKind, LinkableBy, UpdateDevice},
    },
    id::{DeviceId, OrganizationId, ServerId},
};

use super::{
    Actor, OperatorCaller, Service, ServiceError, ServiceResult, Work, bounds,
    error::OrConflict,
    page::{Paging, page},
    permission::Act,
    servers::own_server,
    validate,
    work::changes,
};
use crate::storage::{DeviceRow, OrganizationRow, ServerRow, Transaction};

/// Devices of an organization beside its servers, and of the platform.
const MAX_DEVICES: u64 = 1_000;

impl Service {
    /// Devices of the own organization.
    pub async fn devices(&self, actor: &Actor, paging: &Paging) -> ServiceResult<Page<Device>> {
        actor.may(Act::Read)?;
        let slice = paging.slice()?;
        let rows = self.storage.read().await?.devices(Some(actor.id()), &slice).await?;
        Ok(page(rows, &slice, |row| row.id.to_string(), show))
    }

    /// Devices of the platform.
    pub async fn system_devices(&self, paging: &Paging) -> ServiceResult<Page<Device>> {
        let slice = paging.slice()?;
        let rows = self.storage.read().await?.devices(None, &slice).await?;
        Ok(page(rows, &slice, |row| row.id.to_string(), show))
    }

    /// One device of the own organization, or of the platform.
    pub async fn device(&self, actor: &Actor, id: DeviceId) -> ServiceResult<Device> {
        actor.may(Act::Read)?;
        let mut tx = self.storage.read().await?;
        let row = tx.device(id).await?.filter(|row| row.removed_at.is_none());
        let row = row.filter(|row| row.organization.is_none_or(|owner| owner == actor.id()));
        row.map(show).ok_or(ServiceError::NotFound("device"))
    }

    /// Adds a device.
    pub async fn create_device(&self, actor: &Actor, body: CreateDevice) -> ServiceResult<Device> {
        actor.may(Act::ManageDevices)?;
        let (name, description) = named(&body.name, &body.description)?;
        not_a_server(body.kind)?;
        let linkable_by = chosen(body.linkable_by)?;
        let mut work = self.work_of(actor).await?;
        work.room_for_device(Some(actor.id())).await?;
        if let Some(server) = body.server_id {
            own_server(work.tx(), actor.id(), server).await?;
        }
        let behaviors = work.known_behaviors(body.behaviors).await?;
        let (ms, random) = work.seed();
        let row = DeviceRow {
            id: DeviceId::new(ms, random),
            organization: Some(actor.id()),
            kind: body.kind,
            name,
            description,
            server: body.server_id,
            behaviors,
            linkable_by,
            created_at: work.now,
            removed_at: None,
        };
        work.insert_device(&row).await.or_conflict(|| taken(&row))?;
        work.audit(&[actor.id()], "device.create", row.id, row.name.clone()).await?;
        work.commit().await?;
        Ok(show(row))
    }

    /// Changes a device.
    pub async fn update_device(&self, actor: &Actor, id: DeviceId, body: UpdateDevice) -> ServiceResult<Device> {
        actor.may(Act::ManageDevices)?;
        let mut work = self.work_of(actor).await?;
        let mut row = own_device(work.tx(), actor.id(), id).await?;
        actor.check_match(&show(row.clone()))?;
        let before = row.clone();
        if row.kind == DeviceKind::Server && (body.name.is_some() || body.server_id.is_some()) {
            return Err(ServiceError::Invalid(
                "name and server of this device are those of the server it is".to_owned(),
            ));
        }
        if let Some(name) = &body.name {
            row.name = validate::renamed("name", &row.name, name)?;
        }
        if let Some(description) = &body.description {
            row.description = validate::reworded("description", &row.description, description, bounds::MAX_TEXT)?;
        }
        if let Some(server) = body.server_id {
            row.server = Some(own_server(work.tx(), actor.id(), server).await?.id);
        }
        if let Some(behaviors) = body.behaviors {
            row.behaviors = work.known_behaviors(behaviors).await?;
        }
        if let Some(linkable_by) = body.linkable_by {
            row.linkable_by = chosen(linkable_by)?;
        }
        if row == before {
            work.unchanged().await?;
            return Ok(show(row));
        }
        work.update_device(&row).await.or_conflict(|| taken(&row))?;
        if row.linkable_by != before.linkable_by {
            work.review_links_to(&row).await?;
        }
        let server = |row: &DeviceRow| row.server.map(|id| id.to_string()).unwrap_or_default();
        let changes = changes(&[
            ("name", &before.name, &row.name),
            ("description", &before.description, &row.description),
            ("server", &server(&before), &server(&row)),
            ("behaviors", &before.behaviors.join(","), &row.behaviors.join(",")),
            ("linkable_by", &word(before.linkable_by), &word(row.linkable_by)),
        ]);
        work.audit(&[actor.id()], "device.update", id, changes).await?;
        work.commit().await?;
        Ok(show(row))
    }

    /// Removes a device with its tokens and links.
    pub async fn delete_device(&self, actor: &Actor, id: DeviceId) -> ServiceResult<()> {
        actor.may(Act::ManageDevices)?;
        let mut work = self.work_of(actor).await?;
        let row = own_device(work.tx(), actor.id(), id).await?;
        actor.check_match(&show(row.clone()))?;
        if row.kind == DeviceKind::Server {
            return Err(ServiceError::Conflict("this device is a server: it goes with the server".to_owned()));
        }
        if id == itself(actor.id()) {
            return Err(ServiceError::Conflict(
                "this device is the organization itself: it goes with the organization".to_owned(),
            ));
        }
        work.remove_device(row).await?;
        work.commit().await
    }

    /// Adds a device of the platform, as its operator.
    pub async fn create_system_device(
        &self,
        operator: &OperatorCaller,
        body: CreateSystemDevice,
    ) -> ServiceResult<Device> {
        let (name, description) = named(&body.name, &body.description)?;
        not_a_server(body.kind)?;
        let mut work = self.work_of_operator(operator).await?;
        work.room_for_device(None).await?;
        let behaviors = work.known_behaviors(body.behaviors).await?;
        let (ms, random) = work.seed();
        let row = DeviceRow {
            id: DeviceId::new(ms, random),
            organization: None,
            kind: body.kind,
            name,
            description,
            server: None,
            behaviors,
            linkable_by: LinkableBy::Everyone,
            created_at: work.now,
            removed_at: None,
        };
        work.insert_device(&row).await.or_conflict(|| taken(&row))?;
        work.audit_platform("device.create", row.id, row.name.clone()).await?;
        work.commit().await?;
        Ok(show(row))
    }

    /// Removes a device of the platform with its links, as its operator.
    pub async fn delete_system_device(&self, operator: &OperatorCaller, id: DeviceId) -> ServiceResult<()> {
        let mut work = self.work_of_operator(operator).await?;
        let row = work.device(id).await?.filter(|row| row.organization.is_none() && row.removed_at.is_none());
        work.remove_device(row.ok_or(ServiceError::NotFound("device"))?).await?;
        work.commit().await
    }
}

impl Work {
    /// The device that an organization is itself.
    pub(super) async fn add_device_of_organization(&mut self, organization: &OrganizationRow) -> ServiceResult<()> {
        let row =
            self.bare_device(itself(organization.id), organization.id, DeviceKind::Application, &organization.name);
        Ok(self.insert_device(&row).await?)
    }

    /// The device that a server is.
    pub(super) async fn add_device_of_server(&mut self, server: &ServerRow) -> ServiceResult<()> {
        let id = DeviceId::from_bytes(server.id.to_bytes());
        let bare = self.bare_device(id, server.organization, DeviceKind::Server, &server.name);
        let row = DeviceRow { server: Some(server.id), ..bare };
        Ok(self.insert_device(&row).await?)
    }

    /// A device that something else is, with that one's name and nothing of its own.
    fn bare_device(&self, id: DeviceId, organization: OrganizationId, kind: DeviceKind, name: &str) -> DeviceRow {
        DeviceRow {
            id,
            organization: Some(organization),
            kind,
            name: name.to_owned(),
            description: String::new(),
            server: None,
            behaviors: Vec::new(),
            linkable_by: LinkableBy::Organization,
            created_at: self.now,
            removed_at: None,
        }
    }

    /// A server was removed: the device it is goes, those its gateway reached are reached by nobody.
    pub(super) async fn remove_server_from_devices(&mut self, server: ServerId) -> ServiceResult<()> {
        for mut row in self.devices_of_server(server).await? {
            if row.kind == DeviceKind::Server {
                self.remove_device(row).await?;
                continue;
            }
            row.server = None;
            self.update_device(&row).await?;
            if let Some(owner) = row.organization {
                self.audit(&[owner], "device.update", row.id, format!("server: {server} → none")).await?;
            }
        }
        Ok(())
    }

    /// Removes a device: its tokens are revoked, its links go.
    pub(super) async fn remove_device(&mut self, mut row: DeviceRow) -> ServiceResult<()> {
        let now = self.now;
        let tokens = self.revoke_tokens_of_device(row.id, now).await?;
        self.remove_links_of(row.id).await?;
        row.removed_at = Some(now);
        self.update_device(&row).await?;
        let detail = if tokens == 0 { row.name } else { format!("{}; tokens revoked: {tokens}", row.name) };
        match row.organization {
            Some(owner) => self.audit(&[owner], "device.delete", row.id, detail).await,
            None => self.audit_platform("device.delete", row.id, detail).await,
        }
    }

    async fn room_for_device(&mut self, owner: Option<OrganizationId>) -> ServiceResult<()> {
        if self.count_devices(owner).await? >= MAX_DEVICES {
            return Err(ServiceError::Conflict(format!("there are {MAX_DEVICES} devices already; remove one")));
        }
        Ok(())
    }
}

/// The device that an organization is itself.
pub(super) fn itself(organization: OrganizationId) -> DeviceId {
    DeviceId::from_bytes(organization.to_bytes())
}

/// A device of the organization that is not removed.
pub(super) async fn own_device(
    tx: &mut dyn Transaction,
    organization: OrganizationId,
    id: DeviceId,
) -> ServiceResult<DeviceRow> {
    let row = tx.device(id).await?.filter(|row| row.organization == Some(organization) && row.removed_at.is_none());
    row.ok_or(ServiceError::NotFound("device"))
}

fn named(name: &str, description: &str) -> ServiceResult<(String, String)> {
    Ok((validate::name("name", name)?, validate::text("description", description, bounds::MAX_TEXT)?))
}

fn not_a_server(kind: DeviceKind) -> ServiceResult<()> {
    match kind {
        DeviceKind::Server => Err(ServiceError::Invalid(
            "kind is server: register the server (POST /servers), and its device is there".to_owned(),
        )),
        DeviceKind::FhirEndpoint | DeviceKind::DocumentGateway | DeviceKind::Application => Ok(()),
    }
}

/// What an organization may choose: only the platform's devices are everybody's.
fn chosen(linkable_by: LinkableBy) -> ServiceResult<LinkableBy> {
    match linkable_by {
        LinkableBy::Everyone => Err(ServiceError::Invalid(
            "linkable_by is everyone, which is for the platform's own devices: organization, tenant and partners are \
             accepted"
                .to_owned(),
        )),
        LinkableBy::Organization | LinkableBy::Tenant | LinkableBy::Partners => Ok(linkable_by),
    }
}

fn word(linkable_by: LinkableBy) -> &'static str {
    match linkable_by {
        LinkableBy::Organization => "organization",
        LinkableBy::Tenant => "tenant",
        LinkableBy::Partners => "partners",
        LinkableBy::Everyone => "everyone",
    }
}

fn taken(row: &DeviceRow) -> String {
    format!("there is a device of this kind called '{}' already", row.name)
}

fn show(row: DeviceRow) -> Device {
    Device {
        id: row.id,
        organization_id: row.organization,
        kind: row.kind,
        name: row.name,
        description: row.description,
        server_id: row.server,
        behaviors: row.behaviors,
        linkable_by: row.linkable_by,
        created_at: row.created_at,
    }
}
