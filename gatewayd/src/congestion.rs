//! Congestion control that knows when the path under a tunnel changed.
//!
//! QUIC sees one stable address per peer, so it does not notice that its packets take another way: its congestion window
//! describes the old one, often in ruins after an outage, and packets that were lost with the old path would count against
//! the new one. This controller wraps CUBIC and starts it anew when the peer's path epoch moves on; packets sent before
//! neither open nor shrink the new window, and those still in flight do not block it. So the first packet on the new path
//! leaves at once, whatever QUIC's probe timeout has backed off to, and its acknowledgement shows what was lost.
//!
//! On one path it keeps CUBIC from filling queues that messages would wait in, and forgives the few losses of a line that
//! is not full; what says so is `gateway_proto::congestion` (docs/adr/0031).

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use gateway_proto::{
    congestion::{LossBudget, QueueWatch, Sign},
    turns::Line,
};
use quinn::{
    Connection,
    congestion::{Controller, ControllerFactory, CubicConfig},
};
use quinn_proto::RttEstimator;

/// Makes the controllers of one peer's tunnels.
#[derive(Debug)]
pub struct PathAware {
    epoch: Arc<AtomicU64>,
    cubic: Arc<CubicConfig>,
}

impl PathAware {
    /// `epoch` moves on whenever the peer's packets take another path.
    pub fn new(epoch: Arc<AtomicU64>) -> Self {
        Self { epoch, cubic: Arc::default() }
    }
}

impl ControllerFactory for PathAware {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(PathAwareController {
            inner: self.cubic.clone().build(now, current_mtu),
            seen: self.epoch.load(Relaxed),
            factory: self,
            since: now,
            mtu: current_mtu,
            in_flight: 0,
            stale: 0,
            queue: QueueWatch::default(),
            before: None,
            floor: 0,
            budget: LossBudget::new(current_mtu),
            drained_at: None,
        })
    }
}

struct PathAwareController {
    factory: Arc<PathAware>,
    inner: Box<dyn Controller>,
    /// The epoch `inner` began in, and when.
    seen: u64,
    since: Instant,
    mtu: u16,
    /// Bytes sent, and neither acknowledged nor lost.
    in_flight: u64,
    /// Those of them that were sent on former paths.
    stale: u64,
    queue: QueueWatch,
    /// `inner` before it gave way to the queue that is there now.
    before: Option<Box<dyn Controller>>,
    /// The window that does without a queue, while what `inner` fell to is less.
    floor: u64,
    budget: LossBudget,
    /// When all there was to send was sent last on the present path, as far as acknowledgements have shown.
    drained_at: Option<Instant>,
}

/// The line under a tunnel. Some hundred nanoseconds: QUIC hands out a copy of all its congestion control knows.
pub(crate) fn line_of(connection: &Connection) -> Line {
    let controller = connection.congestion_state();
    Line { window: controller.window(), round_trip: connection.rtt(), drained_at: drained_at(controller) }
}

fn drained_at(controller: Box<dyn Controller>) -> Option<Instant> {
    controller.into_any().downcast::<PathAwareController>().ok()?.drained_at
}

impl PathAwareController {
    /// The window for packets on the present path.
    fn open(&self) -> u64 {
        self.inner.window().max(self.floor)
    }

    fn has_turned(&self) -> bool {
        self.seen != self.factory.epoch.load(Relaxed)
    }

    /// Starts anew when the path changed.
    fn turn(&mut self, now: Instant) {
        if self.has_turned() {
            self.seen = self.factory.epoch.load(Relaxed);
            self.inner = self.factory.cubic.clone().build(now, self.mtu);
            self.since = now;
            self.stale = self.in_flight;
            self.queue = QueueWatch::default();
            self.before = None;
            self.floor = 0;
            self.budget = LossBudget::new(self.mtu);
            self.drained_at = None;
        }
    }

    /// Bytes left the network; true when they were sent on the present path.
    fn settle(&mut self, sent: Instant, bytes: u64) -> bool {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        let present = sent >= self.since;
        if !present {
            self.stale = self.stale.saturating_sub(bytes);
        }
        present
    }
}

