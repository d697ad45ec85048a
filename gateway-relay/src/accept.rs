//! What happens between the accept and TLS: rates, the cap on open connections, TCP_NODELAY.
//!
//! A connection over a limit is closed before a single byte of TLS is computed for it: strangers must be cheap. Gateways come back with
//! jittered delays, so a restart storm spreads out by itself.

use std::{
    collections::HashMap,
    future::{Ready, ready},
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use axum_server::accept::Accept;
use gateway_proto::relay::{SourceLimiter, TokenBucket, aggregate};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{
    config::Limits,
    metrics::{Metrics, RejectReason},
};

/// Connections beyond the attached gateways: handshakes and admissions under way, replacements, strangers.
const PENDING: usize = 512;
/// Sources remembered by the per-source limit.
const MAX_SOURCES: usize = 16_384;

#[derive(Clone)]
pub(crate) struct LimitAcceptor {
    rates: Arc<Mutex<Rates>>,
    open: Arc<Semaphore>,
    most_per_source: usize,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Rates {
    all: TokenBucket,
    per_source: SourceLimiter,
    /// Open connections by source: one is not to take the places of all. No more than are open in all.
    open: HashMap<IpAddr, usize>,
}

impl LimitAcceptor {
    pub(crate) fn new(limits: &Limits, metrics: Arc<Metrics>) -> Self {
        let (all, source) = (limits.accept_per_second, limits.accept_per_second_per_source);
        let rates = Rates {
            all: TokenBucket::new(all, all, Instant::now()),
            per_source: SourceLimiter::new(source, source, MAX_SOURCES),
            open: HashMap::new(),
        };
        let open = Semaphore::new((limits.max_clients + PENDING).min(Semaphore::MAX_PERMITS));
        Self {
            rates: Arc::new(Mutex::new(rates)),
            open: Arc::new(open),
            most_per_source: limits.connections_per_source,
            metrics,
        }
    }

    fn admit(&self, stream: &TcpStream) -> Result<Place, RejectReason> {
        let source = stream.peer_addr().map_err(|_| RejectReason::SourceRate)?.ip();
        let now = Instant::now();
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        // The source first: what it is refused must not use up the share of all.
        if !rates.per_source.allow(source, now) {
            return Err(RejectReason::SourceRate);
        }
        rates.all.take(1, now).map_err(|_| RejectReason::Rate)?;
        let source = aggregate(source);
        if rates.open.get(&source).is_some_and(|open| *open >= self.most_per_source) {
            return Err(RejectReason::SourceFull);
        }
        let permit = self.open.clone().try_acquire_owned().map_err(|_| RejectReason::Full)?;
        *rates.open.entry(source).or_default() += 1;
        Ok(Place { source, rates: self.rates.clone(), _permit: permit })
    }
}

/// One of the connections that may be open.
#[derive(Debug)]
struct Place {
    source: IpAddr,
    rates: Arc<Mutex<Rates>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = rates.open.get_mut(&self.source) {
            *open -= 1;
            if *open == 0 {
                rates.open.remove(&self.source);
            }
        }
    }
}

impl<S> Accept<TcpStream, S> for LimitAcceptor {
    type Stream = Counted;
    type Service = S;
    type Future = Ready<io::Result<(Counted, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        ready(match self.admit(&stream) {
            Ok(place) => {
                self.metrics.accepted.inc();
                stream.set_nodelay(true).map(|()| (Counted { stream, _place: place }, service))
            }
            Err(reason) => {
                self.metrics.rejected(reason);
                Err(io::ErrorKind::ConnectionRefused.into())
            }
        })
    }
}

/// A TCP stream that counts as open until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    stream: TcpStream,
    _place: Place,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
