//! The front of a link: its state, and how signals and datagrams are handed to it.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use gateway_proto::relay::{ClientFrame, Limit, RelayAddress, Standing, udp::CarrierReason};
use tokio::sync::{mpsc, watch};

use crate::relay_udp::{OverUdp, UdpLeg};

/// How an attachment stands.
#[derive(Debug, Clone, Default)]
pub struct LinkState {
    /// Admitted, and not yet ended.
    pub attached: bool,
    /// The relay said it is about to stop; it carries while it can.
    pub restarting: bool,
    /// Whether it gives signs of life when it is asked: another is better, or used beside it, where there is one.
    pub standing: Standing,
    /// Round trip of the last ping.
    pub rtt: Option<Duration>,
    /// How often UDP to the relay stopped passing on this attachment, or another connection took the place of a silent one.
    pub carrier_falls: u64,
    /// The relay drops much of what it is given, because this limit is reached.
    pub limit: Option<Limit>,
    /// Why it is not attached, in words.
    pub problem: Option<String>,
}

impl LinkState {
    /// Attached, to a relay that is not about to stop.
    pub fn stands(&self) -> bool {
        self.attached && !self.restarting
    }
}

/// The front of a link.
#[derive(Debug, Clone)]
pub struct LinkHandle {
    pub(super) datagrams: mpsc::Sender<Vec<u8>>,
    pub(super) signals: mpsc::Sender<Vec<u8>>,
    pub(super) state: watch::Receiver<LinkState>,
    pub(super) asked: watch::Sender<u64>,
    pub(super) leg: Arc<UdpLeg>,
    pub(super) reliances: Reliances,
}

impl LinkHandle {
    /// Asks the relay for a sign of life, because what went over it stays unanswered; what comes of it stands in the state.
    pub fn ask(&self) {
        ask(&self.asked);
    }

    /// The tunnel to a peer counts losses of what goes over this link: UDP to the relay may be the reason.
    pub fn blame_udp(&self) {
        self.leg.blame(Instant::now());
    }

    /// A sender of datagrams to one peer over this link.
    pub fn datagrams_to(&self, peer: RelayAddress) -> DatagramSender {
        DatagramSender { peer, lane: self.datagrams.clone(), leg: self.leg.clone() }
    }

    /// Queues a signal; `false`: the lane is full or the link has ended, and the path agent will send another.
    pub fn signal(&self, peer: RelayAddress, sealed: &[u8]) -> bool {
        self.signals.try_send(ClientFrame::SendSignal { destination: peer, sealed }.encode()).is_ok()
    }

    /// Whether datagrams travel over UDP, and why.
    pub fn carrier(&self) -> CarrierReason {
        self.leg.reason()
    }

    /// How often UDP took over from TLS and the other way round, since the link was made.
    pub fn carrier_changes(&self) -> BTreeMap<CarrierReason, u64> {
        self.leg.changes()
    }

    /// Whether both are fronts of one link.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.leg, &other.leg)
    }

    /// Says that nothing but this link reaches some partner, as long as what is given back is kept; also of one that is away.
    pub(crate) fn rely(&self) -> Reliance {
        self.reliances.add()
    }

    /// Whether it is attached, to a relay that is not about to stop.
    pub(crate) fn stands(&self) -> bool {
        self.state.borrow().stands()
    }

    /// How the link stands, with changes.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }
}

/// How many partners nothing but the link reaches.
#[derive(Debug, Clone, Default)]
pub(super) struct Reliances(watch::Sender<usize>);

impl Reliances {
    /// Whether there is one.
    pub(super) fn any(&self) -> bool {
        *self.0.borrow() > 0
    }

    /// Resolves when there is one.
    pub(super) async fn begun(&self) {
        // It cannot fail while there is a sender, and this is one.
        let _ = self.0.subscribe().wait_for(|count| *count > 0).await;
    }

    fn add(&self) -> Reliance {
        self.0.send_if_modified(|count| {
            *count += 1;
            *count == 1
        });
        Reliance(self.clone())
    }
}

/// One partner whom nothing but the link reaches, until it is dropped.
#[derive(Debug)]
pub(crate) struct Reliance(Reliances);

impl Drop for Reliance {
    fn drop(&mut self) {
        // Nobody waits for the end of one.
        self.0.0.send_if_modified(|count| {
            *count = count.saturating_sub(1);
            false
        });
    }
}

/// Sends datagrams to one peer over one relay.
#[derive(Debug, Clone)]
pub struct DatagramSender {
    peer: RelayAddress,
    lane: mpsc::Sender<Vec<u8>>,
    leg: Arc<UdpLeg>,
}

impl DatagramSender {
    /// Sends a batch over UDP by `send` (address, train, segment size), if it can.
    pub(crate) fn over_udp(
        &self,
        payload: &[u8],
        segment_size: Option<usize>,
        send: impl FnOnce(SocketAddr, &[u8], usize) -> io::Result<()>,
    ) -> OverUdp {
        self.leg.send(self.peer, payload, segment_size, Instant::now(), send)
    }

    /// Queues a batch for the WebSocket; `false` when it was dropped.
    pub fn send(&self, payload: &[u8], segment_size: Option<usize>) -> bool {
        // The permit first: nothing is copied for a packet that will be dropped.
        let Ok(permit) = self.lane.try_reserve() else { return false };
        let Ok(segment_size) = u16::try_from(segment_size.unwrap_or(0)) else { return false };
        permit.send(ClientFrame::SendDatagrams { destination: self.peer, segment_size, payload }.encode());
        true
    }
}

/// Tells the link that somebody wants a sign of life.
pub(super) fn ask(asked: &watch::Sender<u64>) {
    asked.send_modify(|count| *count = count.wrapping_add(1));
}
