//! One attachment to a relay: connect, prove who we are, then signals and datagrams both ways until it ends.
//!
//! The link is supervised by [`link`]: it attaches again with jittered backoff, for ever, and says in [`LinkState`] how
//! it stands. While the relay gives no sign of life on a connection, a second one is tried beside it and takes its place once it is admitted: a
//! firewall that forgot the first lets the second through. Where the map has the relay at another URL, a connection there takes the place of the
//! one that stands; another key counts for new connections only. Two lanes go out: signals wait for room (they are few and precious), datagrams are dropped and counted
//! when their lane is full (QUIC sends them again). Where UDP to the relay passes, datagrams go there instead
//! ([`crate::relay_udp`]). A relay that announces a restart keeps carrying while it can.

mod alone;
mod attach;
mod ended;
mod exchange;
mod handle;

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use alone::{Pause, is_only};
use attach::{attach, beside};
use ended::LinkError;
use exchange::{Lanes, Receiver, transmit};
use futures_util::StreamExt;
use gateway_net::{causes::with_causes, proxy::Proxy, ws};
use gateway_proto::{
    id::RelayId,
    policy::RelayEntry,
    relay::{LinkRetry, RefusalCode},
};
pub(crate) use handle::Reliance;
pub use handle::{DatagramSender, LinkHandle, LinkState};
use handle::{Reliances, ask};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    authority::Authority,
    peer::Links,
    relay_inbound::RelayInbox,
    relay_udp::{self, UdpLeg, WebSocketEnd},
    socket::{Injector, TunnelSocket},
};

/// Datagram batches that wait for the link: about one window of a fast path; more would only be delay.
const DATAGRAM_LANE: usize = 128;
/// Signals that wait for the link.
const SIGNAL_LANE: usize = 64;
/// Frames of the link itself that wait for it.
const OWN_LANE: usize = 16;
/// Without any frame for this long the link is dead: two pings missed, and still before a tunnel over it gives up.
const SILENCE_LIMIT: Duration = Duration::from_secs(11);
/// After a change of our network a link from an address that is no longer used is given up at once, for it never fails by
/// itself; the relay at the other end of any other must answer a ping within this time.
const CHANGE_PATIENCE: Duration = Duration::from_secs(2);
/// An attachment that held this long proves the relay alive: the next attempt starts without delay. A relay that
/// admits and drops at once does not get a storm.
const PROVEN_ALIVE: Duration = Duration::from_secs(5);
/// The relay ends the older connection when it admits the newer one, and either may be heard of first.
const REPLACED_PATIENCE: Duration = Duration::from_secs(1);
/// The relay must admit us within this time.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything a link needs.
#[derive(Debug, Clone)]
pub struct LinkContext {
    /// Keys and relay token.
    pub authority: Authority,
    /// The proxy on the way out, where it covers the relay's host.
    pub proxy: Option<Proxy>,
    /// Where datagrams over UDP leave and arrive.
    pub socket: Arc<TunnelSocket>,
    /// Where datagrams over the WebSocket go.
    pub injector: Injector,
    /// Where signals and hints go.
    pub inbound: RelayInbox,
    /// Counts state changes of all links, so that whoever chooses among them looks again.
    pub changes: watch::Sender<u64>,
    /// All links, this one among them: whether another one carries meanwhile.
    pub links: watch::Receiver<Links>,
    /// Told whenever the machine's network changes or it slept.
    pub network: watch::Receiver<u64>,
}

