//! Tenants: the organizations of one customer or federation. One of them is the tenant itself, and may administer the
//! others: make them, invite people into them, remove them. What they are and do is theirs alone; the tenant's organization
//! sees their names and nothing else. And the end of an organization, whoever decides it.

use gateway_proto::{
    api::{
        Page,
        invitation::{InvitationLink, invitation_code},
        platform::{
            CreateInvitation, CreateSubOrganization, CreatedInvitation, CreatedSubOrganization, Hidden, Organization,
            Role,
        },
    },
    id::{InvitationId, OrganizationId},
    peering::{AgreementAct, PeeringAct, PeeringStatus, Side, next},
};

use super::{
    Actor, Service, ServiceError, ServiceResult, Work, bounds,
    credentials::show_invitation,
    digest,
    error::OrConflict,
    organizations::{name_taken, show_organization},
    page::{Paging, cut},
    peering::is_overdue,
    permission::{self, Act},
    users::email_taken,
    validate,
    work::changes,
};
use crate::storage::{InvitationRow, OrganizationRow, PeeringFilter, Slice, Transaction, UserRow};

/// Organizations of one tenant.
const MAX_ORGANIZATIONS: u64 = 1_000;
/// Invitations of one organization that wait.
const INVITATIONS_PER_ORGANIZATION: u64 = 500;
/// Rows of one kind read at once while an organization is removed: all there are.
const ALL: u32 = u32::MAX;

impl Service {
    /// The organizations of the own tenant, the own one included.
    pub async fn tenant_organizations(&self, actor: &Actor, paging: &Paging) -> ServiceResult<Page<Organization>> {
        actor.may(Act::Read)?;
        let slice = paging.slice()?;
        let mut tx = self.storage.read().await?;
        is_tenant_itself(&mut *tx, &actor.organization).await?;
        let rows = tx.organizations_of_tenant(actor.organization.tenant, &slice).await?;
        let (rows, next) = cut(rows, &slice, |row| row.id.to_string());
        Ok(Page { items: rows.into_iter().map(show_organization).collect(), next })
    }

    /// One organization of the own tenant.
    pub async fn tenant_organization(&self, actor: &Actor, id: OrganizationId) -> ServiceResult<Organization> {
        actor.may(Act::Read)?;
        let mut tx = self.storage.read().await?;
        Ok(show_organization(sub_organization(&mut *tx, actor, id).await?))
    }

    /// Makes an organization of the own tenant, in its tier, and invites its owner.
    pub async fn create_sub_organization(
        &self,
        actor: &Actor,
        body: CreateSubOrganization,
    ) -> ServiceResult<CreatedSubOrganization> {
        actor.may(Act::ManageTenant)?;
        actor.in_person()?;
        let name = validate::name("name", &body.name)?;
        let description = validate::text("description", &body.description, bounds::MAX_TEXT)?;
        let mut work = self.work_of(actor).await?;
        is_tenant_itself(work.tx(), &actor.organization).await?;
        let tenant = actor.organization.tenant;
        if work.count_organizations(tenant).await? >= MAX_ORGANIZATIONS {
            return Err(ServiceError::Conflict(format!("the tenant has {MAX_ORGANIZATIONS} organizations already")));
        }
        // A refused one tells that a name is taken, as with a new name of the own organization.
        self.rates.renames.check(&actor.id()).map_err(ServiceError::RateLimited)?;
        let (ms, random) = work.seed();
        let row = OrganizationRow {
            id: OrganizationId::new(ms, random),
            tenant,
            name,
            description,
            discoverable: body.discoverable,
            two_person_admin: false,
            created_at: work.now,
            removed_at: None,
        };
        work.insert_organization(&row).await.or_conflict(|| name_taken(&row.name))?;
        let tier = work.tier_of(actor.id()).await?.ok_or(ServiceError::Internal("an organization without tier"))?;
        work.assign_tier(row.id, &tier.name).await?;
        work.add_device_of_organization(&row).await?;
        let detail = format!("{}, of the tenant of {}", row.name, actor.organization.name);
        work.audit(&[actor.id(), row.id], "organization.create", row.id, detail.clone()).await?;
        work.audit_platform("organization.create", row.id, detail).await?;
        let owner =
            CreateInvitation { email: body.owner_email, name: body.owner_name, role: Role::Owner, valid_secs: None };
        let invitation = work.invite(actor, row.id, owner).await?;
        work.commit().await?;
        Ok(CreatedSubOrganization { organization: show_organization(row), invitation })
    }

