//! An attachment at work: what comes in over the WebSocket, and what goes out.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt, stream::SplitSink, stream::SplitStream};
use gateway_net::ws::{Bytes, Message};
use gateway_proto::{
    policy::RelayEntry,
    relay::{ClientFrame, Doubt, Limit, RelayFrame},
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout_at,
};
use tracing::{debug, info, warn};

use super::{CHANGE_PATIENCE, LinkContext, LinkError, LinkState, SILENCE_LIMIT, Stream};
use crate::{
    net_watch::has_moved,
    relay_inbound::RelayNews,
    relay_udp::{Offer, UdpLeg},
    timer::until,
};

/// Frames written between two flushes.
const FLUSH_BATCH: usize = 32;
/// A limit is told every five to ten seconds while it is reached.
const LIMIT_MEMORY: Duration = Duration::from_secs(15);
/// Our own ping: keeps the NAT binding of the TCP connection and measures the round trip.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// The reading side.
pub(super) struct Receiver<'a> {
    pub(super) relay: &'a RelayEntry,
    pub(super) context: &'a LinkContext,
    pub(super) state: &'a watch::Sender<LinkState>,
    pub(super) leg: &'a UdpLeg,
    /// Told when somebody wants a sign of life.
    pub(super) asked: watch::Receiver<u64>,
    /// Orders a question for one. Where there is no room the last one has not left yet.
    pub(super) question: mpsc::Sender<()>,
    pub(super) pong: mpsc::Sender<[u8; 8]>,
    pub(super) offers: mpsc::Sender<Offer>,
    /// The pause after which a relay that announced a restart wants us back, for whoever notices the end of the link first.
    pub(super) announced: &'a mut Option<Duration>,
    /// Our end and the other end of the connection: the relay, or a proxy.
    pub(super) way: Option<(SocketAddr, SocketAddr)>,
    pub(super) started: Instant,
}

impl Receiver<'_> {
    /// Reads until the link ends; says why it did.
    pub(super) async fn run(mut self, mut source: SplitStream<Stream>) -> LinkError {
        let mut network = self.context.network.clone();
        network.mark_unchanged();
        let mut answer_by: Option<tokio::time::Instant> = None;
        let mut limited_until = None;
        let mut doubt = Doubt::default();
        let mut heard = tokio::time::Instant::now();
        loop {
            let silent_at = heard + SILENCE_LIMIT;
            let limit = answer_by.map_or(silent_at, |at| at.min(silent_at));
            let received = tokio::select! {
                received = timeout_at(limit, source.next()) => received,
                () = until(doubt.poll_timeout()) => {
                    if doubt.handle_timeout(Instant::now()) {
                        self.tell(&doubt);
                    }
                    continue;
                }
                () = until(limited_until) => {
                    limited_until = None;
                    self.limit(None);
                    continue;
                }
                Ok(()) = self.asked.changed() => {
                    let rtt = self.state.borrow().rtt.unwrap_or_default();
                    if doubt.ask(rtt, Instant::now()) {
                        let _ = self.question.try_send(());
                    }
                    continue;
                }
                Ok(()) = network.changed() => {
                    if self.way.is_some_and(|(local, remote)| has_moved(local, remote)) {
                        return LinkError::Moved;
                    }
                    answer_by = Some(tokio::time::Instant::now() + CHANGE_PATIENCE);
                    continue;
                }
            };
            let message = match received {
                Err(_) if limit < silent_at => return LinkError::NoAnswer,
                Err(_) => return LinkError::Silent,
                Ok(Some(Ok(message))) => message,
                Ok(_) => return LinkError::Ended,
            };
            heard = tokio::time::Instant::now();
            if doubt.heard() {
                self.tell(&doubt);
            }
            let Message::Binary(bytes) = message else { continue };
            match RelayFrame::decode(&bytes) {
                Ok(RelayFrame::RecvDatagrams { source, segment_size, payload }) => {
                    let at = bytes.len() - payload.len();
                    let now = Instant::now();
                    self.leg.came(&source, payload.len(), now);
                    let payload = bytes.slice(at..);
                    self.context.injector.relayed(self.relay.id, &source, segment_size, payload, now);
                }
                Ok(RelayFrame::RecvSignal { source, sealed }) => {
                    self.context.inbound.put(self.relay.id, source, RelayNews::Signal(sealed.to_vec()));
                }
                Ok(RelayFrame::PeerAbsent(peer)) => {
                    self.context.inbound.put(self.relay.id, peer, RelayNews::Absent);
                }
                Ok(RelayFrame::Ping(bytes)) => {
                    let _ = self.pong.try_send(bytes);
                }
                Ok(RelayFrame::Pong(bytes)) => {
                    answer_by = None;
                    if !self.leg.link_answered(bytes, Instant::now()) {
                        let sent = Duration::from_micros(u64::from_be_bytes(bytes));
                        let rtt = self.started.elapsed().checked_sub(sent);
                        self.state.send_modify(|s| s.rtt = rtt);
                    }
                }
                Ok(RelayFrame::Restarting { reconnect_after_ms }) => {
                    info!(reconnect_after_ms, "the relay announces a restart");
                    *self.announced = Some(Duration::from_millis(reconnect_after_ms.into()));
                    self.state.send_modify(|state| state.restarting = true);
                    self.context.changed();
                }
                Ok(RelayFrame::Refused { code, detail }) => {
                    return LinkError::Refused { code, detail: detail.to_owned() };
                }
                Ok(RelayFrame::UdpSession { session, secret, port }) => {
                    if let Some(address) = udp_address(self.relay, port) {
                        let _ = self.offers.try_send(Offer { session, secret, address, port });
                    }
                }
                Ok(RelayFrame::SlotBound(slot)) => self.leg.slot_bound(slot),
                Ok(RelayFrame::LimitReached(limit)) => {
                    limited_until = Some(Instant::now() + LIMIT_MEMORY);
                    self.limit(Some(limit));
                }
                Ok(RelayFrame::Challenge { .. } | RelayFrame::Admitted { .. }) | Err(_) => {}
            }
        }
    }

    /// Another relay is better while this one drops much.
    fn limit(&self, limit: Option<Limit>) {
        let former = self.state.borrow().limit;
        self.state.send_modify(|state| state.limit = limit);
        match limit {
            Some(limit) if former.is_none() => warn!(relay = %self.relay.id, "{limit}"),
            Some(_) => {}
            None => info!(relay = %self.relay.id, "the relay does not say any more that a limit is reached"),
        }
        if former.is_some() != limit.is_some() {
            self.context.changed();
        }
    }

    fn tell(&self, doubt: &Doubt) {
        let standing = doubt.standing();
        debug!(relay = %self.relay.id, ?standing, "the relay was asked for a sign of life");
        self.state.send_modify(|state| state.standing = standing);
        self.context.changed();
    }
}

