//! Organizations, users, sessions, the directory.

use std::collections::BTreeSet;

use data_encoding::HEXLOWER;
use gateway_proto::{
    api::{
        Page,
        platform::{
            CreateOrganization, CreateUser, DirectoryEntry, Hidden, Login, Me, Organization, PlatformToken, Role,
            Session, UpdateOrganization, User,
        },
    },
    id::{OrganizationId, TenantId, UserId},
};

use super::{
    Actor, Credential, Service, ServiceError, ServiceResult, Stranger, Work,
    desk::Aside,
    digest,
    error::OrConflict,
    page::{Paging, cut, page},
    password::Payer,
    permission::{self, Act},
    roles::{own_user, with_tokens},
    validate,
    work::{Who, changes},
};
use crate::storage::{Ahead, OrganizationRow, PasswordHash, Transaction, UserRow};

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

/// A session lasts a working day, and is not prolonged.
const SESSION_SECS: u64 = 12 * 3600;
/// The clocks of two replicas differ by less than this.
const CLOCKS_DIFFER_SECS: u64 = 60;
/// Sessions of one user at the same time; the oldest ends.
const SESSIONS_PER_USER: u32 = 50;
/// Users of one organization.
const USERS_PER_ORGANIZATION: u64 = 5_000;

/// When a session that is there now ends at the latest: one that ends later was made while the clock was ahead, and would last as
/// long as it was ahead.
pub(super) fn latest_end(now: u64) -> u64 {
    now.saturating_add(SESSION_SECS + CLOCKS_DIFFER_SECS)
}

impl Service {
    /// Creates an organization with its owner, who is signed in at once.
    pub async fn create_organization(&self, stranger: &Stranger, body: CreateOrganization) -> ServiceResult<Session> {
        let allowed = match self.settings.registration {
            Registration::Open => true,
            Registration::Token => match &body.registration_token {
                Some(token) => {
                    self.is_platform_token(PlatformToken::Registration, &token.0).await?
                        || self.is_operator(&token.0).await?
                }
                None => false,
            },
            Registration::Closed => false,
        };
        if !allowed {
            let why = match self.settings.registration {
                Registration::Closed => "registration is closed on this platform",
                Registration::Token | Registration::Open => {
                    "the registration token is missing or wrong; the platform's operator has it (registration-token file)"
                }
            };
            return Err(ServiceError::Forbidden(why.to_owned()));
        }
        let name = validate::name("name", &body.name)?;
        let description = validate::text("description", &body.description, 500)?;
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
        work.insert_organization(&actor.organization)
            .await
            .or_conflict(|| format!("an organization called '{}' exists already", actor.organization.name))?;
        work.insert_tenant(&actor.organization).await?;
        work.begin_tier(actor.id()).await?;
        work.add_device_of_organization(&actor.organization).await?;
        work.insert_user(&actor.user).await.or_conflict(|| email_taken(&actor.user.email))?;
        work.audit(&[actor.id()], "organization.create", actor.id(), actor.organization.name.clone()).await?;
        work.audit_platform("organization.create", actor.id(), actor.organization.name.clone()).await?;
        let session = self.open_session(work.tx(), actor).await?;
        work.commit().await?;
        Ok(session)
    }

    /// Signs in.
    pub async fn login(&self, stranger: &Stranger, body: Login) -> ServiceResult<Session> {
        let email = body.email.trim().to_lowercase();
        let user = self.user_signing_in(&email, body.organization.as_deref()).await?;
        let hash = user.as_ref().map(|user| user.password_hash.0.clone());
        let fits = self.passwords.verify(Payer::Address(stranger.address), body.password.clone(), hash).await?;
        let Some(user) = user.as_ref().filter(|_| fits).cloned() else {
            if let Some(user) = user {
                self.note_refusal(stranger, user, "wrong password");
            }
            return Err(ServiceError::Unauthenticated(
                "the e-mail address or the password is wrong; with users in more than one organization, name the organization",
            ));
        };
        let organization = organization_of(&mut *self.storage.read().await?, &user).await?;
        let actor = Actor::new(user, organization, &stranger.request);
        let mut work = self.work_of(&actor).await?;
        work.still_the_password(&actor).await?;
        if let Some(provider) = work.required_provider(actor.user.id).await? {
            drop(work);
            self.note_refusal(stranger, actor.user, "password where a provider is required");
            return Err(ServiceError::OidcRequired(provider));
        }
        let code = body.code.as_ref().map(|code| code.0.as_str());
        let tried = code.map(|code| self.try_code(actor.user.id, stranger.address, code)).transpose()?;
        let second = match work.second_factor(actor.user.id, code).await {
            Ok(second) => second,
            Err(error) => {
                drop(work);
                if matches!(error, ServiceError::Unauthenticated(_)) {
                    self.note_refusal(stranger, actor.user, "wrong code");
                }
                return Err(error);
            }
        };
        let how = if second { "with second factor" } else { "" };
        work.audit(&[actor.id()], "session.create", actor.user.id, how).await?;
        let session = self.open_session(work.tx(), actor).await?;
        work.commit().await?;
        if let Some(tried) = tried.filter(|_| second) {
            self.code_was_right(tried);
        }
        Ok(session)
    }

