//! The name of a gateway inside a frame.

use std::fmt;

use data_encoding::HEXLOWER;

use crate::identity::{GatewayPublicKey, KeyError};

/// The 32 bytes of a gateway key as they stand in a frame.
///
/// Unlike [`GatewayPublicKey`] it is not proved to be a point of the curve: that would cost more than forwarding the frame, and
/// an address that is no key simply belongs to nobody.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayAddress([u8; 32]);

impl RelayAddress {
    /// Every 32 bytes are an address.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The wire form.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key, if the bytes are one. Costs a curve operation: compare addresses where that is enough.
    pub fn key(&self) -> Result<GatewayPublicKey, KeyError> {
        GatewayPublicKey::from_bytes(self.0)
    }
}

impl From<GatewayPublicKey> for RelayAddress {
    fn from(key: GatewayPublicKey) -> Self {
        Self(*key.as_bytes())
    }
}

impl PartialEq<GatewayPublicKey> for RelayAddress {
    fn eq(&self, key: &GatewayPublicKey) -> bool {
        self.0 == *key.as_bytes()
    }
}

impl fmt::Display for RelayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for RelayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0[..5]))
    }
}
