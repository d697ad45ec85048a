//! The queries, once, for two databases.
//!
//! | | SQLite | PostgreSQL |
//! |---|---|---|
//! | where | one file, WAL, fully synchronous | a server, shared by several replicas |
//! | writers | one connection, `BEGIN IMMEDIATE` | one advisory lock, held to the end of the transaction |
//! | readers | snapshot of the WAL | `REPEATABLE READ READ ONLY` |
//! | schema | changed at the start | the same, while nobody writes; older replicas write nothing from then on |
//!
//! Either way one writer follows the other, so what a writing transaction has read is still true when it commits, and
//! an acknowledged write survives a kill or a power cut. The schema and the queries keep to what both understand: TEXT,
//! BIGINT, BOOLEAN, `$1` placeholders, `ON CONFLICT`, partial indexes.

mod accounts;
mod ahead;
mod audit;
mod backup;
mod channels;
mod connections;
mod contact;
mod credentials;
mod deliveries;
mod device_tokens;
mod devices;
mod engines;
mod enrollment_codes;
mod gateway_audits;
mod idempotency;
mod identities;
mod keys;
mod line;
mod links;
mod location;
mod open;
mod peering;
mod policies;
mod policy_connections;
mod policy_keys;
mod pool;
mod query;
mod relays;
mod replicas;
mod schema;
mod senders;
mod servers;
mod shares;
mod tiers;
mod totp;

#[cfg(test)]
mod full;
#[cfg(test)]
mod plans;
#[cfg(test)]
mod silence;

use std::{str::FromStr, sync::Arc};

use async_trait::async_trait;
use gateway_proto::names;
use sqlx::SqlitePool;
use tokio::sync::Mutex;

pub use self::backup::{BackupError, KeptFile, Unpacked, back_up, unpack};
pub use self::location::{Location, LocationError, PostgresServer};
pub use self::query::queries_run;
use self::{
    ahead::Shelf,
    contact::Contact,
    line::{CHANNEL, Leadership, PostgresLine, SERVERS_IN_NEWS},
    pool::{PgWork, Pool},
    query::{Columns, Connection, Db, IDS_AT_ONCE, Row, query, query_in, query_rows, unreadable},
};
use super::{News, NewsLine, Slice, Storage, StorageError, StorageResult, Transaction};

/// A consistent view for reading, on PostgreSQL.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// Where writers of a PostgreSQL database queue up: any number will do that nobody else in this database uses.
const WRITERS_LOCK: i64 = 0x6761_7465_7761_7901;

/// The database.
#[derive(Debug, Clone)]
pub struct SqlStorage {
    pools: Pools,
}

#[derive(Debug, Clone)]
enum Pools {
    Sqlite { readers: SqlitePool, gateways: SqlitePool, writer: SqlitePool },
    Postgres(Postgres),
}

#[derive(Debug, Clone)]
struct Postgres {
    readers: Pool,
    /// Readers that watches need not share with people.
    gateways: Pool,
    writer: Pool,
    contact: Contact,
    leadership: Arc<Mutex<Leadership>>,
}

#[async_trait]
impl Storage for SqlStorage {
    async fn read(&self) -> StorageResult<Box<dyn Transaction>> {
        Ok(Box::new(match &self.pools {
            Pools::Sqlite { readers, .. } => SqlTransaction::snapshot(Inner::Sqlite(readers.begin().await?)),
            Pools::Postgres(Postgres { readers, .. }) => {
                SqlTransaction::snapshot(Inner::Postgres(readers.begin(SNAPSHOT).await?))
            }
        }))
    }

    async fn read_for_gateways(&self) -> StorageResult<Box<dyn Transaction>> {
        Ok(Box::new(match &self.pools {
            Pools::Sqlite { gateways, .. } => SqlTransaction::snapshot(Inner::Sqlite(gateways.begin().await?)),
            Pools::Postgres(Postgres { gateways, .. }) => {
                SqlTransaction::snapshot(Inner::Postgres(gateways.begin(SNAPSHOT).await?))
            }
        }))
    }

    async fn begin(&self) -> StorageResult<Box<dyn Transaction>> {
        Ok(Box::new(self.writing().await?))
    }

    async fn ping(&self) -> StorageResult<()> {
        match &self.pools {
            Pools::Sqlite { gateways, .. } => {
                sqlx::query("SELECT 1").execute(gateways).await?;
            }
            Pools::Postgres(Postgres { gateways, .. }) => gateways.begin(SNAPSHOT).await?.commit().await?,
        }
        Ok(())
    }

    fn news_line(&self) -> Option<Box<dyn NewsLine>> {
        match &self.pools {
            Pools::Sqlite { .. } => None,
            Pools::Postgres(pools) => Some(Box::new(PostgresLine::new(pools.contact.clone()))),
        }
    }

    async fn lead(&self) -> StorageResult<bool> {
        match &self.pools {
            Pools::Sqlite { .. } => Ok(true),
            Pools::Postgres(pools) => pools.leadership.lock().await.hold(&pools.contact).await,
        }
    }

