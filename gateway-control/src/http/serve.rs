//! The listener: TLS 1.3, HTTP/1.1 only, bounded connections, time and size limits at every step ([`paced`]), orderly end.
//!
//! HTTP/2 is not offered: gateways keep one WebSocket each, people's clients ask little, and what HTTP/2 adds is memory that a
//! stranger can take (streams, tables of headers, resets).

mod leftover;
mod paced;

#[cfg(test)]
mod tests;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{Router, extract::Request, http::StatusCode};
use gateway_net::shutdown::Shutdown;
use gateway_proto::relay::aggregate;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use self::paced::{Course, Paced, Stage};
use super::{
    ClientAddress,
    sources::{SourceGuard, Sources},
};

/// A client that has not finished its TLS handshake by then is a stranger.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The head of a request, and what is read or written in one go. Bodies pass through it piece by piece.
const BUFFER: usize = 16 << 10;
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
    let course = Course::new();
    let told = course.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(client);
        told.begin();
        let (router, told) = (router.clone(), told.clone());
        async move {
            let response = leftover::answered(router, request).await;
            told.end(response.status() == StatusCode::SWITCHING_PROTOCOLS);
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        // The course knows what is late.
        .header_read_timeout(None::<Duration>)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(Paced::new(stream, course.clone())), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.requested() => {
            course.hurry();
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        stage = course.overdue() => {
            tracing::debug!(?stage, "a connection took too long");
            // Whoever has been answered before is at rest, and closed in order; a stranger, or half a head, is dropped.
            if stage != Stage::Idle {
                return;
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
