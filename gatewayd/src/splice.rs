//! The copy loops between an engine's TCP socket and a stream of the tunnel.
//!
//! The rule (docs/architecture.md): FIN is mirrored as finish and finish as FIN; every other end, whatever its cause, is
//! a reset on both sides. To hold it even under `kill -9`, the TCP socket lingers zero seconds from its first moment
//! ([`EngineSocket`]), so that the kernel itself sends RST; only an end that was clean in both directions switches that
//! off. A tunnel stream that is dropped unfinished resets itself ([`SendHalf`]), because quinn would finish it.

mod copy;
mod ending;
mod limited;
mod mllp_sender;
mod seldom;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use copy::{engine_to_tunnel, tunnel_to_engine};
pub use ending::SpliceError;
use ending::read_error;
use gateway_proto::{
    limits::ChannelLimits,
    places::MuteEnd,
    stream::{Answer, RefusalCode, ResetCode},
};
use limited::{Limited, engine_broke};
use mllp_sender::MllpSender;
use quinn::{ReadExactError, RecvStream, VarInt};
use seldom::Seldom;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{
    audit::StreamRecord,
    engine::EngineWatch,
    engine_socket::EngineSocket,
    observer::Observer,
    send_half::SendHalf,
    timer::Moments,
    traffic::{Traffic, WaitFor},
};

/// A reset destroys bytes that are still on their way. After our engine reset its socket, what it sent before (an
/// acknowledgement) gets this long to arrive.
const RESET_GRACE: Duration = Duration::from_millis(100);
/// A stream that was given up has this long to be answered all the same: the far side says at once that it had not taken it.
const LATE_ANSWER: Duration = Duration::from_secs(1);

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
    /// The limits of the channel's owner; what of them is kept here depends on our end's role.
    pub limits: ChannelLimits,
}

/// What is still to be said when the copying begins.
#[derive(Debug, Clone)]
pub enum Opening {
    /// We opened the stream: its answer comes first from the far side, by this moment. Our engine's bytes do not wait for it
    /// (docs/adr/0012).
    AnsweredBy(Instant),
    /// The far side opened it, and our engine is reached: our answer travels with the engine's first bytes when these come
    /// within a [moment](Moments), so that one packet does for both.
    OwesAnswer {
        /// When our engine took the connection.
        reached_at: Instant,
        /// How long the answer waits.
        moments: Moments,
    },
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
                if !send.is_finished() && !context.record.has_sent() {
                    context.engine_was_mute(MuteEnd::Reset);
                }
                sleep(RESET_GRACE).await;
            }
            result
        });
        context.allowed.run_until_cancelled(copying).await.unwrap_or(Err(SpliceError::NotAllowed))
    };
    if result == Err(SpliceError::NoAnswer) {
        // Apart, on the heap: nearly no stream comes here.
        return Err(Box::pin(give_up(socket, send, recv, context)).await);
    }
    context.observer.ended(context.end(result, send.is_finished()));
    context.record_end(result);
    if let Err(error @ (SpliceError::Silent | SpliceError::Peer(ResetCode::Silent))) = result {
        context.traffic.was_silent(error.to_string());
    }
    match result {
        Ok(()) => socket.close_cleanly(),
        Err(error) => {
            let code = match error {
                SpliceError::NotAllowed => ResetCode::NotAllowed,
                SpliceError::Silent => ResetCode::Silent,
                SpliceError::Engine
                | SpliceError::Peer(_)
                | SpliceError::TunnelLost
                | SpliceError::Unacknowledged
                | SpliceError::EngineGaveUp(_)
                | SpliceError::PartnerClosed
                | SpliceError::HalfOpen
                | SpliceError::Refused(_)
                | SpliceError::ListenerFull(_) => ResetCode::SocketReset,
                SpliceError::NoAnswer => ResetCode::GaveUp,
            };
            // A half that finished has nothing left to reset; all others are, and the socket's zero linger does the rest.
            send.reset_as(code);
            let _ = recv.stop(VarInt::from_u32(code as u32));
        }
    }
    result
}

/// There was no answer in time: our engine is reset, and the far side told that this was us. Only what is counted waits for
/// what it says to that.
async fn give_up(
    socket: EngineSocket,
    mut send: SendHalf,
    mut recv: RecvStream,
    context: SpliceContext,
) -> SpliceError {
    drop(socket);
    let finished = send.is_finished();
    send.reset_as(ResetCode::GaveUp);
    drop(send);
    let late = context.allowed.run_until_cancelled(timeout(LATE_ANSWER, answer(&mut recv))).await;
    let error = match late {
        Some(Ok(Err(refused @ (SpliceError::Refused(_) | SpliceError::ListenerFull(_))))) => refused,
        Some(_) | None => SpliceError::NoAnswer,
    };
    context.observer.ended(context.end(Err(error), finished));
    context.record_end(Err(error));
    let _ = recv.stop(VarInt::from_u32(ResetCode::GaveUp as u32));
    error
}

async fn copy_both(
    socket: &mut EngineSocket,
    send: &mut SendHalf,
    recv: &mut RecvStream,
    context: &SpliceContext,
) -> Result<(), SpliceError> {
    let mllp = context.observer.is_mllp_sender().then(|| MllpSender::new(&context.observer));
    let limited = Limited::of(context.limits, &context.observer, &context.traffic);
    let unanswered = AtomicBool::new(matches!(context.opening, Opening::AnsweredBy(_)));
    let (mut reader, writer) = socket.split();
    let stopped = send.stopped();
    // Each is pinned where it is made: a future that is moved into another takes its room twice in every open stream.
    let outbound = pin!(async {
        let beside = (mllp.as_ref(), limited.as_deref());
        let result = engine_to_tunnel(&mut reader, send, context, beside, &unanswered).await;
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
            if context.record.has_sent() {
                context.traffic.taken();
            }
            context.traffic.clear_problem();
        }
        tunnel_to_engine(&writer, recv, context, (mllp.as_ref(), limited.as_deref())).await
    });
    // Inbound first: an acknowledgement that is there is handed over before an end is looked at.
    let ends = pin!(async {
        tokio::try_join!(biased; Seldom::new(inbound), Seldom::new(outbound))?;
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
    let silent = pin!(silent_for_too_long(limited.as_deref()));
    let broken = pin!(async {
        writer.broken().await;
        engine_broke(limited.as_deref()).await
    });
    let otherwise = pin!(async {
        tokio::select! {
            biased;
            error = peer_stops => error,
            () = half_open => SpliceError::HalfOpen,
            () = silent => SpliceError::Silent,
            error = broken => error,
        }
    });
    tokio::select! {
        biased;
        result = ends => result,
        error = Seldom::new(otherwise) => Err(error),
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

async fn half_open_for_too_long(mllp: Option<&MllpSender<'_>>) {
    match mllp {
        Some(mllp) => mllp.half_open_for_too_long().await,
        None => std::future::pending().await,
    }
}

async fn silent_for_too_long(limited: Option<&Limited<'_>>) {
    match limited {
        // On the heap: nearly no stream has a timer for this.
        Some(limited) if limited.has_receive_timeout() => Box::pin(limited.silent_for_too_long()).await,
        Some(_) | None => std::future::pending().await,
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
