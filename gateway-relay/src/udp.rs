//! The UDP ports: STUN, and relayed datagrams.
//!
//! One task per port receives batches of trains (GRO), and each train that passes leaves as one train (GSO), from the buffer it came in, with new
//! headers written over the old: two system calls and no copy. Nothing is kept for a stranger: what is neither a STUN
//! request nor carries the MAC of a session is counted and forgotten.

mod session;

use std::{
    array,
    future::poll_fn,
    io::{self, IoSliceMut},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use gateway_net::udp::UdpIo;
use gateway_proto::relay::udp::{OVERHEAD, Via, is_relayed};
use quinn_udp::{RecvMeta, Transmit};
pub(crate) use session::{Session, Sessions, Train};

use crate::{
    app::Shared,
    forward,
    metrics::{DropReason, Metrics, StunOutcome},
    stun::StunResponder,
};

/// The largest train a kernel hands out.
const TRAIN: usize = 65_535;
/// Trains received at once.
const TRAINS: usize = 8;
/// Kernel buffer asked for, each way: what a fast path sends while this task waits for its turn.
const SOCKET_BUFFER: usize = 4 << 20;

/// The ports.
#[derive(Debug)]
pub(crate) struct UdpPorts {
    ports: Vec<UdpIo>,
    /// What gateways are told; `None`: nothing is relayed over UDP.
    offered: Option<u16>,
}

impl UdpPorts {
    pub(crate) fn new() -> Self {
        Self { ports: Vec::new(), offered: None }
    }

    /// Binds one more port.
    pub(crate) fn bind(&mut self, address: SocketAddr) -> io::Result<SocketAddr> {
        let port = UdpIo::new(std::net::UdpSocket::bind(address)?, SOCKET_BUFFER)?;
        let bound = port.local_addr()?;
        self.ports.push(port);
        Ok(bound)
    }

    /// Relays, and tells gateways this port.
    pub(crate) fn offer(&mut self, port: u16) {
        self.offered = Some(port);
    }

    pub(crate) fn offered(&self) -> Option<u16> {
        self.offered
    }

    pub(crate) fn len(&self) -> usize {
        self.ports.len()
    }

    /// Sends a train; what the kernel has no room for is dropped.
    pub(crate) fn send(&self, via: Via, train: &[u8], segment: usize) -> Result<(), DropReason> {
        let Some(port) = self.ports.get(usize::from(via.local)) else { return Err(DropReason::SendFailed) };
        // A kernel without GSO takes one datagram at a time.
        for part in train.chunks(segment.max(1) * port.state().max_gso_segments()) {
            let transmit = Transmit {
                destination: via.remote,
                ecn: None,
                contents: part,
                segment_size: (part.len() > segment).then_some(segment),
                src_ip: None,
            };
            port.try_send(&transmit).map_err(|error| {
                let full = error.kind() == io::ErrorKind::WouldBlock;
                if full { DropReason::SocketFull } else { DropReason::SendFailed }
            })?;
        }
        Ok(())
    }
}

/// Serves one port; ends only with the task.
pub(crate) async fn serve(shared: Arc<Shared>, local: u8, stun: StunResponder) {
    let Some(port) = shared.udp.ports.get(usize::from(local)) else { return };
    let mut memory = vec![0; TRAINS * TRAIN];
    let mut metas = [RecvMeta::default(); TRAINS];
    loop {
        let mut rest = memory.chunks_exact_mut(TRAIN);
        let mut buffers: [IoSliceMut<'_>; TRAINS] =
            array::from_fn(|_| IoSliceMut::new(rest.next().unwrap_or_default()));
        match poll_fn(|cx| port.poll_recv(cx, &mut buffers, &mut metas)).await {
            Ok(count) => {
                let now = Instant::now();
                for (buffer, meta) in buffers.iter_mut().zip(&metas).take(count) {
                    let via = Via { local, remote: meta.addr };
                    handle(&shared, &stun, via, &mut buffer[..meta.len], meta.stride.max(1), now);
                }
            }
            // An ICMP answer to what was sent to somebody who left.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => {
                tracing::warn!(%error, "cannot receive on a UDP port");
                // A broken socket must not become a busy loop.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Acts on what came in one buffer from one source.
fn handle(shared: &Shared, stun: &StunResponder, via: Via, bytes: &mut [u8], segment: usize, now: Instant) {
    let relaying = shared.udp.offered.is_some();
    if bytes.is_empty() {
        shared.metrics.stun(StunOutcome::Invalid);
    }
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        let taken = if relaying && is_relayed(*first) {
            relayed(shared, via, rest, segment, now)
        } else {
            let length = segment.min(rest.len());
            let answer = stun.answer(&rest[..length], via.remote, now);
            if let Some(answer) = answer {
                let failed = shared.udp.send(via, &answer, answer.len()).is_err();
                shared.metrics.stun_answered(failed);
            }
            length
        };
        rest = &mut rest[taken..];
    }
}

/// Acts on the datagrams at the front that belong together; tells how many bytes they were.
fn relayed(shared: &Shared, via: Via, bytes: &mut [u8], segment: usize, now: Instant) -> usize {
    let metrics: &Metrics = &shared.metrics;
    let Some(session) = shared.sessions.find(bytes) else {
        metrics.dropped(DropReason::NoSession);
        return segment.min(bytes.len());
    };
    match session.open(bytes, segment, via, now) {
        Train::Data { peer, length, taken, refused } => {
            if let Some(reason) = refused {
                metrics.dropped(reason);
            }
            match peer {
                _ if length == 0 => {}
                Some(peer) => forward::train(shared, &session, peer, &mut bytes[..length], segment, now),
                None => metrics.dropped(DropReason::NoSlot),
            }
            taken
        }
        Train::Pong { length } => {
            metrics.pings.inc();
            if let Err(reason) = shared.udp.send(via, &bytes[..length], length) {
                metrics.dropped(reason);
            }
            length
        }
        Train::Dropped { reason, taken } => {
            metrics.dropped(reason);
            taken
        }
    }
}

/// The most sealed bytes one datagram of a train carries.
pub(crate) fn payload_of(train: &[u8], segment: usize) -> usize {
    train.len().min(segment).saturating_sub(OVERHEAD)
}
