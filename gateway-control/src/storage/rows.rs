//! The rows: typed values, no rules.

use gateway_proto::{
    api::{
        gateway::EngineHead,
        platform::{AdminAccess, AuditEntry, DeviceKind, LinkableBy, Role, ShareLevel},
    },
    audit::heads::ReportedHead,
    balance::{Balance, Tally},
    engine::plan::EndState,
    id::{
        AgreementId, ApiTokenId, ChannelId, ConnectionId, DeviceId, DeviceTokenId, GrantId, IdentityId, InvitationId,
        LinkId, OrganizationId, PeeringRequestId, RelayId, ServerId, ShareId, TenantId, UserId,
    },
    identity::{GatewayPublicKey, NoiseBinding},
    peering::{AgreementStatus, ConnectionStatus, GrantStatus, PeeringStatus},
    policy::{AdminPerson, AdminScope, ConnectionKind, Secret},
    signed::Envelope,
    succession::PolicyKeyState,
};

macro_rules! rows {
    ($($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident : $ty:ty),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty),* }
    )*};
}

rows! {
    /// An organization.
    OrganizationRow {
        /// Id.
        id: OrganizationId,
        /// Tenant.
        tenant: TenantId,
        /// Name.
        name: String,
        /// Description for the directory.
        description: String,
        /// Whether strangers find it.
        discoverable: bool,
        /// Whether admin connections to its servers need a second person; of the tenant itself: to those of the tenant.
        two_person_admin: bool,
        /// Creation.
        created_at: u64,
        /// Removal.
        removed_at: Option<u64>,
    }
    /// A user.
    UserRow {
        /// Id.
        id: UserId,
        /// Organization.
        organization: OrganizationId,
        /// Sign-in name, lower case.
        email: String,
        /// Name.
        name: String,
        /// Role.
        role: Role,
        /// Argon2id, PHC form.
        password_hash: PasswordHash,
        /// Creation.
        created_at: u64,
    }
    /// A server.
    ServerRow {
        /// Id.
        id: ServerId,
        /// Organization.
        organization: OrganizationId,
        /// Name.
        name: String,
        /// Key of its gateway.
        gateway: Option<GatewayPublicKey>,
        /// Noise key of its gateway.
        noise: Option<NoiseBinding>,
        /// Version of its gateway.
        gateway_version: Option<String>,
        /// Last sign of life that was written down.
        last_seen_at: Option<u64>,
        /// Relay where its gateway can be reached.
        home_relay: Option<RelayId>,
        /// Revision in force at its gateway.
        applied_revision: u64,
        /// Why its gateway refused the newest policy.
        policy_problem: Option<String>,
        /// The audit log of its gateway is not the one that was reported. Not written with the server.
        audit_alarm: bool,
        /// Its policy must be compiled.
        stale: bool,
        /// Creation.
        created_at: u64,
        /// Removal.
        removed_at: Option<u64>,
    }
    /// An enrolment code.
    EnrollmentCodeRow {
        /// SHA-256 of the secret, hex.
        secret_hash: String,
        /// Server.
        server: ServerId,
        /// End.
        expires_at: u64,
        /// The key that used it.
        used_by: Option<GatewayPublicKey>,
        /// When.
        used_at: Option<u64>,
    }
    /// The newest policy of a server's gateway.
    PolicyRow {
        /// Server.
        server: ServerId,
        /// Revision.
        revision: u64,
        /// The signed envelope, JSON.
        envelope: Sealed,
    }
    /// A relay of the map.
    RelayRow {
        /// Id.
        id: RelayId,
        /// Name.
        name: String,
        /// URL.
        url: String,
        /// SHA-256 of its TLS public key.
        tls_pin: Option<String>,
        /// STUN listeners.
        stun: Vec<String>,
        /// Where it stands.
        region: Option<String>,
    }
    /// A peering request.
    PeeringRequestRow {
        /// Id.
        id: PeeringRequestId,
        /// The asking organization.
        from: OrganizationId,
        /// The asked organization.
        to: OrganizationId,
        /// A word with it.
        message: String,
        /// Status.
        status: PeeringStatus,
        /// What it became.
        agreement: Option<AgreementId>,
        /// Creation.
        created_at: u64,
        /// When it expires unanswered.
        expires_at: u64,
    }
    /// An agreement.
    AgreementRow {
        /// Id.
        id: AgreementId,
        /// The organization that asked.
        first: OrganizationId,
        /// The organization that accepted; the same, inside a self-agreement.
        second: OrganizationId,
        /// Status.
        status: AgreementStatus,
        /// Whether the first suspends it.
        first_suspends: bool,
        /// Whether the second suspends it.
        second_suspends: bool,
        /// Creation.
        created_at: u64,
        /// End.
        ended_at: Option<u64>,
    }
    /// A channel.
    ChannelRow {
        /// Id.
        id: ChannelId,
        /// Organization.
        organization: OrganizationId,
        /// Server.
        server: ServerId,
        /// Internal name.
        name: String,
        /// The engine's port, `ip:port`.
        engine: String,
        /// Kind of exchange.
        behavior: String,
        /// Whether partners may see it.
        published: bool,
        /// Public name.
        public_name: String,
        /// Public description.
        public_description: String,
        /// Creation.
        created_at: u64,
        /// Removal.
        removed_at: Option<u64>,
    }
    /// A device.
    DeviceRow {
        /// Id.
        id: DeviceId,
        /// Organization; none: the platform.
        organization: Option<OrganizationId>,
        /// Kind.
        kind: DeviceKind,
        /// Name.
        name: String,
        /// Description.
        description: String,
        /// The server it is, or whose gateway reaches it.
        server: Option<ServerId>,
        /// What it performs.
        behaviors: Vec<String>,
        /// Who may link to it.
        linkable_by: LinkableBy,
        /// Creation.
        created_at: u64,
        /// Removal.
        removed_at: Option<u64>,
    }
    /// What is known of a device's token.
    DeviceTokenRow {
        /// Id.
        id: DeviceTokenId,
        /// Device.
        device: DeviceId,
        /// Its organization.
        organization: OrganizationId,
        /// Whom it is for.
        audience: String,
        /// The key that signed it.
        kid: String,
        /// Thumbprint of the key it is bound to.
        key_thumbprint: Option<String>,
        /// Who asked for it.
        issued_by: String,
        /// End.
        expires_at: u64,
        /// Revocation.
        revoked_at: Option<u64>,
        /// Creation.
        created_at: u64,
    }
    /// A key that signs tokens.
    TokenKeyRow {
        /// Its thumbprint.
        kid: String,
        /// The public half, base64url.
        public: String,
        /// The seed, sealed.
        seed: Sealed,
        /// When it begins to sign.
        signs_from: u64,
        /// Creation.
        created_at: u64,
    }
    /// A key that signs policies.
    PolicyKeyRow {
        /// Its place: the oldest has the lowest.
        number: u64,
        /// The public half.
        key: GatewayPublicKey,
        /// The seed, sealed; none: the key is a file, or has retired.
        seed: Option<Sealed>,
        /// What it does.
        state: PolicyKeyState,
        /// When it begins to sign.
        signs_from: u64,
        /// The word of the key before it.
        link: Option<Envelope>,
        /// Creation.
        created_at: u64,
    }
    /// A token of the platform.
    PlatformTokenRow {
        /// Its hash.
        hash: String,
        /// When it counts no more; none: it counts until the next one is made.
        expires_at: Option<u64>,
        /// Creation, or when it was replaced first.
        created_at: u64,
    }
    /// A kind of exchange.
    BehaviorRow {
        /// Name.
        name: String,
        /// What it is.
        description: String,
    }
    /// The second factor of a user.
    TotpRow {
        /// User.
        user: UserId,
        /// The secret, sealed.
        secret: Sealed,
        /// It is needed at sign-in.
        confirmed: bool,
        /// The step of the last code that was accepted.
        last_step: u64,
        /// Creation.
        created_at: u64,
    }
    /// An account at a provider of OpenID Connect, linked to a user.
    IdentityRow {
        /// Id.
        id: IdentityId,
        /// Who issued it.
        issuer: String,
        /// The account there.
        subject: String,
        /// The user's organization.
        organization: OrganizationId,
        /// The user.
        user: UserId,
        /// Unix seconds.
        linked_at: u64,
        /// Unix seconds.
        last_used_at: u64,
    }
    /// A link between two devices.
    LinkRow {
        /// Id.
        id: LinkId,
        /// The device that asks.
        source: DeviceId,
        /// Its organization.
        source_organization: OrganizationId,
        /// The device that is asked.
        target: DeviceId,
        /// Its organization; none: the platform.
        target_organization: Option<OrganizationId>,
        /// Creation.
        created_at: u64,
    }
    /// How often a device took part in a behavior on a day.
    ExecutionsRow {
        /// Organization of the device.
        organization: OrganizationId,
        /// Day, UTC, `2026-01-31`.
        day: String,
        /// Device.
        device: DeviceId,
        /// Behavior.
        behavior: String,
        /// How often.
        number: u64,
    }
    /// Which executions.
    ExecutionsFilter {
        /// First day.
        from: String,
        /// Last day.
        to: String,
        /// Those of one device.
        device: Option<DeviceId>,
        /// Those of one behavior.
        behavior: Option<String>,
    }
    /// The engine beside a server's gateway.
    EngineRow {
        /// Server.
        server: ServerId,
        /// How its gateway gets on with it.
        head: EngineHead,
        /// When its gateway told the last news.
        reported_at: u64,
    }
    /// A registered channel that is one of the engine.
    EngineLinkRow {
        /// The registered channel.
        channel: ChannelId,
        /// Its server.
        server: ServerId,
        /// The engine's id.
        engine_channel: String,
        /// State of the engine's end.
        state: EndState,
    }
    /// A grant.
    GrantRow {
        /// Id.
        id: GrantId,
        /// Agreement.
        agreement: AgreementId,
        /// Channel.
        channel: ChannelId,
        /// The organization whose channel it is.
        owner: OrganizationId,
        /// The organization that may use it.
        peer: OrganizationId,
        /// Status.
        status: GrantStatus,
        /// When it expires unanswered.
        answer_by: u64,
        /// When it ends.
        expires_at: Option<u64>,
        /// Open streams at most.
        max_streams: u32,
        /// How long data may go on without the control plane.
        staleness_secs: u64,
        /// Whether a post-quantum tunnel is required.
        require_post_quantum: bool,
        /// The sending server, once named.
        sender_server: Option<ServerId>,
        /// The local port of the sending gateway, 0: it picks one.
        sender_port: u16,
        /// Creation.
        created_at: u64,
    }
    /// A connection.
    ConnectionRow {
        /// Id.
        id: ConnectionId,
        /// Grant; none: an admin connection.
        grant: Option<GrantId>,
        /// Agreement.
        agreement: AgreementId,
        /// Channel; none: an admin connection.
        channel: Option<ChannelId>,
        /// What an admin connection was offered with.
        admin: Option<AdminRow>,
        /// What it carries.
        kind: ConnectionKind,
        /// Status.
        status: ConnectionStatus,
        /// Becomes active by itself.
        auto_activate: bool,
        /// Its secret.
        secret: Secret,
        /// The sending end.
        sender: EndRow,
        /// The local port of the sending gateway.
        sender_port: u16,
        /// The receiving end.
        listener: EndRow,
        /// Creation.
        created_at: u64,
        /// End.
        ended_at: Option<u64>,
    }
    /// One end of a connection.
    EndRow {
        /// Server; none: the user of an offered admin connection has not named one yet.
        server: Option<ServerId>,
        /// Its organization.
        organization: OrganizationId,
        /// Whether this side holds a pause.
        paused: bool,
        /// The policy revision of this server that last changed what it says about the connection; 0: none yet.
        revision: u64,
        /// Since when its gateway has that revision, or a newer one, in force; none: it has not confirmed it.
        in_force_at: Option<u64>,
    }
    /// What an admin connection was offered with.
    AdminRow {
        /// What, beyond the end of the answer and of the time-box.
        terms: AdminTermsRow,
        /// When the offer expires unanswered.
        answer_by: u64,
        /// The end of its time-box.
        expires_at: Option<u64>,
        /// The share it belongs to.
        share: Option<ShareId>,
        /// The second person's word; none: one person is enough.
        approval: Option<ApprovalRow>,
        /// Who named himself as the person behind an acting user.
        people: Vec<AdminPersonRow>,
    }
    /// What the two ends of a connection counted, and how the two compare.
    DeliveryRow {
        /// The connection.
        connection: ConnectionId,
        /// What the sender's gateway counted.
        sender: Tally,
        /// What the listener's gateway counted.
        listener: Tally,
        /// How the two compare.
        balance: Balance,
        /// A later look may say something else.
        is_open: bool,
    }
    /// A head of the history of a gateway's audit log.
    KeptHeadRow {
        /// Server.
        server: ServerId,
        /// Counts up for each server.
        entry: u64,
        /// The gateway that reported it.
        gateway: GatewayPublicKey,
        /// The head.
        head: ReportedHead,
    }
    /// What a server's policy says about one connection, and the other end of it.
    PolicyConnectionRow {
        /// The connection.
        connection: ConnectionRow,
        /// Status of its agreement.
        agreement: AgreementStatus,
        /// The channel's engine port; none: an admin connection.
        engine: Option<String>,
        /// The channel's public name; of an admin connection, the name of the administered server.
        endpoint: String,
        /// Kind of exchange.
        behavior: String,
        /// When the grant, or the time-box of an admin connection, ends.
        expires_at: Option<u64>,
        /// Open streams at most.
        max_streams: u32,
        /// How long data may go on without the control plane.
        staleness_secs: u64,
        /// Whether a post-quantum tunnel is required.
        require_post_quantum: bool,
        /// The server at the other end.
        peer: ServerRow,
        /// The name of its organization.
        peer_organization_name: String,
    }
    /// A shared server.
    ShareRow {
        /// Id.
        id: ShareId,
        /// Agreement.
        agreement: AgreementId,
        /// Server.
        server: ServerId,
        /// The organization whose server it is.
        owner: OrganizationId,
        /// The organization it is shared with.
        peer: OrganizationId,
        /// Who shared it; not known of older ones.
        shared_by: Option<UserId>,
        /// How far.
        level: ShareLevel,
        /// What its admin connections may do beyond their level.
        scope: AdminScope,
        /// When it ends by itself.
        expires_at: Option<u64>,
        /// Creation.
        created_at: u64,
        /// End.
        ended_at: Option<u64>,
    }
    /// A token of automation.
    ApiTokenRow {
        /// Id.
        id: ApiTokenId,
        /// The user it acts as.
        user: UserId,
        /// That user's organization.
        organization: OrganizationId,
        /// What it is for.
        name: String,
        /// What it may do.
        scopes: Vec<String>,
        /// End.
        expires_at: u64,
        /// When it was last used, to the hour.
        last_used_at: Option<u64>,
        /// Creation.
        created_at: u64,
    }
    /// An invitation that waits.
    InvitationRow {
        /// Id.
        id: InvitationId,
        /// Organization.
        organization: OrganizationId,
        /// Who invited.
        invited_by: UserId,
        /// Sign-in name, lower case.
        email: String,
        /// Name.
        name: String,
        /// Role.
        role: Role,
        /// End.
        expires_at: u64,
        /// Creation.
        created_at: u64,
    }
    /// A subscription tier.
    TierRow {
        /// Its name.
        name: String,
        /// Servers of an organization.
        max_servers: Option<u32>,
        /// Agreements of an organization with others.
        max_peers: Option<u32>,
        /// Channels of a server.
        max_channels_per_server: Option<u32>,
        /// Whether admin connections may be read-write.
        admin_read_write: bool,
        /// Whether new organizations begin with it.
        initial: bool,
    }
    /// How many channels a server has.
    ServerCountRow {
        /// Server.
        server: ServerId,
        /// Its name.
        name: String,
        /// Its channels.
        channels: u64,
    }
    /// An organization and its tier.
    PlatformOrganizationRow {
        /// Id.
        id: OrganizationId,
        /// Name.
        name: String,
        /// Name of its tier.
        tier: String,
        /// Creation.
        created_at: u64,
    }
    /// A mutating request that came with a key.
    IdempotencyRow {
        /// What was asked for, hashed.
        request_hash: String,
        /// The status of the answer, once it is known.
        status: Option<u16>,
        /// The answer, unless it is not kept.
        answer: Option<String>,
    }
    /// An entry of the audit log.
    AuditRow {
        /// The chain: an organization's id, or `platform`.
        chain: String,
        /// The entry.
        entry: AuditEntry,
    }
}

