//! People and automation with the control plane: REST + JSON below `/api/v1`.
//!
//! Who asks is told by `Authorization: Bearer <session token>`. Lists answer [`super::Page`]; errors answer
//! [`super::Problem`].
//!
//! | method and path | body → answer |
//! |---|---|
//! | `POST /organizations` | [`CreateOrganization`] → [`Session`] (needs the registration token unless registration is open) |
//! | `POST /sessions` · `DELETE /sessions/current` | [`Login`] → [`Session`] · sign out → nothing, or [`SignedOut`] |
//! | `GET /me` | [`Me`] |
//! | `GET /organization` · `PATCH /organization` | own [`Organization`] · [`UpdateOrganization`] |
//! | `DELETE /organization` | the end of it |
//! | `GET /tenant/organizations` · `POST` · `GET …/{id}` · `DELETE …/{id}` · `POST …/{id}/invitations` | [`Organization`] · [`CreateSubOrganization`] → [`CreatedSubOrganization`] · [`CreateInvitation`] |
//! | `GET /users` · `POST /users` · `GET /users/{id}` · `PATCH …/{id}` · `DELETE …/{id}` | [`User`] · [`CreateUser`] · [`UpdateUser`] |
//! | `GET /invitations` · `POST` · `DELETE …/{id}` · `POST …/accept` | [`Invitation`] · [`CreateInvitation`] → [`CreatedInvitation`] · [`AcceptInvitation`] → [`Session`] |
//! | `GET /api-tokens` · `POST` · `DELETE …/{id}` | [`ApiToken`] · [`CreateApiToken`] → [`CreatedApiToken`] |
//! | `POST /me/password` | [`ChangePassword`] |
//! | `GET /me/totp` · `POST` · `POST …/confirm` · `POST …/disable` · `DELETE /users/{id}/totp` | [`TotpStatus`] · [`EnrollTotp`] → [`TotpEnrollment`] · [`ConfirmTotp`] → [`ConfirmedTotp`] · [`DisableTotp`] |
//! | `GET /oidc/providers` · `POST /oidc/start` · `GET /oidc/callback/{provider}` · `POST /oidc/sessions` | [`OidcProvider`] · [`StartOidc`] → [`StartedOidc`] · where the provider sends the browser · [`FinishOidc`] → [`Session`] |
//! | `GET /me/sign-in` · `GET /users/{id}/identities` · `DELETE …/{identity}` | [`SignInWays`] · [`Identity`] |
//! | `GET /servers` · `POST /servers` · `GET /servers/{id}` · `DELETE /servers/{id}` | [`Server`] · [`CreateServer`] |
//! | `GET /servers/{id}/enrollment-codes` · `POST` · `DELETE …/{code}` | [`OpenEnrollmentCode`] · [`CreateEnrollmentCode`] → [`CreatedEnrollmentCode`] |
//! | `GET /directory?search=` · `GET …/{id}` | [`DirectoryEntry`] |
//! | `GET /peering-requests` · `POST` · `POST …/{id}/{accept,decline,withdraw}` | [`PeeringRequest`] · [`CreatePeeringRequest`] |
//! | `GET /agreements` · `GET …/{id}` · `POST …/{id}/{suspend,resume,end}` | [`Agreement`] |
//! | `GET /channels?direction=` · `POST` · `GET …/{id}` · `PATCH …/{id}` · `DELETE …/{id}` | [`Channel`] · [`CreateChannel`] · [`UpdateChannel`] |
//! | `GET /endpoints?agreement=` | [`PublishedEndpoint`] of the agreement's peer |
//! | `GET /grants` · `POST` · `GET …/{id}` · `POST …/{id}/{approve,deny,withdraw,revoke,surrender}` | [`Grant`] · [`CreateGrant`] · [`ApproveGrant`] |
//! | `GET /connections?ended=true` · `GET …/{id}` · `POST …/{id}/{activate,pause,resume,retry,terminate}` | [`ConnectionPage`] · [`Connection`] |
//! | `POST /connections/{id}/rotate-secret` | [`RotateSecret`] → [`Connection`] |
//! | `POST /admin-connections` · `POST /connections/{id}/{approve,accept,decline,enter,leave}` | [`OfferAdmin`] · [`AcceptAdmin`] · [`EnterAdmin`] → [`Connection`] |
//! | `GET /server-shares` · `POST` · `GET …/{id}` · `POST …/{id}/{open,end}` | [`ServerShare`] · [`CreateShare`] · [`OpenShare`] → [`Connection`] |
//! | `GET /relays` · `POST` · `GET …/{id}` · `PATCH …/{id}` · `DELETE …/{id}` | [`Relay`] · [`CreateRelay`] · [`UpdateRelay`] (operator of the platform) |
//! | `GET /channels/{id}/access` · `GET /servers/{id}/access` | [`AccessEntry`]: who has access |
//! | `GET /organization/usage` · `GET /tiers` | [`Usage`] · [`Tier`] |
//! | `PUT /tiers/{name}` · `GET /organizations` · `PUT /organizations/{id}/tier` | [`PutTier`] · [`PlatformOrganization`] · [`AssignTier`] (operator of the platform) |
//! | `GET /devices` · `POST` · `GET …/{id}` · `PATCH …/{id}` · `DELETE …/{id}` | [`Device`] · [`CreateDevice`] · [`UpdateDevice`] |
//! | `GET /system-devices` · `POST` · `DELETE …/{id}` | [`Device`] · [`CreateSystemDevice`] (operator of the platform) |
//! | `GET /devices/{id}/tokens` · `POST` · `GET /device-tokens` · `DELETE …/{id}` | [`DeviceToken`] · [`CreateDeviceToken`] → [`CreatedDeviceToken`] |
//! | `POST /device-tokens/introspect` | [`IntrospectToken`] → [`Introspection`] (user, or gateway) |
//! | `GET /token-keys` · `POST /token-keys/rotate` · `GET /token-terms` · `PUT` | [`TokenKey`] · [`RotateTokenKeys`] · [`TokenTerms`] (operator of the platform) |
//! | `GET /policy-keys` · `POST /policy-keys/rotate` · `DELETE …/{key}` | [`PolicyKey`] · [`RotatePolicyKey`] (operator of the platform) |
//! | `POST /platform-tokens/{operator,registration}/rotate` | [`RotatePlatformToken`] → [`RotatedPlatformToken`] (operator of the platform) |
//! | `GET /behaviors` · `PUT …/{name}` · `DELETE …/{name}` | [`Behavior`] · [`PutBehavior`] (operator of the platform) |
//! | `GET /links` · `POST` · `GET …/{id}` · `DELETE …/{id}` · `GET /linkable-devices` | [`Link`] · [`CreateLink`] · [`LinkableDevice`] |
//! | `GET /executions` · `GET /organizations/{id}/executions` | [`Executions`]: metering (the second: operator of the platform) |
//! | `GET /audit` · `GET /audit/anchor` | [`AuditEntry`], in an [`AuditOrder`] · [`AuditAnchor`], where the log begins |
//! | `GET /platform/audit` · `GET /platform/audit/anchor` | the same of the platform (operator of the platform) |

