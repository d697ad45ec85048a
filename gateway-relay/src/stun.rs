//! Answers to STUN requests. What is not a Binding request is not answered.
//!
//! The limit per source is shared by all ports. Addresses can be forged, so the responder must be no amplifier: an answer is at most 32 bytes larger than
//! the question, and a victim gets no more of them than the limit.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use gateway_proto::{
    relay::SourceLimiter,
    stun::{binding_response, parse_request},
};

use crate::{
    config::Limits,
    metrics::{Metrics, StunOutcome},
};

/// Sources remembered: 16,384 of some hundred bytes.
const MAX_SOURCES: usize = 16_384;

/// Shared by the ports.
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

    /// The answer to one datagram; `None` if there is none, which is counted.
    pub(crate) fn answer(&self, bytes: &[u8], source: SocketAddr, now: Instant) -> Option<Vec<u8>> {
        let allowed = self.sources.lock().unwrap_or_else(PoisonError::into_inner).allow(source.ip(), now);
        if !allowed {
            self.metrics.stun(StunOutcome::RateLimited);
            return None;
        }
        let answer = parse_request(bytes).ok().map(|transaction| binding_response(&transaction, source));
        if answer.is_none() {
            self.metrics.stun(StunOutcome::Invalid);
        }
        answer
    }
}
