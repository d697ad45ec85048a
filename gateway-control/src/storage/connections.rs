//! Connections, and what their ends counted.

use async_trait::async_trait;
use gateway_proto::{
    api::platform::AdminAccess,
    balance::{Balance, Tally},
    id::{AgreementId, ChannelId, ConnectionId, GrantId, OrganizationId, ServerId, ShareId, UserId},
    peering::{AgreementStatus, ConnectionStatus},
    policy::{AdminPerson, AdminScope, ConnectionKind, Secret},
};

use super::{ServerRow, Slice, StorageResult, rows::rows};

/// Connections.
#[async_trait]
pub trait Connections: Send {
    /// One connection.
    async fn connection(&mut self, id: ConnectionId) -> StorageResult<Option<ConnectionRow>>;
    /// The connection a grant made.
    async fn connection_of_grant(&mut self, grant: GrantId) -> StorageResult<Option<ConnectionRow>>;
    /// Connections of an organization.
    async fn connections(
        &mut self,
        organization: OrganizationId,
        filter: &ConnectionFilter,
        slice: &Slice,
    ) -> StorageResult<Vec<ConnectionRow>>;
    /// Connections of a server that have not ended, ordered by id.
    async fn open_connections_of_server(&mut self, server: ServerId) -> StorageResult<Vec<ConnectionRow>>;
    /// How many connections of a server have not ended.
    async fn count_open_connections(&mut self, server: ServerId) -> StorageResult<u64>;
    /// Connections of a server that become active by themselves, and that both gateways have in force now, ordered by id.
    async fn confirmed_connections_of_server(&mut self, server: ServerId) -> StorageResult<Vec<ConnectionRow>>;
    /// The policy of a server says something new about these connections with this revision, which nobody has confirmed yet.
    async fn put_revision(
        &mut self,
        server: ServerId,
        revision: u64,
        connections: &[ConnectionId],
    ) -> StorageResult<()>;
    /// The gateway of a server has a revision in force since now: so its ends that were waiting for it are.
    async fn put_in_force(&mut self, server: ServerId, revision: u64, now: u64) -> StorageResult<()>;
    /// The gateway of a server has nothing newer than this revision in force, whatever it said before.
    async fn take_out_of_force(&mut self, server: ServerId, revision: u64) -> StorageResult<()>;
    /// Connections of an agreement that have not ended.
    async fn open_connections_of_agreement(&mut self, agreement: AgreementId) -> StorageResult<Vec<ConnectionRow>>;
    /// Offered admin connections that nobody answered in time, and admin connections whose time-box is over.
    async fn overdue_connections(&mut self, now: u64, limit: u32) -> StorageResult<Vec<ConnectionId>>;
    /// Everything a policy of this server says about its connections, ordered by id.
    async fn policy_connections(&mut self, server: ServerId) -> StorageResult<Vec<PolicyConnectionRow>>;
    /// Adds one.
    async fn insert_connection(&mut self, row: &ConnectionRow) -> StorageResult<()>;
    /// Stores a changed one.
    async fn update_connection(&mut self, row: &ConnectionRow) -> StorageResult<()>;
}

/// What the two ends of connections counted.
#[async_trait]
pub trait Deliveries: Send {
    /// Of one connection; none before its gateways reported.
    async fn delivery(&mut self, connection: ConnectionId) -> StorageResult<Option<DeliveryRow>>;
    /// Stores it, new or changed.
    async fn put_delivery(&mut self, row: &DeliveryRow) -> StorageResult<()>;
    /// Connections whose comparison is open, ordered by id, after one of them.
    async fn open_deliveries(&mut self, after: &str, limit: u32) -> StorageResult<Vec<ConnectionId>>;
}

rows! {
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
    /// What a server's policy says about one connection, and the other end of it.
    PolicyConnectionRow {
        /// The connection.
        connection: ConnectionRow,
        /// Status of its agreement.
        agreement: AgreementStatus,
        /// The channel's engine port; none: an admin connection.
        engine: Option<String>,
        /// The engine's id of the channel; none: an admin connection, or not known.
        engine_channel: Option<String>,
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
