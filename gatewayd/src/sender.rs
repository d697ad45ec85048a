//! Local ports for the engine: open while their connection may carry data, a tunnel stream per accepted socket.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use gateway_net::{causes::with_causes, entropy::random};
use gateway_proto::{
    audit::note::{OurReason, Reason, Refusal, RefusedBy, StreamRole},
    id::ConnectionId,
    policy::LocalEnd,
    stream::{RefusalCode, StreamHeader, StreamKind},
};
use quinn::RecvStream;
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, info_span, warn};

use crate::{
    admin::user::UserEnd,
    audit::{AuditLog, StreamRecord},
    authority::{Authority, PolicyView},
    config::MAX_HOLD,
    engine::EngineWatch,
    engine_socket::{EngineSocket, set_up},
    gate::{Gate, Permit},
    observer::{Observer, Unobserved},
    peer::Peer,
    ports::LocalPorts,
    splice::{Opening, SendHalf, SpliceContext, SpliceError, splice},
    traffic::{Role, StreamGuard, Traffic, TrafficTable, WaitFor},
    tunnel::Tunnel,
};

/// Pause before a port that could not be opened is tried again.
const BIND_RETRY: Duration = Duration::from_secs(1);
/// The far side's answer has so much longer than the hold. Both together stay below the 5 s after which an engine gives up, so
/// that it sees our reset and not its own timeout.
const ANSWER_TIME: Duration = Duration::from_millis(1_500);
/// Ports asked of the system before giving up for this time.
const PORT_TRIES: u32 = 16;
/// Pause after `accept` failed, so that a lack of file descriptors is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What senders share.
#[derive(Debug, Clone)]
pub struct SenderContext {
    /// Who may.
    pub gate: Gate,
    /// Tells when the policy changes.
    pub authority: Authority,
    /// Ports that were chosen before.
    pub ports: LocalPorts,
    /// Records streams and refusals.
    pub audit: AuditLog,
    /// Counters.
    pub traffic: TrafficTable,
    /// Connections that are not looked into.
    pub unobserved: Unobserved,
    /// Local ports for administrators.
    pub admin: UserEnd,
    /// Address of the local ports.
    pub bind: IpAddr,
    /// How long an accepted socket waits for a tunnel.
    pub hold: Duration,
    /// TCP keepalive towards the engine.
    pub keepalive: Duration,
    /// Cancelled when the daemon stops taking new streams.
    pub closing: CancellationToken,
}

/// One sender connection.
#[derive(Debug)]
pub struct Sender {
    id: ConnectionId,
    peer: Arc<Peer>,
    context: SenderContext,
    traffic: Arc<Traffic>,
    local: Arc<Mutex<Option<SocketAddr>>>,
}

/// The front of a sender, for status.
#[derive(Debug, Clone)]
pub struct SenderHandle {
    local: Arc<Mutex<Option<SocketAddr>>>,
}