impl LinkContext {
    /// Whether a link to where the map has the relay goes through the HTTP proxy.
    pub(crate) fn is_proxied(&self, relay: &RelayEntry) -> bool {
        let url = relay.url.parse::<url::Url>();
        self.proxy.as_ref().zip(url.ok()).is_some_and(|(proxy, url)| proxy.covers_url(&url))
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// Makes a link to the relay of which the map says this, and may say other things later, but for its id; the future runs it until `stop`
/// and is the caller's to own.
pub fn link(
    relay: watch::Receiver<RelayEntry>,
    context: LinkContext,
    stop: CancellationToken,
) -> (LinkHandle, impl Future<Output = ()> + Send) {
    let id = relay.borrow().id;
    let (datagrams, datagrams_rx) = mpsc::channel(DATAGRAM_LANE);
    let (signals, signals_rx) = mpsc::channel(SIGNAL_LANE);
    let (state_tx, state) = watch::channel(LinkState::default());
    let (asked, leg) = (watch::Sender::new(0), Arc::new(UdpLeg::of(id)));
    let reliances = Reliances::default();
    let link = Link {
        id,
        relay,
        context,
        datagrams: datagrams_rx,
        signals: signals_rx,
        state: state_tx,
        asked: asked.clone(),
        leg: leg.clone(),
        reliances: reliances.clone(),
    };
    let handle = LinkHandle { datagrams, signals, state, asked, leg, reliances };
    (handle, async move {
        stop.run_until_cancelled(link.run()).await;
    })
}

struct Link {
    id: RelayId,
    /// What the map says of it.
    relay: watch::Receiver<RelayEntry>,
    context: LinkContext,
    datagrams: mpsc::Receiver<Vec<u8>>,
    signals: mpsc::Receiver<Vec<u8>>,
    state: watch::Sender<LinkState>,
    asked: watch::Sender<u64>,
    leg: Arc<UdpLeg>,
    reliances: Reliances,
}

type Stream = ws::WsStream;

/// How an attachment's connection ended.
enum Carried {
    Ended(LinkError),
    /// Another one was admitted in its place, by what the map said of the relay then.
    Replaced(Box<(Stream, RelayEntry)>),
}

impl Link {
    async fn run(mut self) {
        let mut retry = LinkRetry::default();
        let mut network = self.context.network.clone();
        loop {
            network.mark_unchanged();
            let relay = self.relay.borrow_and_update().clone();
            let attached = tokio::select! {
                attached = attach(&relay, &self.context) => attached,
                // What was begun on the former network is not waited for.
                Ok(()) = network.changed() => Err(LinkError::Moved),
                // Nor what was begun where the relay was.
                Ok(()) = self.relay.changed() => continue,
            };
            let (error, is_admitted) = match attached {
                Ok(stream) => {
                    info!(relay = %self.id, "attached to the relay");
                    let attached_at = Instant::now();
                    let error = self.stay(stream, relay).await;
                    if attached_at.elapsed() > PROVEN_ALIVE {
                        retry.reset();
                    }
                    (error, true)
                }
                Err(error) => (error, false),
            };
            let problem = with_causes(&error);
            let known = self.state.borrow().problem.as_ref() == Some(&problem);
            if known {
                debug!(relay = %self.id, %problem, "still not attached to the relay");
            } else {
                warn!(relay = %self.id, %problem, "not attached to the relay");
            }
            self.set_state(LinkState { problem: Some(problem), ..LinkState::default() });
            // What waited is stale by the time the link is back.
            while self.datagrams.try_recv().is_ok() {}
            while self.signals.try_recv().is_ok() {}
            let end = error.end(is_admitted, is_only(self.id, &self.context.links, &self.reliances));
            let pause = Pause {
                this: self.id,
                links: &self.context.links,
                reliances: &self.reliances,
                changes: &self.context.changes,
                network: &mut network,
                relay: &mut self.relay,
            };
            pause.run(end, &mut retry).await;
        }
    }

    fn set_state(&self, state: LinkState) {
        self.state.send_replace(state);
        self.context.changed();
    }

    /// Stays attached, on one connection after the other, until the relay is lost; says why it was.
    async fn stay(&mut self, mut stream: Stream, mut relay: RelayEntry) -> LinkError {
        self.set_state(LinkState { attached: true, ..LinkState::default() });
        loop {
            match self.carry(stream, &relay).await {
                Carried::Ended(error) => return error,
                Carried::Replaced(newer) => {
                    let former = relay.url;
                    (stream, relay) = *newer;
                    if relay.url == former {
                        info!(relay = %self.id, "another connection takes the place of one that gave no sign of life");
                    } else {
                        info!(relay = %self.id, url = %relay.url, "attached to the relay where it is now");
                    }
                    let carrier_falls = self.state.borrow().carrier_falls + 1;
                    self.set_state(LinkState { attached: true, carrier_falls, ..LinkState::default() });
                }
            }
        }
    }

    /// Carries frames until the connection, which was made to the relay as it is told here, ends or another takes its place.
    async fn carry(&mut self, stream: Stream, relay: &RelayEntry) -> Carried {
        let tcp = stream.get_ref().get_ref().0;
        let way = tcp.local_addr().and_then(|local| Ok((local, tcp.peer_addr()?))).ok();
        let (sink, source) = stream.split();
        let (pong, pongs) = mpsc::channel(4);
        let (question, questions) = mpsc::channel(1);
        let (own_tx, own) = mpsc::channel(OWN_LANE);
        let (offers_tx, offers) = mpsc::channel(1);
        let started = Instant::now();
        let mut announced = None;
        let receiver = Receiver {
            relay,
            context: &self.context,
            state: &self.state,
            leg: &self.leg,
            asked: self.asked.subscribe(),
            question,
            pong,
            offers: offers_tx,
            announced: &mut announced,
            way,
            started,
        };
        let lanes = Lanes {
            pongs,
            own,
            network: self.context.network.clone(),
            questions,
            signals: &mut self.signals,
            datagrams: &mut self.datagrams,
        };
        let fell = || {
            self.state.send_modify(|state| state.carrier_falls += 1);
            self.context.changed();
            // The relay may be gone as a whole.
            ask(&self.asked);
        };
        let mut beside = pin!(beside(relay, self.relay.clone(), &self.context, &self.state));
        let websocket =
            way.map(|(_, remote)| WebSocketEnd { ip: remote.ip(), is_relay: !self.context.is_proxied(relay) });
        let ended = tokio::select! {
            error = receiver.run(source) => error,
            error = transmit(sink, lanes, started) => error,
            () = relay_udp::drive(&self.leg, &self.context.socket, websocket, offers, own_tx, fell) => LinkError::Ended,
            newer = &mut beside => return Carried::Replaced(Box::new(newer)),
        };
        if let LinkError::Refused { code: RefusalCode::Replaced, .. } = ended
            && let Ok(newer) = timeout(REPLACED_PATIENCE, beside).await
        {
            return Carried::Replaced(Box::new(newer));
        }
        Carried::Ended(ended.after(announced))
    }
}

fn jitter(most: Duration, random: u32) -> Duration {
    most.mul_f64(f64::from(random) / f64::from(u32::MAX))
}
