//! Before pebble: renewal information (RFC 9773), which it does not know, and the HTTP proxy of a site. Both write down what
//! they were asked.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use gateway_net::{
    http::foreign_client,
    tls::{ALPN_HTTP1, ServerIdentity, server_config},
};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// What was asked.
#[derive(Debug, Default, Clone)]
pub(crate) struct Asked {
    /// Certificates whose renewal somebody asked about.
    pub(crate) renewals: Vec<String>,
    /// What new orders said that they replace.
    pub(crate) orders: Vec<Option<String>>,
    /// Where connections through the proxy went.
    pub(crate) targets: Vec<String>,
}

/// The front and the proxy to it; they end on drop.
pub(crate) struct Front {
    /// Where the authority is reached.
    pub(crate) address: SocketAddr,
    /// Where the proxy is.
    pub(crate) proxy: SocketAddr,
    asked: Arc<Mutex<Asked>>,
    _tasks: JoinSet<()>,
}

struct Pebble {
    http: reqwest::Client,
    port: u16,
    asked: Arc<Mutex<Asked>>,
}

impl Front {
    /// Shows the certificate of `files`, as pebble at `pebble` does.
    pub(crate) async fn start(files: &Path, pebble: SocketAddr) -> anyhow::Result<Self> {
        let identity = ServerIdentity::load_or_generate(files, &[])?;
        let root = files.join("tls-certificate.pem");
        let http = foreign_client(Some(root.as_path()), None)?;
        let (front, proxy) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
        let (address, proxy_address) = (front.local_addr()?, proxy.local_addr()?);
        let asked = Arc::new(Mutex::new(Asked::default()));
        let pebble = Arc::new(Pebble { http, port: pebble.port(), asked: asked.clone() });
        let acceptor = TlsAcceptor::from(Arc::new(server_config(&identity, &[ALPN_HTTP1])));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(front, acceptor, pebble));
        tasks.spawn(tunnel(proxy, address, asked.clone()));
        Ok(Self { address, proxy: proxy_address, asked, _tasks: tasks })
    }

    pub(crate) fn asked(&self) -> Asked {
        lock(&self.asked).clone()
    }
}

fn lock(asked: &Mutex<Asked>) -> MutexGuard<'_, Asked> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, pebble: Arc<Pebble>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                let (acceptor, pebble) = (acceptor.clone(), pebble.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    let service = service_fn(move |request| answer(pebble.clone(), request));
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Pebble's answer, with what an authority that offers renewal information adds to it.
async fn answer(pebble: Arc<Pebble>, request: Request<Incoming>) -> anyhow::Result<Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let host = parts.headers.get(header::HOST).context("a host")?.to_str()?.to_owned();
    let path = parts.uri.path().to_owned();
    if let Some(name) = path.strip_prefix("/info/") {
        lock(&pebble.asked).renewals.push(name.to_owned());
        // Long ago: as soon as the relay thinks it sane.
        let window = json!({ "suggestedWindow": { "start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z" } });
        let answer = Response::builder().header(header::RETRY_AFTER, "60");
        return Ok(answer.body(Full::from(window.to_string()))?);
    }
    let url = format!("https://localhost:{}{path}", pebble.port);
    let mut forwarded = pebble.http.request(parts.method.clone(), url).body(body.clone()).header(header::HOST, &host);
    if let Some(kind) = parts.headers.get(header::CONTENT_TYPE) {
        forwarded = forwarded.header(header::CONTENT_TYPE, kind);
    }
    let said = forwarded.send().await?;
    let (status, headers, mut text) = (said.status(), said.headers().clone(), said.bytes().await?);
    if path == "/dir" {
        let mut directory: Value = serde_json::from_slice(&text)?;
        directory["renewalInfo"] = format!("https://{host}/info").into();
        text = directory.to_string().into();
    } else if parts.method == Method::POST && path.contains("order-plz") && status.is_success() {
        let replaced = payload(&body)?["replaces"].as_str().map(str::to_owned);
        let mut order: Value = serde_json::from_slice(&text)?;
        if let Some(replaced) = &replaced {
            order["replaces"] = replaced.as_str().into();
        }
        lock(&pebble.asked).orders.push(replaced);
        text = order.to_string().into();
    }
    let mut answer = Response::builder().status(status);
    for (name, value) in &headers {
        if name != header::CONTENT_LENGTH && name != header::CONNECTION && name != header::TRANSFER_ENCODING {
            answer = answer.header(name, value);
        }
    }
    Ok(answer.body(Full::from(text))?)
}

/// What a signed request says.
fn payload(body: &[u8]) -> anyhow::Result<Value> {
    let signed: Value = serde_json::from_slice(body)?;
    let payload = BASE64URL_NOPAD.decode(signed["payload"].as_str().context("a payload")?.as_bytes())?;
    Ok(serde_json::from_slice(&payload)?)
}

/// `CONNECT`, wherever to: every name leads to the front.
async fn tunnel(listener: TcpListener, front: SocketAddr, asked: Arc<Mutex<Asked>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let asked = asked.clone();
                connections.spawn(async move {
                    // A client that goes away in the middle is its own affair.
                    connect(client, front, &asked).await.ok();
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(mut client: TcpStream, front: SocketAddr, asked: &Mutex<Asked>) -> anyhow::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < 8 << 10, "too long a request");
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).context("a CONNECT")?;
    lock(asked).targets.push(target.to_owned());
    let mut server = TcpStream::connect(front).await?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
