//! Connections to PostgreSQL that are used again, and the transactions on them.
//!
//! The driver has pools, too, but they wait without an end when a connection comes back: one whose server is gone would keep its
//! place for a quarter of an hour, and of writers there is only one.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{
    Connection, Executor, PgConnection,
    postgres::{PgArguments, PgRow},
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::task::TaskTracker;

use super::contact::{Contact, is_broken, is_starting, silence};
use crate::storage::{StorageError, StorageResult};

/// What was not used for so long may have been forgotten by a firewall on the way.
const MAX_IDLE: Duration = Duration::from_secs(240);
/// Then a connection is made anew: the server's side of it grows with what it has seen.
const MAX_AGE: Duration = Duration::from_secs(1800);
/// Between two tries to reach a server that starts.
const AGAIN: Duration = Duration::from_millis(250);
/// For the goodbye of a connection.
const GOODBYE: Duration = Duration::from_secs(1);

/// A query with its values.
pub(super) type PgQuery = sqlx::query::Query<'static, sqlx::Postgres, PgArguments>;

/// So many connections at most; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    contact: Contact,
    /// One for each connection.
    seats: Arc<Semaphore>,
    /// Connections that nobody uses; at most as many as there are seats.
    idle: Mutex<Vec<Idle>>,
    /// Rollbacks on their way; each has a seat.
    rollbacks: TaskTracker,
}

#[derive(Debug)]
struct Idle {
    held: Held,
    since: Instant,
}

#[derive(Debug)]
struct Held {
    connection: PgConnection,
    born: Instant,
}

impl Pool {
    /// A pool that has connected nothing yet.
    pub(super) fn new(contact: Contact, seats: usize) -> Self {
        let (idle, rollbacks) = (Mutex::default(), TaskTracker::new());
        Self(Arc::new(Shared { contact, seats: Arc::new(Semaphore::new(seats)), idle, rollbacks }))
    }

    /// Begins a transaction with a statement, on a connection that answers. Errors: busy when none comes free in time,
    /// unavailable when the server does not answer in time.
    pub(super) async fn begin(&self, statement: &'static str) -> StorageResult<PgWork> {
        let contact = &self.0.contact;
        let deadline = Instant::now() + contact.times.patience;
        let seat = match timeout_at(deadline, self.0.seats.clone().acquire_owned()).await {
            Ok(Ok(seat)) => seat,
            Ok(Err(_closed)) => return Err(sqlx::Error::PoolClosed.into()),
            Err(_) if contact.answers() => return Err(StorageError::Busy),
            // Those who have a seat wait in vain, too.
            Err(_) => return Err(silence().into()),
        };
        let begun = timeout_at(deadline, self.begin_on_some(statement, deadline)).await;
        let held = begun.unwrap_or_else(|_| Err(silence().into()))?;
        Ok(PgWork { pool: self.clone(), held: Some(held), seat: Some(seat) })
    }

    async fn begin_on_some(&self, statement: &'static str, deadline: Instant) -> StorageResult<Held> {
        match self.begin_again(statement).await {
            Some(held) => Ok(held),
            None => self.begin_anew(statement, deadline).await,
        }
    }

    /// On a connection that is there; none: there is none that answers.
    async fn begin_again(&self, statement: &'static str) -> Option<Held> {
        let mut held = self.take_idle()?;
        let contact = &self.0.contact;
        let begun = held.connection.execute(statement);
        if contact.within(contact.times.prompt, begun).await.is_ok() {
            return Some(held);
        }
        // The others are as old: to find that out of each of them would take as long again.
        self.idle().clear();
        None
    }

    async fn begin_anew(&self, statement: &'static str, deadline: Instant) -> StorageResult<Held> {
        let contact = &self.0.contact;
        let mut connection = loop {
            let error = match contact.connect().await {
                Ok(connection) => break connection,
                Err(error) => error,
            };
            if !is_starting(&error) || Instant::now() + AGAIN >= deadline {
                return Err(error.into());
            }
            sleep(AGAIN).await;
        };
        let begun = connection.execute(statement);
        contact.within(contact.times.prompt, begun).await?;
        Ok(Held { connection, born: Instant::now() })
    }

