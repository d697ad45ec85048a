//! Tokens of automation, invitations, passwords.
//!
//! A token acts as its user and never beyond: what the user may not do, or what its scopes do not name, is refused. It makes
//! no tokens, and changes no password. It ends by itself, with its user, with a new password, or when it is revoked.

use data_encoding::HEXLOWER;
use gateway_proto::{
    api::{
        Page,
        platform::{
            AcceptInvitation, ApiToken, ChangePassword, CreateApiToken, CreateInvitation, CreatedApiToken,
            CreatedInvitation, Hidden, Invitation, Session,
        },
    },
    id::{ApiTokenId, InvitationId, UserId},
};

use super::{
    Actor, Credential, Service, ServiceError, ServiceResult, Stranger, Work, bounds,
    desk::Aside,
    digest,
    error::OrConflict,
    organizations::organization_of,
    page::{Paging, page},
    password::Payer,
    permission::{self, Act},
    users::email_taken,
    validate,
    work::Who,
};
use crate::storage::{ApiTokenRow, InvitationRow, PasswordHash, UserRow};

/// Tokens of one user.
const TOKENS_PER_USER: u64 = 50;
/// How exactly the last use of a token is known, seconds.
const USE_SECS: u64 = 3600;
/// What a token's text begins with.
const TOKEN_PREFIX: &str = "gwt_";

impl Service {
    /// Makes a token that acts as the user.
    pub async fn create_api_token(&self, actor: &Actor, body: CreateApiToken) -> ServiceResult<CreatedApiToken> {
        actor.may(Act::ManageTokens)?;
        let name = validate::name("name", &body.name)?;
        let (min, default, max) = bounds::API_TOKEN_SECS;
        let valid = validate::range("valid_secs", body.valid_secs.unwrap_or(default), min, max)?;
        let scopes = sound_scopes(body.scopes)?;
        let mut work = self.work_of(actor).await?;
        let now = work.now;
        if work.count_api_tokens(actor.user.id, now).await? >= TOKENS_PER_USER {
            return Err(ServiceError::Conflict(format!("there are {TOKENS_PER_USER} tokens already; revoke one")));
        }
        let (ms, random) = work.seed();
        let token = format!("{TOKEN_PREFIX}{}", HEXLOWER.encode(&gateway_net::random::<32>()));
        let row = ApiTokenRow {
            id: ApiTokenId::new(ms, random),
            user: actor.user.id,
            organization: actor.id(),
            name,
            scopes,
            expires_at: work.now + valid,
            last_used_at: None,
            created_at: work.now,
        };
        work.insert_api_token(&row, &digest(&token)).await?;
        let detail = format!("{}: {}", row.name, row.scopes.join(", "));
        work.audit(&[actor.id()], "api_token.create", row.id, detail).await?;
        work.commit().await?;
        Ok(CreatedApiToken { token: Hidden(token), api_token: show_token(row) })
    }

    /// The tokens of the own organization; without the role that manages users, the own ones.
    pub async fn api_tokens(&self, actor: &Actor, paging: &Paging) -> ServiceResult<Page<ApiToken>> {
        actor.may(Act::Read)?;
        let slice = paging.slice()?;
        let rows = self.storage.read().await?.api_tokens(actor.id(), &slice).await?;
        let mut shown = page(rows, &slice, |row| row.id.to_string(), show_token);
        if actor.may(Act::ManageUsers).is_err() {
            shown.items.retain(|token| token.user_id == actor.user.id);
        }
        Ok(shown)
    }

    /// Revokes a token: an own one, or that of a user one may remove.
    pub async fn delete_api_token(&self, actor: &Actor, id: ApiTokenId) -> ServiceResult<()> {
        actor.may(Act::ManageTokens)?;
        let mut work = self.work_of(actor).await?;
        let row = work.api_token(id).await?.filter(|row| row.organization == actor.id());
        let row = row.ok_or(ServiceError::NotFound("API token"))?;
        if row.user != actor.user.id {
            actor.may(Act::ManageUsers)?;
            let owner = work.user(row.user).await?.ok_or(ServiceError::NotFound("API token"))?;
            if !permission::may_manage(actor.user.role, owner.role) {
                return Err(ServiceError::Forbidden("a token of an owner is revoked by an owner only".to_owned()));
            }
        }
        work.delete_api_token(id).await?;
        work.audit(&[actor.id()], "api_token.delete", id, row.name).await?;
        work.commit().await
    }

