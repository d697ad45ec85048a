//! The copy loops between an engine's TCP socket and a stream of the tunnel.
//!
//! The rule (docs/architecture.md): FIN is mirrored as finish and finish as FIN; every other end, whatever its cause, is
//! a reset on both sides. To hold it even under `kill -9`, the TCP socket lingers zero seconds from its first moment
//! ([`EngineSocket`]), so that the kernel itself sends RST; only an end that was clean in both directions switches that
//! off. A tunnel stream that is dropped unfinished resets itself ([`SendHalf`]), because quinn would finish it.

mod mllp_sender;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use gateway_proto::{
    audit::note::{OurReason, RefusedBy, StreamEnding},
    mllp::End,
    stream::{Answer, RefusalCode, ResetCode},
};
use mllp_sender::MllpSender;
use quinn::{ReadError, ReadExactError, RecvStream, SendStream, VarInt, WriteError};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{
    audit::StreamRecord,
    engine::EngineWatch,
    engine_socket::{CHUNKS, EngineReader, EngineSocket, EngineWriter},
    observer::Observer,
    traffic::{Role, Traffic, WaitFor},
};

/// First size of the buffer that reads from the engine: most messages fit, and an open stream costs little.
const READ_SIZE: usize = 8 << 10;
/// It doubles up to this while the engine fills it.
const MAX_READ_SIZE: usize = 64 << 10;
/// A stream that moved this much at a stretch is bulk: messages go first from then on.
const BULK_AFTER: u64 = 1 << 20;
/// Priority of bulk, below quinn's default of 0.
const BULK_PRIORITY: i32 = -1;

/// A reset destroys bytes that are still on their way. After our engine reset its socket, what it sent before (an
/// acknowledgement) gets this long to arrive.
const RESET_GRACE: Duration = Duration::from_millis(100);
/// The far side waits for an answer to its stream this much longer than it must.
const ANSWER_PATIENCE: Duration = Duration::from_millis(2);
/// A listener that is full accepts and closes at once; ours closed without a byte within this time.
const CLOSED_AT_ONCE: Duration = Duration::from_secs(1);

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
    /// The far side closed an idle MLLP conversation that our engine keeps open.
    #[error("the partner closed its connection; the engine's next message goes on a new one")]
    PartnerClosed,
    /// Our engine closed, and the far side neither answered nor closed for long.
    #[error("the partner left a closed connection half open")]
    HalfOpen,
    /// The policy stopped allowing it.
    #[error("the connection is no longer allowed")]
    NotAllowed,
    /// The far side refused the stream; of what our engine sent meanwhile, nothing was delivered.
    #[error("{0}")]
    Refused(RefusalCode),
    /// The far side has no place in its engine's listener, which has so many.
    #[error("the partner's listener is full: {0} of {0}")]
    ListenerFull(u32),
    /// The far side did not answer the stream's header in time.
    #[error("the partner's gateway did not answer in time")]
    NoAnswer,
}

/// What a splice needs to know.
#[derive(Debug)]
pub struct SpliceContext {
    /// Counters.
    pub traffic: Arc<Traffic>,
    /// Looks at what passes.
    pub observer: Observer,
    /// What the audit log will say of it.
    pub record: Box<StreamRecord>,
    /// Cancelled when the policy stops allowing the connection.
    pub allowed: CancellationToken,
    /// What one side still owes the other.
    pub opening: Opening,
    /// What our engine says of itself: asked again when it does otherwise.
    pub engine_says: EngineWatch,
}

/// What is still to be said when the copying begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// We opened the stream: its answer comes first from the far side, by this moment. Our engine's bytes do not wait for it
    /// (docs/adr/0012).
    AnsweredBy(Instant),
    /// The far side opened it, and our engine is reached: our answer travels with the engine's first bytes when these come
    /// within [`ANSWER_PATIENCE`], so that one packet does for both.
    OwesAnswer,
}

