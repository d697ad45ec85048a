//! QUIC for tunnels: the endpoint over our socket, and the control stream whose round trips prove connectivity.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use aws_lc_rs::{digest, hmac};
use gateway_net::{entropy::random, time::unix_ms};
use gateway_proto::{
    identity::{GatewayKey, GatewayPublicKey},
    stream::{ControlFrame, EXPORTER_LABEL, MAX_CONTROL_FRAME_LEN},
};
use quinn::{
    Connection, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, MtuDiscoveryConfig, RecvStream,
    SendStream, TransportConfig, VarInt,
};
use tokio::sync::{Notify, mpsc, watch};

use crate::{
    credentials::{AllowedPeers, Credentials, CredentialsError},
    socket::TunnelSocket,
};

/// QUIC gives a tunnel up after this much silence, and its streams are reset; shorter outages of every path are survived
/// without a lost byte. An engine that waits for an acknowledgement has given up by itself before (5 s by default).
const IDLE_TIMEOUT: Duration = Duration::from_secs(8);
/// First guess of a path's round trip: a lost first packet is sent again after three times this.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// What one stream may hold in our memory before its engine reads it.
const STREAM_WINDOW: u32 = 2 << 20;
/// What all streams of a tunnel may hold together, each way: so much above one stream's share that a connection's usual
/// 64 streams, all with engines that read nothing, do not stop the others.
const TUNNEL_WINDOW: u32 = 144 << 20;
/// Length of our connection ids in bytes.
const CONNECTION_ID_LEN: usize = 8;
/// Handshakes of peers that wait to be looked at.
const MAX_INCOMING: usize = 256;

/// Heartbeat while streams are open.
const ACTIVE_HEARTBEAT: Duration = Duration::from_secs(1);
/// Heartbeat while none is: it also keeps the tunnel from idling out.
const IDLE_HEARTBEAT: Duration = Duration::from_secs(5);
/// A heartbeat unanswered for this long means: not connected.
pub const HEARTBEAT_LIMIT: Duration = Duration::from_millis(2500);
/// Pings of the peer that wait for their answer.
const PONG_QUEUE: usize = 16;

/// Why the endpoint could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Our TLS.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The socket or the runtime.
    #[error("cannot start QUIC on the tunnel socket")]
    Io(#[from] io::Error),
}

/// The QUIC endpoint of this gateway.
#[derive(Debug, Clone)]
pub struct TunnelEndpoint {
    endpoint: Endpoint,
    credentials: Arc<Credentials>,
    transport: Arc<TransportConfig>,
}

impl TunnelEndpoint {
    /// Starts QUIC on our socket. `max_streams` bounds the open streams of each tunnel.
    pub fn new(
        socket: Arc<TunnelSocket>,
        key: &GatewayKey,
        allowed: AllowedPeers,
        max_streams: u32,
    ) -> Result<Self, EndpointError> {
        let credentials = Credentials::new(key)?;
        let transport = Arc::new(transport(max_streams));
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(credentials.server(allowed)?));
        server.transport_config(transport.clone()).max_incoming(MAX_INCOMING).migration(false);
        let runtime = quinn::default_runtime().ok_or_else(|| io::Error::other("no tokio runtime"))?;
        let endpoint = Endpoint::new_with_abstract_socket(endpoint_config(key), Some(server), socket, runtime)?;
        Ok(Self { endpoint, credentials: Arc::new(credentials), transport })
    }

    /// Dials a peer at its made-up address.
    pub fn dial(&self, peer: GatewayPublicKey) -> Result<quinn::Connecting, DialError> {
        let mut config = quinn::ClientConfig::new(Arc::new(self.credentials.client(peer)?));
        config.transport_config(self.transport.clone());
        Ok(self.endpoint.connect_with(config, crate::routes::peer_address(&peer.into()), "gateway")?)
    }

    /// The next tunnel a peer dials; `None` once the endpoint is closed.
    pub async fn accept(&self) -> Option<quinn::Incoming> {
        self.endpoint.accept().await
    }

    /// Closes every tunnel, saying so to the peers, and waits until they know or a short while has passed.
    pub async fn close(&self) {
        self.endpoint.close(VarInt::from_u32(0), b"shutting down");
        let _ = tokio::time::timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
    }
}

/// Why a dial could not even begin.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Our TLS.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The endpoint.
    #[error("cannot dial the peer")]
    Connect(#[from] quinn::ConnectError),
}

