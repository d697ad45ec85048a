//! Places in the listeners of our engine: never more connections than it serves; further streams wait here, fairly.
//!
//! The rules are `gateway_proto::places`; here they meet tasks and time. One entry per engine address, because all peers of
//! a channel share its places; an entry lives as long as somebody has a place or waits.
//!
//! How many places a listener has, the engine says itself where its API is asked ([`crate::engine`]); else the
//! configuration does. A change acts at once: more places go to those who wait, fewer end nobody's connection.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gateway_proto::{
    api::local::{PlacesStatus, PlacesToldBy},
    identity::GatewayPublicKey,
    places::{Asked, PlaceEvent, Places, Ticket},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::engine::EngineWatch;

/// Places of a listener without a limit: more than a gateway can have streams.
const NO_LIMIT: u32 = u32::MAX;

/// The listeners of our engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EnginePlaces {
    configured: u32,
    engine: EngineWatch,
    listeners: Arc<Mutex<HashMap<SocketAddr, Listener>>>,
}

#[derive(Debug)]
struct Listener {
    places: Places<GatewayPublicKey>,
    waiting: HashMap<Ticket, (GatewayPublicKey, oneshot::Sender<Place>)>,
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
    peer: GatewayPublicKey,
    /// Whether it was waited for: then somebody has just left, and the engine may not know yet.
    pub was_waited_for: bool,
}

impl EnginePlaces {
    /// Listeners with as many places as the engine says, and where it does not, as are `configured`; 0 is no limit.
    pub fn new(configured: u32, engine: EngineWatch) -> Self {
        Self { configured, engine, listeners: Arc::default() }
    }

    /// Follows what the engine says, until `stop`.
    pub async fn follow(mut self, stop: CancellationToken) {
        while stop.run_until_cancelled(self.engine.changed()).await.is_some() {
            let listeners: Vec<_> = self.lock().keys().copied().collect();
            listeners.into_iter().for_each(|engine| self.look_again(engine));
        }
    }

    fn look_again(&self, engine: SocketAddr) {
        let most = self.most(engine);
        self.change(engine, |listener| listener.places.set_most(most));
    }

    /// Places of a listener; a very large number where it has no limit.
    pub fn most(&self, engine: SocketAddr) -> u32 {
        match self.told(engine).0 {
            0 => NO_LIMIT,
            most => most,
        }
    }

    /// Whether the engine says of this listener how many connections it serves.
    pub fn is_known(&self, engine: SocketAddr) -> bool {
        self.told(engine).1 == PlacesToldBy::Engine
    }

    /// What is to be said of a listener.
    pub fn status(&self, engine: SocketAddr) -> PlacesStatus {
        let (most, told_by) = self.told(engine);
        let listeners = self.lock();
        let places = listeners.get(&engine).map(|listener| &listener.places);
        PlacesStatus {
            most: (most != 0).then_some(most),
            told_by,
            taken: places.map_or(0, Places::taken),
            waiting: places.map_or(0, |places| u32::try_from(places.waiting()).unwrap_or(u32::MAX)),
        }
    }

    fn told(&self, engine: SocketAddr) -> (u32, PlacesToldBy) {
        let by_engine = self.engine.max_connections(engine).map(|most| (most, PlacesToldBy::Engine));
        by_engine.unwrap_or((self.configured, PlacesToldBy::Configuration))
    }

