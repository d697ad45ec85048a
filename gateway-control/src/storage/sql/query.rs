//! A query that runs on either database, and the rows it answers.
//!
//! Three kinds of values are all the schema knows: text, numbers, flags. `sqlx::Any` would be the same in fewer lines,
//! but cannot read a BOOLEAN column of SQLite.

use std::{
    str::FromStr,
    sync::{Arc, LazyLock},
};

use gateway_proto::policy::Secret;
use prometheus_client::metrics::counter::Counter;
use sqlx::{
    AssertSqlSafe, Row as _, SqliteConnection,
    postgres::PgRow,
    sqlite::{SqliteArguments, SqliteRow},
};

use super::{
    ahead::Shelf,
    pool::{PgQuery, PgWork},
};
use crate::storage::{StorageError, StorageResult};

static RUN: LazyLock<Counter> = LazyLock::new(Counter::default);

/// The queries that this process has run, in all its databases.
pub fn queries_run() -> Counter {
    RUN.clone()
}

/// A query with `$1` placeholders.
pub(super) fn query(text: &'static str) -> Query {
    Query { text, long: None, values: Vec::new() }
}

/// Ids in the list of one query at most: longer lists are taken in pieces.
pub(super) const IDS_AT_ONCE: usize = 512;

/// A query with a list in the place of each `{}`, behind the values from `$1` on. The list gets one of few lengths, so that there
/// are few statements to prepare; it must not be empty.
pub(super) fn query_in(text: &'static str, same: Vec<Value>, mut list: Vec<String>) -> Query {
    if let Some(last) = list.last().cloned() {
        list.resize(list.len().next_power_of_two().max(8), last);
    }
    let first = same.len() + 1;
    let places: Vec<_> = (first..first + list.len()).map(|place| format!("${place}")).collect();
    let long = Some(text.replace("{}", &places.join(", ")));
    let values = same.into_iter().chain(list.into_iter().map(Value::from)).collect();
    Query { text, long, values }
}

/// A query with rows in the place of `{}`, each of as many values. There is one of few numbers of them, as in [`query_in`]: the last
/// one comes more than once, so it must do no harm when a row is there already.
pub(super) fn query_rows(text: &'static str, mut rows: Vec<Vec<Value>>) -> Query {
    if let Some(last) = rows.last().cloned() {
        rows.resize(rows.len().next_power_of_two().max(8), last);
    }
    let (mut all, mut last) = (Vec::with_capacity(rows.len()), 0);
    for row in &rows {
        let places: Vec<_> = (last + 1..=last + row.len()).map(|place| format!("${place}")).collect();
        all.push(format!("({})", places.join(", ")));
        last += row.len();
    }
    let long = Some(text.replace("{}", &all.join(", ")));
    Query { text, long, values: rows.into_iter().flatten().collect() }
}

/// A query and the values of its placeholders.
#[derive(Debug)]
pub(super) struct Query {
    text: &'static str,
    /// The text where a list was put into it.
    long: Option<String>,
    values: Vec<Value>,
}

/// What a column can hold; a NULL knows its type, which PostgreSQL wants to hear.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Value {
    Text(Option<String>),
    Number(Option<i64>),
    Flag(bool),
}

/// Where a query is answered: on a connection, or from what was read ahead.
#[derive(Debug)]
pub(super) struct Db<'c> {
    pub(super) connection: Connection<'c>,
    pub(super) shelf: &'c Shelf,
}

/// The connection a query runs on.
#[derive(Debug)]
pub(super) enum Connection<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgWork),
}

/// A row of either database.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
    /// Read ahead.
    Shelved(Arc<Self>),
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Row")
    }
}

impl Query {
    /// Sets the value of the next placeholder.
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Runs it; how many rows it changed.
    pub(super) async fn execute(self, db: Db<'_>) -> StorageResult<u64> {
        self.check()?;
        RUN.inc();
        Ok(match db.connection {
            Connection::Sqlite(connection) => self.for_sqlite().execute(connection).await?.rows_affected(),
            Connection::Postgres(work) => work.execute(self.for_postgres()).await?,
        })
    }

