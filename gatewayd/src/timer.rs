//! Timers that may not be set, and one for many short waits.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::{
    sync::Notify,
    time::{sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// The longest moment; tokio may take a millisecond more.
const MOMENT: Duration = Duration::from_millis(4);

/// Resolves then; never, if there is no such time.
pub(crate) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}

/// Moments of some milliseconds: one timer for all who wait at the same time. A timer of each stream's own would be due before all others,
/// and tokio then wakes itself by a system call. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Moments(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    wanted: Notify,
    over: Notify,
}

impl Moments {
    /// Resolves when the present moment is over, as long as somebody [runs](Self::run) them.
    pub async fn passes(&self) {
        let over = self.0.over.notified();
        self.0.wanted.notify_one();
        over.await;
    }

    /// Ends moments that somebody waits for, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            loop {
                self.0.wanted.notified().await;
                sleep(MOMENT).await;
                // Of those who wait now all are told.
                let _ = self.0.wanted.notified().now_or_never();
                self.0.over.notify_waiters();
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_while_a_moment_passes_waits_no_longer_than_one_and_nobody_is_forgotten() {
        let (moments, stop) = (Moments::default(), CancellationToken::new());
        let begin = tokio::time::Instant::now();
        let waits = async {
            tokio::join!(moments.passes(), async {
                sleep(MOMENT / 2).await;
                moments.passes().await;
                // Nobody waited meanwhile.
                sleep(MOMENT * 10).await;
                moments.passes().await;
            });
        };
        tokio::select! {
            () = moments.clone().run(stop.clone()) => unreachable!("nobody stopped it"),
            waited = tokio::time::timeout(MOMENT * 20, waits) => waited.expect("somebody was forgotten"),
        }
        assert!(begin.elapsed() <= MOMENT * 12, "{:?}", begin.elapsed());
        stop.cancel();
        moments.run(stop).await;
    }
}
