//! What an agent is told of its pair.

use std::fmt;

use zeroize::Zeroizing;

use crate::signal::SignalKeys;

/// What an agent needs to know of its pair; everything comes from the policy and the key files.
#[derive(Clone)]
pub struct PathConfig {
    /// Our gateway key.
    pub local_key: [u8; 32],
    /// The peer's gateway key.
    pub remote_key: [u8; 32],
    /// Our Noise key, private half.
    pub noise_private: Zeroizing<[u8; 32]>,
    /// The peer's Noise key.
    pub remote_noise: [u8; 32],
    /// The secret of the pair.
    pub pair_secret: Zeroizing<[u8; 32]>,
    /// Whether loopback addresses are candidates: for demonstrations on one machine.
    pub allow_loopback: bool,
    /// Whether direct paths may be used at all.
    pub allow_direct: bool,
    /// Whether ports behind hard NATs may be guessed, when the peer allows it too.
    pub allow_guessing: bool,
}

impl fmt::Debug for PathConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathConfig")
            .field("allow_loopback", &self.allow_loopback)
            .field("allow_direct", &self.allow_direct)
            .field("allow_guessing", &self.allow_guessing)
            .finish_non_exhaustive()
    }
}

pub(super) fn signal_keys(config: PathConfig) -> SignalKeys {
    SignalKeys {
        local_key: config.local_key,
        remote_key: config.remote_key,
        noise_private: config.noise_private,
        remote_noise: config.remote_noise,
        pair_secret: config.pair_secret,
    }
}
