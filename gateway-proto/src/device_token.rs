//! Device tokens: who a device is, for a short while and for one audience; and the proof that goes with a token that is bound
//! to a key.
//!
//! A token is a JWT that everybody can verify offline with the published keys ([`crate::jws::JwkSet`]). Offline nobody knows
//! of its revocation: its short life bounds that, and whoever must know asks the control plane. A bound token (`cnf`) is worth
//! nothing without a fresh [`KeyProof`], in the form of RFC 9449 (DPoP).

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    id::{DeviceId, DeviceTokenId, OrganizationId, TenantId},
    jws::{self, JwsError, JwsKey, JwsPublicKey},
};

/// No token is valid for longer, seconds: a day. Operators choose less.
pub const MAX_DEVICE_TOKEN_SECS: u64 = 24 * 3600;
/// How far the clocks of those who sign and those who verify may be apart, seconds.
pub const CLOCK_SKEW_SECS: u64 = 60;
/// How old a proof may be, seconds; either way, because the device has a clock of its own.
pub const PROOF_WINDOW_SECS: u64 = 60;

const TOKEN_TYPE: &str = "device+jwt";
const PROOF_TYPE: &str = "dpop+jwt";

/// Why a token or its proof was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceTokenError {
    /// Form or signature.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// From another platform.
    #[error("the token is of another issuer")]
    Issuer,
    /// For somebody else.
    #[error("the token is for another audience")]
    Audience,
    /// Over, or not begun.
    #[error("the token is not valid at this time: from {from} to {until}, our clock says {now} (Unix seconds)")]
    OutOfTime {
        /// First second of validity.
        from: u64,
        /// First second after it.
        until: u64,
        /// Our clock.
        now: u64,
    },
    /// Bound to a key, and no proof of it came along.
    #[error("the token is bound to a key, and no proof of that key came with it")]
    ProofMissing,
    /// The proof is for another request or another token, or too old.
    #[error("the proof of the key is not for this request, not for this token, or too old")]
    Proof,
}

/// The claims of a device token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeviceClaims {
    /// The platform that issued it: its URL.
    pub iss: String,
    /// The device.
    pub sub: DeviceId,
    /// Whom it is for.
    pub aud: String,
    /// Issued at, Unix seconds.
    pub iat: u64,
    /// Expires at, Unix seconds.
    pub exp: u64,
    /// Its id.
    pub jti: DeviceTokenId,
    /// The organization of the device.
    pub organization_id: OrganizationId,
    /// The tenant of that organization.
    pub tenant_id: TenantId,
    /// The key it is bound to; none: whoever has the token may use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Confirmation>,
}

/// The key a token is bound to (RFC 7800, RFC 9449).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// Thumbprint of the key (RFC 7638, SHA-256).
    pub jkt: String,
}

/// What a token must be to count.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Its issuer.
    pub issuer: &'a str,
    /// Whom it is for.
    pub audience: &'a str,
    /// The keys that sign tokens.
    pub keys: &'a [JwsPublicKey],
    /// Our clock, Unix seconds.
    pub now: u64,
}

impl DeviceClaims {
    /// Signs it.
    pub fn sign(&self, key: &JwsKey) -> Result<String, serde_json::Error> {
        jws::sign(key, TOKEN_TYPE, self)
    }

    /// Verifies signature, issuer, audience and time. Revocation, and the proof of a bound token, are the caller's to check.
    pub fn verify(text: &str, expected: &Expected<'_>) -> Result<Self, DeviceTokenError> {
        let claims: Self = jws::open(text, TOKEN_TYPE, expected.keys)?;
        if claims.iss != expected.issuer {
            return Err(DeviceTokenError::Issuer);
        }
        if claims.aud != expected.audience {
            return Err(DeviceTokenError::Audience);
        }
        let (now, from) = (expected.now, claims.iat.saturating_sub(CLOCK_SKEW_SECS));
        let until = claims.exp.min(claims.iat.saturating_add(MAX_DEVICE_TOKEN_SECS));
        if now < from || now >= until {
            return Err(DeviceTokenError::OutOfTime { from, until, now });
        }
        Ok(claims)
    }

    /// Checks what came along as a proof: none is needed for a token without a key. The answer is the proof's id, which the
    /// caller accepts once within [`PROOF_WINDOW_SECS`] either way.
    pub fn check_proof(
        &self,
        token: &str,
        proof: Option<&RequestProof<'_>>,
        now: u64,
    ) -> Result<Option<String>, DeviceTokenError> {
        let Some(bound) = &self.cnf else { return Ok(None) };
        let proof = proof.ok_or(DeviceTokenError::ProofMissing)?;
        let claims: KeyProof = jws::open_with_key(proof.text, PROOF_TYPE, &bound.jkt)?;
        let fresh = now.abs_diff(claims.iat) <= PROOF_WINDOW_SECS;
        let fits = claims.htm == proof.method && claims.htu == proof.url && claims.ath == token_hash(token);
        if fresh && fits { Ok(Some(claims.jti)) } else { Err(DeviceTokenError::Proof) }
    }
}

