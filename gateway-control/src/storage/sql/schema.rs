//! The schema of a PostgreSQL database that several replicas share. It is changed while nobody writes, and from then on no
//! replica of an older version writes any more: what it wrote would lack what the newer one relies on.

use sqlx::{PgConnection, Row};

use super::{WRITERS_LOCK, open::MIGRATIONS, pool::PgWork};
use crate::storage::{StorageError, StorageResult};

/// Lets nobody write until the connection is closed.
pub(super) async fn hold_writers(connection: &mut PgConnection) -> StorageResult<()> {
    sqlx::query("SELECT pg_advisory_lock($1)").bind(WRITERS_LOCK).execute(connection).await?;
    Ok(())
}

/// Refuses to write when a newer version has changed the schema. To be asked with the writers' lock, which that version held
/// meanwhile.
pub(super) async fn must_be_ours(work: &mut PgWork) -> StorageResult<()> {
    let row = work.fetch_optional(sqlx::query("SELECT MAX(version) AS newest FROM _sqlx_migrations")).await?;
    let newest: Option<i64> = row.map(|row| row.try_get::<Option<i64>, _>("newest")).transpose()?.flatten();
    let ours = MIGRATIONS.iter().map(|migration| migration.version).max();
    if newest > ours { Err(StorageError::Outdated) } else { Ok(()) }
}
