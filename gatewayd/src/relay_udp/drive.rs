//! What keeps a leg going: its timers, its pings, and where the relay is.
//!
//! The address at which the WebSocket reached the relay is known to work, so it is tried at once, before a name server has answered; then
//! those of its family; a try that brings nothing moves on to the next. An offer whose addresses are not known or of no use is
//! kept, and they are looked up again.

use std::{
    future::pending,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use gateway_proto::{backoff::Backoff, path::normalize, relay::udp::CarrierReason};
use tokio::{net::lookup_host, sync::mpsc, time::timeout};
use tracing::debug;

use super::{Offer, UdpLeg, UdpLegs};
use crate::{socket::TunnelSocket, timer::until};

/// Resolving the relay's name.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);
/// First and longest pause between two look-ups for an offer that is not usable yet.
const LOOK_UPS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// Addresses of a relay that are tried in turn.
const MAX_ADDRESSES: usize = 4;

/// The other end of the WebSocket's connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WebSocketEnd {
    /// Its address.
    pub(crate) ip: IpAddr,
    /// It is the relay itself, not a proxy.
    pub(crate) is_relay: bool,
}

/// Ends the leg's session when the attachment does, however it ends.
struct Attachment<'a> {
    leg: &'a Arc<UdpLeg>,
    legs: UdpLegs,
    websocket: Option<WebSocketEnd>,
}

impl Attachment<'_> {
    fn end(&self, reason: CarrierReason) {
        for remote in self.leg.end(reason) {
            self.legs.remove(remote, self.leg);
        }
    }
}

impl Drop for Attachment<'_> {
    fn drop(&mut self) {
        self.end(CarrierReason::NotOffered);
    }
}

/// Looks up where the relay of an offer is.
struct LookUp {
    offer: Offer,
    pauses: Backoff,
    again_at: Instant,
    /// Under way.
    resolving: Option<Pin<Box<dyn Future<Output = Vec<SocketAddr>> + Send>>>,
}

impl LookUp {
    /// Begins at once.
    fn new(offer: Offer, now: Instant) -> Self {
        let resolving = Some(resolve(offer.address.clone()));
        Self { offer, pauses: Backoff::new(LOOK_UPS.0, LOOK_UPS.1), again_at: now, resolving }
    }

    /// What the name servers say, none without an answer. Cancel-safe: whoever asks again goes on waiting for the same.
    async fn answered(&mut self) -> Vec<SocketAddr> {
        if self.resolving.is_none() {
            until(Some(self.again_at)).await;
        }
        let found = self.resolving.get_or_insert_with(|| resolve(self.offer.address.clone())).await;
        self.resolving = None;
        found
    }

    /// Nothing of use came of it.
    fn again(mut self, now: Instant) -> Self {
        self.again_at = now + self.pauses.next_delay(u32::from_be_bytes(gateway_net::entropy::random()));
        self
    }
}

fn resolve(address: String) -> Pin<Box<dyn Future<Output = Vec<SocketAddr>> + Send>> {
    Box::pin(async move {
        let resolved = timeout(RESOLVE_TIMEOUT, lookup_host(address)).await;
        resolved.ok().and_then(Result::ok).into_iter().flatten().collect()
    })
}

/// Keeps a leg going for one attachment, whose WebSocket goes to `websocket`: never ends by itself. Frames for the relay go to `frames`; `fell` is
/// told when UDP stops passing.
pub(crate) async fn drive(
    leg: &Arc<UdpLeg>,
    socket: &TunnelSocket,
    websocket: Option<WebSocketEnd>,
    mut offers: mpsc::Receiver<Offer>,
    frames: mpsc::Sender<Vec<u8>>,
    fell: impl Fn(),
) {
    let attachment = Attachment { leg, legs: socket.legs().clone(), websocket };
    let mut looked_up: Option<LookUp> = None;
    loop {
        let work = leg.work(Instant::now());
        if work.fell {
            fell();
        }
        if let Some(remote) = work.remote {
            for ping in &work.pings {
                socket.send_probe(remote, ping);
            }
        }
        for frame in work.frames {
            // The writer of the link has ended: the attachment does too.
            if frames.send(frame).await.is_err() {
                return pending().await;
            }
        }
        tokio::select! {
            Some(offer) = offers.recv() => looked_up = Some(attachment.begin(socket, offer, Instant::now())),
            () = leg.wake.notified() => {}
            () = until(work.due) => {}
            found = answered(&mut looked_up) => {
                looked_up = looked_up.and_then(|asked| attachment.take(socket, asked, found, Instant::now()));
            }
        }
    }
}

/// What the name servers say, if they are asked.
async fn answered(looked_up: &mut Option<LookUp>) -> Vec<SocketAddr> {
    match looked_up {
        Some(looked_up) => looked_up.answered().await,
        None => pending().await,
    }
}

impl Attachment<'_> {
    /// Takes an offer: whatever there was ends, and where the relay is known already the new session begins.
    fn begin(&self, socket: &TunnelSocket, offer: Offer, now: Instant) -> LookUp {
        self.end(CarrierReason::Trying);
        let known = self.usable(socket, Vec::new(), offer.port);
        if !known.is_empty() {
            self.start(&offer, known, now);
        }
        LookUp::new(offer, now)
    }

    /// Takes what the name servers found: more addresses for the session, or the first. Gives back what is to be looked up again, for
    /// there is none.
    fn take(&self, socket: &TunnelSocket, asked: LookUp, found: Vec<SocketAddr>, now: Instant) -> Option<LookUp> {
        let remotes = self.usable(socket, found, asked.offer.port);
        if self.leg.has_session() {
            for remote in self.leg.reach_also(remotes) {
                self.legs.insert(remote, self.leg.clone());
            }
            return None;
        }
        if remotes.is_empty() {
            debug!(relay = %self.leg.relay(), "the relay's UDP address is not usable");
            self.end(CarrierReason::NoAddress);
            return Some(asked.again(now));
        }
        self.start(&asked.offer, remotes, now);
        None
    }

    fn start(&self, offer: &Offer, remotes: Vec<SocketAddr>, now: Instant) {
        self.leg.start(offer, &remotes, now);
        for remote in remotes {
            self.legs.insert(remote, self.leg.clone());
        }
    }

    /// Those to try, in this order, a few.
    fn usable(&self, socket: &TunnelSocket, found: Vec<SocketAddr>, port: u16) -> Vec<SocketAddr> {
        let mut remotes = in_order(found.into_iter(), self.websocket, port);
        remotes.retain(|address| socket.reaches(address));
        remotes.truncate(MAX_ADDRESSES);
        remotes
    }
}

/// The addresses to try: the one the WebSocket goes to, then those of its family, else in the resolver's order, none twice.
fn in_order(found: impl Iterator<Item = SocketAddr>, websocket: Option<WebSocketEnd>, port: u16) -> Vec<SocketAddr> {
    let first = websocket.filter(|end| end.is_relay).map(|end| SocketAddr::new(end.ip, port));
    let mut remotes: Vec<SocketAddr> = Vec::new();
    for address in first.into_iter().chain(found).map(normalize) {
        if !remotes.contains(&address) {
            remotes.push(address);
        }
    }
    if let Some(websocket) = websocket {
        remotes.sort_by_key(|address| address.is_ipv4() != websocket.ip.to_canonical().is_ipv4());
    }
    remotes
}

#[cfg(test)]
mod tests;