    /// The user behind a token, within its scopes; none: it is no API token.
    pub(super) async fn authenticate_api_token(&self, token: &str, request: &str) -> ServiceResult<Option<Actor>> {
        if !token.starts_with(TOKEN_PREFIX) {
            return Ok(None);
        }
        let now = self.clock.unix_secs();
        let mut tx = self.storage.read().await?;
        let row = tx.api_token_by_hash(&digest(token), now).await?;
        let row = row.ok_or(ServiceError::Unauthenticated("the API token is unknown, revoked or has ended"))?;
        let user =
            tx.user(row.user).await?.ok_or(ServiceError::Unauthenticated("the user of the token was removed"))?;
        let organization = organization_of(&mut *tx, &user).await?;
        drop(tx);
        let is_noted = row.last_used_at.is_some_and(|at| now.saturating_sub(at) < USE_SECS);
        // Beside the request, which must not wait for a turn to write.
        if !is_noted && self.rates.uses.check(&row.id).is_ok() {
            self.note_aside(row.organization, Aside::TokenUsed(row.id));
        }
        let mut actor = Actor::new(user, organization, request);
        actor.credential = Some(Credential::ApiToken(row.id));
        actor.scopes = Some(row.scopes.into_iter().collect());
        Ok(Some(actor))
    }

    /// Invites a person; whoever has the code chooses the password.
    pub async fn create_invitation(&self, actor: &Actor, body: CreateInvitation) -> ServiceResult<CreatedInvitation> {
        actor.may(Act::ManageUsers)?;
        actor.in_person()?;
        actor.may_give(body.role)?;
        let mut work = self.work_of(actor).await?;
        let created = work.invite(actor, actor.id(), body).await?;
        work.commit().await?;
        Ok(created)
    }

    /// Invitations of the own organization that wait.
    pub async fn invitations(&self, actor: &Actor, paging: &Paging) -> ServiceResult<Page<Invitation>> {
        actor.may(Act::Read)?;
        let slice = paging.slice()?;
        let now = self.clock.unix_secs();
        let rows = self.storage.read().await?.invitations(actor.id(), &slice).await?;
        let mut shown = page(rows, &slice, |row| row.id.to_string(), show_invitation);
        shown.items.retain(|invitation| now < invitation.expires_at);
        Ok(shown)
    }

    /// Takes an invitation back.
    pub async fn delete_invitation(&self, actor: &Actor, id: InvitationId) -> ServiceResult<()> {
        actor.may(Act::ManageUsers)?;
        let mut work = self.work_of(actor).await?;
        let row = work.invitation(id).await?.filter(|row| row.organization == actor.id());
        let row = row.ok_or(ServiceError::NotFound("invitation"))?;
        if !permission::may_manage(actor.user.role, row.role) {
            return Err(ServiceError::Forbidden(
                "the invitation of an owner is taken back by an owner only".to_owned(),
            ));
        }
        work.delete_invitation(id).await?;
        work.audit(&[actor.id()], "invitation.delete", id, row.email).await?;
        work.commit().await
    }

    /// Accepts an invitation: the user is made, if whoever invited may still do that, and signed in.
    pub async fn accept_invitation(&self, stranger: &Stranger, body: AcceptInvitation) -> ServiceResult<Session> {
        let unknown =
            || ServiceError::Unauthenticated("the invitation is unknown, used or has ended; ask for a new one");
        let hash = digest(&body.code.0);
        let now = self.clock.unix_secs();
        // A guess costs no password hash and no place among the writers.
        let invited = self.storage.read().await?.invitation_by_hash(&hash, now).await?.ok_or_else(unknown)?;
        validate::password(&body.password.0)?;
        // Who has a code was given it by this organization, whose turns it takes.
        self.has_place_for_user(invited.organization, &invited.email).await?;
        let payer = Payer::Organization(invited.organization);
        let password = self.passwords.hash(payer, body.password.clone()).await?;
        let turn = self.turn_to_write(invited.organization).await?;
        let mut work = Work::begin(self, Who::stranger(stranger), Some(turn)).await?;
        let now = work.now;
        let row = work.invitation_by_hash(&hash, now).await?.ok_or_else(unknown)?;
        let user = work.user_of_invitation(&row, PasswordHash(password)).await?.ok_or_else(unknown)?;
        let organization = organization_of(work.tx(), &user).await?;
        let actor = Actor::new(user, organization, &stranger.request);
        let mut work = work.acting_as(Who::user(&actor));
        work.audit(&[actor.id()], "invitation.accept", row.id, format!("user {}", actor.user.id)).await?;
        let session = self.open_session(work.tx(), actor).await?;
        work.commit().await?;
        Ok(session)
    }

