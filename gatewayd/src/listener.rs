//! Streams that a peer opens: read the header, authorize against the policy in force, see whether the engine's port is still
//! that of the channel that was granted, dial the engine, answer, copy.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use gateway_proto::{
    audit::note::{OurReason, Reason, Refusal, RefusedBy, StreamRole},
    engine::port_owner::NotOurs,
    id::ConnectionId,
    identity::GatewayPublicKey,
    policy::{DeniedReason, HL7V2_MLLP, LocalEnd},
    stream::{Answer, HEADER_LEN, HeaderError, RefusalCode, ResetCode, StreamHeader, StreamKind},
};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, info_span};

use crate::{
    admin::owner::OwnerEnd,
    audit::{AuditLog, StreamRecord},
    authority::Authority,
    engine::EngineWatch,
    engine_socket::EngineSocket,
    gate::{Gate, Permit},
    observer::{Observer, Unobserved},
    peer::{Peer, PeerStream},
    places::{EnginePlaces, ListenerFull, Place},
    splice::{Opening, SendHalf, SpliceContext, splice},
    traffic::{Role, StreamGuard, Traffic, TrafficTable, WaitFor},
    tunnel::{StreamRoom, Tunnel},
};

/// A peer that opens a stream sends its header at once.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A listener that is full closes at once. After somebody left, the engine needs a moment to know it.
const CLOSED_AT_ONCE: Duration = Duration::from_millis(30);

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
    /// Cancelled when the daemon stops taking new streams.
    pub closing: CancellationToken,
}

