//! The WebSocket client for relay links: resolve, connect (happy eyeballs), through a proxy where there is one, TLS, upgrade,
//! all within one budget.
//!
//! Each step that can fail has its own error, because each asks for another action of the operator.

use std::{io, sync::Arc, time::Duration};

use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
pub use tokio_tungstenite::tungstenite::{
    Bytes, Error as WsStreamError, Message,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        client::IntoClientRequest,
        http::header::{SEC_WEBSOCKET_PROTOCOL, WWW_AUTHENTICATE},
        protocol::WebSocketConfig,
    },
};
use url::{Host, Url};

use crate::{
    dial::{self, DialError, Steps, Unresolved},
    proxy::{Proxy, ProxyError},
    tls::{ALPN_HTTP1, ServerTrust, client_config, server_name},
};

/// Budget for everything up to the upgraded connection (paths.md §7).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// So long TLS may take at one address while there are others to try.
const OTHERS_WAIT: Duration = Duration::from_secs(4);
/// Unsent bytes after which the stream refuses more instead of growing.
const MAX_WRITE_BUFFER: usize = 1 << 20;

/// Characters of a refusal's words that are kept.
const MAX_CHALLENGE: usize = 200;

/// A WebSocket over TLS over TCP: a `Stream` and `Sink` of [`Message`]s.
pub type WsStream = WebSocketStream<TlsStream<TcpStream>>;

/// What to connect to, and how.
#[derive(Debug, Clone)]
pub struct WsOptions {
    /// A `wss://` URL.
    pub url: Url,
    /// How the server is known.
    pub trust: ServerTrust,
    /// The proxy to go through, where it covers the host.
    pub proxy: Option<Proxy>,
    /// The sub-protocol asked for; the server must choose it.
    pub protocol: &'static str,
    /// Further headers of the upgrade request.
    pub headers: HeaderMap,
    /// The largest message accepted, in bytes.
    pub max_message: usize,
}

/// Why no WebSocket connection was made, or no connection for HTTP ([`crate::https`]).
#[derive(Debug, thiserror::Error)]
pub enum WsError {
    /// The URL is not usable.
    #[error("'{0}' is not a wss:// URL with a host")]
    Url(Url),
    /// The name does not resolve.
    #[error("cannot resolve '{host}': check the name and the DNS servers of this machine")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No address accepts a TCP connection.
    #[error("cannot connect to '{host}' port {port} over TCP: check that it is up and that a firewall lets us out")]
    Tcp {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// The error of the address that says most.
        source: io::Error,
    },
    /// There is no way through the proxy.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// TLS failed; [`PinMismatch::find_in`](crate::tls::PinMismatch::find_in) tells whether it is the key.
    #[error("TLS with '{host}' failed")]
    Tls {
        /// The host.
        host: String,
        /// What TLS said.
        source: io::Error,
    },
    /// The server answered the upgrade with a status.
    #[error("'{host}' refused the WebSocket upgrade with HTTP status {status}")]
    Status {
        /// The host.
        host: String,
        /// The status.
        status: StatusCode,
        /// What it said about it in `WWW-Authenticate`.
        challenge: Option<String>,
    },
    /// The upgrade failed in another way.
    #[error("'{host}' does not speak the sub-protocol '{protocol}' over WebSocket")]
    Upgrade {
        /// The host.
        host: String,
        /// The sub-protocol asked for.
        protocol: &'static str,
        /// What went wrong.
        source: Box<WsStreamError>,
    },
    /// The budget is used up.
    #[error("no connection to '{host}' within {} s (last step: {step})", CONNECT_TIMEOUT.as_secs())]
    Timeout {
        /// The host.
        host: String,
        /// What was under way.
        step: &'static str,
    },
}

/// Where TLS is spoken, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Destination<'a> {
    /// Its host and port count.
    pub(crate) url: &'a Url,
    /// How the host is known.
    pub(crate) trust: ServerTrust,
    /// The proxy to go through, where it covers the host.
    pub(crate) proxy: Option<&'a Proxy>,
}

/// Connects within [`CONNECT_TIMEOUT`]. Dropping the future gives up.
pub async fn connect(options: &WsOptions) -> Result<WsStream, WsError> {
    let mut step = Steps::DIRECT.resolve;
    let host = options.url.host_str().unwrap_or_default().to_owned();
    let result = tokio::time::timeout(CONNECT_TIMEOUT, connect_steps(options, &host, &mut step)).await;
    result.unwrap_or_else(|_| Err(WsError::Timeout { host, step }))
}

