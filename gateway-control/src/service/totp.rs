//! The second factor of a user: one-time codes by time (RFC 6238), required at sign-in once they are confirmed.
//!
//! Life: enrolled (a secret, which is sealed in the storage and shown once), confirmed with a code of it, given up with
//! password and code, or taken off by somebody who manages users. A code counts once: the step it belongs to, and every one
//! before, is spent in the transaction that accepts it.
//!
//! Wrong codes are limited per user, so that guessing six digits takes years. Whoever has the password only can use that up, so it is
//! not what the user depends on: an address from which the user signed in lately has codes of its own, a session has, and recovery
//! codes are so long that they are not counted at all.

use std::{net::IpAddr, time::Instant};

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use gateway_proto::{
    api::platform::{ConfirmTotp, ConfirmedTotp, DisableTotp, EnrollTotp, Hidden, TotpEnrollment, TotpStatus},
    id::UserId,
};
use totp_rs::{Builder, Totp};
use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

use super::{
    Actor, Credential, Service, ServiceError, ServiceResult, Work, digest,
    password::Payer,
    permission::{self, Act},
};
use crate::storage::{Sealed, TotpRow};

/// Recovery codes of a user.
const RECOVERY_CODES: usize = 10;
/// Digits of a code by time: what has another form can only be a recovery code.
const DIGITS: usize = 6;
/// What authenticators show above the code.
const ISSUER: &str = "gateway-control";
const WRONG_CODE: &str = "the code is wrong, or was used before";

/// In whose allowance a code is tried.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Guesser {
    /// Whoever signs in as this user, from wherever.
    Anybody(UserId),
    /// The same from an address where the user signed in lately.
    At(UserId, IpAddr),
    /// A session of the user.
    Session(String),
}

/// A code that is being tried: given back when it is right.
#[derive(Debug)]
pub(super) struct Try {
    /// None: it cannot be guessed, and is not counted.
    guesser: Option<Guesser>,
    /// Where the user will be known from then on.
    place: Option<(UserId, IpAddr)>,
}

impl Service {
    /// The own second factor.
    pub async fn totp_status(&self, actor: &Actor) -> ServiceResult<TotpStatus> {
        actor.may(Act::Read)?;
        let mut tx = self.storage.read().await?;
        let enabled = tx.totp(actor.user.id).await?.is_some_and(|row| row.confirmed);
        let left = tx.count_recovery_codes(actor.user.id).await?;
        Ok(TotpStatus { enabled, recovery_codes: u32::try_from(left).unwrap_or(u32::MAX) })
    }

    /// Begins with a second factor; one that was not confirmed is replaced.
    pub async fn enroll_totp(&self, actor: &Actor, body: EnrollTotp) -> ServiceResult<TotpEnrollment> {
        actor.in_person()?;
        self.check_password(actor, &body.password).await?;
        let mut work = self.work_of(actor).await?;
        work.still_the_password(actor).await?;
        if work.totp(actor.user.id).await?.is_some_and(|row| row.confirmed) {
            return Err(ServiceError::Conflict("there is a second factor already; give it up first".to_owned()));
        }
        let secret = Zeroizing::new(gateway_net::random::<20>());
        let sealed = self.settings.vault.seal(&purpose(actor.user.id), secret.as_slice());
        let row = TotpRow {
            user: actor.user.id,
            secret: Sealed(sealed.map_err(|_| ServiceError::Internal("a second factor cannot be sealed"))?),
            confirmed: false,
            last_step: 0,
            created_at: work.now,
        };
        work.put_totp(&row).await?;
        work.audit(&[actor.id()], "user.enroll_totp", actor.user.id, "not confirmed yet").await?;
        work.commit().await?;
        let text = BASE32_NOPAD.encode(secret.as_slice());
        let account: String = byte_serialize(actor.user.email.as_bytes()).collect();
        let uri = format!("otpauth://totp/{ISSUER}:{account}?secret={text}&issuer={ISSUER}");
        Ok(TotpEnrollment { secret: Hidden(text), uri: Hidden(uri) })
    }

