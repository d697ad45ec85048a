//! HTTP clients. Limits that fit every use are set here; a request that must end by a certain time adds
//! `RequestBuilder::timeout`, a stream that stays open lives on its own heartbeats and [`READ_TIMEOUT`].
//!
//! A proxy is the caller's to name: what the environment says of proxies is read by
//! [`Proxy::from_environment`] and nowhere else. reqwest makes the tunnel by its own `CONNECT`, with our rule of which hosts
//! go through it; a host written as an IPv6 address cannot be reached through a proxy this way (reqwest 0.13).

use std::{path::Path, time::Duration};

use crate::{
    proxy::Proxy,
    tls::{
        ALPN_HTTP1, AuthoritiesError, ServerTrust, TlsPin, client_config, engine_client_config, foreign_client_config,
    },
};

/// Budget to resolve, connect and finish TLS (paths.md §7).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence inside a response: well above the 15 s heartbeats of long streams.
pub const READ_TIMEOUT: Duration = Duration::from_secs(45);

/// The client could not be built.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the HTTP client")]
pub struct HttpSetupError(#[from] reqwest::Error);

/// A client for a server of others could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ForeignSetupError {
    /// The authorities.
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
    /// The client.
    #[error(transparent)]
    Client(#[from] HttpSetupError),
}

/// A client for `https://` URLs of a server trusted as told. Redirects are not followed: a pinned server has no reason to send us elsewhere.
pub fn client(trust: ServerTrust, proxy: Option<&Proxy>) -> Result<reqwest::Client, HttpSetupError> {
    Ok(client_builder(trust, proxy).build()?)
}

/// The same before it is built, for callers that set more.
pub fn client_builder(trust: ServerTrust, proxy: Option<&Proxy>) -> reqwest::ClientBuilder {
    let builder = base(client_config(trust, &[ALPN_HTTP1])).https_only(true);
    match proxy {
        Some(proxy) => builder.proxy(proxy.for_reqwest()),
        None => builder,
    }
}

/// A client for the `https://` API of an integration engine, known by its pin or by nothing; never through a proxy.
pub fn engine_client(pin: Option<TlsPin>) -> Result<reqwest::Client, HttpSetupError> {
    Ok(base(engine_client_config(pin)).https_only(true).build()?)
}

/// A client for `https://` URLs of servers that are not ours, such as a provider of OpenID Connect: known to the public web
/// PKI or, where a PEM file is given, to the authorities in it alone. Redirects are not followed: an answer from elsewhere
/// is not theirs.
pub fn foreign_client(authorities: Option<&Path>, proxy: Option<&Proxy>) -> Result<reqwest::Client, ForeignSetupError> {
    let builder = base(foreign_client_config(authorities)?).https_only(true);
    let builder = match proxy {
        Some(proxy) => builder.proxy(proxy.for_reqwest()),
        None => builder,
    };
    Ok(builder.build().map_err(HttpSetupError)?)
}

/// A client that speaks HTTP over a Unix socket whatever the host in the URL: use `http://localhost/…`.
pub fn unix_client(socket: &Path) -> Result<reqwest::Client, HttpSetupError> {
    Ok(base(client_config(ServerTrust::WebPki, &[ALPN_HTTP1])).unix_socket(socket).build()?)
}

fn base(tls: rustls::ClientConfig) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("gateway/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .pool_idle_timeout(Duration::from_secs(60))
        .pool_max_idle_per_host(4)
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_secs(15))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, UnixListener},
        task::JoinSet,
    };

    use super::*;
    use crate::tls::{PinMismatch, ServerIdentity, server_config};

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

    #[tokio::test]
    async fn a_pinned_server_answers_and_another_pin_is_told_as_such() {
        let directory = tempfile::tempdir().unwrap();
        let identity = ServerIdentity::load_or_generate(directory.path(), &[]).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server_config(&identity, &[ALPN_HTTP1])));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                if let Ok(mut stream) = acceptor.accept(socket).await {
                    let _ = stream.read(&mut [0; 1024]).await;
                    let _ = stream.write_all(ANSWER).await;
                    let _ = stream.shutdown().await;
                }
            }
        });
        let good = client(ServerTrust::Pin(identity.pin()), None).unwrap();
        assert_eq!(good.get(&url).send().await.unwrap().text().await.unwrap(), "ok");
        let wrong = client(ServerTrust::Pin(TlsPin::from_bytes([0; 32])), None).unwrap();
        let error = wrong.get(&url).send().await.unwrap_err();
        assert_eq!(PinMismatch::find_in(&error).unwrap().presented, identity.pin());
    }

    #[tokio::test]
    async fn plain_http_is_refused_before_anything_is_sent() {
        let client = client(ServerTrust::WebPki, None).unwrap();
        assert!(client.get("http://127.0.0.1:9/").send().await.unwrap_err().is_builder());
    }

    #[tokio::test]
    async fn a_unix_socket_is_spoken_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(ANSWER).await;
        });
        let client = unix_client(&path).unwrap();
        assert_eq!(client.get("http://localhost/status").send().await.unwrap().text().await.unwrap(), "ok");
    }
}