async fn connect_steps(options: &WsOptions, host: &str, step: &mut &'static str) -> Result<WsStream, WsError> {
    let url = &options.url;
    if url.scheme() != "wss" {
        return Err(WsError::Url(url.clone()));
    }
    let tls = secured(Destination { url, trust: options.trust, proxy: options.proxy.as_ref() }, step).await?;

    *step = "WebSocket upgrade";
    let upgrade_error = |error: WsStreamError| {
        if let WsStreamError::Http(response) = &error {
            let challenge = response.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
            let challenge = challenge.map(|text| text.chars().take(MAX_CHALLENGE).collect());
            return WsError::Status { host: host.to_owned(), status: response.status(), challenge };
        }
        WsError::Upgrade { host: host.to_owned(), protocol: options.protocol, source: Box::new(error) }
    };
    let mut request = url.as_str().into_client_request().map_err(upgrade_error)?;
    request.headers_mut().extend(options.headers.clone());
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(options.protocol));
    let config = stream_config(options.max_message);
    let (stream, _response) = client_async_with_config(request, tls, Some(config)).await.map_err(upgrade_error)?;
    Ok(stream)
}

/// TLS with the host of a URL. The caller sets the time limit; `step` says what is under way.
pub(crate) async fn secured(to: Destination<'_>, step: &mut &'static str) -> Result<TlsStream<TcpStream>, WsError> {
    let Some(target) = to.url.host() else { return Err(WsError::Url(to.url.clone())) };
    let port = to.url.port_or_known_default().unwrap_or(443);
    match to.proxy.filter(|proxy| proxy.covers(&target)) {
        Some(proxy) => {
            let tcp = proxy.tunnel(&target, port, step).await?;
            secure(to, &target, tcp, step).await
        }
        None => reach(to, &target, port, step).await,
    }
}

/// TLS straight to the host, at the first of its addresses where it proves that it is the host: a name server may name another
/// one's, and then the addresses at which it was reached last are tried as well. Of the errors, the first one counts.
async fn reach(
    to: Destination<'_>,
    target: &Host<&str>,
    port: u16,
    step: &mut &'static str,
) -> Result<TlsStream<TcpStream>, WsError> {
    let dial_error = |error: DialError| match error {
        DialError::Resolve(source) => WsError::Resolve { host: target.to_string(), source },
        DialError::Connect(source) => WsError::Tcp { host: target.to_string(), port, source },
    };
    *step = Steps::DIRECT.resolve;
    let mut addresses = dial::addresses(target, port, Unresolved::Remember).await.map_err(dial_error)?;
    let mut first = None;
    loop {
        *step = Steps::DIRECT.connect;
        let tcp = match addresses.connect().await {
            Ok(tcp) => tcp,
            Err(error) => return Err(first.unwrap_or_else(|| dial_error(error))),
        };
        let secured = secure(to, target, tcp, step);
        let secured = if addresses.are_left() {
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "TLS over TCP comes to no end");
            let tls_error = |source| WsError::Tls { host: target.to_string(), source };
            tokio::time::timeout(OTHERS_WAIT, secured).await.map_err(late).map_err(tls_error).flatten()
        } else {
            secured.await
        };
        match secured {
            Ok(tls) => {
                dial::reached(target, tls.get_ref().0);
                return Ok(tls);
            }
            Err(error) => first = first.or(Some(error)),
        }
    }
}

/// TLS with whoever is at the other end of a connection, if it is the host.
async fn secure(
    to: Destination<'_>,
    target: &Host<&str>,
    tcp: TcpStream,
    step: &mut &'static str,
) -> Result<TlsStream<TcpStream>, WsError> {
    *step = "TLS handshake";
    let connector = TlsConnector::from(Arc::new(client_config(to.trust, &[ALPN_HTTP1])));
    let name = server_name(target).ok_or_else(|| WsError::Url(to.url.clone()))?;
    connector.connect(name, tcp).await.map_err(|source| WsError::Tls { host: target.to_string(), source })
}

fn stream_config(max_message: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_message))
        .max_write_buffer_size(MAX_WRITE_BUFFER)
}

#[cfg(test)]
mod tests;
