//! What replicas know of each other's gateways.

use async_trait::async_trait;
use gateway_proto::{
    api::gateway::ConnectionReport,
    id::{ConnectionId, ServerId},
};

use super::StorageResult;

/// What several replicas share, and what must not be used twice.
#[async_trait]
pub trait Replicas: Send {
    /// A fact about the platform; `fresh` becomes it when there is none.
    async fn fact(&mut self, name: &str, fresh: &str) -> StorageResult<String>;
    /// A fact about the platform; none: nobody has said it.
    async fn known_fact(&mut self, name: &str) -> StorageResult<Option<String>>;
    /// Remembers a nonce until a time; false: it was used before.
    async fn spend_nonce(&mut self, digest: &str, until: u64) -> StorageResult<bool>;
    /// A replica lives.
    async fn put_replica(&mut self, replica: &str, now: u64) -> StorageResult<()>;
    /// Forgets replicas that have been silent, with what was known through them.
    async fn delete_replicas(&mut self, silent_since: u64) -> StorageResult<()>;
    /// The gateway of a server watches at a replica from now on; its reports begin anew. False, and nothing is changed: this watch, or
    /// a newer one at the same replica, is known already.
    async fn put_watch(&mut self, server: ServerId, replica: &str, session: u64) -> StorageResult<bool>;
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
    /// What the gateway of a server last reported about its connections; nothing, when it watches no more.
    async fn reports_of_server(&mut self, server: ServerId, alive_since: u64) -> StorageResult<Vec<ConnectionReport>>;
    /// Servers whose newest policy has a revision above this, with it, in the order of revisions.
    async fn policies_after(&mut self, revision: u64, limit: u32) -> StorageResult<Vec<(ServerId, u64)>>;
}
