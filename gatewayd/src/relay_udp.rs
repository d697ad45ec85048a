//! The UDP leg of a relay link: datagrams of peers beside the WebSocket, through the tunnel socket.
//!
//! A leg belongs to one link and lives as long as it; a session comes with each admission and goes with the attachment. The
//! [`UdpCarrier`] decides whether UDP is used; what it does not carry goes over the WebSocket, batch by batch. Sending and receiving happen under
//! the socket, one lock per train; [`drive`] keeps the time, sends the pings and tells the relay what passes. Of the relay's addresses those of the
//! WebSocket's family come first, for they are known to work; a try that brings nothing moves on to the next.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use gateway_proto::{
    id::RelayId,
    path::{PacketClass, classify, normalize},
    relay::{
        ClientFrame, RelayAddress,
        udp::{CarrierReason, Kind, OVERHEAD, Slots, UdpCarrier, UdpSecret, UdpSession, is_relayed},
    },
};
use tokio::{
    net::lookup_host,
    sync::{Notify, mpsc},
    time::{sleep_until, timeout},
};
use tracing::{debug, info};

use crate::{routes::peer_address, socket::TunnelSocket};

/// Resolving the relay's name.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Addresses of a relay that are tried in turn.
const MAX_ADDRESSES: usize = 4;
/// The largest train a kernel takes.
const MAX_TRAIN: usize = 65_000;

/// A session the relay handed out, and where it is to be used.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) session: u32,
    pub(crate) secret: UdpSecret,
    /// `host:port`.
    pub(crate) address: String,
}

/// See the module's description.
#[derive(Debug)]
pub struct UdpLeg {
    relay: RelayId,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    carrier: UdpCarrier,
    session: Option<Session>,
    /// What the relay knows of the carrier.
    told: u16,
    /// Frames for the relay, over the WebSocket; bounded by the slots.
    frames: VecDeque<Vec<u8>>,
}

#[derive(Debug)]
struct Session {
    /// The relay's addresses, the one in use first; never empty.
    remotes: VecDeque<SocketAddr>,
    wire: UdpSession,
    slots: Slots,
    /// Made-up addresses by slot.
    sources: Vec<SocketAddr>,
    /// Memory for the train that is sent.
    train: Vec<u8>,
}

/// A train as it was received, its headers taken out in place.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    /// Whose datagrams stand at the front of the buffer.
    pub(crate) source: Option<(SocketAddr, RelayAddress)>,
    /// How many bytes of them.
    pub(crate) kept: usize,
    /// Datagrams of other peers in the same train.
    pub(crate) others: Vec<(SocketAddr, Vec<u8>)>,
    /// Datagrams without a relay's header, which the kernel has joined to the train: its STUN answers come from the same address.
    pub(crate) bare: Vec<Vec<u8>>,
    /// Datagrams that were dropped.
    pub(crate) refused: u64,
}

/// What became of a batch.
#[derive(Debug)]
pub(crate) enum OverUdp {
    /// Sent, or not for now.
    Sent(io::Result<()>),
    /// Sent, but the WebSocket must carry it too.
    Doubtful,
    /// The WebSocket must carry it.
    No,
}

/// What the driver has to do.
struct Work {
    /// UDP stopped passing just now.
    fell: bool,
    remote: Option<SocketAddr>,
    pings: Vec<Vec<u8>>,
    frames: VecDeque<Vec<u8>>,
    due: Option<Instant>,
}

impl UdpLeg {
    /// One to this relay, not used yet.
    pub(crate) fn of(relay: RelayId) -> Self {
        Self { relay, state: Mutex::default(), wake: Notify::new() }
    }

    /// The relay.
    pub(crate) fn relay(&self) -> RelayId {
        self.relay
    }

    /// Why datagrams travel as they do.
    pub fn reason(&self) -> CarrierReason {
        self.lock().carrier.reason()
    }

    /// Data moves on the link.
    pub(crate) fn active(&self, now: Instant) {
        if self.lock().carrier.active(0, now) {
            self.wake.notify_one();
        }
    }