    /// Changes the own password: every other session and every token of the user ends.
    pub async fn change_password(&self, actor: &Actor, token: &str, body: ChangePassword) -> ServiceResult<()> {
        if actor.scopes.is_some() {
            return Err(ServiceError::Forbidden("a password is changed by its user, not by an API token".to_owned()));
        }
        validate::password(&body.new.0)?;
        self.may_try_password(actor)?;
        let current = Some(actor.user.password_hash.0.clone());
        let payer = Payer::Organization(actor.id());
        if !self.passwords.verify(payer, body.current.clone(), current).await? {
            return Err(ServiceError::Forbidden("the current password is wrong".to_owned()));
        }
        let hash = PasswordHash(self.passwords.hash(payer, body.new.clone()).await?);
        let mut work = self.work_of(actor).await?;
        work.still_the_password(actor).await?;
        work.set_password(actor.user.id, &hash).await?;
        work.delete_other_sessions(actor.user.id, &digest(token)).await?;
        let detail = "password: the old one → a new one; the other sessions have ended";
        work.audit(&[actor.id()], "user.change_password", actor.user.id, detail).await?;
        work.commit().await
    }

    /// Takes one attempt at the own password from the allowance of the session, before it is looked whether it is right: a
    /// guess must learn nothing any more. Whoever guesses with a stolen session does not hold up the user, who signs in
    /// anew and changes the password.
    pub(super) fn may_try_password(&self, actor: &Actor) -> ServiceResult<()> {
        let session = match &actor.credential {
            Some(Credential::Session(hash)) => hash.clone(),
            Some(Credential::ApiToken(_)) | None => actor.user.id.to_string(),
        };
        self.rates.password_attempts.check(&session).map_err(ServiceError::RateLimited)
    }
}

impl Work {
    /// Refuses when the password that was verified is not the user's any more: verifying takes its time, and meanwhile
    /// somebody may have changed it.
    pub(super) async fn still_the_password(&mut self, actor: &Actor) -> ServiceResult<()> {
        match self.user(actor.user.id).await? {
            Some(user) if user.password_hash == actor.user.password_hash => Ok(()),
            Some(_) | None => Err(ServiceError::Unauthenticated("the password was changed meanwhile; sign in again")),
        }
    }
}

/// The scopes a token may have, once each.
fn sound_scopes(mut scopes: Vec<String>) -> ServiceResult<Vec<String>> {
    if scopes.len() > bounds::MAX_SCOPES {
        return Err(ServiceError::Invalid(format!("scopes: at most {} are accepted", bounds::MAX_SCOPES)));
    }
    scopes.sort();
    scopes.dedup();
    let known = permission::scopes();
    if let Some(unknown) = scopes.iter().find(|scope| !known.contains(&scope.as_str())) {
        let unknown: String = unknown.chars().take(40).collect();
        return Err(ServiceError::Invalid(format!("scopes has '{unknown}': accepted are {}", known.join(", "))));
    }
    if scopes.is_empty() {
        return Err(ServiceError::Invalid(format!("scopes is empty: accepted are {}", known.join(", "))));
    }
    Ok(scopes)
}

fn show_token(row: ApiTokenRow) -> ApiToken {
    ApiToken {
        id: row.id,
        user_id: row.user,
        name: row.name,
        scopes: row.scopes,
        expires_at: row.expires_at,
        last_used_at: row.last_used_at,
        created_at: row.created_at,
    }
}

impl Work {
    /// Makes the user whom an invitation is for, and uses it up; none where whoever invited may not do that any more.
    pub(super) async fn user_of_invitation(
        &mut self,
        row: &InvitationRow,
        password_hash: PasswordHash,
    ) -> ServiceResult<Option<UserRow>> {
        let Some(inviter) = self.user(row.invited_by).await? else { return Ok(None) };
        if !self.may_invite(&inviter, row).await? {
            return Ok(None);
        }
        self.has_room_for_users(row.organization).await?;
        self.delete_invitation(row.id).await?;
        let (ms, random) = self.seed();
        let user = UserRow {
            id: UserId::new(ms, random),
            organization: row.organization,
            email: row.email.clone(),
            name: row.name.clone(),
            role: row.role,
            password_hash,
            created_at: self.now,
        };
        self.insert_user(&user).await.or_conflict(|| email_taken(&user.email))?;
        Ok(Some(user))
    }
}

pub(super) fn show_invitation(row: InvitationRow) -> Invitation {
    Invitation {
        id: row.id,
        email: row.email,
        name: row.name,
        role: row.role,
        expires_at: row.expires_at,
        created_at: row.created_at,
    }
}
