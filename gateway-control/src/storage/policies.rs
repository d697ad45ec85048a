//! Policies, which of them are to be compiled, and the secrets of pairs of gateways.

use std::collections::BTreeMap;

use async_trait::async_trait;
use gateway_proto::{
    id::{OrganizationId, ServerId},
    identity::GatewayPublicKey,
    policy::Secret,
};

use super::{StorageResult, rows::rows};

/// Policies, and marks for their compilation.
#[async_trait]
pub trait Policies: Send {
    /// The newest policy of a server.
    async fn policy(&mut self, server: ServerId) -> StorageResult<Option<PolicyRow>>;
    /// The revision of the newest policy of a server, 0 without one.
    async fn policy_revision(&mut self, server: ServerId) -> StorageResult<u64>;
    /// Stores the newest policy of a server.
    async fn put_policy(&mut self, row: &PolicyRow) -> StorageResult<()>;
    /// The next policy of a server exceeds this revision, which its gateway has and the storage does not remember.
    async fn raise_floor(&mut self, server: ServerId, revision: u64) -> StorageResult<()>;
    /// The rendezvous secrets that a gateway has with others, by their keys.
    async fn pair_secrets(&mut self, key: GatewayPublicKey) -> StorageResult<BTreeMap<GatewayPublicKey, Secret>>;
    /// Adds those that it has with others from now on; one that is there stays.
    async fn put_pair_secrets(
        &mut self,
        key: GatewayPublicKey,
        others: &BTreeMap<GatewayPublicKey, Secret>,
    ) -> StorageResult<()>;
    /// Drops the rendezvous secrets of a gateway.
    async fn delete_pair_secrets(&mut self, key: GatewayPublicKey) -> StorageResult<()>;
    /// Marks servers for compilation since now, Unix milliseconds, those that have a gateway; `ends`: something ends by it. A
    /// mark that is there already keeps its time, and that something ends by it.
    async fn mark_stale(&mut self, servers: &[ServerId], ends: bool, now_ms: u64) -> StorageResult<()>;
    /// Marks every server with a gateway for compilation since now, Unix milliseconds.
    async fn mark_all_stale(&mut self, now_ms: u64) -> StorageResult<()>;
    /// Marks the servers connected with this one for compilation since now, Unix milliseconds, those that have a gateway.
    async fn mark_neighbours_stale(&mut self, server: ServerId, now_ms: u64) -> StorageResult<()>;
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
    /// Puts a marked server behind the others of its organization in the same line: it could not be compiled now, Unix
    /// milliseconds.
    async fn put_behind(&mut self, server: ServerId, now_ms: u64) -> StorageResult<()>;
    /// A server marked for compilation whose newest policy is still signed with this key, and its name; none: nobody needs the
    /// key for a policy any more.
    async fn stale_policy_of(&mut self, signer: GatewayPublicKey) -> StorageResult<Option<(ServerId, String)>>;
}

rows! {
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
        /// Revision of the first one that names the policy keys that it names, and no others.
        keys_since: u64,
        /// The signed envelope, JSON.
        envelope: Sealed,
        /// What it changes in the one before, JSON; none: too much, or there is none before it.
        delta: Option<Sealed>,
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
