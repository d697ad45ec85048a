//! Sessions of users: signing in with a password, who is behind a token, signing out.

#[cfg(test)]
mod tests;

use data_encoding::HEXLOWER;
use gateway_proto::{
    api::platform::{Hidden, Login, Me, Session, SignedOut},
    id::OrganizationId,
};

use super::{
    Actor, Credential, Service, ServiceError, ServiceResult, Stranger,
    desk::Aside,
    digest,
    organizations::{organization_of, show_organization},
    password::Payer,
    permission::Act,
    users::show_user,
    work::Who,
};
use crate::storage::{Transaction, UserRow};

/// A session lasts a working day, and is not prolonged.
const SESSION_SECS: u64 = 12 * 3600;
/// The clocks of two replicas differ by less than this.
const CLOCKS_DIFFER_SECS: u64 = 60;
/// Sessions of one user at the same time; the oldest ends.
const SESSIONS_PER_USER: u32 = 50;

/// When a session that is there now ends at the latest: one that ends later was made while the clock was ahead, would last as long as
/// it was ahead, and is ended.
pub(super) fn latest_end(now: u64) -> u64 {
    now.saturating_add(SESSION_SECS + CLOCKS_DIFFER_SECS)
}

impl Service {
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
        let how = if second { "with second factor" } else { "with a password" };
        work.audit(&[actor.id()], "session.create", actor.user.id, how).await?;
        let session = self.open_session(work.tx(), actor).await?;
        work.commit().await?;
        if let Some(tried) = tried {
            if second {
                self.code_was_right(tried);
            } else {
                // There was nothing to guess.
                self.code_was_not_needed(tried);
            }
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
        let now = self.clock.unix_secs();
        let expires_at = now + SESSION_SECS;
        let hash = digest(&token);
        tx.insert_session(&hash, actor.user.id, expires_at, latest_end(now), SESSIONS_PER_USER).await?;
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

    /// Signs out. Of a session that was made through a provider, where the one at the provider ends, if it says so.
    pub async fn logout(&self, actor: &Actor, token: &str) -> ServiceResult<Option<SignedOut>> {
        actor.in_person()?;
        let hash = digest(token);
        let mut work = self.work_of(actor).await?;
        let through = work.session_provider(&hash).await?;
        work.delete_session(&hash).await?;
        work.audit(&[actor.id()], "session.delete", actor.user.id, "status: open → ended").await?;
        work.commit().await?;
        match through {
            Some(through) => Ok(self.end_at_provider(through).await),
            None => Ok(None),
        }
    }

    /// Who asks.
    pub fn me(&self, actor: &Actor) -> ServiceResult<Me> {
        actor.may(Act::Read)?;
        Ok(Me { user: show_user(actor.user.clone()), organization: show_organization(actor.organization.clone()) })
    }
}
