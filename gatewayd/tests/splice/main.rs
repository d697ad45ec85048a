//! Two ends of a tunnel on loopback, real sockets all the way: what one engine does must reach the other as it was.

#![expect(clippy::unwrap_used, reason = "tests")]

mod bystander;
mod ends;
mod limited;
mod opening;
mod strangers;
mod turns;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use gateway_proto::{
    identity::{GatewayKey, GatewayPublicKey},
    limits::ChannelLimits,
    policy::HL7V2_MLLP,
};
use gatewayd::{
    credentials::AllowedPeers,
    engine::EngineWatch,
    engine_socket::EngineSocket,
    observer::Observer,
    path_actor::SessionIndex,
    routes::{Route, Routes},
    send_half::SendHalf,
    socket::TunnelSocket,
    splice::{Opening, SpliceContext, SpliceError, splice},
    timer::Moments,
    traffic::{Role, Traffic},
    tunnel::{Tunnel, TunnelEndpoint},
};
use quinn::{Connection, RecvStream, SendStream};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(10);
const MESSAGE: &[u8] = b"\x0bMSH|^~\\&|test\r\x1c\r";

struct Site {
    key: GatewayPublicKey,
    routes: Arc<Routes>,
    socket: Arc<TunnelSocket>,
    endpoint: TunnelEndpoint,
}

fn site(seed: u8, other: u8) -> Site {
    let key = GatewayKey::from_seed(&[seed; 32]);
    let routes = Arc::new(Routes::default());
    let bind = ["127.0.0.1:0".parse::<SocketAddr>().unwrap()];
    let (socket, _probes) = TunnelSocket::bind(bind.into_iter(), routes.clone(), SessionIndex::default()).unwrap();
    let allowed = AllowedPeers::default();
    allowed.replace(vec![GatewayKey::from_seed(&[other; 32]).public()]);
    let endpoint = TunnelEndpoint::new(socket.clone(), &key, allowed, 16).unwrap();
    Site { key: key.public(), routes, socket, endpoint }
}

fn direct(from: &Site, to: &Site) {
    let address = SocketAddr::from(([127, 0, 0, 1], to.socket.local_port()));
    from.routes.meet(to.key, from.key < to.key);
    from.routes.set(to.key, Route { direct: Some(address), ..Route::NONE });
    from.routes.admit(address, to.key);
}

async fn tunnel(a: &Site, b: &Site) -> (Connection, Connection) {
    direct(a, b);
    direct(b, a);
    let dialled = a.endpoint.dial(b.key, &Arc::default()).unwrap();
    let accepted = async {
        let incoming = b.endpoint.accept().await.unwrap();
        b.endpoint.answer(incoming, &Arc::default()).unwrap().await.unwrap()
    };
    let (dialled, accepted) = timeout(LIMIT, async { tokio::join!(dialled, accepted) }).await.unwrap();
    (dialled.unwrap(), accepted)
}

/// An engine's socket and the gateway's end of it.
async fn engine() -> (TcpStream, EngineSocket) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (gateway, engine) = tokio::join!(EngineSocket::connect(address, Duration::from_secs(30)), listener.accept());
    (engine.unwrap().0, gateway.unwrap())
}

/// Of a gateway whose moments pass as long as the test runs.
#[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
fn owes_answer() -> Opening {
    let moments = Moments::default();
    tokio::spawn(moments.clone().run(CancellationToken::new()));
    Opening::OwesAnswer { reached_at: tokio::time::Instant::now(), moments }
}

/// A stream of the tunnel, at the end that opens it and at the other.
async fn stream(tunnel: &(Connection, Connection)) -> ((SendStream, RecvStream), (SendStream, RecvStream)) {
    let (mut send, recv) = tunnel.0.open_bi().await.unwrap();
    // The first byte makes the stream known to the other side; in the product it is the header.
    send.write_all(b"h").await.unwrap();
    let (far_send, mut far_recv) = tunnel.1.accept_bi().await.unwrap();
    far_recv.read_exact(&mut [0]).await.unwrap();
    ((send, recv), (far_send, far_recv))
}

