//! Who has access to what is ours.

use serde::{Deserialize, Serialize};

use crate::id::OrganizationId;

/// What access rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccessKind {
    /// A grant of a channel.
    Grant,
    /// An admin connection.
    Admin,
    /// A shared server.
    Share,
}

api_types! {
    /// Somebody who has access, or who was offered or asked for it.
    AccessEntry {
        /// What it rests on.
        kind: AccessKind,
        /// Id of the grant, connection or share.
        id: String,
        /// The organization.
        organization_id: OrganizationId,
        /// Its name, `Self` for the own one.
        organization_name: String,
        /// To what, and how far, in words.
        what: String,
        /// Whether it is in force: approved or accepted, and not over.
        in_force: bool,
        /// When it ends by itself, Unix seconds.
        expires_at: Option<u64>,
        /// Creation, Unix seconds.
        created_at: u64,
    }
}
