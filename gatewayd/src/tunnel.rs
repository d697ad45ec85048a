//! QUIC for tunnels: the endpoint over our socket.

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant},
};

use aws_lc_rs::{digest, hmac};
use gateway_net::entropy::random;
use gateway_proto::{
    id::ConnectionId,
    identity::{GatewayKey, GatewayPublicKey},
    limits::MAX_UNDER_WAY,
    relay::udp::MAX_PAYLOAD,
    stream::EXPORTER_LABEL,
    turns::{Place, Turns},
};
use quinn::{
    Connection, ConnectionIdGenerator, Endpoint, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TransportConfig,
    VarInt,
};

use crate::{
    congestion::{PathAware, line_of},
    credentials::{AllowedPeers, Credentials, CredentialsError},
    socket::TunnelSocket,
};

/// QUIC gives a tunnel up after this much silence, and its streams are reset; shorter outages of every path are survived
/// without a lost byte. An engine that waits for an acknowledgement has given up by itself before (5 s by default).
const IDLE_TIMEOUT: Duration = Duration::from_secs(8);
/// First guess of a path's round trip: a lost first packet is sent again after three times this.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// What one stream may hold in our memory before its engine reads it: at a round trip of 80 ms as much as fills 400 Mbit/s,
/// about what the kernel's TCP reaches there.
const STREAM_WINDOW: u32 = 4 << 20;
const _: () =
    assert!(STREAM_WINDOW as usize <= MAX_UNDER_WAY, "a receive timeout counts with no more than that under way");
/// What all streams of a tunnel may hold together, each way: so much above one stream's share that a connection's usual
/// 64 streams, all with engines that read nothing, do not stop the others.
const TUNNEL_WINDOW: u32 = 272 << 20;
/// Length of our connection ids in bytes.
const CONNECTION_ID_LEN: usize = 8;
/// Streams of the peer that a tunnel has room for at first: QUIC keeps an entry of some 80 bytes for each that may come.
const FIRST_STREAMS: u32 = 64;
/// Exporters remembered in one tunnel.
const MAX_EXPORTERS: usize = 1024;
/// What a gateway that is stopped in order says to its peers.
pub(crate) const SHUTTING_DOWN: &[u8] = b"shutting down";
/// Handshakes of peers that wait to be looked at.
const MAX_INCOMING: usize = 256;

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
    server: Arc<ServerConfig>,
    max_streams: u32,
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
        let mut server = ServerConfig::with_crypto(Arc::new(credentials.server(allowed)?));
        server.max_incoming(MAX_INCOMING).migration(false);
        let runtime = quinn::default_runtime().ok_or_else(|| io::Error::other("no tokio runtime"))?;
        let endpoint = Endpoint::new_with_abstract_socket(endpoint_config(key), Some(server.clone()), socket, runtime)?;
        Ok(Self { endpoint, credentials: Arc::new(credentials), server: Arc::new(server), max_streams })
    }

    /// Dials a peer at its made-up address. `epoch` moves on whenever packets to the peer take another path.
    pub fn dial(&self, peer: GatewayPublicKey, epoch: &Arc<AtomicU64>) -> Result<quinn::Connecting, DialError> {
        let mut config = quinn::ClientConfig::new(Arc::new(self.credentials.client(peer)?));
        config.transport_config(Arc::new(transport(self.max_streams, epoch)));
        Ok(self.endpoint.connect_with(config, crate::routes::peer_address(&peer.into()), "gateway")?)
    }

    /// Goes on with the handshake of a tunnel that a known peer dials; `epoch` as in [`dial`](Self::dial).
    pub fn answer(
        &self,
        incoming: quinn::Incoming,
        epoch: &Arc<AtomicU64>,
    ) -> Result<quinn::Connecting, quinn::ConnectionError> {
        let mut config = ServerConfig::clone(&self.server);
        config.transport_config(Arc::new(transport(self.max_streams, epoch)));
        incoming.accept_with(Arc::new(config))
    }

    /// The next tunnel a peer dials; `None` once the endpoint is closed.
    pub async fn accept(&self) -> Option<quinn::Incoming> {
        self.endpoint.accept().await
    }

    /// Closes every tunnel, saying so to the peers, and waits until they know or a short while has passed.
    pub async fn close(&self) {
        self.endpoint.close(VarInt::from_u32(0), SHUTTING_DOWN);
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
    fn generate_cid(&mut self) -> quinn::ConnectionId {
        quinn::ConnectionId::new(&random::<CONNECTION_ID_LEN>())
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// How a tunnel behaves; `epoch` moves on whenever packets to the peer take another path.
pub fn transport(max_streams: u32, epoch: &Arc<AtomicU64>) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    // What fits behind a relay's header too: a packet of a direct path must not be too long for the relay it moves to.
    mtu.black_hole_cooldown(Duration::from_secs(60)).upper_bound(MAX_PAYLOAD as u16);
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_TIMEOUT.as_millis() as u32).into()))
        .initial_rtt(INITIAL_RTT)
        .max_concurrent_bidi_streams(with_control(max_streams.min(FIRST_STREAMS)))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(TUNNEL_WINDOW))
        .send_window(u64::from(TUNNEL_WINDOW))
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(Some(mtu))
        .congestion_controller_factory(Arc::new(PathAware::new(epoch.clone())));
    transport
}

