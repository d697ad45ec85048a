//! One stream under the limits of its channel's owner, at the owner's gateway: what was read goes on when the rate allows it, and
//! nothing more is read before; a stream in which no byte passes for too long ends. Decided in `gateway_proto::limits`.

use std::{
    future::pending,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use gateway_proto::limits::{ChannelLimits, Rate, ReceiveTimeout};
use quinn::{ReadError, RecvStream};
use tokio::time::{Instant, sleep_until};

use crate::{
    engine_socket::CHUNKS,
    traffic::{Traffic, Way},
};

/// What is read at a time where only silence is limited: so little that each piece shows that bytes pass.
const PIECE: usize = 16 << 10;

/// The limits of one stream.
#[derive(Debug)]
pub(super) struct Limited<'a> {
    traffic: &'a Traffic,
    rate: Option<Rate>,
    silence: Option<Mutex<ReceiveTimeout>>,
}

impl<'a> Limited<'a> {
    /// None: nothing is limited, and nothing is looked at. On the heap, because nearly no stream has it.
    pub(super) fn of(limits: ChannelLimits, traffic: &'a Traffic) -> Option<Box<Self>> {
        if limits.is_unlimited() {
            return None;
        }
        let now = Instant::now().into_std();
        let silence = limits.receive_timeout().map(|limit| Mutex::new(ReceiveTimeout::new(limit, now)));
        Some(Box::new(Self { traffic, rate: limits.rate(), silence }))
    }

    /// How much to read at a time.
    pub(super) fn piece(&self) -> usize {
        self.rate.map_or(PIECE, Rate::piece)
    }

    /// Reads one piece from the tunnel into the first of the chunks: how many of them hold something now.
    pub(super) async fn read(
        &self,
        recv: &mut RecvStream,
        chunks: &mut [Bytes; CHUNKS],
    ) -> Result<Option<usize>, ReadError> {
        let Some(chunk) = recv.read_chunk(self.piece(), true).await? else { return Ok(None) };
        chunks[0] = chunk.bytes;
        Ok(Some(1))
    }

    /// Bytes were read: what to wait for before they go on; none: they may at once.
    pub(super) fn turn(&self, way: Way, bytes: usize) -> Option<Turn<'_>> {
        let now = Instant::now();
        let Some(rate) = self.rate else {
            self.passed(now);
            return None;
        };
        let at = self.traffic.pace(way, bytes, rate, now);
        self.passed(at);
        (at > now).then(|| Turn { traffic: self.traffic, way, bytes, rate, at, has_come: false })
    }

    /// Bytes went on just now.
    pub(super) fn went_on(&self) {
        self.passed(Instant::now());
    }

    /// Resolves when no byte has passed for too long.
    pub(super) async fn silent_for_too_long(&self) {
        let Some(silence) = &self.silence else { return pending().await };
        loop {
            let silence = *silence.lock().unwrap_or_else(PoisonError::into_inner);
            if silence.is_over(Instant::now().into_std()) {
                return;
            }
            sleep_until(silence.poll_timeout().into()).await;
        }
    }

    fn passed(&self, at: Instant) {
        if let Some(silence) = &self.silence {
            silence.lock().unwrap_or_else(PoisonError::into_inner).handle_bytes(at.into_std());
        }
    }
}

/// The wait for a turn under the rate. What ends before gives its turn back.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    traffic: &'a Traffic,
    way: Way,
    bytes: usize,
    rate: Rate,
    at: Instant,
    has_come: bool,
}

impl Turn<'_> {
    /// Waits. The timer is on the heap: nearly no stream has one.
    pub(super) async fn wait(mut self) {
        Box::pin(sleep_until(self.at)).await;
        self.has_come = true;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.has_come {
            self.traffic.give_back(self.way, self.bytes, self.rate);
        }
    }
}
