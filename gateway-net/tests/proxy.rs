//! Both clients through an HTTP proxy, and what they say when it is the proxy that fails.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use gateway_net::{
    http,
    https::{HttpsError, HttpsRequest, exchange},
    proxy::{Exemptions, Proxy, ProxyError},
    tls::{ALPN_HTTP1, PinMismatch, ServerIdentity, ServerTrust, TlsPin, server_config},
    ws::{self, HeaderMap, HeaderValue, Message, StatusCode, WsError, WsOptions},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

const OPEN: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// What the proxy does with a `CONNECT`.
#[derive(Clone)]
enum Behavior {
    /// Sends the bytes, in pieces of this size, and connects to the server.
    Tunnel(&'static [u8], usize),
    /// Tunnels if the credentials in base64 are these, and answers 407 otherwise.
    Ask(&'static str),
    /// Sends the bytes and ends.
    Answer(Vec<u8>),
    /// Sends nothing and stays.
    Silent,
}

/// A proxy on loopback, and a TLS server behind it that the proxy leads to whatever it is asked for.
struct Site {
    proxy: SocketAddr,
    pin: TlsPin,
    heads: mpsc::Receiver<String>,
    _tasks: JoinSet<()>,
    _directory: tempfile::TempDir,
}

impl Site {
    async fn start(behavior: Behavior) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let identity = ServerIdentity::load_or_generate(directory.path(), &[]).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(server_config(&identity, &[ALPN_HTTP1])));
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (proxy, behind) = (listener.local_addr().unwrap(), server.local_addr().unwrap());
        let (sender, heads) = mpsc::channel(16);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut clients = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                clients.spawn(serve(tcp, behind, behavior.clone(), sender.clone()));
            }
        });
        tasks.spawn(async move {
            loop {
                let (tcp, _) = server.accept().await.unwrap();
                let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
                // One server for both clients, told apart by the name they ask for.
                if tls.get_ref().1.server_name() == Some("control.invalid") {
                    let _ = tls.read(&mut [0; 1024]).await;
                    tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
                        .await
                        .unwrap();
                    let _ = tls.shutdown().await;
                    continue;
                }
                let mut stream = tokio_tungstenite::accept_hdr_async(tls, choose_protocol).await.unwrap();
                if let Some(Ok(message)) = stream.next().await {
                    let _ = stream.send(message).await;
                }
            }
        });
        Self { proxy, pin: identity.pin(), heads, _tasks: tasks, _directory: directory }
    }

    fn proxy(&self, credentials: &str) -> Proxy {
        format!("http://{credentials}{}", self.proxy).parse().unwrap()
    }

    fn options(&self, credentials: &str) -> WsOptions {
        WsOptions {
            url: "wss://relay.invalid:8443/relay".parse().unwrap(),
            trust: ServerTrust::Pin(self.pin),
            proxy: Some(self.proxy(credentials)),
            protocol: "test.1",
            headers: HeaderMap::new(),
            max_message: 1024,
        }
    }

    async fn echo(&self, credentials: &str) -> Result<(), WsError> {
        let mut stream = ws::connect(&self.options(credentials)).await?;
        stream.send(Message::binary(vec![1, 2, 3])).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), Message::binary(vec![1, 2, 3]));
        Ok(())
    }

    async fn failure(behavior: Behavior) -> ProxyError {
        let site = Self::start(behavior).await;
        let error = site.echo("").await.unwrap_err();
        assert!(error.to_string().contains(&site.proxy.to_string()), "{error}");
        let WsError::Proxy(error) = error else { panic!("{error:?}") };
        error
    }
}

async fn serve(mut tcp: TcpStream, behind: SocketAddr, behavior: Behavior, heads: mpsc::Sender<String>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    heads.send(head.clone()).await.unwrap();
    let (answer, piece) = match behavior {
        Behavior::Tunnel(answer, piece) => (answer, piece),
        Behavior::Ask(credentials) if has_header(&head, "proxy-authorization", &format!("Basic {credentials}")) => {
            (OPEN, OPEN.len())
        }
        Behavior::Ask(_) => {
            let answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic realm=\"x\"\r\n\r\n";
            return tcp.write_all(answer).await.unwrap();
        }
        Behavior::Answer(answer) => {
            // The client may hang up in the middle of it.
            let _ = tcp.write_all(&answer).await;
            let _ = tcp.shutdown().await;
            let _ = tcp.read(&mut [0; 64]).await;
            return;
        }
        Behavior::Silent => return std::future::pending().await,
    };
    tcp.set_nodelay(true).unwrap();
    for bytes in answer.chunks(piece) {
        tcp.write_all(bytes).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut server = TcpStream::connect(behind).await.unwrap();
    let _ = copy_bidirectional(&mut tcp, &mut server).await;
}

fn has_header(head: &str, name: &str, value: &str) -> bool {
    let headers = head.lines().filter_map(|line| line.split_once(": "));
    headers.into_iter().any(|(found, text)| found.eq_ignore_ascii_case(name) && text == value)
}

#[expect(clippy::result_large_err, reason = "the callback's type is given by tungstenite")]
fn choose_protocol(_request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("test.1"));
    Ok(response)
}

