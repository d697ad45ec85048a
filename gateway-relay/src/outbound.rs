//! The queues towards one gateway over its WebSocket: signals first, then datagrams, both bounded.
//!
//! Senders never wait: what finds no room is dropped, as a router does, and QUIC above notices. The lane of datagrams is bounded in
//! frames and in bytes, because a frame may be a batch of 64 kB, and shared out fairly among the sources ([`fair`]).

mod fair;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use fair::{FairQueue, Pushed};
use gateway_proto::relay::RelayAddress;
use tokio::sync::{
    Notify,
    mpsc::{self, error::TrySendError},
};

use crate::{config::Limits, metrics::DropReason};

/// Signals waiting for one gateway: an offer or answer for each of its peers at once, in most sites; more come again.
const SIGNAL_QUEUE: usize = 64;

/// The front: held by the registry, used by the links of other gateways.
#[derive(Debug, Clone)]
pub(crate) struct OutboundSender {
    signals: mpsc::Sender<Bytes>,
    datagrams: Arc<Datagrams>,
}

/// The back: owned by the link's own task.
#[derive(Debug)]
pub(crate) struct OutboundReceiver {
    signals: mpsc::Receiver<Bytes>,
    datagrams: Arc<Datagrams>,
}

#[derive(Debug)]
struct Datagrams {
    queue: Mutex<FairQueue>,
    waiting: Notify,
    /// The link has ended.
    closed: AtomicBool,
}

pub(crate) fn outbound(limits: &Limits) -> (OutboundSender, OutboundReceiver) {
    let (signals, signals_out) = mpsc::channel(SIGNAL_QUEUE);
    let queue = Mutex::new(FairQueue::new(limits.queue_datagrams, limits.queue_bytes));
    let datagrams = Arc::new(Datagrams { queue, waiting: Notify::new(), closed: AtomicBool::new(false) });
    let sender = OutboundSender { signals, datagrams: datagrams.clone() };
    (sender, OutboundReceiver { signals: signals_out, datagrams })
}

impl OutboundSender {
    /// Queues a signal, or says why not.
    pub(crate) fn signal(&self, frame: Bytes) -> Result<(), DropReason> {
        self.signals.try_send(frame).map_err(|error| match error {
            TrySendError::Full(_) => DropReason::QueueFull,
            TrySendError::Closed(_) => DropReason::PeerLeft,
        })
    }

    /// Queues datagrams of `source`; tells how many frames of others gave way to them, or why they are dropped.
    pub(crate) fn datagrams(&self, source: RelayAddress, frame: Bytes) -> Result<usize, DropReason> {
        if self.datagrams.closed.load(Ordering::Relaxed) {
            return Err(DropReason::PeerLeft);
        }
        let pushed = self.datagrams.queue.lock().unwrap_or_else(PoisonError::into_inner).push(source, frame);
        let displaced = match pushed {
            Pushed::Queued => 0,
            Pushed::Displaced(frames) => frames,
            Pushed::Refused => return Err(DropReason::QueueFull),
        };
        self.datagrams.waiting.notify_one();
        Ok(displaced)
    }
}

impl OutboundReceiver {
    /// The next frame. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Bytes {
        loop {
            let waiting = self.datagrams.waiting.notified();
            if let Some(frame) = take(&mut self.signals, &self.datagrams) {
                return frame;
            }
            tokio::select! {
                biased;
                Some(frame) = self.signals.recv() => return frame,
                () = waiting => {}
            }
        }
    }

    /// The next frame if one is waiting.
    pub(crate) fn try_next(&mut self) -> Option<Bytes> {
        take(&mut self.signals, &self.datagrams)
    }
}

impl Drop for OutboundReceiver {
    fn drop(&mut self) {
        self.datagrams.closed.store(true, Ordering::Relaxed);
    }
}

fn take(signals: &mut mpsc::Receiver<Bytes>, datagrams: &Datagrams) -> Option<Bytes> {
    let signal = signals.try_recv().ok();
    signal.or_else(|| datagrams.queue.lock().unwrap_or_else(PoisonError::into_inner).pop())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const SOURCE: RelayAddress = RelayAddress::from_bytes([1; 32]);

    fn queues(queue_datagrams: usize, queue_bytes: usize) -> (OutboundSender, OutboundReceiver) {
        let config = Config::load(std::path::Path::new("tests/config/valid/minimal.toml")).unwrap();
        outbound(&Limits { queue_datagrams, queue_bytes, ..config.limits })
    }

    #[tokio::test]
    async fn a_signal_overtakes_waiting_datagrams() {
        let (sender, mut receiver) = queues(8, 1000);
        sender.datagrams(SOURCE, Bytes::from_static(b"d")).unwrap();
        sender.signal(Bytes::from_static(b"s")).unwrap();
        assert_eq!(receiver.next().await, "s");
        assert_eq!(receiver.next().await, "d");
        assert_eq!(receiver.try_next(), None);
    }

    #[tokio::test]
    async fn a_receiver_that_waits_is_woken_by_either_lane() {
        let (sender, mut receiver) = queues(8, 1000);
        let waiting = async { [receiver.next().await, receiver.next().await] };
        let sending = async {
            tokio::task::yield_now().await;
            sender.datagrams(SOURCE, Bytes::from_static(b"d")).unwrap();
            tokio::task::yield_now().await;
            sender.signal(Bytes::from_static(b"s")).unwrap();
        };
        assert_eq!(tokio::join!(waiting, sending).0, ["d", "s"]);
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_a_link_that_ended_takes_nothing() {
        let (sender, mut receiver) = queues(2, 10);
        let frame = |length| Bytes::from(vec![0; length]);
        assert_eq!(sender.datagrams(SOURCE, frame(8)), Ok(0));
        assert_eq!(sender.datagrams(SOURCE, frame(3)), Err(DropReason::QueueFull), "too many bytes");
        assert_eq!(sender.datagrams(SOURCE, frame(1)), Ok(0));
        assert_eq!(sender.datagrams(SOURCE, frame(1)), Err(DropReason::QueueFull), "too many frames");
        assert!(receiver.try_next().is_some());
        assert_eq!(sender.datagrams(SOURCE, frame(1)), Ok(0), "what left makes room");
        drop(receiver);
        assert_eq!(sender.datagrams(SOURCE, frame(1)), Err(DropReason::PeerLeft));
        assert_eq!(sender.signal(frame(1)), Err(DropReason::PeerLeft));
    }
}
