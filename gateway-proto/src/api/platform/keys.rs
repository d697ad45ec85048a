//! The keys and tokens of the platform itself.

use serde::{Deserialize, Serialize};

use super::Hidden;
pub use crate::succession::PolicyKeyState;

api_types! {
    /// A key that signs policies.
    PolicyKey {
        /// The public key, hex: what relays have in `control_keys`.
        key: String,
        /// What it does now.
        state: PolicyKeyState,
        /// When it begins to sign, or began, Unix seconds.
        signs_from: u64,
        /// Gateways that have not yet confirmed a policy since the keys that policies name changed last; of a retired key, nothing.
        gateways_behind: Option<u64>,
        /// Creation, Unix seconds.
        created_at: u64,
    }
    /// Make a new key that follows the one that signs.
    #[serde(deny_unknown_fields)]
    RotatePolicyKey {
        /// For how long it is made known before it signs, 60 s to 30 days; default: a day. Relays must have it by then.
        #[serde(default)]
        lead_secs: Option<u64>,
        /// It signs now, and no policy names the old one any more: for a key that became known to others.
        #[serde(default)]
        at_once: bool,
    }
    /// Make a new token of the platform.
    #[serde(deny_unknown_fields)]
    RotatePlatformToken {
        /// For how long the tokens before it still count, up to 30 days; default: a day.
        #[serde(default)]
        overlap_secs: Option<u64>,
    }
    /// A new token of the platform.
    RotatedPlatformToken {
        /// The token; shown once.
        token: Hidden,
        /// Until when those before it count, Unix seconds.
        old_until: u64,
    }
}

/// A token of the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlatformToken {
    /// The operator's.
    Operator,
    /// What creates an organization.
    Registration,
}

impl PlatformToken {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Registration => "registration",
        }
    }

    /// What its text begins with.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Operator => "gwo_",
            Self::Registration => "gwr_",
        }
    }
}
