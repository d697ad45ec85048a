//! Organizations as their own users see them, those users, and their sessions.

use serde::{Deserialize, Serialize};

use super::Hidden;
use crate::id::{OrganizationId, TenantId, UserId};

/// Role of a user; each includes the ones after it, except the auditor, who only reads (audit included).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    Owner,
    /// Users below owner, servers, peering, grants, connections.
    Admin,
    /// Activates, pauses and resumes connections, publishes channels, uses admin connections.
    Operator,
    /// Reads.
    Viewer,
    /// Reads, the audit log included.
    Auditor,
}

api_types! {
    /// A new organization and its owner.
    #[serde(deny_unknown_fields)]
    CreateOrganization {
        /// Name, 1–120 characters, unique among the organizations of the platform.
        name: String,
        /// Description for the directory, up to 500 characters.
        #[serde(default)]
        description: String,
        /// Whether strangers find it in the directory.
        #[serde(default)]
        discoverable: bool,
        /// E-mail address of the owner: the sign-in name.
        owner_email: String,
        /// Name of the owner.
        owner_name: String,
        /// Password of the owner, at least 12 characters.
        owner_password: Hidden,
        /// The registration token, where registration is not open.
        #[serde(default)]
        registration_token: Option<Hidden>,
    }
    /// Sign in.
    #[serde(deny_unknown_fields)]
    Login {
        /// E-mail address.
        email: String,
        /// Name or id of the organization; left out: the oldest user with this address is meant.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        organization: Option<String>,
        /// Password.
        password: Hidden,
        /// The code of now, or a recovery code, where the user has a second factor.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<Hidden>,
    }
    /// A session.
    Session {
        /// Bearer token; shown once.
        token: Hidden,
        /// When it ends, Unix seconds.
        expires_at: u64,
        /// The signed-in user.
        user: User,
        /// The user's organization.
        organization: Organization,
    }
    /// Who asks.
    Me {
        /// The user.
        user: User,
        /// The user's organization.
        organization: Organization,
    }
    /// An organization, seen by its own users.
    Organization {
        /// Id.
        id: OrganizationId,
        /// Tenant.
        tenant_id: TenantId,
        /// Name.
        name: String,
        /// Description for the directory.
        description: String,
        /// Whether strangers find it.
        discoverable: bool,
        /// Whether admin connections to its servers need the approval of a second owner or admin.
        #[serde(default)]
        two_person_admin: bool,
        /// Creation, Unix seconds.
        created_at: u64,
    }
    /// Changes to the own organization; what is left out stays.
    #[serde(deny_unknown_fields)]
    UpdateOrganization {
        /// New name.
        #[serde(default)]
        name: Option<String>,
        /// New description.
        #[serde(default)]
        description: Option<String>,
        /// New discoverable switch.
        #[serde(default)]
        discoverable: Option<bool>,
        /// Whether admin connections to own servers need the approval of a second owner or admin; of the organization
        /// that is the tenant itself: those to servers of the whole tenant. Only an owner switches it off.
        #[serde(default)]
        two_person_admin: Option<bool>,
    }
    /// A user.
    User {
        /// Id.
        id: UserId,
        /// E-mail address.
        email: String,
        /// Name.
        name: String,
        /// Role.
        role: Role,
        /// Creation, Unix seconds.
        created_at: u64,
    }
    /// A new user of the own organization.
    #[serde(deny_unknown_fields)]
    CreateUser {
        /// E-mail address.
        email: String,
        /// Name.
        name: String,
        /// Role; nobody gives a role above the own one.
        role: Role,
        /// First password, at least 12 characters.
        password: Hidden,
    }
    /// Another role for a user of the own organization. What the new role may not keep ends with it: enrolment codes and
    /// invitations that the user made, device tokens issued for the user, API tokens with scopes that are lost.
    #[serde(deny_unknown_fields)]
    UpdateUser {
        /// The new role; nobody gives a role above the own one, and the last owner stays one.
        role: Role,
    }
}
