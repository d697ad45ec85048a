//! Places in the listeners of our engine: never more connections than it serves; further streams wait here, fairly.
//!
//! The rules are `gateway_proto::places`; here they meet tasks and time. One entry per engine address, because all peers of
//! a channel share its places; an entry lives as long as somebody has a place or waits.
//!
//! How many places a listener has, the engine says itself where its API is asked ([`crate::engine`]); else the
//! configuration does. How many peers share them is in the policy. A change of either acts at once: more places go to those
//! who wait, fewer end nobody's connection.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gateway_proto::{
    api::local::{PlacesStatus, PlacesToldBy},
    identity::GatewayPublicKey,
    places::{Asked, NoPlace, PlaceEvent, Places, Ticket},
};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{authority::PolicyView, engine::EngineWatch};

/// Places of a listener without a limit: more than a gateway can have streams.
const NO_LIMIT: u32 = u32::MAX;

/// What is said of an engine that turns a connection away although we have a place for it.
pub(crate) const TURNED_AWAY: &str = "our engine closed a connection at once without a byte: others use places of its listener, \
                                      or its limit is lower than the places that status shows";

/// The listeners of our engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EnginePlaces(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    configured: u32,
    engine: EngineWatch,
    policy: watch::Receiver<Arc<PolicyView>>,
    listeners: Mutex<HashMap<SocketAddr, Listener>>,
}

#[derive(Debug)]
struct Listener {
    places: Places<GatewayPublicKey>,
    waiting: HashMap<Ticket, (GatewayPublicKey, oneshot::Sender<Place>)>,
}

/// No place became free in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("our engine's listener is full: {0}")]
pub struct ListenerFull(pub NoPlace);

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
    /// Listeners with as many places as the engine says, and where it does not, as are `configured` (0 is no limit), for as many
    /// peers as the `policy` grants them.
    pub fn new(configured: u32, engine: EngineWatch, policy: watch::Receiver<Arc<PolicyView>>) -> Self {
        Self(Arc::new(Inner { configured, engine, policy, listeners: Mutex::default() }))
    }

    /// Follows what the engine and the policy say, until `stop`.
    pub async fn follow(self, stop: CancellationToken) {
        let (mut engine, mut policy) = (self.0.engine.clone(), self.0.policy.clone());
        let following = async {
            loop {
                tokio::select! {
                    () = engine.changed() => {}
                    Ok(()) = policy.changed() => {}
                }
                let listeners: Vec<_> = self.lock().keys().copied().collect();
                listeners.into_iter().for_each(|engine| self.look_again(engine));
            }
        };
        stop.run_until_cancelled(following).await;
    }

    fn look_again(&self, engine: SocketAddr) {
        let (most, peers) = (self.most(engine), self.peers(engine));
        self.change(engine, |listener| {
            listener.places.set_most(most);
            listener.places.set_peers(peers);
        });
    }

    /// Places of a listener; a very large number where it has no limit.
    pub fn most(&self, engine: SocketAddr) -> u32 {
        match self.told(engine).0 {
            0 => NO_LIMIT,
            most => most,
        }
    }

    /// How many peers may come.
    fn peers(&self, engine: SocketAddr) -> u32 {
        self.0.policy.borrow().senders_to(engine)
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
        let by_engine = self.0.engine.max_connections(engine).map(|most| (most, PlacesToldBy::Engine));
        by_engine.unwrap_or((self.0.configured, PlacesToldBy::Configuration))
    }

    /// Takes a place, and waits for one until `deadline` at most. Who waits is told why, by `waits`, and keeps what that gives back
    /// for as long. Cancel-safe: what is given to somebody who is gone goes to the next.
    pub async fn take<W>(
        &self,
        engine: SocketAddr,
        peer: GatewayPublicKey,
        deadline: Instant,
        waits: impl FnOnce(NoPlace) -> W,
    ) -> Result<Place, ListenerFull> {
        self.look_again(engine);
        let (full, ticket, granted) = {
            let mut listeners = self.lock();
            // Looked up under the lock: whoever follows the engine and the policy finds the entry of older numbers.
            let (most, peers) = (self.most(engine), self.peers(engine));
            let listener = listeners
                .entry(engine)
                .or_insert_with(|| Listener { places: Places::new(most, peers), waiting: HashMap::new() });
            let full = ListenerFull(listener.places.no_place());
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
        let waiting = waits(full.0);
        let result = tokio::select! {
            biased;
            place = granted => place.map_err(|_| full),
            () = sleep_until(deadline) => Err(full),
        };
        drop((waiter, waiting));
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
        self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner)
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
mod tests;