/// The kind of exchange of admin connections, which no channel has.
pub const ADMIN_BEHAVIOR: &str = "admin-api";

/// What an admin connection was offered with, as it is kept: new fields get defaults.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct AdminTermsRow {
    /// Read-only or read-write.
    pub access: AdminAccess,
    /// What it may do beyond that.
    pub scope: AdminScope,
    /// The word that came with the offer.
    pub message: String,
    /// Requests at the same time at most.
    pub max_streams: u32,
    /// How long it may be used without the control plane.
    pub staleness_secs: u64,
    /// Whether a post-quantum tunnel is required.
    pub require_post_quantum: bool,
}

/// What two persons of the owner's side say to an admin connection.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ApprovalRow {
    /// Who offered it or shared the server, if that is known.
    pub offered_by: Option<UserId>,
    /// Who approved it and when; none: it waits.
    pub approved: Option<(UserId, u64)>,
}

/// Who named himself at an admin connection.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct AdminPersonRow {
    /// The user.
    pub user: UserId,
    /// What the owner's gateway is told.
    pub entry: AdminPerson,
}

/// Which connections of an organization.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectionFilter {
    /// Those that ended too.
    pub ended: bool,
    /// Admin connections only, or none of them.
    pub admin: Option<bool>,
    /// Those of one agreement.
    pub agreement: Option<AgreementId>,
    /// Those with an end at one server.
    pub server: Option<ServerId>,
    /// Those in one status.
    pub status: Option<ConnectionStatus>,
}

