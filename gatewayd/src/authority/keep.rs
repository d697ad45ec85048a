//! Keeps on disk how far the clock for decisions has come. Each contact with the control plane saves it; while there is none, time goes
//! on all the same, and a restart with the machine's clock set back must not bring back a grant that has expired meanwhile, nor a
//! staleness budget that was used up. What is lost at most is what passed since the last write.
//!
//! And the one way in which whoever keeps something in the state directory writes it ([`Authority::write`]).

use std::time::{Duration, Instant};

use gateway_net::causes::with_causes;
use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{Authority, PolicyView};
use crate::store::{StateDir, StoreError};

/// How much of the time without the control plane a crash may give back.
const EVERY: Duration = Duration::from_secs(60);
/// Between two writes: a policy may have an end in each second.
const NO_SOONER: Duration = Duration::from_secs(5);

impl Authority {
    /// Writes something into the state directory on a thread that may wait for the disk. That `what` could not be written is a
    /// warning.
    pub(crate) async fn write(
        &self,
        what: &'static str,
        save: impl FnOnce(&StateDir) -> Result<(), StoreError> + Send + 'static,
    ) {
        let authority = self.clone();
        match spawn_blocking(move || save(authority.state())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(problem = with_causes(&error), "{what} could not be written"),
            Err(error) => tracing::warn!(%error, "{what} could not be written"),
        }
    }

    /// Saves what the clock's floor has come to: now and then, soon after something has ended by time, and at the end.
    pub async fn keep_clock(self, stop: CancellationToken) {
        loop {
            let pause = pause(&self.view(), self.now());
            let stopped = stop.run_until_cancelled(sleep(pause)).await.is_none();
            let authority = self.clone();
            if spawn_blocking(move || authority.save_clock(Instant::now())).await.is_err() {
                tracing::warn!("the time that has passed was not saved");
            }
            if stopped {
                return;
            }
        }
    }

    /// Saves what the clock's floor is at `at`. Blocks.
    pub(super) fn save_clock(&self, at: Instant) {
        let mut inner = self.lock();
        // Nothing to decide about yet; or on disk is another policy than the one confirmed, whose confirmation stays as it was.
        if inner.store.is_some() && inner.unsaved.is_none() {
            self.save_contact_at(&mut inner, at);
        }
    }
}

/// Until the next write.
fn pause(view: &PolicyView, now: u64) -> Duration {
    let next = view.next_deadline(now).map_or(EVERY, |at| Duration::from_secs(at - now));
    next.clamp(NO_SOONER, EVERY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::tests::{Fixture, NOW};

    #[test]
    fn what_ends_sooner_is_waited_for_and_never_by_a_write_each_second() {
        let authority = Fixture::new().enrolled();
        // Confirmed at NOW, its budget is 100 s: stale in the second after them.
        let view = authority.view();
        assert_eq!(pause(&view, NOW), EVERY);
        assert_eq!(pause(&view, NOW + 80), Duration::from_secs(21));
        assert_eq!(pause(&view, NOW + 100), NO_SOONER);
        assert_eq!(pause(&view, NOW + 101), EVERY);
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_is_saved_without_the_control_plane_now_and_then_and_at_the_end() {
        let fixture = Fixture::new();
        let authority = fixture.enrolled();
        let saved = fixture.file("contact.json");
        let written = async || {
            while !saved.exists() {
                sleep(Duration::from_secs(1)).await;
            }
            std::fs::remove_file(&saved).unwrap();
        };
        let stop = CancellationToken::new();
        let keeping = authority.keep_clock(stop.clone());
        let watching = async {
            for _ in 0..3 {
                written().await;
            }
            stop.cancel();
        };
        tokio::join!(keeping, watching);
        assert!(saved.exists(), "written once more at the end");
    }
}
