//! What a peer's packets that come over relays tell its path actor.
//!
//! The socket and the links note every batch here, and the actor is woken when it should look. Nothing is queued: what was noted stays
//! until the actor has looked, whatever it was doing then, so no hint is lost and nothing a relay sends takes the place of another
//! hint. What never left, because our own link to a relay has no room, is counted here too: nobody else may have the blame that it does
//! not arrive.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use gateway_proto::{id::RelayId, relay::RelayChoice};
use tokio::sync::Notify;

/// That packets come another way than ours go is mentioned no more often.
const MENTIONED_EVERY: Duration = Duration::from_secs(1);

/// Of one peer; see the module's description.
#[derive(Debug)]
pub struct Arrivals {
    state: Mutex<State>,
    told: Notify,
    /// Packets that our own link had no room for.
    kept_back: AtomicU64,
}

#[derive(Debug)]
struct State {
    choice: RelayChoice,
    /// Packets came over a relay while ours go to the peer directly, and nobody took notice yet.
    another_way: bool,
    mentioned_at: Option<Instant>,
}

impl Arrivals {
    /// Nothing came yet. `follows`: of the two sides, this one goes to where it hears the other ([`RelayChoice::new`]).
    pub(super) fn new(follows: bool) -> Self {
        let state = State { choice: RelayChoice::new(follows), another_way: false, mentioned_at: None };
        Self { state: Mutex::new(state), told: Notify::new(), kept_back: AtomicU64::new(0) }
    }

    /// Our own link to the relay in use had no room for so many packets to the peer.
    pub(crate) fn keep_back(&self, packets: u64) {
        self.kept_back.fetch_add(packets, Relaxed);
    }

    /// How many there were since this was asked last.
    pub(crate) fn take_kept_back(&self) -> u64 {
        self.kept_back.swap(0, Relaxed)
    }

    /// A packet came over `relay` that seems to be the peer's. `another_way`: ours go to it directly and no other way.
    pub(super) fn note(&self, relay: RelayId, another_way: bool, now: Instant) {
        let mut state = self.lock();
        let mut tell = state.choice.heard(relay, now);
        let long_ago = |at: Instant| now.saturating_duration_since(at) > MENTIONED_EVERY;
        if another_way && state.mentioned_at.is_none_or(long_ago) {
            (state.another_way, state.mentioned_at) = (true, Some(now));
            tell = true;
        }
        drop(state);
        if tell {
            self.told.notify_one();
        }
    }

    /// Resolves when there is something to look at, also if that was noted before.
    pub async fn told(&self) {
        self.told.notified().await;
    }

    /// Whether packets came over a relay while ours went directly, since this was asked last.
    pub fn take_another_way(&self) -> bool {
        std::mem::take(&mut self.lock().another_way)
    }

    /// Does something with the choice of relays; `act` must be quick and not block.
    pub fn with<T>(&self, act: impl FnOnce(&mut RelayChoice) -> T) -> T {
        act(&mut self.lock().choice)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use gateway_proto::relay::{Seen, Standing};

    use super::*;

    const RELAYS: [RelayId; 2] = [RelayId::from_bytes([1; 16]), RelayId::from_bytes([2; 16])];

    /// Whether the actor would be woken now.
    async fn is_told(arrivals: &Arrivals) -> bool {
        tokio::select! {
            biased;
            () = arrivals.told() => true,
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test]
    async fn a_hint_that_comes_while_the_actor_is_busy_is_there_when_it_looks() {
        let (arrivals, now) = (Arrivals::new(true), Instant::now());
        arrivals.note(RELAYS[0], false, now);
        assert!(!is_told(&arrivals).await);
        // The peer lost its direct path and its relay together. Both is said, although nobody waits.
        arrivals.note(RELAYS[1], true, now);
        assert!(is_told(&arrivals).await && !is_told(&arrivals).await);
        assert!(arrivals.take_another_way() && !arrivals.take_another_way());
        // And nothing that comes later hides it.
        arrivals.note(RELAYS[1], true, now + 2 * MENTIONED_EVERY);
        for step in 0..10_000 {
            arrivals.note(RELAYS[step % 2], true, now + 3 * MENTIONED_EVERY);
        }
        assert!(is_told(&arrivals).await && arrivals.take_another_way());
    }

    #[tokio::test]
    async fn packets_that_come_another_way_wake_the_actor_once_a_second() {
        let (arrivals, start) = (Arrivals::new(true), Instant::now());
        let link = Seen { relay: RELAYS[0], standing: Standing::Sound, restarting: false, falls: 0, drops: None };
        arrivals.with(|choice| choice.choose(&[link], None, start));
        let mut woken = 0;
        for step in 0..1_000_u32 {
            arrivals.note(RELAYS[0], true, start + step * Duration::from_millis(10));
            woken += u32::from(is_told(&arrivals).await);
        }
        assert!((9..=10).contains(&woken), "{woken}");
    }

    #[test]
    fn what_never_left_is_counted_once() {
        let arrivals = Arrivals::new(true);
        arrivals.keep_back(10);
        arrivals.keep_back(1);
        assert_eq!([arrivals.take_kept_back(), arrivals.take_kept_back()], [11, 0]);
    }

    #[tokio::test]
    async fn somebody_who_waits_is_woken() {
        let (arrivals, now) = (Arrivals::new(false), Instant::now());
        let mut told = pin!(arrivals.told());
        assert!(futures_util::poll!(&mut told).is_pending());
        arrivals.note(RELAYS[0], true, now);
        told.await;
    }
}
