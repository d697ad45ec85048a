//! Opening the database: pools, and the schema brought up to date.

use std::{sync::Arc, time::Duration};

use sqlx::{
    SqlSafeStr,
    migrate::{Migration, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{Location, Pools, Postgres, SqlStorage};
use crate::storage::StorageResult;

/// Readers at the same time.
const READERS: u32 = 4;
/// One connection listens, one holds the leader's lock.
const BETWEEN: u32 = 2;
/// How long a request waits for its turn to write before it is told that the platform is busy.
const PATIENCE: Duration = Duration::from_secs(10);

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

impl SqlStorage {
    /// Opens the database, makes a missing SQLite file, and brings the schema up to date.
    pub async fn open(location: &Location) -> StorageResult<Self> {
        let pools = match location {
            Location::Sqlite(path) => {
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full)
                    .foreign_keys(true)
                    .busy_timeout(PATIENCE);
                let pool = |size| SqlitePoolOptions::new().max_connections(size).acquire_timeout(PATIENCE);
                let writer = pool(1).connect_with(options.clone()).await?;
                MIGRATIONS.run(&writer).await?;
                let readers = pool(READERS).connect_with(options.pragma("query_only", "ON")).await?;
                Pools::Sqlite { readers, writer }
            }
            Location::Postgres(server) => {
                let options = postgres(server.options());
                let pool = |size| PgPoolOptions::new().max_connections(size).acquire_timeout(PATIENCE);
                let writer = pool(1).connect_with(options.clone()).await?;
                migrations_for_postgres().run(&writer).await?;
                let readers = pool(READERS).connect_with(options.clone()).await?;
                let between = pool(BETWEEN).connect_lazy_with(options);
                Pools::Postgres(Postgres { readers, writer, between, leadership: Arc::default() })
            }
        };
        Ok(Self { pools })
    }
}

/// A writer that waits, works or idles for too long is ended by the server: it would hold up all the others.
fn postgres(options: PgConnectOptions) -> PgConnectOptions {
    options.application_name("gateway-control").options([
        ("lock_timeout", "10s"),
        ("statement_timeout", "20s"),
        ("idle_in_transaction_session_timeout", "20s"),
    ])
}

/// The same text, with texts compared by their bytes, as SQLite does: an order that depends on the locale of a machine
/// would differ between databases, and breaks indexes when the system's locales are updated.
fn migrations_for_postgres() -> Migrator {
    let migrations = MIGRATIONS.iter().map(|migration| {
        let text = migration.sql.as_str().replace(" TEXT", " TEXT COLLATE \"C\"");
        Migration::new(
            migration.version,
            migration.description.clone(),
            migration.migration_type,
            sqlx::AssertSqlSafe(text).into_sql_str(),
            migration.no_tx,
        )
    });
    Migrator::with_migrations(migrations.collect())
}