    /// Whose password is asked for. An address is its user's inside one organization; who names none means the oldest user
    /// with it, so that nobody who uses it later changes what a sign-in without a name does.
    async fn user_signing_in(&self, email: &str, organization: Option<&str>) -> ServiceResult<Option<UserRow>> {
        let mut tx = self.storage.read().await?;
        let Some(organization) = organization else { return Ok(tx.oldest_user(email).await?) };
        let found = match organization.parse::<OrganizationId>() {
            Ok(id) => Some(id),
            Err(_) => tx.organization_named(organization).await?,
        };
        match found {
            Some(organization) => Ok(tx.user_of(organization, email).await?),
            None => Ok(None),
        }
    }

    /// Writes a refused sign-in into the log of the account's organization, beside the answer: how long that takes would tell
    /// whether there is such an account. A flood of them is written only once in a while.
    fn note_refusal(&self, stranger: &Stranger, user: UserRow, why: &'static str) {
        if self.rates.refusals.check(&user.id).is_err() {
            return;
        }
        let detail = format!("{why} for {}", user.email);
        self.note_aside(user.organization, Aside::Refused { who: Who::stranger(stranger), user: user.id, detail });
    }

    pub(super) async fn open_session(&self, tx: &mut dyn Transaction, actor: Actor) -> ServiceResult<Session> {
        let token = format!("gws_{}", HEXLOWER.encode(&gateway_net::random::<32>()));
        let expires_at = self.clock.unix_secs() + SESSION_SECS;
        tx.insert_session(&digest(&token), actor.user.id, expires_at, SESSIONS_PER_USER).await?;
        Ok(Session {
            token: Hidden(token),
            expires_at,
            user: show_user(actor.user),
            organization: show_organization(actor.organization),
        })
    }

    /// The user behind a session token, who makes this request.
    pub async fn authenticate(&self, token: &str, request: &str) -> ServiceResult<Actor> {
        if let Some(actor) = self.authenticate_api_token(token, request).await? {
            return Ok(actor);
        }
        let now = self.clock.unix_secs();
        let mut tx = self.storage.read().await?;
        let user = tx
            .session_user(&digest(token), now, latest_end(now))
            .await?
            .ok_or(ServiceError::Unauthenticated("the session is unknown or has ended; sign in again"))?;
        let organization = organization_of(&mut *tx, &user).await?;
        let mut actor = Actor::new(user, organization, request);
        actor.credential = Some(Credential::Session(digest(token)));
        Ok(actor)
    }

    /// Signs out.
    pub async fn logout(&self, actor: &Actor, token: &str) -> ServiceResult<()> {
        actor.in_person()?;
        let mut work = self.work_of(actor).await?;
        work.delete_session(&digest(token)).await?;
        work.audit(&[actor.id()], "session.delete", actor.user.id, "").await?;
        work.commit().await
    }