impl Controller for PathAwareController {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.turn(now);
        self.in_flight += bytes;
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.turn(now);
        if self.settle(sent, bytes) {
            self.budget.acknowledged(bytes, self.open());
            match self.queue.acknowledged(sent, now) {
                Sign::Calm => self.inner.on_ack(now, sent, bytes, app_limited, rtt),
                Sign::GiveWay(thousandths) => {
                    self.floor = self.open() / 1_000 * thousandths;
                    if self.before.is_none() {
                        self.before = Some(self.inner.clone_box());
                    }
                    self.inner.on_congestion_event(now, now, false, 0);
                }
                Sign::TakeBack => {
                    if let Some(before) = self.before.take() {
                        self.inner = before;
                    }
                    self.floor = 0;
                }
            }
            if self.queue.is_short() {
                self.before = None;
            }
        }
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        self.turn(now);
        // What QUIC counts is the truth; ours may be off by packets that need no acknowledgement.
        self.in_flight = in_flight;
        if app_limited {
            self.drained_at = Some(now);
        }
        self.stale = self.stale.min(in_flight);
        self.inner.on_end_acks(now, in_flight - self.stale, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.turn(now);
        if !self.settle(sent, lost_bytes) {
            return;
        }
        // An ECN mark has no lost bytes: a router says that its queue is full.
        let forgiven =
            lost_bytes > 0 && !is_persistent_congestion && self.queue.is_short() && self.budget.forgives(lost_bytes);
        if !forgiven {
            self.floor = 0;
            self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu;
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        // Between the change of the path and the first packet on it, nobody else may say so.
        let (inner, stale) = match self.has_turned() {
            true => (self.inner.initial_window(), self.in_flight),
            false => (self.open(), self.stale),
        };
        inner.saturating_add(stale)
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            factory: self.factory.clone(),
            inner: self.inner.clone_box(),
            queue: self.queue.clone(),
            before: self.before.as_ref().map(|before| before.clone_box()),
            budget: self.budget.clone(),
            ..*self
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MTU: u16 = 1_200;
    const MS: Duration = Duration::from_millis(1);

    fn controller() -> (Arc<AtomicU64>, Box<dyn Controller>, Instant) {
        let (epoch, now) = (Arc::new(AtomicU64::new(0)), Instant::now());
        (epoch.clone(), Arc::new(PathAware::new(epoch)).build(now, MTU), now)
    }

    #[test]
    fn a_new_path_starts_with_a_fresh_window_and_what_was_in_flight_does_not_block_it() {
        let (epoch, mut controller, now) = controller();
        let fresh = controller.window();
        controller.on_sent(now, fresh, 1);
        controller.on_congestion_event(now + 10 * MS, now, true, 0);
        assert!(controller.window() < fresh, "the old path's window is in ruins");
        epoch.fetch_add(1, Relaxed);
        assert_eq!(controller.window(), fresh + fresh, "room for a fresh window beside the packets of the old path");
        controller.on_sent(now + 20 * MS, 1_200, 2);
        assert_eq!(controller.window(), fresh + fresh);
    }

    #[test]
    fn that_all_was_sent_is_known_from_the_acknowledgements_of_the_present_path() {
        let (epoch, mut controller, now) = controller();
        let mut acknowledged = |at, is_all_sent| {
            controller.on_end_acks(at, 0, is_all_sent, Some(1));
            drained_at(controller.clone_box())
        };
        assert_eq!(acknowledged(now, false), None);
        assert_eq!(acknowledged(now + MS, true), Some(now + MS));
        assert_eq!(acknowledged(now + 2 * MS, false), Some(now + MS));
        epoch.fetch_add(1, Relaxed);
        assert_eq!(acknowledged(now + 3 * MS, false), None, "of the new path nothing is known");
    }

    #[test]
    fn packets_of_the_old_path_neither_open_nor_shrink_the_new_window() {
        let (epoch, mut controller, now) = controller();
        let fresh = controller.window();
        controller.on_sent(now, 6_000, 1);
        epoch.fetch_add(1, Relaxed);
        let switched = now + 20 * MS;
        controller.on_sent(switched, 1_200, 2);
        controller.on_congestion_event(switched + 10 * MS, now, true, 6_000);
        assert_eq!(controller.window(), fresh, "lost with the old path");
        controller.on_congestion_event(switched + 20 * MS, switched, true, 1_200);
        assert!(controller.window() < fresh, "lost on the new one");
    }
}
