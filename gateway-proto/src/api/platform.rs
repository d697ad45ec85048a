//! People and automation with the control plane: REST + JSON below `/api/v1`.
//!
//! Who asks is told by `Authorization: Bearer <session token>`. Lists answer [`super::Page`]; errors answer
//! [`super::Problem`].
//!
//! | method and path | body → answer |
//! |---|---|
//! | `POST /organizations` | [`CreateOrganization`] → [`Session`] (needs the registration token unless registration is open) |
//! | `POST /sessions` · `DELETE /sessions/current` | [`Login`] → [`Session`] · sign out |
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
//! | `GET /directory?search=` | [`DirectoryEntry`] |
//! | `GET /peering-requests` · `POST` · `POST …/{id}/{accept,decline,withdraw}` | [`PeeringRequest`] · [`CreatePeeringRequest`] |
//! | `GET /agreements` · `GET …/{id}` · `POST …/{id}/{suspend,resume,end}` | [`Agreement`] |
//! | `GET /channels` · `POST` · `GET …/{id}` · `PATCH …/{id}` · `DELETE …/{id}` | [`Channel`] · [`CreateChannel`] · [`UpdateChannel`] |
//! | `GET /endpoints?agreement=` | [`PublishedEndpoint`] of the agreement's peer |
//! | `GET /grants` · `POST` · `GET …/{id}` · `POST …/{id}/{approve,deny,withdraw,revoke,surrender}` | [`Grant`] · [`CreateGrant`] · [`ApproveGrant`] |
//! | `GET /connections?ended=true` · `GET …/{id}` · `POST …/{id}/{activate,pause,resume,retry,terminate}` | [`Connection`] |
//! | `POST /admin-connections` · `POST /connections/{id}/{approve,accept,decline,enter,leave}` | [`OfferAdmin`] · [`AcceptAdmin`] · [`EnterAdmin`] → [`Connection`] |
//! | `GET /server-shares` · `POST` · `GET …/{id}` · `POST …/{id}/{open,end}` | [`ServerShare`] · [`CreateShare`] · [`OpenShare`] → [`Connection`] |
//! | `GET /relays` · `POST` · `PATCH …/{id}` · `DELETE …/{id}` | [`Relay`] · [`CreateRelay`] · [`UpdateRelay`] (operator of the platform) |
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

use super::gateway::ConnectionReport;
use crate::{
    balance::{DeliveryAlarm, Difference},
    id::{
        AgreementId, AuditId, ChannelId, ConnectionId, EnrollmentCodeId, GrantId, OrganizationId, PeeringRequestId,
        RelayId, ServerId, TenantId, UserId,
    },
    identity::GatewayPublicKey,
    peering::{AgreementStatus, ConnectionStatus, GrantStatus, PeeringStatus},
    policy::ConnectionKind,
};

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