    /// Lets nobody in any more, and closes what is not in use.
    pub(super) async fn close(&self) {
        self.0.seats.close();
        self.0.rollbacks.close();
        // Each of them ends by itself.
        self.0.rollbacks.wait().await;
        let idle = std::mem::take(&mut *self.idle());
        for Idle { held, .. } in idle {
            // The process ends: who does not take a goodbye misses nothing.
            let _ = self.0.contact.answered(GOODBYE, held.connection.close()).await;
        }
    }

    fn take_idle(&self) -> Option<Held> {
        let mut idle = self.idle();
        let now = Instant::now();
        idle.retain(|idle| now - idle.since < MAX_IDLE && now - idle.held.born < MAX_AGE);
        idle.pop().map(|idle| idle.held)
    }

    fn put_back(&self, held: Held) {
        if !self.0.seats.is_closed() {
            self.idle().push(Idle { held, since: Instant::now() });
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transaction under way; rolled back when it is dropped.
#[derive(Debug)]
pub(super) struct PgWork {
    pool: Pool,
    /// None: it was given up.
    held: Option<Held>,
    seat: Option<OwnedSemaphorePermit>,
}

impl PgWork {
    /// Runs a query; how many rows it changed.
    pub(super) async fn execute(&mut self, query: PgQuery) -> StorageResult<u64> {
        let (contact, held) = self.parts()?;
        let asked = held.connection.execute(query);
        let outcome = contact.within(contact.times.statement, asked).await;
        Ok(self.settle(outcome)?.rows_affected())
    }

    /// All rows.
    pub(super) async fn fetch_all(&mut self, query: PgQuery) -> StorageResult<Vec<PgRow>> {
        let (contact, held) = self.parts()?;
        let asked = held.connection.fetch_all(query);
        let outcome = contact.within(contact.times.statement, asked).await;
        self.settle(outcome)
    }

    /// The first row, if there is one.
    pub(super) async fn fetch_optional(&mut self, query: PgQuery) -> StorageResult<Option<PgRow>> {
        let (contact, held) = self.parts()?;
        let asked = held.connection.fetch_optional(query);
        let outcome = contact.within(contact.times.statement, asked).await;
        self.settle(outcome)
    }

    /// Makes the changes durable. When no answer comes, nobody knows whether they are.
    pub(super) async fn commit(mut self) -> StorageResult<()> {
        let (contact, held) = self.parts()?;
        let asked = held.connection.execute("COMMIT");
        let outcome = contact.within(contact.times.statement, asked).await;
        self.settle(outcome)?;
        if let Some(held) = self.held.take() {
            self.pool.put_back(held);
        }
        Ok(())
    }

    fn parts(&mut self) -> StorageResult<(&Contact, &mut Held)> {
        let held = self.held.as_mut().ok_or_else(|| StorageError::from(silence()))?;
        Ok((&self.pool.0.contact, held))
    }

    /// Drops a connection that is good for nothing any more.
    fn settle<T>(&mut self, outcome: sqlx::Result<T>) -> StorageResult<T> {
        if outcome.as_ref().is_err_and(is_broken) {
            self.held = None;
        }
        Ok(outcome?)
    }
}

impl Drop for PgWork {
    fn drop(&mut self) {
        let (held, seat) = (self.held.take(), self.seat.take());
        let (Some(mut held), Ok(runtime)) = (held, Handle::try_current()) else { return };
        let pool = self.pool.clone();
        let rolling_back = async move {
            let contact = &pool.0.contact;
            let asked = held.connection.execute("ROLLBACK");
            // A server that is busy with a statement that nobody waits for any more notices the end of the connection.
            if contact.within(contact.times.prompt, asked).await.is_ok() {
                pool.put_back(held);
            }
            drop(seat);
        };
        self.pool.0.rollbacks.spawn_on(rolling_back, &runtime);
    }
}