    /// Confirms the second factor with a code of it: from now on it is needed, and every other session ends.
    pub async fn confirm_totp(&self, actor: &Actor, token: &str, body: ConfirmTotp) -> ServiceResult<ConfirmedTotp> {
        actor.in_person()?;
        let tried = self.try_code_of(actor, &body.code.0)?;
        let mut work = self.work_of(actor).await?;
        let row = work.totp(actor.user.id).await?.filter(|row| !row.confirmed);
        let mut row =
            row.ok_or_else(|| ServiceError::Conflict("no second factor waits for its confirmation".to_owned()))?;
        row.last_step = self.step_of(&row, &body.code.0)?.ok_or(ServiceError::Forbidden(WRONG_CODE.to_owned()))?;
        row.confirmed = true;
        work.put_totp(&row).await?;
        let mut codes = Vec::with_capacity(RECOVERY_CODES);
        for _ in 0..RECOVERY_CODES {
            let code = HEXLOWER.encode(&gateway_net::random::<10>());
            work.insert_recovery_code(actor.user.id, &recovery_hash(actor.user.id, &code)).await?;
            codes.push(Hidden(code));
        }
        work.delete_other_sessions(actor.user.id, &digest(token)).await?;
        work.audit(&[actor.id()], "user.confirm_totp", actor.user.id, "second factor: none → codes by time").await?;
        work.commit().await?;
        self.code_was_right(tried);
        Ok(ConfirmedTotp { recovery_codes: codes })
    }

    /// Gives the own second factor up.
    pub async fn disable_totp(&self, actor: &Actor, body: DisableTotp) -> ServiceResult<()> {
        actor.in_person()?;
        self.check_password(actor, &body.password).await?;
        let tried = self.try_code_of(actor, &body.code.0)?;
        let mut work = self.work_of(actor).await?;
        work.still_the_password(actor).await?;
        if !work.second_factor(actor.user.id, Some(&body.code.0)).await? {
            return Err(ServiceError::Conflict("there is no second factor".to_owned()));
        }
        work.delete_totp(actor.user.id).await?;
        work.audit(&[actor.id()], "user.disable_totp", actor.user.id, "second factor: codes by time → none").await?;
        work.commit().await?;
        self.code_was_right(tried);
        Ok(())
    }

    /// Takes the second factor of a user off, who lost it; the user's sessions end.
    pub async fn reset_totp(&self, actor: &Actor, id: UserId) -> ServiceResult<()> {
        actor.may(Act::ManageUsers)?;
        actor.in_person()?;
        let mut work = self.work_of(actor).await?;
        let user = work.user(id).await?.filter(|user| user.organization == actor.id());
        let user = user.ok_or(ServiceError::NotFound("user"))?;
        if id == actor.user.id {
            return Err(ServiceError::Forbidden("the own second factor is given up with a code of it".to_owned()));
        }
        if !permission::may_manage(actor.user.role, user.role) {
            return Err(ServiceError::Forbidden(
                "the second factor of an owner is taken off by an owner only".to_owned(),
            ));
        }
        if work.totp(id).await?.is_none() {
            return work.unchanged().await;
        }
        work.delete_totp(id).await?;
        work.delete_other_sessions(id, "").await?;
        work.audit(&[actor.id()], "user.reset_totp", id, format!("second factor of {} taken off", user.email)).await?;
        work.commit().await
    }

    /// Takes a code from the allowance of whoever signs in as this user, before it is looked whether it is right: a guess must learn
    /// nothing any more.
    pub(super) fn try_code(&self, user: UserId, from: IpAddr, code: &str) -> ServiceResult<Try> {
        let guesser =
            if self.rates.places.has(&(user, from)) { Guesser::At(user, from) } else { Guesser::Anybody(user) };
        self.take_guess(guesser, Some((user, from)), code)
    }

    /// The same for a user who is signed in.
    fn try_code_of(&self, actor: &Actor, code: &str) -> ServiceResult<Try> {
        let session = match &actor.credential {
            Some(Credential::Session(hash)) => hash.clone(),
            Some(Credential::ApiToken(_)) | None => actor.user.id.to_string(),
        };
        self.take_guess(Guesser::Session(session), None, code)
    }