/// Where the relay relays over UDP: at the host of its URL.
fn udp_address(relay: &RelayEntry, port: u16) -> Option<String> {
    let url: url::Url = relay.url.parse().ok()?;
    Some(format!("{}:{port}", url.host()?))
}

/// Frames on their way to the relay, the more urgent first.
pub(super) struct Lanes<'a> {
    pub(super) pongs: mpsc::Receiver<[u8; 8]>,
    pub(super) own: mpsc::Receiver<Vec<u8>>,
    /// Told whenever the machine's network changes: the relay is asked at once whether it is still there.
    pub(super) network: watch::Receiver<u64>,
    /// Questions for a sign of life.
    pub(super) questions: mpsc::Receiver<()>,
    pub(super) signals: &'a mut mpsc::Receiver<Vec<u8>>,
    pub(super) datagrams: &'a mut mpsc::Receiver<Vec<u8>>,
}

/// Writes until the link ends; says why it did.
pub(super) async fn transmit(
    mut sink: SplitSink<Stream, Message>,
    mut lanes: Lanes<'_>,
    started: Instant,
) -> LinkError {
    lanes.network.mark_unchanged();
    let mut pings = tokio::time::interval(PING_INTERVAL);
    loop {
        let frame = tokio::select! {
            biased;
            Some(bytes) = lanes.pongs.recv() => ClientFrame::Pong(bytes).encode(),
            _ = pings.tick() => ping(started),
            Ok(()) = lanes.network.changed() => ping(started),
            Some(()) = lanes.questions.recv() => ping(started),
            Some(frame) = lanes.own.recv() => frame,
            Some(frame) = lanes.signals.recv() => frame,
            Some(frame) = lanes.datagrams.recv() => frame,
            else => return LinkError::Ended,
        };
        if sink.feed(Message::Binary(Bytes::from(frame))).await.is_err() {
            return LinkError::Ended;
        }
        for _ in 1..FLUSH_BATCH {
            let Ok(frame) = lanes.signals.try_recv().or_else(|_| lanes.datagrams.try_recv()) else { break };
            if sink.feed(Message::Binary(Bytes::from(frame))).await.is_err() {
                return LinkError::Ended;
            }
        }
        if sink.flush().await.is_err() {
            return LinkError::Ended;
        }
    }
}

fn ping(started: Instant) -> Vec<u8> {
    let elapsed = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    ClientFrame::Ping(elapsed.to_be_bytes()).encode()
}
