//! Storage: what the service keeps, behind traits. The only SQL of the control plane is below this module.
//!
//! Everything happens in an explicit [`Transaction`]: [`Storage::read`] for a consistent view, [`Storage::begin`] for
//! changes, which are nothing until [`Transaction::commit`] returned, and durable from then on. Writers are serialised
//! by the implementation, so what a writing transaction has read is still true when it commits.
//!
//! Rows are plain values; a row is changed by reading it, changing it and storing it whole.

mod news;
mod rows;
mod sql;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use async_trait::async_trait;
use gateway_proto::{
    api::{
        gateway::ConnectionReport,
        platform::{AuditAnchor, AuditOrder},
    },
    audit::heads::HeadBook,
    engine::EngineChannel,
    id::{
        AgreementId, ApiTokenId, ChannelId, ConnectionId, DeviceId, DeviceTokenId, GrantId, IdentityId, InvitationId,
        LinkId, OrganizationId, PeeringRequestId, RelayId, ServerId, ShareId, TenantId, UserId,
    },
    identity::GatewayPublicKey,
    peering::AgreementStatus,
    policy::Secret,
};
pub use news::{Heard, News, NewsLine};
pub use rows::*;
pub use sql::queries_run;
pub use sql::{BackupError, KeptFile, Location, LocationError, PostgresServer, SqlStorage, Unpacked, back_up, unpack};

/// Why the storage did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The database said no.
    #[error("the database failed")]
    Database(#[source] sqlx::Error),
    /// The database cannot be reached, or is stopping or starting.
    #[error("the database cannot be reached")]
    Unavailable(#[source] sqlx::Error),
    /// Others were at work for longer than we wait.
    #[error("the database is busy")]
    Busy,
    /// A text that no database keeps.
    #[error("a text must not contain the character NUL")]
    Nul,
    /// The schema could not be brought up to date.
    #[error("the database schema could not be brought up to date; is it from a newer version?")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A row holds something that cannot be read.
    #[error("the database holds an unreadable value in column '{0}'")]
    Unreadable(String),
    /// A uniqueness rule of the schema was broken.
    #[error("an entry like this exists already")]
    Duplicate,
}

/// Result of a storage operation.
pub type StorageResult<T> = Result<T, StorageError>;

/// Which part of a list: entries after a key, at most so many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Entries whose key is greater than this (smaller, for newest-first lists); empty: from the start.
    pub after: String,
    /// At most so many.
    pub limit: u32,
}

/// The place where everything is kept.
#[async_trait]
pub trait Storage: Debug + Send + Sync + 'static {
    /// A consistent view for reading.
    async fn read(&self) -> StorageResult<Box<dyn Transaction>>;
    /// The same for what watches and health checks need: however long people's lists are, nobody stands in their way.
    async fn read_for_gateways(&self) -> StorageResult<Box<dyn Transaction>>;
    /// A transaction that may write; waits for its turn.
    async fn begin(&self) -> StorageResult<Box<dyn Transaction>>;
    /// Whether the storage answers.
    async fn ping(&self) -> StorageResult<()>;
    /// The line on which other replicas tell their news; none: nobody else can be at work on this storage.
    fn news_line(&self) -> Option<Box<dyn NewsLine>>;
    /// Whether we are the one replica that does what needs doing once: still, or from now on. Asked for again and again.
    async fn lead(&self) -> StorageResult<bool>;
    /// Closes it in order.
    async fn close(&self);
}

