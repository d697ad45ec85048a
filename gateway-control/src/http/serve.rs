//! The listener: TLS 1.3, HTTP/1.1, bounded connections, time limits at every step, orderly end.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request};
use gateway_net::shutdown::Shutdown;
use gateway_proto::relay::aggregate;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::{
    ClientAddress,
    sources::{SourceGuard, Sources},
};

/// A client that has not finished its TLS handshake by then is a stranger.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for the head of a request, and how long an idle connection is kept.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// What running requests get to finish when the end was asked for.
const GRACE: Duration = Duration::from_secs(5);
/// After a failed accept (no file descriptors, mostly) trying again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One source (an address, or an IPv6 /64) may hold this part of all connections.
const SHARE_OF_ONE_SOURCE: usize = 4;

/// How to listen.
#[derive(Debug)]
pub struct ServeOptions {
    /// TLS; none: plain HTTP, for metrics on an address of the operator's choice.
    pub tls: Option<Arc<ServerConfig>>,
    /// Connections at the same time; more wait to be accepted.
    pub max_connections: usize,
}

/// Serves until the end is asked for, then lets running requests finish.
pub async fn serve(listener: TcpListener, router: Router, options: ServeOptions, shutdown: Shutdown) {
    let places = Arc::new(Semaphore::new(options.max_connections));
    let sources = Sources::new(options.max_connections / SHARE_OF_ONE_SOURCE);
    let tls = options.tls.map(TlsAcceptor::from);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.requested() => break,
            accepted = accept(&listener, &places) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Some((stream, place)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(peer) = stream.peer_addr() else { continue };
        let client = ClientAddress(aggregate(peer.ip()));
        let Some(share) = sources.enter(client.0) else {
            tracing::debug!("a source holds its whole share of the connections");
            continue;
        };
        let held = (place, share);
        connections.spawn(connection(stream, client, tls.clone(), router.clone(), shutdown.clone(), held));
    }
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    if timeout(GRACE, finish).await.is_err() {
        tracing::debug!(connections = connections.len(), "closing connections that did not finish");
        connections.shutdown().await;
    }
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    client: ClientAddress,
    tls: Option<TlsAcceptor>,
    router: Router,
    shutdown: Shutdown,
    held: (OwnedSemaphorePermit, SourceGuard),
) {
    // Small answers and heartbeats must not wait for more to come.
    let _ = stream.set_nodelay(true);
    match tls {
        None => http(stream, router, client, shutdown).await,
        Some(tls) => match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => http(stream, router, client, shutdown).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake took too long"),
        },
    }
    drop(held);
}

async fn http<S>(stream: S, router: Router, client: ClientAddress, shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(client);
        router.clone().oneshot(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
