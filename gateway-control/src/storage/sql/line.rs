//! PostgreSQL between replicas: the line on which news come, and the lock that makes one of them the leader.

use async_trait::async_trait;
use sqlx::{Connection, PgPool, pool::PoolConnection, postgres::PgListener};

use crate::storage::{Heard, News, NewsLine, StorageResult};

/// The channel of LISTEN and NOTIFY.
pub(super) const CHANNEL: &str = "gateway_control_news";
/// Servers in one notification: PostgreSQL takes less than 8,000 bytes, an id is about 40.
pub(super) const SERVERS_IN_NEWS: usize = 150;
/// The lock of the leader; see [`super::WRITERS_LOCK`].
const LEADER_LOCK: i64 = 0x6761_7465_7761_7902;

/// Listens for news; connects when it is asked.
pub(super) struct PostgresLine {
    pool: PgPool,
    listener: Option<PgListener>,
}

impl PostgresLine {
    pub(super) fn new(pool: PgPool) -> Self {
        Self { pool, listener: None }
    }
}

#[async_trait]
impl NewsLine for PostgresLine {
    async fn next(&mut self) -> StorageResult<Heard> {
        let listener = match &mut self.listener {
            Some(listener) => listener,
            empty => {
                let mut listener = PgListener::connect_with(&self.pool).await?;
                listener.listen(CHANNEL).await?;
                *empty = Some(listener);
                return Ok(Heard::Gap);
            }
        };
        match listener.try_recv().await {
            Ok(Some(notification)) => {
                // What we cannot read is from a newer version: look at everything.
                Ok(serde_json::from_str::<News>(notification.payload()).map_or(Heard::Gap, Heard::News))
            }
            Ok(None) => Ok(Heard::Gap),
            Err(error) => {
                self.listener = None;
                Err(error.into())
            }
        }
    }
}

/// The leader's connection: the lock is held as long as it lives.
#[derive(Debug, Default)]
pub(super) struct Leadership(Option<PoolConnection<sqlx::Postgres>>);

impl Leadership {
    /// Whether we lead: still, or from now on.
    pub(super) async fn hold(&mut self, pool: &PgPool) -> StorageResult<bool> {
        if let Some(mut connection) = self.0.take()
            && connection.ping().await.is_ok()
        {
            self.0 = Some(connection);
            return Ok(true);
        }
        let mut connection = pool.acquire().await?;
        let got: bool =
            sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(LEADER_LOCK).fetch_one(&mut *connection).await?;
        if got {
            self.0 = Some(connection);
        }
        Ok(got)
    }

    /// Gives the lock up with its connection.
    pub(super) async fn end(&mut self) {
        if let Some(connection) = self.0.take() {
            // The lock belongs to the session: the connection must not go back to the pool with it.
            let _ = connection.detach().close().await;
        }
    }
}
