//! A TCP socket with the engine that ends with RST unless it is told otherwise.
//!
//! Zero linger from its first moment makes the kernel send RST when the socket is dropped or the process killed, so an
//! abnormal end is never taken for a clean one (docs/architecture.md, socket truth).

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncReadExt, Interest},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    time::timeout,
};

/// With less room than this a new buffer is taken.
const MIN_READ_ROOM: usize = 2 << 10;
/// Chunks written in one system call at most.
pub(crate) const CHUNKS: usize = 32;

/// An engine's socket that is reset, not closed, unless it is told otherwise.
#[derive(Debug)]
pub struct EngineSocket(TcpStream);

impl EngineSocket {
    /// Takes a socket that was connected just now.
    ///
    /// # Errors
    /// When the system does not set an option.
    pub fn connected(socket: TcpStream, keepalive: Duration) -> io::Result<Self> {
        set_up(SockRef::from(&socket), keepalive)?;
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
        (EngineReader(reader), EngineWriter(writer))
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

/// What the engine sends.
#[derive(Debug)]
pub(crate) struct EngineReader<'a>(ReadHalf<'a>);

impl EngineReader<'_> {
    /// Resolves when there is something to read, be it an end or an error.
    pub(crate) async fn readable(&self) {
        // An error of the wait itself is the next read's to tell.
        let _ = self.0.readable().await;
    }

    /// Reads what is there into `buffer`, which gets room for `size` bytes when it has little left; 0 at the end.
    pub(crate) async fn read(&mut self, buffer: &mut BytesMut, size: usize) -> io::Result<usize> {
        // Room is made once there is something to read: an idle conversation holds none.
        self.0.readable().await?;
        if buffer.capacity() - buffer.len() < MIN_READ_ROOM {
            buffer.reserve(size);
        }
        self.0.read_buf(buffer).await
    }
}

/// What the engine is sent.
#[derive(Debug)]
pub(crate) struct EngineWriter<'a>(WriteHalf<'a>);

impl EngineWriter<'_> {
    /// Writes all chunks, several per system call; they are empty afterwards.
    pub(crate) async fn write_all(&self, chunks: &mut [Bytes]) -> io::Result<()> {
        let mut first = 0;
        while first < chunks.len() {
            let mut written = match self.try_write(&chunks[first..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.0.writable().await?;
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

    /// One system call. A function of its own, so that its list of slices is no part of what waits.
    fn try_write(&self, chunks: &[Bytes]) -> io::Result<usize> {
        let mut slices = [io::IoSlice::new(&[]); CHUNKS];
        for (slice, chunk) in slices.iter_mut().zip(chunks) {
            *slice = io::IoSlice::new(chunk);
        }
        self.0.try_write_vectored(&slices[..chunks.len().min(CHUNKS)])
    }

    /// Ends our direction with FIN.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        SockRef::from(self.0.as_ref()).shutdown(std::net::Shutdown::Write)
    }

    /// Resolves when the engine's socket is broken, also while nothing is read or written.
    pub(crate) async fn broken(&self) {
        broken(self.0.as_ref()).await;
    }
}

async fn broken(socket: &TcpStream) {
    // An error of the wait itself is the same news.
    let _ = socket.ready(Interest::ERROR).await;
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

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
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        is_set_up(&EngineSocket::connected(dialled, KEEPALIVE).unwrap().into_inner());
        is_set_up(&EngineSocket::accepted(accepted).into_inner());
    }
}
