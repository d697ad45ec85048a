//! Enrolment: the code that a person carries, and the exchange that it permits.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};

use crate::{
    identity::{Context, GatewayKey, GatewayPublicKey, NoiseBinding},
    signed::Envelope,
};

const CODE_PREFIX: &str = "gwe1_";

/// What an enrolment code holds: where to go, whom to trust, and the one-time secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrollmentCode {
    /// Base URL of the control plane, `https://host:port`.
    pub control: String,
    /// SHA-256 of the control plane's TLS public key, hex; none: the web PKI vouches for it.
    pub pin: Option<String>,
    /// The policy key to pin.
    pub policy_key: GatewayPublicKey,
    /// 32 hex digits, valid once.
    pub secret: String,
}

impl std::fmt::Debug for EnrollmentCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EnrollmentCode({}, secret masked)", self.control)
    }
}

/// The text is not an enrolment code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not a complete enrolment code: it starts with '{CODE_PREFIX}' and is one word; copy it again, whole")]
pub struct EnrollmentCodeError;

impl std::fmt::Display for EnrollmentCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let json = serde_json::to_vec(self).map_err(|_| std::fmt::Error)?;
        write!(f, "{CODE_PREFIX}{}", BASE64URL_NOPAD.encode(&json))
    }
}

impl std::str::FromStr for EnrollmentCode {
    type Err = EnrollmentCodeError;

    fn from_str(text: &str) -> Result<Self, EnrollmentCodeError> {
        let text = text.trim().strip_prefix(CODE_PREFIX).ok_or(EnrollmentCodeError)?;
        let json = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| EnrollmentCodeError)?;
        serde_json::from_slice(&json).map_err(|_| EnrollmentCodeError)
    }
}

/// A gateway enrols itself. Sent twice with the same key and code it gets the same answer (a lost reply loses nothing).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrollRequest {
    /// The secret of the enrolment code.
    pub secret: String,
    /// The gateway's key.
    #[schema(value_type = String)]
    pub key: GatewayPublicKey,
    /// Its Noise key, bound.
    pub noise: NoiseBinding,
    /// Version of gatewayd.
    pub version: String,
    /// Signature by `key` over `"enroll" ‖ 0 ‖ secret ‖ 0 ‖ Noise key hex` in the assertion context, 128 hex digits.
    pub proof: String,
}

impl EnrollRequest {
    /// Makes the request with its proof of possession.
    pub fn new(secret: String, key: &GatewayKey, noise: NoiseBinding, version: String) -> Self {
        let proof = HEXLOWER.encode(&key.sign(Context::Assertion, &Self::message(&secret, &noise)));
        Self { secret, key: key.public(), noise, version, proof }
    }

    /// Checks proof and Noise binding.
    pub fn verify(&self) -> Result<(), crate::identity::KeyError> {
        use crate::identity::KeyError;
        let proof = HEXLOWER.decode(self.proof.as_bytes()).map_err(|_| KeyError::Format)?;
        let proof = proof.try_into().map_err(|_| KeyError::Format)?;
        self.key.verify(Context::Assertion, &Self::message(&self.secret, &self.noise), &proof)?;
        self.noise.verify(&self.key)
    }

    fn message(secret: &str, noise: &NoiseBinding) -> Vec<u8> {
        format!("enroll\0{secret}\0{}", noise.key).into_bytes()
    }
}

impl std::fmt::Debug for EnrollRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EnrollRequest({:?}, secret masked)", self.key)
    }
}

/// The gateway is enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EnrollAnswer {
    /// The server it now belongs to.
    pub server_id: String,
    /// Its name.
    pub server_name: String,
    /// The organization's name.
    pub organization_name: String,
    /// The policy key: the one in the code, or one that it vouches for, or the gateway refuses.
    #[schema(value_type = String)]
    pub policy_key: GatewayPublicKey,
    /// The links from the key in the code to that key; empty: it is the one in the code.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub succession: Vec<Envelope>,
    /// The first policy.
    pub policy: Envelope,
    /// The first relay token.
    pub relay_token: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::NoiseKey;

    #[test]
    fn an_enrolment_code_round_trips_and_a_cut_one_is_refused() {
        let code = EnrollmentCode {
            control: "https://control.example:8443".into(),
            pin: None,
            policy_key: GatewayKey::from_seed(&[1; 32]).public(),
            secret: "ab".repeat(16),
        };
        let text = code.to_string();
        assert_eq!(format!(" {text}\n").parse(), Ok(code.clone()));
        assert!(text[..text.len() - 3].parse::<EnrollmentCode>().is_err());
        assert!(!format!("{code:?}").contains("abab"));
    }

    #[test]
    fn an_enrolment_with_somebody_elses_key_is_refused() {
        let (key, noise) = (GatewayKey::from_seed(&[1; 32]), NoiseKey::from_bytes([2; 32]));
        let mut request = EnrollRequest::new("s".into(), &key, NoiseBinding::new(&key, &noise), "1".into());
        assert_eq!(request.verify(), Ok(()));
        request.key = GatewayKey::from_seed(&[3; 32]).public();
        assert!(request.verify().is_err());
    }
}
