//! Who stands beside the copy loops changes, delays and stops no byte of what passes, and tells none of it: whatever passes,
//! well-formed or not, and however it is cut.

use std::{
    fmt, io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use gateway_proto::{
    id::ConnectionId,
    identity::GatewayKey,
    limits::ChannelLimits,
    observe::{Book, Protocol},
    policy::{Activation, AdminScope, ConnectionEntry, ConnectionKind, LocalEnd},
};
use gatewayd::{
    metrics::Numbers,
    observer::{Observer, Unobserved},
    splice::{SpliceError, splice},
    traffic::{Role, Traffic},
};
use proptest::{
    collection::vec,
    prelude::{Strategy, any},
    prop_oneof,
    sample::{Index, select},
    test_runner::{Config, TestRunner},
};
use quinn::Connection;
use tokio::{io::AsyncWriteExt, net::TcpStream, runtime, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

use crate::{FIN, LIMIT, RST, context, end, engine, half, read, site, start, stream, tunnel};

const BEHAVIORS: [&str; 5] = ["hl7v2-mllp", "http", "fhir-query", "dicom", "sftp"];

/// What is said in a protocol, with something secret at every `@`.
fn samples(behavior: &str) -> &'static [&'static str] {
    match Protocol::of(behavior) {
        Protocol::Mllp => &[
            "\x0bMSH|^~\\&|@|@|C|D|2026||ADT^A01|1|P|2.5\rPID|1||@\r\x1c\r",
            "\x0bMSH|^~\\&|C|D|A|B|2026||ACK|R|P|2.5\rMSA|AA|1|@\r\x1c\r",
            "\x0bMSH|^~\\&|@|@|@|@|@||@^@|@|P|2.5\r\x1c\r",
            "\x0b\x06\x1c\r",
            "@\x0b@",
        ],
        Protocol::Http => &[
            "POST /@?@=@ HTTP/1.1\r\nHost: @\r\nContent-Length: 12\r\n\r\n@",
            "HTTP/1.1 200 @\r\nTransfer-Encoding: chunked\r\nX: @\r\n\r\nc\r\n@\r\n0\r\n\r\n",
            "GET /@ HTTP/1.1\r\nUpgrade: @\r\nContent-Length: @\r\n\r\n",
            "HTTP/1.1 101 @\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n@",
        ],
        Protocol::Dicom => &[
            "\x01\0\0\0\0\x50\0\x01\0\0OIE             MODALITY        @\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0@",
            "\x02\0\0\0\0\x0c@",
            "\x04\0\0\0\0\x12\0\0\0\x0e\x01\x03@",
            "\x05\0\0\0\0\x04\0\0\0\0\x06\0\0\0\0\x04\0\0\0\0",
            "\x03\0\0\0\0\x04\0\x01\x01\x07@",
        ],
        Protocol::Unknown => &["SSH-2.0-@\r\n", "@"],
    }
}

fn filled(behavior: &str, token: &str) -> Vec<Vec<u8>> {
    samples(behavior).iter().map(|sample| sample.replace('@', token).into_bytes()).collect()
}

/// One engine says something, in so many pieces.
#[derive(Debug, Clone)]
struct Turn {
    from_sending: bool,
    bytes: Vec<u8>,
    pieces: usize,
}

/// How the engines end their conversation.
#[derive(Debug, Clone, Copy)]
enum Close {
    SendingFirst,
    ReceivingFirst,
    SendingResets,
    ReceivingResets,
}

#[derive(Debug, Clone)]
struct Case {
    behavior: &'static str,
    token: String,
    turns: Vec<Turn>,
    close: Close,
}

fn turn(behavior: &'static str, token: &str) -> impl Strategy<Value = Turn> + use<> {
    let own = filled(behavior, token);
    let others: Vec<Vec<u8>> = BEHAVIORS.iter().flat_map(|other| filled(other, token)).collect();
    let bent = (select(own.clone()), any::<Index>(), any::<u8>()).prop_map(|(mut bytes, at, byte)| {
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes
    });
    let cut_off = (select(own.clone()), any::<Index>()).prop_map(|(mut bytes, at)| {
        bytes.truncate(at.index(bytes.len()) + 1);
        bytes
    });
    let bulk = (any::<u8>(), 20_000..80_000_usize)
        .prop_map(|(first, length)| (0..length).map(|n| first.wrapping_add((n % 251) as u8)).collect::<Vec<u8>>());
    let noise = vec(any::<u8>(), 1..200);
    let bytes = prop_oneof![5 => select(own), 2 => bent, 2 => cut_off, 1 => select(others), 1 => noise, 1 => bulk];
    (any::<bool>(), bytes, 1..12_usize).prop_map(|(from_sending, bytes, pieces)| Turn { from_sending, bytes, pieces })
}

fn case() -> impl Strategy<Value = Case> {
    // It begins as no word of ours does.
    let token = vec(b'a'..=b'z', 9).prop_map(|letters| format!("qzx{}", String::from_utf8_lossy(&letters)));
    let close = select(vec![Close::SendingFirst, Close::ReceivingFirst, Close::SendingResets, Close::ReceivingResets]);
    (select(BEHAVIORS.to_vec()), token, close).prop_flat_map(|(behavior, token, close)| {
        vec(turn(behavior, &token), 1..6).prop_map(move |turns| Case { behavior, token: token.clone(), turns, close })
    })
}

/// Two engines joined by one stream.
struct Pair {
    sending: TcpStream,
    receiving: TcpStream,
    is_observed: bool,
    traffic: [Arc<Traffic>; 2],
    tasks: [JoinHandle<Result<(), SpliceError>>; 2],
}

async fn pair(tunnel: &(Connection, Connection), behavior: &str, is_observed: bool) -> Pair {
    let (sending, sending_gateway) = engine().await;
    let (receiving, receiving_gateway) = engine().await;
    let ((send, recv), (far_send, far_recv)) = stream(tunnel).await;
    let traffic = [Arc::new(Traffic::default()), Arc::new(Traffic::default())];
    let beside = |role: Role, traffic: &Arc<Traffic>| {
        // Its own observer goes, and tells its own counters that it was there.
        let mut context = context(role, Arc::default(), false, &CancellationToken::new());
        context.traffic = traffic.clone();
        let entry = entry(role, behavior);
        let unobserved = Unobserved::new((!is_observed).then(|| entry.endpoint.clone()));
        context.observer = Observer::of(traffic.clone(), role, &entry, &unobserved, true);
        context
    };
    let sender = splice(sending_gateway, half(send, &tunnel.0), recv, beside(Role::Sender, &traffic[0]));
    let listener = splice(receiving_gateway, half(far_send, &tunnel.1), far_recv, beside(Role::Listener, &traffic[1]));
    let tasks = [start(sender), start(listener)];
    Pair { sending, receiving, is_observed, traffic, tasks }
}

fn entry(role: Role, behavior: &str) -> ConnectionEntry {
    ConnectionEntry {
        id: ConnectionId::new(1, [5; 10]),
        kind: ConnectionKind::P2p,
        activation: Activation::Active,
        peer: GatewayKey::from_seed(&[9; 32]).public(),
        local: match role {
            Role::Sender => LocalEnd::Sender { port: 0 },
            Role::Listener => LocalEnd::Listener { engine: ([127, 0, 0, 1], 6661).into(), engine_channel: None },
        },
        endpoint: "out".into(),
        behavior: behavior.into(),
        admin: AdminScope::default(),
        people: vec![],
        secrets: vec![],
        expires_at: None,
        staleness_secs: 3600,
        max_streams: 8,
        limits: ChannelLimits::default(),
        require_post_quantum: false,
    }
}

/// How it ended at the sending engine and at the receiving one; none for one that reset it itself.
type Ends = [Option<Result<(), io::ErrorKind>>; 2];

/// Every piece arrives unchanged and before the next one is sent: nothing waits for what would make it whole.
async fn play(sending: TcpStream, receiving: TcpStream, case: &Case) -> Ends {
    let (mut sending, mut receiving) = (sending, receiving);
    for turn in &case.turns {
        let (from, to) = match turn.from_sending {
            true => (&mut sending, &mut receiving),
            false => (&mut receiving, &mut sending),
        };
        for piece in turn.bytes.chunks(turn.bytes.len().div_ceil(turn.pieces)) {
            let (written, arrived) = tokio::join!(from.write_all(piece), read(to, piece.len()));
            written.unwrap();
            assert!(arrived == piece, "{} bytes arrive as they were sent", piece.len());
        }
    }
    match case.close {
        Close::SendingFirst => {
            sending.shutdown().await.unwrap();
            let at_receiving = end(&mut receiving).await;
            // It fails where the connection was reset, which is what is looked at.
            let _ = receiving.shutdown().await;
            [Some(end(&mut sending).await), Some(at_receiving)]
        }
        Close::ReceivingFirst => {
            receiving.shutdown().await.unwrap();
            let at_sending = end(&mut sending).await;
            let _ = sending.shutdown().await;
            [Some(at_sending), Some(end(&mut receiving).await)]
        }
        Close::SendingResets => {
            reset(sending);
            [None, Some(end(&mut receiving).await)]
        }
        Close::ReceivingResets => {
            reset(receiving);
            [Some(end(&mut sending).await), None]
        }
    }
}

fn reset(engine: TcpStream) {
    socket2::SockRef::from(&engine).set_linger(Some(Duration::ZERO)).unwrap();
}

/// How it ended, and everything that the two gateways can say of it.
async fn told(pair: Pair, case: &Case) -> (Ends, String) {
    let Pair { sending, receiving, is_observed, traffic, tasks } = pair;
    let ends = play(sending, receiving, case).await;
    let mut text = String::new();
    for task in tasks {
        let ended = timeout(LIMIT, task).await.expect("the splice ends").unwrap();
        text += &format!("{ended:?} {} ", ended.err().map(|error| error.to_string()).unwrap_or_default());
    }
    for traffic in traffic {
        let protocol = if is_observed { Protocol::of(case.behavior) } else { Protocol::Unknown };
        assert_eq!(traffic.unobserved(), u64::from(protocol == Protocol::Unknown), "{}", case.behavior);
        let book = traffic.book(protocol);
        if let Book::Dicom(ledger) = &mut *book.lock().unwrap() {
            // Titles of application entities are shown to the gateway's owner; bytes that came apart may pass for one.
            (ledger.called, ledger.calling) = (None, None);
        }
        let numbers = Numbers::of(&book.lock().unwrap(), Instant::now());
        text += &format!("{traffic:?} {:?} {:?} {numbers:?} ", traffic.problem(), traffic.waiting());
    }
    (ends, text)
}

/// All that is logged, spans too, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Log {
    fn take(&self) -> String {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut self.clone());
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let words = format!("{field}={value:?} ");
        self.0.lock().unwrap().push_str(&words);
    }
}

