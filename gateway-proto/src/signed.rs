//! Signed objects: JSON bytes that are verified exactly as they were received, then parsed.
//!
//! Nothing is canonicalised, so there is nothing to disagree about. Two forms exist: an [`Envelope`] (JSON, for the
//! policy) and a compact token text, `base64url(payload).base64url(signature)`, for [`RelayToken`] and [`Assertion`].

use data_encoding::{BASE64, BASE64URL_NOPAD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    id::{OrganizationId, RelayId},
    identity::{Context, GatewayKey, GatewayPublicKey},
};

/// The longest token text that is looked at, in bytes.
pub const MAX_TOKEN_LEN: usize = 4096;
/// How far an assertion's time may be from ours, either way, in seconds.
pub const ASSERTION_WINDOW_SECS: u64 = 60;

/// Why a signed object was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// Not the form of a signed object, or too long.
    #[error("the signed object is malformed")]
    Malformed,
    /// Signed by a key that is not trusted here.
    #[error("the signed object names the signing key {0}, which is not trusted here")]
    UnknownKey(GatewayPublicKey),
    /// The signature is wrong for every trusted key.
    #[error("the signature is wrong")]
    BadSignature,
    /// The time of validity is over, or has not begun (compare the two clocks).
    #[error("not valid at this time: valid from {from} to {until}, our clock says {now} (Unix seconds)")]
    OutOfTime {
        /// First second of validity.
        from: u64,
        /// First second after it.
        until: u64,
        /// Our clock.
        now: u64,
    },
    /// Made for somebody else.
    #[error("made for another {0}")]
    WrongAudience(&'static str),
}

/// A signed JSON object that names its signing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// The signing key, hex.
    #[schema(value_type = String)]
    pub key: GatewayPublicKey,
    /// The signed bytes, base64.
    pub payload: String,
    /// Ed25519 over context and bytes, base64.
    pub signature: String,
}

impl Envelope {
    /// Signs the JSON form of `object`.
    pub fn sign<T: Serialize>(key: &GatewayKey, context: Context, object: &T) -> Result<Self, serde_json::Error> {
        let payload = serde_json::to_vec(object)?;
        Ok(Self {
            key: key.public(),
            signature: BASE64.encode(&key.sign(context, &payload)),
            payload: BASE64.encode(&payload),
        })
    }

    /// The signed bytes, where they are text; nobody has verified them.
    pub(crate) fn text(&self) -> Option<String> {
        String::from_utf8(BASE64.decode(self.payload.as_bytes()).ok()?).ok()
    }

    /// An envelope around a text that is said to be signed so.
    pub(crate) fn of_text(key: GatewayPublicKey, text: &str, signature: String) -> Self {
        Self { key, payload: BASE64.encode(text.as_bytes()), signature }
    }

    /// Verifies against the trusted keys, and only then parses.
    pub fn open<T: DeserializeOwned>(&self, context: Context, trusted: &[GatewayPublicKey]) -> Result<T, SignedError> {
        if !trusted.contains(&self.key) {
            return Err(SignedError::UnknownKey(self.key));
        }
        let payload = BASE64.decode(self.payload.as_bytes()).map_err(|_| SignedError::Malformed)?;
        let signature = BASE64.decode(self.signature.as_bytes()).map_err(|_| SignedError::Malformed)?;
        let signature: [u8; 64] = signature.try_into().map_err(|_| SignedError::Malformed)?;
        self.key.verify(context, &payload, &signature).map_err(|_| SignedError::BadSignature)?;
        serde_json::from_slice(&payload).map_err(|_| SignedError::Malformed)
    }
}

/// Leave to attach to relays, given by the control plane to one gateway; worth nothing without that gateway's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayToken {
    /// The gateway that may attach.
    pub key: GatewayPublicKey,
    /// Its organization, for quotas.
    pub org: OrganizationId,
    /// The relays it may attach to.
    pub relays: Vec<RelayId>,
    /// Issued at, Unix seconds.
    pub iat: u64,
    /// Expires at, Unix seconds.
    pub exp: u64,
}

impl RelayToken {
    /// Signs the token with the control plane's policy key.
    pub fn sign(&self, key: &GatewayKey) -> Result<String, serde_json::Error> {
        sign_text(key, Context::RelayToken, self)
    }

    /// Verifies signature and time; the caller compares the relay and the gateway's proof.
    pub fn verify(text: &str, trusted: &[GatewayPublicKey], now: u64) -> Result<Self, SignedError> {
        let token: Self = open_text(text, Context::RelayToken, trusted)?;
        // One minute of grace at the start: relays and control planes keep separate clocks.
        if now + 60 < token.iat || now >= token.exp {
            return Err(SignedError::OutOfTime { from: token.iat, until: token.exp, now });
        }
        Ok(token)
    }
}

/// Proof that a request to the control plane comes from a gateway: bound to audience, method, path and time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assertion {
    /// The gateway that asks.
    pub key: GatewayPublicKey,
    /// A policy key of the control plane it asks.
    pub aud: GatewayPublicKey,
    /// HTTP method, upper case.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Issued at, Unix seconds.
    pub iat: u64,
    /// 32 random hex digits; the control plane accepts each once within the window.
    pub nonce: String,
}

impl Assertion {
    /// The text for the header `Authorization: Gateway …`.
    pub fn sign(&self, key: &GatewayKey) -> Result<String, serde_json::Error> {
        sign_text(key, Context::Assertion, self)
    }

