//! The socket as QUIC sees it: trains out, joined where they may be, and packets of known peers in.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, ready},
};

use quinn::{AsyncUdpSocket, UdpPoller};
use quinn_udp::{RecvMeta, Transmit};

use super::{TunnelSocket, binding::Room};
use crate::trains::{Offered, Trains};

/// What waits to be sent.
#[derive(Default)]
pub(super) struct Outgoing {
    trains: Trains,
    /// Resolves when there is room for what is held.
    room: Option<Room>,
}

impl AsyncUdpSocket for TunnelSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(WritablePoller { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let most = self.io.max_gso_segments();
        let mut outgoing = self.trains.lock().unwrap_or_else(PoisonError::into_inner);
        let mut offered = outgoing.trains.offer(transmit, most);
        if offered == Offered::Apart {
            // Full: quinn keeps this one and offers it again.
            self.send_held(&mut outgoing.trains)?;
            offered = outgoing.trains.offer(transmit, most);
        }
        match offered {
            // It was taken. If there is no room now, the receiver sends it later.
            Offered::Complete if self.send_held(&mut outgoing.trains).is_ok() => Ok(()),
            Offered::Complete | Offered::Held => {
                self.receiver.wake();
                Ok(())
            }
            Offered::NotTaken | Offered::Apart => self.send_routed(transmit),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.receiver.register(cx.waker());
        self.poll_held(cx);
        if let Some(count) = self.poll_injected(cx, bufs, meta) {
            return Poll::Ready(Ok(count));
        }
        loop {
            match ready!(self.io.poll_recv(cx, bufs, meta)) {
                Ok(count) => {
                    for (buffer, meta) in bufs.iter_mut().zip(meta.iter_mut()).take(count) {
                        self.sort(buffer, meta);
                    }
                    return Poll::Ready(Ok(count));
                }
                // An ICMP answer to one peer's packet is no fault of the socket.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// An IPv6 address whatever the real family: quinn dials made-up IPv6 addresses, and compares the families.
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), self.local_port()))
    }

    fn may_fragment(&self) -> bool {
        self.io.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.io.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        // Relayed and local batches carry as many segments as their sender put in.
        self.io.gro_segments().max(gateway_proto::relay::MAX_SEGMENTS)
    }
}

impl TunnelSocket {
    /// Sends what is held; without room it stays.
    fn send_held(&self, trains: &mut Trains) -> io::Result<()> {
        if let Some(held) = trains.held() {
            self.send_routed(&held)?;
            trains.sent();
        }
        Ok(())
    }

    /// Sends what is held when nothing joins it any more, or as soon as there is room.
    fn poll_held(&self, cx: &mut Context<'_>) {
        let mut outgoing = self.trains.lock().unwrap_or_else(PoisonError::into_inner);
        let Outgoing { trains, room } = &mut *outgoing;
        if !trains.settled() {
            return cx.waker().wake_by_ref();
        }
        loop {
            if let Some(waiting) = room {
                if waiting.as_mut().poll(cx).is_pending() {
                    return;
                }
                *room = None;
            }
            if self.send_held(trains).is_ok() {
                return;
            }
            *room = Some(self.io.writable());
        }
    }
}

/// Waits for the socket to become writable; one per QUIC connection, so that none takes another's waker.
struct WritablePoller {
    socket: Arc<TunnelSocket>,
    waiting: Option<Room>,
}

impl fmt::Debug for WritablePoller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WritablePoller")
    }
}

impl UdpPoller for WritablePoller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.waiting.is_none() && !this.socket.io.is_full() {
            return Poll::Ready(Ok(()));
        }
        let waiting = this.waiting.get_or_insert_with(|| this.socket.io.writable());
        ready!(waiting.as_mut().poll(cx));
        this.waiting = None;
        Poll::Ready(Ok(()))
    }
}
