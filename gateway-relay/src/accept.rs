//! What happens between the accept and TLS: rates, the cap on open connections, TCP_NODELAY.
//!
//! A connection over a limit is closed before a single byte of TLS is computed for it: strangers must be cheap. Gateways come back with
//! jittered delays, so a restart storm spreads out by itself.

use std::{
    collections::HashMap,
    future::{Ready, ready},
    io,
    net::IpAddr,
    num::NonZeroU64,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use axum_server::accept::Accept;
use gateway_proto::relay::{SourceLimiter, TokenBucket, aggregate};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{
    config::Limits,
    metrics::{Metrics, RejectReason},
    passing::{Companion, Passing},
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
        let most = (limits.max_clients + PENDING).min(Semaphore::MAX_PERMITS);
        Self::with(all, source, limits.connections_per_source, most, metrics)
    }

    /// `all` and `source` connections a second; open at a time `most`, `most_per_source` of them from one source.
    fn with(all: NonZeroU64, source: NonZeroU64, most_per_source: usize, most: usize, metrics: Arc<Metrics>) -> Self {
        let rates = Rates {
            all: TokenBucket::new(all, all, Instant::now()),
            per_source: SourceLimiter::new(source, source, MAX_SOURCES),
            open: HashMap::new(),
        };
        Self { rates: Arc::new(Mutex::new(rates)), open: Arc::new(Semaphore::new(most)), most_per_source, metrics }
    }

    fn admit(&self, source: IpAddr, now: Instant) -> Result<Place, RejectReason> {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        // The source first: what it is refused must not use up the share of all.
        if !rates.per_source.allow(source, now) {
            return Err(RejectReason::SourceRate);
        }
        let source = aggregate(source);
        if rates.open.get(&source).is_some_and(|open| *open >= self.most_per_source) {
            return Err(RejectReason::SourceFull);
        }
        rates.all.take(1, now).map_err(|_| RejectReason::Rate)?;
        let permit = self.open.clone().try_acquire_owned().map_err(|_| RejectReason::Full)?;
        *rates.open.entry(source).or_default() += 1;
        Ok(Place { source, rates: self.rates.clone(), _permit: permit })
    }
}

/// One of the connections that may be open.
#[derive(Debug)]
pub(crate) struct Place {
    source: IpAddr,
    rates: Arc<Mutex<Rates>>,
    _permit: OwnedSemaphorePermit,
}

impl Companion for Place {}

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
        let source = stream.peer_addr().map_err(|_| RejectReason::SourceRate);
        ready(match source.and_then(|source| self.admit(source.ip(), Instant::now())) {
            Ok(place) => {
                self.metrics.accepted.inc();
                stream.set_nodelay(true).map(|()| (Passing::new(stream, place), service))
            }
            Err(reason) => {
                self.metrics.rejected(reason);
                Err(io::ErrorKind::ConnectionRefused.into())
            }
        })
    }
}

/// A TCP stream that counts as open until it is dropped.
pub(crate) type Counted = Passing<TcpStream, Place>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_is_refused_uses_up_nothing_of_what_all_may_accept() {
        let rate = |number| NonZeroU64::new(number).unwrap();
        let acceptor = LimitAcceptor::with(rate(3), rate(50), 1, 100, Arc::new(Metrics::new()));
        let (greedy, modest) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let now = Instant::now();
        let _first = acceptor.admit(greedy, now).unwrap();
        for _ in 0..20 {
            assert_eq!(acceptor.admit(greedy, now).err(), Some(RejectReason::SourceFull));
        }
        let _second = acceptor.admit(modest, now).unwrap();
        for _ in 0..100 {
            drop(acceptor.admit(greedy, now));
        }
        assert_eq!(acceptor.admit(greedy, now).err(), Some(RejectReason::SourceRate));
        let _third = acceptor.admit(IpAddr::from([192, 0, 2, 3]), now).unwrap();
        assert_eq!(acceptor.admit(IpAddr::from([192, 0, 2, 4]), now).err(), Some(RejectReason::Rate));
    }
}
