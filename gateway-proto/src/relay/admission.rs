//! Admission to a relay: a token of the control plane plus proof of the gateway's key, verified offline.
//!
//! The token says who may attach where and until when; it is no secret, because the signature over this relay's fresh nonce shows
//! that its owner is the one attaching. A relay needs no connection to the control plane for that.

use super::RefusalCode;
use crate::{
    id::{OrganizationId, RelayId},
    identity::{Context, GatewayKey, GatewayPublicKey},
    signed::{RelayToken, SignedError},
};

/// A gateway that proved itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// Its key.
    pub key: GatewayPublicKey,
    /// Its organization.
    pub organization: OrganizationId,
    /// When its token expires, Unix seconds.
    pub expires_at: u64,
}

/// The gateway's answer to a challenge.
pub fn sign_admission(key: &GatewayKey, relay: RelayId, nonce: &[u8; 32]) -> [u8; 64] {
    key.sign(Context::RelayAdmission, &challenge_message(relay, nonce))
}

/// Checks token and proof; an error is what the gateway is told.
///
/// The order matters: nothing of the token is believed before its signature, and whether the token is
/// for this relay is told only to a bearer of a genuine one.
pub fn verify_admission(
    token: &str,
    signature: &[u8; 64],
    relay: RelayId,
    nonce: &[u8; 32],
    control_keys: &[GatewayPublicKey],
    now: u64,
) -> Result<Admission, RefusalCode> {
    let token = RelayToken::verify(token, control_keys, now).map_err(|error| match error {
        SignedError::Malformed => RefusalCode::Malformed,
        SignedError::UnknownKey(_) | SignedError::BadSignature => RefusalCode::BadToken,
        SignedError::OutOfTime { .. } => RefusalCode::Expired,
        SignedError::WrongAudience(_) => RefusalCode::WrongRelay,
    })?;
    if !token.relays.contains(&relay) {
        return Err(RefusalCode::WrongRelay);
    }
    let message = challenge_message(relay, nonce);
    let proof = token.key.verify(Context::RelayAdmission, &message, signature);
    proof.map_err(|_| RefusalCode::BadProof)?;
    Ok(Admission { key: token.key, organization: token.org, expires_at: token.exp })
}

fn challenge_message(relay: RelayId, nonce: &[u8; 32]) -> [u8; 48] {
    let mut message = [0; 48];
    message[..16].copy_from_slice(&relay.to_bytes());
    message[16..].copy_from_slice(nonce);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_500;
    const NONCE: [u8; 32] = [9; 32];

    fn control() -> GatewayKey {
        GatewayKey::from_seed(&[1; 32])
    }

    fn gateway() -> GatewayKey {
        GatewayKey::from_seed(&[2; 32])
    }

    fn relay() -> RelayId {
        RelayId::from_bytes([3; 16])
    }

    fn token() -> RelayToken {
        RelayToken {
            key: gateway().public(),
            org: OrganizationId::from_bytes([4; 16]),
            relays: vec![relay()],
            iat: 1_000,
            exp: 2_000,
        }
    }

    fn admit(token: &str, signature: &[u8; 64]) -> Result<Admission, RefusalCode> {
        verify_admission(token, signature, relay(), &NONCE, &[control().public()], NOW)
    }

    #[test]
    fn the_gateway_of_the_token_is_admitted() {
        let text = token().sign(&control()).unwrap();
        let admission = admit(&text, &sign_admission(&gateway(), relay(), &NONCE)).unwrap();
        assert_eq!(admission.key, gateway().public());
        assert_eq!(admission.expires_at, 2_000);
    }

    #[test]
    fn each_lie_has_its_own_refusal() {
        let proof = sign_admission(&gateway(), relay(), &NONCE);
        let good = token().sign(&control()).unwrap();
        assert_eq!(admit("no token", &proof), Err(RefusalCode::Malformed));
        let forged = token().sign(&gateway()).unwrap();
        assert_eq!(admit(&forged, &proof), Err(RefusalCode::BadToken));
        let expired = RelayToken { exp: NOW, ..token() }.sign(&control()).unwrap();
        assert_eq!(admit(&expired, &proof), Err(RefusalCode::Expired));
        let elsewhere = RelayToken { relays: Vec::new(), ..token() }.sign(&control()).unwrap();
        assert_eq!(admit(&elsewhere, &proof), Err(RefusalCode::WrongRelay));
        let thief = sign_admission(&GatewayKey::from_seed(&[5; 32]), relay(), &NONCE);
        assert_eq!(admit(&good, &thief), Err(RefusalCode::BadProof));
        let replayed = sign_admission(&gateway(), relay(), &[8; 32]);
        assert_eq!(
            admit(&good, &replayed),
            Err(RefusalCode::BadProof),
            "a proof of another challenge is worth nothing"
        );
        let other_relay = sign_admission(&gateway(), RelayId::from_bytes([7; 16]), &NONCE);
        assert_eq!(admit(&good, &other_relay), Err(RefusalCode::BadProof), "nor is one made for another relay");
    }
}
