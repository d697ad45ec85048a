//! The two copy loops of one stream.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use gateway_proto::{places::MuteEnd, stream::Answer};
use quinn::RecvStream;
use tokio::time::Instant;

use super::{
    Opening, SpliceContext, SpliceError,
    ending::{read_error, write_error},
    limited::{Limited, engine_broke},
    mllp_sender::MllpSender,
};
use crate::{
    engine_socket::{CHUNKS, EngineReader, EngineWriter},
    send_half::SendHalf,
    traffic::Way,
};

/// What some streams have beside their two ends: rules of MLLP, limits of their owner.
type Beside<'a> = (Option<&'a MllpSender<'a>>, Option<&'a Limited<'a>>);

pub(super) async fn engine_to_tunnel(
    engine: &mut EngineReader<'_>,
    send: &mut SendHalf,
    context: &SpliceContext,
    (mllp, limited): Beside<'_>,
    unanswered: &AtomicBool,
) -> Result<(), SpliceError> {
    if let Opening::OwesAnswer { moments, .. } = &context.opening {
        // Also an end or an error is something to read, and is seen below: the answer goes out before it.
        tokio::select! {
            biased;
            () = engine.readable() => {}
            () = moments.passes() => {}
        }
        send.write_all(&Answer::Accepted.encode()).await.map_err(write_error)?;
    }
    let most = limited.map_or(usize::MAX, Limited::piece);
    loop {
        let bytes = engine.read(most).await.map_err(|_| SpliceError::Engine)?;
        let count = bytes.len();
        if count == 0 {
            // Whoever met the error first took it: the kernel then shows an end to all others, and it is none.
            if limited.is_some_and(Limited::has_broken_engine) {
                return Err(SpliceError::Engine);
            }
            send.finish();
            if !context.record.has_sent() {
                context.engine_was_mute(MuteEnd::Finished { given: context.record.has_received() });
            }
            if let Some(mllp) = mllp {
                mllp.engine_finished();
            }
            return Ok(());
        }
        let mut now = Instant::now();
        if let Some(mllp) = mllp {
            mllp.engine_sends(now)?;
        }
        if let Some(turn) = limited.and_then(|limited| limited.turn(Way::ToPeer, count)) {
            turn.wait().await;
            // It passes now: its answer is not waited for while it waits for its turn.
            now = Instant::now();
            // What waited is in no book yet, and the partner may have finished meanwhile.
            if let Some(mllp) = mllp {
                mllp.partner_listens()?;
            }
        }
        context.record.passed(context.observer.from_engine(&bytes, now.into_std()));
        send.write_chunk(bytes).await.map_err(write_error)?;
        if let Some(limited) = limited {
            limited.passed(count);
        }
        if let Some(mllp) = mllp {
            mllp.went_on(count);
        }
        match unanswered.load(Relaxed) {
            true => context.traffic.sent_ahead(count),
            false => context.traffic.sent(count),
        }
        context.record.sent(count);
    }
}

pub(super) async fn tunnel_to_engine(
    engine: &EngineWriter<'_>,
    recv: &mut RecvStream,
    context: &SpliceContext,
    (mllp, limited): Beside<'_>,
) -> Result<(), SpliceError> {
    let mut chunks: [Bytes; CHUNKS] = std::array::from_fn(|_| Bytes::new());
    loop {
        let read = match limited {
            None => recv.read_chunks(&mut chunks).await,
            Some(limited) => limited.read(recv, &mut chunks).await,
        };
        let count = match read {
            Ok(Some(count)) => count,
            Ok(None) => break,
            Err(error) => return Err(read_error(error)),
        };
        let moved: usize = chunks[..count].iter().map(Bytes::len).sum();
        if let Some(turn) = limited.and_then(|limited| limited.turn(Way::FromPeer, moved)) {
            turn.wait().await;
        }
        let now = Instant::now();
        for chunk in &chunks[..count] {
            context.record.passed(context.observer.from_tunnel(chunk, now.into_std()));
        }
        if let Some(mllp) = mllp {
            mllp.partner_answers(now);
        }
        if engine.write_all(&mut chunks[..count]).await.is_err() {
            return Err(engine_broke(limited).await);
        }
        if let Some(limited) = limited {
            limited.passed(moved);
        }
        context.traffic.received(moved);
        context.record.received(moved);
    }
    match mllp {
        Some(mllp) => mllp.partner_finished().await,
        None if engine.shutdown_write().is_err() => Err(engine_broke(limited).await),
        None => Ok(()),
    }
}
