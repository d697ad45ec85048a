//! What an admin connection is for, beyond read-only or read-write: the options its owner offered it with.

use serde::{Deserialize, Serialize};

use super::{ConnectionKind, LocalEnd};

/// The options of an admin connection. Each one widens what the owner's gateway lets through; none is on unless the
/// offer says so, and a policy that does not mention them has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct AdminScope {
    /// Messages and attachments, that is patient data, may be read.
    pub patient_data: bool,
    /// Read-write only: operations that make the engine connect or write somewhere the caller chooses.
    pub probes: bool,
    /// Read-write only: extensions, that is code, may be installed in the engine.
    pub extension_upload: bool,
}

impl AdminScope {
    /// Whether nothing is widened; such a scope is left out of the policy.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

impl LocalEnd {
    /// Whether this end has a local port and opens the streams; the other end takes them.
    pub fn opens_streams(&self) -> bool {
        match self {
            Self::Sender { .. } | Self::AdminUser { .. } => true,
            Self::Listener { .. } | Self::AdminOwner => false,
        }
    }

    /// Whether this end can be one of a connection of `kind`.
    pub fn fits(&self, kind: ConnectionKind) -> bool {
        let admin = match self {
            Self::Sender { .. } | Self::Listener { .. } => false,
            Self::AdminUser { .. } | Self::AdminOwner => true,
        };
        admin == kind.is_admin()
    }
}

impl ConnectionKind {
    /// Whether it carries the engine's admin API.
    pub fn is_admin(self) -> bool {
        match self {
            Self::P2p => false,
            Self::AdminReadOnly | Self::AdminReadWrite => true,
        }
    }
}