/// One more than the data streams: the control stream.
fn with_control(streams: u32) -> VarInt {
    VarInt::from_u32(streams.saturating_add(1))
}

/// How many streams the peer may have open: few at first, twice as many whenever half of them are. A burst beyond that waits
/// a round trip for each doubling.
#[derive(Debug)]
pub struct StreamRoom {
    now: u32,
    most: u32,
}

impl StreamRoom {
    /// The room that a tunnel begins with, and what it may become: the limit of the configuration.
    pub fn new(most: u32) -> Self {
        Self { now: most.min(FIRST_STREAMS), most }
    }

    /// The room from now on, if so many open streams ask for more.
    pub fn grow(&mut self, open: usize) -> Option<u32> {
        let half = usize::try_from(self.now / 2).unwrap_or(usize::MAX);
        if self.now == self.most || open < half {
            return None;
        }
        self.now = self.now.saturating_mul(2).min(self.most);
        Some(self.now)
    }
}

/// A tunnel that is up. Cheap to clone.
#[derive(Clone)]
pub struct Tunnel(Arc<Inner>);

struct Inner {
    connection: Connection,
    exporters: Mutex<BTreeMap<ConnectionId, [u8; 32]>>,
    turns: Mutex<Turns>,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("connection", &self.0.connection.stable_id()).finish_non_exhaustive()
    }
}

impl Tunnel {
    /// Over a QUIC connection whose handshake is done.
    pub fn new(connection: Connection) -> Self {
        Self(Arc::new(Inner { connection, exporters: Mutex::default(), turns: Mutex::default() }))
    }

    /// The peer may have so many streams open.
    pub fn make_room(&self, streams: u32) {
        self.0.connection.set_max_concurrent_bi_streams(with_control(streams));
    }

    /// The QUIC connection.
    pub fn connection(&self) -> &Connection {
        &self.0.connection
    }

    /// A stream sends so many bytes at once.
    pub(crate) fn take_turn(&self, place: &mut Place, bytes: usize) {
        let line = line_of(&self.0.connection);
        let mut turns = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.send(place, bytes, line, Instant::now());
    }

    /// The exporter that binds the stream headers of a connection of the policy to this tunnel. Derived once for each: it is the
    /// greatest part of what a new stream costs.
    pub fn exporter(&self, id: ConnectionId) -> Option<[u8; 32]> {
        let mut known = self.0.exporters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(exporter) = known.get(&id) {
            return Some(*exporter);
        }
        let mut exporter = [0; 32];
        self.0.connection.export_keying_material(&mut exporter, EXPORTER_LABEL, &id.to_bytes()).ok()?;
        // Only connections of the policy come here; those that left it make room at last.
        if known.len() >= MAX_EXPORTERS {
            known.pop_first();
        }
        known.insert(id, exporter);
        Some(exporter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_for_streams_doubles_when_half_of_it_is_used_and_ends_at_the_limit() {
        let mut room = StreamRoom::new(300);
        assert_eq!((0..32).find_map(|open| room.grow(open)), None);
        assert_eq!(
            [room.grow(32), room.grow(33), room.grow(64), room.grow(128)],
            [Some(128), None, Some(256), Some(300)]
        );
        assert_eq!(room.grow(300), None);
        assert_eq!(StreamRoom::new(8).grow(8), None, "the limit is less than the first room");
        assert_eq!(StreamRoom::new(u32::MAX).grow(usize::MAX), Some(128));
    }
}
