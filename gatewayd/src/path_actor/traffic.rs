//! What is looked at four times a second: the loss and the silence of a path that carries data, and a handshake without an
//! answer.

use std::time::{Duration, Instant};

use gateway_proto::path::{Carried, Selected};

use super::PathActor;
use crate::tunnel::Tunnel;

/// Between two looks.
pub(super) const TRAFFIC_INTERVAL: Duration = Duration::from_millis(250);

/// What the tunnel had sent, lost and received when it was asked last, and which tunnel.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    tunnel: usize,
    sent: u64,
    lost: u64,
    lost_bytes: u64,
    received: u64,
}

impl PathActor {
    /// Whether there is something to look at.
    pub(super) fn is_watched(&self) -> bool {
        self.is_active() || self.dialled_at.is_some()
    }

    fn is_active(&self) -> bool {
        self.peer.streams.borrow().is_active()
    }

    /// A path with open streams: its loss and its silence count.
    fn carries_data(&self) -> bool {
        self.is_active() && self.agent.selected() != Selected::None
    }

    /// Streams opened or closed, or a tunnel begins to be dialled: meanwhile nobody else would miss an answer.
    pub(super) fn take_activity(&mut self) {
        let (now, dialling) = (Instant::now(), *self.peer.dialling.borrow());
        self.dialled_at = dialling.then(|| self.dialled_at.unwrap_or(now));
        self.agent.set_active(dialling || self.is_active(), now);
        if dialling {
            self.agent.check(now);
        }
    }

    /// The agent hears how large the tunnel's packets are: what it decides next depends on it.
    pub(super) fn measure_tunnel(&mut self) {
        let tunnel = self.peer.tunnel.borrow();
        let size = tunnel.as_ref().map_or(0, |tunnel| tunnel.connection().stats().path.current_mtu);
        self.agent.set_datagram_size(size.into());
    }

    /// Looks.
    pub(super) fn watch_traffic(&mut self) {
        self.peer.look_for_rest();
        if self.dialled_at.is_some_and(|at| at.elapsed() >= TRAFFIC_INTERVAL) {
            self.agent.dialled_in_vain(Instant::now());
            self.miss_answer();
        }
        if !self.carries_data() {
            return;
        }
        let Some((tunnel, stats)) =
            self.peer.tunnel.borrow().as_ref().map(Tunnel::connection).map(|t| (t.stable_id(), t.stats()))
        else {
            return;
        };
        let (sent, lost, received) = (stats.path.sent_packets, stats.path.lost_packets, stats.udp_rx.datagrams);
        let lost_bytes = stats.path.lost_bytes;
        let former = std::mem::replace(&mut self.traffic, Traffic { tunnel, sent, lost, lost_bytes, received });
        if former.tunnel != tunnel {
            return;
        }
        let (now, sent) = (Instant::now(), sent.saturating_sub(former.sent));
        let (lost, lost_bytes) = (lost.saturating_sub(former.lost), lost_bytes.saturating_sub(former.lost_bytes));
        let carried = Carried { sent, lost, lost_bytes };
        self.agent.set_datagram_size(stats.path.current_mtu.into());
        self.agent.handle_traffic(carried, stats.path.rtt, now);
        self.weigh_relay(carried, now);
        // Packets go out and nothing comes back: the next heartbeat would ask the same, but later.
        if sent > 0 && received == former.received {
            self.agent.check(now);
            self.ask_relay();
        }
    }
}