    /// Sends a batch over UDP by `send` (address, train, segment size).
    pub(crate) fn send(
        &self,
        peer: RelayAddress,
        payload: &[u8],
        segment_size: Option<usize>,
        now: Instant,
        send: impl FnOnce(SocketAddr, &[u8], usize) -> io::Result<()>,
    ) -> OverUdp {
        let longest = segment_size.map_or(payload.len(), |size| size.min(payload.len()));
        let mut state = self.lock();
        let State { carrier, session, frames, .. } = &mut *state;
        let Some(session) = session.as_mut() else { return OverUdp::No };
        let fits = carrier.limit().is_some_and(|limit| longest <= limit) && payload.len() + OVERHEAD <= MAX_TRAIN;
        let mut wake = carrier.active(if fits { longest } else { 0 }, now);
        let slot = session.slots.number(&peer);
        if fits
            && slot.is_none()
            && let Some(slot) = session.slots.assign(peer)
        {
            session.sources.push(peer_address(&peer));
            frames.push_back(ClientFrame::BindSlot { slot, peer }.encode());
            wake = true;
        }
        if wake {
            self.wake.notify_one();
        }
        let Some(slot) = slot.filter(|_| fits) else { return OverUdp::No };
        let sealed = session.wire.seal_train(slot, payload, segment_size.unwrap_or(0), &mut session.train);
        if !sealed || session.train.len() > MAX_TRAIN {
            return OverUdp::No;
        }
        let Some(remote) = session.remotes.front() else { return OverUdp::No };
        let sent = send(*remote, &session.train, longest + OVERHEAD);
        if carrier.in_doubt(now) { OverUdp::Doubtful } else { OverUdp::Sent(sent) }
    }

    /// Opens a train that came from the relay's address, and takes its headers out in place.
    pub(crate) fn receive(&self, buffer: &mut [u8], segment: usize, now: Instant) -> Unpacked {
        let mut unpacked = Unpacked::default();
        let mut state = self.lock();
        let State { carrier, session, .. } = &mut *state;
        let Some(session) = session.as_mut() else { return unpacked };
        let (mut at, mut wake, mut longest) = (0, false, 0);
        while at < buffer.len() {
            let end = (at + segment).min(buffer.len());
            if !is_relayed(buffer[at]) {
                unpacked.bare.push(buffer[at..end].to_vec());
                at = end;
                continue;
            }
            match session.wire.open(&buffer[at..end]) {
                Ok(opened) if opened.kind == Kind::Data => {
                    let source = session.sources.get(usize::from(opened.slot)).copied();
                    match source.zip(session.slots.peer(opened.slot)) {
                        Some(source) if classify(&buffer[at + OVERHEAD..end]) == PacketClass::Quic => {
                            longest = longest.max(end - at - OVERHEAD);
                            unpacked.keep(source, buffer, at + OVERHEAD, end);
                        }
                        Some(_) | None => unpacked.refused += 1,
                    }
                }
                Ok(opened) if opened.kind == Kind::Pong => {
                    if let Some(answer) = UdpSession::read_pong(&buffer[at..end]) {
                        carrier.answered(answer, end - at - OVERHEAD, now);
                        wake = true;
                    }
                }
                Ok(_) | Err(_) => unpacked.refused += 1,
            }
            at = end;
        }
        if unpacked.source.is_some() {
            wake |= carrier.active(longest, now);
        }
        if wake {
            self.wake.notify_one();
        }
        unpacked
    }

    /// The relay knows a slot now.
    pub(crate) fn slot_bound(&self, slot: u16) {
        if let Some(session) = &mut self.lock().session {
            session.slots.confirm(slot);
        }
    }

    fn start(&self, offer: &Offer, remotes: &[SocketAddr], now: Instant) {
        let mut state = self.lock();
        state.session = Some(Session {
            remotes: remotes.iter().copied().collect(),
            wire: UdpSession::of_gateway(offer.session, &offer.secret),
            slots: Slots::default(),
            sources: Vec::new(),
            train: Vec::new(),
        });
        state.told = 0;
        state.frames.clear();
        state.carrier.start(now);
    }

    /// Nothing goes over UDP any more; the addresses that were used.
    fn end(&self, reason: CarrierReason) -> VecDeque<SocketAddr> {
        let mut state = self.lock();
        state.carrier.stop(reason);
        state.frames.clear();
        state.session.take().map(|session| session.remotes).unwrap_or_default()
    }

