//! Two ends of a tunnel on loopback, real sockets all the way: what one engine does must reach the other as it was.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use gateway_proto::{
    identity::{GatewayKey, GatewayPublicKey},
    observe::{Book, Protocol},
    policy::HL7V2_MLLP,
    stream::{Answer, RefusalCode, ResetCode},
};
use gatewayd::{
    credentials::AllowedPeers,
    engine::EngineWatch,
    engine_socket::EngineSocket,
    observer::Observer,
    path_actor::SessionIndex,
    routes::{Route, Routes},
    socket::TunnelSocket,
    splice::{Opening, SendHalf, SpliceContext, SpliceError, splice},
    traffic::{Role, Traffic},
    tunnel::TunnelEndpoint,
};
use quinn::Connection;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
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
    let accepted = async { b.endpoint.accept().await.unwrap().accept().unwrap().await.unwrap() };
    let (dialled, accepted) = timeout(LIMIT, async { tokio::join!(dialled, accepted) }).await.unwrap();
    (dialled.unwrap(), accepted)
}

/// An engine's socket and the gateway's end of it.
async fn engine() -> (TcpStream, EngineSocket) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (engine, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (engine.unwrap(), EngineSocket::connected(accepted.unwrap().0, Duration::from_secs(30)).unwrap())
}

/// Two engines joined by one stream of a tunnel between two sites.
struct Joined {
    _sites: (Site, Site),
    _tunnel: (Connection, Connection),
    sending: TcpStream,
    receiving: TcpStream,
    allowed: CancellationToken,
    from_receiving: Arc<Traffic>,
    sender: JoinHandle<Result<(), SpliceError>>,
    listener: JoinHandle<Result<(), SpliceError>>,
}

#[expect(clippy::disallowed_methods, reason = "the test owns the handle, and aborts it")]
fn start(task: impl Future<Output = Result<(), SpliceError>> + Send + 'static) -> JoinHandle<Result<(), SpliceError>> {
    tokio::spawn(task)
}

