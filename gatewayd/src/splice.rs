//! The copy loops between an engine's TCP socket and a stream of the tunnel.
//!
//! The rule (docs/architecture.md): FIN is mirrored as finish and finish as FIN; every other end, whatever its cause, is
//! a reset on both sides. To hold it even under `kill -9`, the TCP socket lingers zero seconds from its first moment
//! ([`EngineSocket`]), so that the kernel itself sends RST; only an end that was clean in both directions switches that
//! off. A tunnel stream that is dropped unfinished resets itself ([`SendHalf`]), because quinn would finish it.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use gateway_proto::{mllp::Conversation, stream::ResetCode};
use quinn::{ReadError, RecvStream, SendStream, VarInt};
use socket2::{SockRef, TcpKeepalive};
use tokio::{io::Interest, net::TcpStream};
use tokio_util::sync::CancellationToken;

use crate::traffic::{Role, Traffic};

/// First size of the buffer that reads from the engine: most messages fit, and an open stream costs little.
const READ_SIZE: usize = 8 << 10;
/// It doubles up to this while the engine fills it.
const MAX_READ_SIZE: usize = 64 << 10;
/// With less room than this a new buffer is taken.
const MIN_READ_ROOM: usize = 2 << 10;
/// Chunks of a stream taken at once.
const CHUNKS: usize = 32;
/// A stream that moved this much at a stretch is bulk: messages go first from then on.
const BULK_AFTER: u64 = 1 << 20;
/// Priority of bulk, below quinn's default of 0.
const BULK_PRIORITY: i32 = -1;

/// An engine's socket that is reset, not closed, unless it is told otherwise.
#[derive(Debug)]
pub struct EngineSocket(TcpStream);

