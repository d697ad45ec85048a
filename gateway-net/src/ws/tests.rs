use futures_util::{SinkExt, StreamExt};
use tokio::{io::AsyncWriteExt, net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite;

use super::*;
use crate::tls::{PinMismatch, ServerIdentity, TlsPin, server_config};

/// A TLS server whose every connection is handed to `serve`.
struct Server {
    url: Url,
    pin: TlsPin,
    _tasks: JoinSet<()>,
    _directory: tempfile::TempDir,
}

type Tls = tokio_rustls::server::TlsStream<TcpStream>;

async fn server<F>(serve: impl Fn(Tls) -> F + Send + 'static) -> Server
where
    F: Future<Output = ()> + Send,
{
    server_at("127.0.0.1:0", serve).await
}

async fn server_at<F>(address: &str, serve: impl Fn(Tls) -> F + Send + 'static) -> Server
where
    F: Future<Output = ()> + Send,
{
    let directory = tempfile::tempdir().unwrap();
    let identity = ServerIdentity::load_or_generate(directory.path(), &[]).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server_config(&identity, &[ALPN_HTTP1])));
    let listener = TcpListener::bind(address).await.unwrap();
    let url = Url::parse(&format!("wss://{}/relay", listener.local_addr().unwrap())).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            if let Ok(tls) = acceptor.accept(tcp).await {
                serve(tls).await;
            }
        }
    });
    Server { url, pin: identity.pin(), _tasks: tasks, _directory: directory }
}

fn options(url: &Url, pin: TlsPin) -> WsOptions {
    WsOptions {
        url: url.clone(),
        trust: ServerTrust::Pin(pin),
        proxy: None,
        protocol: "test.1",
        headers: HeaderMap::new(),
        max_message: 1024,
    }
}

#[expect(clippy::result_large_err, reason = "the callback's type is given by tungstenite")]
fn choose_protocol(
    request: &tungstenite::handshake::server::Request,
    mut response: tungstenite::handshake::server::Response,
) -> Result<tungstenite::handshake::server::Response, tungstenite::handshake::server::ErrorResponse> {
    let wanted = request.headers().get(SEC_WEBSOCKET_PROTOCOL).unwrap().clone();
    assert_eq!(request.headers().get("x-extra").unwrap(), "1");
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, wanted);
    Ok(response)
}

#[tokio::test]
async fn a_message_goes_there_and_back_over_a_pinned_server() {
    let server = server(|tls| async {
        let mut stream = tokio_tungstenite::accept_hdr_async(tls, choose_protocol).await.unwrap();
        let message = stream.next().await.unwrap().unwrap();
        stream.send(message).await.unwrap();
    })
    .await;
    let mut options = options(&server.url, server.pin);
    options.headers.insert(HeaderName::from_static("x-extra"), HeaderValue::from_static("1"));
    let mut stream = connect(&options).await.unwrap();
    stream.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), Message::binary(vec![1, 2, 3]));
}

#[tokio::test]
async fn a_wrong_pin_is_told_from_every_other_failure() {
    let server = server(|_| async {}).await;
    let error = connect(&options(&server.url, TlsPin::from_bytes([0; 32]))).await.unwrap_err();
    assert_eq!(PinMismatch::find_in(&error).unwrap().presented, server.pin);
}

/// The name servers name a host that is another one, which has TLS too.
#[tokio::test]
async fn a_wrong_host_in_dns_is_passed_over_for_the_address_where_the_right_one_was_reached_last() {
    let answer = |mut tls: Tls| async move {
        let _ = tls.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await;
        let _ = tls.shutdown().await;
    };
    let right = server_at("127.0.0.2:0", answer).await;
    let port = right.url.port().unwrap();
    let before = TcpStream::connect(("127.0.0.2", port)).await.unwrap();
    let url = Url::parse(&format!("wss://localhost:{port}/relay")).unwrap();
    let unknown = connect(&options(&url, right.pin)).await.unwrap_err();
    assert!(matches!(unknown, WsError::Tcp { .. }), "{unknown:?}");
    dial::reached(&Host::Domain("localhost"), &before);
    drop(before);
    let refused = connect(&options(&url, right.pin)).await.unwrap_err();
    assert!(matches!(refused, WsError::Status { .. }), "nobody listens where DNS says: {refused:?}");
    let wrong = server_at(&format!("127.0.0.1:{port}"), answer).await;
    let other = connect(&options(&url, right.pin)).await.unwrap_err();
    assert!(matches!(other, WsError::Status { .. }), "another host listens there: {other:?}");
    let neither = connect(&options(&url, TlsPin::from_bytes([0; 32]))).await.unwrap_err();
    assert_eq!(PinMismatch::find_in(&neither).unwrap().presented, wrong.pin, "told of what DNS says");
}

#[tokio::test]
async fn an_http_refusal_keeps_its_status_and_what_it_says_about_it() {
    let server = server(|mut tls| async move {
        let answer = b"HTTP/1.1 503 Busy\r\nwww-authenticate: Some why=\"x\"\r\ncontent-length: 0\r\n\r\n";
        tls.write_all(answer).await.unwrap();
        let _ = tls.shutdown().await;
    })
    .await;
    let error = connect(&options(&server.url, server.pin)).await.unwrap_err();
    let WsError::Status { status: StatusCode::SERVICE_UNAVAILABLE, challenge, .. } = error else { panic!("{error:?}") };
    assert_eq!(challenge.as_deref(), Some("Some why=\"x\""));
}

#[tokio::test]
async fn a_server_that_does_not_choose_the_sub_protocol_is_refused() {
    let server = server(|tls| async {
        let _ = tokio_tungstenite::accept_async(tls).await;
    })
    .await;
    let error = connect(&options(&server.url, server.pin)).await.unwrap_err();
    assert!(matches!(error, WsError::Upgrade { .. }), "{error:?}");
}

#[tokio::test]
async fn a_closed_port_and_a_plain_url_are_their_own_errors() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("wss://{}/", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    let pin = TlsPin::from_bytes([0; 32]);
    assert!(matches!(connect(&options(&url, pin)).await, Err(WsError::Tcp { .. })));
    let url = Url::parse("ws://127.0.0.1:1/").unwrap();
    assert!(matches!(connect(&options(&url, pin)).await, Err(WsError::Url(_))));
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_ends_with_the_step_that_hung() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("wss://{}/", listener.local_addr().unwrap())).unwrap();
    let error = connect(&options(&url, TlsPin::from_bytes([0; 32]))).await.unwrap_err();
    assert!(matches!(error, WsError::Timeout { step: "TLS handshake", .. }), "{error:?}");
}