/// A proof, and the request it came with.
#[derive(Debug, Clone, Copy)]
pub struct RequestProof<'a> {
    /// The proof.
    pub text: &'a str,
    /// Method of the request.
    pub method: &'a str,
    /// URL of the request, without query and fragment.
    pub url: &'a str,
}

/// The claims of a proof (RFC 9449): made by the device for one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyProof {
    /// Random, used once.
    pub jti: String,
    /// Method.
    pub htm: String,
    /// URL, without query and fragment.
    pub htu: String,
    /// Made at, Unix seconds.
    pub iat: u64,
    /// Hash of the token it goes with.
    pub ath: String,
}

impl KeyProof {
    /// Makes a proof for a request with `token`; `jti` is random text.
    pub fn new(jti: String, method: &str, url: &str, token: &str, now: u64) -> Self {
        Self { jti, htm: method.to_owned(), htu: url.to_owned(), iat: now, ath: token_hash(token) }
    }

    /// Signs it with the device's key.
    pub fn sign(&self, key: &JwsKey) -> Result<String, serde_json::Error> {
        jws::sign_with_key(key, PROOF_TYPE, self)
    }
}

fn token_hash(token: &str) -> String {
    BASE64URL_NOPAD.encode(&Sha256::digest(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn claims() -> DeviceClaims {
        DeviceClaims {
            iss: "https://control.example".into(),
            sub: DeviceId::new(1, [1; 10]),
            aud: "gateway".into(),
            iat: NOW,
            exp: NOW + 900,
            jti: DeviceTokenId::new(1, [2; 10]),
            organization_id: OrganizationId::new(1, [3; 10]),
            tenant_id: TenantId::new(1, [4; 10]),
            cnf: None,
        }
    }

    fn key() -> JwsKey {
        JwsKey::from_seed(&[7; 32])
    }

    fn check(text: &str, issuer: &str, audience: &str, now: u64) -> Result<DeviceClaims, DeviceTokenError> {
        let keys = [key().public()];
        DeviceClaims::verify(text, &Expected { issuer, audience, keys: &keys, now })
    }

    #[test]
    fn a_token_counts_for_its_issuer_audience_and_time_only() {
        let text = claims().sign(&key()).unwrap();
        let issuer = "https://control.example";
        assert_eq!(check(&text, issuer, "gateway", NOW), Ok(claims()));
        assert_eq!(check(&text, "https://other.example", "gateway", NOW), Err(DeviceTokenError::Issuer));
        assert_eq!(check(&text, issuer, "another", NOW), Err(DeviceTokenError::Audience));
        for now in [NOW + 900, NOW - CLOCK_SKEW_SECS - 1, 0, u64::MAX] {
            assert!(matches!(check(&text, issuer, "gateway", now), Err(DeviceTokenError::OutOfTime { .. })), "{now}");
        }
    }

    #[test]
    fn a_token_with_a_long_life_ends_after_a_day_all_the_same() {
        let text = DeviceClaims { exp: u64::MAX, ..claims() }.sign(&key()).unwrap();
        let at = |now| check(&text, "https://control.example", "gateway", now);
        assert!(at(NOW + MAX_DEVICE_TOKEN_SECS - 1).is_ok());
        assert!(at(NOW + MAX_DEVICE_TOKEN_SECS).is_err());
    }

    #[test]
    fn a_bound_token_needs_a_fresh_proof_of_its_key_for_this_request() {
        let device = JwsKey::from_seed(&[9; 32]);
        let bound = DeviceClaims { cnf: Some(Confirmation { jkt: device.public().thumbprint() }), ..claims() };
        let token = bound.sign(&key()).unwrap();
        let (method, url) = ("POST", "https://gateway.example/behaviors");
        let made = |key: &JwsKey, method: &str, url: &str, token: &str, at| {
            KeyProof::new("r1".into(), method, url, token, at).sign(key).unwrap()
        };
        let check = |text: &str, now| bound.check_proof(&token, Some(&RequestProof { text, method, url }), now);
        let good = made(&device, method, url, &token, NOW);
        assert_eq!(check(&good, NOW + 10), Ok(Some("r1".into())));
        assert_eq!(check(&good, NOW + PROOF_WINDOW_SECS + 1), Err(DeviceTokenError::Proof));
        assert_eq!(bound.check_proof(&token, None, NOW), Err(DeviceTokenError::ProofMissing));
        for bad in [
            made(&key(), method, url, &token, NOW),
            made(&device, "GET", url, &token, NOW),
            made(&device, method, "https://gateway.example/other", &token, NOW),
            made(&device, method, url, "another token", NOW),
            token.clone(),
            String::new(),
        ] {
            assert!(check(&bad, NOW).is_err(), "{bad}");
        }
        assert_eq!(claims().check_proof("token", None, NOW), Ok(None), "a token without a key needs none");
    }
}