impl SenderHandle {
    /// The local address the engine connects to, while it is open.
    pub fn local_address(&self) -> Option<SocketAddr> {
        *self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sender {
    /// A sender for a connection of the policy.
    pub fn new(id: ConnectionId, peer: Arc<Peer>, context: SenderContext) -> (Self, SenderHandle) {
        let local: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let traffic = context.traffic.of(id, Role::Sender);
        let handle = SenderHandle { local: Arc::clone(&local) };
        (Self { id, peer, context, traffic, local }, handle)
    }

    /// Opens and closes the port as the policy allows, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut views = self.context.authority.subscribe();
        let stop = &stop;
        stop.run_until_cancelled(async {
            loop {
                views.mark_unchanged();
                match self.context.gate.enter(self.id, Role::Sender) {
                    Ok(permit) => self.while_allowed(permit).await,
                    Err(_) => {
                        if views.changed().await.is_err() {
                            return;
                        }
                    }
                }
            }
        })
        .await;
        self.set_local(None);
    }

    fn set_local(&self, address: Option<SocketAddr>) {
        *self.local.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    /// The port is open from here to the end of the permission.
    async fn while_allowed(&self, permit: Permit) {
        let allowed = permit.allowed.clone();
        let listener = match self.open_port(&permit) {
            Ok(listener) => listener,
            Err(error) => {
                self.traffic.note_problem(with_causes(&error));
                warn!(connection = %self.id, error = with_causes(&error), "cannot open the local port");
                allowed.run_until_cancelled(sleep(BIND_RETRY)).await;
                return;
            }
        };
        self.traffic.clear_problem();
        self.set_local(listener.local_addr().ok());
        let mut streams = JoinSet::new();
        tokio::select! {
            () = allowed.cancelled() => {}
            () = self.context.closing.cancelled() => {}
            // Another port in the policy: the streams of the former one end with it.
            () = self.another_port(&permit) => return self.set_local(None),
            () = self.accept(&listener, &mut streams) => {}
        }
        self.set_local(None);
        drop(listener);
        // Streams see the end of the permission by themselves and reset both sides; here they are waited for.
        while streams.join_next().await.is_some() {}
        allowed.cancelled().await;
    }

    async fn another_port(&self, permit: &Permit) {
        let mut views = self.context.authority.subscribe();
        let differs = |view: &Arc<PolicyView>| {
            view.connection(self.id, true).is_some_and(|entry| entry.local != permit.entry.local)
        };
        if views.wait_for(differs).await.is_err() {
            std::future::pending().await
        }
    }

    fn open_port(&self, permit: &Permit) -> Result<TcpListener, PortError> {
        let wanted = match permit.entry.local {
            LocalEnd::Sender { port } | LocalEnd::AdminUser { port } => port,
            LocalEnd::Listener { .. } | LocalEnd::AdminOwner => 0,
        };
        let remembered = self.context.ports.get(self.id).unwrap_or(0);
        let port = if wanted == 0 { remembered } else { wanted };
        let bind_ip = if permit.entry.kind.is_admin() { self.context.admin.bind } else { self.context.bind };
        let address = SocketAddr::new(bind_ip, port);
        // The engine's configuration names the port: one that was chosen is kept, and waited for while it is taken.
        if port != 0 {
            return bind(address, self.context.keepalive).map_err(|source| PortError::Bind { address, source });
        }
        // Not one that belongs to another connection whose port is closed just now: the engine would send it there.
        for _ in 0..PORT_TRIES {
            let listener =
                bind(address, self.context.keepalive).map_err(|source| PortError::Bind { address, source })?;
            let chosen = listener.local_addr().map_err(|source| PortError::Bind { address, source })?.port();
            if self.context.ports.choose(self.id, chosen).map_err(PortError::Remember)? {
                return Ok(listener);
            }
        }
        Err(PortError::NoneFree)
    }

    async fn accept(&self, listener: &TcpListener, streams: &mut JoinSet<()>) {
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((socket, _)) => self.take(socket, streams),
                    Err(error) => {
                        debug!(connection = %self.id, %error, "accept failed");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = streams.join_next() => {}
            }
        }
    }

    fn take(&self, socket: TcpStream, streams: &mut JoinSet<()>) {
        // From here on, dropping the socket resets it.
        let socket = EngineSocket::accepted(socket);
        let permit = match self.context.gate.enter(self.id, Role::Sender) {
            Ok(permit) => permit,
            Err(denied) => return self.refused(denied, StreamRole::Sender),
        };
        let Some(guard) = self.traffic.open_stream(permit.entry.max_streams) else {
            let role = if permit.entry.kind.is_admin() { StreamRole::AdminUser } else { StreamRole::Sender };
            self.refused(RefusalCode::TooManyStreams, role);
            self.traffic.refused.fetch_add(1, Relaxed);
            self.traffic.note_problem(format!("the limit of {} open streams is reached", permit.entry.max_streams));
            return;
        };
        if permit.entry.kind.is_admin() {
            return self.take_admin(socket, permit, guard, streams);
        }
        let trace = u64::from_be_bytes(random());
        let stream = OutboundStream {
            permit,
            peer: self.peer.clone(),
            traffic: self.traffic.clone(),
            unobserved: self.context.unobserved.clone(),
            record: self.context.audit.stream(self.id, Role::Sender, trace),
            hold: self.context.hold,
            trace,
        };
        let span = info_span!(
            "stream", connection = %self.id, trace = format_args!("{:016x}", stream.trace), role = "sender"
        );
        streams.spawn(
            async move {
                let _guard = guard;
                stream.run(socket).await;
            }
            .instrument(span),
        );
    }
}

impl Sender {
    /// A connection of our engine that gets no stream.
    fn refused(&self, reason: impl Into<Reason>, role: StreamRole) {
        let connection = Some((self.id, role));
        self.context.audit.refused(Refusal { connection, ..Refusal::of_stream(reason) });
    }