/// Organizations, users and sessions.
#[async_trait]
pub trait Accounts: Send {
    /// One organization.
    async fn organization(&mut self, id: OrganizationId) -> StorageResult<Option<OrganizationRow>>;
    /// The organization with this name, however it is written in capitals.
    async fn organization_named(&mut self, name: &str) -> StorageResult<Option<OrganizationId>>;
    /// Adds one; [`StorageError::Duplicate`] when the name is taken.
    async fn insert_organization(&mut self, row: &OrganizationRow) -> StorageResult<()>;
    /// Stores a changed one.
    async fn update_organization(&mut self, row: &OrganizationRow) -> StorageResult<()>;
    /// Discoverable ones whose search key contains the text, ordered by name key.
    async fn directory(&mut self, search: &str, slice: &Slice) -> StorageResult<Vec<OrganizationRow>>;
    /// Organizations of a tenant that are not removed.
    async fn organizations_of_tenant(&mut self, tenant: TenantId, slice: &Slice)
    -> StorageResult<Vec<OrganizationRow>>;
    /// How many there are of them.
    async fn count_organizations(&mut self, tenant: TenantId) -> StorageResult<u64>;
    /// The organization that is the tenant itself.
    async fn tenant_itself(&mut self, tenant: TenantId) -> StorageResult<Option<OrganizationId>>;
    /// Adds the tenant that an organization is itself.
    async fn insert_tenant(&mut self, row: &OrganizationRow) -> StorageResult<()>;
    /// Removes the users of an organization with their sessions and tokens, and its invitations.
    async fn delete_people(&mut self, organization: OrganizationId) -> StorageResult<()>;
    /// One user.
    async fn user(&mut self, id: UserId) -> StorageResult<Option<UserRow>>;
    /// The user of an organization with this address.
    async fn user_of(&mut self, organization: OrganizationId, email: &str) -> StorageResult<Option<UserRow>>;
    /// The oldest user of the platform with this address.
    async fn oldest_user(&mut self, email: &str) -> StorageResult<Option<UserRow>>;
    /// How many users an organization has.
    async fn count_users(&mut self, organization: OrganizationId) -> StorageResult<u64>;
    /// Users of an organization.
    async fn users(&mut self, organization: OrganizationId, slice: &Slice) -> StorageResult<Vec<UserRow>>;
    /// How many owners an organization has.
    async fn owners(&mut self, organization: OrganizationId) -> StorageResult<u64>;
    /// Adds one; [`StorageError::Duplicate`] when the organization has a user with this address.
    async fn insert_user(&mut self, row: &UserRow) -> StorageResult<()>;
    /// Removes one with its sessions.
    async fn delete_user(&mut self, id: UserId) -> StorageResult<()>;
    /// Adds a session and drops the oldest of that user above `keep`.
    async fn insert_session(&mut self, token_hash: &str, user: UserId, end: u64, keep: u32) -> StorageResult<()>;
    /// The user of a session that has not ended.
    async fn session_user(&mut self, token_hash: &str, now: u64) -> StorageResult<Option<UserRow>>;
    /// Ends a session.
    async fn delete_session(&mut self, token_hash: &str) -> StorageResult<()>;
}

/// Servers, their gateways, enrolment codes and policies.
#[async_trait]
pub trait Servers: Send {
    /// One server, removed or not.
    async fn server(&mut self, id: ServerId) -> StorageResult<Option<ServerRow>>;
    /// The server of a gateway.
    async fn server_by_gateway(&mut self, key: GatewayPublicKey) -> StorageResult<Option<ServerRow>>;
    /// Servers of an organization that are not removed.
    async fn servers(&mut self, organization: OrganizationId, slice: &Slice) -> StorageResult<Vec<ServerRow>>;
    /// Adds one; [`StorageError::Duplicate`] when the name is taken.
    async fn insert_server(&mut self, row: &ServerRow) -> StorageResult<()>;
    /// Stores a changed one.
    async fn update_server(&mut self, row: &ServerRow) -> StorageResult<()>;
    /// Marks a server for compilation.
    async fn mark_stale(&mut self, server: ServerId) -> StorageResult<()>;
    /// Marks every server with a gateway for compilation.
    async fn mark_all_stale(&mut self) -> StorageResult<()>;
    /// Marks the servers connected with this one for compilation, those that have a gateway.
    async fn mark_neighbours_stale(&mut self, server: ServerId) -> StorageResult<()>;
    /// Some servers marked for compilation, in the order of their ids, after one of them.
    async fn stale_servers(&mut self, after: &str, limit: u32) -> StorageResult<Vec<ServerId>>;
    /// Remembers a removed gateway.
    async fn insert_removed_gateway(&mut self, key: GatewayPublicKey, at: u64) -> StorageResult<()>;
    /// Forgets a removed gateway, because it is enrolled again.
    async fn delete_removed_gateway(&mut self, key: GatewayPublicKey) -> StorageResult<()>;
    /// Whether the gateway was removed.
    async fn is_removed_gateway(&mut self, key: GatewayPublicKey) -> StorageResult<bool>;
    /// Adds an enrolment code and ends the unused ones of the same server.
    async fn insert_enrollment_code(&mut self, row: &EnrollmentCodeRow) -> StorageResult<()>;
    /// An enrolment code by the hash of its secret.
    async fn enrollment_code(&mut self, secret_hash: &str) -> StorageResult<Option<EnrollmentCodeRow>>;
    /// Binds a code to the key that used it.
    async fn use_enrollment_code(&mut self, secret_hash: &str, key: GatewayPublicKey, now: u64) -> StorageResult<()>;
    /// The newest policy of a server.
    async fn policy(&mut self, server: ServerId) -> StorageResult<Option<PolicyRow>>;
    /// The revision of the newest policy of a server, 0 without one.
    async fn policy_revision(&mut self, server: ServerId) -> StorageResult<u64>;
    /// Stores the newest policy of a server.
    async fn put_policy(&mut self, row: &PolicyRow) -> StorageResult<()>;
    /// The rendezvous secret of two gateways; `fresh` becomes it when there is none.
    async fn pair_secret(
        &mut self,
        one: GatewayPublicKey,
        other: GatewayPublicKey,
        fresh: &Secret,
    ) -> StorageResult<Secret>;
    /// The rendezvous secrets that a gateway has with others, by their keys.
    async fn pair_secrets(&mut self, key: GatewayPublicKey) -> StorageResult<BTreeMap<GatewayPublicKey, Secret>>;
    /// Drops the rendezvous secrets of a gateway.
    async fn delete_pair_secrets(&mut self, key: GatewayPublicKey) -> StorageResult<()>;
    /// Relays of the map, ordered by id.
    async fn relays(&mut self) -> StorageResult<Vec<RelayRow>>;
    /// Adds a relay; [`StorageError::Duplicate`] when id or URL is taken.
    async fn insert_relay(&mut self, row: &RelayRow) -> StorageResult<()>;
    /// Writes name and region of a relay.
    async fn update_relay(&mut self, row: &RelayRow) -> StorageResult<()>;
    /// Removes a relay; whether it was there.
    async fn delete_relay(&mut self, id: RelayId) -> StorageResult<bool>;
}

