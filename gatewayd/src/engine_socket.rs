//! A TCP socket with the engine that ends with RST unless it is told otherwise.
//!
//! Zero linger from its first moment makes the kernel send RST when the socket is dropped or the process killed, so an
//! abnormal end is never taken for a clean one (docs/architecture.md, socket truth).

mod reader;

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use nix::errno::Errno;
pub(crate) use reader::EngineReader;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    io::Interest,
    net::{TcpStream, tcp::WriteHalf},
    time::timeout,
};

/// Chunks written in one system call at most.
pub(crate) const CHUNKS: usize = 32;

/// An engine's socket that is reset, not closed, unless it is told otherwise.
#[derive(Debug)]
pub struct EngineSocket(TcpStream);

impl EngineSocket {
    /// Connects to an engine. One on this machine has taken the connection before the system call ends, although that says it goes on:
    /// then nothing is waited for.
    ///
    /// # Errors
    /// When the system does not set an option, or the engine does not take the connection.
    pub async fn connect(engine: SocketAddr, keepalive: Duration) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(engine), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        set_up(SockRef::from(&socket), keepalive)?;
        match socket.connect(&engine.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let is_connected = socket.peer_addr().is_ok();
        let socket = TcpStream::from_std(socket.into())?;
        if !is_connected {
            socket.writable().await?;
            if let Some(error) = socket.take_error()? {
                return Err(error);
            }
            socket.peer_addr()?;
        }
        Ok(Self(socket))
    }

    /// Takes a socket that was accepted from a listener that was [`set_up`]: it is like that from its first moment, also when it is
    /// never taken because the daemon is killed.
    pub fn accepted(socket: TcpStream) -> Self {
        Self(socket)
    }

    /// The socket, set up as before.
    pub(crate) fn into_inner(self) -> TcpStream {
        self.0
    }

    /// Closes with FIN: both directions ended cleanly.
    pub(crate) fn close_cleanly(self) {
        // If the option cannot be set the engine sees a reset after a complete conversation: harmless, and visible.
        let _ = SockRef::from(&self.0).set_linger(None);
    }

    /// The two directions, for two copy loops at once.
    pub(crate) fn split(&mut self) -> (EngineReader<'_>, EngineWriter<'_>) {
        let (reader, writer) = self.0.split();
        (EngineReader::new(reader), EngineWriter { socket: writer, is_known: AtomicBool::new(false) })
    }

    /// Whether the engine closes within this time without having sent a byte.
    pub async fn closes_within(&self, limit: Duration) -> bool {
        !matches!(timeout(limit, self.0.peek(&mut [0])).await, Err(_) | Ok(Ok(1..)))
    }

    /// Resolves when the engine's socket breaks while it waits for the tunnel.
    pub async fn gone(&self) {
        broken(&self.0).await;
    }
}

/// Sets a socket up, or a listener for all it will accept: no delay, TCP keepalive, zero linger.
///
/// # Errors
/// When the system does not set an option.
pub(crate) fn set_up(socket: SockRef<'_>, keepalive: Duration) -> io::Result<()> {
    let interval = (keepalive / 3).max(Duration::from_secs(1));
    socket.set_tcp_nodelay(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(keepalive).with_interval(interval).with_retries(3))
}

/// What the engine is sent.
#[derive(Debug)]
pub(crate) struct EngineWriter<'a> {
    socket: WriteHalf<'a>,
    /// The runtime has heard that the socket takes bytes.
    is_known: AtomicBool,
}

impl EngineWriter<'_> {
    /// Writes all chunks, several per system call; they are empty afterwards.
    pub(crate) async fn write_all(&self, chunks: &mut [Bytes]) -> io::Result<()> {
        let mut first = 0;
        while first < chunks.len() {
            let mut written = match self.try_write(&chunks[first..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.writable().await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            while first < chunks.len() && written >= chunks[first].len() {
                written -= chunks[first].len();
                chunks[first] = Bytes::new();
                first += 1;
            }
            if written > 0 {
                chunks[first] = chunks[first].split_off(written);
            }
        }
        Ok(())
    }

    /// One system call, for a single chunk the one that costs less. A function of its own, so that its list of slices is no part of what
    /// waits.
    fn try_write(&self, chunks: &[Bytes]) -> io::Result<usize> {
        if let ([only], true) = (chunks, self.is_known.load(Relaxed)) {
            return self.socket.try_write(only);
        }
        let mut slices = [io::IoSlice::new(&[]); CHUNKS];
        for (slice, chunk) in slices.iter_mut().zip(chunks) {
            *slice = io::IoSlice::new(chunk);
        }
        let slices = &slices[..chunks.len().min(CHUNKS)];
        match self.socket.try_write_vectored(slices) {
            // Past the runtime, which hears only with its next turn that a socket connected just now takes bytes.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.is_known.load(Relaxed) => {
                SockRef::from(self.socket.as_ref()).send_vectored(slices)
            }
            done => {
                self.is_known.store(true, Relaxed);
                done
            }
        }
    }

    /// Ends our direction with FIN.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        SockRef::from(self.socket.as_ref()).shutdown(std::net::Shutdown::Write)
    }

    /// Resolves when the engine's socket is broken, also while nothing is read or written.
    pub(crate) async fn broken(&self) {
        broken(self.socket.as_ref()).await;
    }
}

async fn broken(socket: &TcpStream) {
    // An error of the wait itself is the same news.
    let _ = socket.ready(Interest::ERROR).await;
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    const KEEPALIVE: Duration = Duration::from_secs(30);

    fn is_set_up(socket: &TcpStream) {
        let socket = SockRef::from(socket);
        assert!(socket.keepalive().unwrap(), "SO_KEEPALIVE");
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE / 3);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
        assert!(socket.tcp_nodelay().unwrap(), "TCP_NODELAY");
        assert_eq!(socket.linger().unwrap(), Some(Duration::ZERO));
    }

    /// An engine that lost its power is found out in a minute, also on a connection that says nothing for days.
    #[tokio::test]
    async fn engine_sockets_that_are_dialled_and_those_that_are_accepted_have_keepalive_on() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        set_up(SockRef::from(&listener), KEEPALIVE).unwrap();
        let dialled = EngineSocket::connect(listener.local_addr().unwrap(), KEEPALIVE).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        is_set_up(&dialled.into_inner());
        is_set_up(&EngineSocket::accepted(accepted).into_inner());
    }

    #[tokio::test]
    async fn an_engine_that_does_not_listen_is_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let refused = EngineSocket::connect(address, KEEPALIVE).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn an_engine_that_takes_the_connection_later_is_waited_for_and_gets_what_is_written() {
        // Its queue has one place, which is taken: the kernel drops what comes, and tries again after a second.
        let listener = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP)).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let listener = TcpListener::from_std(listener.into()).unwrap();
        let address = listener.local_addr().unwrap();
        let first = EngineSocket::connect(address, KEEPALIVE).await.unwrap();
        let mut later = std::pin::pin!(EngineSocket::connect(address, KEEPALIVE));
        assert!(futures_util::poll!(&mut later).is_pending());
        listener.accept().await.unwrap();
        let mut later = later.await.unwrap();
        let (mut engine, _) = listener.accept().await.unwrap();
        later.split().1.write_all(&mut [Bytes::from_static(b"hello")]).await.unwrap();
        let mut bytes = [0; 5];
        engine.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"hello");
        drop(first);
    }
}
