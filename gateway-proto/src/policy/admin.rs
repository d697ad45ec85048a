//! What an admin connection is for, beyond read-only or read-write: the options its owner offered it with.

use serde::{Deserialize, Serialize};

use super::{ConnectionEntry, ConnectionKind, LocalEnd};
use crate::admin::opening::ActingUser;

/// People at one admin connection at most.
pub const MAX_PEOPLE: usize = 100;

/// The options of an admin connection. All but the last widen what the owner's gateway lets through; none is on unless the
/// offer says so, and a policy that does not mention them has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct AdminScope {
    /// Messages, attachments and what events tell of them, that is patient data, may be read.
    pub patient_data: bool,
    /// Read-write only: operations that make the engine connect or write somewhere the caller chooses.
    pub probes: bool,
    /// Read-write only: extensions, that is code, may be installed in the engine.
    pub extension_upload: bool,
    /// Nobody gets through who has not named himself at the platform ([`AdminPerson`]).
    pub named_people: bool,
}

/// A person of the partner who named himself at the platform as the one behind an acting user, for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AdminPerson {
    /// Sign-in name at the platform.
    pub person: String,
    /// The acting user, as the partner's gateway names it.
    pub acting: ActingUser,
    /// Until then, Unix seconds.
    pub until: u64,
}

impl ConnectionEntry {
    /// Who is behind an acting user now, as the platform says.
    pub fn person(&self, acting: &ActingUser, now: u64) -> Option<&str> {
        let found = self.people.iter().find(|person| person.acting == *acting && now < person.until);
        found.map(|person| person.person.as_str())
    }
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

    /// The engine's channel that this end is for; none: not a listener, or not known.
    pub fn engine_channel(&self) -> Option<&str> {
        match self {
            Self::Listener { engine_channel, .. } => engine_channel.as_deref(),
            Self::Sender { .. } | Self::AdminUser { .. } | Self::AdminOwner => None,
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