/// A restarted gateway answers packets of its former tunnels with a stateless reset (RFC 9000 §10.3), so that the peer
/// learns at once that they are gone; for that the reset key must survive, and is derived from the gateway key.
fn endpoint_config(key: &GatewayKey) -> EndpointConfig {
    let seed = key.seed();
    let derived = digest::digest(&digest::SHA256, &[b"gateway/stateless-reset/1".as_slice(), seed.as_slice()].concat());
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())));
    config.cid_generator(|| Box::new(AnyConnectionId));
    // The socket tells QUIC from probes and STUN by the fixed bit.
    config.grease_quic_bit(false);
    config
}

/// Random connection ids of which none is refused by its looks. quinn's own generator recognises ids of its process
/// only, and would stay silent towards packets for the process before; strangers never come this far.
#[derive(Debug)]
struct AnyConnectionId;

impl ConnectionIdGenerator for AnyConnectionId {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&random::<CONNECTION_ID_LEN>())
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn transport(max_streams: u32) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.black_hole_cooldown(Duration::from_secs(60));
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_TIMEOUT.as_millis() as u32).into()))
        .initial_rtt(INITIAL_RTT)
        // One more than the data streams: the control stream.
        .max_concurrent_bidi_streams(VarInt::from_u32(max_streams.saturating_add(1)))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(TUNNEL_WINDOW))
        .send_window(u64::from(TUNNEL_WINDOW))
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(Some(mtu));
    transport
}

/// The exporter that binds a stream header to its tunnel.
pub fn exporter(connection: &Connection, context: &[u8; 16]) -> Option<[u8; 32]> {
    let mut output = [0; 32];
    connection.export_keying_material(&mut output, EXPORTER_LABEL, context).ok()?;
    Some(output)
}

/// What the control stream has proved about a peer.
#[derive(Debug, Default)]
pub struct Proof {
    state: Mutex<ProofState>,
    /// Told when connectivity begins or ends.
    changed: Arc<Notify>,
    /// Told when an answer is missing, so that the path is looked at.
    missed: Notify,
    /// Asks for a ping now.
    ping: Notify,
    /// Told at every answered ping.
    heard: Notify,
}

#[derive(Debug, Clone, Copy, Default)]
struct ProofState {
    tunnel_up: bool,
    /// A round trip succeeded through the tunnel that is up.
    proved: bool,
    sequence: u64,
    unanswered_since: Option<(u64, Instant)>,
    last_proof_at: Option<u64>,
    rtt: Option<Duration>,
}

impl Proof {
    /// Nothing proved yet; `changed` is told when connectivity begins or ends.
    pub fn new(changed: Arc<Notify>) -> Self {
        Self { changed, ..Self::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, ProofState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a round trip succeeded within the heartbeat limit and nothing says otherwise since.
    pub fn is_connected(&self) -> bool {
        let state = self.state();
        let overdue = state.unanswered_since.is_some_and(|(_, since)| since.elapsed() > HEARTBEAT_LIMIT);
        state.tunnel_up && state.proved && !overdue
    }

    /// The last successful round trip, Unix milliseconds.
    pub fn last_proof_at(&self) -> Option<u64> {
        self.state().last_proof_at
    }

    /// Round-trip time of the last proof.
    pub fn rtt(&self) -> Option<Duration> {
        self.state().rtt
    }

    /// Asks for a round trip now and waits for it up to `limit`, so that what is said afterwards is true now.
    pub async fn refresh(&self, limit: Duration) {
        if !self.state().tunnel_up {
            return;
        }
        let heard = self.heard.notified();
        tokio::pin!(heard);
        heard.as_mut().enable();
        self.ping.notify_one();
        let _ = tokio::time::timeout(limit, heard).await;
    }

    /// Resolves when an answer is missing although the tunnel stands.
    pub async fn missed(&self) {
        self.missed.notified().await;
    }

    fn is_unanswered(&self) -> bool {
        self.state().unanswered_since.is_some()
    }

    fn tunnel_is(&self, up: bool) {
        {
            let mut state = self.state();
            state.tunnel_up = up;
            state.proved = false;
            state.unanswered_since = None;
        }
        if !up {
            self.changed.notify_one();
        }
    }

    fn next_ping(&self) -> u64 {
        let mut state = self.state();
        state.sequence += 1;
        let sequence = state.sequence;
        state.unanswered_since.get_or_insert((sequence, Instant::now()));
        sequence
    }

    /// An answer proves the way for its own ping and for those before it.
    fn pong(&self, sequence: u64, sent_at: Option<Instant>) {
        let was_connected = self.is_connected();
        {
            let mut state = self.state();
            if state.unanswered_since.is_some_and(|(first, _)| sequence >= first) {
                state.unanswered_since = None;
            }
            state.proved = true;
            state.last_proof_at = Some(unix_ms());
            state.rtt = sent_at.map(|at| at.elapsed()).or(state.rtt);
        }
        self.heard.notify_waiters();
        if !was_connected {
            self.changed.notify_one();
        }
    }
}

/// Runs a tunnel's control stream until it fails; then the tunnel is of no use and its owner closes it.
///
/// `active` is the number of open streams. Returns why it ended.
pub async fn heartbeat(
    send: SendStream,
    recv: RecvStream,
    proof: &Proof,
    active: watch::Receiver<u32>,
) -> HeartbeatError {
    let (pongs, pongs_rx) = mpsc::channel(PONG_QUEUE);
    let pinged = Mutex::new((0, Instant::now()));
    proof.tunnel_is(true);
    // However this ends, dropped half-way included, nothing is proved any more.
    let _down = TunnelDown(proof);
    tokio::select! {
        error = read_frames(recv, proof, pongs, &pinged) => error,
        error = write_frames(send, proof, pongs_rx, active, &pinged) => error,
    }
}

struct TunnelDown<'a>(&'a Proof);

impl Drop for TunnelDown<'_> {
    fn drop(&mut self) {
        self.0.tunnel_is(false);
    }
}