    /// A connection of an administrator.
    fn take_admin(&self, socket: EngineSocket, permit: Permit, guard: StreamGuard, streams: &mut JoinSet<()>) {
        let (end, peer, traffic) = (self.context.admin.clone(), self.peer.clone(), self.traffic.clone());
        let trace = u64::from_be_bytes(random());
        let record = self.context.audit.admin_stream(self.id, Role::Sender, trace);
        let span = info_span!(
            "stream", connection = %self.id, trace = format_args!("{trace:016x}"), role = "admin user"
        );
        let carried = async move {
            let _guard = guard;
            match end.carry(socket.into_inner(), permit, &peer, (&traffic, &record), trace).await {
                Ok(()) => {
                    traffic.finished.fetch_add(1, Relaxed);
                    traffic.clear_problem();
                }
                Err(problem) => {
                    traffic.reset.fetch_add(1, Relaxed);
                    traffic.note_problem(problem);
                }
            }
        };
        streams.spawn(carried.instrument(span));
    }
}

/// Why a local port is not open.
#[derive(Debug, thiserror::Error)]
enum PortError {
    #[error("cannot open the local port {address}; stop what uses it, or choose another port for the connection")]
    Bind { address: SocketAddr, source: io::Error },
    #[error("every local port the system offered belongs to another connection")]
    NoneFree,
    #[error("cannot remember the chosen port in the state directory")]
    Remember(#[source] crate::store::StoreError),
}

fn bind(address: SocketAddr, keepalive: Duration) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    // The port comes back at once after a restart, although former conversations may still be in TIME_WAIT.
    socket.set_reuse_address(true)?;
    set_up(SockRef::from(&socket), keepalive)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

struct OutboundStream {
    permit: Permit,
    peer: Arc<Peer>,
    traffic: Arc<Traffic>,
    unobserved: Unobserved,
    record: Box<StreamRecord>,
    hold: Duration,
    trace: u64,
}

/// Why an accepted socket got no stream.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("no tunnel to the partner's gateway within {0:?}; the partner is offline or no path works")]
    NoTunnel(Duration),
    #[error("the tunnel to the partner was lost")]
    TunnelLost,
    #[error("the tunnel to the partner has no place for another stream")]
    NoPlace,
    #[error("the engine closed its connection while it waited")]
    EngineGone,
    #[error("the connection is no longer allowed")]
    NotAllowed,
}

impl OpenError {
    fn record(&self, record: &StreamRecord) {
        match self {
            Self::NoTunnel(_) => record.refused(RefusedBy::Us, OurReason::NoTunnel),
            Self::TunnelLost => record.refused(RefusedBy::Us, OurReason::TunnelLost),
            Self::NoPlace => record.refused(RefusedBy::Us, OurReason::NoAnswer),
            Self::EngineGone => record.refused(RefusedBy::Us, OurReason::GaveUp),
            Self::NotAllowed => record.refused(RefusedBy::Us, RefusalCode::NotAllowed),
        }
    }
}

impl OutboundStream {
    async fn run(self, socket: EngineSocket) {
        let _open = self.peer.stream_opened();
        let answer_by = Instant::now() + (self.hold + ANSWER_TIME).min(MAX_HOLD);
        let opened = tokio::select! {
            () = self.permit.allowed.cancelled() => Err(OpenError::NotAllowed),
            () = socket.gone() => Err(OpenError::EngineGone),
            opened = self.open(answer_by) => opened,
        };
        // On an error the socket is dropped here, and so reset.
        let (send, recv) = match opened {
            Ok(halves) => halves,
            Err(error) => {
                error.record(&self.record);
                return no_stream(&self.traffic, &error);
            }
        };
        let context = SpliceContext {
            traffic: self.traffic.clone(),
            observer: Observer::of(self.traffic.clone(), Role::Sender, &self.permit.entry, &self.unobserved, false),
            record: self.record,
            allowed: self.permit.allowed.clone(),
            opening: Opening::AnsweredBy(answer_by),
            engine_says: EngineWatch::none(),
        };
        match splice(socket, send, recv, context).await {
            Ok(()) => {
                self.traffic.finished.fetch_add(1, Relaxed);
                debug!("stream finished");
            }
            Err(error @ (SpliceError::Refused(_) | SpliceError::ListenerFull(_) | SpliceError::NoAnswer)) => {
                no_stream(&self.traffic, &error)
            }
            Err(error) => {
                self.traffic.reset.fetch_add(1, Relaxed);
                self.traffic.note_problem(error.to_string());
                info!(%error, "the engine's connection was reset");
            }
        }
    }

    /// Opens the stream and sends its header; the answer is the splice's to read, behind our engine's first bytes.
    async fn open(&self, answer_by: Instant) -> Result<(SendHalf, RecvStream), OpenError> {
        let waiting = self.traffic.wait(WaitFor::Tunnel, Instant::now() + self.hold);
        let tunnel = timeout(self.hold, tunnel_up(self.peer.tunnel.subscribe()))
            .await
            .map_err(|_| OpenError::NoTunnel(self.hold))?;
        drop(waiting);
        let opening = timeout_at(answer_by, tunnel.connection().open_bi());
        let (send, recv) = opening.await.map_err(|_| OpenError::NoPlace)?.map_err(|_| OpenError::TunnelLost)?;
        let mut send = SendHalf::new(send);
        let id = self.permit.entry.id;
        let exporter = tunnel.exporter(id).ok_or(OpenError::TunnelLost)?;
        let secret = &self.permit.entry.secrets.first().ok_or(OpenError::NotAllowed)?.secret;
        let header = StreamHeader { kind: StreamKind::ChannelData, connection: id, trace: self.trace };
        send.stream().write_all(&header.encode(secret, &exporter)).await.map_err(|_| OpenError::TunnelLost)?;
        Ok((send, recv))
    }
}

fn no_stream(traffic: &Traffic, error: &(dyn std::error::Error + 'static)) {
    traffic.refused.fetch_add(1, Relaxed);
    traffic.note_problem(with_causes(error));
    info!(reason = with_causes(error), "the engine's connection was reset: no stream");
}

/// The tunnel in use, as soon as there is one.
pub(crate) async fn tunnel_up(mut tunnel: watch::Receiver<Option<Tunnel>>) -> Tunnel {
    loop {
        if let Ok(up) = tunnel.wait_for(Option::is_some).await
            && let Some(tunnel) = &*up
        {
            return tunnel.clone();
        }
        // The peer was removed; the permission ends with it and takes this stream along.
        std::future::pending::<()>().await;
    }
}
