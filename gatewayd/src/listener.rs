//! Streams that a peer opens: read the header, authorize against the policy in force, see whether the engine's port is still
//! that of the channel that was granted, dial the engine, answer, copy.

mod admit;
mod reach;

use std::{
    future::pending,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use admit::{Admitted, Denied, Destination, admit};
use gateway_proto::{
    audit::note::{OurReason, RefusedBy},
    stream::{Answer, RefusalCode, ResetCode},
};
use quinn::{RecvStream, VarInt};
pub(crate) use reach::has_places;
use reach::{Unreached, WithoutPlace, engine_refused, reach_engine};
use tokio::{
    task::{JoinSet, yield_now},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Level, debug, enabled, info};

use crate::{
    admin::owner::OwnerEnd,
    audit::{AuditLog, StreamRecord, say_of, span_of},
    authority::Authority,
    engine::EngineWatch,
    gate::{Gate, Permit},
    observer::{Observer, Unobserved},
    peer::{Peer, PeerStream},
    places::EnginePlaces,
    send_half::SendHalf,
    splice::{Opening, SpliceContext, splice},
    timer::Moments,
    traffic::{Failure, Role, StreamGuard, Traffic, TrafficTable},
    tunnel::{StreamRoom, Tunnel},
};

/// A peer that opens a stream sends its header at once.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// New streams that are begun before it is looked what engines have answered to earlier ones: with all at once, the other gateway would
/// have nothing to do meanwhile (docs/adr/0077).
const STREAMS_PER_TURN: usize = 2;

/// What streams from peers need.
#[derive(Debug, Clone)]
pub struct ListenerContext {
    /// Who may.
    pub gate: Gate,
    /// The clock of the policy.
    pub authority: Authority,
    /// Serves admin streams; none: the engine's admin API is not configured.
    pub admin: Option<OwnerEnd>,
    /// Records streams and refusals.
    pub audit: AuditLog,
    /// Counters.
    pub traffic: TrafficTable,
    /// Connections that are not looked into.
    pub unobserved: Unobserved,
    /// What the engine says of its channels.
    pub engine: EngineWatch,
    /// Places in our engine's listeners.
    pub places: EnginePlaces,
    /// Streams of one peer at most.
    pub max_streams: u32,
    /// How long a stream waits for one.
    pub hold: Duration,
    /// How long the engine may take to accept.
    pub dial_timeout: Duration,
    /// TCP keepalive towards the engine.
    pub keepalive: Duration,
    /// How long an answer waits for the engine's first bytes.
    pub moments: Moments,
    /// Cancelled when the daemon stops taking new streams.
    pub closing: CancellationToken,
}

/// Takes streams until the tunnel ends; streams under way end with it.
pub async fn serve(tunnel: &Tunnel, peer: &Arc<Peer>, context: &ListenerContext) {
    let mut taking = JoinSet::new();
    // Shared: a copy in the task of every stream would be there several times.
    let context = Arc::new(context.clone());
    // In a task of its own: what else looks after the tunnel is not woken with every stream.
    taking.spawn(take_streams(tunnel.clone(), peer.clone(), context));
    let ended = taking.join_next().await;
    if let Some(Err(error)) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

async fn take_streams(tunnel: Tunnel, peer: Arc<Peer>, context: Arc<ListenerContext>) {
    let mut streams = JoinSet::new();
    let mut room = StreamRoom::new(context.max_streams);
    let mut taken: usize = 0;
    loop {
        tokio::select! {
            accepted = tunnel.connection().accept_bi() => {
                let Ok((send, recv)) = accepted else { return };
                let (tunnel, peer, context) = (tunnel.clone(), peer.clone(), context.clone());
                if let Some(streams) = room.grow(streams.len() + 1) {
                    tunnel.make_room(streams);
                }
                let send = SendHalf::new(send, &tunnel);
                streams.spawn(async move { stream(&tunnel, &peer, context, send, recv).await });
                taken += 1;
                if taken.is_multiple_of(STREAMS_PER_TURN) {
                    yield_now().await;
                }
            }
            Some(_) = streams.join_next() => {}
        }
    }
}

async fn stream(
    tunnel: &Tunnel,
    peer: &Arc<Peer>,
    context: Arc<ListenerContext>,
    mut send: SendHalf,
    mut recv: RecvStream,
) {
    let admitted = match timeout(HEADER_TIMEOUT, admit(tunnel, peer, &context, &mut recv)).await {
        Ok(Ok(admitted)) => admitted,
        Ok(Err(denied)) => {
            context.audit.refused(denied.refusal(peer.key));
            return refuse(send, recv, denied.code).await;
        }
        Err(_) => {
            context.audit.refused(Denied::nameless(OurReason::NoHeader).refusal(peer.key));
            return refuse(send, recv, RefusalCode::Malformed).await;
        }
    };
    let Admitted { permit, destination, traffic, trace, guard } = admitted;
    let engine = match destination {
        Destination::Engine(engine) => engine,
        Destination::Admin(owner) => {
            let record = context.audit.admin_stream(permit.entry.id, Role::Listener, trace);
            let admin = Admin { owner, permit, traffic, record, _open: (guard, peer.stream_opened()) };
            // Apart, on the heap: the task of every stream, of channel data too, would be as large as this.
            return Box::pin(admin.serve(peer, send, recv)).await;
        }
    };
    let record = context.audit.stream(permit.entry.id, Role::Listener, trace);
    let name = record.key();
    let dialled = {
        let without_place = WithoutPlace::default();
        let dialling = reach_engine(&permit, peer.key, engine, &traffic, &without_place, &context);
        let dialled = tokio::select! {
            dialled = permit.allowed.run_until_cancelled(dialling) => Some(dialled),
            () = given_up(&mut send, &mut recv) => None,
        };
        dialled.ok_or_else(|| without_place.given_up())
    };
    let dialled = match dialled {
        Ok(dialled) => dialled,
        // Nothing of it was delivered, and whoever still listens counts none of it.
        Err(why) => {
            record.refused(RefusedBy::Partner, OurReason::GaveUp);
            if matches!(why, Unreached::Full(_)) {
                traffic.note_problem(why.problem(engine));
            }
            return refuse_with(send, recv, &why.answer()).await;
        }
    };
    let (socket, _place) = match dialled.unwrap_or(Err(RefusalCode::NotAllowed.into())) {
        Ok(reached) => reached,
        Err(refusal) => {
            traffic.refused.fetch_add(1, Relaxed);
            // The engine's own word is better than what its socket did.
            let explained = engine_refused(refusal.code()).then(|| context.engine.explain_refusal(engine)).flatten();
            let (refusal, problem) = match explained {
                Some((code, problem)) => (code.into(), problem),
                None => {
                    let problem = refusal.problem(engine);
                    (refusal, problem)
                }
            };
            traffic.note_problem(problem);
            record.refused(RefusedBy::Us, refusal.code());
            if let Some(failures) = traffic.tell(Failure::Refused) {
                say_of(name, || info!(code = %refusal.code(), failures, "stream refused"));
            }
            return refuse_with(send, recv, &refusal.answer()).await;
        }
    };
    traffic.clear_problem();
    record.opened();
    let _open = (guard, peer.stream_opened());
    let observer = Observer::of(traffic.clone(), Role::Listener, &permit.entry, &context.unobserved, true);
    let engine_says = context.engine.clone();
    let splicing = SpliceContext {
        traffic: traffic.clone(),
        observer,
        record,
        allowed: permit.allowed,
        opening: Opening::OwesAnswer { reached_at: Instant::now(), moments: context.moments.clone() },
        engine_says,
        limits: permit.entry.limits,
    };
    match splice(socket, send, recv, splicing).await {
        Ok(()) => {
            traffic.finished.fetch_add(1, Relaxed);
            if enabled!(Level::DEBUG) {
                say_of(name, || debug!("stream finished"));
            }
        }
        Err(error) => {
            traffic.reset.fetch_add(1, Relaxed);
            if enabled!(Level::DEBUG) {
                say_of(name, || debug!(%error, "stream reset"));
            }
        }
    }
}

/// Resolves when a stream is not waited for any more: its engine left, or its gateway has no more time for our answer.
async fn given_up(send: &mut SendHalf, recv: &mut RecvStream) {
    let stopped = send.stopped();
    let reset = async {
        if let Ok(None) = recv.received_reset().await {
            // Everything is there; that is no end.
            pending().await
        }
    };
    tokio::select! {
        _ = stopped => {}
        () = reset => {}
    }
}

/// An admin stream that was admitted.
struct Admin {
    owner: OwnerEnd,
    permit: Permit,
    traffic: Arc<Traffic>,
    record: Box<StreamRecord>,
    _open: (StreamGuard, PeerStream),
}

impl Admin {
    async fn serve(self, peer: &Peer, mut send: SendHalf, mut recv: RecvStream) {
        let span = span_of(self.record.key());
        let serving = async move {
            let opening = timeout(HEADER_TIMEOUT, self.owner.opening(&mut recv)).await;
            let user = match opening.unwrap_or(Err(RefusalCode::NoActingUser)) {
                Ok(user) => user,
                Err(code) => {
                    self.record.refused(RefusedBy::Us, code);
                    return refuse(send, recv, code).await;
                }
            };
            if send.write_all(&Answer::Accepted.encode()).await.is_ok() {
                self.traffic.clear_problem();
                self.record.opened();
                let counted = (self.traffic, self.record);
                self.owner.serve(self.permit, peer.name(), user, (send, recv), counted).await;
            }
        };
        serving.instrument(span).await;
    }
}

/// Answers, finishes, and stops what the peer still sends.
async fn refuse(send: SendHalf, recv: RecvStream, code: RefusalCode) {
    refuse_with(send, recv, &Answer::Refused(code).encode()).await;
}

async fn refuse_with(mut send: SendHalf, mut recv: RecvStream, answer: &[u8]) {
    if send.write_all(answer).await.is_ok() {
        send.finish();
    }
    let _ = recv.stop(VarInt::from_u32(ResetCode::Refused as u32));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Site, tunnel};

    const LIMIT: Duration = Duration::from_secs(10);

    fn future_len<'a, F: Future>(
        _: impl Fn(&'a Tunnel, &'a Arc<Peer>, Arc<ListenerContext>, SendHalf, RecvStream) -> F,
    ) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_a_channel_data_stream_carries_its_copy_loops_and_little_else() {
        let length = future_len(stream);
        assert!(length < 5 << 10, "{length} bytes");
    }

    #[tokio::test]
    async fn a_stream_that_its_sender_gave_up_is_not_waited_with_and_is_told_that_nothing_was_delivered() {
        let (far, near) = Site::two();
        let (from, to) = tunnel(&far, &near).await;
        let (mut send, mut answer) = from.open_bi().await.unwrap();
        send.write_all(b"hello").await.unwrap();
        let (near_send, mut near_recv) = to.accept_bi().await.unwrap();
        let mut near_send = SendHalf::new(near_send, &Tunnel::new(to.clone()));
        near_recv.read_exact(&mut [0]).await.unwrap();
        {
            let mut waiting = std::pin::pin!(given_up(&mut near_send, &mut near_recv));
            assert!(futures_util::poll!(&mut waiting).is_pending());
            send.reset(VarInt::from_u32(ResetCode::GaveUp as u32)).unwrap();
            timeout(LIMIT, waiting).await.expect("a reset is a way to give up");
        }
        refuse(near_send, near_recv, RefusalCode::TooLate).await;
        let told = timeout(LIMIT, answer.read_to_end(1000)).await.unwrap().unwrap();
        assert_eq!(told, Answer::Refused(RefusalCode::TooLate).encode());
    }

    #[tokio::test]
    async fn an_engine_that_has_sent_everything_still_waits_for_its_answer() {
        let (far, near) = Site::two();
        let (from, to) = tunnel(&far, &near).await;
        let (mut send, answer) = from.open_bi().await.unwrap();
        send.write_all(b"hello").await.unwrap();
        send.finish().unwrap();
        let (near_send, mut near_recv) = to.accept_bi().await.unwrap();
        let mut near_send = SendHalf::new(near_send, &Tunnel::new(to.clone()));
        // By then the end of the stream is here too: it came with a byte that was read.
        near_recv.read_exact(&mut [0; 5]).await.unwrap();
        let mut waiting = std::pin::pin!(given_up(&mut near_send, &mut near_recv));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(answer);
        timeout(LIMIT, waiting).await.expect("it does not listen any more");
    }
}