/// Which entries of a chain.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuditFilter {
    /// Those whose act begins with this; empty: all.
    pub act: String,
    /// Those about one object; empty: all.
    pub object: String,
    /// Those of one actor; empty: all.
    pub actor: String,
    /// Those from then on.
    pub since: u64,
    /// Those from before then.
    pub until: Option<u64>,
}

/// Which grants of an organization.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GrantFilter {
    /// Those in one status.
    pub status: Option<GrantStatus>,
    /// Those of one agreement.
    pub agreement: Option<AgreementId>,
    /// Those of one channel.
    pub channel: Option<ChannelId>,
    /// Those it gave, or those it received.
    pub given: Option<bool>,
}

/// Which peering requests of an organization.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeeringFilter {
    /// Those in one status.
    pub status: Option<PeeringStatus>,
    /// Those it sent, or those it got.
    pub outgoing: Option<bool>,
}

/// Which channels of an organization.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelFilter {
    /// Those of one server.
    pub server: Option<ServerId>,
    /// Those that are published, or those that are not.
    pub published: Option<bool>,
    /// Those whose name contains this.
    pub search: String,
}

impl DeliveryRow {
    /// Before anything was reported.
    pub fn new(connection: ConnectionId) -> Self {
        Self {
            connection,
            sender: Tally::default(),
            listener: Tally::default(),
            balance: Balance::default(),
            is_open: false,
        }
    }
}

/// A password hash: masked in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(pub String);

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(masked)")
    }
}

/// A text that holds secrets, here a policy envelope: masked in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(pub String);

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(masked)")
    }
}

impl ConnectionRow {
    /// The two ends.
    pub fn ends(&self) -> [&EndRow; 2] {
        [&self.sender, &self.listener]
    }

    /// The servers at its ends, as far as they are named.
    pub fn servers(&self) -> impl Iterator<Item = ServerId> {
        [self.sender.server, self.listener.server].into_iter().flatten()
    }
}

impl AgreementRow {
    /// Whether the organization is a side of it.
    pub fn has(&self, organization: OrganizationId) -> bool {
        self.first == organization || self.second == organization
    }

    /// The other side; the same one, inside a self-agreement.
    pub fn other(&self, organization: OrganizationId) -> OrganizationId {
        if self.first == organization { self.second } else { self.first }
    }
}
