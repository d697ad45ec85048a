//! Servers, their gateways and policies, and the relays.

use std::collections::BTreeMap;

use async_trait::async_trait;
use gateway_proto::{
    id::{EnrollmentCodeId, OrganizationId, RelayId, ServerId, UserId},
    identity::{GatewayPublicKey, NoiseBinding},
    policy::Secret,
};

use super::{Slice, StorageResult, rows::rows};

/// Servers, their gateways, enrolment codes and policies.
#[async_trait]
pub trait Servers: Send {
    /// One server, removed or not.
    async fn server(&mut self, id: ServerId) -> StorageResult<Option<ServerRow>>;
    /// The server of a gateway.
    async fn server_by_gateway(&mut self, key: GatewayPublicKey) -> StorageResult<Option<ServerRow>>;
    /// Servers of an organization that are not removed.
    async fn servers(&mut self, organization: OrganizationId, slice: &Slice) -> StorageResult<Vec<ServerRow>>;
    /// Adds one; [`super::StorageError::Duplicate`] when the name is taken.
    async fn insert_server(&mut self, row: &ServerRow) -> StorageResult<()>;
    /// Stores a changed one.
    async fn update_server(&mut self, row: &ServerRow) -> StorageResult<()>;
    /// Marks servers for compilation since now, Unix milliseconds, those that have a gateway; `ends`: something ends by it.
    async fn mark_stale(&mut self, servers: &[ServerId], ends: bool, now_ms: u64) -> StorageResult<()>;
    /// Marks every server with a gateway for compilation.
    async fn mark_all_stale(&mut self) -> StorageResult<()>;
    /// Marks the servers connected with this one for compilation, those that have a gateway.
    async fn mark_neighbours_stale(&mut self, server: ServerId) -> StorageResult<()>;
    /// Some servers marked for compilation, in the order of their ids, after one of them.
    async fn stale_servers(&mut self, after: &str, limit: u32) -> StorageResult<Vec<ServerId>>;
    /// Servers marked for compilation of one organization, the oldest mark first: of the next one after `after` that has any.
    /// `ends`: those by which something ends, or else the others.
    async fn stale_servers_of_next(
        &mut self,
        after: Option<OrganizationId>,
        ends: bool,
        limit: u32,
    ) -> StorageResult<Vec<StaleServerRow>>;
    /// Puts a marked server behind the others of its organization: it could not be compiled now, Unix milliseconds.
    async fn put_behind(&mut self, server: ServerId, now_ms: u64) -> StorageResult<()>;
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
    /// Enrolment codes of a server that can still be used.
    async fn open_enrollment_codes(&mut self, server: ServerId, now: u64) -> StorageResult<Vec<EnrollmentCodeRow>>;
    /// Enrolment codes that a user made and nobody used, ended or not.
    async fn unused_codes_of_user(&mut self, user: UserId) -> StorageResult<Vec<EnrollmentCodeRow>>;
    /// Ends a code that nobody used.
    async fn delete_enrollment_code(&mut self, id: EnrollmentCodeId) -> StorageResult<()>;
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
    /// Adds a relay; [`super::StorageError::Duplicate`] when id or URL is taken.
    async fn insert_relay(&mut self, row: &RelayRow) -> StorageResult<()>;
    /// Writes name and region of a relay.
    async fn update_relay(&mut self, row: &RelayRow) -> StorageResult<()>;
    /// Removes a relay; whether it was there.
    async fn delete_relay(&mut self, id: RelayId) -> StorageResult<bool>;
}

rows! {
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
        /// Id.
        id: EnrollmentCodeId,
        /// SHA-256 of the secret, hex.
        secret_hash: String,
        /// Server.
        server: ServerId,
        /// The user who made it; none: it is from a time when that was not written down.
        issued_by: Option<UserId>,
        /// End.
        expires_at: u64,
        /// The key that used it.
        used_by: Option<GatewayPublicKey>,
        /// When.
        used_at: Option<u64>,
    }
    /// A server whose policy must be compiled.
    StaleServerRow {
        /// Server.
        server: ServerId,
        /// Organization.
        organization: OrganizationId,
        /// Entries that its policy has, about.
        entries: u64,
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
}

/// A text that holds secrets, here a policy envelope: masked in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(pub String);

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(masked)")
    }
}
