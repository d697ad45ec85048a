//! Storage: what the service keeps, behind traits. The only SQL of the control plane is below this module.
//!
//! Everything happens in an explicit [`Transaction`]: [`Storage::read`] for a consistent view, [`Storage::begin`] for
//! changes, which are nothing until [`Transaction::commit`] returned, and durable from then on. Writers are serialised
//! by the implementation, so what a writing transaction has read is still true when it commits.
//!
//! Rows are plain values; a row is changed by reading it, changing it and storing it whole.

mod accounts;
mod ahead;
mod audit;
mod channels;
mod connections;
mod credentials;
mod deliveries;
mod device_tokens;
mod devices;
mod engines;
mod enrollment_codes;
mod gateway_audits;
mod idempotency;
mod identities;
mod links;
mod news;
mod peering;
mod policies;
mod policy_connections;
mod policy_keys;
mod relays;
mod replicas;
mod rows;
mod senders;
mod servers;
mod shares;
mod sql;
mod tiers;
mod totp;

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;

pub use self::{
    accounts::*,
    ahead::*,
    audit::*,
    channels::*,
    connections::*,
    credentials::*,
    deliveries::*,
    device_tokens::*,
    devices::*,
    engines::*,
    enrollment_codes::*,
    gateway_audits::*,
    idempotency::*,
    identities::*,
    links::*,
    news::{Heard, News, NewsLine},
    peering::*,
    policies::*,
    policy_connections::*,
    policy_keys::*,
    relays::*,
    replicas::*,
    senders::*,
    servers::*,
    shares::*,
    sql::{
        BackupError, KeptFile, Location, LocationError, PostgresServer, SqlStorage, Unpacked, back_up, queries_run,
        unpack,
    },
    tiers::*,
    totp::*,
};

/// Why the storage did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The database said no.
    #[error("the database failed")]
    Database(#[source] sqlx::Error),
    /// The database cannot be reached, or is stopping or starting.
    #[error("the database cannot be reached")]
    Unavailable(#[source] Arc<sqlx::Error>),
    /// It can be read, and not be changed.
    #[error("the disk of the database is full")]
    Full(#[source] Arc<sqlx::Error>),
    /// The same, for another reason.
    #[error("the disk of the database fails, or what is on it became read-only")]
    ReadOnly(#[source] Arc<sqlx::Error>),
    /// It was changed by a newer version than ours.
    #[error(
        "a newer version of gateway-control has changed the schema of the database, and an older one writes nothing to it any \
         more: start the newer version here, too (docs/control-plane.md, Upgrading)"
    )]
    Outdated,
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

impl StorageError {
    /// The same once more, for somebody else who waits for the database; none: it is about what one of them wants.
    pub fn for_others(&self) -> Option<Self> {
        match self {
            Self::Unavailable(cause) => Some(Self::Unavailable(cause.clone())),
            Self::Full(cause) => Some(Self::Full(cause.clone())),
            Self::ReadOnly(cause) => Some(Self::ReadOnly(cause.clone())),
            Self::Outdated => Some(Self::Outdated),
            Self::Busy => Some(Self::Busy),
            Self::Database(_) | Self::Nul | Self::Migrate(_) | Self::Unreadable(_) | Self::Duplicate => None,
        }
    }
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
    /// The same for what watches, health checks, other replicas and time need: however long people's lists are, nobody stands in
    /// their way.
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

/// A transaction: every query, and the commit. Dropped without commit, nothing happened.
#[async_trait]
pub trait Transaction:
    Accounts
    + Servers
    + EnrollmentCodes
    + Policies
    + Relays
    + Peering
    + Channels
    + Connections
    + Senders
    + PolicyConnections
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
