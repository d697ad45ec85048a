//! Who we are enrolled with, which policy keys are trusted, and the token that relays want to see.

use std::time::Instant;

use gateway_proto::{
    policy::PolicyError,
    signed::{Envelope, RelayToken, SignedError},
    succession::follow,
};

use super::{Authority, trust};
use crate::store::{Enrollment, StoreError};

/// Why an enrolment did not come into force. It can be repeated with the same code.
#[derive(Debug, thiserror::Error)]
pub enum EnrollmentError {
    /// The first policy breaks a rule.
    #[error("the control plane's first policy was refused")]
    Policy(#[from] PolicyError),
    /// The disk did not take it.
    #[error("the enrolment could not be saved")]
    NotSaved(#[from] StoreError),
}

/// Why a relay token was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RelayTokenError {
    /// Not a token of our control plane for this gateway.
    #[error("the relay token was refused")]
    Refused(#[from] SignedError),
    /// In use, but the disk did not take it.
    #[error("the relay token could not be saved")]
    NotSaved(#[from] StoreError),
}

impl Authority {
    /// Trusts the policy keys that the trusted ones vouch for, also after a restart. It decides nothing else: which keys
    /// count is what the next policy says. Blocks.
    pub fn follow(&self, links: &[Envelope]) -> Result<(), StoreError> {
        let mut inner = self.lock();
        let Some(enrollment) = self.0.enrollment.borrow().clone() else { return Ok(()) };
        let known = match &mut inner.store {
            // Not from all keys on disk: the signer of the policy in force may be one that it retired.
            Some(store) => {
                store.follow(links);
                store.trusted().to_vec()
            }
            None => follow(&enrollment.trusted_keys, links),
        };
        let wider = Enrollment { trusted_keys: trust::union(&enrollment.trusted_keys, &known), ..enrollment.clone() };
        if wider == enrollment {
            return Ok(());
        }
        self.0.state.save_enrollment(&wider)?;
        self.0.enrollment.send_replace(Some(wider));
        Ok(())
    }

    /// Takes a relay token of our control plane for this gateway into use and saves it. Blocks.
    pub fn set_relay_token(&self, token: String, now: u64) -> Result<(), RelayTokenError> {
        let trusted = self.0.enrollment.borrow().as_ref().map(|enrollment| enrollment.trusted_keys.clone());
        match RelayToken::verify(&token, &trusted.unwrap_or_default(), now) {
            Ok(parsed) if parsed.key != self.gateway_key().public() => {
                return Err(SignedError::WrongAudience("gateway").into());
            }
            // Its time is the relay's to judge: our clock may be the wrong one.
            Ok(_) | Err(SignedError::OutOfTime { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let _guard = self.lock();
        self.0.relay_token.send_replace(Some(token.clone()));
        Ok(self.0.state.save_relay_token(&token)?)
    }

    /// Puts an enrolment with its first policy and relay token into force. Nothing changes before the policy is verified;
    /// after a crash at any point the same code may be used again. Blocks.
    pub fn enroll(
        &self,
        enrollment: Enrollment,
        policy: Envelope,
        relay_token: String,
        now: u64,
    ) -> Result<(), EnrollmentError> {
        let mut inner = self.lock();
        let fresh = trust::first_policy(self.gateway_key().public(), &enrollment, &policy)?;
        let before = self.0.enrollment.borrow().clone();
        let is_same = before.as_ref().is_some_and(|before| {
            (&before.policy_key, &before.server_id) == (&enrollment.policy_key, &enrollment.server_id)
        });
        // The same code again answers with the first policy, which may be older than the one in force by now.
        let keeps_policy = is_same && inner.revision() >= fresh.revision();
        let enrollment = match before {
            Some(before) if keeps_policy => Enrollment { trusted_keys: before.trusted_keys, ..enrollment },
            _ => Enrollment { trusted_keys: trust::keys_after(&policy, &fresh), ..enrollment },
        };
        let state = &self.0.state;
        if !keeps_policy {
            state.retire_policy()?;
        }
        state.save_relay_token(&relay_token)?;
        state.save_enrollment(&enrollment)?;
        if !keeps_policy {
            state.save_policy(&policy)?;
            self.0.clock.raise(fresh.current().map_or(0, |policy| policy.issued_at), Instant::now());
            inner.replace(fresh);
            inner.unsaved = None;
            inner.refused_on_disk = false;
        }
        inner.contact.confirmed_at = now;
        inner.contact.removed = false;
        self.save_contact(&mut inner);

        self.0.relay_token.send_replace(Some(relay_token));
        self.publish(&inner, None);
        self.0.enrollment.send_replace(Some(enrollment));
        Ok(())
    }
}
