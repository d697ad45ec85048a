//! A UDP socket as data paths need it: batches in and out (GSO, GRO), and no event that nobody waits for.
//!
//! The runtime's own UDP socket is registered for both directions, and the kernel then reports after every send that there
//! is room again: a wake-up of the whole program per packet. This one is registered for reading; a second registration
//! exists only while a send found the kernel's buffer full. A batch that is not full has emptied the socket, as the
//! registration is edge-triggered (epoll(7), question 9), so nobody asks the kernel a second time.

use std::{
    future::Future,
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
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
/// When a full socket cannot be watched (no file descriptor is left), it is tried again after this.
const BLIND_RETRY: Duration = Duration::from_millis(1);

/// The socket. Made inside a runtime.
#[derive(Debug)]
pub struct UdpIo {
    socket: AsyncFd<UdpSocket>,
    state: UdpSocketState,
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
        Ok(Self { socket: watched(socket, Interest::READABLE)?, state, full: AtomicBool::new(false) })
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
    /// # Errors
    /// `WouldBlock`: nothing was sent; [`writable`](Self::writable) tells when to try again.
    pub fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
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

    /// Sends a batch and tells every failure.
    ///
    /// # Errors
    /// As the system call.
    pub fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.noted(self.state.try_send(self.socket().into(), transmit))
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

/// The last datagram of a train, where it is shorter than the others.
fn shorter_end<'a>(train: &Transmit<'a>) -> Option<Transmit<'a>> {
    let segment = train.segment_size.filter(|segment| (1..train.contents.len()).contains(segment))?;
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
mod tests {
    use std::{future::poll_fn, pin::pin};

    use futures_util::poll;
    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn bound() -> (UdpIo, SocketAddr) {
        let socket = UdpIo::new(UdpSocket::bind("127.0.0.1:0").unwrap(), 1 << 20).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    fn to(destination: SocketAddr, contents: &[u8]) -> Transmit<'_> {
        Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None }
    }

    async fn received(socket: &UdpIo, buffers: usize) -> Vec<Vec<u8>> {
        let mut memory = vec![vec![0; 65_536]; buffers];
        let mut metas = vec![RecvMeta::default(); buffers];
        let receiving = poll_fn(|cx| {
            let mut slices: Vec<_> = memory.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
            socket.poll_recv(cx, &mut slices, &mut metas)
        });
        let count = timeout(LIMIT, receiving).await.unwrap().unwrap();
        (0..count).map(|at| memory[at][..metas[at].len].to_vec()).collect()
    }

    #[tokio::test]
    async fn packets_that_come_between_a_short_batch_and_the_next_look_are_found() {
        let ((sender, _), (receiver, address)) = (bound(), bound());
        for round in 0..200_u8 {
            sender.send(&to(address, &[round])).unwrap();
            assert_eq!(received(&receiver, 4).await, [[round]]);
        }
    }

    #[tokio::test]
    async fn what_does_not_fit_into_one_call_is_taken_with_the_next() {
        let ((sender, _), (receiver, address)) = (bound(), bound());
        for round in 0..20_u8 {
            sender.send(&to(address, &[round; 9])).unwrap();
        }
        let mut seen = Vec::new();
        while seen.len() < 20 {
            seen.extend(received(&receiver, 3).await.into_iter().flat_map(|batch| batch.into_iter().step_by(9)));
        }
        assert_eq!(seen, (0..20).collect::<Vec<u8>>());
    }

    #[tokio::test]
    async fn of_a_train_that_the_kernel_refuses_the_shorter_end_arrives() {
        let ((sender, _), (receiver, address)) = (bound(), bound());
        // More datagrams than it takes at once.
        let mut contents = vec![1; 60_001];
        contents[60_000] = 2;
        let train = Transmit { segment_size: Some(2), ..to(address, &contents) };
        assert!(sender.try_send(&train).is_err());
        sender.send(&train).unwrap();
        assert_eq!(received(&receiver, 4).await, [[2]]);
        sender.send(&Transmit { segment_size: Some(2), ..to(address, &contents[..60_000]) }).unwrap();
        sender.send(&to(address, &[3])).unwrap();
        assert_eq!(received(&receiver, 4).await, [[3]], "no end of another length: nothing");
    }

    #[tokio::test]
    async fn an_empty_socket_waits_and_a_free_one_is_writable() {
        let ((sender, _), (receiver, address)) = (bound(), bound());
        let waiting = received(&receiver, 1);
        let mut waiting = pin!(waiting);
        assert!(poll!(&mut waiting).is_pending());
        sender.try_send(&to(address, b"late")).unwrap();
        assert_eq!(waiting.await, [b"late"]);
        assert!(!sender.is_full());
        timeout(LIMIT, sender.writable()).await.unwrap();
    }
}
