//! The gateways that watch their policy now: whom to wake, and what they last reported.
//!
//! A watcher is woken by name, never by broadcast: the cost of a change is that of the gateways it concerns. A newer
//! watch of the same server takes the place of the older one. What a gateway reported is kept as long as it watches: a
//! report of somebody who is out of reach would be a guess. Only what it counted last stays until it is entered.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gateway_proto::{
    api::gateway::ConnectionReport,
    audit::heads::ReportedHead,
    balance::EndCounts,
    id::{ConnectionId, ServerId},
    identity::GatewayPublicKey,
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
    /// Reports that changed since they were last taken by [`Watchers::take_news`]; at most those that are kept or were
    /// dropped meanwhile. Not kept at all when nobody takes them.
    news: Option<BTreeSet<(ServerId, ConnectionId)>>,
    /// Connections on which something else was counted since [`Watchers::take_counted`]; at most those reported about.
    counted: BTreeSet<ConnectionId>,
    /// What gateways that have left since had counted last on these, oldest first; at most [`LEFT_MOST`] of them, and
    /// [`PARTINGS`] of one.
    left: BTreeMap<ConnectionId, Vec<(ServerId, EndCounts)>>,
    /// The newest heads of audit logs that are not written down; at most one of each server that watches, because the end of a
    /// watch writes its own.
    heads: BTreeMap<ServerId, GatewayHead>,
}

/// Connections whose last counts wait to be entered. A round of the delivery proof takes them all; what finds no room is seen as
/// a difference.
const LEFT_MOST: usize = 100_000;
/// So often the gateways of a connection may leave between two rounds.
const PARTINGS: usize = 16;

/// A head of an audit log, and whose it is.
pub type GatewayHead = (GatewayPublicKey, ReportedHead);

