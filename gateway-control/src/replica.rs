//! One of several processes on the same PostgreSQL database.
//!
//! What a replica must know of the others comes three ways: news over the database's own line, at once; a look at the
//! newest revisions every few seconds, should news be lost; and after a gap in the line, every watch looks again. What
//! the others must know of it stands in tables: that it lives, who watches here, what was reported here.
//!
//! A replica that has not looked at the database for [`SYNC_LIMIT`] says so by closing its watches: it must not confirm
//! policies that may have been revoked elsewhere. On SQLite there is one process, and none of this runs.

use std::time::Duration;

use gateway_net::shutdown::Shutdown;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::{
    service::{Service, ServiceResult},
    storage::{Heard, News, NewsLine},
};

/// Between two looks at the newest revisions.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How long a replica may go on without the database before its watches are closed.
pub(crate) const SYNC_LIMIT: Duration = Duration::from_secs(30);
/// A replica silent for this long is gone, and who watched there with it.
pub(crate) const REPLICA_SILENCE_SECS: u64 = 20;
/// How long a report may wait to be written down for the other replicas.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Between two tries to mend the line.
const MEND_INTERVAL: Duration = Duration::from_secs(1);
/// The clocks of two replicas differ by less than this: revisions are times.
const CLOCK_MARGIN_MS: u64 = 60_000;
/// Policies looked at in one go.
const BATCH: u32 = 1_000;

/// Runs until the end is asked for; at once over when nobody else can be at work on the storage.
pub async fn run(service: Service, shutdown: Shutdown) {
    let Some(line) = service.news_line() else {
        shutdown.requested().await;
        return;
    };
    tokio::select! {
        biased;
        () = shutdown.requested() => {}
        () = listen(&service, line) => {}
        () = look(&service) => {}
        () = write_reports(&service) => {}
    }
    if let Err(error) = service.leave_replicas().await {
        tracing::warn!(error = &error as &dyn std::error::Error, "cannot sign off at the database");
    }
}

async fn listen(service: &Service, mut line: Box<dyn NewsLine>) {
    loop {
        match line.next().await {
            Ok(Heard::News(news)) => service.hear(news),
            Ok(Heard::Gap) => service.watchers().wake_all(),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the line to the other replicas is down");
                sleep(MEND_INTERVAL).await;
            }
        }
    }
}

async fn look(service: &Service) {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = service.clock().unix_ms();
    loop {
        ticks.tick().await;
        let round = async {
            let highest = look_from(service, seen.saturating_sub(CLOCK_MARGIN_MS)).await?;
            seen = seen_by(seen, highest, service.clock().unix_ms());
            service.stay_alive().await
        };
        if let Err(error) = round.await {
            tracing::warn!(error = &error as &dyn std::error::Error, "this replica cannot see what the others did");
        }
    }
}

/// Wakes whoever has an older policy than the newest; returns the highest revision seen.
async fn look_from(service: &Service, mut revision: u64) -> ServiceResult<u64> {
    loop {
        let newest = service.policies_after(revision, BATCH).await?;
        for (server, revision) in &newest {
            service.watchers().wake_if_older(*server, *revision);
        }
        let Some((_, last)) = newest.last() else { break };
        revision = *last;
        if newest.len() < BATCH as usize {
            break;
        }
    }
    service.synced();
    Ok(revision)
}

/// Up to where everything was looked at. A revision of a later time than now (one gateway says it has a higher one, one
/// clock is ahead) must not hide what other servers get meanwhile: it is looked at again until its time has come.
fn seen_by(seen: u64, highest: u64, now_ms: u64) -> u64 {
    highest.min(now_ms).max(seen)
}

async fn write_reports(service: &Service) {
    loop {
        sleep(REPORT_INTERVAL).await;
        // As long as there is more: a rest that grows would never be written down.
        while match service.write_reports().await {
            Ok(more) => more,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "reports of gateways cannot be written down");
                false
            }
        } {}
    }
}

impl Service {
    /// Does what news of another replica ask for.
    pub(crate) fn hear(&self, news: News) {
        if news.from == self.replica() {
            return;
        }
        for server in news.changed {
            self.watchers().wake(server);
        }
        for server in news.removed {
            self.watchers().remove(server);
        }
        for server in news.moved {
            self.watchers().replace(server);
        }
        if news.backlog {
            self.backlog.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::seen_by;

    #[test]
    fn one_revision_of_the_future_does_not_hide_the_others() {
        let (seen, now) = (1_000_000, 1_005_000);
        assert_eq!(seen_by(seen, 1_004_000, now), 1_004_000);
        assert_eq!(seen_by(seen, now + 24 * 3_600_000, now), now);
        assert_eq!(seen_by(seen, 900_000, now), seen, "it never goes back");
    }
}
