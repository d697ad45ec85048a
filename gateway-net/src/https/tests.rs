use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::tls::{ALPN_HTTP1, PinMismatch, ServerIdentity, TlsPin, server_config};

/// A server that gives one answer to everybody, and hands over what it was asked.
struct Server {
    url: Url,
    pin: TlsPin,
    asked: mpsc::Receiver<String>,
    _tasks: JoinSet<()>,
    _directory: tempfile::TempDir,
}

async fn server(answer: &'static [u8]) -> Server {
    let directory = tempfile::tempdir().unwrap();
    let identity = ServerIdentity::load_or_generate(directory.path(), &[]).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server_config(&identity, &[ALPN_HTTP1])));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("https://{}/v1/things?q=1#not-sent", listener.local_addr().unwrap())).unwrap();
    let (asking, asked) = mpsc::channel(4);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
            let mut buffer = [0; 4096];
            let length = tls.read(&mut buffer).await.unwrap();
            let _ = asking.send(String::from_utf8_lossy(&buffer[..length]).into_owned()).await;
            let _ = tls.write_all(answer).await;
            let _ = tls.shutdown().await;
            // What was not read when the connection closes would reset it.
            let _ = tls.read_to_end(&mut Vec::new()).await;
        }
    });
    Server { url, pin: identity.pin(), asked, _tasks: tasks, _directory: directory }
}

fn get(url: &Url, pin: TlsPin) -> HttpsRequest {
    let (url, trust) = (url.clone(), ServerTrust::Pin(pin));
    HttpsRequest { url, trust, proxy: None, json: None, max_body: 16, limit: Duration::from_secs(20) }
}

#[tokio::test]
async fn what_is_asked_arrives_and_any_status_is_an_answer() {
    let answer = b"HTTP/1.1 409 No\r\ndate: Tue, 01 Jul 2025 00:00:00 GMT\r\ncontent-length: 3\r\n\r\nwhy";
    let mut server = server(answer).await;
    let answer = exchange(get(&server.url, server.pin)).await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (StatusCode::CONFLICT, b"why".as_slice()));
    assert_eq!(answer.headers.get("date").unwrap(), "Tue, 01 Jul 2025 00:00:00 GMT");
    let asked = server.asked.recv().await.unwrap();
    let host = format!("host: {}\r\n", server.url.authority());
    assert!(asked.starts_with("GET /v1/things?q=1 HTTP/1.1\r\n") && asked.contains(&host), "{asked}");
    let posted = HttpsRequest { json: Some(b"{\"a\":1}".to_vec()), ..get(&server.url, server.pin) };
    assert!(!format!("{posted:?}").contains("\"a\""), "a body may hold a secret");
    exchange(posted).await.unwrap();
    let asked = server.asked.recv().await.unwrap();
    assert!(asked.starts_with("POST ") && asked.contains("content-type: application/json\r\n"), "{asked}");
}

#[tokio::test]
async fn an_answer_without_a_length_ends_with_its_connection_and_one_that_is_too_long_is_not_read() {
    let open = server(b"HTTP/1.1 200 OK\r\n\r\nsixteen bytes ok").await;
    assert_eq!(exchange(get(&open.url, open.pin)).await.unwrap().body, b"sixteen bytes ok");
    let long = server(b"HTTP/1.1 200 OK\r\n\r\nseventeen bytes  ").await;
    let error = exchange(get(&long.url, long.pin)).await.unwrap_err();
    assert!(matches!(error, HttpsError::TooLong { max_body: 16, .. }), "{error:?}");
}

#[tokio::test]
async fn a_wrong_pin_no_http_and_no_server_are_told_apart() {
    let other = server(b"SSH-2.0-OpenSSH_9\r\n").await;
    let error = exchange(get(&other.url, TlsPin::from_bytes([0; 32]))).await.unwrap_err();
    assert_eq!(PinMismatch::find_in(&error).unwrap().presented, other.pin);
    let error = exchange(get(&other.url, other.pin)).await.unwrap_err();
    assert!(matches!(error, HttpsError::Http { .. }), "{error:?}");
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("https://{}/", gone.local_addr().unwrap())).unwrap();
    drop(gone);
    let error = exchange(get(&url, other.pin)).await.unwrap_err();
    assert!(matches!(error, HttpsError::Connect(WsError::Tcp { .. })), "{error:?}");
    let plain = Url::parse("http://127.0.0.1:9/").unwrap();
    assert!(matches!(exchange(get(&plain, other.pin)).await, Err(HttpsError::Url(_))));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_ends_with_the_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("https://{}/", listener.local_addr().unwrap())).unwrap();
    let request = HttpsRequest { limit: Duration::from_secs(2), ..get(&url, TlsPin::from_bytes([0; 32])) };
    let error = exchange(request.clone()).await.unwrap_err();
    assert!(matches!(error, HttpsError::Timeout { .. }), "{error:?}");
    let error = exchange(HttpsRequest { limit: Duration::from_secs(60), ..request }).await.unwrap_err();
    assert!(matches!(error, HttpsError::Connect(WsError::Timeout { step: "TLS handshake", .. })), "{error:?}");
}