impl EngineSocket {
    /// Takes a fresh socket: no delay, TCP keepalive, zero linger.
    pub fn new(socket: TcpStream, keepalive: Duration) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        let reference = SockRef::from(&socket);
        reference.set_linger(Some(Duration::ZERO))?;
        let interval = (keepalive / 3).max(Duration::from_secs(1));
        reference
            .set_tcp_keepalive(&TcpKeepalive::new().with_time(keepalive).with_interval(interval).with_retries(3))?;
        Ok(Self(socket))
    }

    /// Closes with FIN: both directions ended cleanly.
    fn close_cleanly(self) {
        // If the option cannot be set the engine sees a reset after a complete conversation: harmless, and visible.
        let _ = SockRef::from(&self.0).set_linger(None);
    }

    /// Reads what is there, up to the room of `buffer`; 0 at the end.
    async fn read(&self, buffer: &mut BytesMut, size: usize) -> io::Result<usize> {
        loop {
            self.0.readable().await?;
            if buffer.capacity() - buffer.len() < MIN_READ_ROOM {
                buffer.reserve(size);
            }
            match self.0.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    /// Writes all chunks, several per system call; they are empty afterwards.
    async fn write_all(&self, chunks: &mut [Bytes]) -> io::Result<()> {
        let mut first = 0;
        while first < chunks.len() {
            let mut slices = [io::IoSlice::new(&[]); CHUNKS];
            for (slice, chunk) in slices.iter_mut().zip(&chunks[first..]) {
                *slice = io::IoSlice::new(chunk);
            }
            let mut written = match self.0.try_write_vectored(&slices[..chunks.len() - first]) {
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

    /// Ends our direction with FIN.
    fn shutdown_write(&self) -> io::Result<()> {
        SockRef::from(&self.0).shutdown(std::net::Shutdown::Write)
    }

    /// Resolves when the engine's socket is broken, also while nothing is read or written.
    async fn broken(&self) -> io::Error {
        match self.0.ready(Interest::ERROR).await {
            Ok(_) => self.0.take_error().ok().flatten().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()),
            Err(error) => error,
        }
    }

    /// Resolves when the engine's socket breaks while it waits for the tunnel.
    pub async fn gone(&self) {
        self.broken().await;
    }
}

/// The sending half of a tunnel stream; resets the stream unless it was finished.
#[derive(Debug)]
pub struct SendHalf {
    stream: SendStream,
    code: ResetCode,
    finished: bool,
}

impl SendHalf {
    /// Takes the half over.
    pub fn new(stream: SendStream) -> Self {
        Self { stream, code: ResetCode::SocketReset, finished: false }
    }

    /// The stream itself.
    pub fn stream(&mut self) -> &mut SendStream {
        &mut self.stream
    }

    /// Finishes: everything was sent.
    pub fn finish(&mut self) {
        // Fails only when the peer stopped the stream already; that end is handled where it is seen.
        let _ = self.stream.finish();
        self.finished = true;
    }

    /// Says why it will be reset when it is dropped unfinished.
    pub fn reset_as(&mut self, code: ResetCode) {
        self.code = code;
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.stream.reset(VarInt::from_u32(self.code as u32));
        }
    }
}

/// How a spliced stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpliceError {
    /// Our engine's socket failed or was reset.
    #[error("the engine on this side reset its connection")]
    Engine,
    /// The far side reset the stream.
    #[error("the partner's side ended the stream: {0}")]
    Peer(ResetCode),
    /// The tunnel itself ended.
    #[error("the tunnel to the partner was lost")]
    TunnelLost,
    /// The far side finished while a message was unacknowledged.
    #[error("the partner closed its connection without acknowledging a message")]
    Unacknowledged,
    /// The policy stopped allowing it.
    #[error("the connection is no longer allowed")]
    NotAllowed,
}

/// What a splice needs to know.
#[derive(Debug)]
pub struct SpliceContext {
    /// Counters.
    pub traffic: Arc<Traffic>,
    /// Our end.
    pub role: Role,
    /// Whether the bytes are MLLP: then an end with an unacknowledged message is never a clean one.
    pub mllp: bool,
    /// Cancelled when the policy stops allowing the connection.
    pub allowed: CancellationToken,
}

/// Copies both ways until both directions ended cleanly, or one did not; then both ends are reset.
pub async fn splice(
    socket: EngineSocket,
    mut send: SendHalf,
    mut recv: RecvStream,
    context: SpliceContext,
) -> Result<(), SpliceError> {
    let result = context
        .allowed
        .run_until_cancelled(copy_both(&socket, &mut send, &mut recv, &context))
        .await
        .unwrap_or(Err(SpliceError::NotAllowed));
    match result {
        Ok(()) => socket.close_cleanly(),
        Err(error) => {
            let code = match error {
                SpliceError::NotAllowed => ResetCode::NotAllowed,
                SpliceError::Engine | SpliceError::Peer(_) | SpliceError::TunnelLost | SpliceError::Unacknowledged => {
                    ResetCode::SocketReset
                }
            };
            // A half that finished has nothing left to reset; all others are, and the socket's zero linger does the rest.
            send.reset_as(code);
            let _ = recv.stop(VarInt::from_u32(code as u32));
        }
    }
    result
}

async fn copy_both(
    socket: &EngineSocket,
    send: &mut SendHalf,
    recv: &mut RecvStream,
    context: &SpliceContext,
) -> Result<(), SpliceError> {
    let conversation = context.mllp.then(|| Mutex::new(Conversation::default()));
    let stopped = send.stream.stopped();
    let outbound = engine_to_tunnel(socket, send, context, conversation.as_ref());
    let inbound = tunnel_to_engine(socket, recv, context, conversation.as_ref());
    let ends = async {
        tokio::try_join!(outbound, inbound)?;
        Ok(())
    };
    // What a blocked copy loop does not see by itself: a stop of the peer, a reset of the engine.
    let peer_stops = async {
        match stopped.await {
            Ok(Some(code)) => SpliceError::Peer(ResetCode::from_u64(code.into_inner())),
            Ok(None) => std::future::pending().await,
            Err(_) => SpliceError::TunnelLost,
        }
    };
    tokio::select! {
        biased;
        result = ends => result,
        error = peer_stops => Err(error),
        _ = socket.broken() => Err(SpliceError::Engine),
    }
}

async fn engine_to_tunnel(
    socket: &EngineSocket,
    send: &mut SendHalf,
    context: &SpliceContext,
    conversation: Option<&Mutex<Conversation>>,
) -> Result<(), SpliceError> {
    let mut buffer = BytesMut::new();
    let mut size = READ_SIZE;
    let mut moved = 0;
    loop {
        let count = socket.read(&mut buffer, size).await.map_err(|_| SpliceError::Engine)?;
        if count == 0 {
            send.finish();
            return Ok(());
        }
        if buffer.len() == buffer.capacity() {
            size = (size * 2).min(MAX_READ_SIZE);
        }
        observe(conversation, context.role, Flow::FromEngine, &buffer);
        let was_message = moved < BULK_AFTER;
        moved += count as u64;
        if was_message && moved >= BULK_AFTER {
            let _ = send.stream.set_priority(BULK_PRIORITY);
        }
        let chunk = buffer.split().freeze();
        send.stream.write_chunk(chunk).await.map_err(|error| match error {
            quinn::WriteError::Stopped(code) => SpliceError::Peer(ResetCode::from_u64(code.into_inner())),
            quinn::WriteError::ConnectionLost(_)
            | quinn::WriteError::ClosedStream
            | quinn::WriteError::ZeroRttRejected => SpliceError::TunnelLost,
        })?;
        context.traffic.sent(count);
    }
}

async fn tunnel_to_engine(
    socket: &EngineSocket,
    recv: &mut RecvStream,
    context: &SpliceContext,
    conversation: Option<&Mutex<Conversation>>,
) -> Result<(), SpliceError> {
    let mut chunks: [Bytes; CHUNKS] = std::array::from_fn(|_| Bytes::new());
    loop {
        let count = match recv.read_chunks(&mut chunks).await {
            Ok(Some(count)) => count,
            Ok(None) => break,
            Err(ReadError::Reset(code)) => return Err(SpliceError::Peer(ResetCode::from_u64(code.into_inner()))),
            Err(
                ReadError::ConnectionLost(_)
                | ReadError::ClosedStream
                | ReadError::IllegalOrderedRead
                | ReadError::ZeroRttRejected,
            ) => return Err(SpliceError::TunnelLost),
        };
        let mut moved = 0;
        for chunk in &mut chunks[..count] {
            observe(conversation, context.role, Flow::ToEngine, chunk);
            moved += chunk.len();
        }
        socket.write_all(&mut chunks[..count]).await.map_err(|_| SpliceError::Engine)?;
        context.traffic.received(moved);
    }
    // The engine takes a FIN for success in some settings: not while one of its messages is unanswered.
    if context.role == Role::Sender && conversation.is_some_and(|c| !lock(c).may_end_cleanly()) {
        return Err(SpliceError::Unacknowledged);
    }
    socket.shutdown_write().map_err(|_| SpliceError::Engine)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    FromEngine,
    ToEngine,
}

fn observe(conversation: Option<&Mutex<Conversation>>, role: Role, flow: Flow, bytes: &[u8]) {
    let Some(conversation) = conversation else { return };
    let mut conversation = lock(conversation);
    // Messages come from the engine at the sender's end and go to the engine at the listener's.
    if (flow == Flow::FromEngine) == (role == Role::Sender) {
        conversation.observe_message_bytes(bytes);
    } else {
        conversation.observe_acknowledgement_bytes(bytes);
    }
}

fn lock(conversation: &Mutex<Conversation>) -> MutexGuard<'_, Conversation> {
    conversation.lock().unwrap_or_else(PoisonError::into_inner)
}