    /// Invites a person into an organization of the own tenant.
    pub async fn invite_into(
        &self,
        actor: &Actor,
        id: OrganizationId,
        body: CreateInvitation,
    ) -> ServiceResult<CreatedInvitation> {
        actor.may(Act::ManageTenant)?;
        actor.in_person()?;
        // Into the own organization this is no other invitation than any.
        if id == actor.id() {
            actor.may_give(body.role)?;
        }
        let mut work = self.work_of(actor).await?;
        sub_organization(work.tx(), actor, id).await?;
        let invitation = work.invite(actor, id, body).await?;
        work.commit().await?;
        Ok(invitation)
    }

    /// Removes an organization of the own tenant with everything in it.
    pub async fn delete_sub_organization(&self, actor: &Actor, id: OrganizationId) -> ServiceResult<()> {
        actor.may(Act::ManageTenant)?;
        let mut work = self.work_of(actor).await?;
        let row = sub_organization(work.tx(), actor, id).await?;
        if row.id == actor.id() {
            return Err(ServiceError::Conflict(
                "this is the own organization: its owner removes it (DELETE /organization)".to_owned(),
            ));
        }
        actor.check_match(&show_organization(row.clone()))?;
        work.remove_organization(row, Some(actor.id())).await?;
        work.commit().await
    }

    /// Removes the own organization with everything in it.
    pub async fn delete_organization(&self, actor: &Actor) -> ServiceResult<()> {
        actor.may(Act::DeleteOrganization)?;
        actor.in_person()?;
        let mut work = self.work_of(actor).await?;
        let row = work.organization(actor.id()).await?.ok_or(ServiceError::NotFound("organization"))?;
        actor.check_match(&show_organization(row.clone()))?;
        if work.count_organizations(row.tenant).await? > 1 && work.tenant_itself(row.tenant).await? == Some(row.id) {
            return Err(ServiceError::Conflict(
                "the tenant has other organizations: remove those first, because this one administers them".to_owned(),
            ));
        }
        work.remove_organization(row, None).await?;
        work.commit().await
    }
}

impl Work {
    /// Invites a person into an organization.
    pub(super) async fn invite(
        &mut self,
        actor: &Actor,
        organization: OrganizationId,
        body: CreateInvitation,
    ) -> ServiceResult<CreatedInvitation> {
        let email = validate::email(&body.email)?;
        let name = validate::name("name", &body.name)?;
        let (min, default, max) = bounds::INVITATION_SECS;
        let valid = validate::range("valid_secs", body.valid_secs.unwrap_or(default), min, max)?;
        if self.user_of(organization, &email).await?.is_some() {
            return Err(ServiceError::Conflict(email_taken(&email)));
        }
        self.has_room_for_users(organization).await?;
        let older = self.invitation_to(organization, &email).await?;
        let now = self.now;
        // One that is over has taken no room, and makes none.
        let replaces = older.as_ref().is_some_and(|row| row.expires_at > now);
        if !replaces && self.count_invitations(organization, now).await? >= INVITATIONS_PER_ORGANIZATION {
            return Err(ServiceError::Conflict(format!(
                "{INVITATIONS_PER_ORGANIZATION} invitations wait already; take one back first"
            )));
        }
        if organization == actor.id() && older.is_some_and(|row| !permission::may_manage(actor.user.role, row.role)) {
            return Err(ServiceError::Forbidden("an owner invited this person as an owner already".to_owned()));
        }
        let (ms, random) = self.seed();
        let code = invitation_code(&gateway_net::random());
        let row = InvitationRow {
            id: InvitationId::new(ms, random),
            organization,
            invited_by: actor.user.id,
            email,
            name,
            role: body.role,
            expires_at: self.now + valid,
            created_at: self.now,
        };
        self.insert_invitation(&row, &digest(&code.0)).await?;
        let detail = format!("{} as {}", row.email, permission::name(row.role));
        self.audit(&[actor.id(), organization], "invitation.create", row.id, detail).await?;
        let settings = &self.service().settings;
        let link =
            InvitationLink { control: settings.public_url.clone(), pin: settings.tls_pin.clone(), code: code.clone() };
        Ok(CreatedInvitation { link: Some(Hidden(link.to_string())), code, invitation: show_invitation(row) })
    }

