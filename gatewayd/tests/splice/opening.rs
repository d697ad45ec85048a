//! The answer to a stream: it comes first, and the engine's bytes do not wait for it.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use gateway_proto::{
    limits::ChannelLimits,
    observe::{Book, Protocol},
    policy::HL7V2_MLLP,
    stream::{Answer, RefusalCode, ResetCode},
};
use gatewayd::{
    engine::EngineWatch,
    observer::Observer,
    splice::{Opening, SpliceContext, SpliceError, splice},
    traffic::{Role, Traffic},
};
use quinn::Connection;
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{LIMIT, MESSAGE, RST, Site, end, engine, half, owes_answer, read, site, start, tunnel};

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
        opening: owes_answer(),
        engine_says: EngineWatch::none(),
        limits: ChannelLimits::default(),
    };
    let listener = start(splice(gateway, half(far_send, &tunnel.1), far_recv, context));
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
    traffic: Arc<Traffic>,
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
        traffic: traffic.clone(),
        record: Box::default(),
        allowed: CancellationToken::new(),
        opening: Opening::AnsweredBy(tokio::time::Instant::now() + patience),
        engine_says: EngineWatch::none(),
        limits: ChannelLimits::default(),
    };
    let sender = start(splice(gateway, half(send, &tunnel.0), recv, context));
    engine.write_all(MESSAGE).await.unwrap();
    Unanswered { _sites: sites, _tunnel: tunnel, engine, far, traffic, sender }
}

impl Unanswered {
    /// Messages that count as sent.
    fn messages(&self) -> u64 {
        let book = self.traffic.book(Protocol::Mllp);
        let Book::Mllp(ledger) = &*book.lock().unwrap() else { panic!("MLLP is observed") };
        ledger.counts().messages
    }
}

#[tokio::test]
async fn payload_does_not_wait_for_the_answer_and_the_answer_is_no_payload() {
    let mut stream = unanswered(LIMIT).await;
    let mut received = vec![0; MESSAGE.len()];
    timeout(LIMIT, stream.far.1.read_exact(&mut received)).await.expect("payload comes first").unwrap();
    assert_eq!(received, MESSAGE);
    assert_eq!(stream.traffic.last_sent_at.load(Relaxed), 0, "it may still be refused");
    stream.far.0.write_all(&[Answer::Accepted.encode().as_slice(), MESSAGE].concat()).await.unwrap();
    assert_eq!(read(&mut stream.engine, MESSAGE.len()).await, MESSAGE);
    assert_ne!(stream.traffic.last_sent_at.load(Relaxed), 0);
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
    assert_eq!(stream.traffic.last_sent_at.load(Relaxed), 0, "nothing was sent to anybody");
}

#[tokio::test]
async fn a_far_gateway_that_never_answers_is_a_reset_and_what_was_sent_counts_for_nobody_knows() {
    let mut stream = unanswered(Duration::from_millis(50)).await;
    assert_eq!(end(&mut stream.engine).await, RST);
    assert_eq!(timeout(LIMIT, &mut stream.sender).await.unwrap().unwrap(), Err(SpliceError::NoAnswer));
    assert_eq!(stream.messages(), 1);
}

#[tokio::test]
async fn a_far_gateway_that_is_given_up_learns_that_it_was_not_the_engine_and_what_it_had_not_taken_is_not_counted() {
    let mut stream = unanswered(Duration::from_millis(50)).await;
    assert_eq!(end(&mut stream.engine).await, RST);
    let code = timeout(LIMIT, stream.far.1.received_reset()).await.unwrap().unwrap();
    assert_eq!(code.map(|code| ResetCode::from_u64(code.into_inner())), Some(ResetCode::GaveUp));
    stream.far.0.write_all(&Answer::Refused(RefusalCode::TooLate).encode()).await.unwrap();
    stream.far.0.finish().unwrap();
    let ended = timeout(LIMIT, &mut stream.sender).await.unwrap().unwrap();
    assert_eq!(ended, Err(SpliceError::Refused(RefusalCode::TooLate)));
    assert_eq!(stream.messages(), 0);
}