    async fn close(&self) {
        match &self.pools {
            Pools::Sqlite { readers, gateways, writer } => {
                gateways.close().await;
                readers.close().await;
                writer.close().await;
            }
            Pools::Postgres(Postgres { readers, gateways, writer, contact, leadership }) => {
                leadership.lock().await.end(contact).await;
                gateways.close().await;
                readers.close().await;
                writer.close().await;
            }
        }
    }
}

impl SqlStorage {
    async fn writing(&self) -> StorageResult<SqlTransaction> {
        Ok(match &self.pools {
            Pools::Sqlite { writer, .. } => {
                SqlTransaction::writing(Inner::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?))
            }
            Pools::Postgres(Postgres { writer, .. }) => {
                // READ COMMITTED: what is read after the lock was granted is what the writer before has committed.
                let mut inner = writer.begin("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await?;
                inner.execute(sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(WRITERS_LOCK)).await?;
                schema::must_be_ours(&mut inner).await?;
                SqlTransaction::writing(Inner::Postgres(inner))
            }
        })
    }
}

/// A running transaction; rolled back when it is dropped.
struct SqlTransaction {
    inner: Inner,
    /// It reads, and nothing changes meanwhile.
    is_snapshot: bool,
    shelf: Shelf,
}

enum Inner {
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
    Postgres(PgWork),
}

#[async_trait]
impl Transaction for SqlTransaction {
    async fn announce(&mut self, news: News) -> StorageResult<()> {
        let Inner::Postgres(inner) = &mut self.inner else { return Ok(()) };
        for piece in news.pieces(SERVERS_IN_NEWS) {
            let text = json(&piece);
            inner.execute(sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(text)).await?;
        }
        Ok(())
    }

    async fn commit(self: Box<Self>) -> StorageResult<()> {
        match self.inner {
            Inner::Sqlite(inner) => inner.commit().await?,
            Inner::Postgres(inner) => inner.commit().await?,
        }
        Ok(())
    }
}

impl SqlTransaction {
    fn snapshot(inner: Inner) -> Self {
        Self { inner, is_snapshot: true, shelf: Shelf::default() }
    }

    fn writing(inner: Inner) -> Self {
        Self { inner, is_snapshot: false, shelf: Shelf::default() }
    }

    fn db(&mut self) -> Db<'_> {
        let connection = match &mut self.inner {
            Inner::Sqlite(inner) => Connection::Sqlite(inner),
            Inner::Postgres(inner) => Connection::Postgres(inner),
        };
        Db { connection, shelf: &self.shelf }
    }
}

/// PostgreSQL: I/O error. SQLite: what is read-only, in all its kinds; a write, a sync or a truncation that failed.
const DISK_FAILS: &[&str] = &["58030", "8", "264", "520", "776", "1032", "1288", "1544", "778", "1034", "1290", "1546"];

impl From<sqlx::Error> for StorageError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the driver's errors are many, and grow")]
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::PoolTimedOut => Self::Busy,
            // What cannot be understood of an answer is an outage, too: its connection is good for nothing more.
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(Arc::new(error)),
            sqlx::Error::Database(database) if database.is_unique_violation() => Self::Duplicate,
            sqlx::Error::Database(database) => match database.code().as_deref() {
                // PostgreSQL: a lock was not granted in time, a statement took too long; SQLite: busy.
                Some("55P03" | "57014" | "5" | "261" | "517") => Self::Busy,
                // PostgreSQL is stopping, starting, lets nobody in now, has no connection left, or is a standby.
                Some("57P01" | "57P02" | "57P03" | "55000" | "53300" | "25P03" | "25006") => {
                    Self::Unavailable(Arc::new(error))
                }
                Some(code) if code.starts_with("08") => Self::Unavailable(Arc::new(error)),
                // PostgreSQL's disk, or that of the SQLite file or of the index of its log.
                Some("53100" | "13" | "4874") => Self::Full(Arc::new(error)),
                Some(code) if DISK_FAILS.contains(&code) => Self::ReadOnly(Arc::new(error)),
                _ => Self::Database(error),
            },
            _ => Self::Database(error),
        }
    }
}

/// A number as the database keeps it; what does not fit is as good as the largest.
fn big(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The one-word JSON form of a value.
fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

/// A value as JSON text.
fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// How a name is compared: two names that look the same are the same name.
fn key(name: &str) -> String {
    names::fold(name)
}

/// The LIKE pattern, with `!` as escape, of everything whose key contains a text.
fn containing(text: &str) -> String {
    format!("%{}%", escaped(&key(text)))
}

/// A text as a part of a LIKE pattern with `!` as escape.
fn escaped(text: &str) -> String {
    text.replace('!', "!!").replace('%', "!%").replace('_', "!_")
}

/// What stands in the column `id` of each.
fn ids<T: FromStr>(rows: &[Row]) -> StorageResult<Vec<T>> {
    rows.iter().map(|row| row.parsed("id")).collect()
}

fn each<T>(rows: Vec<Row>, read: impl Fn(&Row) -> StorageResult<T>) -> StorageResult<Vec<T>> {
    rows.iter().map(read).collect()
}

fn limit(slice: &Slice) -> i64 {
    limit_of(slice.limit)
}

fn limit_of(limit: u32) -> i64 {
    i64::from(limit)
}
