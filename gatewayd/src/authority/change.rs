//! The next policy, made from the one in force and what changes in it.

use gateway_proto::{
    identity::Context,
    policy::{DeltaError, PolicyDelta},
    signed::{Envelope, SignedError},
};
use serde::de::IgnoredAny;

use super::Authority;
use crate::store::StoreError;

/// Why a change of the policy gave none. The one in force stays, and the control plane is asked for a whole one.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// It is a change of something else.
    #[error(transparent)]
    Delta(#[from] DeltaError),
    /// The policy that it changes cannot be read.
    #[error("the policy that was to be changed cannot be read")]
    Store(#[from] StoreError),
    /// Nobody signed what came out. That is no refused policy: the whole one may well be good.
    #[error("what came out is not what was signed")]
    Signed(#[from] SignedError),
}

impl Authority {
    /// The policy that follows from the one in force, with the signature of a trusted key, for [`accept`](Self::accept). After an
    /// error no deltas are taken until a policy is in force again. Blocks.
    pub fn next_policy(&self, delta: &PolicyDelta) -> Result<Envelope, ChangeError> {
        self.made_of(delta).inspect_err(|_| self.lock().wants_whole = true)
    }

    /// Whether the control plane may send what changes in place of a whole policy.
    pub fn takes_deltas(&self) -> bool {
        !self.lock().wants_whole
    }

    fn made_of(&self, delta: &PolicyDelta) -> Result<Envelope, ChangeError> {
        let (in_force, unsaved, trusted) = {
            let inner = self.lock();
            let trusted = inner.store.as_ref().map(|store| store.trusted().to_vec());
            (inner.revision(), inner.unsaved.clone(), trusted.unwrap_or_default())
        };
        let other = DeltaError::OtherRevision { from: delta.from, in_force };
        if delta.from != in_force {
            return Err(other.into());
        }
        // The bytes that were signed are on disk, or wait for it: a policy that was read lacks what this version does not know.
        let base = match unsaved {
            Some(envelope) => envelope,
            None => self.0.state.load_policy()?.ok_or(other)?,
        };
        let next = delta.apply(&base)?;
        let _: IgnoredAny = next.open(Context::Policy, &trusted)?;
        Ok(next)
    }
}
