//! Opening the database: pools, and the schema brought up to date.

use std::{net::IpAddr, sync::Arc, time::Duration};

use sqlx::{
    Connection, SqlSafeStr,
    migrate::{Migration, Migrator},
    postgres::{PgConnectOptions, PgSslMode},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    Location, Pools, Postgres, SqlStorage,
    contact::{Contact, Times},
    pool::Pool,
    schema::bring_up_to_date,
};
use crate::storage::StorageResult;

/// Readers at the same time, for people.
const READERS: u32 = 4;
/// The same for watches.
const GATEWAY_READERS: u32 = 2;
/// How long a request waits for its turn to write before it is told that the platform is busy.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

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
                let writer = pool(1).after_release(|connection, _| {
                    // A commit that the disk refused leaves a connection that believes to be in a transaction for ever.
                    Box::pin(async move {
                        connection.ping().await?;
                        Ok(!connection.is_in_transaction())
                    })
                });
                let writer = writer.connect_with(options.clone()).await?;
                MIGRATIONS.run(&writer).await?;
                let options = options.pragma("query_only", "ON");
                let readers = pool(READERS).connect_with(options.clone()).await?;
                let gateways = pool(GATEWAY_READERS).connect_with(options).await?;
                Pools::Sqlite { readers, gateways, writer }
            }
            Location::Postgres(server) => {
                warn_of_plain_text(&server.options());
                // A change of the schema may copy a large table: no limit of a request is one for it.
                let unlimited = Contact::new(missed(server.options()), Times::USUAL);
                bring_up_to_date(&unlimited, &migrations_for_postgres()).await?;
                let contact = Contact::new(limited(missed(server.options())), Times::USUAL);
                let pool = |seats: u32| Pool::new(contact.clone(), seats as usize);
                let (writer, readers, gateways) = (pool(1), pool(READERS), pool(GATEWAY_READERS));
                Pools::Postgres(Postgres { readers, gateways, writer, contact, leadership: Arc::default() })
            }
        };
        let storage = Self { pools };
        storage.renew_keys().await?;
        Ok(storage)
    }
}

/// Over a network, a server that says it knows no TLS is believed unless the URL asks for more.
fn warn_of_plain_text(options: &PgConnectOptions) {
    let host = options.get_host();
    let is_here = options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if !is_here && matches!(options.get_ssl_mode(), PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer) {
        tracing::warn!(
            "the connection to PostgreSQL may be in plain text, password and secrets included: add sslmode=verify-full \
             (or require) to storage.url"
        );
    }
}

/// A writer that waits, works or idles for too long is ended by the server: it would hold up all the others.
fn limited(options: PgConnectOptions) -> PgConnectOptions {
    options.options([
        ("lock_timeout", "10s"),
        ("statement_timeout", "20s"),
        ("idle_in_transaction_session_timeout", "20s"),
    ])
}

/// What is left of a replica whose machine vanished is ended by the server: it may hold the leader's lock, or, from its start, that of
/// all writers. (What we do about a server that vanished is in [`super::contact`].)
fn missed(options: PgConnectOptions) -> PgConnectOptions {
    options.application_name("gateway-control").options([
        ("tcp_keepalives_idle", "10s"),
        ("tcp_keepalives_interval", "3s"),
        ("tcp_keepalives_count", "3"),
        ("tcp_user_timeout", "20s"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_ends_every_session_of_a_machine_that_vanished_and_only_requests_have_limits() {
        let unlimited = missed(PgConnectOptions::new_without_pgpass());
        let limited = limited(unlimited.clone());
        let has = |options: &PgConnectOptions, name: &str| options.get_options().unwrap().contains(name);
        for options in [&unlimited, &limited] {
            for name in ["tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout"] {
                assert!(has(options, name), "{name}");
            }
        }
        for name in ["lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"] {
            assert_eq!((has(&unlimited, name), has(&limited, name)), (false, true), "{name}");
        }
    }
}