    /// All rows.
    pub(super) async fn fetch_all(self, db: Db<'_>) -> StorageResult<Vec<Row>> {
        self.check()?;
        if let Some(rows) = db.shelf.rows(self.text, &self.values) {
            return Ok(rows);
        }
        RUN.inc();
        Ok(match db.connection {
            Connection::Sqlite(connection) => {
                self.for_sqlite().fetch_all(connection).await?.into_iter().map(Row::Sqlite).collect()
            }
            Connection::Postgres(work) => {
                work.fetch_all(self.for_postgres()).await?.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    /// The first row, if there is one.
    pub(super) async fn fetch_optional(self, db: Db<'_>) -> StorageResult<Option<Row>> {
        self.check()?;
        if let Some(rows) = db.shelf.rows(self.text, &self.values) {
            return Ok(rows.into_iter().next());
        }
        RUN.inc();
        Ok(match db.connection {
            Connection::Sqlite(connection) => self.for_sqlite().fetch_optional(connection).await?.map(Row::Sqlite),
            Connection::Postgres(work) => work.fetch_optional(self.for_postgres()).await?.map(Row::Postgres),
        })
    }

    /// The first row; it is an error when there is none.
    pub(super) async fn fetch_one(self, db: Db<'_>) -> StorageResult<Row> {
        self.fetch_optional(db).await?.ok_or(StorageError::Database(sqlx::Error::RowNotFound))
    }

    /// PostgreSQL knows no NUL in a text; SQLite would keep it.
    fn check(&self) -> StorageResult<()> {
        let nul = |value: &Value| matches!(value, Value::Text(Some(text)) if text.contains('\0'));
        if self.values.iter().any(nul) { Err(StorageError::Nul) } else { Ok(()) }
    }

    fn for_sqlite(self) -> sqlx::query::Query<'static, sqlx::Sqlite, SqliteArguments> {
        let query = match self.long {
            Some(long) => sqlx::query(AssertSqlSafe(long)),
            None => sqlx::query(self.text),
        };
        self.values.into_iter().fold(query, |query, value| match value {
            Value::Text(text) => query.bind(text),
            Value::Number(number) => query.bind(number),
            Value::Flag(flag) => query.bind(flag),
        })
    }

    fn for_postgres(self) -> PgQuery {
        let query = match self.long {
            Some(long) => sqlx::query(AssertSqlSafe(long)),
            None => sqlx::query(self.text),
        };
        self.values.into_iter().fold(query, |query, value| match value {
            Value::Text(text) => query.bind(text),
            Value::Number(number) => query.bind(number),
            Value::Flag(flag) => query.bind(flag),
        })
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(Some(text.clone()))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<&Option<String>> for Value {
    fn from(text: &Option<String>) -> Self {
        Self::Text(text.clone())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(Some(number))
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// Typed reading of columns.
pub(super) trait Columns {
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

    fn maybe_json<T: serde::de::DeserializeOwned>(&self, column: &str) -> StorageResult<Option<T>> {
        self.maybe_text(column)?.map(|text| serde_json::from_str(&text).map_err(|_| unreadable(column))).transpose()
    }

    fn secret(&self, column: &str) -> StorageResult<Secret> {
        self.word(column)
    }
}

impl Columns for Row {
    fn text(&self, column: &str) -> StorageResult<String> {
        self.maybe_text(column)?.ok_or_else(|| unreadable(column))
    }

    fn maybe_text(&self, column: &str) -> StorageResult<Option<String>> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
            Self::Shelved(row) => return row.maybe_text(column),
        })
    }

    fn flag(&self, column: &str) -> StorageResult<bool> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
            Self::Shelved(row) => return row.flag(column),
        })
    }

    fn maybe_number(&self, column: &str) -> StorageResult<Option<u64>> {
        let number: Option<i64> = match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
            Self::Shelved(row) => return row.maybe_number(column),
        };
        number.map(|number| u64::try_from(number).map_err(|_| unreadable(column))).transpose()
    }
}

pub(super) fn unreadable(column: &str) -> StorageError {
    StorageError::Unreadable(column.to_owned())
}
