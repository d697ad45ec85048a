//! Which policy keys are trusted, on disk and across a rotation of keys.
//!
//! A policy names the keys trusted from then on, and may itself be signed by a key it retires. So the enrolment on disk
//! keeps the signer of the policy in force beside the keys that policy names, and is written wider before the policy and
//! narrower after it: whenever the power goes, the policy on disk verifies with the keys on disk.

use gateway_proto::{
    identity::GatewayPublicKey,
    policy::{PolicyError, PolicyStore},
    signed::Envelope,
};

use crate::store::{Enrollment, StateDir, StoreError};

/// Why the policy on disk is not in force.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskPolicyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// The policy on disk, verified.
pub(super) fn load_policy(state: &StateDir, enrollment: &Enrollment) -> Result<Option<PolicyStore>, DiskPolicyError> {
    let Some(envelope) = state.load_policy()? else { return Ok(None) };
    Ok(Some(first_policy(state.gateway_key().public(), enrollment, &envelope)?))
}

/// A store with its first policy, signed by a key the enrolment trusts.
pub(super) fn first_policy(
    gateway: GatewayPublicKey,
    enrollment: &Enrollment,
    envelope: &Envelope,
) -> Result<PolicyStore, PolicyError> {
    let mut store = empty_store(gateway, enrollment, envelope);
    store.accept(envelope)?;
    Ok(store)
}

/// A store without a policy that trusts the signer of `envelope` if the enrolment does.
pub(super) fn empty_store(gateway: GatewayPublicKey, enrollment: &Enrollment, envelope: &Envelope) -> PolicyStore {
    let is_trusted = enrollment.trusted_keys.contains(&envelope.key);
    PolicyStore::new(gateway, if is_trusted { envelope.key } else { enrollment.policy_key })
}

/// The keys to keep on disk beside an accepted policy.
pub(super) fn keys_after(envelope: &Envelope, store: &PolicyStore) -> Vec<GatewayPublicKey> {
    union(&[envelope.key], store.trusted())
}

/// Saves the policy, and the keys around it when they change; then the changed enrolment is returned.
pub(super) fn save_policy(
    state: &StateDir,
    enrollment: &Enrollment,
    envelope: &Envelope,
    keys: Vec<GatewayPublicKey>,
    refused_on_disk: bool,
) -> Result<Option<Enrollment>, StoreError> {
    if refused_on_disk {
        state.reject_policy()?;
    }
    if keys == enrollment.trusted_keys {
        state.save_policy(envelope)?;
        return Ok(None);
    }
    let wider = union(&enrollment.trusted_keys, &keys);
    state.save_enrollment(&Enrollment { trusted_keys: wider, ..enrollment.clone() })?;
    state.save_policy(envelope)?;
    let narrower = Enrollment { trusted_keys: keys, ..enrollment.clone() };
    state.save_enrollment(&narrower)?;
    Ok(Some(narrower))
}

pub(super) fn union(first: &[GatewayPublicKey], second: &[GatewayPublicKey]) -> Vec<GatewayPublicKey> {
    let mut keys = first.to_vec();
    keys.extend(second.iter().filter(|key| !first.contains(key)));
    keys
}
