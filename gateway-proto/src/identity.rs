//! Who a gateway is: an Ed25519 key made on the machine, and an X25519 Noise key bound to it.
//!
//! Private keys never leave the machine. Everything signed carries a [`Context`], so that a signature made for one
//! purpose is worth nothing for another.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// What a signature is for; the text is signed in front of the message, with a zero byte between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// A policy, by the control plane.
    Policy,
    /// A relay token, by the control plane.
    RelayToken,
    /// A request of a gateway to the control plane, by the gateway.
    Assertion,
    /// The answer to a relay's challenge, by the gateway.
    RelayAdmission,
    /// The Noise key of a gateway, by its gateway key.
    NoiseKey,
    /// A policy key, by the policy key before it.
    Succession,
    /// The keys that relays believe, by the control plane.
    RelayKeys,
}

impl Context {
    fn text(self) -> &'static [u8] {
        match self {
            Self::Policy => b"gateway/policy/1",
            Self::RelayToken => b"gateway/relay-token/1",
            Self::Assertion => b"gateway/assertion/1",
            Self::RelayAdmission => b"gateway/relay-admission/1",
            Self::NoiseKey => b"gateway/noise-key/1",
            Self::Succession => b"gateway/succession/1",
            Self::RelayKeys => b"gateway/relay-keys/1",
        }
    }

    fn message(self, message: &[u8]) -> Vec<u8> {
        [self.text(), &[0], message].concat()
    }
}

/// Why key material was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 64 lower-case hex digits.
    #[error("a key is 64 lower-case hex digits")]
    Format,
    /// The bytes are no Ed25519 public key, or a weak one.
    #[error("the bytes are not a usable Ed25519 public key")]
    Invalid,
    /// The signature does not fit the key, the context or the message.
    #[error("the signature does not fit the key and the message")]
    Signature,
}

/// The public half of a gateway's identity (also used for the control plane's policy key). 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayPublicKey([u8; 32]);

impl GatewayPublicKey {
    /// Takes 32 bytes that must be a point of the curve in its only form (RFC 8032 §5.1.3) and not of small order.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Invalid)?;
        if key.is_weak() || !is_canonical(&bytes) { Err(KeyError::Invalid) } else { Ok(Self(bytes)) }
    }

    /// The wire form.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first ten hex digits: the form for logs and tables.
    pub fn short(&self) -> String {
        HEXLOWER.encode(&self.0[..5])
    }

    /// Checks a signature made by [`GatewayKey::sign`] (strict: no malleable signatures).
    pub fn verify(&self, context: Context, message: &[u8], signature: &[u8; 64]) -> Result<(), KeyError> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| KeyError::Invalid)?;
        key.verify_strict(&context.message(message), &ed25519_dalek::Signature::from_bytes(signature))
            .map_err(|_| KeyError::Signature)
    }
}

/// Whether the coordinate is below 2^255 - 19: the library takes it modulo that, so one key would have two forms.
fn is_canonical(bytes: &[u8; 32]) -> bool {
    let [low, middle @ .., high] = bytes;
    *low < 0xed || high & 0x7f != 0x7f || middle.iter().any(|byte| *byte != 0xff)
}

impl fmt::Display for GatewayPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for GatewayPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for GatewayPublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(hex_bytes(text)?)
    }
}

/// The private half: signs, never leaves the machine, is wiped on drop and masked in `Debug`.
#[derive(Clone, ZeroizeOnDrop)]
pub struct GatewayKey(SigningKey);

impl GatewayKey {
    /// Makes the key from 32 random bytes (the seed of RFC 8032).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The seed, for the key file.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// PKCS#8 (RFC 8410) form, for making the tunnel's certificate.
    pub fn pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        const PREFIX: [u8; 16] =
            [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
        let mut der = Zeroizing::new(Vec::with_capacity(48));
        der.extend_from_slice(&PREFIX);
        der.extend_from_slice(self.seed().as_slice());
        der
    }

    /// The public half.
    pub fn public(&self) -> GatewayPublicKey {
        GatewayPublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs a message for one purpose.
    pub fn sign(&self, context: Context, message: &[u8]) -> [u8; 64] {
        self.0.sign(&context.message(message)).to_bytes()
    }
}

impl fmt::Debug for GatewayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GatewayKey({:?}, private half masked)", self.public())
    }
}

