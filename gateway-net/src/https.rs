//! One HTTPS request, over a connection of its own that is made as those of relay links are: through our own `CONNECT` where a proxy
//! covers the host, at the addresses where the host was reached last when its name does not resolve, through the NAT64 of a network without
//! IPv4, with segments that fit small paths, and with the same words for what fails. reqwest, under [`crate::http`], connects by itself.

use std::{fmt, pin::pin, time::Duration};

use futures_util::future::{Either, select};
use http_body_util::{BodyExt, Full};
pub use hyper::{HeaderMap, StatusCode};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::client::TlsStream;
use url::{Position, Url};

use crate::{
    dial::Steps,
    proxy::Proxy,
    tls::{ServerTrust, server_name},
    ws::{CONNECT_TIMEOUT, Destination, WsError, secured},
};

/// What is asked, and of whom.
#[derive(Clone)]
pub struct HttpsRequest {
    /// An `https://` URL.
    pub url: Url,
    /// How the server is known.
    pub trust: ServerTrust,
    /// The proxy to go through, where it covers the host.
    pub proxy: Option<Proxy>,
    /// The body of a `POST`, JSON; none: `GET`.
    pub json: Option<Vec<u8>>,
    /// The longest body of an answer that is accepted, in bytes.
    pub max_body: usize,
    /// From the first packet to the last byte of the answer.
    pub limit: Duration,
}

/// What came back, whatever its status is.
#[derive(Clone)]
pub struct HttpsAnswer {
    /// The status.
    pub status: StatusCode,
    /// The head.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// The URL is not usable.
    #[error("'{0}' is not an https:// URL with a host")]
    Url(Url),
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] WsError),
    /// The connection broke, or what came over it is not HTTP.
    #[error("no whole HTTP answer from '{host}'")]
    Http {
        /// The host.
        host: String,
        /// What went wrong.
        source: hyper::Error,
    },
    /// More than anybody wants to read.
    #[error("the answer of '{host}' is longer than {max_body} bytes")]
    TooLong {
        /// The host.
        host: String,
        /// The limit.
        max_body: usize,
    },
    /// The time is up.
    #[error("no answer from '{host}' within {} s", limit.as_secs())]
    Timeout {
        /// The host.
        host: String,
        /// The limit.
        limit: Duration,
    },
}

/// Asks, and reads the whole answer. Redirects are not followed. Dropping the future gives up.
///
/// # Errors
/// When there is no whole answer within the limit; any status is an answer.
pub async fn exchange(request: HttpsRequest) -> Result<HttpsAnswer, HttpsError> {
    let (host, limit) = (request.url.host_str().unwrap_or_default().to_owned(), request.limit);
    let answer = timeout(limit, exchange_steps(request, &host)).await;
    answer.unwrap_or_else(|_| Err(HttpsError::Timeout { host, limit }))
}

async fn exchange_steps(request: HttpsRequest, host: &str) -> Result<HttpsAnswer, HttpsError> {
    let HttpsRequest { url, trust, proxy, json, max_body, limit: _ } = request;
    let outgoing = outgoing(&url, json).ok_or_else(|| HttpsError::Url(url.clone()))?;
    let mut step = Steps::DIRECT.resolve;
    let destination = Destination { url: &url, trust, proxy: proxy.as_ref() };
    let connected = timeout(CONNECT_TIMEOUT, secured(destination, &mut step)).await;
    let tls = connected.unwrap_or_else(|_| Err(WsError::Timeout { host: host.to_owned(), step }))?;
    let broken = |source| HttpsError::Http { host: host.to_owned(), source };
    let Some((head, body)) = ask(tls, outgoing, max_body).await.map_err(broken)? else {
        return Err(HttpsError::TooLong { host: host.to_owned(), max_body });
    };
    let (head, ()) = head.into_parts();
    Ok(HttpsAnswer { status: head.status, headers: head.headers, body })
}

/// The request for a URL; none: there is nobody to send it to.
fn outgoing(url: &Url, json: Option<Vec<u8>>) -> Option<Request<Full<Bytes>>> {
    let host = url.host().filter(|host| url.scheme() == "https" && server_name(host).is_some())?;
    let authority = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_string(),
    };
    let request = Request::builder()
        .uri(&url[Position::BeforePath..Position::AfterQuery])
        .header(HOST, authority)
        .header(USER_AGENT, concat!("gateway/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close");
    let request = match json {
        Some(json) => {
            request.method(Method::POST).header(CONTENT_TYPE, "application/json").body(Full::new(Bytes::from(json)))
        }
        None => request.method(Method::GET).body(Full::default()),
    };
    request.ok()
}

/// The head and the body of the answer; none: the body is longer than `max_body`.
async fn ask(
    tls: TlsStream<TcpStream>,
    request: Request<Full<Bytes>>,
    max_body: usize,
) -> hyper::Result<Option<(Response<()>, Vec<u8>)>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
    let answer = pin!(async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = read(body, max_body).await?;
        Ok::<_, hyper::Error>(body.map(|body| (Response::from_parts(head, ()), body)))
    });
    // The connection moves while the answer is waited for. Where it ends first, what it brought is still to be read.
    match select(answer, pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((_, answer)) => answer.await,
    }
}

async fn read(mut body: Incoming, max_body: usize) -> hyper::Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let Some(data) = frame.data_ref() else { continue };
        if content.len() + data.len() > max_body {
            return Ok(None);
        }
        content.extend_from_slice(data);
    }
    Ok(Some(content))
}

impl fmt::Debug for HttpsRequest {
    /// Without the body, which may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpsRequest").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

impl fmt::Debug for HttpsAnswer {
    /// Without what may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpsAnswer").field("status", &self.status).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
