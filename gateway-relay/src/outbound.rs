//! The queues towards one gateway: signals first, then datagrams, both bounded.
//!
//! Senders never wait: a full queue drops the newest frame, as a router does, and QUIC above notices. The lane of datagrams is bounded in frames and in bytes,
//! because a frame may be a batch of 64 kB.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::{
    config::Limits,
    metrics::{DropReason, Kind},
};

/// Signals waiting for one gateway: an offer or answer for each of its peers at once, in most sites; more come again.
const SIGNAL_QUEUE: usize = 64;

/// The front: held by the registry, used by the links of other gateways.
#[derive(Debug, Clone)]
pub(crate) struct OutboundSender {
    datagrams: mpsc::Sender<Bytes>,
    signals: mpsc::Sender<Bytes>,
    queued_bytes: Arc<AtomicUsize>,
    max_bytes: usize,
}

/// The back: owned by the link's own task.
#[derive(Debug)]
pub(crate) struct OutboundReceiver {
    datagrams: mpsc::Receiver<Bytes>,
    signals: mpsc::Receiver<Bytes>,
    queued_bytes: Arc<AtomicUsize>,
}

pub(crate) fn outbound(limits: &Limits) -> (OutboundSender, OutboundReceiver) {
    let (datagrams, datagrams_out) = mpsc::channel(limits.queue_datagrams);
    let (signals, signals_out) = mpsc::channel(SIGNAL_QUEUE);
    let queued_bytes = Arc::new(AtomicUsize::new(0));
    let sender =
        OutboundSender { datagrams, signals, queued_bytes: queued_bytes.clone(), max_bytes: limits.queue_bytes };
    (sender, OutboundReceiver { datagrams: datagrams_out, signals: signals_out, queued_bytes })
}

impl OutboundSender {
    /// Queues a frame, or says why not.
    pub(crate) fn push(&self, kind: Kind, frame: Bytes) -> Result<(), DropReason> {
        let reason = |error| match error {
            TrySendError::Full(_) => DropReason::QueueFull,
            TrySendError::Closed(_) => DropReason::PeerLeft,
        };
        match kind {
            Kind::Signal => self.signals.try_send(frame).map_err(reason),
            Kind::Datagrams => {
                let length = frame.len();
                // Counted before it is queued: the receiver may take it out before we come back.
                let before = self.queued_bytes.fetch_add(length, Ordering::Relaxed);
                let result = if before + length > self.max_bytes {
                    Err(DropReason::QueueFull)
                } else {
                    self.datagrams.try_send(frame).map_err(reason)
                };
                if result.is_err() {
                    self.queued_bytes.fetch_sub(length, Ordering::Relaxed);
                }
                result
            }
        }
    }
}

impl OutboundReceiver {
    /// The next frame. Cancel-safe. `None` once every front is gone.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        tokio::select! {
            biased;
            Some(frame) = self.signals.recv() => Some(frame),
            frame = self.datagrams.recv() => self.taken(frame),
        }
    }

    /// The next frame if one is waiting.
    pub(crate) fn try_next(&mut self) -> Option<Bytes> {
        if let Ok(frame) = self.signals.try_recv() {
            return Some(frame);
        }
        let frame = self.datagrams.try_recv().ok();
        self.taken(frame)
    }

    fn taken(&self, frame: Option<Bytes>) -> Option<Bytes> {
        if let Some(frame) = &frame {
            self.queued_bytes.fetch_sub(frame.len(), Ordering::Relaxed);
        }
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn queues(queue_datagrams: usize, queue_bytes: usize) -> (OutboundSender, OutboundReceiver) {
        let config = Config::load(std::path::Path::new("tests/config/valid/minimal.toml")).unwrap();
        outbound(&Limits { queue_datagrams, queue_bytes, ..config.limits })
    }

    #[tokio::test]
    async fn a_signal_overtakes_waiting_datagrams() {
        let (sender, mut receiver) = queues(8, 1000);
        sender.push(Kind::Datagrams, Bytes::from_static(b"d")).unwrap();
        sender.push(Kind::Signal, Bytes::from_static(b"s")).unwrap();
        assert_eq!(receiver.next().await.unwrap(), "s");
        assert_eq!(receiver.try_next().unwrap(), "d");
        assert_eq!(receiver.try_next(), None);
    }

    #[test]
    fn the_newest_is_dropped_when_frames_or_bytes_are_too_many() {
        let (sender, mut receiver) = queues(2, 10);
        let frame = |length| Bytes::from(vec![0; length]);
        assert_eq!(sender.push(Kind::Datagrams, frame(8)), Ok(()));
        assert_eq!(sender.push(Kind::Datagrams, frame(3)), Err(DropReason::QueueFull), "bytes");
        assert_eq!(sender.push(Kind::Datagrams, frame(1)), Ok(()));
        assert_eq!(sender.push(Kind::Datagrams, frame(1)), Err(DropReason::QueueFull), "frames");
        assert_eq!(receiver.try_next().unwrap().len(), 8, "the oldest stays");
        assert_eq!(sender.push(Kind::Datagrams, frame(9)), Ok(()), "what left makes room");
        drop(receiver);
        assert_eq!(sender.push(Kind::Signal, frame(1)), Err(DropReason::PeerLeft));
    }
}