/// Copies both ways until both directions ended cleanly, or one did not; then both ends are reset.
pub async fn splice(
    mut socket: EngineSocket,
    mut send: SendHalf,
    mut recv: RecvStream,
    context: SpliceContext,
) -> Result<(), SpliceError> {
    if context.observer.counts() {
        context.record.observe();
    }
    let result = {
        let copying = pin!(async {
            let result = copy_both(&mut socket, &mut send, &mut recv, &context).await;
            if result == Err(SpliceError::Engine) {
                sleep(RESET_GRACE).await;
            }
            result
        });
        context.allowed.run_until_cancelled(copying).await.unwrap_or(Err(SpliceError::NotAllowed))
    };
    context.observer.ended(context.end(result, send.finished));
    context.record_end(result);
    match result {
        Ok(()) => socket.close_cleanly(),
        Err(error) => {
            let code = match error {
                SpliceError::NotAllowed => ResetCode::NotAllowed,
                SpliceError::Engine
                | SpliceError::Peer(_)
                | SpliceError::TunnelLost
                | SpliceError::Unacknowledged
                | SpliceError::PartnerClosed
                | SpliceError::HalfOpen
                | SpliceError::Refused(_)
                | SpliceError::ListenerFull(_)
                | SpliceError::NoAnswer => ResetCode::SocketReset,
            };
            // A half that finished has nothing left to reset; all others are, and the socket's zero linger does the rest.
            send.reset_as(code);
            let _ = recv.stop(VarInt::from_u32(code as u32));
        }
    }
    result
}

impl SpliceContext {
    fn record_end(&self, result: Result<(), SpliceError>) {
        let ending = match result {
            Ok(()) => StreamEnding::Clean,
            Err(SpliceError::Engine) => StreamEnding::ResetHere,
            Err(SpliceError::Peer(ResetCode::NotAllowed)) => StreamEnding::RevokedThere,
            Err(SpliceError::Peer(ResetCode::ShuttingDown) | SpliceError::TunnelLost) => StreamEnding::TunnelLost,
            Err(SpliceError::Peer(ResetCode::SocketReset | ResetCode::Refused | ResetCode::Protocol)) => {
                StreamEnding::ResetThere
            }
            Err(SpliceError::Unacknowledged) => StreamEnding::Unacknowledged,
            Err(SpliceError::PartnerClosed) => StreamEnding::ClosedThere,
            Err(SpliceError::HalfOpen) => StreamEnding::HalfOpen,
            Err(SpliceError::NotAllowed) => return self.record.cut(),
            Err(SpliceError::Refused(code)) => return self.record.refused(RefusedBy::Partner, code),
            Err(SpliceError::ListenerFull(_)) => {
                return self.record.refused(RefusedBy::Partner, RefusalCode::ListenerFull);
            }
            Err(SpliceError::NoAnswer) => return self.record.refused(RefusedBy::Us, OurReason::NoAnswer),
        };
        self.record.over(ending);
    }

    /// Who ended the stream, for what a repetition of its messages means. `engine_finished`: ours closed its direction.
    fn end(&self, result: Result<(), SpliceError>, engine_finished: bool) -> End {
        match result {
            Err(SpliceError::Refused(_) | SpliceError::ListenerFull(_)) => End::Refused,
            Ok(()) => End::ByTheSender,
            Err(SpliceError::Engine | SpliceError::HalfOpen) if self.observer.role() == Role::Sender => {
                End::ByTheSender
            }
            // Of the causes at the far side, its engine is by far the most frequent; but when ours closed first, the far
            // gateway resets what is unacknowledged.
            Err(SpliceError::Peer(ResetCode::SocketReset))
                if self.observer.role() == Role::Listener && !engine_finished =>
            {
                End::ByTheSender
            }
            Err(
                SpliceError::Engine
                | SpliceError::HalfOpen
                | SpliceError::Peer(_)
                | SpliceError::TunnelLost
                | SpliceError::Unacknowledged
                | SpliceError::PartnerClosed
                | SpliceError::NoAnswer
                | SpliceError::NotAllowed,
            ) => End::Otherwise,
        }
    }
}