// Requests refuse unknown fields, so that a typo is an error; answers may grow, so that an older program reads a newer one.
macro_rules! api_types {
    ($($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident : $ty:ty),* $(,)? })*) => {$(
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
        $(#[$meta])*
        pub struct $name { $($(#[$fmeta])* pub $field: $ty),* }
    )*};
}

mod access;
mod admin;
mod credentials;
mod devices;
mod gateway_audit;
mod keys;
mod links;
mod oidc;
mod tenants;
mod tiers;
mod totp;

pub use access::*;
pub use admin::*;
pub use credentials::*;
pub use devices::*;
pub use gateway_audit::*;
pub use keys::*;
pub use links::*;
pub use oidc::*;
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
    /// A server.
    Server {
        /// Id.
        id: ServerId,
        /// Name, unique in the organization.
        name: String,
        /// Key of its gateway, once enrolled.
        #[schema(value_type = Option<String>)]
        gateway: Option<GatewayPublicKey>,
        /// Version of its gateway.
        gateway_version: Option<String>,
        /// Whether its gateway watches the policy now.
        online: bool,
        /// Last sign of life, Unix seconds.
        last_seen_at: Option<u64>,
        /// Newest policy revision of its gateway.
        policy_revision: u64,
        /// Revision its gateway has in force.
        applied_revision: u64,
        /// Why its gateway refused the newest policy, in its words.
        policy_problem: Option<String>,
        /// The audit log of its gateway is not the one that was reported; the details are for those who may read audit logs.
        #[serde(default)]
        audit_alarm: bool,
        /// Creation, Unix seconds.
        created_at: u64,
    }
    /// A new server.
    #[serde(deny_unknown_fields)]
    CreateServer {
        /// Name, 1–120 characters.
        name: String,
    }
    /// A new enrolment code; an unused older one of the server ends.
    #[serde(deny_unknown_fields)]
    CreateEnrollmentCode {
        /// Valid for so many seconds: 60 to 604,800; default 3,600.
        #[serde(default)]
        valid_secs: Option<u64>,
    }
    /// An enrolment code that can still be used; the code itself is shown once, when it is made.
    OpenEnrollmentCode {
        /// Id, to revoke it by.
        id: EnrollmentCodeId,
        /// E-mail address of the user who made it; none: it is from a time when that was not written down.
        issued_by: Option<String>,
        /// When it ends, Unix seconds.
        expires_at: u64,
    }
    /// The code, shown once.
    CreatedEnrollmentCode {
        /// The code.
        code: Hidden,
        /// When it ends, Unix seconds.
        expires_at: u64,
    }
    /// An organization, seen by strangers.
    DirectoryEntry {
        /// Id.
        id: OrganizationId,
        /// Name; `Self` marks the own organization in `relation`.
        name: String,
        /// Description.
        description: String,
        /// `self`, `none`, `requested`, `invited` or `peer`.
        relation: String,
    }
    /// Ask an organization for an agreement; the own one is accepted at once (self-peering).
    #[serde(deny_unknown_fields)]
    CreatePeeringRequest {
        /// Whom.
        organization_id: OrganizationId,
        /// A word to them, up to 500 characters.
        #[serde(default)]
        message: String,
    }
    /// A peering request.
    PeeringRequest {
        /// Id.
        id: PeeringRequestId,
        /// `incoming`, `outgoing` or `self`.
        direction: String,
        /// The other organization.
        peer_id: OrganizationId,
        /// Its name, `Self` for the own one; of what is over, the name it had then.
        peer_name: String,
        /// The word that came with it.
        message: String,
        /// Status.
        status: PeeringStatus,
        /// The agreement it became.
        agreement_id: Option<AgreementId>,
        /// Creation, Unix seconds.
        created_at: u64,
        /// When it expires unanswered, Unix seconds.
        expires_at: u64,
    }
    /// An agreement.
    Agreement {
        /// Id.
        id: AgreementId,
        /// The other organization.
        peer_id: OrganizationId,
        /// Its name, `Self` for the own one; of what is over, the name it had then.
        peer_name: String,
        /// Status.
        status: AgreementStatus,
        /// Whether we suspend it.
        suspended_by_us: bool,
        /// Whether the peer suspends it.
        suspended_by_peer: bool,
        /// Creation, Unix seconds.
        created_at: u64,
        /// End, Unix seconds.
        ended_at: Option<u64>,
    }
    /// A listener channel of an own server.
    Channel {
        /// Id.
        id: ChannelId,
        /// Server.
        server_id: ServerId,
        /// Internal name, never shown to a peer.
        name: String,
        /// The engine's port, `host:port`, seen from the gateway.
        engine: String,
        /// Kind of exchange.
        behavior: String,
        /// Whether partners may see it.
        published: bool,
        /// Public name.
        public_name: String,
        /// Public description.
        public_description: String,
        /// Creation, Unix seconds.
        created_at: u64,
    }
    /// A new listener channel.
    #[serde(deny_unknown_fields)]
    CreateChannel {
        /// Server.
        server_id: ServerId,
        /// Internal name, 1–120 characters, unique on the server.
        name: String,
        /// The engine's port, `ip:port`.
        engine: String,
        /// Kind of exchange; default `hl7v2-mllp`.
        #[serde(default)]
        behavior: Option<String>,
        /// Publish at once under this public name.
        #[serde(default)]
        public_name: Option<String>,
        /// Public description.
        #[serde(default)]
        public_description: Option<String>,
    }
    /// Changes to a channel; what is left out stays.
    #[serde(deny_unknown_fields)]
    UpdateChannel {
        /// New internal name.
        #[serde(default)]
        name: Option<String>,
        /// New engine port.
        #[serde(default)]
        engine: Option<String>,
        /// The engine's id of another of its channels to bind it to, reached where that one listens; not together with
        /// `engine`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        engine_channel: Option<String>,
        /// Publish or withdraw.
        #[serde(default)]
        published: Option<bool>,
        /// New public name.
        #[serde(default)]
        public_name: Option<String>,
        /// New public description.
        #[serde(default)]
        public_description: Option<String>,
    }
    /// A channel as the peer of an agreement sees it.
    PublishedEndpoint {
        /// Channel id, to ask for a grant.
        channel_id: ChannelId,
        /// Public name.
        name: String,
        /// Public description.
        description: String,
        /// Kind of exchange.
        behavior: String,
        /// Whether its owner's engine has it stopped now: nothing arrives there until it is started.
        #[serde(default)]
        stopped: bool,
    }
    /// Offer an own channel to the peer of an agreement, or ask for one of the peer's.
    #[serde(deny_unknown_fields)]
    CreateGrant {
        /// Agreement.
        agreement_id: AgreementId,
        /// Channel: an own published one is offered, one of the peer's is asked for.
        channel_id: ChannelId,
        /// When the grant ends, Unix seconds.
        #[serde(default)]
        expires_at: Option<u64>,
        /// Open streams at most, 1–10,000; default 64.
        #[serde(default)]
        max_streams: Option<u32>,
        /// How long data may go on without the control plane, seconds, 60–2,592,000; default 72 hours. More than the default
        /// is the channel owner's to offer, not the peer's to ask for.
        #[serde(default)]
        staleness_secs: Option<u64>,
        /// Require a post-quantum tunnel.
        #[serde(default)]
        require_post_quantum: bool,
        /// The sending server, for requests and self-agreements.
        #[serde(default)]
        sender_server_id: Option<ServerId>,
        /// The local port the sending gateway opens; default: it picks one and keeps it.
        #[serde(default)]
        sender_port: Option<u16>,
    }
    /// Approve a grant.
    #[serde(deny_unknown_fields)]
    ApproveGrant {
        /// The sending server (approving peer only; default: its only one).
        #[serde(default)]
        sender_server_id: Option<ServerId>,
        /// The local port its gateway opens; default: it picks one and keeps it.
        #[serde(default)]
        sender_port: Option<u16>,
        /// Make the connection active by itself once both gateways confirmed; default true.
        #[serde(default)]
        auto_activate: Option<bool>,
    }
    /// A grant.
    Grant {
        /// Id.
        id: GrantId,
        /// Agreement.
        agreement_id: AgreementId,
        /// Channel.
        channel_id: ChannelId,
        /// Public name of the channel; of a grant that is over, the name it had then.
        endpoint: String,
        /// `given` (our channel), `received` (the peer's) or `self`.
        direction: String,
        /// The other organization's name, `Self` for the own one.
        peer_name: String,
        /// Kind of exchange.
        behavior: String,
        /// Status.
        status: GrantStatus,
        /// The connection it made.
        connection_id: Option<ConnectionId>,
        /// When it ends, Unix seconds.
        expires_at: Option<u64>,
        /// Open streams at most.
        max_streams: u32,
        /// How long data may go on without the control plane, seconds.
        staleness_secs: u64,
        /// Whether it requires a post-quantum tunnel.
        require_post_quantum: bool,
        /// Creation, Unix seconds.
        created_at: u64,
    }
    /// What the two gateways of a connection counted, compared (docs/observers.md).
    Delivery {
        /// Messages the sender's gateway handed on.
        sender_messages: u64,
        /// Messages the listener's gateway handed to its engine.
        listener_messages: u64,
        /// Answers that reached the sender's gateway.
        sender_answers: u64,
        /// Answers of the listener's engine.
        listener_answers: u64,
        /// The difference, if there is one that lasts.
        alarm: Option<DeliveryAlarm>,
        /// Differences that were written off.
        written_off: Difference,
    }
    /// One end of a connection.
    ConnectionEnd {
        /// Server; none: an offered admin connection, whose user has not named one yet.
        server_id: Option<ServerId>,
        /// Its name; empty without a server.
        server_name: String,
        /// Its organization's name, `Self` for the own one.
        organization_name: String,
        /// `sender` or `listener`, of admin connections `admin_user` or `admin_owner`.
        role: String,
        /// Whether this side holds a pause.
        paused: bool,
        /// Whether the newest policy that concerns this connection is in force at this end.
        policy_in_force: bool,
        /// Since when this end has it in force, Unix seconds; none: not yet.
        #[serde(default)]
        policy_in_force_since: Option<u64>,
        /// What this end's gateway last reported.
        report: Option<ConnectionReport>,
        /// When, Unix seconds.
        reported_at: Option<u64>,
    }
    /// A connection.
    Connection {
        /// Id.
        id: ConnectionId,
        /// The grant it was made from; none: an admin connection.
        grant_id: Option<GrantId>,
        /// Agreement.
        agreement_id: AgreementId,
        /// What it carries.
        kind: ConnectionKind,
        /// What an admin connection was offered with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        admin: Option<AdminTerms>,
        /// Public name of the published endpoint; of an admin connection: the name of the administered server.
        endpoint: String,
        /// Kind of exchange.
        behavior: String,
        /// Status.
        status: ConnectionStatus,
        /// Whether the agreement is suspended: then it carries no data whatever its status.
        suspended: bool,
        /// Becomes active by itself.
        auto_activate: bool,
        /// Since when both gateways have what this shows in force, Unix seconds; none: not both of them yet.
        #[serde(default)]
        policy_in_force_since: Option<u64>,
        /// The end that sends; of an admin connection: the one it is used from.
        sender: ConnectionEnd,
        /// The end that receives; of an admin connection: the one whose engine is administered.
        listener: ConnectionEnd,
        /// What both ends counted; none where messages are not counted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        delivery: Option<Delivery>,
        /// Creation, Unix seconds.
        created_at: u64,
        /// End, Unix seconds.
        ended_at: Option<u64>,
    }
    /// A relay of the relay map.
    Relay {
        /// Id.
        id: RelayId,
        /// Name.
        name: String,
        /// `wss://host:port/relay`.
        url: String,
        /// SHA-256 of its TLS public key, hex.
        tls_pin: Option<String>,
        /// STUN listeners, `host:port`.
        stun: Vec<String>,
        /// Where it stands, in the operator's words; relays of one region may fail together.
        #[serde(default)]
        region: Option<String>,
    }
    /// A new relay of the map.
    #[serde(deny_unknown_fields)]
    CreateRelay {
        /// The id the relay printed at its start.
        id: RelayId,
        /// Name.
        name: String,
        /// `wss://host:port/relay`.
        url: String,
        /// SHA-256 of its TLS public key, hex; left out: the web PKI vouches for it.
        #[serde(default)]
        tls_pin: Option<String>,
        /// STUN listeners, `host:port`, up to 4.
        #[serde(default)]
        stun: Vec<String>,
        /// Where it stands: 1–40 of a-z, 0-9 and '-'.
        #[serde(default)]
        region: Option<String>,
    }
    /// A change of a relay of the map; what is left out stays.
    #[serde(deny_unknown_fields)]
    UpdateRelay {
        /// Name.
        #[serde(default)]
        name: Option<String>,
        /// Where it stands; empty: not said.
        #[serde(default)]
        region: Option<String>,
    }
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
