//! Tenants with several organizations.

use serde::{Deserialize, Serialize};

use super::{CreatedInvitation, Organization};

api_types! {
    /// A new organization of the own tenant; its owner is invited.
    #[serde(deny_unknown_fields)]
    CreateSubOrganization {
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
    }
    /// A new organization of the own tenant.
    CreatedSubOrganization {
        /// The organization.
        organization: Organization,
        /// The invitation of its owner.
        invitation: CreatedInvitation,
    }
}
