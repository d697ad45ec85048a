//! What this replica tells the others, and asks of them, through the storage.

use std::{collections::BTreeSet, time::Instant};

use gateway_proto::{
    api::gateway::ConnectionReport,
    id::{ConnectionId, ServerId},
};

use super::{Service, ServiceResult};
use crate::{
    replica::{REPLICA_SILENCE_SECS, SYNC_LIMIT},
    storage::{Ahead, NewsLine, Transaction},
};

/// Reports written in one transaction.
const REPORTS: usize = 500;

impl Service {
    /// The line of the other replicas; none: there are none.
    pub(crate) fn news_line(&self) -> Option<Box<dyn NewsLine>> {
        self.storage.news_line()
    }

    /// Whether there may be other replicas.
    pub(super) fn is_shared(&self) -> bool {
        self.shared
    }

    /// The name of this process among its kind.
    pub(crate) fn replica(&self) -> &str {
        &self.replica
    }

    /// Whether we do what needs doing once.
    pub(crate) async fn leads(&self) -> ServiceResult<bool> {
        Ok(self.storage.lead().await?)
    }

    /// We have seen everything up to now.
    pub(crate) fn synced(&self) {
        *self.synced_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
    }

    /// Whether what we say about policies can be relied on: alone, always.
    pub(crate) fn is_synced(&self) -> bool {
        !self.shared || self.synced_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner).elapsed() < SYNC_LIMIT
    }

    /// Policies newer than a revision.
    pub(crate) async fn policies_after(&self, revision: u64, limit: u32) -> ServiceResult<Vec<(ServerId, u64)>> {
        // Whether our watches go on hangs on it: it waits for nobody's lists.
        Ok(self.storage.read_for_gateways().await?.policies_after(revision, limit).await?)
    }

    /// Tells the others that we live.
    pub(crate) async fn stay_alive(&self) -> ServiceResult<()> {
        let mut tx = self.storage.begin().await?;
        tx.put_replica(&self.replica, self.clock.unix_secs()).await?;
        Ok(tx.commit().await?)
    }

    /// Takes our name off, and with it those who watched here.
    pub(crate) async fn leave_replicas(&self) -> ServiceResult<()> {
        let mut tx = self.storage.begin().await?;
        tx.put_replica(&self.replica, 0).await?;
        tx.delete_replicas(1).await?;
        Ok(tx.commit().await?)
    }

    /// Writes down some of what gateways reported here since the last time; whether there is more.
    pub(crate) async fn write_reports(&self) -> ServiceResult<bool> {
        let news = self.watchers.take_news(REPORTS);
        if news.is_empty() {
            return Ok(false);
        }
        let written = self.put_reports(&news).await;
        let more = news.len() >= REPORTS;
        if written.is_err() {
            self.watchers.return_news(news);
        }
        written.map(|()| more)
    }

    async fn put_reports(&self, news: &[(ServerId, ConnectionId)]) -> ServiceResult<()> {
        let mut tx = self.storage.begin().await?;
        for (server, connection) in news {
            match self.watchers.report(*server, *connection) {
                Some((report, at)) => tx.put_report(*server, &report, at).await?,
                None => tx.delete_report(*server, *connection).await?,
            }
        }
        Ok(tx.commit().await?)
    }

    /// When the watching gateway of a server was last heard, wherever it watches; none: nowhere.
    pub(super) async fn last_heard(&self, tx: &mut dyn Transaction, server: ServerId) -> ServiceResult<Option<u64>> {
        match self.watchers.last_heard(server) {
            None if self.shared => Ok(tx.watch_heard(server, self.alive_since()).await?),
            here => Ok(here),
        }
    }

    /// Reads ahead what [`Service::last_heard`] will ask for.
    pub(super) async fn watches_ahead(
        &self,
        tx: &mut dyn Transaction,
        servers: BTreeSet<ServerId>,
    ) -> ServiceResult<()> {
        if self.shared {
            tx.read_ahead(Ahead::Watches(servers, self.alive_since())).await?;
        }
        Ok(())
    }

    /// Reads ahead what [`Service::last_report`] will ask for.
    pub(super) async fn reports_ahead(
        &self,
        tx: &mut dyn Transaction,
        ends: BTreeSet<(ServerId, ConnectionId)>,
    ) -> ServiceResult<()> {
        if self.shared {
            tx.read_ahead(Ahead::Reports(ends, self.alive_since())).await?;
        }
        Ok(())
    }

    /// What the watching gateway of a server last reported about a connection, wherever it watches.
    pub(super) async fn last_report(
        &self,
        tx: &mut dyn Transaction,
        server: ServerId,
        connection: ConnectionId,
    ) -> ServiceResult<Option<(ConnectionReport, u64)>> {
        match self.watchers.report(server, connection) {
            None if self.shared => Ok(tx.report(server, connection, self.alive_since()).await?),
            here => Ok(here),
        }
    }

    /// What the watching gateway of a server last reported about all its connections, wherever it watches.
    pub(super) async fn last_reports(
        &self,
        tx: &mut dyn Transaction,
        server: ServerId,
    ) -> ServiceResult<Vec<ConnectionReport>> {
        match self.watchers.reports(server) {
            None if self.shared => Ok(tx.reports_of_server(server, self.alive_since()).await?),
            here => Ok(here.unwrap_or_default()),
        }
    }

    pub(super) fn alive_since(&self) -> u64 {
        self.clock.unix_secs().saturating_sub(REPLICA_SILENCE_SECS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::ground::Ground;

    #[tokio::test]
    async fn what_other_replicas_and_time_did_is_seen_however_many_lists_are_read() {
        let ground = Ground::new().await;
        // As many as there are readers for people.
        let _lists = [ground.read().await, ground.read().await, ground.read().await, ground.read().await];
        ground.service.policies_after(0, 10).await.unwrap();
        ground.service.turn_policy_key().await.unwrap();
        ground.service.expire_overdue(&mut BTreeSet::new()).await.unwrap();
        ground.service.prove_deliveries().await.unwrap();
    }
}
