//! Local ports for the engine: open while their connection may carry data, a tunnel stream per accepted socket.

mod stream;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use gateway_net::{causes::with_causes, entropy::random_name};
use gateway_proto::{
    audit::note::{Reason, Refusal, StreamRole},
    id::ConnectionId,
    stream::RefusalCode,
};
use socket2::SockRef;
use stream::OutboundStream;
pub(crate) use stream::tunnel_up;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, warn};

use crate::{
    admin::user::UserEnd,
    audit::{AuditLog, span_of},
    authority::{Authority, PolicyView},
    engine_socket::{EngineSocket, set_up},
    gate::{Gate, Permit},
    observer::Unobserved,
    peer::Peer,
    ports::{LocalPorts, PortOf},
    traffic::{Role, StreamGuard, Traffic, TrafficTable},
};

/// Pause before a port that could not be opened is tried again.
const BIND_RETRY: Duration = Duration::from_secs(1);
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
    /// Which port belongs to whom.
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
    id: ConnectionId,
    local: Arc<Mutex<Option<SocketAddr>>>,
    ports: LocalPorts,
    bind: IpAddr,
}

impl SenderHandle {
    /// The local address the engine connects to, while it is open.
    pub fn local_address(&self) -> Option<SocketAddr> {
        *self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The local port that belongs to the connection, also while it is closed.
    pub fn kept_port(&self) -> Option<u16> {
        self.ports.get(self.id)
    }

    /// The local address that belongs to the connection, also while its port is closed.
    pub fn kept_address(&self) -> Option<SocketAddr> {
        self.kept_port().map(|port| SocketAddr::new(self.bind, port))
    }
}

impl Sender {
    /// A sender for a connection of the policy.
    pub fn new(id: ConnectionId, peer: Arc<Peer>, context: SenderContext) -> (Self, SenderHandle) {
        let local: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let traffic = context.traffic.of(id, Role::Sender);
        let (ports, bind) = (context.ports.clone(), context.bind);
        let handle = SenderHandle { id, local: Arc::clone(&local), ports, bind };
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
                let problem = with_causes(&error);
                // Once, and not with every try.
                if self.traffic.problem().as_ref() != Some(&problem) {
                    warn!(connection = %self.id, error = problem.as_str(), "cannot open the local port");
                }
                self.traffic.note_problem(problem);
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
        let bind_ip = if permit.entry.kind.is_admin() { self.context.admin.bind } else { self.context.bind };
        let open = |port| {
            let address = SocketAddr::new(bind_ip, port);
            bind(address, self.context.keepalive).map_err(|source| PortError::Bind { address, source })
        };
        // Each time anew: the policy may change between two tries.
        for _ in 0..PORT_TRIES {
            match self.context.ports.of(self.id) {
                // The engine's configuration names the port: one that was chosen is kept, and waited for while it is taken.
                PortOf::Own(port) => return open(port),
                // Not one that belongs to another connection, whose port may be closed just now: the engine would send it there.
                PortOf::TakenBy { port, owner } => return Err(PortError::Taken { port, owner }),
                PortOf::NotListed => return Err(PortError::NotListed),
                PortOf::Any => {}
            }
            let listener = open(0)?;
            let address = SocketAddr::new(bind_ip, 0);
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
        let trace = random_name();
        let stream = OutboundStream {
            permit,
            peer: self.peer.clone(),
            traffic: self.traffic.clone(),
            unobserved: self.context.unobserved.clone(),
            record: self.context.audit.stream(self.id, Role::Sender, trace),
            hold: self.context.hold,
            trace,
        };
        streams.spawn(async move {
            let _guard = guard;
            stream.run(socket).await;
        });
    }

    /// A connection of our engine that gets no stream.
    fn refused(&self, reason: impl Into<Reason>, role: StreamRole) {
        let connection = Some((self.id, role));
        self.context.audit.refused(Refusal { connection, ..Refusal::of_stream(reason) });
    }

    /// A connection of an administrator.
    fn take_admin(&self, socket: EngineSocket, permit: Permit, guard: StreamGuard, streams: &mut JoinSet<()>) {
        let (end, peer, traffic) = (self.context.admin.clone(), self.peer.clone(), self.traffic.clone());
        let trace = random_name();
        let record = self.context.audit.admin_stream(self.id, Role::Sender, trace);
        let span = span_of(record.key());
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
    #[error(
        "the local port {port} belongs to connection {owner} of this gateway, also while that one is closed; choose another port for \
         this connection, or end that one"
    )]
    Taken { port: u16, owner: ConnectionId },
    #[error("the policy does not list the connection any more")]
    NotListed,
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

#[cfg(test)]
mod tests;