    /// Whether a user may let somebody into an organization with a role, now.
    pub(super) async fn may_invite(&mut self, inviter: &UserRow, row: &InvitationRow) -> ServiceResult<bool> {
        if inviter.organization == row.organization {
            let may = permission::rule(Act::ManageUsers).roles.contains(&inviter.role);
            return Ok(may && permission::may_manage(inviter.role, row.role));
        }
        let Some(organization) = self.organization(row.organization).await? else { return Ok(false) };
        let is_tenant = self.tenant_itself(organization.tenant).await? == Some(inviter.organization);
        Ok(is_tenant && permission::rule(Act::ManageTenant).roles.contains(&inviter.role))
    }

    /// Removes an organization: requests and agreements end with what stands on them, servers and devices go, people lose
    /// their access. Everybody concerned finds it in the log; the row stays, so that logs can name it.
    async fn remove_organization(
        &mut self,
        mut row: OrganizationRow,
        tenant: Option<OrganizationId>,
    ) -> ServiceResult<()> {
        let (id, now) = (row.id, self.now);
        let all = || Slice { after: String::new(), limit: ALL };
        for mut request in self.peering_requests(id, &PeeringFilter::default(), &all(), now).await? {
            if request.status != PeeringStatus::Pending {
                continue;
            }
            let (act, side) = match (request.from == id, request.to == id) {
                // Nobody answered in time: what happens to its sides afterwards is no answer.
                _ if is_overdue(&request, now) => (PeeringAct::Expire, Side::System),
                (true, true) => (PeeringAct::Withdraw, Side::Both),
                (true, false) => (PeeringAct::Withdraw, Side::Owner),
                (false, _) => (PeeringAct::Decline, Side::Peer),
            };
            let before = request.status;
            request.status = next(before, act, side)?;
            self.close_request(&mut request).await?;
            let changes = changes(&[("status", &before, &request.status)]);
            self.audit(&[request.from, request.to], &format!("peering_request.{act}"), request.id, changes).await?;
        }
        for mut agreement in self.agreements(id, None, &all()).await? {
            if agreement.ended_at.is_some() {
                continue;
            }
            let before = agreement.status;
            agreement.status = next(before, AgreementAct::End, Side::System)?;
            agreement.ended_at = Some(self.now);
            self.end_agreement(&mut agreement).await?;
            let changes = changes(&[("status", &before, &agreement.status)]);
            self.audit(&[agreement.first, agreement.second], "agreement.end", agreement.id, changes).await?;
        }
        for server in self.servers(id, &all()).await? {
            self.remove_server(server).await?;
        }
        for device in self.devices(Some(id), &all()).await? {
            self.remove_device(device).await?;
        }
        self.delete_people(id).await?;
        let name = row.name.clone();
        row.discoverable = false;
        row.removed_at = Some(self.now);
        self.update_organization(&row).await?;
        let concerned: Vec<_> = [Some(id), tenant].into_iter().flatten().collect();
        self.audit(&concerned, "organization.delete", id, name.clone()).await?;
        self.audit_platform("organization.delete", id, name).await
    }
}

/// Refuses whoever is not of the organization that is the tenant itself.
async fn is_tenant_itself(tx: &mut dyn Transaction, own: &OrganizationRow) -> ServiceResult<()> {
    if tx.tenant_itself(own.tenant).await? == Some(own.id) {
        return Ok(());
    }
    Err(ServiceError::Forbidden("this is for the organization that is the tenant itself".to_owned()))
}

/// An organization of the actor's tenant, for the tenant itself.
async fn sub_organization(
    tx: &mut dyn Transaction,
    actor: &Actor,
    id: OrganizationId,
) -> ServiceResult<OrganizationRow> {
    is_tenant_itself(tx, &actor.organization).await?;
    let row = tx.organization(id).await?;
    let row = row.filter(|row| row.tenant == actor.organization.tenant && row.removed_at.is_none());
    row.ok_or(ServiceError::NotFound("organization"))
}
