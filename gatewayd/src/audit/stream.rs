//! The record of one stream, from before it is opened to its end, whatever ends it.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use gateway_proto::{
    audit::note::{Noted, OurReason, Reason, Refusal, RefusedBy, StreamEnd, StreamEnding, StreamKey, StreamRole},
    id::ConnectionId,
    stream::RefusalCode,
};

use tracing::{Span, error_span};

use super::{AuditLog, names};

/// No message was looked for.
const UNOBSERVED: u64 = u64::MAX;

/// A stream that is about to be opened, or is open. Dropped before it was accepted it is a refusal, dropped later its tunnel
/// was lost: what drops it without a word is the end of the tunnel, or of the daemon.
#[derive(Debug)]
pub struct StreamRecord {
    /// None: nothing is recorded.
    log: Option<AuditLog>,
    key: StreamKey,
    begun: Instant,
    is_open: AtomicBool,
    is_over: AtomicBool,
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
    messages: AtomicU64,
}

impl StreamRecord {
    pub(super) fn new(log: AuditLog, key: StreamKey) -> Self {
        Self::with(Some(log), key)
    }

    fn with(log: Option<AuditLog>, key: StreamKey) -> Self {
        Self {
            log,
            key,
            begun: Instant::now(),
            is_open: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            bytes_sent: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            messages: AtomicU64::new(UNOBSERVED),
        }
    }

    /// Which stream it is.
    pub fn key(&self) -> StreamKey {
        self.key
    }

    /// The stream's trace, as its own records have it.
    pub fn trace(&self) -> String {
        names::trace(self.key)
    }

    /// Messages are counted, from before it is accepted: the first of them go with its header.
    pub fn observe(&self) {
        self.messages.store(0, Relaxed);
    }

    /// Both gateways accepted it.
    pub fn opened(&self) {
        self.is_open.store(true, Relaxed);
        self.note(Noted::Opened(self.key));
    }

    /// Bytes towards the partner.
    pub fn sent(&self, bytes: usize) {
        self.bytes_sent.fetch_add(bytes as u64, Relaxed);
    }

    /// Bytes from the partner.
    pub fn received(&self, bytes: usize) {
        self.bytes_received.fetch_add(bytes as u64, Relaxed);
    }

    /// Whether any went there.
    pub fn has_sent(&self) -> bool {
        self.bytes_sent.load(Relaxed) > 0
    }

    /// Whether any came.
    pub fn has_received(&self) -> bool {
        self.bytes_received.load(Relaxed) > 0
    }

    /// Messages that passed.
    pub fn passed(&self, messages: u64) {
        if messages > 0 && self.messages.load(Relaxed) != UNOBSERVED {
            self.messages.fetch_add(messages, Relaxed);
        }
    }

    /// It was refused; nothing after this counts.
    pub fn refused(&self, by: RefusedBy, reason: impl Into<Reason>) {
        if self.is_over.swap(true, Relaxed) {
            return;
        }
        let connection = Some((self.key.connection, self.key.role));
        let refusal = Refusal { by, connection, trace: self.key.trace, ..Refusal::of_stream(reason) };
        self.note(Noted::Refused(refusal));
    }

    /// Its copying ended like this: an end, or a refusal while nobody had accepted it.
    pub fn over(&self, ending: StreamEnding) {
        if self.is_open.load(Relaxed) {
            return self.ended(ending);
        }
        let lost = ending == StreamEnding::TunnelLost;
        self.refused(RefusedBy::Us, if lost { OurReason::TunnelLost } else { OurReason::GaveUp });
    }

    /// The permission ended; nothing after this counts.
    pub fn cut(&self) {
        if self.is_open.load(Relaxed) {
            self.ended(StreamEnding::Revoked);
        } else {
            self.refused(RefusedBy::Us, RefusalCode::NotAllowed);
        }
    }

    /// It ended; nothing after this counts.
    pub fn ended(&self, ending: StreamEnding) {
        if self.is_over.swap(true, Relaxed) {
            return;
        }
        let messages = self.messages.load(Relaxed);
        let end = StreamEnd {
            ending,
            duration_ms: u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            bytes_sent: self.bytes_sent.load(Relaxed),
            bytes_received: self.bytes_received.load(Relaxed),
            messages: (messages != UNOBSERVED).then_some(messages),
        };
        self.note(Noted::Ended(self.key, end));
    }

    fn note(&self, what: Noted) {
        if let Some(log) = &self.log {
            log.note(what);
        }
    }
}

/// Says something of a stream in the log, by the names that its records have. A span as long as the stream would be entered at every
/// turn of its task, and nearly no stream has anything to say.
pub(crate) fn say_of(stream: StreamKey, what: impl FnOnce()) {
    span_of(stream).in_scope(what);
}

/// What is said in it names the stream, whatever is filtered.
pub(crate) fn span_of(stream: StreamKey) -> Span {
    let role = match stream.role {
        StreamRole::Sender => "sender",
        StreamRole::Listener => "listener",
        StreamRole::AdminUser => "admin user",
        StreamRole::AdminOwner => "admin owner",
    };
    error_span!("stream", connection = %stream.connection, trace = %names::trace(stream), role)
}

impl Drop for StreamRecord {
    fn drop(&mut self) {
        if self.is_open.load(Relaxed) {
            self.ended(StreamEnding::TunnelLost);
        } else {
            self.refused(RefusedBy::Us, OurReason::TunnelLost);
        }
    }
}

impl Default for StreamRecord {
    /// Of a stream that nobody records.
    fn default() -> Self {
        let connection = ConnectionId::from_bytes([0; 16]);
        Self::with(None, StreamKey { serial: 0, connection, role: StreamRole::Sender, trace: 0 })
    }
}