async fn copy_both(
    socket: &mut EngineSocket,
    send: &mut SendHalf,
    recv: &mut RecvStream,
    context: &SpliceContext,
) -> Result<(), SpliceError> {
    let mllp = context.observer.is_mllp_sender().then(|| MllpSender::new(&context.observer));
    let unanswered = AtomicBool::new(context.opening != Opening::OwesAnswer);
    let (mut reader, writer) = socket.split();
    let stopped = send.stream.stopped();
    // Each is pinned where it is made: a future that is moved into another takes its room twice in every open stream.
    let outbound = pin!(async {
        let result = engine_to_tunnel(&mut reader, send, context, mllp.as_ref()).await;
        unless_refused(&unanswered, result).await
    });
    let inbound = pin!(async {
        if let Opening::AnsweredBy(by) = context.opening {
            let waiting = context.traffic.wait(WaitFor::Answer, by);
            timeout_at(by, answer(recv)).await.map_err(|_| SpliceError::NoAnswer)??;
            drop(waiting);
            unanswered.store(false, Relaxed);
            context.observer.accepted();
            context.record.opened();
            context.traffic.clear_problem();
        }
        tunnel_to_engine(&writer, recv, context, mllp.as_ref()).await
    });
    // Inbound first: an acknowledgement that is there is handed over before an end is looked at.
    let ends = pin!(async {
        tokio::try_join!(inbound, outbound)?;
        Ok(())
    });
    // What a blocked copy loop does not see by itself: a stop of the peer, a reset of the engine.
    let peer_stops = pin!(async {
        match stopped.await {
            Ok(Some(code)) => {
                let stop = SpliceError::Peer(ResetCode::from_u64(code.into_inner()));
                unless_refused(&unanswered, Err::<SpliceError, _>(stop)).await.unwrap_or_else(|stop| stop)
            }
            Ok(None) => std::future::pending().await,
            Err(_) => SpliceError::TunnelLost,
        }
    });
    let half_open = pin!(half_open_for_too_long(mllp.as_ref()));
    let broken = pin!(writer.broken());
    tokio::select! {
        biased;
        result = ends => result,
        error = peer_stops => Err(error),
        () = half_open => Err(SpliceError::HalfOpen),
        () = broken => Err(SpliceError::Engine),
    }
}

/// The far side's answer to the stream's header.
async fn answer(recv: &mut RecvStream) -> Result<(), SpliceError> {
    let mut answer = [0; 2];
    recv.read_exact(&mut answer).await.map_err(|error| match error {
        ReadExactError::ReadError(error) => read_error(error),
        ReadExactError::FinishedEarly(_) => SpliceError::Refused(RefusalCode::Malformed),
    })?;
    match Answer::from_code(answer[0]) {
        Answer::Accepted => Ok(()),
        Answer::Refused(RefusalCode::ListenerFull) => {
            let mut detail = vec![0; usize::from(answer[1])];
            let places = recv.read_exact(&mut detail).await.ok().and_then(|()| Answer::places_of(&detail));
            Err(places.map_or(SpliceError::Refused(RefusalCode::ListenerFull), SpliceError::ListenerFull))
        }
        Answer::Refused(code) => Err(SpliceError::Refused(code)),
    }
}

/// A refusal stops what we send and says why in its answer, which may be read a moment later: the answer tells more.
async fn unless_refused<T>(unanswered: &AtomicBool, result: Result<T, SpliceError>) -> Result<T, SpliceError> {
    if unanswered.load(Relaxed) && matches!(result, Err(SpliceError::Peer(ResetCode::Refused))) {
        return std::future::pending().await;
    }
    result
}

fn read_error(error: ReadError) -> SpliceError {
    match error {
        ReadError::Reset(code) => SpliceError::Peer(ResetCode::from_u64(code.into_inner())),
        ReadError::ConnectionLost(_)
        | ReadError::ClosedStream
        | ReadError::IllegalOrderedRead
        | ReadError::ZeroRttRejected => SpliceError::TunnelLost,
    }
}

