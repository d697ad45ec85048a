//! How large the tunnel's packets are, and whether they fit the path.
//!
//! QUIC searches how large its packets may be, and does not see that they take another path: on one with a smaller MTU the
//! large ones vanish, until four losses of theirs, one after the other, make it begin anew with [`PADDED_PROBE_LEN`] bytes. So
//! data that is well on a direct path moves only to one that carries the tunnel's packets as they are. Where it has to move, or
//! comes from the relay, which carries any size, [`PathEvent::AskTunnel`] makes round trips beside the data, so that QUIC learns
//! of each loss a round trip later and not after a timer that doubles.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Current, PathAgent};
use crate::{
    path::{PADDED_PROBE_LEN, PathEvent, pair::Pair},
    relay::udp::MAX_PAYLOAD,
};

/// Between two round trips of the tunnel: QUIC needs four losses, and an engine waits 5 s.
const ASK_INTERVAL: Duration = Duration::from_millis(50);

/// So long are they asked for; after it, the next large packets that are lost ask again.
const ASK_TIME: Duration = Duration::from_secs(1);

/// But not sooner than this: packets may be lost for other reasons, and a path that loses many is to be left.
const ASK_PAUSE: Duration = Duration::from_secs(10);

/// The size of the tunnel's packets, and the round trips that are asked for while it may be too large.
#[derive(Debug, Default)]
pub(super) struct Sizing {
    /// Of the largest packet that the tunnel sends now, UDP payload; 0: there is none.
    size: usize,
    asking: Option<Asking>,
    /// When losses made us ask last.
    doubted_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Asking {
    next_at: Instant,
    until: Instant,
}

impl Sizing {
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The size, if not every path that is used carries it.
    pub(super) fn above_least(&self) -> Option<usize> {
        (self.size > PADDED_PROBE_LEN).then_some(self.size)
    }

    /// Whether the tunnel is learning what the path carries.
    pub(super) fn is_asking(&self) -> bool {
        self.asking.is_some()
    }

    pub(super) fn next_at(&self) -> Option<(Instant, &'static str)> {
        self.asking.map(|asking| (asking.next_at, "the tunnel's packets may be too large"))
    }
}

impl PathAgent {
    /// The largest packet that the tunnel sends now, in bytes of UDP payload; 0 while there is no tunnel. To be told before every
    /// probe and every sample of traffic.
    pub fn set_datagram_size(&mut self, size: usize) {
        self.sizing.size = size.min(MAX_PAYLOAD);
    }

    /// Data was just put on that path: it is asked at once whether it carries the tunnel's packets, and until that is known the
    /// tunnel makes round trips.
    pub(super) fn fit_tunnel(&mut self, remote: SocketAddr, now: Instant) {
        self.sizing.asking = None;
        if self.fits(remote) {
            return;
        }
        self.sizing.asking = Some(Asking { next_at: now + ASK_INTERVAL, until: now + ASK_TIME });
        self.ping_large(remote, now);
    }

    /// Large packets were lost on the path in use: what is under it may have changed.
    pub(super) fn doubt_size(&mut self, remote: SocketAddr, now: Instant) {
        let was_just_now = |at: Instant| now.saturating_duration_since(at) < ASK_PAUSE;
        if self.sizing.doubted_at.is_some_and(was_just_now) {
            return;
        }
        self.sizing.doubted_at = Some(now);
        if let Some(pair) = self.pairs.get_mut(remote) {
            pair.doubt_size();
        }
        self.fit_tunnel(remote, now);
    }

    /// A round trip of the tunnel, when one is due.
    pub(super) fn poll_sizing(&mut self, now: Instant) {
        let Some(asking) = self.sizing.asking else { return };
        let is_over = match &self.current {
            Current::Direct { remote, .. } => now >= asking.until || self.fits(*remote),
            Current::None | Current::Relayed => true,
        };
        if is_over {
            self.sizing.asking = None;
        } else if now >= asking.next_at {
            self.sizing.asking = Some(Asking { next_at: now + ASK_INTERVAL, ..asking });
            self.event(PathEvent::AskTunnel);
        }
    }

    fn fits(&self, remote: SocketAddr) -> bool {
        self.pairs.get(remote).is_some_and(|pair: &Pair| pair.carries(self.sizing.size))
    }
}
