//! A UDP socket as data paths need it: batches in and out (GSO, GRO), and no event that nobody waits for.
//!
//! The runtime's own UDP socket is registered for both directions, and the kernel then reports after every send that there
//! is room again: a wake-up of the whole program per packet. This one is registered for reading; a second registration
//! exists only while a send found the kernel's buffer full. A batch that is not full has emptied the socket, as the
//! registration is edge-triggered (epoll(7), question 9), so nobody asks the kernel a second time.
//!
//! A packet may leave by an address of the sender's choice (`src_ip`). When that address is gone the kernel may call the packet
//! invalid, which quinn takes for a kernel without batches and without ECN, for good. So these packets have a state of their
//! own, that is made anew then: what goes by the kernel's choice never suffers.

use std::{
    future::Future,
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::sleep,
};

/// Batches taken in one system call at most; each may hold 64 datagrams.
const AT_ONCE: usize = 8;
const _: () = assert!(AT_ONCE <= BATCH_SIZE);
/// As Linux numbers it; the standard library has no name for it.
const EIO: i32 = 5;
/// When a full socket cannot be watched (no file descriptor is left), it is tried again after this.
const BLIND_RETRY: Duration = Duration::from_millis(1);

/// The socket. Made inside a runtime.
#[derive(Debug)]
pub struct UdpIo {
    socket: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    /// For packets with a source of their own.
    sourced: RwLock<UdpSocketState>,
    /// The last send found no room.
    full: AtomicBool,
}

