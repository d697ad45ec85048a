//! The schema of a PostgreSQL database that several replicas share. It is changed while nobody writes, and from then on no
//! replica of an older version writes any more: what it wrote would lack what the newer one relies on.

use std::{convert::Infallible, time::Instant};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row, migrate::Migrator};
use tokio::time::sleep;

use super::{WRITERS_LOCK, contact::Contact, open::MIGRATIONS, pool::PgWork};
use crate::{
    seldom::Seldom,
    storage::{StorageError, StorageResult},
};

/// What the server says when a lock was not granted in time.
const NOT_GRANTED: &str = "55P03";

/// Changes the schema while nobody writes. That may take as long as a large table is copied; only a server that does not answer
/// any more is not waited for.
pub(super) async fn bring_up_to_date(contact: &Contact, migrations: &Migrator) -> StorageResult<()> {
    let (mut connection, asker) = (contact.connect().await?, contact.connect().await?);
    hold_writers(contact, &mut connection).await?;
    tokio::select! {
        done = migrations.run(&mut connection) => done?,
        away = stays(contact, asker) => match away {
            Ok(never) => match never {},
            Err(error) => return Err(error.into()),
        },
    }
    contact.answered(contact.times.prompt, connection.close()).await?;
    Ok(())
}

/// Lets nobody write until the connection is closed. Who writes, or changes the schema elsewhere, is waited for, and the log says so.
pub(super) async fn hold_writers(contact: &Contact, connection: &mut PgConnection) -> StorageResult<()> {
    let slice = contact.times.lock;
    let limit = format!("SET lock_timeout = {}", slice.as_millis());
    contact.answered(contact.times.prompt, Executor::execute(&mut *connection, AssertSqlSafe(limit))).await?;
    let waits = Seldom::new();
    loop {
        let lock = AssertSqlSafe(format!("SELECT pg_advisory_lock({WRITERS_LOCK})"));
        let granted = Executor::execute(&mut *connection, lock);
        match contact.answered(slice + contact.times.prompt, granted).await {
            Ok(_) => break,
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(NOT_GRANTED) => {
                if waits.turn(Instant::now()).is_some() {
                    tracing::info!(
                        "the start waits for another replica that writes to the database, or changes its schema"
                    );
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    contact.answered(contact.times.prompt, Executor::execute(connection, "RESET lock_timeout")).await?;
    Ok(())
}

/// Asks again and again, beside a change that may be silent for long, whether the server is there; ends when it does not answer in
/// the time of a statement.
pub(super) async fn stays(contact: &Contact, mut asker: PgConnection) -> sqlx::Result<Infallible> {
    loop {
        sleep(contact.times.pulse).await;
        contact.answered(contact.times.statement, Executor::execute(&mut asker, "SELECT 1")).await?;
    }
}

/// Refuses to write when a newer version has changed the schema. To be asked with the writers' lock, which that version held
/// meanwhile.
pub(super) async fn must_be_ours(work: &mut PgWork) -> StorageResult<()> {
    let row = work.fetch_optional(sqlx::query("SELECT MAX(version) AS newest FROM _sqlx_migrations")).await?;
    let newest: Option<i64> = row.map(|row| row.try_get::<Option<i64>, _>("newest")).transpose()?.flatten();
    let ours = MIGRATIONS.iter().map(|migration| migration.version).max();
    if newest > ours { Err(StorageError::Outdated) } else { Ok(()) }
}
