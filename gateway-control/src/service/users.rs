//! Users of an organization. Their roles are changed in [`super::roles`].

use gateway_proto::{
    api::{
        Page,
        platform::{CreateUser, User},
    },
    id::{OrganizationId, UserId},
};

use super::{
    Actor, Service, ServiceError, ServiceResult, Work,
    error::OrConflict,
    page::{Paging, page},
    password::Payer,
    permission::{self, Act},
    roles::{own_user, with_tokens},
    validate,
};
use crate::storage::{PasswordHash, Transaction, UserRow};

/// Users of one organization.
const USERS_PER_ORGANIZATION: u64 = 5_000;

impl Service {
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
        actor.may_give(body.role)?;
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
        work.is_not_the_last_owner(&row).await?;
        let tokens = work.end_with_user(&row).await?;
        work.delete_user(id).await?;
        work.audit(&[actor.id()], "user.delete", id, with_tokens(row.email, tokens)).await?;
        work.commit().await
    }
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

pub(super) fn email_taken(email: &str) -> String {
    format!("there is a user with the address {email} in this organization already")
}

pub(super) fn show_user(row: UserRow) -> User {
    User { id: row.id, email: row.email, name: row.name, role: row.role, created_at: row.created_at }
}