/// Peering requests and agreements.
#[async_trait]
pub trait Peering: Send {
    /// One peering request.
    async fn peering_request(&mut self, id: PeeringRequestId) -> StorageResult<Option<PeeringRequestRow>>;
    /// Peering requests from or to an organization.
    async fn peering_requests(
        &mut self,
        organization: OrganizationId,
        filter: &PeeringFilter,
        slice: &Slice,
    ) -> StorageResult<Vec<PeeringRequestRow>>;
    /// A pending request between two organizations, either way.
    async fn pending_between(
        &mut self,
        one: OrganizationId,
        other: OrganizationId,
        now: u64,
    ) -> StorageResult<Option<PeeringRequestRow>>;
    /// Adds one.
    async fn insert_peering_request(&mut self, row: &PeeringRequestRow) -> StorageResult<()>;
    /// Stores a changed one.
    async fn update_peering_request(&mut self, row: &PeeringRequestRow) -> StorageResult<()>;
    /// Pending ones whose time is over.
    async fn overdue_peering_requests(&mut self, now: u64, limit: u32) -> StorageResult<Vec<PeeringRequestId>>;
    /// One agreement.
    async fn agreement(&mut self, id: AgreementId) -> StorageResult<Option<AgreementRow>>;
    /// Agreements of an organization.
    async fn agreements(
        &mut self,
        organization: OrganizationId,
        status: Option<AgreementStatus>,
        slice: &Slice,
    ) -> StorageResult<Vec<AgreementRow>>;
    /// The agreement between two organizations that has not ended.
    async fn agreement_between(
        &mut self,
        one: OrganizationId,
        other: OrganizationId,
    ) -> StorageResult<Option<AgreementRow>>;
    /// Adds one.
    async fn insert_agreement(&mut self, row: &AgreementRow) -> StorageResult<()>;
    /// Stores a changed one.
    async fn update_agreement(&mut self, row: &AgreementRow) -> StorageResult<()>;
}

/// Channels and grants.
#[async_trait]
pub trait Channels: Send {
    /// One channel, removed or not.
    async fn channel(&mut self, id: ChannelId) -> StorageResult<Option<ChannelRow>>;
    /// Channels of an organization that are not removed.
    async fn channels(
        &mut self,
        organization: OrganizationId,
        filter: &ChannelFilter,
        slice: &Slice,
    ) -> StorageResult<Vec<ChannelRow>>;
    /// Channels of a server that are not removed.
    async fn channels_of_server(&mut self, server: ServerId) -> StorageResult<Vec<ChannelRow>>;
    /// Published channels of an organization.
    async fn endpoints(&mut self, organization: OrganizationId, slice: &Slice) -> StorageResult<Vec<ChannelRow>>;
    /// Adds one; [`StorageError::Duplicate`] when the name is taken.
    async fn insert_channel(&mut self, row: &ChannelRow) -> StorageResult<()>;
    /// Stores a changed one.
    async fn update_channel(&mut self, row: &ChannelRow) -> StorageResult<()>;
    /// One grant.
    async fn grant(&mut self, id: GrantId) -> StorageResult<Option<GrantRow>>;
    /// Grants given or received by an organization.
    async fn grants(
        &mut self,
        organization: OrganizationId,
        filter: &GrantFilter,
        slice: &Slice,
    ) -> StorageResult<Vec<GrantRow>>;
    /// A grant of a channel inside an agreement that waits for an answer now.
    async fn waiting_grant(
        &mut self,
        channel: ChannelId,
        agreement: AgreementId,
        now: u64,
    ) -> StorageResult<Option<GrantRow>>;
    /// Grants of an agreement that have not ended.
    async fn open_grants_of_agreement(&mut self, agreement: AgreementId) -> StorageResult<Vec<GrantRow>>;
    /// Grants of a channel that have not ended.
    async fn open_grants_of_channel(&mut self, channel: ChannelId) -> StorageResult<Vec<GrantRow>>;
    /// Waiting grants that nobody answered in time, and grants in force whose time is over.
    async fn overdue_grants(&mut self, now: u64, limit: u32) -> StorageResult<Vec<GrantId>>;
    /// Adds one.
    async fn insert_grant(&mut self, row: &GrantRow) -> StorageResult<()>;
    /// Stores a changed one.
    async fn update_grant(&mut self, row: &GrantRow) -> StorageResult<()>;
}

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
    /// Connections of a server that wait for both gateways, ordered by id.
    async fn ready_connections_of_server(&mut self, server: ServerId) -> StorageResult<Vec<ConnectionRow>>;
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