#[tokio::test]
async fn a_websocket_goes_through_the_proxy_and_the_name_is_resolved_there() {
    let mut site = Site::start(Behavior::Tunnel(OPEN, OPEN.len())).await;
    site.echo("").await.unwrap();
    let head = site.heads.recv().await.unwrap();
    assert!(head.starts_with("CONNECT relay.invalid:8443 HTTP/1.1\r\nHost: relay.invalid:8443\r\n"), "{head}");
    assert!(!head.to_ascii_lowercase().contains("authorization"), "{head}");
}

#[tokio::test]
async fn an_answer_in_single_bytes_with_headers_that_speak_of_a_body_opens_the_tunnel_too() {
    let answer = b"HTTP/1.0 204 Fine\nContent-Length: 500\nTransfer-Encoding: chunked\n\n";
    let site = Site::start(Behavior::Tunnel(answer, 1)).await;
    site.echo("").await.unwrap();
}

#[tokio::test]
async fn user_and_password_open_a_proxy_that_asks_and_others_are_told_as_such() {
    // user:pässword
    let site = Site::start(Behavior::Ask("dXNlcjpww6Rzc3dvcmQ=")).await;
    site.echo("user:p%C3%A4ssword@").await.unwrap();
    for (credentials, words) in [("", "none are configured"), ("user:sesame@", "does not accept ours")] {
        let error = site.echo(credentials).await.unwrap_err();
        assert!(matches!(error, WsError::Proxy(ProxyError::Credentials { .. })), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("wrong or missing user and password for the proxy") && text.contains(words), "{text}");
        assert!(!format!("{text}{error:?}").contains("sesame"));
    }
}