/// The X25519 static key of a gateway for Noise. 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NoisePublicKey([u8; 32]);

impl NoisePublicKey {
    /// Every 32 bytes are accepted; Noise itself refuses contributory failures by the MACs that follow.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The wire form.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for NoisePublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for NoisePublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0[..5]))
    }
}

impl FromStr for NoisePublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        hex_bytes(text).map(Self)
    }
}

/// The private half of the Noise key, wiped on drop and masked in `Debug`.
#[derive(Clone, ZeroizeOnDrop)]
pub struct NoiseKey([u8; 32]);

impl NoiseKey {
    /// Makes the key from 32 random bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The private bytes, for Noise and for the key file.
    pub fn private(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0)
    }

    /// The public half.
    pub fn public(&self) -> NoisePublicKey {
        let secret = x25519_dalek::StaticSecret::from(self.0);
        NoisePublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes())
    }
}

impl fmt::Debug for NoiseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoiseKey({:?}, private half masked)", self.public())
    }
}

/// A Noise key together with its gateway key's signature over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NoiseBinding {
    /// The Noise key.
    #[schema(value_type = String)]
    pub key: NoisePublicKey,
    /// `Ed25519("gateway/noise-key/1" ‖ 0 ‖ key)`, 128 hex digits.
    #[serde(with = "hex_signature")]
    #[schema(value_type = String)]
    pub signature: [u8; 64],
}

impl NoiseBinding {
    /// Binds a Noise key to a gateway key.
    pub fn new(gateway: &GatewayKey, noise: &NoiseKey) -> Self {
        let key = noise.public();
        Self { key, signature: gateway.sign(Context::NoiseKey, key.as_bytes()) }
    }

    /// Checks that `gateway` made this binding.
    pub fn verify(&self, gateway: &GatewayPublicKey) -> Result<(), KeyError> {
        gateway.verify(Context::NoiseKey, self.key.as_bytes(), &self.signature)
    }
}

fn hex_bytes(text: &str) -> Result<[u8; 32], KeyError> {
    let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| KeyError::Format)?;
    bytes.try_into().map_err(|_| KeyError::Format)
}

macro_rules! serde_as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

serde_as_text!(GatewayPublicKey, NoisePublicKey);

mod hex_signature {
    use data_encoding::HEXLOWER;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(signature: &[u8; 64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&HEXLOWER.encode(signature))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 64], D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| D::Error::custom("expected 128 hex digits"))?;
        bytes.try_into().map_err(|_| D::Error::custom("expected 128 hex digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> GatewayKey {
        GatewayKey::from_seed(&[1; 32])
    }

    #[test]
    fn a_signature_for_one_purpose_is_refused_for_another() {
        let signature = key().sign(Context::Policy, b"message");
        assert_eq!(key().public().verify(Context::Policy, b"message", &signature), Ok(()));
        assert_eq!(key().public().verify(Context::Assertion, b"message", &signature), Err(KeyError::Signature));
    }

    #[test]
    fn a_noise_key_bound_by_another_gateway_is_refused() {
        let binding = NoiseBinding::new(&key(), &NoiseKey::from_bytes([2; 32]));
        assert_eq!(binding.verify(&key().public()), Ok(()));
        let stranger = GatewayKey::from_seed(&[3; 32]).public();
        assert_eq!(binding.verify(&stranger), Err(KeyError::Signature));
    }

    #[test]
    fn weak_and_malformed_public_keys_are_refused() {
        assert_eq!(GatewayPublicKey::from_bytes([0; 32]), Err(KeyError::Invalid));
        assert_eq!(GatewayPublicKey::from_bytes([0xff; 32]), Err(KeyError::Invalid), "not the only form of its point");
        assert_eq!("00".parse::<GatewayPublicKey>(), Err(KeyError::Format));
    }

    #[test]
    fn private_keys_are_masked_in_debug_output() {
        let text = format!("{:?} {:?}", key(), NoiseKey::from_bytes([9; 32]));
        assert!(text.contains("masked") && !text.contains(&HEXLOWER.encode(&[9; 32])));
    }

    /// Vector of RFC 8032 §7.1 (test 1): the public key of a known seed.
    #[test]
    fn the_public_key_of_a_known_seed_is_the_one_of_rfc_8032() {
        let seed = hex_bytes("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let public = GatewayKey::from_seed(&seed).public().to_string();
        assert_eq!(public, "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    }
}
