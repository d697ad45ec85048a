//! The gateways that watch their policy now: whom to wake, and what they last reported.
//!
//! A watcher is woken by name, never by broadcast: the cost of a change is that of the gateways it concerns. A newer
//! watch of the same server takes the place of the older one. What a gateway reported is kept as long as it watches: a
//! report of somebody who is out of reach would be a guess. Only what it counted stays until it is entered ([`Unentered`]).

mod asking;
mod counts;
mod heads;
mod session;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gateway_proto::{
    api::gateway::{ConnectionReport, EndDetails, PathWhy},
    balance::EndCounts,
    id::{ConnectionId, ServerId},
    names,
    twice::Instance,
};
use tokio::sync::watch;

use self::counts::Unentered;
pub use self::{
    counts::Told,
    heads::{GatewayHead, TakenHeads},
    session::{Dropped, WatchSession},
};

/// What a watch hears from the rest of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// There may be a newer policy; the number only makes each wake-up a change.
    Changed(u64),
    /// The gateway or its server was removed.
    Removed,
    /// A newer watch of the same gateway took over.
    Replaced,
}

/// The registry; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Watchers {
    inner: Arc<Mutex<Registry>>,
}

#[derive(Debug, Default)]
struct Registry {
    /// At most one per server.
    watchers: BTreeMap<ServerId, Watcher>,
    sessions: u64,
    /// Reports that changed since they were last taken by [`Watchers::take_news`]; at most those that are kept or were
    /// dropped meanwhile. Not kept at all when nobody takes them.
    news: Option<News>,
    unentered: Unentered,
    /// The newest heads of audit logs that are not written down; at most one of each server, and none for long of one that does not
    /// watch: the end of a watch writes its own, and the next round what it could not.
    heads: BTreeMap<ServerId, GatewayHead>,
}

/// Whose report of which connection changed.
type News = BTreeSet<(ServerId, ConnectionId)>;

#[derive(Debug)]
struct Watcher {
    session: u64,
    last_heard: u64,
    /// The newest revision that was read for it.
    revision: u64,
    signal: watch::Sender<Signal>,
    /// Which process of the gateway it is; none: it does not say.
    instance: Option<Instance>,
    /// The number of the last question for a sign of life, and
    asked: watch::Sender<u64>,
    /// that of the last one that was answered.
    answered: watch::Sender<u64>,
    /// At most the connections of the server's policy: others are dropped, see [`WatchSession::report`].
    reports: BTreeMap<ConnectionId, (ConnectionReport, u64)>,
}

impl Watchers {
    /// A registry whose reports somebody takes away to write them down.
    pub fn with_news() -> Self {
        let watchers = Self::default();
        watchers.lock().news = Some(BTreeSet::new());
        watchers
    }

    /// A number for a watch that is about to enter; newer ones are higher.
    pub fn next_session(&self) -> u64 {
        let mut registry = self.lock();
        registry.sessions += 1;
        registry.sessions
    }

    /// Enters a watch; an older one of the same server is told that it was replaced.
    pub fn enter(&self, server: ServerId, session: u64, now: u64) -> WatchSession {
        let mut registry = self.lock();
        let (signal, changes) = watch::channel(Signal::Changed(0));
        let (asked, questions) = watch::channel(0);
        let watcher = Watcher {
            session,
            last_heard: now,
            revision: 0,
            signal,
            instance: None,
            asked,
            answered: watch::Sender::new(0),
            reports: BTreeMap::new(),
        };
        if registry.watchers.get(&server).is_some_and(|known| known.session > session) {
            // A newer one was faster.
            watcher.signal.send_replace(Signal::Replaced);
        } else if let Some(older) = registry.watchers.insert(server, watcher) {
            older.signal.send_replace(Signal::Replaced);
        }
        WatchSession { watchers: self.clone(), server, session, changes, asked: questions }
    }

    /// Wakes the watch of a server, if there is one.
    pub fn wake(&self, server: ServerId) {
        if let Some(watcher) = self.lock().watchers.get(&server) {
            watcher.wake();
        }
    }

    /// Wakes the watch of a server, if it has not seen this revision.
    pub fn wake_if_older(&self, server: ServerId, revision: u64) {
        if let Some(watcher) = self.lock().watchers.get(&server).filter(|watcher| watcher.revision < revision) {
            watcher.wake();
        }
    }