#[tokio::test]
async fn a_refusal_keeps_its_status_and_says_what_to_do() {
    let error =
        Site::failure(Behavior::Answer(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 9\r\n\r\nforbidden".into())).await;
    assert!(matches!(error, ProxyError::Refused { status: StatusCode::FORBIDDEN, .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("relay.invalid:8443") && text.contains("allowed at the proxy"), "{text}");
    let error = Site::failure(Behavior::Answer(b"HTTP/1.1 502 Bad Gateway\r\n\r\n".into())).await;
    assert!(error.to_string().contains("the proxy cannot reach it"), "{error}");
    let error = Site::failure(Behavior::Answer(b"HTTP/1.1 401 Unauthorized\r\n\r\n".into())).await;
    assert!(matches!(error, ProxyError::Credentials { status: StatusCode::UNAUTHORIZED, .. }), "{error:?}");
    let error = Site::failure(Behavior::Answer(b"HTTP/1.1 302 Found\r\nlocation: http://login/\r\n\r\n".into())).await;
    assert!(error.to_string().contains("login page"), "{error}");
}

#[tokio::test]
async fn whatever_is_not_the_answer_of_a_proxy_is_malformed() {
    let endless = [b"HTTP/1.1 200 OK\r\n".to_vec(), b"x: yyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(400)].concat();
    for answer in [
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        vec![0x15, 3, 1, 0, 2, 2, 80],
        b"HTTP/2 200\r\n\r\n".to_vec(),
        b"HTTP/1.1 20\r\n\r\n".to_vec(),
        b"HTTP/1.1 2000 OK\r\n\r\n".to_vec(),
        b"HTTP/1.1  200 OK\r\n\r\n".to_vec(),
        b"HTTP/1.1200 OK\r\n\r\n".to_vec(),
        b"HTTP/1.1 abc OK\r\n\r\n".to_vec(),
        endless,
    ] {
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(20)]).into_owned();
        let error = Site::failure(Behavior::Answer(answer)).await;
        assert!(matches!(error, ProxyError::Malformed { .. }), "{shown:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_proxy_that_hangs_up_is_broken() {
    for answer in [&b""[..], b"HTT", b"HTTP/1.1 200 OK\r\nx: y\r\n"] {
        let error = Site::failure(Behavior::Answer(answer.into())).await;
        assert!(matches!(error, ProxyError::Broken { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_told_from_a_relay_that_is_not() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let site = Site::start(Behavior::Silent).await;
    let mut options = site.options("");
    options.proxy = Some(format!("http://{closed}").parse().unwrap());
    let error = ws::connect(&options).await.unwrap_err();
    assert!(matches!(error, WsError::Proxy(ProxyError::Unreachable { .. })), "{error:?}");
    options.proxy = Some("http://proxy.invalid:3128".parse().unwrap());
    let error = ws::connect(&options).await.unwrap_err();
    assert!(matches!(error, WsError::Proxy(ProxyError::Resolve { .. })), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_proxy_ends_with_the_budget_and_is_named_as_the_step_that_hung() {
    let site = Site::start(Behavior::Silent).await;
    let error = site.echo("").await.unwrap_err();
    assert!(matches!(error, WsError::Timeout { step: "answer of the proxy to CONNECT", .. }), "{error:?}");
}

#[tokio::test]
async fn a_wrong_pin_is_found_behind_a_proxy_by_both_clients() {
    let site = Site::start(Behavior::Tunnel(OPEN, OPEN.len())).await;
    let trust = ServerTrust::Pin(TlsPin::from_bytes([0; 32]));
    let error = ws::connect(&WsOptions { trust, ..site.options("") }).await.unwrap_err();
    assert_eq!(PinMismatch::find_in(&error).unwrap().presented, site.pin);
    let client = http::client(trust, Some(&site.proxy(""))).unwrap();
    let error = client.put("https://control.invalid/").send().await.unwrap_err();
    assert_eq!(PinMismatch::find_in(&error).unwrap().presented, site.pin);
}

#[tokio::test]
async fn a_request_goes_through_the_proxy_with_user_and_password() {
    let mut site = Site::start(Behavior::Ask("dXNlcjpwQHNz")).await;
    let put = async |credentials: &str| {
        let client = http::client(ServerTrust::Pin(site.pin), Some(&site.proxy(credentials))).unwrap();
        client.put("https://control.invalid/").send().await?.text().await
    };
    assert_eq!(put("user:p%40ss@").await.unwrap(), "ok");
    let error = put("").await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
    assert!(site.heads.recv().await.unwrap().starts_with("CONNECT control.invalid:443 HTTP/1.1\r\n"));
}

#[tokio::test]
async fn a_single_request_goes_through_our_own_connect_and_says_what_the_proxy_does() {
    let mut site = Site::start(Behavior::Ask("dXNlcjpwQHNz")).await;
    let ask = async |credentials: &str| {
        let request = HttpsRequest {
            url: "https://control.invalid/".parse().unwrap(),
            trust: ServerTrust::Pin(site.pin),
            proxy: Some(site.proxy(credentials)),
            json: None,
            max_body: 16,
            limit: Duration::from_secs(20),
        };
        exchange(request).await
    };
    assert_eq!(ask("user:p%40ss@").await.unwrap().body, b"ok");
    let error = ask("").await.unwrap_err();
    let refused = matches!(&error, HttpsError::Connect(WsError::Proxy(ProxyError::Credentials { .. })));
    assert!(refused && error.to_string().contains("wrong or missing user and password"), "{error:?}");
    assert!(site.heads.recv().await.unwrap().starts_with("CONNECT control.invalid:443 HTTP/1.1\r\n"));
}

#[tokio::test]
async fn loopback_and_exempted_hosts_are_reached_without_the_proxy() {
    let mut site = Site::start(Behavior::Answer(b"HTTP/1.1 403 No\r\n\r\n".into())).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut options = site.options("");
    options.url = format!("wss://{closed}/relay").parse().unwrap();
    let error = ws::connect(&options).await.unwrap_err();
    assert!(matches!(error, WsError::Tcp { .. }), "{error:?}");
    let client = http::client(options.trust, options.proxy.as_ref()).unwrap();
    assert!(client.put(format!("https://{closed}/")).send().await.unwrap_err().is_connect());

    let mut options = site.options("");
    options.proxy = options.proxy.map(|proxy| proxy.exempting(Exemptions::parse("relay.invalid")));
    let error = ws::connect(&options).await.unwrap_err();
    assert!(matches!(error, WsError::Resolve { .. }), "{error:?}");
    assert!(site.heads.try_recv().is_err(), "the proxy was asked");
}
