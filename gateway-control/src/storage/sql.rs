//! The queries, once, for two databases.
//!
//! | | SQLite | PostgreSQL |
//! |---|---|---|
//! | where | one file, WAL, fully synchronous | a server, shared by several replicas |
//! | writers | one connection, `BEGIN IMMEDIATE` | one advisory lock, held to the end of the transaction |
//! | readers | snapshot of the WAL | `REPEATABLE READ READ ONLY` |
//!
//! Either way one writer follows the other, so what a writing transaction has read is still true when it commits, and
//! an acknowledged write survives a kill or a power cut. The schema and the queries keep to what both understand: TEXT,
//! BIGINT, BOOLEAN, `$1` placeholders, `ON CONFLICT`, partial indexes.

mod accounts;
mod audit;
mod channels;
mod connections;
mod credentials;
mod deliveries;
mod engines;
mod idempotency;
mod location;
mod open;
mod peering;
mod query;
mod servers;
mod shares;
mod tiers;

use async_trait::async_trait;
use gateway_proto::id::ServerId;
use sqlx::{PgPool, SqlitePool};

pub use self::location::{Location, LocationError, PostgresServer};
use self::query::{Columns, Db, Row, query, unreadable};
use super::{Slice, Storage, StorageError, StorageResult, Transaction};

/// Where writers of a PostgreSQL database queue up: any number will do that nobody else in this database uses.
const WRITERS_LOCK: i64 = 0x6761_7465_7761_7901;

/// The database.
#[derive(Debug, Clone)]
pub struct SqlStorage {
    pools: Pools,
}

#[derive(Debug, Clone)]
enum Pools {
    Sqlite { readers: SqlitePool, writer: SqlitePool },
    Postgres { readers: PgPool, writer: PgPool },
}

#[async_trait]
impl Storage for SqlStorage {
    async fn read(&self) -> StorageResult<Box<dyn Transaction>> {
        Ok(Box::new(match &self.pools {
            Pools::Sqlite { readers, .. } => SqlTransaction::Sqlite(readers.begin().await?),
            Pools::Postgres { readers, .. } => {
                SqlTransaction::Postgres(readers.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
            }
        }))
    }

    async fn begin(&self) -> StorageResult<Box<dyn Transaction>> {
        Ok(Box::new(match &self.pools {
            Pools::Sqlite { writer, .. } => SqlTransaction::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
            Pools::Postgres { writer, .. } => {
                // READ COMMITTED: what is read after the lock was granted is what the writer before has committed.
                let mut inner = writer.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await?;
                let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(WRITERS_LOCK);
                lock.execute(&mut *inner).await?;
                SqlTransaction::Postgres(inner)
            }
        }))
    }

    async fn ping(&self) -> StorageResult<()> {
        match &self.pools {
            Pools::Sqlite { readers, .. } => drop(sqlx::query("SELECT 1").execute(readers).await?),
            Pools::Postgres { readers, .. } => drop(sqlx::query("SELECT 1").execute(readers).await?),
        }
        Ok(())
    }

    async fn close(&self) {
        match &self.pools {
            Pools::Sqlite { readers, writer } => {
                readers.close().await;
                writer.close().await;
            }
            Pools::Postgres { readers, writer } => {
                readers.close().await;
                writer.close().await;
            }
        }
    }
}

/// A running transaction; rolled back when it is dropped.
enum SqlTransaction {
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
}

#[async_trait]
impl Transaction for SqlTransaction {
    async fn commit(self: Box<Self>) -> StorageResult<()> {
        match *self {
            Self::Sqlite(inner) => inner.commit().await?,
            Self::Postgres(inner) => inner.commit().await?,
        }
        Ok(())
    }
}

impl SqlTransaction {
    fn db(&mut self) -> Db<'_> {
        match self {
            Self::Sqlite(inner) => Db::Sqlite(inner),
            Self::Postgres(inner) => Db::Postgres(inner),
        }
    }
}

impl From<sqlx::Error> for StorageError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::PoolTimedOut => Self::Busy,
            sqlx::Error::Io(_) | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            sqlx::Error::Database(database) if database.is_unique_violation() => Self::Duplicate,
            sqlx::Error::Database(database) => match database.code().as_deref() {
                // PostgreSQL: a lock was not granted in time, a statement took too long; SQLite: busy.
                Some("55P03" | "57014" | "5" | "261" | "517") => Self::Busy,
                // PostgreSQL is stopping, starting, or has no connection left.
                Some("57P01" | "57P02" | "57P03" | "53300" | "25P03") => Self::Unavailable(error),
                Some(code) if code.starts_with("08") => Self::Unavailable(error),
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

/// How a name is compared: two names that differ in case only are the same name.
fn key(name: &str) -> String {
    name.to_lowercase()
}

fn id_texts(rows: &[Row], column: &str) -> StorageResult<Vec<ServerId>> {
    rows.iter().map(|row| row.parsed(column)).collect()
}

fn each<T>(rows: Vec<Row>, read: impl Fn(&Row) -> StorageResult<T>) -> StorageResult<Vec<T>> {
    rows.iter().map(read).collect()
}

fn limit(slice: &Slice) -> i64 {
    i64::from(slice.limit)
}