    /// Who asks.
    pub fn me(&self, actor: &Actor) -> ServiceResult<Me> {
        actor.may(Act::Read)?;
        Ok(Me { user: show_user(actor.user.clone()), organization: show_organization(actor.organization.clone()) })
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
            row.description = validate::reworded("description", &row.description, description, 500)?;
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
        work.update_organization(&row)
            .await
            .or_conflict(|| format!("an organization called '{}' exists already", row.name))?;
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

    /// Users of the own organization.
    pub async fn users(&self, actor: &Actor, paging: &Paging) -> ServiceResult<Page<User>> {
        actor.may(Act::Read)?;
        let slice = paging.slice()?;
        let rows = self.storage.read().await?.users(actor.id(), &slice).await?;
        Ok(page(rows, &slice, |row| row.id.to_string(), show_user))
    }

    /// Adds a user.
    pub async fn create_user(&self, actor: &Actor, body: CreateUser) -> ServiceResult<User> {
        actor.may(Act::ManageUsers)?;
        actor.in_person()?;
        if !permission::may_manage(actor.user.role, body.role) {
            return Err(ServiceError::Forbidden("nobody gives a role above the own one".to_owned()));
        }
        let email = validate::email(&body.email)?;
        let name = validate::name("name", &body.name)?;
        validate::password(&body.password.0)?;
        // Who sends a request once more is answered for that, and not that there is such a user: that is looked at with the key.
        if actor.claim.is_none() {
            self.has_place_for_user(actor.id(), &email).await?;
        }
        let hash = self.passwords.hash(Payer::Organization(actor.id()), body.password.clone()).await?;
        let mut work = self.work_of(actor).await?;
        work.has_room_for_users(actor.id()).await?;
        let (ms, random) = work.seed();
        let row = UserRow {
            id: UserId::new(ms, random),
            organization: actor.id(),
            email,
            name,
            role: body.role,
            password_hash: PasswordHash(hash),
            created_at: work.now,
        };
        work.insert_user(&row).await.or_conflict(|| email_taken(&row.email))?;
        let detail = format!("{} as {}", row.email, permission::name(row.role));
        work.audit(&[actor.id()], "user.create", row.id, detail).await?;
        work.commit().await?;
        Ok(show_user(row))
    }

    /// Refuses a user for whom there is no place, before a password is computed. With a turn of the organization to read: it
    /// is looked at again with the change.
    pub(super) async fn has_place_for_user(&self, organization: OrganizationId, email: &str) -> ServiceResult<()> {
        let _turn = self.turns.reads.turn(organization).await?;
        let mut tx = self.storage.read().await?;
        if tx.user_of(organization, email).await?.is_some() {
            return Err(ServiceError::Conflict(email_taken(email)));
        }
        room_for_users(&mut *tx, organization).await
    }

    /// Removes a user with sessions, tokens, and what else the user made that lets others in; the last owner stays.
    pub async fn delete_user(&self, actor: &Actor, id: UserId) -> ServiceResult<()> {
        actor.may(Act::ManageUsers)?;
        let mut work = self.work_of(actor).await?;
        let row = own_user(work.tx(), actor.id(), id).await?;
        actor.check_match(&show_user(row.clone()))?;
        if !permission::may_manage(actor.user.role, row.role) {
            return Err(ServiceError::Forbidden("an owner is removed by an owner only".to_owned()));
        }
        if row.role == Role::Owner && work.owners(actor.id()).await? <= 1 {
            return Err(ServiceError::Conflict("this is the last owner; make another owner first".to_owned()));
        }
        let tokens = work.end_with_user(&row).await?;
        work.delete_user(id).await?;
        work.audit(&[actor.id()], "user.delete", id, with_tokens(row.email, tokens)).await?;
        work.commit().await
    }

    /// Organizations that chose to be found.
    pub async fn directory(&self, actor: &Actor, search: &str, paging: &Paging) -> ServiceResult<Page<DirectoryEntry>> {
        actor.may(Act::ReadDirectory)?;
        let search = validate::single_line("search", search, 120)?;
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
            let relation = relation(&mut *tx, actor.id(), row.id, now).await?.to_owned();
            items.push(DirectoryEntry { id: row.id, name: row.name, description: row.description, relation });
        }
        Ok(Page { items, next })
    }
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

pub(super) async fn organization_of(tx: &mut dyn Transaction, user: &UserRow) -> ServiceResult<OrganizationRow> {
    tx.organization(user.organization).await?.ok_or(ServiceError::Internal("a user without organization"))
}

pub(super) fn email_taken(email: &str) -> String {
    format!("there is a user with the address {email} in this organization already")
}

impl Work {
    /// Refuses one more user than an organization may have.
    pub(super) async fn has_room_for_users(&mut self, organization: OrganizationId) -> ServiceResult<()> {
        room_for_users(self.tx(), organization).await
    }
}

async fn room_for_users(tx: &mut dyn Transaction, organization: OrganizationId) -> ServiceResult<()> {
    if tx.count_users(organization).await? >= USERS_PER_ORGANIZATION {
        return Err(ServiceError::Conflict(format!(
            "there are {USERS_PER_ORGANIZATION} users already; remove one first"
        )));
    }
    Ok(())
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

pub(super) fn show_user(row: UserRow) -> User {
    User { id: row.id, email: row.email, name: row.name, role: row.role, created_at: row.created_at }
}