fn write_error(error: WriteError) -> SpliceError {
    match error {
        WriteError::Stopped(code) => SpliceError::Peer(ResetCode::from_u64(code.into_inner())),
        WriteError::ConnectionLost(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => {
            SpliceError::TunnelLost
        }
    }
}

async fn half_open_for_too_long(mllp: Option<&MllpSender<'_>>) {
    match mllp {
        Some(mllp) => mllp.half_open_for_too_long().await,
        None => std::future::pending().await,
    }
}

async fn engine_to_tunnel(
    engine: &mut EngineReader<'_>,
    send: &mut SendHalf,
    context: &SpliceContext,
    mllp: Option<&MllpSender<'_>>,
) -> Result<(), SpliceError> {
    if context.opening == Opening::OwesAnswer {
        // Also an end or an error is something to read, and is seen below: the answer goes out before it.
        let _ = timeout(ANSWER_PATIENCE, engine.readable()).await;
        send.stream.write_all(&Answer::Accepted.encode()).await.map_err(write_error)?;
    }
    let mut buffer = BytesMut::new();
    let mut size = READ_SIZE;
    let mut moved = 0;
    let begun = Instant::now();
    loop {
        let count = engine.read(&mut buffer, size).await.map_err(|_| SpliceError::Engine)?;
        if count == 0 {
            send.finish();
            // One that was given bytes and closed in order has read them: it had a place.
            let is_mute = moved == 0 && !context.record.has_received();
            if is_mute && context.observer.role() == Role::Listener && begun.elapsed() < CLOSED_AT_ONCE {
                context.engine_says.look_again();
                context.traffic.note_problem(
                    "our engine closed a connection at once without a byte: others use places of its listener, or its \
                     limit is lower than the places that status shows",
                );
            }
            if let Some(mllp) = mllp {
                mllp.engine_finished();
            }
            return Ok(());
        }
        if let Some(mllp) = mllp {
            mllp.engine_sends()?;
        }
        context.record.passed(context.observer.from_engine(&buffer));
        if buffer.len() == buffer.capacity() {
            size = (size * 2).min(MAX_READ_SIZE);
        }
        let was_message = moved < BULK_AFTER;
        moved += count as u64;
        if was_message && moved >= BULK_AFTER {
            let _ = send.stream.set_priority(BULK_PRIORITY);
        }
        let chunk = buffer.split().freeze();
        send.stream.write_chunk(chunk).await.map_err(write_error)?;
        context.traffic.sent(count);
        context.record.sent(count);
    }
}

async fn tunnel_to_engine(
    engine: &EngineWriter<'_>,
    recv: &mut RecvStream,
    context: &SpliceContext,
    mllp: Option<&MllpSender<'_>>,
) -> Result<(), SpliceError> {
    let mut chunks: [Bytes; CHUNKS] = std::array::from_fn(|_| Bytes::new());
    loop {
        let count = match recv.read_chunks(&mut chunks).await {
            Ok(Some(count)) => count,
            Ok(None) => break,
            Err(error) => return Err(read_error(error)),
        };
        let mut moved = 0;
        for chunk in &chunks[..count] {
            context.record.passed(context.observer.from_tunnel(chunk));
            moved += chunk.len();
        }
        if let Some(mllp) = mllp {
            mllp.partner_answers();
        }
        engine.write_all(&mut chunks[..count]).await.map_err(|_| SpliceError::Engine)?;
        context.traffic.received(moved);
        context.record.received(moved);
    }
    match mllp {
        Some(mllp) => mllp.partner_finished().await,
        None => engine.shutdown_write().map_err(|_| SpliceError::Engine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_len<F: Future>(_: impl Fn(EngineSocket, SendHalf, RecvStream, SpliceContext) -> F) -> usize {
        size_of::<F>()
    }

    /// Every open stream holds one; a future moved into another, or an array that lives across an await, shows here.
    #[test]
    fn an_open_stream_holds_little() {
        let length = future_len(splice);
        assert!(length < 4 << 10, "{length} bytes");
    }
}
