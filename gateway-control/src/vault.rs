//! Seals what must not be readable in the database: with the storage key, a file of the data directory that no backup of the
//! database alone holds. XChaCha20-Poly1305; what a text is for is part of the seal, so that one is never taken for another.

use std::fmt;

use chacha20poly1305::{
    Key, KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use data_encoding::{BASE64, HEXLOWER};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

const NONCE: usize = 24;

/// The storage key.
pub struct Vault {
    cipher: XChaCha20Poly1305,
    fingerprint: String,
}

/// The text was sealed with another key or for something else, or was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed value of the database cannot be opened with the storage key")]
pub struct UnsealError;

impl Vault {
    /// With a key of 32 random bytes.
    pub fn new(mut key: [u8; 32]) -> Self {
        let fingerprint = Sha256::new_with_prefix("gateway/storage-key/1\0").chain_update(key).finalize();
        let cipher = XChaCha20Poly1305::new(Key::from_slice(&key));
        key.zeroize();
        Self { cipher, fingerprint: HEXLOWER.encode(&fingerprint[..16]) }
    }

    /// Tells this key from others, and nothing else about it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Seals bytes for one purpose.
    pub fn seal(&self, purpose: &str, secret: &[u8]) -> Result<String, UnsealError> {
        let nonce: [u8; NONCE] = gateway_net::random();
        let payload = Payload { msg: secret, aad: purpose.as_bytes() };
        let sealed = self.cipher.encrypt(XNonce::from_slice(&nonce), payload).map_err(|_| UnsealError)?;
        Ok(BASE64.encode(&[&nonce[..], &sealed].concat()))
    }

    /// Opens what was sealed for this purpose.
    pub fn open(&self, purpose: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, UnsealError> {
        let bytes = BASE64.decode(sealed.as_bytes()).map_err(|_| UnsealError)?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE).ok_or(UnsealError)?;
        let payload = Payload { msg: sealed, aad: purpose.as_bytes() };
        self.cipher.decrypt(XNonce::from_slice(nonce), payload).map(Zeroizing::new).map_err(|_| UnsealError)
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vault({}, key masked)", self.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_its_key_and_for_its_purpose_only() {
        let vault = Vault::new([1; 32]);
        let sealed = vault.seal("a", b"secret").unwrap();
        assert!(!sealed.contains("secret"));
        assert_ne!(vault.seal("a", b"secret").unwrap(), sealed);
        assert_eq!(vault.open("a", &sealed).unwrap().as_slice(), b"secret");
        assert_eq!(vault.open("b", &sealed), Err(UnsealError));
        assert_eq!(Vault::new([2; 32]).open("a", &sealed), Err(UnsealError));
        assert_eq!(vault.open("a", "AAAA"), Err(UnsealError));
        let mut bytes = BASE64.decode(sealed.as_bytes()).unwrap();
        bytes[30] ^= 1;
        assert_eq!(vault.open("a", &BASE64.encode(&bytes)), Err(UnsealError));
    }
}