    fn take_guess(&self, guesser: Guesser, place: Option<(UserId, IpAddr)>, code: &str) -> ServiceResult<Try> {
        let code = code.trim();
        if code.len() != DIGITS || !code.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Try { guesser: None, place });
        }
        self.rates.codes.take(&guesser, Instant::now()).map_err(ServiceError::RateLimited)?;
        Ok(Try { guesser: Some(guesser), place })
    }

    /// Gives it back: the user it is, and is known there from now on.
    pub(super) fn code_was_right(&self, Try { guesser, place }: Try) {
        self.code_was_not_needed(Try { guesser, place: None });
        if let Some(place) = place {
            self.rates.places.note(place);
        }
    }

    /// Gives it back: the user has no second factor, so nothing was guessed.
    pub(super) fn code_was_not_needed(&self, tried: Try) {
        if let Some(guesser) = tried.guesser {
            self.rates.codes.give_back(&guesser);
        }
    }

    async fn check_password(&self, actor: &Actor, password: &Hidden) -> ServiceResult<()> {
        self.may_try_password(actor)?;
        let current = Some(actor.user.password_hash.0.clone());
        if self.passwords.verify(Payer::Organization(actor.id()), password.clone(), current).await? {
            return Ok(());
        }
        Err(ServiceError::Forbidden("the password is wrong".to_owned()))
    }

    /// The step of a code that counts now and was not used before; none: it does not count.
    fn step_of(&self, row: &TotpRow, code: &str) -> ServiceResult<Option<u64>> {
        let unreadable = |_| ServiceError::Internal("a sealed second factor is unreadable");
        let secret = self.settings.vault.open(&purpose(row.user), &row.secret.0).map_err(unreadable)?;
        let step = generator(&secret)?.check(code.trim(), self.clock.unix_secs());
        Ok(step.filter(|step| *step > row.last_step))
    }
}

impl Work {
    /// Checks the second factor of a user who has one; the code is spent with this change. False: there is none.
    pub(super) async fn second_factor(&mut self, user: UserId, code: Option<&str>) -> ServiceResult<bool> {
        let Some(mut row) = self.totp(user).await?.filter(|row| row.confirmed) else { return Ok(false) };
        let code = code.ok_or(ServiceError::TotpRequired)?;
        if let Some(step) = self.service().step_of(&row, code)? {
            row.last_step = step;
            self.put_totp(&row).await?;
            return Ok(true);
        }
        if self.use_recovery_code(user, &recovery_hash(user, code)).await? {
            return Ok(true);
        }
        Err(ServiceError::Unauthenticated(WRONG_CODE))
    }
}

fn generator(secret: &[u8]) -> ServiceResult<Totp> {
    // Six digits, 30 seconds, SHA-1, one step either way: what every authenticator takes.
    Builder::new().with_secret(secret).build().map_err(|_| ServiceError::Internal("a second factor is unusable"))
}

fn purpose(user: UserId) -> String {
    format!("totp {user}")
}

fn recovery_hash(user: UserId, code: &str) -> String {
    let code: String = code.chars().filter(|c| !c.is_whitespace() && *c != '-').take(64).collect();
    digest(&format!("{user} {}", code.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B: the last six of the eight digits.
    #[test]
    fn codes_are_those_of_rfc_6238() {
        let totp = generator(b"12345678901234567890").unwrap();
        for (time, code) in [(59, "287082"), (1_111_111_109, "081804"), (20_000_000_000, "353130")] {
            assert_eq!(totp.generate(time).to_string(), code);
        }
    }

    #[test]
    fn a_recovery_code_is_read_as_people_write_it() {
        let user = UserId::new(1, [0; 10]);
        assert_eq!(recovery_hash(user, "abcd0"), recovery_hash(user, " AB-CD 0"));
        assert_ne!(recovery_hash(user, "abcd0"), recovery_hash(UserId::new(2, [0; 10]), "abcd0"));
    }
}