#[derive(Debug)]
struct Watcher {
    session: u64,
    last_heard: u64,
    /// The newest revision that was read for it.
    revision: u64,
    signal: watch::Sender<Signal>,
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
        let watcher = Watcher { session, last_heard: now, revision: 0, signal, reports: BTreeMap::new() };
        if registry.watchers.get(&server).is_some_and(|known| known.session > session) {
            // A newer one was faster.
            watcher.signal.send_replace(Signal::Replaced);
        } else if let Some(older) = registry.watchers.insert(server, watcher) {
            registry.part(server, &older);
            older.signal.send_replace(Signal::Replaced);
        }
        WatchSession { watchers: self.clone(), server, session, changes }
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
        let mut registry = self.lock();
        if let Some(watcher) = registry.watchers.remove(&server) {
            registry.part(server, &watcher);
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

    /// What the gateway of a server counted on a connection: before it left, if it did, and as it watches now. Oldest first.
    pub fn counts(&self, server: ServerId, connection: ConnectionId) -> Vec<EndCounts> {
        let registry = self.lock();
        let left = registry.left.get(&connection).into_iter().flatten().filter(|(of, _)| *of == server);
        let mut counts: Vec<_> = left.map(|(_, counts)| *counts).collect();
        let report = registry.watchers.get(&server).and_then(|watcher| watcher.reports.get(&connection));
        counts.extend(report.and_then(|(report, _)| report.counts));
        counts
    }

    /// Forgets what gateways that have left had counted on a connection: it is entered. What came meanwhile stays.
    pub fn entered(&self, connection: ConnectionId) {
        let mut registry = self.lock();
        if !registry.counted.contains(&connection) {
            registry.left.remove(&connection);
        }
    }

    /// Takes away the names of the connections on which something else was counted since the last time.
    pub fn take_counted(&self) -> BTreeSet<ConnectionId> {
        std::mem::take(&mut self.lock().counted)
    }

    /// Takes away the newest head of a gateway's audit log that is not written down; another gateway of the server has its own.
    pub fn take_head(&self, server: ServerId, gateway: GatewayPublicKey) -> Option<ReportedHead> {
        let mut registry = self.lock();
        registry.heads.get(&server).filter(|(whose, _)| *whose == gateway)?;
        registry.heads.remove(&server).map(|(_, head)| head)
    }

    /// Takes some of them away.
    pub fn take_heads(&self, limit: usize) -> Vec<(ServerId, GatewayHead)> {
        let mut registry = self.lock();
        let servers: Vec<_> = registry.heads.keys().take(limit).copied().collect();
        servers.into_iter().filter_map(|server| Some((server, registry.heads.remove(&server)?))).collect()
    }

    /// Puts back what was taken and could not be written, where nothing newer has come.
    pub fn return_heads(&self, taken: Vec<(ServerId, GatewayHead)>) {
        let mut registry = self.lock();
        for (server, head) in taken {
            registry.heads.entry(server).or_insert(head);
        }
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

impl Registry {
    /// Keeps what a gateway that leaves counted last and nobody has entered.
    fn part(&mut self, server: ServerId, watcher: &Watcher) {
        let counted = watcher.reports.iter().filter(|(id, _)| self.counted.contains(id));
        for (id, counts) in counted.filter_map(|(id, (report, _))| Some((*id, report.counts?))) {
            if self.left.len() < LEFT_MOST {
                let left = self.left.entry(id).or_default();
                left.push((server, counts));
                left.drain(..left.len().saturating_sub(PARTINGS));
            }
        }
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
    /// The number of this watch.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// The newest revision that was read for it.
    pub fn read(&self, revision: u64) {
        self.with(|watcher, _, _| watcher.revision = revision);
    }

    /// The server whose gateway watches.
    pub fn server(&self) -> ServerId {
        self.server
    }

    /// Notes a sign of life.
    pub fn heard(&self, now: u64) {
        self.with(|watcher, _, _| watcher.last_heard = now);
    }

    /// Keeps the newest head of the gateway's audit log until it is written down.
    pub fn audit_head(&self, gateway: GatewayPublicKey, head: ReportedHead) {
        let mut registry = self.watchers.lock();
        if registry.watchers.get(&self.server).is_some_and(|watcher| watcher.session == self.session) {
            registry.heads.insert(self.server, (gateway, head));
        }
    }

    /// Keeps reports about connections that `known` names; returns how many were dropped.
    pub fn report(&self, reports: Vec<ConnectionReport>, known: &[ConnectionId], now: u64) -> usize {
        let (kept, dropped): (Vec<_>, Vec<_>) =
            reports.into_iter().partition(|report| known.binary_search(&report.id).is_ok());
        self.with(|watcher, mut news, counted| {
            for report in kept {
                let report = ConnectionReport { problem: report.problem.as_deref().map(brief), ..report };
                if let Some(news) = &mut news {
                    news.insert((self.server, report.id));
                }
                let (id, counts) = (report.id, report.counts);
                let before = watcher.reports.insert(id, (report, now)).and_then(|(before, _)| before.counts);
                if counts.is_some() && counts != before {
                    counted.insert(id);
                }
            }
        });
        dropped.len()
    }

    /// Forgets what was reported about connections that are not in the policy any more.
    pub fn retain(&self, known: &[ConnectionId]) {
        self.with(|watcher, mut news, _| {
            watcher.reports.retain(|id, _| {
                let stays = known.binary_search(id).is_ok();
                if let (false, Some(news)) = (stays, &mut news) {
                    news.insert((self.server, *id));
                }
                stays
            });
        });
    }

    fn with(
        &self,
        change: impl FnOnce(&mut Watcher, Option<&mut BTreeSet<(ServerId, ConnectionId)>>, &mut BTreeSet<ConnectionId>),
    ) {
        let mut registry = self.watchers.lock();
        let Registry { watchers, news, counted, .. } = &mut *registry;
        if let Some(watcher) = watchers.get_mut(&self.server)
            && watcher.session == self.session
        {
            change(watcher, news.as_mut(), counted);
        }
    }
}

impl Drop for WatchSession {
    fn drop(&mut self) {
        let mut registry = self.watchers.lock();
        if registry.watchers.get(&self.server).is_some_and(|watcher| watcher.session == self.session) {
            let left = registry.watchers.remove(&self.server);
            left.into_iter().for_each(|watcher| registry.part(self.server, &watcher));
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

    fn enter(watchers: &Watchers, n: u8, now: u64) -> WatchSession {
        watchers.enter(server(n), watchers.next_session(), now)
    }

    #[test]
    fn a_look_wakes_only_those_who_have_an_older_policy() {
        let watchers = Watchers::default();
        let (mut one, mut other) = (enter(&watchers, 1, 0), enter(&watchers, 2, 0));
        one.read(5);
        other.read(4);
        watchers.wake_if_older(server(1), 5);
        watchers.wake_if_older(server(2), 5);
        assert_eq!(*one.changes.borrow_and_update(), Signal::Changed(0));
        assert_eq!(*other.changes.borrow_and_update(), Signal::Changed(1));
        watchers.wake_all();
        assert_eq!(*one.changes.borrow_and_update(), Signal::Changed(1));
        watchers.replace(server(1));
        assert_eq!(*one.changes.borrow_and_update(), Signal::Replaced);
    }

    #[test]
    fn only_the_named_watcher_is_woken() {
        let watchers = Watchers::default();
        let (mut one, mut other) = (enter(&watchers, 1, 0), enter(&watchers, 2, 0));
        watchers.wake(server(1));
        assert!(one.changes.has_changed().unwrap());
        assert!(!other.changes.has_changed().unwrap());
        assert_eq!(*one.changes.borrow_and_update(), Signal::Changed(1));
        assert_eq!(*other.changes.borrow_and_update(), Signal::Changed(0));
    }

    #[test]
    fn a_newer_watch_replaces_the_older_and_the_older_does_not_take_it_along() {
        let watchers = Watchers::default();
        let older = enter(&watchers, 1, 0);
        let newer = enter(&watchers, 1, 7);
        assert_eq!(*older.changes.borrow(), Signal::Replaced);
        drop(older);
        assert_eq!(watchers.last_heard(server(1)), Some(7));
        // An older one that comes late does not take its place either.
        let (late, latest) = (watchers.next_session(), watchers.next_session());
        let latest = watchers.enter(server(1), latest, 8);
        let late = watchers.enter(server(1), late, 9);
        assert_eq!((*late.changes.borrow(), *latest.changes.borrow()), (Signal::Replaced, Signal::Changed(0)));
        drop((newer, late));
        assert_eq!(watchers.last_heard(server(1)), Some(8));
        drop(latest);
        assert_eq!(watchers.count(), 0);
    }
}
