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
    tungstenite::{client::IntoClientRequest, http::header::SEC_WEBSOCKET_PROTOCOL, protocol::WebSocketConfig},
};
use url::Url;

use crate::{
    dial::{self, DialError, Steps, Unresolved},
    proxy::{Proxy, ProxyError},
    tls::{ALPN_HTTP1, ServerTrust, client_config, server_name},
};

/// Budget for everything up to the upgraded connection (paths.md §7).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Unsent bytes after which the stream refuses more instead of growing.
const MAX_WRITE_BUFFER: usize = 1 << 20;

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

/// Why no WebSocket connection was made.
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

/// Connects within [`CONNECT_TIMEOUT`]. Dropping the future gives up.
pub async fn connect(options: &WsOptions) -> Result<WsStream, WsError> {
    let mut step = Steps::DIRECT.resolve;
    let host = options.url.host_str().unwrap_or_default().to_owned();
    let result = tokio::time::timeout(CONNECT_TIMEOUT, connect_steps(options, &host, &mut step)).await;
    result.unwrap_or_else(|_| Err(WsError::Timeout { host, step }))
}

async fn connect_steps(options: &WsOptions, host: &str, step: &mut &'static str) -> Result<WsStream, WsError> {
    let url = &options.url;
    let (Some(target), "wss") = (url.host(), url.scheme()) else {
        return Err(WsError::Url(url.clone()));
    };
    let port = url.port_or_known_default().unwrap_or(443);
    let tcp = match options.proxy.as_ref().filter(|proxy| proxy.covers(&target)) {
        Some(proxy) => proxy.tunnel(&target, port, step).await?,
        None => {
            dial::dial(&target, port, Unresolved::Remember, Steps::DIRECT, step).await.map_err(|error| match error {
                DialError::Resolve(source) => WsError::Resolve { host: host.to_owned(), source },
                DialError::Connect(source) => WsError::Tcp { host: host.to_owned(), port, source },
            })?
        }
    };

    *step = "TLS handshake";
    let connector = TlsConnector::from(Arc::new(client_config(options.trust, &[ALPN_HTTP1])));
    let name = server_name(&target).ok_or_else(|| WsError::Url(url.clone()))?;
    let tls = connector.connect(name, tcp).await;
    let tls = tls.map_err(|source| WsError::Tls { host: host.to_owned(), source })?;

    *step = "WebSocket upgrade";
    let upgrade_error = |error: WsStreamError| {
        if let WsStreamError::Http(response) = &error {
            return WsError::Status { host: host.to_owned(), status: response.status() };
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

fn stream_config(max_message: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_message))
        .max_write_buffer_size(MAX_WRITE_BUFFER)
}

#[cfg(test)]
mod tests;