async fn joined(mllp: bool) -> Joined {
    let sites = (site(1, 2), site(2, 1));
    let tunnel = tunnel(&sites.0, &sites.1).await;
    let (sending, sending_gateway) = engine().await;
    let (receiving, receiving_gateway) = engine().await;
    let (mut send, recv) = tunnel.0.open_bi().await.unwrap();
    // The first byte makes the stream known to the other side; in the product it is the header.
    send.write_all(b"h").await.unwrap();
    let (far_send, mut far_recv) = tunnel.1.accept_bi().await.unwrap();
    far_recv.read_exact(&mut [0]).await.unwrap();
    let allowed = CancellationToken::new();
    let from_receiving = Arc::new(Traffic::default());
    let context = |role, traffic: Arc<Traffic>| SpliceContext {
        observer: Observer::new(traffic.clone(), role, if mllp { HL7V2_MLLP } else { "tcp" }, true),
        traffic,
        record: Box::default(),
        allowed: allowed.clone(),
        opening: match role {
            Role::Sender => Opening::AnsweredBy(tokio::time::Instant::now() + LIMIT),
            Role::Listener => Opening::OwesAnswer,
        },
        engine_says: EngineWatch::none(),
    };
    let sender = start(splice(sending_gateway, SendHalf::new(send), recv, context(Role::Sender, Arc::default())));
    let receiving_context = context(Role::Listener, from_receiving.clone());
    let far = splice(receiving_gateway, SendHalf::new(far_send), far_recv, receiving_context);
    let listener = start(far);
    Joined { _sites: sites, _tunnel: tunnel, sending, receiving, allowed, from_receiving, sender, listener }
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

#[tokio::test]
async fn bytes_and_both_half_closes_are_mirrored() {
    let mut joined = joined(true).await;
    joined.sending.write_all(MESSAGE).await.unwrap();
    assert_eq!(read(&mut joined.receiving, MESSAGE.len()).await, MESSAGE);
    joined.sending.shutdown().await.unwrap();
    assert_eq!(end(&mut joined.receiving).await, FIN);
    joined.receiving.write_all(MESSAGE).await.unwrap();
    assert_eq!(read(&mut joined.sending, MESSAGE.len()).await, MESSAGE);
    joined.receiving.shutdown().await.unwrap();
    assert_eq!(end(&mut joined.sending).await, FIN);
    assert_eq!(timeout(LIMIT, joined.sender).await.unwrap().unwrap(), Ok(()));
    assert_eq!(timeout(LIMIT, joined.listener).await.unwrap().unwrap(), Ok(()));
}

#[tokio::test]
async fn a_reset_of_either_engine_is_a_reset_at_the_other() {
    let mut first = joined(false).await;
    socket2::SockRef::from(&first.sending).set_linger(Some(Duration::ZERO)).unwrap();
    drop(first.sending);
    assert_eq!(end(&mut first.receiving).await, RST);
    let mut second = joined(false).await;
    socket2::SockRef::from(&second.receiving).set_linger(Some(Duration::ZERO)).unwrap();
    drop(second.receiving);
    assert_eq!(end(&mut second.sending).await, RST);
}

#[tokio::test]
async fn a_reset_after_a_half_close_is_still_a_reset_at_the_other() {
    let mut joined = joined(false).await;
    joined.sending.shutdown().await.unwrap();
    assert_eq!(end(&mut joined.receiving).await, FIN);
    socket2::SockRef::from(&joined.sending).set_linger(Some(Duration::ZERO)).unwrap();
    drop(joined.sending);
    assert_eq!(timeout(LIMIT, joined.sender).await.unwrap().unwrap(), Err(SpliceError::Engine));
    assert!(timeout(LIMIT, joined.listener).await.unwrap().unwrap().is_err());
}

#[tokio::test]
async fn a_fin_without_acknowledgement_is_a_reset_for_the_engine_that_waits_for_it() {
    let mut joined = joined(true).await;
    joined.sending.write_all(MESSAGE).await.unwrap();
    assert_eq!(read(&mut joined.receiving, MESSAGE.len()).await, MESSAGE);
    joined.receiving.shutdown().await.unwrap();
    assert_eq!(end(&mut joined.sending).await, RST);
    assert_eq!(timeout(LIMIT, joined.sender).await.unwrap().unwrap(), Err(SpliceError::Unacknowledged));
}

#[tokio::test]
async fn a_message_sent_again_after_the_receiving_engine_closed_is_no_duplicate_at_its_gateway() {
    const NAMED: &[u8] = b"\x0bMSH|^~\\&|a|b|c|d|20260101||ADT^A01|ID1|P|2.5\r\x1c\r";
    let mut joined = joined(true).await;
    joined.sending.write_all(NAMED).await.unwrap();
    assert_eq!(read(&mut joined.receiving, NAMED.len()).await, NAMED);
    joined.receiving.shutdown().await.unwrap();
    assert_eq!(end(&mut joined.sending).await, RST);
    assert!(timeout(LIMIT, joined.listener).await.unwrap().unwrap().is_err());
    let again = Observer::new(joined.from_receiving.clone(), Role::Listener, HL7V2_MLLP, true);
    again.from_tunnel(NAMED);
    let book = joined.from_receiving.book(Protocol::Mllp);
    let Book::Mllp(ledger) = &*book.lock().unwrap() else { panic!("MLLP is observed") };
    assert_eq!((ledger.counts().retries, ledger.counts().duplicates), (1, 0));
}

#[tokio::test]
async fn a_partner_that_closes_before_any_message_is_a_reset_and_never_a_fin() {
    let mut joined = joined(true).await;
    joined.receiving.shutdown().await.unwrap();
    assert_eq!(end(&mut joined.sending).await, RST);
    assert_eq!(timeout(LIMIT, joined.sender).await.unwrap().unwrap(), Err(SpliceError::PartnerClosed));
}

#[tokio::test]
async fn a_message_sent_after_the_partner_closed_is_reset_and_not_swallowed() {
    let mut joined = joined(true).await;
    joined.sending.write_all(MESSAGE).await.unwrap();
    read(&mut joined.receiving, MESSAGE.len()).await;
    joined.receiving.write_all(MESSAGE).await.unwrap();
    assert_eq!(read(&mut joined.sending, MESSAGE.len()).await, MESSAGE);
    joined.receiving.shutdown().await.unwrap();
    joined.sending.write_all(MESSAGE).await.unwrap();
    assert_eq!(end(&mut joined.sending).await, RST);
}

#[tokio::test]
async fn an_acknowledgement_sent_just_before_a_reset_still_arrives() {
    let mut joined = joined(true).await;
    joined.sending.write_all(MESSAGE).await.unwrap();
    read(&mut joined.receiving, MESSAGE.len()).await;
    joined.receiving.write_all(MESSAGE).await.unwrap();
    socket2::SockRef::from(&joined.receiving).set_linger(Some(Duration::ZERO)).unwrap();
    // The gateway must have read it: a reset also destroys what the kernel holds for a reader.
    while joined.from_receiving.bytes_sent.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    drop(joined.receiving);
    assert_eq!(read(&mut joined.sending, MESSAGE.len()).await, MESSAGE);
    assert_eq!(end(&mut joined.sending).await, RST);
}

#[tokio::test]
async fn half_an_acknowledgement_and_a_fin_is_a_reset_too() {
    let mut joined = joined(true).await;
    joined.sending.write_all(MESSAGE).await.unwrap();
    read(&mut joined.receiving, MESSAGE.len()).await;
    joined.receiving.write_all(&MESSAGE[..4]).await.unwrap();
    assert_eq!(read(&mut joined.sending, 4).await, &MESSAGE[..4]);
    joined.receiving.shutdown().await.unwrap();
    assert_eq!(end(&mut joined.sending).await, RST);
}

#[tokio::test]
async fn a_commit_block_that_accepts_takes_responsibility_and_one_that_refuses_does_not() {
    for (block, expected) in [(b"\x0b\x06\x1c\r", FIN), (b"\x0b\x15\x1c\r", RST)] {
        let mut joined = joined(true).await;
        joined.sending.write_all(MESSAGE).await.unwrap();
        assert_eq!(read(&mut joined.receiving, MESSAGE.len()).await, MESSAGE);
        joined.sending.shutdown().await.unwrap();
        assert_eq!(end(&mut joined.receiving).await, FIN);
        joined.receiving.write_all(block).await.unwrap();
        assert_eq!(read(&mut joined.sending, block.len()).await, block, "the block itself passes unchanged");
        joined.receiving.shutdown().await.unwrap();
        assert_eq!(end(&mut joined.sending).await, expected, "after {block:?}");
    }
}

#[tokio::test]
async fn without_mllp_a_fin_is_mirrored_as_it_is() {
    let mut joined = joined(false).await;
    joined.sending.write_all(MESSAGE).await.unwrap();
    read(&mut joined.receiving, MESSAGE.len()).await;
    joined.receiving.shutdown().await.unwrap();
    assert_eq!(end(&mut joined.sending).await, FIN);
}

#[tokio::test]
async fn the_end_of_the_permission_resets_both_engines() {
    let mut joined = joined(true).await;
    joined.allowed.cancel();
    assert_eq!(end(&mut joined.sending).await, RST);
    assert_eq!(end(&mut joined.receiving).await, RST);
}

#[tokio::test]
async fn a_stream_whose_task_is_dropped_is_reset_at_both_ends_and_never_finished() {
    let mut joined = joined(true).await;
    joined.sender.abort();
    assert_eq!(end(&mut joined.sending).await, RST);
    assert_eq!(end(&mut joined.receiving).await, RST);
}

#[tokio::test]
async fn a_lost_tunnel_resets_both_engines() {
    let mut joined = joined(true).await;
    joined._tunnel.0.close(0u32.into(), b"test");
    assert_eq!(end(&mut joined.sending).await, RST);
    assert_eq!(end(&mut joined.receiving).await, RST);
}

#[tokio::test]
async fn a_large_transfer_both_ways_at_once_arrives_unchanged() {
    let joined = joined(false).await;
    let bytes: Vec<u8> = (0..4_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let exchange = |socket: TcpStream| {
        let sent = bytes.clone();
        async move {
            let (mut read, mut write) = socket.into_split();
            let mut received = Vec::new();
            let sending = async {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
            };
            tokio::join!(sending, async { read.read_to_end(&mut received).await.unwrap() });
            received
        }
    };
    let both = async { tokio::join!(exchange(joined.sending), exchange(joined.receiving)) };
    let (one, two) = timeout(LIMIT, both).await.unwrap();
    assert!(one == bytes && two == bytes, "both directions carry every byte in order");
}

/// What the far gateway reads first from a gateway whose engine was reached, and how the stream goes on.
async fn answered(engine_says: &[u8]) -> Vec<u8> {
    let sites = (site(1, 2), site(2, 1));
    let tunnel = tunnel(&sites.0, &sites.1).await;
    let (mut engine, gateway) = engine().await;
    engine.write_all(engine_says).await.unwrap();
    let (mut send, mut recv) = tunnel.0.open_bi().await.unwrap();
    send.write_all(b"h").await.unwrap();
    let (far_send, mut far_recv) = tunnel.1.accept_bi().await.unwrap();
    far_recv.read_exact(&mut [0]).await.unwrap();
    let traffic: Arc<Traffic> = Arc::default();
    let context = SpliceContext {
        observer: Observer::new(traffic.clone(), Role::Listener, HL7V2_MLLP, true),
        traffic,
        record: Box::default(),
        allowed: CancellationToken::new(),
        opening: Opening::OwesAnswer,
        engine_says: EngineWatch::none(),
    };
    let listener = start(splice(gateway, SendHalf::new(far_send), far_recv, context));
    let mut first = vec![0; 2 + engine_says.len()];
    timeout(LIMIT, recv.read_exact(&mut first)).await.expect("an answer").unwrap();
    listener.abort();
    first
}

#[tokio::test]
async fn the_answer_comes_before_the_engines_bytes_and_without_them() {
    let accepted = Answer::Accepted.encode();
    assert_eq!(answered(b"").await, accepted, "an engine that says nothing holds no answer back");
    assert_eq!(answered(MESSAGE).await, [accepted.as_slice(), MESSAGE].concat());
}

/// An engine whose bytes already flow while the far gateway, held by the test, has not answered yet.
struct Unanswered {
    _sites: (Site, Site),
    _tunnel: (Connection, Connection),
    engine: TcpStream,
    far: (quinn::SendStream, quinn::RecvStream),
    sender: JoinHandle<Result<(), SpliceError>>,
}

async fn unanswered(patience: Duration) -> Unanswered {
    let sites = (site(1, 2), site(2, 1));
    let tunnel = tunnel(&sites.0, &sites.1).await;
    let (mut engine, gateway) = engine().await;
    let (mut send, recv) = tunnel.0.open_bi().await.unwrap();
    send.write_all(b"h").await.unwrap();
    let mut far = tunnel.1.accept_bi().await.unwrap();
    far.1.read_exact(&mut [0]).await.unwrap();
    let traffic: Arc<Traffic> = Arc::default();
    let context = SpliceContext {
        observer: Observer::new(traffic.clone(), Role::Sender, HL7V2_MLLP, false),
        traffic,
        record: Box::default(),
        allowed: CancellationToken::new(),
        opening: Opening::AnsweredBy(tokio::time::Instant::now() + patience),
        engine_says: EngineWatch::none(),
    };
    let sender = start(splice(gateway, SendHalf::new(send), recv, context));
    engine.write_all(MESSAGE).await.unwrap();
    Unanswered { _sites: sites, _tunnel: tunnel, engine, far, sender }
}

#[tokio::test]
async fn payload_does_not_wait_for_the_answer_and_the_answer_is_no_payload() {
    let mut stream = unanswered(LIMIT).await;
    let mut received = vec![0; MESSAGE.len()];
    timeout(LIMIT, stream.far.1.read_exact(&mut received)).await.expect("payload comes first").unwrap();
    assert_eq!(received, MESSAGE);
    stream.far.0.write_all(&[Answer::Accepted.encode().as_slice(), MESSAGE].concat()).await.unwrap();
    assert_eq!(read(&mut stream.engine, MESSAGE.len()).await, MESSAGE);
    assert!(!stream.sender.is_finished());
}

#[tokio::test]
async fn a_refusal_after_payload_was_sent_is_a_reset_with_its_reason() {
    let mut stream = unanswered(LIMIT).await;
    // The stop goes first on purpose: the reason must not get lost when it comes a moment later.
    stream.far.1.stop(quinn::VarInt::from_u32(ResetCode::Refused as u32)).unwrap();
    tokio::task::yield_now().await;
    stream.far.0.write_all(&Answer::Refused(RefusalCode::EngineRefused).encode()).await.unwrap();
    stream.far.0.finish().unwrap();
    assert_eq!(end(&mut stream.engine).await, RST);
    let ended = timeout(LIMIT, stream.sender).await.unwrap().unwrap();
    assert_eq!(ended, Err(SpliceError::Refused(RefusalCode::EngineRefused)));
}

#[tokio::test]
async fn a_far_gateway_that_never_answers_is_a_reset() {
    let mut stream = unanswered(Duration::from_millis(50)).await;
    assert_eq!(end(&mut stream.engine).await, RST);
    assert_eq!(timeout(LIMIT, stream.sender).await.unwrap().unwrap(), Err(SpliceError::NoAnswer));
}

#[tokio::test]
async fn a_gateway_with_another_key_gets_no_tunnel() {
    let (dialling, answering) = (site(1, 2), site(2, 9));
    direct(&dialling, &answering);
    direct(&answering, &dialling);
    let dialled = dialling.endpoint.dial(answering.key, &Arc::default()).unwrap();
    let accepted = async { answering.endpoint.accept().await.unwrap().accept().unwrap().await };
    let (dialled, accepted) = timeout(LIMIT, async { tokio::join!(dialled, accepted) }).await.unwrap();
    assert!(accepted.is_err(), "the answering side pins the keys of its policy");
    if let Ok(connection) = dialled {
        timeout(LIMIT, connection.closed()).await.expect("the refused side learns it");
    }
}

#[tokio::test]
async fn packets_of_a_stranger_never_reach_quic() {
    let (a, b) = (site(1, 2), site(2, 1));
    direct(&a, &b);
    // b knows no real address of a.
    let dialling = a.endpoint.dial(b.key, &Arc::default()).unwrap();
    let counted = async {
        while b.socket.counters().strangers.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = dialling => panic!("nobody answers"),
        _ = b.endpoint.accept() => panic!("a stranger's packet reached QUIC"),
        counted = timeout(LIMIT, counted) => counted.expect("the stranger is counted"),
    }
}