/// Engines beside gateways.
#[async_trait]
pub trait Engines: Send {
    /// How the gateway of a server gets on with its engine.
    async fn engine(&mut self, server: ServerId) -> StorageResult<Option<EngineRow>>;
    /// Stores that.
    async fn put_engine(&mut self, row: &EngineRow) -> StorageResult<()>;
    /// The channels of that engine, ordered by id.
    async fn engine_channels(&mut self, server: ServerId) -> StorageResult<Vec<EngineChannel>>;
    /// Stores one of them.
    async fn put_engine_channel(&mut self, server: ServerId, channel: &EngineChannel) -> StorageResult<()>;
    /// Forgets one of them.
    async fn delete_engine_channel(&mut self, server: ServerId, engine_channel: &str) -> StorageResult<()>;
    /// Forgets all of them.
    async fn delete_engine_channels(&mut self, server: ServerId) -> StorageResult<()>;
    /// Which registered channels of a server are which of its engine; removed ones are not.
    async fn engine_links(&mut self, server: ServerId) -> StorageResult<Vec<EngineLinkRow>>;
    /// Published channels of an organization whose engine end is not started.
    async fn channels_not_started(&mut self, organization: OrganizationId) -> StorageResult<Vec<ChannelId>>;
    /// Links a registered channel, or notes another state.
    async fn put_engine_link(&mut self, row: &EngineLinkRow) -> StorageResult<()>;
}

/// Shared servers.
#[async_trait]
pub trait Shares: Send {
    /// One share, ended or not.
    async fn share(&mut self, id: ShareId) -> StorageResult<Option<ShareRow>>;
    /// Shares given or received by an organization, those that ended only when asked for.
    async fn shares(
        &mut self,
        organization: OrganizationId,
        ended: bool,
        slice: &Slice,
    ) -> StorageResult<Vec<ShareRow>>;
    /// Shares of an agreement that have not ended.
    async fn open_shares_of_agreement(&mut self, agreement: AgreementId) -> StorageResult<Vec<ShareRow>>;
    /// Shares of a server that have not ended.
    async fn open_shares_of_server(&mut self, server: ServerId) -> StorageResult<Vec<ShareRow>>;
    /// Shares whose time is over.
    async fn overdue_shares(&mut self, now: u64, limit: u32) -> StorageResult<Vec<ShareId>>;
    /// Connections of a share that have not ended.
    async fn open_connections_of_share(&mut self, share: ShareId) -> StorageResult<Vec<ConnectionRow>>;
    /// Adds one.
    async fn insert_share(&mut self, row: &ShareRow) -> StorageResult<()>;
    /// Stores the end of one.
    async fn update_share(&mut self, row: &ShareRow) -> StorageResult<()>;
}

/// Tokens of automation, invitations, passwords.
#[async_trait]
pub trait Credentials: Send {
    /// One token.
    async fn api_token(&mut self, id: ApiTokenId) -> StorageResult<Option<ApiTokenRow>>;
    /// A token that has not ended, by its hash.
    async fn api_token_by_hash(&mut self, hash: &str, now: u64) -> StorageResult<Option<ApiTokenRow>>;
    /// Tokens of an organization's users.
    async fn api_tokens(&mut self, organization: OrganizationId, slice: &Slice) -> StorageResult<Vec<ApiTokenRow>>;
    /// How many a user has.
    async fn count_api_tokens(&mut self, user: UserId) -> StorageResult<u64>;
    /// Adds one.
    async fn insert_api_token(&mut self, row: &ApiTokenRow, hash: &str) -> StorageResult<()>;
    /// Notes its use.
    async fn api_token_used(&mut self, id: ApiTokenId, at: u64) -> StorageResult<()>;
    /// Removes one.
    async fn delete_api_token(&mut self, id: ApiTokenId) -> StorageResult<()>;
    /// Removes the tokens of a user.
    async fn delete_api_tokens(&mut self, user: UserId) -> StorageResult<()>;
    /// Changes a user's password; the user's tokens go.
    async fn set_password(&mut self, user: UserId, hash: &PasswordHash) -> StorageResult<()>;
    /// Ends the sessions of a user, but for one.
    async fn delete_other_sessions(&mut self, user: UserId, keep: &str) -> StorageResult<()>;
    /// One invitation.
    async fn invitation(&mut self, id: InvitationId) -> StorageResult<Option<InvitationRow>>;
    /// An invitation that has not ended, by the hash of its code.
    async fn invitation_by_hash(&mut self, hash: &str, now: u64) -> StorageResult<Option<InvitationRow>>;
    /// Invitations of an organization.
    async fn invitations(&mut self, organization: OrganizationId, slice: &Slice) -> StorageResult<Vec<InvitationRow>>;
    /// How many invitations of an organization there are.
    async fn count_invitations(&mut self, organization: OrganizationId) -> StorageResult<u64>;
    /// The invitation of an address into an organization.
    async fn invitation_to(
        &mut self,
        organization: OrganizationId,
        email: &str,
    ) -> StorageResult<Option<InvitationRow>>;
    /// Adds one, in the place of an older one to the same address.
    async fn insert_invitation(&mut self, row: &InvitationRow, hash: &str) -> StorageResult<()>;
    /// Removes one.
    async fn delete_invitation(&mut self, id: InvitationId) -> StorageResult<()>;
    /// Removes tokens and invitations that have ended.
    async fn purge_credentials(&mut self, now: u64) -> StorageResult<()>;
}

