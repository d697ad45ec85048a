//! The role of a user, given anew by whoever manages users; and what ends when a role becomes less, or a user goes.
//!
//! What somebody made that lets others in does not outlive the right to make it: enrolment codes that nobody used, device
//! tokens, invitations, tokens of automation. What has been decided (an agreement, a grant, an offer) is the
//! organization's and stays.

use std::collections::BTreeSet;

use gateway_proto::{
    api::platform::{Role, UpdateUser, User},
    id::{OrganizationId, UserId},
};

use super::{
    Actor, Service, ServiceError, ServiceResult, Work,
    permission::{self, Act},
    users::show_user,
    work::changes,
};
use crate::storage::{Transaction, UserRow};

impl Service {
    /// One user of the own organization.
    pub async fn user(&self, actor: &Actor, id: UserId) -> ServiceResult<User> {
        actor.may(Act::Read)?;
        Ok(show_user(own_user(&mut *self.storage.read().await?, actor.id(), id).await?))
    }

    /// Gives a user another role; the last owner stays one. Nobody lifts anybody above the own role, and so not oneself.
    pub async fn update_user(&self, actor: &Actor, id: UserId, body: UpdateUser) -> ServiceResult<User> {
        actor.may(Act::ManageUsers)?;
        actor.in_person()?;
        let mut work = self.work_of(actor).await?;
        let before = own_user(work.tx(), actor.id(), id).await?;
        actor.check_match(&show_user(before.clone()))?;
        if !permission::may_manage(actor.user.role, before.role) {
            return Err(ServiceError::Forbidden("the role of an owner is changed by an owner only".to_owned()));
        }
        actor.may_give(body.role)?;
        if body.role == before.role {
            work.unchanged().await?;
            return Ok(show_user(before));
        }
        work.is_not_the_last_owner(&before).await?;
        let row = UserRow { role: body.role, ..before.clone() };
        work.set_role(id, row.role).await?;
        let tokens = work.end_beyond_role(&row, before.role).await?;
        let changes = changes(&[("role", &permission::name(before.role), &permission::name(row.role))]);
        work.audit(&[actor.id()], "user.update", id, with_tokens(changes, tokens)).await?;
        work.commit().await?;
        Ok(show_user(row))
    }
}

/// A user of the organization.
pub(super) async fn own_user(
    tx: &mut dyn Transaction,
    organization: OrganizationId,
    id: UserId,
) -> ServiceResult<UserRow> {
    let row = tx.user(id).await?.filter(|row| row.organization == organization);
    row.ok_or(ServiceError::NotFound("user"))
}

/// What happened to a user, and to the device tokens that were issued for the user.
pub(super) fn with_tokens(detail: String, tokens: u64) -> String {
    if tokens == 0 { detail } else { format!("{detail}; device tokens revoked: {tokens}") }
}

impl Work {
    /// Refuses to take the last owner from an organization.
    pub(super) async fn is_not_the_last_owner(&mut self, user: &UserRow) -> ServiceResult<()> {
        if user.role == Role::Owner && self.owners(user.organization).await? <= 1 {
            return Err(ServiceError::Conflict("this is the last owner; make another owner first".to_owned()));
        }
        Ok(())
    }

    /// Ends what a user made that does not outlive the user; how many device tokens were revoked. What has nothing else
    /// to stand on (sessions, tokens of automation, invitations) goes with the row.
    pub(super) async fn end_with_user(&mut self, user: &UserRow) -> ServiceResult<u64> {
        self.forget_person(user.organization, user.id).await?;
        self.end_codes_of(user).await?;
        self.end_device_tokens_of(user).await
    }

    /// Ends what a user may not keep who had another role before; how many device tokens were revoked.
    async fn end_beyond_role(&mut self, user: &UserRow, before: Role) -> ServiceResult<u64> {
        let may = |act: Act| permission::rule(act).roles.contains(&user.role);
        if !may(Act::EnterAdmin) {
            self.forget_person(user.organization, user.id).await?;
        }
        if !may(Act::ManageServers) {
            self.end_codes_of(user).await?;
        }
        for row in self.invitations_by(user.id).await? {
            if !self.may_invite(user, &row).await? {
                self.delete_invitation(row.id).await?;
                self.audit(&[user.organization, row.organization], "invitation.delete", row.id, row.email).await?;
            }
        }
        let left = permission::scopes_of(user.role);
        let lost: BTreeSet<_> =
            permission::scopes_of(before).into_iter().filter(|scope| !left.contains(scope)).collect();
        for row in self.api_tokens_of_user(user.id).await? {
            if row.scopes.iter().any(|scope| lost.contains(scope.as_str())) {
                self.delete_api_token(row.id).await?;
                self.audit(&[user.organization], "api_token.delete", row.id, row.name).await?;
            }
        }
        if may(Act::ManageDeviceTokens) { Ok(0) } else { self.end_device_tokens_of(user).await }
    }

    /// Enrolment codes that the user made and nobody used. (A used one is its gateway's.)
    async fn end_codes_of(&mut self, user: &UserRow) -> ServiceResult<()> {
        for row in self.unused_codes_of_user(user.id).await? {
            self.delete_enrollment_code(row.id).await?;
            if self.now < row.expires_at {
                let detail = format!("{}, made by {}", row.id, user.email);
                self.audit(&[user.organization], "enrollment_code.delete", row.server, detail).await?;
            }
        }
        Ok(())
    }

    async fn end_device_tokens_of(&mut self, user: &UserRow) -> ServiceResult<u64> {
        let now = self.now;
        Ok(self.revoke_tokens_issued_by(user.organization, &user.email, now).await?)
    }
}