impl UdpIo {
    /// Takes a socket over: not blocking, and with kernel buffers of `buffer` bytes each way, or what the kernel grants of
    /// it (`net.core.rmem_max`, `net.core.wmem_max`).
    ///
    /// # Errors
    /// When an option cannot be set or the runtime cannot watch it.
    pub fn new(socket: UdpSocket, buffer: usize) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let state = UdpSocketState::new((&socket).into())?;
        let _ = state.set_recv_buffer_size((&socket).into(), buffer);
        let _ = state.set_send_buffer_size((&socket).into(), buffer);
        let sourced = RwLock::new(UdpSocketState::new((&socket).into())?);
        Ok(Self { socket: watched(socket, Interest::READABLE)?, state, sourced, full: AtomicBool::new(false) })
    }

    /// The socket itself, for its options.
    pub fn socket(&self) -> &UdpSocket {
        self.socket.get_ref()
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// As the system call.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket().local_addr()
    }

    /// What the kernel can do.
    pub fn state(&self) -> &UdpSocketState {
        &self.state
    }

    /// Sends a batch. Only a full buffer is an error ([`io::ErrorKind::WouldBlock`]); what the network refuses is lost, as any packet may be.
    ///
    /// The kernel refuses a train as a whole when its datagrams are longer than the interface takes. The last one may be shorter, and
    /// goes alone then: its acknowledgement is what shows QUIC that the others were too long.
    ///
    /// A batch whose source the kernel refuses leaves by the kernel's own choice: to the receiver it is no worse than lost. Where the
    /// device of that source takes no batches, the datagrams leave one by one, by the same source.
    ///
    /// # Errors
    /// `WouldBlock`: nothing was sent; [`writable`](Self::writable) tells when to try again.
    pub fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if transmit.src_ip.is_some() {
            return self.send_by_source(transmit);
        }
        let Some(end) = shorter_end(transmit) else {
            return self.noted(self.state.send(self.socket().into(), transmit));
        };
        match self.try_send(transmit) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                self.noted(self.state.send(self.socket().into(), &end))
            }
            sent => sent,
        }
    }

    fn send_by_source(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Err(error) = self.try_send(transmit) else { return Ok(()) };
        if error.kind() == io::ErrorKind::WouldBlock {
            return Err(error);
        }
        if may_be_the_kernel(&error)
            && let Some(segment) = segment_of(transmit)
        {
            return self.send_singly(transmit, segment);
        }
        if may_be_the_source(&error) {
            return self.send(&Transmit { src_ip: None, ..*transmit });
        }
        let Some(end) = shorter_end(transmit) else { return Ok(()) };
        self.try_send(&end).or_else(|error| if error.kind() == io::ErrorKind::WouldBlock { Err(error) } else { Ok(()) })
    }

    /// A batch was refused. Only what a single datagram meets says whether that was for its source: QUIC makes batches by what the usual
    /// device takes, and that of this source may be another. When there is no room for the rest, it is lost: nothing is sent twice.
    fn send_singly(&self, batch: &Transmit<'_>, segment: usize) -> io::Result<()> {
        for (at, contents) in batch.contents.chunks(segment).enumerate() {
            let Err(error) = self.try_send(&Transmit { contents, segment_size: None, ..*batch }) else { continue };
            let is_full = error.kind() == io::ErrorKind::WouldBlock;
            match at {
                0 if is_full => return Err(error),
                0 if may_be_the_source(&error) => return self.send(&Transmit { src_ip: None, ..*batch }),
                _ if is_full => return Ok(()),
                // Others may be shorter.
                _ => {}
            }
        }
        Ok(())
    }

    /// Sends a batch and tells every failure. One whose source the kernel refuses is not sent.
    ///
    /// # Errors
    /// As the system call.
    pub fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.noted(match transmit.src_ip {
            None => self.state.try_send(self.socket().into(), transmit),
            Some(_) => self.try_send_by_source(transmit),
        })
    }

    fn try_send_by_source(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sourced = self.sourced.read().unwrap_or_else(PoisonError::into_inner);
        let sent = sourced.try_send(self.socket().into(), transmit);
        drop(sourced);
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::InvalidInput)
            && let Ok(fresh) = UdpSocketState::new(self.socket().into())
        {
            *self.sourced.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
        sent
    }

    fn noted(&self, sent: io::Result<()>) -> io::Result<()> {
        let full = matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.full.store(full, Relaxed);
        sent
    }

    /// Whether the last send found no room.
    pub fn is_full(&self) -> bool {
        self.full.load(Relaxed)
    }

    /// Resolves when there is room to send; may do so too early.
    pub fn writable(&self) -> impl Future<Output = ()> + Send + Sync + 'static {
        // A file descriptor of its own, because one can be registered once only.
        let watch = self.socket().try_clone().and_then(|socket| watched(socket, Interest::WRITABLE));
        async move {
            match watch {
                // An error of the socket is the next send's to tell.
                Ok(watch) => drop(watch.writable().await),
                Err(_) => sleep(BLIND_RETRY).await,
            }
        }
    }

    /// Receives batches; one task at a time is woken.
    ///
    /// # Errors
    /// As the system call.
    pub fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let most = buffers.len().min(metas.len()).min(AT_ONCE);
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(cx))?;
            match self.state.recv(self.socket().into(), &mut buffers[..most], &mut metas[..most]) {
                Ok(count) => {
                    if count < most {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// Whether the kernel may have refused a packet for its source. IPv6 calls it invalid, IPv4 says that there is no way, as where the
/// uplink of that address has no route any more.
fn may_be_the_source(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, InvalidInput, NetworkUnreachable};
    matches!(error.kind(), InvalidInput | AddrNotAvailable | NetworkUnreachable)
}

/// Whether an error may be that of a kernel or a device that cannot send batches.
fn may_be_the_kernel(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput || error.raw_os_error() == Some(EIO)
}

/// The length of a train's datagrams; `None`: it is a single one.
fn segment_of(train: &Transmit<'_>) -> Option<usize> {
    train.segment_size.filter(|segment| (1..train.contents.len()).contains(segment))
}

/// The last datagram of a train, where it is shorter than the others.
fn shorter_end<'a>(train: &Transmit<'a>) -> Option<Transmit<'a>> {
    let segment = segment_of(train)?;
    let (_, contents) = train.contents.split_at_checked(train.contents.len() - train.contents.len() % segment)?;
    let Transmit { destination, ecn, src_ip, .. } = *train;
    (!contents.is_empty()).then_some(Transmit { destination, ecn, contents, segment_size: None, src_ip })
}

/// An address as a socket for both families (`[::]`) sends to it.
pub fn mapped(to: SocketAddr) -> SocketAddr {
    match to {
        SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
        SocketAddr::V6(_) => to,
    }
}

#[expect(
    deprecated,
    reason = "the replacement is unsafe for the sake of types that change their descriptor; a UdpSocket does not"
)]
fn watched(socket: UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
    AsyncFd::with_interest(socket, interest)
}

#[cfg(test)]
mod tests;