/// Devices, and the kinds of exchange they perform.
#[async_trait]
pub trait Devices: Send {
    /// One device, removed or not.
    async fn device(&mut self, id: DeviceId) -> StorageResult<Option<DeviceRow>>;
    /// Devices of an organization, or of the platform, that are not removed.
    async fn devices(&mut self, owner: Option<OrganizationId>, slice: &Slice) -> StorageResult<Vec<DeviceRow>>;
    /// Devices that are a server or are reached by its gateway, and are not removed.
    async fn devices_of_server(&mut self, server: ServerId) -> StorageResult<Vec<DeviceRow>>;
    /// How many devices that are no servers an organization, or the platform, has.
    async fn count_devices(&mut self, owner: Option<OrganizationId>) -> StorageResult<u64>;
    /// Adds one; [`StorageError::Duplicate`] when the name is taken.
    async fn insert_device(&mut self, row: &DeviceRow) -> StorageResult<()>;
    /// Stores a changed one; [`StorageError::Duplicate`] when the name is taken.
    async fn update_device(&mut self, row: &DeviceRow) -> StorageResult<()>;
    /// All behaviors, ordered by name.
    async fn behaviors(&mut self) -> StorageResult<Vec<BehaviorRow>>;
    /// Adds one, or describes it anew.
    async fn put_behavior(&mut self, row: &BehaviorRow) -> StorageResult<()>;
    /// Removes one; whether it was there.
    async fn delete_behavior(&mut self, name: &str) -> StorageResult<bool>;
    /// Whether a channel or a device that is not removed names it.
    async fn is_behavior_used(&mut self, name: &str) -> StorageResult<bool>;
}

/// Tokens of devices, and the keys that sign them.
#[async_trait]
pub trait DeviceTokens: Send {
    /// What is known of one token.
    async fn device_token(&mut self, id: DeviceTokenId) -> StorageResult<Option<DeviceTokenRow>>;
    /// Tokens of an organization's devices, or of one of them, that have not ended.
    async fn device_tokens(
        &mut self,
        organization: OrganizationId,
        device: Option<DeviceId>,
        now: u64,
        slice: &Slice,
    ) -> StorageResult<Vec<DeviceTokenRow>>;
    /// How many tokens of a device have not ended.
    async fn count_device_tokens(&mut self, device: DeviceId, now: u64) -> StorageResult<u64>;
    /// Adds one.
    async fn insert_device_token(&mut self, row: &DeviceTokenRow) -> StorageResult<()>;
    /// Revokes one.
    async fn revoke_device_token(&mut self, id: DeviceTokenId, now: u64) -> StorageResult<()>;
    /// Revokes those of a device; how many.
    async fn revoke_tokens_of_device(&mut self, device: DeviceId, now: u64) -> StorageResult<u64>;
    /// Revokes every one there is; how many.
    async fn revoke_all_device_tokens(&mut self, now: u64) -> StorageResult<u64>;
    /// Removes those that have ended.
    async fn purge_device_tokens(&mut self, now: u64) -> StorageResult<()>;
    /// The keys, in the order in which they sign.
    async fn token_keys(&mut self) -> StorageResult<Vec<TokenKeyRow>>;
    /// Adds one.
    async fn insert_token_key(&mut self, row: &TokenKeyRow) -> StorageResult<()>;
    /// Removes one.
    async fn delete_token_key(&mut self, kid: &str) -> StorageResult<()>;
    /// How long tokens live by default and at most, seconds.
    async fn token_terms(&mut self) -> StorageResult<(u64, u64)>;
    /// Changes that.
    async fn put_token_terms(&mut self, default_secs: u64, max_secs: u64) -> StorageResult<()>;
}

