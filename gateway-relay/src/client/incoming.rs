//! What a gateway sends: forwarding, limits, heartbeat.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Error,
    body::Bytes,
    extract::ws::{Message, WebSocket},
};
use futures_util::{StreamExt, stream::SplitStream};
use gateway_proto::relay::{ClientFrame, RefusalCode, RelayAddress, RelayFrame};
use tokio::sync::mpsc;

use super::End;
use crate::{
    app::Shared,
    budget::Budget,
    clients::Front,
    forward,
    metrics::{DropReason, Kind},
    udp::Session,
};

/// A gateway over its rate is not read for at most this long, so that its pings and closes are still noticed.
const MAX_PAUSE: Duration = Duration::from_millis(100);
/// Pings without any sign of life that end a link.
const MAX_MISSED: u32 = 2;

pub(super) struct Incoming<'a> {
    pub(super) source: RelayAddress,
    pub(super) control: mpsc::Sender<Bytes>,
    pub(super) shared: &'a Shared,
    pub(super) budget: Arc<Budget>,
    pub(super) udp: Option<Arc<Session>>,
}

impl Incoming<'_> {
    /// Reads until the link ends.
    pub(super) async fn run(self, stream: &mut SplitStream<WebSocket>) -> End {
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
    fn handle(&self, message: Option<Result<Message, Error>>) -> Result<Duration, End> {
        match message {
            Some(Ok(Message::Binary(bytes))) => self.frame(&bytes),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(Duration::ZERO),
            Some(Ok(Message::Text(_))) => Err(End::Refused(RefusalCode::Malformed)),
            Some(Ok(Message::Close(_))) | None => Err(End::Left),
            Some(Err(_)) => Err(End::Broken),
        }
    }

    fn frame(&self, bytes: &Bytes) -> Result<Duration, End> {
        match ClientFrame::decode(bytes) {
            Ok(ClientFrame::SendDatagrams { destination, segment_size, payload }) => {
                let now = Instant::now();
                Ok(self.front(Kind::Datagrams, destination, bytes.len(), now, |incoming, front| {
                    let datagrams = (segment_size, payload);
                    forward::datagrams(incoming.shared, incoming.source, front, bytes, datagrams, now);
                }))
            }
            Ok(ClientFrame::SendSignal { destination, .. }) => {
                Ok(self.front(Kind::Signal, destination, bytes.len(), Instant::now(), |incoming, front| {
                    let result = front.outbound.signal(forward::own(bytes, incoming.source));
                    incoming.shared.metrics.queued(Kind::Signal, bytes.len(), result.map(|()| 0));
                }))
            }
            Ok(ClientFrame::Ping(content)) => {
                if self.budget.ping(Instant::now()) {
                    self.tell(RelayFrame::Pong(content));
                } else {
                    self.shared.metrics.dropped(DropReason::RateLimited);
                }
                Ok(Duration::ZERO)
            }
            Ok(ClientFrame::Pong(_)) => Ok(self.budget.control(Instant::now())),
            Ok(ClientFrame::BindSlot { slot, peer }) => {
                if self.udp.as_ref().is_some_and(|session| session.bind(slot, peer)) {
                    self.tell(RelayFrame::SlotBound(slot));
                }
                Ok(self.budget.control(Instant::now()))
            }
            Ok(ClientFrame::UdpLimit(limit)) => {
                if let Some(session) = &self.udp {
                    session.set_limit(limit);
                }
                Ok(self.budget.control(Instant::now()))
            }
            Ok(ClientFrame::Admit { .. }) => Err(End::Refused(RefusalCode::Malformed)),
            Err(error) => {
                tracing::debug!(%error, "malformed frame");
                Err(End::Refused(RefusalCode::Malformed))
            }
        }
    }

    /// Finds the destination and charges the frame, before `pass` hands it on; tells how long to pause reading.
    fn front(
        &self,
        kind: Kind,
        destination: RelayAddress,
        length: usize,
        now: Instant,
        pass: impl FnOnce(&Self, &Front),
    ) -> Duration {
        if let Err((reason, pause)) = self.budget.charge(kind, length, now) {
            self.shared.metrics.dropped(reason);
            if let Some(limit) = self.budget.limit_to_tell() {
                self.tell(RelayFrame::LimitReached(limit));
            }
            return pause;
        }
        match self.shared.clients.find(destination) {
            Some(front) => pass(self, &front),
            None => {
                self.shared.metrics.dropped(DropReason::PeerAbsent);
                if self.budget.hint(now) {
                    self.tell(RelayFrame::PeerAbsent(destination));
                }
            }
        }
        Duration::ZERO
    }

    /// Queues a frame of our own; if the gateway does not read, it may be lost.
    fn tell(&self, frame: RelayFrame<'_>) {
        let _ = self.control.try_send(frame.encode().into());
    }
}
