//! What a gateway sends: forwarding, limits, heartbeat.

use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

use axum::{
    Error,
    body::Bytes,
    extract::ws::{Message, WebSocket},
};
use futures_util::{StreamExt, stream::SplitStream};
use gateway_proto::relay::{ClientFrame, RefusalCode, RelayAddress, RelayFrame, TokenBucket, readdress};
use tokio::sync::mpsc;

use super::End;
use crate::{
    app::Shared,
    metrics::{DropReason, Kind},
};

/// Hints that a peer is not here: a hint for each peer of a site now and then, not for each of its packets.
const HINTS_PER_SECOND: NonZeroU64 = NonZeroU64::new(5).expect("invariant: not zero");
/// A gateway over its rate is not read for at most this long, so that its pings and closes are still noticed.
const MAX_PAUSE: Duration = Duration::from_millis(100);
/// Pings without any sign of life that end a link.
const MAX_MISSED: u32 = 2;

pub(super) struct Incoming<'a> {
    source: RelayAddress,
    control: mpsc::Sender<Bytes>,
    shared: &'a Shared,
    bytes: Option<TokenBucket>,
    signals: TokenBucket,
    hints: TokenBucket,
}

impl<'a> Incoming<'a> {
    pub(super) fn new(source: RelayAddress, control: mpsc::Sender<Bytes>, shared: &'a Shared) -> Self {
        let now = Instant::now();
        let limits = &shared.config.limits;
        let (rate, signals) = (limits.client_bytes_per_second, limits.signals_per_second);
        Self {
            source,
            control,
            shared,
            bytes: rate.map(|rate| TokenBucket::new(rate, limits.client_burst_bytes, now)),
            signals: TokenBucket::new(signals, signals.saturating_mul(SIGNAL_BURST_SECONDS), now),
            hints: TokenBucket::new(HINTS_PER_SECOND, HINTS_PER_SECOND, now),
        }
    }

    /// Reads until the link ends.
    pub(super) async fn run(mut self, stream: &mut SplitStream<WebSocket>) -> End {
        let heartbeat = self.shared.config.timing.heartbeat;
        let mut missed = 0;
        loop {
            let Ok(message) = tokio::time::timeout(heartbeat, stream.next()).await else {
                if missed == MAX_MISSED {
                    return End::Silent;
                }
                missed += 1;
                self.tell(RelayFrame::Ping(u64::from(missed).to_be_bytes()));
                continue;
            };
            missed = 0;
            match self.handle(message) {
                Ok(Duration::ZERO) => {}
                Ok(pause) => tokio::time::sleep(pause.min(MAX_PAUSE)).await,
                Err(end) => return end,
            }
        }
    }

    /// Acts on one message; tells how long to pause reading.
    fn handle(&mut self, message: Option<Result<Message, Error>>) -> Result<Duration, End> {
        match message {
            Some(Ok(Message::Binary(bytes))) => self.frame(&bytes),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(Duration::ZERO),
            Some(Ok(Message::Text(_))) => Err(End::Refused(RefusalCode::Malformed)),
            Some(Ok(Message::Close(_))) | None => Err(End::Left),
            Some(Err(_)) => Err(End::Broken),
        }
    }

    fn frame(&mut self, bytes: &Bytes) -> Result<Duration, End> {
        match ClientFrame::decode(bytes) {
            Ok(ClientFrame::SendDatagrams { destination, .. }) => Ok(self.forward(Kind::Datagrams, destination, bytes)),
            Ok(ClientFrame::SendSignal { destination, .. }) => Ok(self.forward(Kind::Signal, destination, bytes)),
            Ok(ClientFrame::Ping(content)) => {
                self.tell(RelayFrame::Pong(content));
                Ok(Duration::ZERO)
            }
            Ok(ClientFrame::Pong(_)) => Ok(Duration::ZERO),
            Ok(ClientFrame::Admit { .. }) => Err(End::Refused(RefusalCode::Malformed)),
            Err(error) => {
                tracing::debug!(%error, "malformed frame");
                Err(End::Refused(RefusalCode::Malformed))
            }
        }
    }

    fn forward(&mut self, kind: Kind, destination: RelayAddress, bytes: &Bytes) -> Duration {
        let now = Instant::now();
        if let Err(pause) = self.take(kind, bytes.len(), now) {
            self.shared.metrics.dropped(DropReason::RateLimited);
            return pause;
        }
        let Some(queues) = self.shared.clients.find(destination) else {
            self.shared.metrics.dropped(DropReason::PeerAbsent);
            if self.hints.take(1, now).is_ok() {
                self.tell(RelayFrame::PeerAbsent(destination));
            }
            return Duration::ZERO;
        };
        // A copy of its own: a slice would keep the whole read buffer alive as long as it waits in the queue.
        let mut frame = bytes.to_vec();
        readdress(&mut frame, self.source);
        match queues.push(kind, frame.into()) {
            Ok(()) => self.shared.metrics.forwarded(kind, bytes.len()),
            Err(reason) => self.shared.metrics.dropped(reason),
        }
        Duration::ZERO
    }

    fn take(&mut self, kind: Kind, length: usize, now: Instant) -> Result<(), Duration> {
        if kind == Kind::Signal {
            self.signals.take(1, now)?;
        }
        match &mut self.bytes {
            Some(bucket) => bucket.take(length as u64, now),
            None => Ok(()),
        }
    }

    /// Queues a frame of our own; if the gateway does not read, it may be lost.
    fn tell(&self, frame: RelayFrame<'_>) {
        let _ = self.control.try_send(frame.encode().into());
    }
}

/// After a restart a gateway greets all its peers at once.
const SIGNAL_BURST_SECONDS: NonZeroU64 = NonZeroU64::new(5).expect("invariant: not zero");