/// Why the control stream ended.
#[derive(Debug, thiserror::Error)]
pub enum HeartbeatError {
    /// The tunnel is gone.
    #[error("the tunnel was closed")]
    Closed,
    /// The peer broke the protocol.
    #[error("the peer's control stream is malformed")]
    Malformed,
}

async fn read_frames(
    mut recv: RecvStream,
    proof: &Proof,
    pongs: mpsc::Sender<u64>,
    pinged: &Mutex<(u64, Instant)>,
) -> HeartbeatError {
    let mut body = [0; MAX_CONTROL_FRAME_LEN];
    loop {
        let mut length = [0; 2];
        if recv.read_exact(&mut length).await.is_err() {
            return HeartbeatError::Closed;
        }
        let length = usize::from(u16::from_be_bytes(length));
        let Some(body) = body.get_mut(..length) else { return HeartbeatError::Malformed };
        if recv.read_exact(body).await.is_err() {
            return HeartbeatError::Closed;
        }
        match ControlFrame::decode(body) {
            // More pings than answers fit: the peer floods; the surplus stays unanswered.
            Ok(ControlFrame::Ping { sequence }) => drop(pongs.try_send(sequence)),
            Ok(ControlFrame::Pong { sequence }) => {
                let (last, at) = *pinged.lock().unwrap_or_else(PoisonError::into_inner);
                if sequence <= last {
                    proof.pong(sequence, (sequence == last).then_some(at));
                }
            }
            Err(_) => return HeartbeatError::Malformed,
        }
    }
}

async fn write_frames(
    mut send: SendStream,
    proof: &Proof,
    mut pongs: mpsc::Receiver<u64>,
    mut active: watch::Receiver<u32>,
    pinged: &Mutex<(u64, Instant)>,
) -> HeartbeatError {
    // Messages wait for nothing, and the proof of life waits for no message.
    let _ = send.set_priority(1);
    let mut next_ping = tokio::time::Instant::now();
    loop {
        let busy = *active.borrow_and_update() > 0 || proof.is_unanswered();
        let interval = if busy { ACTIVE_HEARTBEAT } else { IDLE_HEARTBEAT };
        next_ping = next_ping.min(tokio::time::Instant::now() + interval);
        let frame = tokio::select! {
            Some(sequence) = pongs.recv() => ControlFrame::Pong { sequence },
            () = proof.ping.notified() => ping(proof, pinged),
            () = tokio::time::sleep_until(next_ping) => ping(proof, pinged),
            changed = active.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return HeartbeatError::Closed,
            },
        };
        if matches!(frame, ControlFrame::Ping { .. }) {
            next_ping = tokio::time::Instant::now() + interval;
        }
        if send.write_all(&frame.encode()).await.is_err() {
            return HeartbeatError::Closed;
        }
    }
}

/// The next ping; with one before it unanswered, the path is in question.
fn ping(proof: &Proof, pinged: &Mutex<(u64, Instant)>) -> ControlFrame {
    if proof.is_unanswered() {
        proof.missed.notify_one();
    }
    let sequence = proof.next_ping();
    *pinged.lock().unwrap_or_else(PoisonError::into_inner) = (sequence, Instant::now());
    ControlFrame::Ping { sequence }
}