    /// Takes a place, and waits for one until `deadline` at most; `peers` were granted the listener. Cancel-safe: what is given to somebody who is gone goes to the
    /// next.
    pub async fn take(
        &self,
        engine: SocketAddr,
        peer: GatewayPublicKey,
        peers: u32,
        deadline: Instant,
    ) -> Result<Place, ListenerFull> {
        self.look_again(engine);
        self.change(engine, |listener| listener.places.set_peers(peers));
        let (full, ticket, granted) = {
            let mut listeners = self.lock();
            // Looked up under the lock: whoever follows the engine finds the entry of an older number.
            let most = self.most(engine);
            let listener = listeners
                .entry(engine)
                .or_insert_with(|| Listener { places: Places::new(most, peers), waiting: HashMap::new() });
            let full = ListenerFull { most: listener.places.most() };
            let now = Instant::now();
            let hold = deadline.saturating_duration_since(now);
            match listener.places.ask(peer, hold, now.into_std()) {
                Asked::Granted => return Ok(self.place(engine, peer, false)),
                Asked::Refused => return Err(full),
                Asked::Waits(ticket) => {
                    let (grant, granted) = oneshot::channel();
                    listener.waiting.insert(ticket, (peer, grant));
                    (full, ticket, granted)
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

    fn place(&self, engine: SocketAddr, peer: GatewayPublicKey, was_waited_for: bool) -> Place {
        Place { table: self.clone(), engine, peer, was_waited_for }
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
            let grants = granted.collect::<Vec<_>>().into_iter().filter_map(|t| listener.waiting.remove(&t)).collect();
            if listener.places.is_idle() {
                listeners.remove(&engine);
            }
            grants
        };
        for (peer, grant) in grants {
            // A place that is refused comes back as the error and is dropped, and so given to the next.
            drop(grant.send(self.place(engine, peer, true)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.change(self.engine, |listener| listener.places.leave(&self.peer));
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
    use crate::engine::tests::listener_of;

    const LONG: Duration = Duration::from_secs(60);

    fn engine() -> SocketAddr {
        ([127, 0, 0, 1], 6661).into()
    }

    fn peer(seed: u8) -> GatewayPublicKey {
        GatewayKey::from_seed(&[seed; 32]).public()
    }

    #[tokio::test]
    async fn the_eleventh_waits_for_a_place_and_gets_it() {
        let places = EnginePlaces::new(10, EngineWatch::none());
        let mut taken = Vec::new();
        for _ in 0..10 {
            taken.push(places.take(engine(), peer(1), 1, deadline(LONG)).await.unwrap());
        }
        let mut eleventh = std::pin::pin!(places.take(engine(), peer(2), 1, deadline(LONG)));
        assert!(futures_util::poll!(&mut eleventh).is_pending());
        taken.pop();
        assert!(eleventh.await.unwrap().was_waited_for);
        taken.clear();
        assert!(places.lock().is_empty(), "nothing is left behind");
    }

    #[tokio::test]
    async fn who_waits_in_vain_is_refused_after_the_hold() {
        let places = EnginePlaces::new(1, EngineWatch::none());
        let _first = places.take(engine(), peer(1), 1, deadline(LONG)).await.unwrap();
        let hold = Duration::from_millis(50);
        let begun = Instant::now();
        let refused = places.take(engine(), peer(2), 1, deadline(hold)).await;
        assert_eq!(refused.err(), Some(ListenerFull { most: 1 }));
        assert!(begun.elapsed() >= hold);
    }

    #[tokio::test]
    async fn who_goes_away_while_waiting_or_just_as_it_gets_a_place_takes_none() {
        let places = EnginePlaces::new(1, EngineWatch::none());
        let first = places.take(engine(), peer(1), 1, deadline(LONG)).await.unwrap();
        {
            let mut gone = std::pin::pin!(places.take(engine(), peer(2), 1, deadline(LONG)));
            assert!(futures_util::poll!(&mut gone).is_pending());
        }
        {
            let mut granted = std::pin::pin!(places.take(engine(), peer(2), 1, deadline(LONG)));
            assert!(futures_util::poll!(&mut granted).is_pending());
            drop(first);
        }
        assert!(!places.take(engine(), peer(3), 1, deadline(LONG)).await.unwrap().was_waited_for);
        assert!(places.lock().is_empty());
    }

    #[tokio::test]
    async fn the_engine_s_own_number_wins_and_its_change_is_followed() {
        let (say, engine_says) = listener_of(6661, 3);
        let places = EnginePlaces::new(10, engine_says);
        let stop = CancellationToken::new();
        let mut following = tokio::task::JoinSet::new();
        following.spawn(places.clone().follow(stop.clone()));
        let mut taken = Vec::new();
        for _ in 0..3 {
            taken.push(places.take(engine(), peer(1), 1, deadline(LONG)).await.unwrap());
        }
        let refused = places.take(engine(), peer(1), 1, deadline(Duration::ZERO)).await;
        assert_eq!(refused.err(), Some(ListenerFull { most: 3 }));
        let mut fourth = std::pin::pin!(places.take(engine(), peer(2), 1, deadline(LONG)));
        assert!(futures_util::poll!(&mut fourth).is_pending());
        let status = PlacesStatus { most: Some(3), told_by: PlacesToldBy::Engine, taken: 3, waiting: 1 };
        assert_eq!(places.status(engine()), status);
        say(4);
        taken.push(fourth.await.unwrap());
        // Fewer: nobody is ended, and nobody enters until as many have left.
        say(2);
        taken.truncate(2);
        let wait = places.take(engine(), peer(2), 1, deadline(LONG));
        let mut wait = std::pin::pin!(wait);
        assert!(futures_util::poll!(&mut wait).is_pending());
        taken.pop();
        wait.await.unwrap();
        // No limit at all.
        say(0);
        let unlimited = PlacesStatus { most: None, told_by: PlacesToldBy::Engine, taken: 1, waiting: 0 };
        assert_eq!(places.status(engine()), unlimited);
        taken.clear();
        for _ in 0..50 {
            taken.push(places.take(engine(), peer(1), 1, deadline(LONG)).await.unwrap());
        }
        // What the engine does not know of is as configured.
        let other = ([127, 0, 0, 1], 1).into();
        assert_eq!((places.most(other), places.is_known(other)), (10, false));
        stop.cancel();
        following.join_next().await.unwrap().unwrap();
    }
}
