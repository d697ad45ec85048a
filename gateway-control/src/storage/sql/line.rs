//! PostgreSQL between replicas: the line on which news come, and the lock that makes one of them the leader.

use async_trait::async_trait;
use sqlx::{
    Acquire, Connection, Executor, PgConnection,
    postgres::{PgListener, PgNotification},
};
use tokio::time::timeout;

use super::contact::{Contact, is_broken, is_silence};
use crate::storage::{Heard, News, NewsLine, StorageResult};

/// The channel of LISTEN and NOTIFY.
pub(super) const CHANNEL: &str = "gateway_control_news";
/// Servers in one notification: PostgreSQL takes less than 8,000 bytes, an id is about 40.
pub(super) const SERVERS_IN_NEWS: usize = 150;
/// The lock of the leader; see [`super::WRITERS_LOCK`].
const LEADER_LOCK: i64 = 0x6761_7465_7761_7902;

/// Listens for news; connects when it is asked. While nothing comes, it asks the server whether it is there: a connection that
/// only listens would never notice.
pub(super) struct PostgresLine {
    contact: Contact,
    listener: Option<PgListener>,
    /// The one before, which got no answer.
    silent: Option<PgListener>,
}

impl PostgresLine {
    pub(super) fn new(contact: Contact) -> Self {
        Self { contact, listener: None, silent: None }
    }

    async fn connect(&mut self) -> sqlx::Result<PgListener> {
        let fresh = self.contact.connect().await?;
        match self.silent.take() {
            // The driver says goodbye on the connection of a listener, and waits for the answer: let it do so on this one.
            Some(mut silent) => drop(std::mem::replace(silent.acquire().await?, fresh)),
            None => self.contact.answered(self.contact.times.prompt, fresh.close()).await?,
        }
        let mut listener = PgListener::connect_with(&self.contact.pool_of_one()).await?;
        // When the connection is lost, we make it anew ourselves.
        listener.eager_reconnect(false);
        if let Err(error) = self.contact.answered(self.contact.times.prompt, listener.listen(CHANNEL)).await {
            self.silent = Some(listener);
            return Err(error);
        }
        Ok(listener)
    }
}

#[async_trait]
impl NewsLine for PostgresLine {
    async fn next(&mut self) -> StorageResult<Heard> {
        let heard = match &mut self.listener {
            Some(listener) => hear(listener, &self.contact).await,
            None => Ok(None),
        };
        match heard {
            // What we cannot read is from a newer version: look at everything.
            Ok(Some(news)) => Ok(serde_json::from_str::<News>(news.payload()).map_or(Heard::Gap, Heard::News)),
            Ok(None) => {
                self.listener = None;
                match self.connect().await {
                    Ok(listener) => self.listener = Some(listener),
                    Err(error) => {
                        // One that has no room for us is there all the same.
                        if is_broken(&error) {
                            self.contact.lost();
                        }
                        return Err(error.into());
                    }
                }
                self.contact.heard();
                Ok(Heard::Gap)
            }
            Err(error) => {
                // A fault of this one connection is none of the others: whether the server is away, the next one finds out.
                if is_silence(&error) {
                    self.contact.lost();
                }
                self.silent = self.listener.take();
                Err(error.into())
            }
        }
    }
}

/// The next news; none: the connection is lost.
async fn hear(listener: &mut PgListener, contact: &Contact) -> sqlx::Result<Option<PgNotification>> {
    loop {
        if let Ok(heard) = timeout(contact.times.pulse, listener.try_recv()).await {
            return heard;
        }
        // News that come meanwhile are kept by the listener.
        contact.answered(contact.times.prompt, Executor::execute(&mut *listener, "SELECT 1")).await?;
        contact.heard();
    }
}

/// The leader's connection: the lock is held as long as it lives.
#[derive(Debug, Default)]
pub(super) struct Leadership {
    connection: Option<PgConnection>,
    leads: bool,
}

impl Leadership {
    /// Whether we lead: still, or from now on. A connection that does not answer is dropped, and the lock with it.
    pub(super) async fn hold(&mut self, contact: &Contact) -> StorageResult<bool> {
        let led = std::mem::take(&mut self.leads);
        let mut connection = match self.connection.take() {
            Some(mut connection) => {
                if contact.within(contact.times.prompt, connection.ping()).await.is_ok() {
                    self.leads = led;
                    connection
                } else {
                    contact.connect().await?
                }
            }
            None => contact.connect().await?,
        };
        if !self.leads {
            let asked =
                sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(LEADER_LOCK).fetch_one(&mut connection);
            self.leads = contact.within(contact.times.prompt, asked).await?;
        }
        self.connection = Some(connection);
        Ok(self.leads)
    }

    /// Gives the lock up with its connection.
    pub(super) async fn end(&mut self, contact: &Contact) {
        self.leads = false;
        if let Some(connection) = self.connection.take() {
            // It ends with the process in any case.
            let _ = contact.answered(contact.times.prompt, connection.close()).await;
        }
    }
}
