//! The sessions: which gateway a datagram is from, and where datagrams for it go.
//!
//! A session lives as long as its link. Its lock is held for one train at a time, and never together with another one's.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Instant,
};

use bytes::Bytes;
use gateway_proto::relay::{
    RelayAddress, RelayFrame,
    udp::{Kind, OVERHEAD, Slots, UdpError, UdpReach, UdpSecret, UdpSession, Via, Way, session_of},
};
use tokio::sync::mpsc;

use super::payload_of;
use crate::{budget::Budget, metrics::DropReason};

/// Every session by its number.
#[derive(Debug, Default)]
pub(crate) struct Sessions(RwLock<HashMap<u32, Arc<Session>>>);

/// The session of one link.
#[derive(Debug)]
pub(crate) struct Session {
    id: u32,
    /// The gateway.
    pub(crate) address: RelayAddress,
    /// Shared with the link.
    pub(crate) budget: Arc<Budget>,
    /// Frames of our own to the gateway, over its link.
    control: mpsc::Sender<Bytes>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    wire: UdpSession,
    reach: UdpReach,
    slots: Slots,
}

/// What the datagrams at the front of a buffer were.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Train {
    /// Sealed bytes for one peer, all authentic: `length` bytes of train. One more may have been refused behind them.
    Data { peer: Option<RelayAddress>, length: usize, taken: usize, refused: Option<DropReason> },
    /// A ping; its pong stands in its place.
    Pong { length: usize },
    /// One datagram to forget.
    Dropped { reason: DropReason, taken: usize },
}

impl Sessions {
    /// Makes the session of a link: the front of it, and the frame that hands it out.
    pub(crate) fn open(
        &self,
        address: RelayAddress,
        budget: Arc<Budget>,
        control: mpsc::Sender<Bytes>,
        port: u16,
    ) -> (Arc<Session>, Vec<u8>) {
        let secret = UdpSecret::from_bytes(gateway_net::random());
        let mut sessions = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Far fewer links than numbers: the first draw is free but for one in millions.
        loop {
            let id = gateway_net::random_u32();
            let Entry::Vacant(entry) = sessions.entry(id) else { continue };
            let state = State {
                wire: UdpSession::of_relay(id, &secret),
                reach: UdpReach::new(&gateway_net::random()),
                slots: Slots::default(),
            };
            let session = Arc::new(Session { id, address, budget, control, state: Mutex::new(state) });
            entry.insert(session.clone());
            return (session, RelayFrame::UdpSession { session: id, secret, port }.encode());
        }
    }

    /// Ends a session.
    pub(crate) fn close(&self, session: &Session) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&session.id);
    }

    /// The session a datagram names.
    pub(super) fn find(&self, datagram: &[u8]) -> Option<Arc<Session>> {
        let id = session_of(datagram)?;
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }
}

impl Session {
    /// Opens the datagrams at the front of a buffer that are of this session and for one peer.
    pub(super) fn open(&self, bytes: &mut [u8], segment: usize, via: Via, now: Instant) -> Train {
        let mut state = self.lock();
        let first = segment.min(bytes.len());
        match state.wire.open(&bytes[..first]) {
            Ok(opened) => match opened.kind {
                Kind::Data => {
                    let (length, taken, refused) = state.open_rest(bytes, segment, first, opened.slot);
                    state.reach.heard(via, now);
                    Train::Data { peer: state.slots.peer(opened.slot), length, taken, refused }
                }
                Kind::Ping => {
                    if !self.budget.ping(now) {
                        return Train::Dropped { reason: DropReason::RateLimited, taken: first };
                    }
                    let Some((id, echo)) = UdpSession::read_ping(&bytes[..first]) else {
                        return Train::Dropped { reason: DropReason::Malformed, taken: first };
                    };
                    let answer = state.reach.pinged(via, id, echo, now);
                    state.wire.pong(answer, &mut bytes[..first]);
                    Train::Pong { length: first }
                }
                Kind::Pong => Train::Dropped { reason: DropReason::Malformed, taken: first },
            },
            Err(error) => Train::Dropped { reason: reason(error), taken: first },
        }
    }

    /// Writes headers for this gateway over those of a train from `source`; the way to send it, or `None` when nothing
    /// was written and the link must carry it.
    pub(crate) fn readdress(
        &self,
        source: &RelayAddress,
        train: &mut [u8],
        segment: usize,
        now: Instant,
    ) -> Option<Way> {
        let mut state = self.lock();
        let slot = state.slots.number(source)?;
        let way = state.reach.way(payload_of(train, segment), now)?;
        train.chunks_mut(segment.max(1)).all(|datagram| state.wire.seal(slot, datagram)).then_some(way)
    }

    /// Makes a train for this gateway of datagrams that came over a link; the way to send it, if there is one.
    pub(crate) fn pack(
        &self,
        source: &RelayAddress,
        payload: &[u8],
        segment_size: usize,
        train: &mut Vec<u8>,
        now: Instant,
    ) -> Option<Way> {
        let longest = if segment_size == 0 { payload.len() } else { segment_size.min(payload.len()) };
        let mut state = self.lock();
        let slot = state.slots.number(source)?;
        let way = state.reach.way(longest, now)?;
        train.reserve(payload.len() + payload.len().div_ceil(longest.max(1)) * OVERHEAD);
        state.wire.seal_train(slot, payload, segment_size, train).then_some(way)
    }

    /// The gateway says which number it gave a peer.
    pub(crate) fn bind(&self, slot: u16, peer: RelayAddress) -> bool {
        self.lock().slots.bind(slot, peer)
    }

    /// The gateway says what reaches it over UDP.
    pub(crate) fn set_limit(&self, limit: u16) {
        self.lock().reach.set_limit(limit);
    }

    /// Queues a frame of our own on the link; it may be lost.
    pub(crate) fn tell(&self, frame: RelayFrame<'_>) {
        let _ = self.control.try_send(frame.encode().into());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Opens what follows an opened datagram as long as it is of the same session and slot: the bytes that passed, the bytes
    /// looked at, and why one more was refused.
    fn open_rest(
        &mut self,
        bytes: &[u8],
        segment: usize,
        first: usize,
        slot: u16,
    ) -> (usize, usize, Option<DropReason>) {
        // Kind, session and slot: the same bytes say the same.
        let head: [u8; 7] = bytes[..7].try_into().expect("invariant: an opened datagram has a header");
        let mut at = first;
        while at < bytes.len() {
            let end = (at + segment).min(bytes.len());
            let datagram = &bytes[at..end];
            if datagram.len() <= OVERHEAD || datagram[..7] != head {
                break;
            }
            match self.wire.open(datagram) {
                Ok(opened) => debug_assert_eq!(opened.slot, slot),
                Err(error) => return (at, end, Some(reason(error))),
            }
            at = end;
        }
        (at, at, None)
    }
}

fn reason(error: UdpError) -> DropReason {
    match error {
        UdpError::Malformed => DropReason::Malformed,
        UdpError::BadMac => DropReason::BadMac,
        UdpError::Replayed => DropReason::Replayed,
    }
}
