//! Places in the listeners of our engine: never more connections than it serves; further streams wait here, fairly.
//!
//! The rules are `gateway_proto::places`; here they meet tasks and time. One entry per engine address, because all peers of
//! a channel share its places; an entry lives as long as somebody has a place or waits.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gateway_proto::{
    identity::GatewayPublicKey,
    places::{Asked, PlaceEvent, Places, Ticket},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

/// The listeners of our engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EnginePlaces {
    most: u32,
    listeners: Arc<Mutex<HashMap<SocketAddr, Listener>>>,
}

#[derive(Debug)]
struct Listener {
    places: Places<GatewayPublicKey>,
    waiting: HashMap<Ticket, oneshot::Sender<Place>>,
}

/// No place became free in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("our engine's listener is full: {most} of {most}")]
pub struct ListenerFull {
    /// How many places it has.
    pub most: u32,
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    table: EnginePlaces,
    engine: SocketAddr,
    /// Whether it was waited for: then somebody has just left, and the engine may not know yet.
    pub was_waited_for: bool,
}

impl EnginePlaces {
    /// Listeners with `most` places each.
    pub fn new(most: u32) -> Self {
        Self { most, listeners: Arc::default() }
    }

    /// Places of a listener.
    pub fn most(&self) -> u32 {
        self.most
    }

    /// Takes a place, and waits for one until `deadline` at most. Cancel-safe: what is given to somebody who is gone goes to the
    /// next.
    pub async fn take(
        &self,
        engine: SocketAddr,
        peer: GatewayPublicKey,
        deadline: Instant,
    ) -> Result<Place, ListenerFull> {
        let full = ListenerFull { most: self.most };
        let (ticket, granted) = {
            let mut listeners = self.lock();
            let listener = listeners
                .entry(engine)
                .or_insert_with(|| Listener { places: Places::new(self.most), waiting: HashMap::new() });
            let now = Instant::now();
            let hold = deadline.saturating_duration_since(now);
            match listener.places.ask(peer, hold, now.into_std()) {
                Asked::Granted => return Ok(self.place(engine, false)),
                Asked::Refused => return Err(full),
                Asked::Waits(ticket) => {
                    let (grant, granted) = oneshot::channel();
                    listener.waiting.insert(ticket, grant);
                    (ticket, granted)
                }
            }
        };
        let waiter = Waiter { table: self, engine, ticket };
        let result = tokio::select! {
            biased;
            place = granted => place.map_err(|_| full),
            () = sleep_until(deadline) => Err(full),
        };
        drop(waiter);
        result
    }

    fn place(&self, engine: SocketAddr, was_waited_for: bool) -> Place {
        Place { table: self.clone(), engine, was_waited_for }
    }

    /// Changes a listener and hands out what became free. Grants are sent outside the lock: one that nobody takes any more
    /// is a place given back.
    fn change(&self, engine: SocketAddr, change: impl FnOnce(&mut Listener)) {
        let grants: Vec<_> = {
            let mut listeners = self.lock();
            let Some(listener) = listeners.get_mut(&engine) else { return };
            change(listener);
            let events = std::iter::from_fn(|| listener.places.poll_event());
            let granted = events.filter_map(|event| match event {
                PlaceEvent::Granted(ticket) => Some(ticket),
                PlaceEvent::Expired(_) => None,
            });
            let grants = granted.collect::<Vec<_>>().into_iter().map(|t| listener.waiting.remove(&t)).collect();
            if listener.places.is_idle() {
                listeners.remove(&engine);
            }
            grants
        };
        for grant in grants {
            let place = self.place(engine, true);
            if let Some(grant) = grant {
                // A place that is refused comes back as the error and is dropped, and so given to the next.
                drop(grant.send(place));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.change(self.engine, |listener| listener.places.leave());
    }
}

/// Waits; when it is dropped it waits no longer.
struct Waiter<'a> {
    table: &'a EnginePlaces,
    engine: SocketAddr,
    ticket: Ticket,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.table.change(self.engine, |listener| {
            listener.places.forget(self.ticket);
            listener.waiting.remove(&self.ticket);
        });
    }
}

/// How long somebody may wait for a place.
pub fn deadline(hold: Duration) -> Instant {
    Instant::now() + hold
}

#[cfg(test)]
mod tests {
    use gateway_proto::identity::GatewayKey;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn engine() -> SocketAddr {
        ([127, 0, 0, 1], 6661).into()
    }

    fn peer(seed: u8) -> GatewayPublicKey {
        GatewayKey::from_seed(&[seed; 32]).public()
    }

    #[tokio::test]
    async fn the_eleventh_waits_for_a_place_and_gets_it() {
        let places = EnginePlaces::new(10);
        let mut taken = Vec::new();
        for _ in 0..10 {
            taken.push(places.take(engine(), peer(1), deadline(LONG)).await.unwrap());
        }
        let mut eleventh = std::pin::pin!(places.take(engine(), peer(2), deadline(LONG)));
        assert!(futures_util::poll!(&mut eleventh).is_pending());
        taken.pop();
        assert!(eleventh.await.unwrap().was_waited_for);
        taken.clear();
        assert!(places.lock().is_empty(), "nothing is left behind");
    }

    #[tokio::test]
    async fn who_waits_in_vain_is_refused_after_the_hold() {
        let places = EnginePlaces::new(1);
        let _first = places.take(engine(), peer(1), deadline(LONG)).await.unwrap();
        let hold = Duration::from_millis(50);
        let begun = Instant::now();
        let refused = places.take(engine(), peer(2), deadline(hold)).await;
        assert_eq!(refused.err(), Some(ListenerFull { most: 1 }));
        assert!(begun.elapsed() >= hold);
    }

    #[tokio::test]
    async fn who_goes_away_while_waiting_or_just_as_it_gets_a_place_takes_none() {
        let places = EnginePlaces::new(1);
        let first = places.take(engine(), peer(1), deadline(LONG)).await.unwrap();
        {
            let mut gone = std::pin::pin!(places.take(engine(), peer(2), deadline(LONG)));
            assert!(futures_util::poll!(&mut gone).is_pending());
        }
        {
            let mut granted = std::pin::pin!(places.take(engine(), peer(2), deadline(LONG)));
            assert!(futures_util::poll!(&mut granted).is_pending());
            drop(first);
        }
        assert!(!places.take(engine(), peer(3), deadline(LONG)).await.unwrap().was_waited_for);
        assert!(places.lock().is_empty());
    }
}
