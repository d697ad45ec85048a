//! What users sign in with, and taking an account at a provider off a user.

use gateway_proto::{
    api::platform::{Identity, SignInWays},
    id::{IdentityId, UserId},
};

use super::{
    Actor, Service, ServiceError, ServiceResult, Work,
    permission::{self, Act},
};
use crate::storage::{IdentityRow, UserRow};

impl Service {
    /// What the user itself signs in with.
    pub async fn sign_in_ways(&self, actor: &Actor) -> ServiceResult<SignInWays> {
        actor.may(Act::Read)?;
        let mut tx = self.storage.read().await?;
        let rows = tx.identities_of_user(actor.user.id).await?;
        let second_factor = tx.totp(actor.user.id).await?.is_some_and(|row| row.confirmed);
        let password = !actor.user.password_hash.0.is_empty() && self.requirement(&rows).is_none();
        let identities = rows.into_iter().map(|row| self.show_identity(row)).collect();
        Ok(SignInWays { password, second_factor: password && second_factor, identities })
    }

    /// The accounts that a user of the own organization is linked to.
    pub async fn identities(&self, actor: &Actor, user: UserId) -> ServiceResult<Vec<Identity>> {
        actor.may(Act::ManageUsers)?;
        let mut tx = self.storage.read().await?;
        let row = tx.user(user).await?.filter(|row| row.organization == actor.id());
        row.ok_or(ServiceError::NotFound("user"))?;
        let rows = tx.identities_of_user(user).await?;
        Ok(rows.into_iter().map(|row| self.show_identity(row)).collect())
    }

    /// Takes an account off a user, whose sessions and tokens end. The next sign-in links anew, by the address.
    pub async fn unlink(&self, actor: &Actor, user: UserId, identity: IdentityId) -> ServiceResult<()> {
        actor.may(Act::ManageUsers)?;
        actor.in_person()?;
        let mut work = self.work_of(actor).await?;
        let row = work.user(user).await?.filter(|row| row.organization == actor.id());
        let row: UserRow = row.ok_or(ServiceError::NotFound("user"))?;
        if !permission::may_manage(actor.user.role, row.role) {
            return Err(ServiceError::Forbidden("an account is taken off an owner by an owner only".to_owned()));
        }
        let linked = work.identities_of_user(user).await?.into_iter().find(|row| row.id == identity);
        let linked = linked.ok_or(ServiceError::NotFound("identity"))?;
        work.delete_identity(identity).await?;
        work.delete_other_sessions(user, "").await?;
        // Whoever the address means next must not find what another person made.
        work.delete_api_tokens(user).await?;
        let detail = format!("{} from account {} of {}", row.email, linked.subject, linked.issuer);
        work.audit(&[actor.id()], "user.unlink", user, detail).await?;
        work.commit().await
    }

    /// The provider without which users with these accounts may not sign in; none: a password will do.
    fn requirement(&self, rows: &[IdentityRow]) -> Option<String> {
        let linked = |row: &IdentityRow| {
            let provider = self.settings.oidc.issuing(&row.issuer)?;
            (provider.serves(row.organization) && !provider.password_for_linked()).then(|| provider.name().to_owned())
        };
        rows.iter().find_map(linked)
    }

    fn show_identity(&self, row: IdentityRow) -> Identity {
        Identity {
            id: row.id,
            provider: self.settings.oidc.issuing(&row.issuer).map(|provider| provider.name().to_owned()),
            issuer: row.issuer,
            subject: row.subject,
            linked_at: row.linked_at,
            last_used_at: row.last_used_at,
        }
    }
}

impl Work {
    /// The provider without which a user may not sign in; none: a password will do.
    pub(super) async fn required_provider(&mut self, user: UserId) -> ServiceResult<Option<String>> {
        let rows = self.identities_of_user(user).await?;
        Ok(self.service().requirement(&rows))
    }
}
