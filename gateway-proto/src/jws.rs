//! Compact JSON web signatures (RFC 7515) with Ed25519 (RFC 8037), and with nothing else.
//!
//! There is one algorithm, so nothing is chosen by what a stranger sends: a header that names another one, another type, or
//! holds anything beyond algorithm, type and key id is refused before a signature is looked at. The keys are of their own
//! kind: a [`JwsKey`] signs no policy, and the policy key signs no token.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// The longest text that is looked at, in bytes.
pub const MAX_JWS_LEN: usize = 4096;
/// The name of the one algorithm.
const ALGORITHM: &str = "EdDSA";

/// Why a signed text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// Not three parts of base64url, too long, or not the JSON that is expected.
    #[error("the token is malformed")]
    Malformed,
    /// Another algorithm than EdDSA, or none.
    #[error("the token is not signed with EdDSA")]
    Algorithm,
    /// Made for something else.
    #[error("the token is of another type")]
    Type,
    /// Signed by a key that is not known here, or not any more.
    #[error("the token is signed by a key that is not known here")]
    UnknownKey,
    /// The signature is wrong.
    #[error("the signature of the token is wrong")]
    BadSignature,
}

/// The bytes are no Ed25519 public key, or a weak one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected the 32 bytes of an Ed25519 public key in base64url (the `x` of its JWK)")]
pub struct JwsKeyError;

/// The public half of a key that signs tokens, or of a device's own key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct JwsPublicKey([u8; 32]);

impl JwsPublicKey {
    /// Takes 32 bytes that must be a point of the curve and not of small order.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, JwsKeyError> {
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| JwsKeyError)?;
        if key.is_weak() { Err(JwsKeyError) } else { Ok(Self(bytes)) }
    }

    /// Reads the `x` of a JWK.
    pub fn from_x(text: &str) -> Result<Self, JwsKeyError> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| JwsKeyError)?;
        Self::from_bytes(bytes.try_into().map_err(|_| JwsKeyError)?)
    }

    /// The `x` of its JWK.
    pub fn x(&self) -> String {
        BASE64URL_NOPAD.encode(&self.0)
    }

    /// The thumbprint of its JWK (RFC 7638, SHA-256): its id.
    pub fn thumbprint(&self) -> String {
        let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, self.x());
        BASE64URL_NOPAD.encode(&Sha256::digest(canonical))
    }

    /// The form in which it is published.
    pub fn jwk(&self) -> Jwk {
        Jwk {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            x: self.x(),
            kid: self.thumbprint(),
            alg: ALGORITHM.to_owned(),
            r#use: "sig".to_owned(),
        }
    }

    fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature)).is_ok())
    }
}

impl fmt::Debug for JwsPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.x())
    }
}

/// The private half: wiped on drop, masked in `Debug`.
#[derive(Clone, ZeroizeOnDrop)]
pub struct JwsKey(SigningKey);

impl JwsKey {
    /// Makes the key from 32 random bytes (the seed of RFC 8032).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The seed, to be kept sealed.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    pub fn public(&self) -> JwsPublicKey {
        JwsPublicKey(self.0.verifying_key().to_bytes())
    }
}

impl fmt::Debug for JwsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwsKey({:?}, private half masked)", self.public())
    }
}

/// A published key (RFC 7517, RFC 8037).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Jwk {
    /// `OKP`.
    pub kty: String,
    /// `Ed25519`.
    pub crv: String,
    /// The public key, base64url.
    pub x: String,
    /// Its id: the thumbprint of RFC 7638.
    pub kid: String,
    /// `EdDSA`.
    pub alg: String,
    /// `sig`.
    pub r#use: String,
}

/// A set of published keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JwkSet {
    /// The keys.
    pub keys: Vec<Jwk>,
}