use serde::{Deserialize, Serialize};

// Requests refuse unknown fields, so that a typo is an error; answers may grow, so that an older program reads a newer one.
macro_rules! api_types {
    ($($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident : $ty:ty),* $(,)? })*) => {$(
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
        $(#[$meta])*
        pub struct $name { $($(#[$fmeta])* pub $field: $ty),* }
    )*};
}

mod access;
mod accounts;
mod admin;
mod audit;
mod channels;
mod connections;
mod credentials;
mod devices;
mod gateway_audit;
mod grants;
mod keys;
mod links;
mod oidc;
mod peering;
mod relays;
mod servers;
mod tenants;
mod tiers;
mod totp;

pub use access::*;
pub use accounts::*;
pub use admin::*;
pub use audit::*;
pub use channels::*;
pub use connections::*;
pub use credentials::*;
pub use devices::*;
pub use gateway_audit::*;
pub use grants::*;
pub use keys::*;
pub use links::*;
pub use oidc::*;
pub use peering::*;
pub use relays::*;
pub use servers::*;
pub use tenants::*;
pub use tiers::*;
pub use totp::*;

/// A text that must not show in logs: masked in `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, zeroize::ZeroizeOnDrop)]
#[serde(transparent)]
pub struct Hidden(pub String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(masked)")
    }
}