fn assert_hidden(token: &str, place: &str, text: &str) {
    assert!(!text.contains(&token[..4]), "{token} is in {place}: {text}");
    for bytes in token.as_bytes().windows(4) {
        // A byte string shows as numbers.
        let numbers = format!("{bytes:?}").replace(['[', ']'], "");
        assert!(!text.contains(&numbers), "{token} is in {place}: {text}");
    }
}

#[test]
fn whatever_passes_an_observer_arrives_as_it_was_sent_ends_as_without_one_and_is_told_to_nobody() {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), || {
        let sites = runtime.block_on(async { (site(1, 2), site(2, 1)) });
        let tunnel = runtime.block_on(tunnel(&sites.0, &sites.1));
        assert!(!log.take().is_empty(), "something is logged, or the test would prove nothing");
        let config = Config { cases: 48, max_shrink_iters: 64, failure_persistence: None, ..Config::default() };
        let outcome = TestRunner::new(config).run(&case(), |case| {
            let ((ends, text), (without, text_without)) = runtime.block_on(async {
                let observed = pair(&tunnel, case.behavior, true).await;
                let unobserved = pair(&tunnel, case.behavior, false).await;
                tokio::join!(told(observed, &case), told(unobserved, &case))
            });
            assert_eq!(ends, without, "as without an observer");
            if Protocol::of(case.behavior) != Protocol::Mllp {
                let mirrored = match case.close {
                    Close::SendingFirst | Close::ReceivingFirst => [Some(FIN), Some(FIN)],
                    Close::SendingResets => [None, Some(RST)],
                    Close::ReceivingResets => [Some(RST), None],
                };
                assert_eq!(ends, mirrored, "as the engines ended it");
            }
            let places = [("what is kept", text), ("what is kept unobserved", text_without), ("a log", log.take())];
            for (place, text) in places {
                assert_hidden(&case.token, place, &text);
            }
            Ok(())
        });
        if let Err(error) = outcome {
            panic!("{error}");
        }
    });
}
