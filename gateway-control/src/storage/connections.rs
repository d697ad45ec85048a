//! Connections.

use async_trait::async_trait;
use gateway_proto::{
    api::platform::AdminAccess,
    id::{AgreementId, ChannelId, ConnectionId, GrantId, OrganizationId, ServerId, ShareId, UserId},
    peering::ConnectionStatus,
    policy::{AdminPerson, AdminScope, ConnectionKind, Secret},
};

use super::{Slice, StorageResult, rows::rows};

/// Connections.
#[async_trait]
pub trait Connections: Send {
    /// One connection.
    async fn connection(&mut self, id: ConnectionId) -> StorageResult<Option<ConnectionRow>>;
    /// The connection a grant made.
    async fn connection_of_grant(&mut self, grant: GrantId) -> StorageResult<Option<ConnectionRow>>;
    /// Connections of an organization. What time has ended by now has expired, whether or not it was written down.
    async fn connections(
        &mut self,
        organization: OrganizationId,
        filter: &ConnectionFilter,
        slice: &Slice,
        now: u64,
    ) -> StorageResult<Vec<ConnectionRow>>;
    /// Connections of a server that have not ended, ordered by id.
    async fn open_connections_of_server(&mut self, server: ServerId) -> StorageResult<Vec<ConnectionRow>>;
    /// How many connections of a server have not ended, as it is written down: what its policy may name.
    async fn count_open_connections(&mut self, server: ServerId) -> StorageResult<u64>;
    /// How many connections of an organization have ended, as it is written down; `limit` and more are as many as that.
    async fn count_ended_connections(&mut self, organization: OrganizationId, limit: u32) -> StorageResult<u64>;
    /// Connections of an agreement that have not ended.
    async fn open_connections_of_agreement(&mut self, agreement: AgreementId) -> StorageResult<Vec<ConnectionRow>>;
    /// Offered admin connections that nobody answered in time, and admin connections whose time-box is over.
    async fn overdue_connections(&mut self, now: u64, limit: u32) -> StorageResult<Vec<ConnectionId>>;
    /// Connections whose secret is being replaced, and about which policies say something else by now, longest ago first.
    async fn connections_with_secret_due(&mut self, now: u64, limit: u32) -> StorageResult<Vec<ConnectionId>>;
    /// Adds one.
    async fn insert_connection(&mut self, row: &ConnectionRow) -> StorageResult<()>;
    /// Stores a changed one.
    async fn update_connection(&mut self, row: &ConnectionRow) -> StorageResult<()>;
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
        /// What is left of the secret before it; none: nothing.
        rotation: Option<RotationRow>,
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
    /// A secret that is being replaced; all moments are Unix seconds.
    RotationRow {
        /// The one before.
        old: Secret,
        /// From then on the sending gateway makes streams with the new one.
        turns_at: u64,
        /// From then on the old one is not accepted any more.
        until: u64,
        /// Which of the two moments comes next, as far as policies say so already.
        due_at: u64,
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

impl RotationRow {
    /// Replaces a secret from `now` on. Both ends must know the new one before it is used, and hear of it apart: the sender turns to
    /// it in the middle, so that each half is time for a policy to arrive, and for clocks that differ.
    pub fn begin(old: Secret, now: u64, overlap_secs: u64) -> Self {
        let turns_at = now.saturating_add(overlap_secs / 2);
        Self { old, turns_at, until: now.saturating_add(overlap_secs), due_at: turns_at }
    }

    /// Whether the sender's policy has the new one only.
    pub fn has_turned(&self) -> bool {
        self.due_at != self.turns_at
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
