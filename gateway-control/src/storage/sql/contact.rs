//! The contact with a PostgreSQL server: no wait for it is without an end.
//!
//! The driver waits for an answer as long as TCP does: a quarter of an hour where a machine lost its power with a statement on
//! its way to it, and for ever where nothing is on its way. Its sockets are out of our reach, so what takes too long is given up
//! here, and its connection is dropped without a goodbye, which would wait as well.
//!
//! The line on which news come ([`super::line`]) asks every few seconds whether the server is there. When it is not, whatever
//! waits on other connections is given up at once: it would not be answered either.

use std::{fmt, io, sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// How long what may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// A session, from the first packet on.
    pub(super) connect: Duration,
    /// An answer that costs no work.
    pub(super) prompt: Duration,
    /// A statement: longer than the server's own limits, so that one that is there says itself what was too long.
    pub(super) statement: Duration,
    /// Until a connection comes free, or is made.
    pub(super) patience: Duration,
    /// How long a start waits for who writes before it says so, and goes on waiting.
    pub(super) lock: Duration,
    /// Silence on the line after which the server is asked whether it is there.
    pub(super) pulse: Duration,
}

impl Times {
    pub(super) const USUAL: Self = Self {
        connect: Duration::from_secs(5),
        prompt: Duration::from_secs(4),
        statement: Duration::from_secs(25),
        patience: Duration::from_secs(10),
        lock: Duration::from_secs(5),
        pulse: Duration::from_secs(3),
    };
}

/// How a server is reached, and whether it answers as far as anybody knows. Clones share it.
#[derive(Clone)]
pub(super) struct Contact {
    options: Arc<PgConnectOptions>,
    answers: watch::Sender<bool>,
    pub(super) times: Times,
}

/// The options hold the password.
impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contact").field("answers", &self.answers()).finish_non_exhaustive()
    }
}

impl Contact {
    pub(super) fn new(options: PgConnectOptions, times: Times) -> Self {
        Self { options: Arc::new(options), answers: watch::Sender::new(true), times }
    }

    /// A new session.
    pub(super) async fn connect(&self) -> sqlx::Result<PgConnection> {
        self.answered(self.times.connect, self.options.connect()).await
    }

    /// For what takes its connection from a pool of the driver. Nothing is connected yet.
    pub(super) fn pool_of_one(&self) -> PgPool {
        let options = PgPoolOptions::new().max_connections(1).acquire_timeout(self.times.connect);
        options.idle_timeout(None).max_lifetime(None).connect_lazy_with((*self.options).clone())
    }

    /// What is answered within a time, or before the line finds that nobody answers. On a failure the connection may still wait
    /// for its answer: see [`is_broken`].
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        asked: impl Future<Output = sqlx::Result<T>>,
    ) -> sqlx::Result<T> {
        let mut answers = self.answers.subscribe();
        tokio::select! {
            biased;
            answer = asked => answer,
            () = falls_silent(&mut answers) => Err(silence()),
            () = sleep(limit) => Err(silence()),
        }
    }

    /// The same for the line itself.
    pub(super) async fn answered<T>(
        &self,
        limit: Duration,
        asked: impl Future<Output = sqlx::Result<T>>,
    ) -> sqlx::Result<T> {
        timeout(limit, asked).await.unwrap_or_else(|_| Err(silence()))
    }

    /// Whether the line heard from the server last, or nobody asked yet.
    pub(super) fn answers(&self) -> bool {
        *self.answers.borrow()
    }

    /// The line has heard from the server.
    pub(super) fn heard(&self) {
        self.note(true);
    }

    /// The line has not heard from it.
    pub(super) fn lost(&self) {
        self.note(false);
    }

    fn note(&self, now: bool) {
        self.answers.send_if_modified(|answers| std::mem::replace(answers, now) != now);
    }
}

/// Once the line finds that nobody answers; whoever begins later is not meant.
async fn falls_silent(answers: &mut watch::Receiver<bool>) {
    while answers.changed().await.is_ok() {
        let answers = *answers.borrow_and_update();
        if !answers {
            return;
        }
    }
    std::future::pending().await
}

/// What is said of a server that does not answer.
pub(super) fn silence() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "PostgreSQL does not answer"))
}

/// Whether the server did not answer. Another error says that somebody is there, or something between us and it.
pub(super) fn is_silence(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}

/// Whether nothing good is to be expected of the connection any more.
pub(super) fn is_broken(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed)
}

/// Whether the server is about to be there, so that another try is worth a wait: its port is closed, it starts, or all its
/// connections are taken.
pub(super) fn is_starting(error: &sqlx::Error) -> bool {
    if let sqlx::Error::Database(error) = error {
        return matches!(error.code().as_deref(), Some("57P03" | "53300"));
    }
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}
