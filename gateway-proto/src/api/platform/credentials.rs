//! Tokens of automation, invitations, passwords.

use serde::{Deserialize, Serialize};

use super::{Hidden, Role};
use crate::id::{ApiTokenId, InvitationId, UserId};

api_types! {
    /// A new token for automation: it acts as its user, within its scopes.
    #[serde(deny_unknown_fields)]
    CreateApiToken {
        /// What it is for, 1–120 characters.
        name: String,
        /// What it may do: the nouns of permissions.md (`read`, `audit`, `channel`, `grant`, `connection`, …).
        scopes: Vec<String>,
        /// Valid for so many seconds, 60 to 31,622,400 (a year); default 90 days.
        #[serde(default)]
        valid_secs: Option<u64>,
    }
    /// A token for automation.
    ApiToken {
        /// Id.
        id: ApiTokenId,
        /// The user it acts as.
        user_id: UserId,
        /// What it is for.
        name: String,
        /// What it may do.
        scopes: Vec<String>,
        /// When it ends, Unix seconds.
        expires_at: u64,
        /// When it was last used, to the hour, Unix seconds.
        last_used_at: Option<u64>,
        /// Creation, Unix seconds.
        created_at: u64,
    }
    /// A token, shown once.
    CreatedApiToken {
        /// Bearer token.
        token: Hidden,
        /// What is known of it from now on.
        api_token: ApiToken,
    }
    /// Invite a person into the own organization.
    #[serde(deny_unknown_fields)]
    CreateInvitation {
        /// E-mail address: the sign-in name.
        email: String,
        /// Name.
        name: String,
        /// Role; nobody gives a role above the own one.
        role: Role,
        /// Valid for so many seconds, 60 to 2,592,000; default 7 days.
        #[serde(default)]
        valid_secs: Option<u64>,
    }
    /// An invitation that waits.
    Invitation {
        /// Id.
        id: InvitationId,
        /// E-mail address.
        email: String,
        /// Name.
        name: String,
        /// Role.
        role: Role,
        /// When it ends, Unix seconds.
        expires_at: u64,
        /// Creation, Unix seconds.
        created_at: u64,
    }
    /// An invitation with its link and code, shown once.
    CreatedInvitation {
        /// For the invited person only: whoever has it chooses the password. The page of the control plane that says what to do with
        /// it, and behind the `#` the code and the pin of the control plane's TLS key, if gateways pin it, too. None: the control
        /// plane is of a version before links.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        link: Option<Hidden>,
        /// The code in the link, alone.
        code: Hidden,
        /// What is known of it from now on.
        invitation: Invitation,
    }
    /// Accept an invitation: the user is made, and signed in.
    #[serde(deny_unknown_fields)]
    AcceptInvitation {
        /// The code.
        code: Hidden,
        /// The own password, at least 12 characters.
        password: Hidden,
    }
    /// Change the own password; every other session and token of the user ends.
    #[serde(deny_unknown_fields)]
    ChangePassword {
        /// The password until now.
        current: Hidden,
        /// The new one, at least 12 characters.
        new: Hidden,
    }
}
