//! How a stream gets to the engine: it is the channel that was granted, it has a place, it takes the connection.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gateway_proto::{
    engine::port_owner::NotOurs,
    identity::GatewayPublicKey,
    places::NoPlace,
    policy::HL7V2_MLLP,
    stream::{Answer, RefusalCode},
};
use tokio::time::{Instant, sleep, timeout};

use super::ListenerContext;
use crate::{
    engine_socket::EngineSocket,
    gate::Permit,
    places::{EnginePlaces, ListenerFull, Place, TURNED_AWAY},
    traffic::{Traffic, WaitFor},
};

/// A listener that is full closes at once. After somebody left, the engine needs a moment to know it.
const CLOSED_AT_ONCE: Duration = Duration::from_millis(30);

async fn dial(engine: SocketAddr, context: &ListenerContext) -> Result<EngineSocket, RefusalCode> {
    timeout(context.dial_timeout, EngineSocket::connect(engine, context.keepalive))
        .await
        .map_err(|_| RefusalCode::EngineTimeout)?
        .map_err(|_| RefusalCode::EngineRefused)
}

/// Whether the engine itself did not take the connection.
pub(super) fn engine_refused(code: RefusalCode) -> bool {
    matches!(code, RefusalCode::EngineRefused | RefusalCode::EngineTimeout)
}

/// Why there is no conversation with our engine.
#[derive(Debug)]
pub(super) enum Unreached {
    Code(RefusalCode),
    Full(ListenerFull),
    /// There is a place, as far as we know, and the engine closes at once.
    TurnedAway,
    /// On the heap: the task of every stream would be as large as this.
    NotOurs(Box<NotOurs>),
}

impl From<RefusalCode> for Unreached {
    fn from(code: RefusalCode) -> Self {
        Self::Code(code)
    }
}

impl Unreached {
    pub(super) fn code(&self) -> RefusalCode {
        match self {
            Self::Code(code) => *code,
            Self::Full(_) | Self::TurnedAway => RefusalCode::ListenerFull,
            Self::NotOurs(_) => RefusalCode::ChannelStopped,
        }
    }

    pub(super) fn answer(&self) -> Vec<u8> {
        match self {
            Self::Code(_) | Self::TurnedAway | Self::NotOurs(_) => Answer::Refused(self.code()).encode(),
            Self::Full(ListenerFull(places)) => Answer::listener_full(*places),
        }
    }

    pub(super) fn problem(&self, engine: SocketAddr) -> String {
        let what = match self {
            Self::Full(full) => return full.to_string(),
            Self::TurnedAway => return TURNED_AWAY.to_owned(),
            Self::NotOurs(not_ours) => return not_ours.to_string(),
            Self::Code(RefusalCode::EngineTimeout) => "does not answer",
            Self::Code(RefusalCode::EngineRefused) => "refuses the connection",
            Self::Code(code) => return code.to_string(),
        };
        format!("our engine {what} on {engine}: is the channel started?")
    }
}

/// Whether a listener closes connections beyond a number: those for MLLP do, and those of which the engine says so.
pub(crate) fn has_places(behavior: &str, engine: SocketAddr, places: &EnginePlaces) -> bool {
    behavior == HL7V2_MLLP || places.is_known(engine)
}

/// What a stream waits for in a full listener, as long as it does: told to a sender that gives it up meanwhile.
#[derive(Debug, Default)]
pub(super) struct WithoutPlace(Mutex<Option<NoPlace>>);

impl WithoutPlace {
    fn set(&self, why: Option<NoPlace>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Why a stream that was given up had not reached the engine.
    pub(super) fn given_up(self) -> Unreached {
        match self.0.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(places) => Unreached::Full(ListenerFull(places)),
            None => Unreached::Code(RefusalCode::TooLate),
        }
    }
}

/// Connects to our engine, once it has a place for us: an MLLP listener closes a connection beyond its limit at once,
/// without a byte, and to the far engine that is a lost message.
pub(super) async fn reach_engine(
    permit: &Permit,
    peer: GatewayPublicKey,
    engine: SocketAddr,
    traffic: &Arc<Traffic>,
    without_place: &WithoutPlace,
    context: &ListenerContext,
) -> Result<(EngineSocket, Option<Place>), Unreached> {
    let deadline = Instant::now() + context.hold;
    is_granted(permit, engine, deadline, context).await?;
    if !has_places(&permit.entry.behavior, engine, &context.places) {
        return Ok((dial(engine, context).await?, None));
    }
    let waits = |why| {
        without_place.set(Some(why));
        traffic.wait(WaitFor::Place(why), deadline)
    };
    let place = context.places.take(engine, peer, deadline, waits).await.map_err(Unreached::Full)?;
    without_place.set(None);
    loop {
        if place.was_waited_for {
            // It may have been stopped meanwhile.
            is_granted(permit, engine, deadline, context).await?;
        }
        let socket = dial(engine, context).await?;
        if !place.was_waited_for || !socket.closes_within(CLOSED_AT_ONCE).await {
            return Ok((socket, Some(place)));
        }
        if Instant::now() >= deadline {
            context.engine.look_again();
            return Err(Unreached::TurnedAway);
        }
        sleep(CLOSED_AT_ONCE).await;
    }
}

/// Whether what listens at `engine` is the channel that the grant is for, as far as the engine's own word is known.
async fn is_granted(
    permit: &Permit,
    engine: SocketAddr,
    deadline: Instant,
    context: &ListenerContext,
) -> Result<(), Unreached> {
    let Some(id) = permit.entry.local.engine_channel() else { return Ok(()) };
    let checked = context.engine.check_owner(id, engine, deadline).await;
    checked.map_err(|not_ours| Unreached::NotOurs(Box::new(not_ours)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_is_given_up_while_it_waits_for_a_place_is_told_so_and_one_that_has_its_place_is_not() {
        let places = NoPlace::new(10, 10);
        let waiting = WithoutPlace::default();
        waiting.set(Some(places));
        assert_eq!(waiting.given_up().answer(), Answer::listener_full(places));
        let placed = WithoutPlace::default();
        placed.set(Some(places));
        placed.set(None);
        assert_eq!(placed.given_up().answer(), Answer::Refused(RefusalCode::TooLate).encode());
    }
}
