//! The UDP leg of a relay link: datagrams of peers beside the WebSocket, through the tunnel socket.
//!
//! A leg belongs to one link and lives as long as it; a session comes with each admission and goes with the attachment. The
//! [`UdpCarrier`] decides whether UDP is used; what it does not carry goes over the WebSocket, batch by batch. Sending and receiving happen under
//! the socket, one lock per train; [`drive()`] keeps the time, sends the pings and tells the relay what passes.

mod drive;
mod unpack;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Instant,
};

pub(crate) use drive::{WebSocketEnd, drive};
use gateway_proto::{
    id::RelayId,
    path::{PacketClass, classify},
    relay::{
        ClientFrame, RelayAddress,
        udp::{CarrierReason, Kind, Murmurs, OVERHEAD, Slots, UdpCarrier, UdpSecret, UdpSession, is_relayed},
    },
};
use tokio::sync::Notify;
use tracing::info;
pub(crate) use unpack::Unpacked;

use crate::routes::peer_address;

/// The largest train a kernel takes.
const MAX_TRAIN: usize = 65_000;

/// A session the relay handed out, and where it is to be used.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) session: u32,
    pub(crate) secret: UdpSecret,
    /// `host:port`.
    pub(crate) address: String,
    /// Its port.
    pub(crate) port: u16,
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
    /// What moves, by slot: data, or what a tunnel says that nobody uses.
    murmurs: Murmurs,
    /// Made-up addresses by slot.
    sources: Vec<SocketAddr>,
    /// Memory for the train that is sent.
    train: Vec<u8>,
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

    /// How often UDP took over from TLS and the other way round, by the reason.
    pub fn changes(&self) -> BTreeMap<CarrierReason, u64> {
        self.lock().carrier.changes().clone()
    }

    /// The tunnel to a peer counts losses of what goes over this relay.
    pub(crate) fn blame(&self, now: Instant) {
        self.lock().carrier.blame(now);
        self.wake.notify_one();
    }

    /// The answer to a ping of the WebSocket. False: it was the link that asked.
    pub(crate) fn link_answered(&self, bytes: [u8; 8], now: Instant) -> bool {
        self.lock().carrier.link_answered(bytes, now)
    }

    /// So many sealed bytes of a peer came over the WebSocket.
    pub(crate) fn came(&self, peer: &RelayAddress, length: usize, now: Instant) {
        let mut state = self.lock();
        let State { carrier, session, .. } = &mut *state;
        let Some(session) = session.as_mut() else { return };
        let slot = session.slots.number(peer);
        let is_data = slot.is_none_or(|slot| session.murmurs.came(slot, length, now));
        if is_data && carrier.active(0, now) {
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
        let slot = session.slots.number(&peer);
        let is_data = slot.is_none_or(|slot| session.murmurs.sent(slot, payload.len(), now));
        let mut wake = is_data && carrier.active(if fits { longest } else { 0 }, now);
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
        let (mut at, mut wake, mut longest, mut is_data) = (0, false, 0, false);
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
                            is_data |= session.murmurs.came(opened.slot, end - at - OVERHEAD, now);
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
        if is_data {
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
            murmurs: Murmurs::default(),
            sources: Vec::new(),
            train: Vec::new(),
        });
        state.told = 0;
        state.frames.clear();
        state.carrier.start(now);
    }

    fn has_session(&self) -> bool {
        self.lock().session.is_some()
    }

    /// The relay is at these addresses too, which are tried after those that are known; the new ones among them.
    fn reach_also(&self, mut remotes: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let mut state = self.lock();
        let Some(session) = &mut state.session else { return Vec::new() };
        remotes.retain(|remote| !session.remotes.contains(remote));
        session.remotes.extend(&remotes);
        remotes
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
            info!(relay = %self.relay, reason = carrier.reason().code(), "{}", carrier.reason());
        }
        let mut pings = Vec::new();
        if let Some(session) = session {
            if carrier.failed_tries() != failed {
                session.remotes.rotate_left(1);
            }
            while let Some(ping) = carrier.poll_transmit() {
                pings.push(session.wire.ping(ping.id, ping.echo, ping.payload));
            }
            while let Some(ping) = carrier.poll_link_ping() {
                frames.push_back(ClientFrame::Ping(ping).encode());
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

#[cfg(test)]
mod tests;
