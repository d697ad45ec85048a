//! One of several processes on the same PostgreSQL database.
//!
//! What a replica must know of the others comes three ways: news over the database's own line, at once; a look at the
//! newest revisions every few seconds, should news be lost; and after a gap in the line, every watch looks again. What
//! the others must know of it stands in tables: that it lives, who watches here, what was reported here.
//!
//! A replica that has not looked at the database for [`SYNC_LIMIT`] says so by closing its watches: it must not confirm
//! policies that may have been revoked elsewhere. One that is older than the schema of the database writes nothing more, and
//! stops. On SQLite there is one process, and none of this runs.

use std::time::{Duration, Instant};

use gateway_net::shutdown::Shutdown;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::{
    seldom::Seldom,
    service::{Service, ServiceError, ServiceResult},
    storage::{Heard, News, NewsLine, StorageError},
};

/// Between two looks at the newest revisions.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How long a replica may go on without the database before its watches are closed.
pub(crate) const SYNC_LIMIT: Duration = Duration::from_secs(30);
/// A replica silent for this long is gone, and who watched there with it.
pub(crate) const REPLICA_SILENCE_SECS: u64 = 20;
/// How long a report may wait to be written down for the other replicas.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// For the goodbye at the end: who does not say it is taken for gone soon after.
const SIGN_OFF: Duration = Duration::from_secs(5);
/// Between two tries to mend the line.
const MEND_INTERVAL: Duration = Duration::from_secs(1);
/// The clocks of two replicas differ by less than this: revisions are times.
const CLOCK_MARGIN_MS: u64 = 60_000;
/// Policies looked at in one go.
const BATCH: u32 = 1_000;

/// Runs until the end is asked for; does nothing when nobody else can be at work on the storage.
///
/// # Errors
/// [`StorageError::Outdated`] as soon as a newer version has changed the schema of the database.
pub async fn run(service: Service, shutdown: Shutdown) -> Result<(), StorageError> {
    let Some(line) = service.news_line() else {
        shutdown.requested().await;
        return Ok(());
    };
    tokio::select! {
        biased;
        () = shutdown.requested() => {}
        () = listen(&service, line) => {}
        () = look(&service) => return Err(StorageError::Outdated),
        () = write_reports(&service) => {}
    }
    match timeout(SIGN_OFF, service.leave_replicas()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot sign off at the database");
        }
        Err(_) => tracing::warn!("cannot sign off at the database: it does not answer"),
    }
    Ok(())
}

async fn listen(service: &Service, mut line: Box<dyn NewsLine>) {
    let (down, mut is_up) = (Seldom::new(), true);
    loop {
        match line.next().await {
            Ok(Heard::News(news)) => service.hear(news),
            Ok(Heard::Gap) => {
                if !std::mem::replace(&mut is_up, true) {
                    tracing::info!("the line to the other replicas is up again");
                }
                service.watchers().wake_all();
            }
            Err(error) => {
                let left_out = down.turn(Instant::now());
                // Each time that it falls, and once a minute while it is down.
                if std::mem::replace(&mut is_up, false) || left_out.is_some() {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "the line to the other replicas is down: what they change comes late");
                }
                sleep(MEND_INTERVAL).await;
            }
        }
    }
}

/// Ends when the database belongs to a newer version.
async fn look(service: &Service) {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = service.clock().unix_ms();
    let blind = Seldom::new();
    loop {
        ticks.tick().await;
        let looked = look_from(service, seen.saturating_sub(CLOCK_MARGIN_MS)).await;
        // Asked for whatever the look said: what an older version reads may be gone.
        let alive = service.stay_alive().await;
        if matches!(alive, Err(ServiceError::Unavailable(StorageError::Outdated))) {
            return;
        }
        match looked.and_then(|highest| alive.map(|()| highest)) {
            Ok(highest) => seen = seen_by(seen, highest, service.clock().unix_ms()),
            Err(error) => {
                if let Some(left_out) = blind.turn(Instant::now()) {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, left_out, "this replica cannot see what the others did");
                }
            }
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
    let unwritten = Seldom::new();
    loop {
        sleep(REPORT_INTERVAL).await;
        // As long as there is more: a rest that grows would never be written down.
        while match service.write_reports().await {
            Ok(more) => more,
            Err(error) => {
                if let Some(left_out) = unwritten.turn(Instant::now()) {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, left_out, "reports of gateways cannot be written down");
                }
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
