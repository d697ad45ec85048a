//! What the files of the state directory hold.

use std::collections::BTreeMap;

use gateway_net::tls::{PinError, ServerTrust};
use gateway_proto::{
    id::ConnectionId,
    identity::{GatewayKey, GatewayPublicKey, NoiseKey},
    policy::Secret,
};
use serde::{Deserialize, Serialize};

/// `keys.json`: the seeds of the two private keys.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyFile {
    gateway_seed: Secret,
    noise_key: Secret,
}

impl KeyFile {
    pub(super) fn from_random(gateway_seed: [u8; 32], noise_key: [u8; 32]) -> Self {
        Self { gateway_seed: Secret::from_bytes(gateway_seed), noise_key: Secret::from_bytes(noise_key) }
    }

    pub(super) fn keys(&self) -> (GatewayKey, NoiseKey) {
        (GatewayKey::from_seed(self.gateway_seed.expose()), NoiseKey::from_bytes(*self.noise_key.expose()))
    }
}

/// `enrollment.json`: where we belong and whom we trust. Unknown fields are ignored: a newer version may have written it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrollment {
    /// Base URL of the control plane.
    pub control: String,
    /// SHA-256 of its TLS public key, hex; none: the public web PKI vouches for it.
    pub pin: Option<String>,
    /// Its policy key as the enrolment code named it.
    pub policy_key: GatewayPublicKey,
    /// The policy keys to trust now: the signer of the policy in force, and those that policy names.
    pub trusted_keys: Vec<GatewayPublicKey>,
    /// The server this gateway belongs to.
    pub server_id: String,
    /// Its name.
    pub server_name: String,
    /// Its organization.
    pub organization_name: String,
    /// When it was enrolled, Unix seconds.
    pub enrolled_at: u64,
}

impl Enrollment {
    /// How the control plane's TLS key is known.
    pub fn trust(&self) -> Result<ServerTrust, PinError> {
        trust(self.pin.as_deref())
    }

    /// The key that names the control plane in our assertions: the one of the code, or after its retirement one that the
    /// policy in force names.
    pub fn audience(&self) -> GatewayPublicKey {
        let is_retired = !self.trusted_keys.contains(&self.policy_key);
        self.trusted_keys.last().copied().filter(|_| is_retired).unwrap_or(self.policy_key)
    }
}

/// A pinned TLS key, or the public web PKI for none.
pub(crate) fn trust(pin: Option<&str>) -> Result<ServerTrust, PinError> {
    pin.map_or(Ok(ServerTrust::WebPki), |pin| pin.parse().map(ServerTrust::Pin))
}

/// `contact.json`: what time alone may take away from us is counted from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Contact {
    /// When the control plane last confirmed the policy in force, Unix seconds.
    pub confirmed_at: u64,
    /// The clock never reads below this, Unix seconds.
    pub clock_floor: u64,
    /// The control plane told us that we were removed: the policy on disk is not in force.
    #[serde(default)]
    pub removed: bool,
}

/// `ports.json`
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ports {
    pub(super) ports: BTreeMap<ConnectionId, u16>,
    /// Those that were asked for are among them; earlier builds kept only what they had picked.
    #[serde(default)]
    pub(super) with_asked: bool,
}

/// `offers.json`
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Offers {
    pub(super) generation: u64,
}