/// Links between devices, and counted executions.
#[async_trait]
pub trait Links: Send {
    /// One link.
    async fn link(&mut self, id: LinkId) -> StorageResult<Option<LinkRow>>;
    /// Links from and to devices of an organization.
    async fn links(&mut self, organization: OrganizationId, slice: &Slice) -> StorageResult<Vec<LinkRow>>;
    /// Links from and to a device.
    async fn links_of_device(&mut self, id: DeviceId) -> StorageResult<Vec<LinkRow>>;
    /// How many there are of them.
    async fn count_links_of_device(&mut self, id: DeviceId) -> StorageResult<u64>;
    /// Links between devices of two organizations, either way.
    async fn links_between(&mut self, one: OrganizationId, other: OrganizationId) -> StorageResult<Vec<LinkRow>>;
    /// The devices a device is linked to.
    async fn linked_devices(&mut self, source: DeviceId) -> StorageResult<Vec<DeviceRow>>;
    /// Devices of others that those of an organization may be linked to.
    async fn linkable_devices(
        &mut self,
        organization: OrganizationId,
        tenant: TenantId,
        slice: &Slice,
    ) -> StorageResult<Vec<DeviceRow>>;
    /// Adds one; [`StorageError::Duplicate`] when the two are linked already.
    async fn insert_link(&mut self, row: &LinkRow) -> StorageResult<()>;
    /// Removes one.
    async fn delete_link(&mut self, id: LinkId) -> StorageResult<()>;
    /// Adds to the executions of a device on a day.
    async fn add_executions(&mut self, row: &ExecutionsRow) -> StorageResult<()>;
    /// Executions of an organization's devices, ordered by day, device and behavior.
    async fn executions(
        &mut self,
        organization: OrganizationId,
        filter: &ExecutionsFilter,
        slice: &Slice,
    ) -> StorageResult<Vec<ExecutionsRow>>;
    /// Removes days from before.
    async fn purge_executions(&mut self, before: &str) -> StorageResult<()>;
}

/// Second factors of users.
#[async_trait]
pub trait SecondFactors: Send {
    /// That of a user, confirmed or not.
    async fn totp(&mut self, user: UserId) -> StorageResult<Option<TotpRow>>;
    /// Stores it, new or changed.
    async fn put_totp(&mut self, row: &TotpRow) -> StorageResult<()>;
    /// Removes it with the recovery codes.
    async fn delete_totp(&mut self, user: UserId) -> StorageResult<()>;
    /// Adds a recovery code.
    async fn insert_recovery_code(&mut self, user: UserId, hash: &str) -> StorageResult<()>;
    /// Spends a recovery code; whether it was there.
    async fn use_recovery_code(&mut self, user: UserId, hash: &str) -> StorageResult<bool>;
    /// How many are left.
    async fn count_recovery_codes(&mut self, user: UserId) -> StorageResult<u64>;
}

/// Accounts at providers of OpenID Connect, linked to users.
#[async_trait]
pub trait Identities: Send {
    /// Those of an account, one in each organization at most.
    async fn identities_of_account(&mut self, issuer: &str, subject: &str) -> StorageResult<Vec<IdentityRow>>;
    /// Those of a user, one of each issuer at most.
    async fn identities_of_user(&mut self, user: UserId) -> StorageResult<Vec<IdentityRow>>;
    /// Adds one; [`StorageError::Duplicate`] when the account or the user is linked already.
    async fn insert_identity(&mut self, row: &IdentityRow) -> StorageResult<()>;
    /// Notes its use.
    async fn identity_used(&mut self, id: IdentityId, at: u64) -> StorageResult<()>;
    /// Removes one.
    async fn delete_identity(&mut self, id: IdentityId) -> StorageResult<()>;
    /// Users of all organizations with this address, oldest first, so many at most.
    async fn users_with_address(&mut self, email: &str, limit: u32) -> StorageResult<Vec<UserRow>>;
    /// Invitations of all organizations to this address that have not ended, oldest first, so many at most.
    async fn invitations_to_address(&mut self, email: &str, now: u64, limit: u32) -> StorageResult<Vec<InvitationRow>>;
}

/// Subscription tiers, and how many of what there are.
#[async_trait]
pub trait Tiers: Send {
    /// All tiers, ordered by name.
    async fn tiers(&mut self) -> StorageResult<Vec<TierRow>>;
    /// Adds or replaces one; an initial one takes that from the others.
    async fn put_tier(&mut self, row: &TierRow) -> StorageResult<()>;
    /// The tier of an organization.
    async fn tier_of(&mut self, organization: OrganizationId) -> StorageResult<Option<TierRow>>;
    /// Puts an organization into a tier.
    async fn assign_tier(&mut self, organization: OrganizationId, name: &str) -> StorageResult<()>;
    /// Servers of an organization that are not removed.
    async fn count_servers(&mut self, organization: OrganizationId) -> StorageResult<u64>;
    /// Agreements of an organization with others that have not ended.
    async fn count_peers(&mut self, organization: OrganizationId) -> StorageResult<u64>;
    /// Channels of a server that are not removed.
    async fn count_channels(&mut self, server: ServerId) -> StorageResult<u64>;
    /// The servers of an organization with the most channels, the fullest first.
    async fn fullest_servers(&mut self, organization: OrganizationId, most: u32) -> StorageResult<Vec<ServerCountRow>>;
    /// All organizations.
    async fn platform_organizations(&mut self, slice: &Slice) -> StorageResult<Vec<PlatformOrganizationRow>>;
    /// When an organization asked another one without success since then, newest first, so many at most.
    async fn vain_requests(
        &mut self,
        from: OrganizationId,
        to: OrganizationId,
        since: u64,
        most: u32,
    ) -> StorageResult<Vec<u64>>;
}