impl JwkSet {
    /// The keys of the set that can be used here; what is of another kind is left out.
    pub fn usable(&self) -> Vec<JwsPublicKey> {
        let ours = self.keys.iter().filter(|key| key.kty == "OKP" && key.crv == "Ed25519");
        ours.filter_map(|key| JwsPublicKey::from_x(&key.x).ok()).collect()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
}

/// A header that brings its key along: of a proof, whose key is compared with what a token names.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyHeader {
    alg: String,
    typ: String,
    jwk: BareJwk,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BareJwk {
    crv: String,
    kty: String,
    x: String,
}

/// Signs the JSON form of `claims` as the type `typ`.
pub fn sign<T: Serialize>(key: &JwsKey, typ: &str, claims: &T) -> Result<String, serde_json::Error> {
    let header = Header { alg: ALGORITHM.to_owned(), typ: typ.to_owned(), kid: key.public().thumbprint() };
    seal(key, &header, claims)
}

/// The same, with the public key itself in the header.
pub fn sign_with_key<T: Serialize>(key: &JwsKey, typ: &str, claims: &T) -> Result<String, serde_json::Error> {
    let jwk = BareJwk { crv: "Ed25519".to_owned(), kty: "OKP".to_owned(), x: key.public().x() };
    seal(key, &KeyHeader { alg: ALGORITHM.to_owned(), typ: typ.to_owned(), jwk }, claims)
}

/// Verifies a text of the type `typ` against the known keys, and only then parses its claims.
pub fn open<T: DeserializeOwned>(text: &str, typ: &str, keys: &[JwsPublicKey]) -> Result<T, JwsError> {
    let parts = split(text)?;
    let header: Header = parts.header(typ)?;
    let key = keys.iter().find(|key| key.thumbprint() == header.kid).ok_or(JwsError::UnknownKey)?;
    parts.claims(key)
}

/// Verifies a text of the type `typ` with the key in its header, which must have this thumbprint.
pub fn open_with_key<T: DeserializeOwned>(text: &str, typ: &str, thumbprint: &str) -> Result<T, JwsError> {
    let parts = split(text)?;
    let header: KeyHeader = parts.header(typ)?;
    if header.jwk.kty != "OKP" || header.jwk.crv != "Ed25519" {
        return Err(JwsError::Algorithm);
    }
    let key = JwsPublicKey::from_x(&header.jwk.x).map_err(|_| JwsError::Malformed)?;
    if key.thumbprint() != thumbprint {
        return Err(JwsError::UnknownKey);
    }
    parts.claims(&key)
}

fn seal(key: &JwsKey, header: &impl Serialize, claims: &impl Serialize) -> Result<String, serde_json::Error> {
    let encode = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
    let message = format!("{}.{}", encode(&serde_json::to_vec(header)?), encode(&serde_json::to_vec(claims)?));
    let signature = key.0.sign(message.as_bytes()).to_bytes();
    Ok(format!("{message}.{}", encode(&signature)))
}

/// A text in its parts, nothing verified.
struct Parts<'a> {
    message: &'a str,
    header: Vec<u8>,
    claims: Vec<u8>,
    signature: Vec<u8>,
}

fn split(text: &str) -> Result<Parts<'_>, JwsError> {
    if text.len() > MAX_JWS_LEN {
        return Err(JwsError::Malformed);
    }
    let (message, signature) = text.rsplit_once('.').ok_or(JwsError::Malformed)?;
    let (header, claims) = message.split_once('.').ok_or(JwsError::Malformed)?;
    let decode = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| JwsError::Malformed);
    Ok(Parts { message, header: decode(header)?, claims: decode(claims)?, signature: decode(signature)? })
}

impl Parts<'_> {
    /// The header, when it is of our algorithm and of this type.
    fn header<H: DeserializeOwned>(&self, typ: &str) -> Result<H, JwsError> {
        #[derive(Deserialize)]
        struct Said {
            alg: Option<String>,
            typ: Option<String>,
        }
        let said: Said = serde_json::from_slice(&self.header).map_err(|_| JwsError::Malformed)?;
        if said.alg.as_deref() != Some(ALGORITHM) {
            return Err(JwsError::Algorithm);
        }
        if said.typ.as_deref() != Some(typ) {
            return Err(JwsError::Type);
        }
        serde_json::from_slice(&self.header).map_err(|_| JwsError::Malformed)
    }

    fn claims<T: DeserializeOwned>(&self, key: &JwsPublicKey) -> Result<T, JwsError> {
        let signature = self.signature.as_slice().try_into().map_err(|_| JwsError::BadSignature)?;
        if !key.verify(self.message.as_bytes(), signature) {
            return Err(JwsError::BadSignature);
        }
        serde_json::from_slice(&self.claims).map_err(|_| JwsError::Malformed)
    }
}

#[cfg(test)]
mod tests;