    /// Wakes everybody: nobody knows what was missed.
    pub fn wake_all(&self) {
        self.lock().watchers.values().for_each(Watcher::wake);
    }

    /// Tells the watch of a server that the gateway watches elsewhere now, and forgets it.
    pub fn replace(&self, server: ServerId) {
        if let Some(watcher) = self.lock().watchers.remove(&server) {
            watcher.signal.send_replace(Signal::Replaced);
        }
    }

    /// Tells the watch of a server that its gateway was removed, and forgets it.
    pub fn remove(&self, server: ServerId) {
        if let Some(watcher) = self.lock().watchers.remove(&server) {
            watcher.signal.send_replace(Signal::Removed);
        }
    }

    /// When the watching gateway of a server was last heard (Unix seconds); none: nobody watches.
    pub fn last_heard(&self, server: ServerId) -> Option<u64> {
        self.lock().watchers.get(&server).map(|watcher| watcher.last_heard)
    }

    /// What the watching gateway of a server last reported about a connection, and when.
    pub fn report(&self, server: ServerId, connection: ConnectionId) -> Option<(ConnectionReport, u64)> {
        self.lock().watchers.get(&server)?.reports.get(&connection).cloned()
    }

    /// What the watching gateway of a server last reported about its connections; none: nobody watches.
    pub fn reports(&self, server: ServerId) -> Option<Vec<ConnectionReport>> {
        let registry = self.lock();
        let watcher = registry.watchers.get(&server)?;
        Some(watcher.reports.values().map(|(report, _)| report.clone()).collect())
    }

    /// What the watching gateway of a server last told that it counted on a connection; none: nobody watches, or nothing is
    /// counted there.
    pub fn counts(&self, server: ServerId, connection: ConnectionId) -> Option<EndCounts> {
        self.lock().watchers.get(&server)?.reports.get(&connection)?.0.counts
    }

    /// The connections on which gateways counted something that is not entered.
    pub fn counted(&self) -> BTreeSet<ConnectionId> {
        self.lock().unentered.connections().collect()
    }

    /// What is not entered of a connection, oldest first: also of gateways that have left since.
    pub fn told(&self, connection: ConnectionId) -> Vec<Told> {
        self.lock().unentered.of(connection)
    }

    /// What [`Watchers::told`] read of a connection is entered. What came meanwhile stays.
    pub fn entered(&self, connection: ConnectionId, read: &[Told]) {
        self.lock().unentered.entered(connection, read);
    }

    /// Puts names back that [`Watchers::take_news`] took away.
    pub fn return_news(&self, taken: Vec<(ServerId, ConnectionId)>) {
        if let Some(news) = &mut self.lock().news {
            news.extend(taken);
        }
    }

    /// Takes away the names of some reports that changed.
    pub fn take_news(&self, limit: usize) -> Vec<(ServerId, ConnectionId)> {
        let mut registry = self.lock();
        let Some(news) = &mut registry.news else { return Vec::new() };
        let taken: Vec<_> = news.iter().take(limit).copied().collect();
        for report in &taken {
            news.remove(report);
        }
        taken
    }

    /// How many watch now.
    pub fn count(&self) -> usize {
        self.lock().watchers.len()
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    fn wake(&self) {
        self.signal.send_modify(|signal| {
            if let Signal::Changed(count) = signal {
                *count = count.wrapping_add(1);
            }
        });
    }
}

/// Words of a gateway as they are kept and logged: one line of at most 300 characters.
pub(crate) fn brief(text: &str) -> String {
    line(text, 300)
}

/// One line of at most so many characters, all of which can be seen.
fn line(text: &str, limit: usize) -> String {
    names::visible(&text.chars().filter(|c| !c.is_control()).take(limit).collect::<String>())
}

/// A report with its words as they are kept.
fn kept(report: ConnectionReport) -> ConnectionReport {
    let problem = report.problem.as_deref().map(brief);
    let details = report.details.map(|details| {
        let why = details.path_reason;
        let path_reason = why.map(|why| PathWhy { code: line(&why.code, 40), text: line(&why.text, 500) });
        EndDetails { path_reason, ..details }
    });
    ConnectionReport { problem, details, ..report }
}

#[cfg(test)]
mod tests;
