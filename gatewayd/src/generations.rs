//! The generations of our offers, over a restart: those of this run are above those of the run before.
//!
//! A partner takes no offer whose generation is not above the last one's, so that a recorded offer changes nothing. The
//! generation is our clock in general. A gateway that restarts with its clock set back would be refused until the clock has
//! caught up; so what may have been used up is on disk, some seconds ahead, and the agents go on above it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use gateway_net::{causes::with_causes, time::unix_ms};
use gateway_proto::signal::MAX_CLOCK_SKEW_MS;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::authority::Authority;

/// How far ahead of the clock is reserved with one write, in milliseconds: offers come in groups, and generations are a
/// clock. A partner accepts no generation that is a minute ahead of our clock, so this is small beside that.
const AHEAD_MS: u64 = 10_000;
/// And ahead of generations that are ahead of the clock themselves, as they are soon after a start: offers of some seconds.
const OFFERS: u64 = 64;
/// Between two writes: less than is reserved with one.
const PAUSE: Duration = Duration::from_secs(1);
/// A reservation that is further ahead than this is from a clock that was wrong, and is taken back.
const MOST_AHEAD_MS: u64 = MAX_CLOCK_SKEW_MS + AHEAD_MS;

/// Which generations were used up. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Generations {
    authority: Authority,
    /// The largest that was used up, in this run or before.
    used: Arc<AtomicU64>,
    reserved: watch::Sender<u64>,
}

impl Generations {
    /// Reads what the run before used up. A damaged file costs a minute at most, not the start.
    pub fn open(authority: Authority) -> Self {
        let former = authority.state().load_generation().unwrap_or_else(|error| {
            warn!(problem = with_causes(&error), "the last generation of our offers could not be read");
            None
        });
        let former = former.unwrap_or(0);
        Self { authority, used: Arc::new(AtomicU64::new(former)), reserved: watch::Sender::new(former) }
    }

    /// Every offer so far, those of the run before included, had this generation or a smaller one.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// An offer with this generation is being sent. [`Self::keep`] writes it soon after: nobody waits for the disk, and a crash
    /// in between costs what a clock that was set back cost before.
    pub fn reserve(&self, generation: u64) {
        self.used.fetch_max(generation, Relaxed);
        let now = unix_ms();
        self.reserved.send_if_modified(|reserved| match reservation(*reserved, generation, now) {
            Some(next) => {
                *reserved = next;
                true
            }
            None => false,
        });
    }

    /// Writes what is reserved, once in ten seconds at most while offers are made, until `stop`.
    pub async fn keep(self, stop: CancellationToken) {
        let mut reserved = self.reserved.subscribe();
        if *reserved.borrow() > self.used() {
            // Offers were made before this runs.
            reserved.mark_changed();
        }
        stop.run_until_cancelled(async {
            // We hold a sender ourselves, so the channel never closes.
            while reserved.changed().await.is_ok() {
                let next = *reserved.borrow_and_update();
                self.authority.write("the generation of our offers", move |state| state.save_generation(next)).await;
                sleep(PAUSE).await;
            }
        })
        .await;
    }
}

/// What is to be reserved now, if that is something else than before. Measured from the clock, not from the generation: one
/// that is ahead after a restart would get further ahead with each.
fn reservation(reserved: u64, generation: u64, now: u64) -> Option<u64> {
    let is_used_up = generation > reserved;
    let was_wrong = reserved.saturating_sub(generation) > MOST_AHEAD_MS;
    (is_used_up || was_wrong).then(|| generation.saturating_add(OFFERS).max(now.saturating_add(AHEAD_MS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    #[test]
    fn many_offers_take_one_write_and_none_is_above_what_is_reserved() {
        let (mut reserved, mut writes) = (0, 0);
        for generation in (NOW..NOW + 60_000).step_by(100) {
            if let Some(next) = reservation(reserved, generation, generation) {
                (reserved, writes) = (next, writes + 1);
            }
            assert!(generation <= reserved);
        }
        assert_eq!(writes, 6);
    }

    #[test]
    fn a_clock_that_was_far_ahead_once_is_forgotten() {
        let ahead = NOW + 1_000_000_000;
        let wrong = reservation(0, ahead, ahead).unwrap();
        assert_eq!(reservation(wrong, NOW, NOW), Some(NOW + AHEAD_MS));
        assert_eq!(reservation(NOW + MAX_CLOCK_SKEW_MS, NOW, NOW), None, "a small step back takes nothing back");
    }

    #[test]
    fn a_gateway_that_restarts_all_the_time_stays_where_its_partners_accept_its_offers() {
        let mut reserved = 0;
        for now in (NOW..NOW + 300_000).step_by(500) {
            // A run: it goes on above the reservation of the run before, makes three offers and is killed.
            let first = now.max(reserved + 1);
            for generation in first..first + 3 {
                reserved = reservation(reserved, generation, now).unwrap_or(reserved);
            }
            assert!(reserved <= now + AHEAD_MS + OFFERS, "{} ms ahead", reserved - now);
        }
    }
}