fn half(send: SendStream, of: &Connection) -> SendHalf {
    SendHalf::new(send, &Tunnel::new(of.clone()))
}

/// Two engines joined by one stream of a tunnel between two sites.
struct Joined {
    _sites: (Site, Site),
    tunnel: (Connection, Connection),
    sending: TcpStream,
    receiving: TcpStream,
    allowed: CancellationToken,
    from_sending: Arc<Traffic>,
    from_receiving: Arc<Traffic>,
    sender: JoinHandle<Result<(), SpliceError>>,
    listener: JoinHandle<Result<(), SpliceError>>,
}

#[expect(clippy::disallowed_methods, reason = "the test owns the handle, and aborts it")]
fn start(task: impl Future<Output = Result<(), SpliceError>> + Send + 'static) -> JoinHandle<Result<(), SpliceError>> {
    tokio::spawn(task)
}

fn context(role: Role, traffic: Arc<Traffic>, mllp: bool, allowed: &CancellationToken) -> SpliceContext {
    SpliceContext {
        observer: Observer::new(traffic.clone(), role, if mllp { HL7V2_MLLP } else { "tcp" }, true),
        traffic,
        record: Box::default(),
        allowed: allowed.clone(),
        opening: match role {
            Role::Sender => Opening::AnsweredBy(tokio::time::Instant::now() + LIMIT),
            Role::Listener => owes_answer(),
        },
        engine_says: EngineWatch::none(),
        limits: ChannelLimits::default(),
    }
}

async fn joined(mllp: bool) -> Joined {
    joined_under(mllp, ChannelLimits::default()).await
}

/// The same under limits of the channel's owner, whose gateway is the receiving one; the other one knows of none, as an older one.
async fn joined_under(mllp: bool, limits: ChannelLimits) -> Joined {
    joined_with(mllp, ChannelLimits::default(), limits).await
}

/// The same with what each gateway knows of the limits, the sending one first.
async fn joined_with(mllp: bool, known: ChannelLimits, limits: ChannelLimits) -> Joined {
    let sites = (site(1, 2), site(2, 1));
    let tunnel = tunnel(&sites.0, &sites.1).await;
    let (sending, sending_gateway) = engine().await;
    let (receiving, receiving_gateway) = engine().await;
    let ((send, recv), (far_send, far_recv)) = stream(&tunnel).await;
    let allowed = CancellationToken::new();
    let (from_sending, from_receiving) = (Arc::new(Traffic::default()), Arc::new(Traffic::default()));
    let sending_context =
        SpliceContext { limits: known, ..context(Role::Sender, from_sending.clone(), mllp, &allowed) };
    let sender = start(splice(sending_gateway, half(send, &tunnel.0), recv, sending_context));
    let receiving_context = SpliceContext { limits, ..context(Role::Listener, from_receiving.clone(), mllp, &allowed) };
    let far = splice(receiving_gateway, half(far_send, &tunnel.1), far_recv, receiving_context);
    let listener = start(far);
    Joined { _sites: sites, tunnel, sending, receiving, allowed, from_sending, from_receiving, sender, listener }
}

async fn read(socket: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    timeout(LIMIT, socket.read_exact(&mut bytes)).await.expect("bytes arrive").unwrap();
    bytes
}

/// How the other side ended the connection.
async fn end(socket: &mut TcpStream) -> Result<(), io::ErrorKind> {
    let mut rest = Vec::new();
    let result = timeout(LIMIT, socket.read_to_end(&mut rest)).await.expect("the connection ends");
    assert_eq!(rest, b"", "no byte comes before the end");
    result.map(|_| ()).map_err(|error| error.kind())
}

const FIN: Result<(), io::ErrorKind> = Ok(());
const RST: Result<(), io::ErrorKind> = Err(io::ErrorKind::ConnectionReset);