/// Takes streams until the tunnel ends; streams under way end with it.
pub async fn serve(tunnel: &Tunnel, peer: &Arc<Peer>, context: &ListenerContext) {
    let mut streams = JoinSet::new();
    let mut room = StreamRoom::new(context.max_streams);
    // Shared: a copy in the task of every stream would be there several times.
    let context = Arc::new(context.clone());
    loop {
        tokio::select! {
            accepted = tunnel.connection().accept_bi() => {
                let Ok((send, recv)) = accepted else { return };
                let (tunnel, peer, context) = (tunnel.clone(), peer.clone(), context.clone());
                if let Some(streams) = room.grow(streams.len() + 1) {
                    tunnel.make_room(streams);
                }
                streams.spawn(async move { stream(&tunnel, &peer, context, SendHalf::new(send), recv).await });
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
            let admin = Admin { owner, permit, traffic, trace, record, _open: (guard, peer.stream_opened()) };
            // Apart, on the heap: the task of every stream, of channel data too, would be as large as this.
            return Box::pin(admin.serve(peer, send, recv)).await;
        }
    };
    let record = context.audit.stream(permit.entry.id, Role::Listener, trace);
    let span =
        info_span!("stream", connection = %permit.entry.id, trace = format_args!("{trace:016x}"), role = "listener");
    async move {
        let dialling = reach_engine(&permit, peer.key, engine, &traffic, &context);
        let gone = send.stream().stopped();
        let dialled = tokio::select! {
            dialled = permit.allowed.run_until_cancelled(dialling) => dialled,
            // The far engine left while we waited for a place.
            _ = gone => return record.refused(RefusedBy::Partner, OurReason::GaveUp),
        };
        let (socket, _place) = match dialled.unwrap_or(Err(RefusalCode::NotAllowed.into())) {
            Ok(reached) => reached,
            Err(refusal) => {
                traffic.refused.fetch_add(1, Relaxed);
                // The engine's own word is better than what its socket did.
                let explained =
                    engine_refused(refusal.code()).then(|| context.engine.explain_refusal(engine)).flatten();
                let (refusal, problem) = match explained {
                    Some((code, problem)) => (code.into(), problem),
                    None => {
                        let problem = refusal.problem(engine);
                        (refusal, problem)
                    }
                };
                traffic.note_problem(problem);
                record.refused(RefusedBy::Us, refusal.code());
                info!(code = %refusal.code(), "stream refused");
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
            opening: Opening::OwesAnswer,
            engine_says,
        };
        match splice(socket, send, recv, splicing).await {
            Ok(()) => {
                traffic.finished.fetch_add(1, Relaxed);
                debug!("stream finished");
            }
            Err(error) => {
                traffic.reset.fetch_add(1, Relaxed);
                debug!(%error, "stream reset");
            }
        }
    }
    .instrument(span)
    .await;
}

struct Admitted {
    permit: Permit,
    destination: Destination,
    traffic: Arc<Traffic>,
    trace: u64,
    guard: StreamGuard,
}

enum Destination {
    Engine(SocketAddr),
    Admin(OwnerEnd),
}

/// An admin stream that was admitted.
struct Admin {
    owner: OwnerEnd,
    permit: Permit,
    traffic: Arc<Traffic>,
    trace: u64,
    record: Box<StreamRecord>,
    _open: (StreamGuard, PeerStream),
}

impl Admin {
    async fn serve(self, peer: &Peer, mut send: SendHalf, mut recv: RecvStream) {
        let span = info_span!(
            "stream", connection = %self.permit.entry.id, trace = format_args!("{:016x}", self.trace), role = "admin owner"
        );
        let serving = async move {
            let opening = timeout(HEADER_TIMEOUT, self.owner.opening(&mut recv)).await;
            let user = match opening.unwrap_or(Err(RefusalCode::NoActingUser)) {
                Ok(user) => user,
                Err(code) => {
                    self.record.refused(RefusedBy::Us, code);
                    return refuse(send, recv, code).await;
                }
            };
            if send.stream().write_all(&Answer::Accepted.encode()).await.is_ok() {
                self.traffic.clear_problem();
                self.record.opened();
                let counted = (self.traffic, self.record);
                self.owner.serve(self.permit, peer.name(), user, (send, recv), counted).await;
            }
        };
        serving.instrument(span).await;
    }
}

/// Why a stream is not admitted: what its peer is told, and what is recorded.
#[derive(Debug, Clone, Copy)]
struct Denied {
    code: RefusalCode,
    reason: Reason,
    /// The connection it names, if our policy has it, and the stream's trace.
    named: Option<(ConnectionId, StreamRole, u64)>,
}

impl Denied {
    fn nameless(reason: impl Into<Reason>) -> Self {
        Self { code: RefusalCode::Malformed, reason: reason.into(), named: None }
    }

    fn refusal(self, peer: GatewayPublicKey) -> Refusal {
        let connection = self.named.map(|(id, role, _)| (id, role));
        let trace = self.named.map_or(0, |(_, _, trace)| trace);
        Refusal { peer: Some(peer), connection, trace, ..Refusal::of_stream(self.reason) }
    }
}

/// Everything that must be true before the engine is dialled. What a stranger to the connection gets wrong, whatever
/// it is, is answered by one code, so that nothing about other connections can be learned.
async fn admit(
    tunnel: &Tunnel,
    peer: &Peer,
    context: &ListenerContext,
    recv: &mut RecvStream,
) -> Result<Admitted, Denied> {
    let mut bytes = [0; HEADER_LEN];
    recv.read_exact(&mut bytes).await.map_err(|_| Denied::nameless(OurReason::NoHeader))?;
    let header = StreamHeader::decode(&bytes).map_err(|error| match error {
        HeaderError::Version(_) => {
            let code = RefusalCode::UnsupportedVersion;
            Denied { code, ..Denied::nameless(code) }
        }
        HeaderError::Malformed => Denied::nameless(RefusalCode::Malformed),
    })?;
    let view = context.authority.view();
    let listed = view.connection(header.connection, false);
    let role = match listed.map(|entry| entry.kind.is_admin()) {
        Some(true) => StreamRole::AdminOwner,
        Some(false) | None => StreamRole::Listener,
    };
    let named = listed.map(|_| (header.connection, role, header.trace));
    let told = |code: RefusalCode| Denied { code, reason: code.into(), named };
    let ours = |reason: OurReason| Denied { code: RefusalCode::NotAllowed, reason: reason.into(), named };
    if context.closing.is_cancelled() {
        return Err(told(RefusalCode::ShuttingDown));
    }
    let entry = listed.filter(|entry| entry.peer == peer.key).ok_or_else(|| ours(OurReason::UnknownConnection))?;
    let exporter = tunnel.exporter(header.connection).ok_or_else(|| ours(OurReason::TunnelLost))?;
    if !StreamHeader::verify(&bytes, entry.valid_secrets(context.authority.now()), &exporter) {
        info!(peer = %peer.key.short(), connection = %header.connection, "stream header with a wrong MAC refused");
        return Err(ours(OurReason::WrongSecret));
    }
    let traffic = context.traffic.of(header.connection, Role::Listener);
    let denied = |reason: DeniedReason| {
        traffic.refused.fetch_add(1, Relaxed);
        info!(connection = %header.connection, %reason, "stream refused");
        told(reason.into())
    };
    let permit = context.gate.enter(header.connection, Role::Listener).map_err(denied)?;
    let destination = match (&permit.entry.local, header.kind) {
        (LocalEnd::Listener { engine, .. }, StreamKind::ChannelData) => Destination::Engine(*engine),
        (LocalEnd::AdminOwner, StreamKind::Admin) => {
            let Some(owner) = &context.admin else {
                traffic.refused.fetch_add(1, Relaxed);
                traffic.note_problem("our engine's admin API is not configured: set api in the section [engine]");
                return Err(told(RefusalCode::AdminUnavailable));
            };
            Destination::Admin(owner.clone())
        }
        (LocalEnd::Listener { .. }, StreamKind::Admin)
        | (LocalEnd::AdminOwner, StreamKind::ChannelData)
        | (LocalEnd::Sender { .. } | LocalEnd::AdminUser { .. }, _) => return Err(told(RefusalCode::WrongDirection)),
    };
    let Some(guard) = traffic.open_stream(permit.entry.max_streams) else {
        traffic.refused.fetch_add(1, Relaxed);
        traffic.note_problem(format!("the limit of {} open streams is reached", permit.entry.max_streams));
        return Err(told(RefusalCode::TooManyStreams));
    };
    Ok(Admitted { permit, destination, traffic, trace: header.trace, guard })
}

async fn dial(engine: SocketAddr, context: &ListenerContext) -> Result<EngineSocket, RefusalCode> {
    let socket = timeout(context.dial_timeout, TcpStream::connect(engine))
        .await
        .map_err(|_| RefusalCode::EngineTimeout)?
        .map_err(|_| RefusalCode::EngineRefused)?;
    EngineSocket::connected(socket, context.keepalive).map_err(|_| RefusalCode::EngineRefused)
}

fn engine_refused(code: RefusalCode) -> bool {
    matches!(code, RefusalCode::EngineRefused | RefusalCode::EngineTimeout)
}

/// Why there is no conversation with our engine.
#[derive(Debug)]
enum Unreached {
    Code(RefusalCode),
    Full(ListenerFull),
    /// On the heap: the task of every stream would be as large as this.
    NotOurs(Box<NotOurs>),
}

impl From<RefusalCode> for Unreached {
    fn from(code: RefusalCode) -> Self {
        Self::Code(code)
    }
}

impl Unreached {
    fn code(&self) -> RefusalCode {
        match self {
            Self::Code(code) => *code,
            Self::Full(_) => RefusalCode::ListenerFull,
            Self::NotOurs(_) => RefusalCode::ChannelStopped,
        }
    }

    fn answer(&self) -> Vec<u8> {
        match self {
            Self::Code(_) | Self::NotOurs(_) => Answer::Refused(self.code()).encode(),
            Self::Full(full) => Answer::listener_full(full.most),
        }
    }

    fn problem(&self, engine: SocketAddr) -> String {
        let what = match self {
            Self::Full(full) => return full.to_string(),
            Self::NotOurs(not_ours) => return not_ours.to_string(),
            Self::Code(RefusalCode::EngineTimeout) => "does not answer",
            Self::Code(RefusalCode::EngineRefused) => "refuses the connection",
            Self::Code(code) => return code.to_string(),
        };
        format!("our engine {what} on {engine}: is the channel started?")
    }
}

/// Whether a listener closes connections beyond a number: those for MLLP do, and those of which the engine says so.
pub(crate) fn has_places(behavior: &str, engine: SocketAddr, places: &EnginePlaces) -> bool {
    behavior == HL7V2_MLLP || places.is_known(engine)
}

/// Connects to our engine, once it has a place for us: an MLLP listener closes a connection beyond its limit at once,
/// without a byte, and to the far engine that is a lost message.
async fn reach_engine(
    permit: &Permit,
    peer: GatewayPublicKey,
    engine: SocketAddr,
    traffic: &Arc<Traffic>,
    context: &ListenerContext,
) -> Result<(EngineSocket, Option<Place>), Unreached> {
    is_granted(permit, engine, context).await?;
    if !has_places(&permit.entry.behavior, engine, &context.places) {
        return Ok((dial(engine, context).await?, None));
    }
    let deadline = Instant::now() + context.hold;
    let waiting = traffic.wait(WaitFor::Place(context.places.most(engine)), deadline);
    let place = context.places.take(engine, peer, deadline).await.map_err(Unreached::Full)?;
    drop(waiting);
    loop {
        if place.was_waited_for {
            // It may have been stopped meanwhile.
            is_granted(permit, engine, context).await?;
        }
        let socket = dial(engine, context).await?;
        if !place.was_waited_for || !socket.closes_within(CLOSED_AT_ONCE).await {
            return Ok((socket, Some(place)));
        }
        if Instant::now() >= deadline {
            return Err(Unreached::Full(ListenerFull { most: context.places.most(engine) }));
        }
        sleep(CLOSED_AT_ONCE).await;
    }
}

/// Whether what listens at `engine` is the channel that the grant is for, as far as the engine's own word is known.
async fn is_granted(permit: &Permit, engine: SocketAddr, context: &ListenerContext) -> Result<(), Unreached> {
    let Some(id) = permit.entry.local.engine_channel() else { return Ok(()) };
    let checked = context.engine.check_owner(id, engine).await;
    checked.map_err(|not_ours| Unreached::NotOurs(Box::new(not_ours)))
}

/// Answers, finishes, and stops what the peer still sends.
async fn refuse(send: SendHalf, recv: RecvStream, code: RefusalCode) {
    refuse_with(send, recv, &Answer::Refused(code).encode()).await;
}

async fn refuse_with(mut send: SendHalf, mut recv: RecvStream, answer: &[u8]) {
    let stream: &mut SendStream = send.stream();
    if stream.write_all(answer).await.is_ok() {
        send.finish();
    }
    let _ = recv.stop(VarInt::from_u32(ResetCode::Refused as u32));
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
