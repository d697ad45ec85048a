//! SQLite: one file in WAL mode, fully synchronous, so that an acknowledged write survives a kill or a power cut.
//!
//! One connection writes, several read. The queries below use `$1` placeholders and plain types only; they name the
//! database through [`Db`] and [`Row`] alone, which is where PostgreSQL (serializable transactions there instead of a
//! single writer) comes in.

mod accounts;
mod audit;
mod channels;
mod connections;
mod peering;
mod servers;

use std::{path::Path, str::FromStr, time::Duration};

use async_trait::async_trait;
use gateway_proto::{id::ServerId, policy::Secret};
use sqlx::{
    Row as _, Sqlite, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};

use super::{Slice, Storage, StorageError, StorageResult, Transaction};

/// The database of the queries below.
type Db = Sqlite;
/// Its row.
type Row = SqliteRow;

/// Readers at the same time.
const READERS: u32 = 4;
/// How long a request waits for its turn to write before it is told that the platform is busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// The SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteStorage {
    readers: SqlitePool,
    writer: SqlitePool,
}

impl SqliteStorage {
    /// Opens the file, makes it if there is none, and brings the schema up to date.
    pub async fn open(path: &Path) -> StorageResult<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(PATIENCE);
        let pool = |size| SqlitePoolOptions::new().max_connections(size).acquire_timeout(PATIENCE);
        let writer = pool(1).connect_with(options.clone()).await?;
        sqlx::migrate!("./migrations").run(&writer).await?;
        let readers = pool(READERS).connect_with(options.pragma("query_only", "ON")).await?;
        Ok(Self { readers, writer })
    }
}

#[async_trait]
impl Storage for SqliteStorage {
    async fn read(&self) -> StorageResult<Box<dyn Transaction>> {
        Ok(Box::new(SqlTransaction { inner: self.readers.begin().await? }))
    }

    async fn begin(&self) -> StorageResult<Box<dyn Transaction>> {
        Ok(Box::new(SqlTransaction { inner: self.writer.begin_with("BEGIN IMMEDIATE").await? }))
    }

    async fn ping(&self) -> StorageResult<()> {
        sqlx::query("SELECT 1").execute(&self.readers).await?;
        Ok(())
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// A running transaction; rolled back when it is dropped.
struct SqlTransaction {
    inner: sqlx::Transaction<'static, Db>,
}

#[async_trait]
impl Transaction for SqlTransaction {
    async fn commit(self: Box<Self>) -> StorageResult<()> {
        Ok(self.inner.commit().await?)
    }
}

impl SqlTransaction {
    fn db(&mut self) -> &mut <Db as sqlx::Database>::Connection {
        &mut self.inner
    }
}

impl From<sqlx::Error> for StorageError {
    fn from(error: sqlx::Error) -> Self {
        if error.as_database_error().is_some_and(|error| error.is_unique_violation()) {
            return Self::Duplicate;
        }
        Self::Database(error)
    }
}

/// Typed reading of columns.
trait Columns {
    fn text(&self, column: &str) -> StorageResult<String>;
    fn maybe_text(&self, column: &str) -> StorageResult<Option<String>>;
    fn flag(&self, column: &str) -> StorageResult<bool>;
    fn maybe_number(&self, column: &str) -> StorageResult<Option<u64>>;

    fn number(&self, column: &str) -> StorageResult<u64> {
        self.maybe_number(column)?.ok_or_else(|| unreadable(column))
    }

    fn small<T: TryFrom<u64>>(&self, column: &str) -> StorageResult<T> {
        T::try_from(self.number(column)?).map_err(|_| unreadable(column))
    }

    fn parsed<T: FromStr>(&self, column: &str) -> StorageResult<T> {
        self.text(column)?.parse().map_err(|_| unreadable(column))
    }

    fn maybe_parsed<T: FromStr>(&self, column: &str) -> StorageResult<Option<T>> {
        self.maybe_text(column)?.map(|text| text.parse().map_err(|_| unreadable(column))).transpose()
    }

    /// A value with a one-word JSON form (role, kind).
    fn word<T: serde::de::DeserializeOwned>(&self, column: &str) -> StorageResult<T> {
        serde_json::from_value(serde_json::Value::String(self.text(column)?)).map_err(|_| unreadable(column))
    }

    fn json<T: serde::de::DeserializeOwned>(&self, column: &str) -> StorageResult<T> {
        serde_json::from_str(&self.text(column)?).map_err(|_| unreadable(column))
    }

    fn secret(&self, column: &str) -> StorageResult<Secret> {
        self.word(column)
    }
}

impl Columns for Row {
    fn text(&self, column: &str) -> StorageResult<String> {
        Ok(self.try_get(column)?)
    }

    fn maybe_text(&self, column: &str) -> StorageResult<Option<String>> {
        Ok(self.try_get(column)?)
    }

    fn flag(&self, column: &str) -> StorageResult<bool> {
        Ok(self.try_get(column)?)
    }

    fn maybe_number(&self, column: &str) -> StorageResult<Option<u64>> {
        let number: Option<i64> = self.try_get(column)?;
        number.map(|number| u64::try_from(number).map_err(|_| unreadable(column))).transpose()
    }
}

fn unreadable(column: &str) -> StorageError {
    StorageError::Unreadable(column.to_owned())
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
