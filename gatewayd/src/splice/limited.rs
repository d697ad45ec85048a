//! One stream under the limits of its channel's owner: what was read goes on when the rate allows it, and nothing more is read
//! before; a stream in which no byte passes for too long ends. Decided in `gateway_proto::limits`.
//!
//! The owner's gateway keeps them for both directions. The sender's keeps the rate for what it sends, or up to a window of each stream
//! would wait in the tunnel: others would find no room there, and neither end would know that it only waits.

use std::{
    future::pending,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use gateway_proto::limits::{ChannelLimits, Rate, ReceiveTimeout};
use quinn::{ReadError, RecvStream};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{RESET_GRACE, SpliceError};
use crate::{
    engine_socket::CHUNKS,
    observer::Observer,
    traffic::{Role, Traffic, Way},
};

/// What is read at a time at most where silence is limited: so little that each piece shows that bytes pass.
const PIECE: usize = 16 << 10;
/// What our engine sent before its connection broke goes on without its turn until this much of the stream did, in bytes: more than an
/// acknowledgement has. How much of all streams may, is decided by the rate. An engine that sends MLLP has nothing of the kind: what
/// it sent and saw no acknowledgement for it sends again.
const LAST_BYTES: usize = 4 << 10;

/// The limits of one stream.
#[derive(Debug)]
pub(super) struct Limited<'a> {
    traffic: &'a Traffic,
    role: Role,
    rate: Option<Rate>,
    silence: Option<Mutex<ReceiveTimeout>>,
    /// Directions that wait for their turn.
    waiting: AtomicU32,
    /// Cancelled when our engine's connection broke.
    engine_broke: CancellationToken,
    /// Whether anything goes on without its turn then.
    goes_early: bool,
    /// What went on without its turn since.
    last_bytes: AtomicUsize,
}

impl<'a> Limited<'a> {
    /// None: nothing is limited, and nothing is looked at. On the heap, because nearly no stream has it.
    pub(super) fn of(limits: ChannelLimits, observer: &Observer, traffic: &'a Traffic) -> Option<Box<Self>> {
        let role = observer.role();
        let (rate, silence) = (limits.rate(), limits.receive_timeout().filter(|_| role == Role::Listener));
        if rate.is_none() && silence.is_none() {
            return None;
        }
        let now = Instant::now().into_std();
        Some(Box::new(Self {
            traffic,
            role,
            rate,
            silence: silence.map(|limit| Mutex::new(ReceiveTimeout::new(limit, now))),
            waiting: AtomicU32::new(0),
            engine_broke: CancellationToken::new(),
            goes_early: !observer.is_mllp_sender(),
            last_bytes: AtomicUsize::new(0),
        }))
    }

    /// How much to read at a time.
    pub(super) fn piece(&self) -> usize {
        match (self.rate, &self.silence) {
            (Some(rate), Some(_)) => rate.piece().min(PIECE),
            (Some(rate), None) => rate.piece(),
            (None, _) => PIECE,
        }
    }

    /// Reads from the tunnel, where it is limited one piece into the first of the chunks: how many of them hold something now.
    pub(super) async fn read(
        &self,
        recv: &mut RecvStream,
        chunks: &mut [Bytes; CHUNKS],
    ) -> Result<Option<usize>, ReadError> {
        if !self.keeps(Way::FromPeer) {
            return recv.read_chunks(chunks).await;
        }
        let Some(chunk) = recv.read_chunk(self.piece(), true).await? else { return Ok(None) };
        chunks[0] = chunk.bytes;
        Ok(Some(1))
    }

    /// Whether the limits of this direction are ours to keep.
    fn keeps(&self, way: Way) -> bool {
        self.role == Role::Listener || way == Way::ToPeer
    }

    /// Bytes were read: what to wait for before they go on; none: they may at once.
    pub(super) fn turn(&self, way: Way, bytes: usize) -> Option<Turn<'_>> {
        self.passed(0);
        let rate = self.rate.filter(|_| self.keeps(way))?;
        let goes = self.traffic.pace(way).take_at_once(bytes, rate);
        (!goes).then_some(Turn { limited: self, way, bytes, rate })
    }

    /// Whether silence is limited.
    pub(super) fn has_receive_timeout(&self) -> bool {
        self.silence.is_some()
    }

    /// Resolves when no byte has passed for too long. What waits for its turn is not silent, here or at the partner's gateway: that is
    /// not seen from here, and lasts no longer than the turns of all open streams, believed up to a minute.
    pub(super) async fn silent_for_too_long(&self) {
        let Some(silence) = &self.silence else { return pending().await };
        loop {
            if self.waiting.load(Relaxed) > 0 {
                self.passed(0);
            }
            let far_wait = self.rate.map(|rate| rate.far_wait(self.traffic.streams.load(Relaxed))).unwrap_or_default();
            let over_at = silence.lock().unwrap_or_else(PoisonError::into_inner).poll_timeout();
            let over_at: Instant = over_at.checked_add(far_wait).unwrap_or(over_at).into();
            if Instant::now() >= over_at {
                return;
            }
            sleep_until(over_at).await;
        }
    }

    /// Whether our engine's connection broke while a rate may hold back what it sent before.
    pub(super) fn has_broken_engine(&self) -> bool {
        self.engine_broke.is_cancelled()
    }

    /// So many bytes went on just now; 0 when there are some that have not yet.
    pub(super) fn passed(&self, bytes: usize) {
        if let Some(silence) = &self.silence {
            let now = Instant::now().into_std();
            silence.lock().unwrap_or_else(PoisonError::into_inner).handle_bytes(bytes, now);
        }
    }
}

/// Our engine's connection broke. Under a rate, what it sent before may wait for its turn, be it an acknowledgement; without one it
/// were in the tunnel by now. So it goes on at once, while the other direction waits here for a moment, and the rate is paid for
/// by what comes later.
pub(super) async fn engine_broke(limited: Option<&Limited<'_>>) -> SpliceError {
    if let Some(limited) = limited.filter(|limited| limited.rate.is_some()) {
        limited.engine_broke.cancel();
        Box::pin(sleep(RESET_GRACE)).await;
    }
    SpliceError::Engine
}

/// The wait for a turn under the rate. What is dropped before has taken nothing.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    limited: &'a Limited<'a>,
    way: Way,
    bytes: usize,
    rate: Rate,
}

impl Turn<'_> {
    /// Waits. On the heap: nearly no stream has a timer for this.
    pub(super) async fn wait(self) {
        let waiting = &self.limited.waiting;
        waiting.fetch_add(1, Relaxed);
        Box::pin(self.comes()).await;
        waiting.fetch_sub(1, Relaxed);
        self.limited.passed(0);
    }

    async fn comes(&self) {
        let (limited, pace) = (self.limited, self.limited.traffic.pace(self.way));
        let in_turn = pace.take_in_turn(self.bytes, self.rate);
        if limited.engine_broke.run_until_cancelled(in_turn).await.is_some() {
            return;
        }
        let is_little = || limited.last_bytes.fetch_add(self.bytes, Relaxed) < LAST_BYTES;
        let may_go = limited.goes_early && self.way == Way::ToPeer;
        let goes = may_go && is_little() && pace.take_early(self.bytes, self.rate);
        if !goes {
            // Nobody is there for it, or it is too much: the stream ends in a moment.
            pending().await
        }
    }
}
