//! One watch in the registry: what its gateway says, and what it is told.

use gateway_proto::{
    api::gateway::ConnectionReport,
    audit::heads::ReportedHead,
    id::{ConnectionId, ServerId},
    identity::GatewayPublicKey,
};
use tokio::sync::watch;

use super::{News, Registry, Signal, Unentered, Watcher, Watchers};

/// What a watch told and is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// Reports about connections that its gateway's policy does not name.
    pub reports: usize,
    /// Counts for which there was no room.
    pub counts: usize,
}

/// One watch; leaves the registry when dropped.
#[derive(Debug)]
pub struct WatchSession {
    pub(super) watchers: Watchers,
    pub(super) server: ServerId,
    pub(super) session: u64,
    /// Signals to this watch.
    pub changes: watch::Receiver<Signal>,
    /// The number of the last question whether its gateway lives.
    pub asked: watch::Receiver<u64>,
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

    /// Keeps reports about connections that `known` names; returns what was dropped.
    pub fn report(&self, reports: Vec<ConnectionReport>, known: &[ConnectionId], now: u64) -> Dropped {
        let (known_ones, unknown): (Vec<_>, Vec<_>) =
            reports.into_iter().partition(|report| known.binary_search(&report.id).is_ok());
        let mut dropped = Dropped { reports: unknown.len(), counts: 0 };
        self.with(|watcher, mut news, unentered| {
            for report in known_ones {
                let report = super::kept(report);
                if let Some(news) = &mut news {
                    news.insert((self.server, report.id));
                }
                let (id, counts) = (report.id, report.counts);
                let before = watcher.reports.insert(id, (report, now)).and_then(|(before, _)| before.counts);
                if let Some(counts) = counts.filter(|counts| before != Some(*counts))
                    && !unentered.tell(id, (self.server, counts))
                {
                    dropped.counts += 1;
                }
            }
        });
        dropped
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

    pub(super) fn with(&self, change: impl FnOnce(&mut Watcher, Option<&mut News>, &mut Unentered)) {
        let mut registry = self.watchers.lock();
        let Registry { watchers, news, unentered, .. } = &mut *registry;
        if let Some(watcher) = watchers.get_mut(&self.server)
            && watcher.session == self.session
        {
            change(watcher, news.as_mut(), unentered);
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