/// Mutating requests that came with a key.
#[async_trait]
pub trait Idempotency: Send {
    /// What is known of a key that was used since then.
    async fn idempotency_key(&mut self, user: UserId, key: &str, since: u64) -> StorageResult<Option<IdempotencyRow>>;
    /// Claims a key; [`StorageError::Duplicate`] when it is claimed already. The oldest of the user above `keep` go.
    async fn insert_idempotency_key(
        &mut self,
        user: UserId,
        key: &str,
        request_hash: &str,
        now: u64,
        keep: u32,
    ) -> StorageResult<()>;
    /// Keeps the answer to a claimed key.
    async fn put_idempotent_answer(
        &mut self,
        user: UserId,
        key: &str,
        request_hash: &str,
        status: u16,
        answer: Option<&str>,
    ) -> StorageResult<()>;
    /// Removes keys from before.
    async fn purge_idempotency_keys(&mut self, before: u64) -> StorageResult<()>;
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

/// Heads of the audit logs of gateways.
#[async_trait]
pub trait GatewayAudits: Send {
    /// What the gateway of a server reported; none: nothing.
    async fn head_book(&mut self, server: ServerId) -> StorageResult<Option<HeadBook>>;
    /// Stores it, new or changed.
    async fn put_head_book(&mut self, server: ServerId, book: &HeadBook) -> StorageResult<()>;
    /// Whether an alarm stands, for lists of servers.
    async fn set_audit_alarm(&mut self, server: ServerId, stands: bool) -> StorageResult<()>;
    /// Adds a head to the history, of which the newest `keep` stay.
    async fn insert_kept_head(&mut self, row: &KeptHeadRow, keep: u64) -> StorageResult<()>;
    /// The history before an entry, newest first.
    async fn kept_heads(&mut self, server: ServerId, before: u64, limit: u32) -> StorageResult<Vec<KeptHeadRow>>;
    /// Removes heads of the history that were reported before a time.
    async fn purge_kept_heads(&mut self, before: u64) -> StorageResult<()>;
}

/// The audit log, and what time alone removes.
#[async_trait]
pub trait Audit: Send {
    /// The newest entry of a chain.
    async fn last_audit(&mut self, chain: &str) -> StorageResult<Option<AuditRow>>;
    /// Appends an entry; its sequence must be the next one.
    async fn append_audit(&mut self, row: &AuditRow) -> StorageResult<()>;
    /// Entries of a chain, newest first; `before` 0: from the newest.
    /// Entries of a chain behind position `beyond` in this order; 0: from the first of them.
    async fn audit(
        &mut self,
        chain: &str,
        filter: &AuditFilter,
        order: AuditOrder,
        beyond: u64,
        limit: u32,
    ) -> StorageResult<Vec<AuditRow>>;
    /// Where a chain begins, once its oldest entries were removed.
    async fn audit_anchor(&mut self, chain: &str) -> StorageResult<Option<AuditAnchor>>;
    /// The chains of the oldest entries from before a time, of so many entries.
    async fn chains_before(&mut self, before: u64, limit: u32) -> StorageResult<Vec<String>>;
    /// The oldest entries of a chain, up to the first one that is not from before a time.
    async fn audit_before(&mut self, chain: &str, before: u64, limit: u32) -> StorageResult<Vec<AuditRow>>;
    /// Removes the oldest entries of a chain, up to this one, which becomes its anchor.
    async fn remove_audit(&mut self, chain: &str, anchor: &AuditAnchor) -> StorageResult<()>;
    /// Removes ended sessions, enrolment codes that ended before `codes`, and removed gateways from before `gateways`.
    async fn purge(&mut self, now: u64, codes: u64, gateways: u64) -> StorageResult<()>;
}

/// What several replicas share, and what must not be used twice.
#[async_trait]
pub trait Replicas: Send {
    /// A fact about the platform; `fresh` becomes it when there is none.
    async fn fact(&mut self, name: &str, fresh: &str) -> StorageResult<String>;
    /// Remembers a nonce until a time; false: it was used before.
    async fn spend_nonce(&mut self, digest: &str, until: u64) -> StorageResult<bool>;
    /// A replica lives.
    async fn put_replica(&mut self, replica: &str, now: u64) -> StorageResult<()>;
    /// Forgets replicas that have been silent, with what was known through them.
    async fn delete_replicas(&mut self, silent_since: u64) -> StorageResult<()>;
    /// The gateway of a server watches at a replica from now on; its reports begin anew.
    async fn put_watch(&mut self, server: ServerId, replica: &str, session: u64) -> StorageResult<()>;
    /// That watch has ended.
    async fn delete_watch(&mut self, server: ServerId, replica: &str, session: u64) -> StorageResult<()>;
    /// When the replica at which a gateway watches was last heard; none: nobody watches, or the replica is gone.
    async fn watch_heard(&mut self, server: ServerId, alive_since: u64) -> StorageResult<Option<u64>>;
    /// Keeps what a watching gateway reports.
    async fn put_report(&mut self, server: ServerId, report: &ConnectionReport, at: u64) -> StorageResult<()>;
    /// Forgets what a gateway reported about a connection.
    async fn delete_report(&mut self, server: ServerId, connection: ConnectionId) -> StorageResult<()>;
    /// What the gateway of a server last reported about a connection, and when; none, when it watches no more.
    async fn report(
        &mut self,
        server: ServerId,
        connection: ConnectionId,
        alive_since: u64,
    ) -> StorageResult<Option<(ConnectionReport, u64)>>;
    /// Servers whose newest policy has a revision above this, with it, in the order of revisions.
    async fn policies_after(&mut self, revision: u64, limit: u32) -> StorageResult<Vec<(ServerId, u64)>>;
}

/// The keys that sign policies, and the tokens of the platform.
#[async_trait]
pub trait PolicyKeys: Send {
    /// The keys, oldest first.
    async fn policy_keys(&mut self) -> StorageResult<Vec<PolicyKeyRow>>;
    /// Adds one, or stores what it does now.
    async fn put_policy_key(&mut self, row: &PolicyKeyRow) -> StorageResult<()>;
    /// Forgets one.
    async fn delete_policy_key(&mut self, key: GatewayPublicKey) -> StorageResult<()>;
    /// How many gateways have confirmed no policy of this revision or a newer one.
    async fn gateways_before(&mut self, revision: u64) -> StorageResult<u64>;
    /// Tokens of one kind, oldest first.
    async fn platform_tokens(&mut self, kind: &str) -> StorageResult<Vec<PlatformTokenRow>>;
    /// Adds one, or stores its end.
    async fn put_platform_token(&mut self, kind: &str, row: &PlatformTokenRow) -> StorageResult<()>;
}

/// What is going to be asked for one by one.
#[derive(Debug, Clone)]
pub enum Ahead {
    /// [`Accounts::organization`].
    Organizations(BTreeSet<OrganizationId>),
    /// [`Accounts::user`].
    Users(BTreeSet<UserId>),
    /// [`Servers::server`].
    Servers(BTreeSet<ServerId>),
    /// [`Servers::policy_revision`].
    Revisions(BTreeSet<ServerId>),
    /// [`Channels::channel`].
    Channels(BTreeSet<ChannelId>),
    /// [`Channels::open_grants_of_channel`].
    GrantsOfChannels(BTreeSet<ChannelId>),
    /// [`Peering::agreement`].
    Agreements(BTreeSet<AgreementId>),
    /// [`Peering::agreement_between`] the one and each of the others.
    AgreementsWith(OrganizationId, BTreeSet<OrganizationId>),
    /// [`Peering::pending_between`] the one and each of the others, at this time.
    RequestsWith(OrganizationId, BTreeSet<OrganizationId>, u64),
    /// [`Connections::connection_of_grant`].
    ConnectionsOfGrants(BTreeSet<GrantId>),
    /// [`Shares::open_connections_of_share`].
    ConnectionsOfShares(BTreeSet<ShareId>),
    /// [`Deliveries::delivery`].
    Deliveries(BTreeSet<ConnectionId>),
    /// [`Devices::device`].
    Devices(BTreeSet<DeviceId>),
    /// [`Replicas::watch_heard`] since a time.
    Watches(BTreeSet<ServerId>, u64),
    /// [`Replicas::report`] since a time.
    Reports(BTreeSet<(ServerId, ConnectionId)>, u64),
}

/// Lists.
#[async_trait]
pub trait ReadAhead: Send {
    /// Reads in one query what is going to be asked for one by one: those questions cost nothing then. In a transaction that
    /// writes it does nothing.
    async fn read_ahead(&mut self, what: Ahead) -> StorageResult<()>;
}

/// A transaction: every query, and the commit. Dropped without commit, nothing happened.
#[async_trait]
pub trait Transaction:
    Accounts
    + Servers
    + Peering
    + Channels
    + Connections
    + Deliveries
    + GatewayAudits
    + Devices
    + DeviceTokens
    + PolicyKeys
    + Links
    + SecondFactors
    + Identities
    + Engines
    + Credentials
    + Shares
    + Tiers
    + Idempotency
    + Audit
    + Replicas
    + ReadAhead
    + Send
{
    /// Tells the other replicas, with the commit.
    async fn announce(&mut self, news: News) -> StorageResult<()>;
    /// Makes the changes durable.
    async fn commit(self: Box<Self>) -> StorageResult<()>;
}
