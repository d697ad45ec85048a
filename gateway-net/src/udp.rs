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

    /// What arrives, and by which address it left.
    fn arrived(receiver: &UdpSocket) -> (Vec<u8>, std::net::IpAddr) {
        receiver.set_read_timeout(Some(LIMIT)).unwrap();
        let mut buffer = vec![0; 65_536];
        let (length, from) = receiver.recv_from(&mut buffer).unwrap();
        (buffer[..length].to_vec(), from.ip())
    }

    #[tokio::test]
    async fn a_packet_leaves_by_the_address_that_is_asked_for_batches_too() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = receiver.local_addr().unwrap();
        for (any, destination) in [("0.0.0.0:0", address), ("[::]:0", mapped(address))] {
            let Ok(socket) = UdpSocket::bind(any) else { continue };
            let sender = UdpIo::new(socket, 1 << 20).unwrap();
            let second = Some("127.0.0.2".parse().unwrap());
            sender.try_send(&Transmit { src_ip: second, ..to(destination, b"one") }).unwrap();
            assert_eq!(Some(arrived(&receiver).1), second);
            sender.send(&Transmit { src_ip: second, segment_size: Some(2), ..to(destination, b"aabbc") }).unwrap();
            for part in [b"aa".as_slice(), b"bb", b"c"] {
                let (contents, from) = arrived(&receiver);
                assert_eq!((contents.as_slice(), Some(from)), (part, second));
            }
            sender.try_send(&to(destination, b"usual")).unwrap();
            assert_eq!(arrived(&receiver), (b"usual".to_vec(), address.ip()));
        }
    }

    #[tokio::test]
    async fn a_batch_that_is_refused_as_one_leaves_in_single_packets_by_the_address_that_is_asked_for() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = receiver.local_addr().unwrap();
        let sender = UdpIo::new(UdpSocket::bind("0.0.0.0:0").unwrap(), 1 << 20).unwrap();
        let second = Some("127.0.0.2".parse().unwrap());
        // More datagrams than any kernel takes at once: refused as by a device without batches.
        let contents: Vec<u8> = (0..140).flat_map(|at| [at, at]).chain([200]).collect();
        let batch = Transmit { src_ip: second, segment_size: Some(2), ..to(address, &contents) };
        for _ in 0..2 {
            assert!(sender.try_send(&batch).is_err());
            sender.send(&batch).unwrap();
            for part in contents.chunks(2) {
                assert_eq!(arrived(&receiver), (part.to_vec(), "127.0.0.2".parse().unwrap()));
            }
        }
        sender.send(&to(address, b"usual")).unwrap();
        assert_eq!(arrived(&receiver), (b"usual".to_vec(), address.ip()), "and nothing else came");
    }

    #[test]
    fn a_device_without_batches_is_not_taken_for_a_source_that_is_gone() {
        let error = io::Error::from_raw_os_error(EIO);
        assert!(may_be_the_kernel(&error) && !may_be_the_source(&error));
    }

    #[tokio::test]
    async fn a_source_that_is_gone_costs_nobody_else_the_batches() {
        // Addresses of documentation: no machine has them. Each protocol refuses in words of its own.
        for (own, any, gone) in [("127.0.0.1:0", "0.0.0.0:0", "203.0.113.77"), ("[::1]:0", "[::]:0", "2001:db8::77")] {
            let Ok(receiver) = UdpSocket::bind(own) else { continue };
            let sender = UdpIo::new(UdpSocket::bind(any).unwrap(), 1 << 20).unwrap();
            let destination = receiver.local_addr().unwrap();
            let segments = sender.state().max_gso_segments();
            let gone = Some(gone.parse().unwrap());
            for round in 0..3_u8 {
                let probe = [round];
                let by_it = Transmit { src_ip: gone, ..to(destination, &probe) };
                assert!(sender.try_send(&by_it).is_err(), "a probe is lost");
                let batch = [round; 6];
                sender.send(&Transmit { src_ip: gone, segment_size: Some(4), ..to(destination, &batch) }).unwrap();
                assert_eq!(arrived(&receiver), (vec![round; 4], destination.ip()));
                assert_eq!(arrived(&receiver), (vec![round; 2], destination.ip()));
            }
            assert_eq!(sender.state().max_gso_segments(), segments);
            let taken = sender.sourced.read().unwrap().max_gso_segments();
            assert_eq!(taken, segments, "nor the next source");
            let there = Some(destination.ip());
            sender.send(&Transmit { src_ip: there, ..to(destination, b"on") }).unwrap();
            assert_eq!(Some(arrived(&receiver).1), there);
        }
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