    fn work(&self, now: Instant) -> Work {
        let mut state = self.lock();
        let State { carrier, session, told, frames } = &mut *state;
        let (before, failed) = (carrier.reason(), carrier.failed_tries());
        carrier.handle_timeout(now, u32::from_be_bytes(gateway_net::entropy::random()));
        if carrier.reason() != before {
            info!(reason = carrier.reason().code(), "{}", carrier.reason());
        }
        let mut pings = Vec::new();
        if let Some(session) = session {
            if carrier.failed_tries() != failed {
                session.remotes.rotate_left(1);
            }
            while let Some(ping) = carrier.poll_transmit() {
                pings.push(session.wire.ping(ping.id, ping.echo, ping.payload));
            }
            let limit = carrier.limit_to_tell(now);
            if std::mem::replace(told, limit) != limit {
                frames.push_back(ClientFrame::UdpLimit(limit).encode());
            }
        }
        Work {
            fell: carrier.reason() != CarrierReason::Passes && before == CarrierReason::Passes,
            remote: session.as_ref().and_then(|session| session.remotes.front().copied()),
            pings,
            frames: std::mem::take(frames),
            due: carrier.poll_timeout(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unpacked {
    /// Keeps the bytes from `at` to `end`, moved to where the kept ones end.
    fn keep(&mut self, source: (SocketAddr, RelayAddress), buffer: &mut [u8], at: usize, end: usize) {
        if self.source.is_none_or(|first| first == source) {
            self.source = Some(source);
            buffer.copy_within(at..end, self.kept);
            self.kept += end - at;
            return;
        }
        match self.others.last_mut() {
            Some((last, bytes)) if *last == source.0 => bytes.extend_from_slice(&buffer[at..end]),
            Some(_) | None => self.others.push((source.0, buffer[at..end].to_vec())),
        }
    }
}

/// The legs by the address of their relay: whose a received train is.
#[derive(Debug, Clone, Default)]
pub(crate) struct UdpLegs(Arc<RwLock<HashMap<SocketAddr, Arc<UdpLeg>>>>);

impl UdpLegs {
    /// The leg whose relay has this address.
    pub(crate) fn find(&self, relay: &SocketAddr) -> Option<Arc<UdpLeg>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(relay).cloned()
    }

    fn insert(&self, relay: SocketAddr, leg: Arc<UdpLeg>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(relay, leg);
    }

    fn remove(&self, relay: SocketAddr, leg: &Arc<UdpLeg>) {
        let mut legs = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if legs.get(&relay).is_some_and(|found| Arc::ptr_eq(found, leg)) {
            legs.remove(&relay);
        }
    }
}

/// Ends the leg's session when the attachment does, however it ends.
struct Attachment<'a> {
    leg: &'a Arc<UdpLeg>,
    legs: UdpLegs,
    /// Where the WebSocket goes: the relay, or a proxy.
    websocket: Option<IpAddr>,
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

/// Keeps a leg going for one attachment, whose WebSocket goes to `websocket`: never ends by itself. Frames for the relay go to `frames`; `fell` is
/// told when UDP stops passing.
pub(crate) async fn drive(
    leg: &Arc<UdpLeg>,
    socket: &TunnelSocket,
    websocket: Option<IpAddr>,
    mut offers: mpsc::Receiver<Offer>,
    frames: mpsc::Sender<Vec<u8>>,
    fell: impl Fn(),
) {
    let attachment = Attachment { leg, legs: socket.legs().clone(), websocket };
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
                return std::future::pending().await;
            }
        }
        let timer = async {
            match work.due {
                Some(due) => sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(offer) = offers.recv() => take(&attachment, socket, &offer).await,
            () = leg.wake.notified() => {}
            () = timer => {}
        }
    }
}

async fn take(attachment: &Attachment<'_>, socket: &TunnelSocket, offer: &Offer) {
    // Whether or not there is a new one: nothing is sent or taken there any more.
    attachment.end(CarrierReason::NotOffered);
    let resolved = timeout(RESOLVE_TIMEOUT, lookup_host(&offer.address)).await;
    let found = resolved.ok().and_then(Result::ok).into_iter().flatten().map(normalize);
    let remotes = in_order(found.filter(|address| socket.reaches(address)), attachment.websocket);
    if remotes.is_empty() {
        debug!("the relay's UDP address is not usable");
        attachment.end(CarrierReason::NoAddress);
        return;
    }
    attachment.leg.start(offer, &remotes, Instant::now());
    for remote in remotes {
        attachment.legs.insert(remote, attachment.leg.clone());
    }
}

/// The addresses to try: those of the WebSocket's family first, else in the resolver's order, none twice.
fn in_order(found: impl Iterator<Item = SocketAddr>, websocket: Option<IpAddr>) -> Vec<SocketAddr> {
    let mut remotes: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !remotes.contains(&address) {
            remotes.push(address);
        }
    }
    if let Some(websocket) = websocket {
        remotes.sort_by_key(|address| address.is_ipv4() != websocket.to_canonical().is_ipv4());
    }
    remotes.truncate(MAX_ADDRESSES);
    remotes
}

#[cfg(test)]
mod tests;
