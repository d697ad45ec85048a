//! The gateways that watch their policy now: whom to wake, and what they last reported.
//!
//! A watcher is woken by name, never by broadcast: the cost of a change is that of the gateways it concerns. A newer
//! watch of the same server takes the place of the older one. What a gateway reported is kept as long as it watches: a
//! report of somebody who is out of reach would be a guess.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gateway_proto::{
    api::gateway::ConnectionReport,
    balance::EndCounts,
    id::{ConnectionId, ServerId},
};
use tokio::sync::watch;

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
}

#[derive(Debug)]
struct Watcher {
    session: u64,
    last_heard: u64,
    signal: watch::Sender<Signal>,
    /// At most the connections of the server's policy: others are dropped, see [`WatchSession::report`].
    reports: BTreeMap<ConnectionId, (ConnectionReport, u64)>,
}

impl Watchers {
    /// Enters a watch; an older one of the same server is told that it was replaced.
    pub fn enter(&self, server: ServerId, now: u64) -> WatchSession {
        let mut registry = self.lock();
        registry.sessions += 1;
        let session = registry.sessions;
        let (signal, changes) = watch::channel(Signal::Changed(0));
        let watcher = Watcher { session, last_heard: now, signal, reports: BTreeMap::new() };
        if let Some(older) = registry.watchers.insert(server, watcher) {
            older.signal.send_replace(Signal::Replaced);
        }
        WatchSession { watchers: self.clone(), server, session, changes }
    }

    /// Wakes the watch of a server, if there is one.
    pub fn wake(&self, server: ServerId) {
        if let Some(watcher) = self.lock().watchers.get(&server) {
            watcher.signal.send_modify(|signal| {
                if let Signal::Changed(count) = signal {
                    *count = count.wrapping_add(1);
                }
            });
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

    /// What the gateways that watch now last counted, by server and connection.
    pub fn counts(&self) -> BTreeMap<(ServerId, ConnectionId), EndCounts> {
        let registry = self.lock();
        let ends = registry.watchers.iter().flat_map(|(server, watcher)| {
            watcher.reports.iter().map(move |(connection, (report, _))| ((*server, *connection), report.counts))
        });
        ends.filter_map(|(end, counts)| Some((end, counts?))).collect()
    }

    /// How many watch now.
    pub fn count(&self) -> usize {
        self.lock().watchers.len()
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One watch; leaves the registry when dropped.
#[derive(Debug)]
pub struct WatchSession {
    watchers: Watchers,
    server: ServerId,
    session: u64,
    /// Signals to this watch.
    pub changes: watch::Receiver<Signal>,
}

impl WatchSession {
    /// The server whose gateway watches.
    pub fn server(&self) -> ServerId {
        self.server
    }

    /// Notes a sign of life.
    pub fn heard(&self, now: u64) {
        self.with(|watcher| watcher.last_heard = now);
    }

    /// Keeps reports about connections that `known` names; returns how many were dropped.
    pub fn report(&self, reports: Vec<ConnectionReport>, known: &[ConnectionId], now: u64) -> usize {
        let (kept, dropped): (Vec<_>, Vec<_>) =
            reports.into_iter().partition(|report| known.binary_search(&report.id).is_ok());
        self.with(|watcher| {
            for report in kept {
                let report = ConnectionReport { problem: report.problem.as_deref().map(brief), ..report };
                watcher.reports.insert(report.id, (report, now));
            }
        });
        dropped.len()
    }

    /// Forgets what was reported about connections that are not in the policy any more.
    pub fn retain(&self, known: &[ConnectionId]) {
        self.with(|watcher| watcher.reports.retain(|id, _| known.binary_search(id).is_ok()));
    }

    fn with(&self, change: impl FnOnce(&mut Watcher)) {
        let mut registry = self.watchers.lock();
        if let Some(watcher) = registry.watchers.get_mut(&self.server)
            && watcher.session == self.session
        {
            change(watcher);
        }
    }
}

impl Drop for WatchSession {
    fn drop(&mut self) {
        let mut registry = self.watchers.lock();
        if registry.watchers.get(&self.server).is_some_and(|watcher| watcher.session == self.session) {
            registry.watchers.remove(&self.server);
        }
    }
}

/// Words of a gateway as they are kept and logged: one line of at most 300 characters.
pub(crate) fn brief(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(n: u8) -> ServerId {
        ServerId::new(1, [n; 10])
    }

    #[test]
    fn only_the_named_watcher_is_woken() {
        let watchers = Watchers::default();
        let (mut one, mut other) = (watchers.enter(server(1), 0), watchers.enter(server(2), 0));
        watchers.wake(server(1));
        assert!(one.changes.has_changed().unwrap());
        assert!(!other.changes.has_changed().unwrap());
        assert_eq!(*one.changes.borrow_and_update(), Signal::Changed(1));
        assert_eq!(*other.changes.borrow_and_update(), Signal::Changed(0));
    }

    #[test]
    fn a_newer_watch_replaces_the_older_and_the_older_does_not_take_it_along() {
        let watchers = Watchers::default();
        let older = watchers.enter(server(1), 0);
        let newer = watchers.enter(server(1), 7);
        assert_eq!(*older.changes.borrow(), Signal::Replaced);
        drop(older);
        assert_eq!(watchers.last_heard(server(1)), Some(7));
        drop(newer);
        assert_eq!(watchers.count(), 0);
    }
}
