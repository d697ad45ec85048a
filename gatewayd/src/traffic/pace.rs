//! One direction of a connection under its owner's rate: whose bytes go on, and when. What the rate allows is computed in
//! `gateway_proto::limits`.

use std::sync::{Mutex, PoisonError};

use gateway_proto::limits::{Rate, TokenBucket};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until},
};

/// What all streams of a connection share in one direction. Those that wait stand in a queue; one that ends leaves it, and nobody
/// waits for its bytes. At most one waits per stream and direction.
#[derive(Debug)]
pub struct Pace {
    bucket: Mutex<TokenBucket>,
    /// Who holds its one permit is the first of the queue; tokio gives it to the others in the order in which they came.
    first: Semaphore,
}

impl Default for Pace {
    fn default() -> Self {
        Self { bucket: Mutex::default(), first: Semaphore::new(1) }
    }
}

impl Pace {
    /// Takes bytes that may go on at once: nobody waits, and the rate allows them. Otherwise nothing is taken.
    #[must_use]
    pub fn take_at_once(&self, bytes: usize, rate: Rate) -> bool {
        let Ok(_first) = self.first.try_acquire() else { return false };
        self.take_unless_early(bytes, rate, Instant::now()).is_ok()
    }

    /// Waits until bytes may go on, after those of all who wait already, and takes them then.
    pub async fn take_in_turn(&self, bytes: usize, rate: Rate) {
        // Fails for a queue that was closed only, and nobody closes it.
        let _first = self.first.acquire().await;
        let asked_at = Instant::now();
        // Again: what went early meanwhile goes before.
        while let Err(ready_at) = self.take_unless_early(bytes, rate, asked_at) {
            sleep_until(ready_at).await;
        }
    }

    /// Whether somebody waits for a turn; for a moment also while bytes go on at once.
    pub fn is_waited_for(&self) -> bool {
        self.first.available_permits() == 0
    }

    /// Takes bytes that go on before their time, if there is not too much of that: all others wait for that much longer.
    #[must_use]
    pub fn take_early(&self, bytes: usize, rate: Rate) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.take_early(bytes, rate, Instant::now().into_std())
    }

    /// Takes bytes, or says when it is time for them.
    fn take_unless_early(&self, bytes: usize, rate: Rate, asked_at: Instant) -> Result<(), Instant> {
        let asked_at = asked_at.into_std();
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let ready_at: Instant = bucket.ready_at(bytes, rate, asked_at).into();
        if ready_at > Instant::now() {
            return Err(ready_at);
        }
        bucket.take(bytes, rate, asked_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, time::Duration};

    use tokio::time::timeout;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Room for what timers round up.
    const ABOUT: Duration = Duration::from_millis(20);

    #[tokio::test(start_paused = true)]
    async fn streams_that_share_a_rate_go_in_the_order_in_which_they_came() {
        let (pace, rate) = (Pace::default(), Rate::new(1_000));
        assert!(pace.take_early(1_000, rate));
        let began = Instant::now();
        let mut first = pin!(pace.take_in_turn(1_000, rate));
        let mut second = pin!(pace.take_in_turn(10, rate));
        assert!(!pace.is_waited_for());
        assert!(timeout(SECOND / 10, first.as_mut()).await.is_err(), "it waits");
        assert!(pace.is_waited_for());
        assert!(timeout(SECOND / 10, second.as_mut()).await.is_err(), "it waits behind the first");
        assert!(!pace.take_at_once(0, rate), "nobody passes those that wait");
        tokio::select! {
            biased;
            () = second.as_mut() => panic!("the second went first"),
            () = first => {}
        }
        assert!(began.elapsed() >= SECOND * 7 / 4, "{:?}", began.elapsed());
        second.await;
        assert!(began.elapsed() < SECOND * 7 / 4 + 2 * ABOUT, "{:?}", began.elapsed());
    }

    /// Whether they waited first, last, or in the middle.
    #[tokio::test(start_paused = true)]
    async fn streams_that_end_before_their_turn_cost_the_others_nothing_and_give_them_no_more_than_the_rate() {
        let (pace, rate) = (Pace::default(), Rate::new(1_000));
        assert!(pace.take_early(1_000, rate));
        let began = Instant::now();
        let mut ends: Vec<_> = (0..8).map(|_| Box::pin(pace.take_in_turn(500, rate))).collect();
        let mut stays: Vec<_> = (0..2).map(|_| Box::pin(pace.take_in_turn(500, rate))).collect();
        let mut comes = Box::pin(pace.take_in_turn(500, rate));
        for waiting in ends.iter_mut().chain(&mut stays) {
            assert!(timeout(Duration::ZERO, waiting).await.is_err(), "it waits");
        }
        drop(ends);
        assert!(timeout(Duration::ZERO, comes.as_mut()).await.is_err(), "it waits");
        for (number, waiting) in stays.into_iter().chain([comes]).enumerate() {
            waiting.await;
            let due = SECOND * 3 / 4 + SECOND / 2 * (number as u32 + 1);
            let took = began.elapsed();
            assert!((due..due + ABOUT).contains(&took), "{number}: {took:?}, not {due:?}");
        }
    }
}
