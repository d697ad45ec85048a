//! Organizations: how they come to be, and how they look to their own users.

use gateway_proto::{
    api::platform::{CreateOrganization, Hidden, Organization, PlatformToken, Role, Session, UpdateOrganization},
    id::{OrganizationId, TenantId, UserId},
};

use super::{
    Actor, Service, ServiceError, ServiceResult, Stranger, bounds,
    error::OrConflict,
    password::Payer,
    permission::Act,
    users::email_taken,
    validate,
    work::{Who, changes},
};
use crate::storage::{OrganizationRow, PasswordHash, Transaction, UserRow};

/// Who may create an organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Whoever shows the registration token, or the operator token.
    Token,
    /// Everybody.
    Open,
    /// Nobody.
    Closed,
}

impl Service {
    /// Creates an organization with its owner, who is signed in at once.
    pub async fn create_organization(&self, stranger: &Stranger, body: CreateOrganization) -> ServiceResult<Session> {
        self.may_register(body.registration_token.as_ref()).await?;
        let name = validate::name("name", &body.name)?;
        let description = validate::text("description", &body.description, bounds::MAX_TEXT)?;
        let email = validate::email(&body.owner_email)?;
        let owner_name = validate::name("owner_name", &body.owner_name)?;
        validate::password(&body.owner_password.0)?;
        let payer = Payer::Address(stranger.address);
        let hash = self.passwords.hash(payer, body.owner_password.clone()).await?;

        let organization = OrganizationRow {
            id: OrganizationId::new(self.clock.unix_ms(), gateway_net::random()),
            tenant: TenantId::new(self.clock.unix_ms(), gateway_net::random()),
            name,
            description,
            discoverable: body.discoverable,
            two_person_admin: false,
            created_at: self.clock.unix_secs(),
            removed_at: None,
        };
        let user = UserRow {
            id: UserId::new(self.clock.unix_ms(), gateway_net::random()),
            organization: organization.id,
            email,
            name: owner_name,
            role: Role::Owner,
            password_hash: PasswordHash(hash),
            created_at: organization.created_at,
        };
        let actor = Actor::new(user, organization, &stranger.request);
        let mut work = self.work(Who::user(&actor)).await?;
        let organization = &actor.organization;
        work.insert_organization(organization).await.or_conflict(|| name_taken(&organization.name))?;
        work.insert_tenant(organization).await?;
        work.begin_tier(actor.id()).await?;
        work.add_device_of_organization(organization).await?;
        work.insert_user(&actor.user).await.or_conflict(|| email_taken(&actor.user.email))?;
        work.audit(&[actor.id()], "organization.create", actor.id(), organization.name.clone()).await?;
        work.audit_platform("organization.create", actor.id(), organization.name.clone()).await?;
        let session = self.open_session(work.tx(), actor).await?;
        work.commit().await?;
        Ok(session)
    }

    /// Refuses whoever may not create an organization.
    async fn may_register(&self, token: Option<&Hidden>) -> ServiceResult<()> {
        let why = match self.settings.registration {
            Registration::Open => return Ok(()),
            Registration::Token => {
                if let Some(Hidden(token)) = token
                    && (self.is_platform_token(PlatformToken::Registration, token).await?
                        || self.is_operator(token).await?)
                {
                    return Ok(());
                }
                "the registration token is missing or wrong; the platform's operator has it, and the operator token does as well: files \
                 registration-token and operator-token of the data directory (gateway-ctl: --operator-token-file takes either)"
            }
            Registration::Closed => "registration is closed on this platform",
        };
        Err(ServiceError::Forbidden(why.to_owned()))
    }

    /// The own organization.
    pub fn own_organization(&self, actor: &Actor) -> ServiceResult<Organization> {
        actor.may(Act::Read)?;
        Ok(show_organization(actor.organization.clone()))
    }

    /// Changes the own organization; a new name reaches the policies that show it.
    pub async fn update_organization(&self, actor: &Actor, body: UpdateOrganization) -> ServiceResult<Organization> {
        actor.may(Act::ChangeOrganization)?;
        let mut work = self.work_of(actor).await?;
        let mut row = work.organization(actor.id()).await?.ok_or(ServiceError::NotFound("organization"))?;
        actor.check_match(&show_organization(row.clone()))?;
        let before = row.clone();
        if let Some(name) = &body.name {
            row.name = validate::renamed("name", &row.name, name)?;
        }
        if let Some(description) = &body.description {
            row.description = validate::reworded("description", &row.description, description, bounds::MAX_TEXT)?;
        }
        row.discoverable = body.discoverable.unwrap_or(row.discoverable);
        row.two_person_admin = body.two_person_admin.unwrap_or(row.two_person_admin);
        if before.two_person_admin && !row.two_person_admin {
            actor.in_person()?;
            if actor.user.role != Role::Owner {
                return Err(ServiceError::Forbidden(
                    "only an owner switches off that admin connections need a second person".to_owned(),
                ));
            }
        }
        if row == before {
            work.unchanged().await?;
            return Ok(show_organization(row));
        }
        if row.name != before.name {
            // Each is news for every partner, or tells that a name is taken.
            self.rates.renames.check(&actor.id()).map_err(ServiceError::RateLimited)?;
        }
        work.update_organization(&row).await.or_conflict(|| name_taken(&row.name))?;
        if row.name != before.name {
            work.touch_organization(row.id).await?;
        }
        let changes = changes(&[
            ("name", &before.name, &row.name),
            ("description", &before.description, &row.description),
            ("discoverable", &before.discoverable, &row.discoverable),
            ("two_person_admin", &before.two_person_admin, &row.two_person_admin),
        ]);
        work.audit(&[row.id], "organization.update", row.id, changes).await?;
        work.commit().await?;
        Ok(show_organization(row))
    }
}

pub(super) async fn organization_of(tx: &mut dyn Transaction, user: &UserRow) -> ServiceResult<OrganizationRow> {
    tx.organization(user.organization).await?.ok_or(ServiceError::Internal("a user without organization"))
}

pub(super) fn name_taken(name: &str) -> String {
    format!("an organization called '{name}' exists already")
}

pub(super) fn show_organization(row: OrganizationRow) -> Organization {
    Organization {
        id: row.id,
        tenant_id: row.tenant,
        name: row.name,
        description: row.description,
        discoverable: row.discoverable,
        two_person_admin: row.two_person_admin,
        created_at: row.created_at,
    }
}
