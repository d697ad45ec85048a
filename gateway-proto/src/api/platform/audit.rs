//! The audit log of an organization, and that of the platform.

use serde::{Deserialize, Serialize};

use crate::id::AuditId;

/// Which entries of an audit log come first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditOrder {
    /// The newest: to look at it.
    #[default]
    Newest,
    /// The oldest: to verify or export it, however long it is.
    Oldest,
}

api_types! {
    /// Where the audit log begins.
    AuditAnchor {
        /// Position of the newest entry that was removed; 0: none was.
        sequence: u64,
        /// Its hash, which the oldest entry that is left follows; empty when none was removed.
        hash: String,
        /// When it was removed, Unix seconds.
        removed_at: Option<u64>,
    }
    /// An entry of the audit log.
    AuditEntry {
        /// Id.
        id: AuditId,
        /// Position in the organization's chain, from 1 without gaps.
        sequence: u64,
        /// When, Unix seconds.
        at: u64,
        /// Who: a user's e-mail address, `gateway srv_…`, or `system`.
        actor: String,
        /// What: noun and verb, for example `grant.approve`.
        act: String,
        /// On what: an id.
        object: String,
        /// Values that matter, in words.
        detail: String,
        /// The request it was made by; empty: none, or not known.
        #[serde(default)]
        request_id: String,
        /// Hash of this entry and the one before, hex.
        hash: String,
    }
}