    /// Verifies form and self-signature alone: whoever has the key made it, for whomever and whenever.
    pub fn open(text: &str) -> Result<Self, SignedError> {
        let (payload, signature) = split_text(text)?;
        let assertion: Self = serde_json::from_slice(&payload).map_err(|_| SignedError::Malformed)?;
        assertion.key.verify(Context::Assertion, &payload, &signature).map_err(|_| SignedError::BadSignature)?;
        Ok(assertion)
    }

    /// Verifies form, self-signature, audience (`own` are the keys that name the control plane), request and time. Replay
    /// (the nonce) is the caller's to check.
    pub fn verify(
        text: &str,
        own: &[GatewayPublicKey],
        method: &str,
        path: &str,
        now: u64,
    ) -> Result<Self, SignedError> {
        let assertion = Self::open(text)?;
        if !own.contains(&assertion.aud) {
            return Err(SignedError::WrongAudience("control plane"));
        }
        if assertion.method != method || assertion.path != path {
            return Err(SignedError::WrongAudience("request"));
        }
        let from = assertion.iat.saturating_sub(ASSERTION_WINDOW_SECS);
        let until = assertion.iat.saturating_add(ASSERTION_WINDOW_SECS);
        if now < from || now >= until {
            return Err(SignedError::OutOfTime { from, until, now });
        }
        Ok(assertion)
    }
}

fn sign_text<T: Serialize>(key: &GatewayKey, context: Context, object: &T) -> Result<String, serde_json::Error> {
    let payload = serde_json::to_vec(object)?;
    let signature = key.sign(context, &payload);
    Ok(format!("{}.{}", BASE64URL_NOPAD.encode(&payload), BASE64URL_NOPAD.encode(&signature)))
}

fn split_text(text: &str) -> Result<(Vec<u8>, [u8; 64]), SignedError> {
    if text.len() > MAX_TOKEN_LEN {
        return Err(SignedError::Malformed);
    }
    let (payload, signature) = text.split_once('.').ok_or(SignedError::Malformed)?;
    let payload = BASE64URL_NOPAD.decode(payload.as_bytes()).map_err(|_| SignedError::Malformed)?;
    let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).map_err(|_| SignedError::Malformed)?;
    Ok((payload, signature.try_into().map_err(|_| SignedError::Malformed)?))
}

fn open_text<T: DeserializeOwned>(
    text: &str,
    context: Context,
    trusted: &[GatewayPublicKey],
) -> Result<T, SignedError> {
    let (payload, signature) = split_text(text)?;
    if !trusted.iter().any(|key| key.verify(context, &payload, &signature).is_ok()) {
        return Err(SignedError::BadSignature);
    }
    serde_json::from_slice(&payload).map_err(|_| SignedError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control() -> GatewayKey {
        GatewayKey::from_seed(&[1; 32])
    }

    fn token() -> RelayToken {
        RelayToken {
            key: GatewayKey::from_seed(&[2; 32]).public(),
            org: OrganizationId::new(1, [0; 10]),
            relays: vec![RelayId::new(1, [0; 10])],
            iat: 1000,
            exp: 2000,
        }
    }

    #[test]
    fn a_relay_token_is_accepted_from_a_trusted_key_and_within_its_time_only() {
        let text = token().sign(&control()).unwrap();
        let trusted = [control().public()];
        assert_eq!(RelayToken::verify(&text, &trusted, 1500), Ok(token()));
        assert!(matches!(RelayToken::verify(&text, &trusted, 2000), Err(SignedError::OutOfTime { .. })));
        assert!(matches!(RelayToken::verify(&text, &trusted, 900), Err(SignedError::OutOfTime { .. })));
        let stranger = [GatewayKey::from_seed(&[9; 32]).public()];
        assert_eq!(RelayToken::verify(&text, &stranger, 1500), Err(SignedError::BadSignature));
    }

    #[test]
    fn a_changed_byte_anywhere_in_a_token_is_refused() {
        let text = token().sign(&control()).unwrap();
        for position in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[position] = if bytes[position] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(RelayToken::verify(&changed, &[control().public()], 1500).is_err(), "byte {position}");
        }
    }

    #[test]
    fn an_assertion_is_bound_to_audience_request_and_time() {
        let gateway = GatewayKey::from_seed(&[2; 32]);
        let assertion = Assertion {
            key: gateway.public(),
            aud: control().public(),
            method: "GET".into(),
            path: "/api/v1/gateway/watch".into(),
            iat: 1000,
            nonce: "0".repeat(32),
        };
        let text = assertion.sign(&gateway).unwrap();
        let check = |aud: &GatewayKey, method: &str, path: &str, now| {
            Assertion::verify(&text, &[aud.public()], method, path, now).map(|_| ())
        };
        assert_eq!(check(&control(), "GET", "/api/v1/gateway/watch", 1030), Ok(()));
        assert!(check(&gateway, "GET", "/api/v1/gateway/watch", 1030).is_err());
        assert!(check(&control(), "POST", "/api/v1/gateway/watch", 1030).is_err());
        assert!(check(&control(), "GET", "/api/v1/gateway/token", 1030).is_err());
        assert!(check(&control(), "GET", "/api/v1/gateway/watch", 1060).is_err());
    }

    #[test]
    fn an_envelope_signed_by_an_untrusted_key_is_named_as_such() {
        let envelope = Envelope::sign(&control(), Context::Policy, &"text").unwrap();
        assert_eq!(envelope.open::<String>(Context::Policy, &[control().public()]), Ok("text".into()));
        assert_eq!(envelope.open::<String>(Context::Policy, &[]), Err(SignedError::UnknownKey(control().public())));
    }
}
