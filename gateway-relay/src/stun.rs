//! The STUN responder: one task per UDP port. What is not a Binding request is not answered.
//!
//! The limit per source is shared by both ports. Addresses can be forged, so the responder must be no amplifier: an answer is at most 32 bytes larger than
//! the question, and a victim gets no more of them than the limit.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use gateway_proto::{
    relay::SourceLimiter,
    stun::{MAX_MESSAGE, binding_response, parse_request},
};
use tokio::net::UdpSocket;

use crate::{
    config::Limits,
    metrics::{Metrics, StunOutcome},
};

/// Sources remembered: 16,384 of some hundred bytes.
const MAX_SOURCES: usize = 16_384;

/// Shared by the two ports.
#[derive(Debug, Clone)]
pub(crate) struct StunResponder {
    sources: Arc<Mutex<SourceLimiter>>,
    metrics: Arc<Metrics>,
}

impl StunResponder {
    pub(crate) fn new(limits: &Limits, metrics: Arc<Metrics>) -> Self {
        let rate = limits.stun_per_second_per_source;
        Self { sources: Arc::new(Mutex::new(SourceLimiter::new(rate, rate, MAX_SOURCES))), metrics }
    }

    /// Answers on one socket; ends only with the task.
    pub(crate) async fn serve(self, socket: UdpSocket) {
        // One byte more than the longest message: a longer one is seen as such.
        let mut buffer = [0; MAX_MESSAGE + 1];
        loop {
            match socket.recv_from(&mut buffer).await {
                Ok((length, source)) => {
                    let outcome = self.answer(&socket, &buffer[..length], source).await;
                    self.metrics.stun(outcome);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot receive on a STUN port");
                    // A broken socket must not become a busy loop.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn answer(&self, socket: &UdpSocket, bytes: &[u8], source: SocketAddr) -> StunOutcome {
        let allowed = self.sources.lock().unwrap_or_else(PoisonError::into_inner).allow(source.ip(), Instant::now());
        if !allowed {
            return StunOutcome::RateLimited;
        }
        let Ok(transaction) = parse_request(bytes) else {
            return StunOutcome::Invalid;
        };
        match socket.send_to(&binding_response(&transaction, source), source).await {
            Ok(_) => StunOutcome::Answered,
            Err(error) => {
                tracing::debug!(%error, %source, "cannot send a STUN response");
                StunOutcome::SendFailed
            }
        }
    }
}

/// Binds one port.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<(UdpSocket, SocketAddr)> {
    let socket = UdpSocket::bind(address).await?;
    let bound = socket.local_addr()?;
    Ok((socket, bound))
}
