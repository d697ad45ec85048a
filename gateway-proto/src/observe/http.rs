//! HTTP/1.1 as it passes: method classes, status classes, times. Paths, names, values and bodies are skipped.
//!
//! It follows kept-open and pipelined connections, chunked and sized bodies, interim answers. It stops for good, and says
//! so in the counts, where it cannot follow: after an upgrade or CONNECT, on HTTP/2 or TLS, and on whatever is malformed.

mod message;

use std::{collections::VecDeque, time::Instant};

use message::{Head, MessageReader, Side};

use super::latency::Latency;

/// Requests without an answer on one connection at most; clients that pipeline send a few.
const MAX_PENDING: usize = 16;

/// What a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MethodClass {
    /// GET, HEAD, OPTIONS.
    Read,
    /// POST, PUT, PATCH, DELETE.
    Write,
    /// Any other.
    Other,
}

/// Counts since the daemon started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HttpCounts {
    /// Requests that read.
    pub reads: u64,
    /// Requests that write.
    pub writes: u64,
    /// Other requests.
    pub others: u64,
    /// Answers 1xx to 5xx.
    pub statuses: [u64; 5],
    /// Requests whose connection ended before an answer passed.
    pub unanswered: u64,
    /// Connections that became something else (WebSocket, CONNECT).
    pub upgraded: u64,
    /// Connections that are no HTTP/1.1.
    pub unreadable: u64,
}

/// What one end of an HTTP connection saw.
#[derive(Debug, Default)]
pub struct HttpLedger {
    /// The counts.
    pub counts: HttpCounts,
    /// From the head of a request to the head of its answer.
    pub latency: Latency,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    is_head: bool,
    is_connect: bool,
    at: Instant,
}

/// Both directions of one TCP connection that should carry HTTP.
#[derive(Debug)]
pub struct HttpExchange {
    requests: MessageReader,
    answers: MessageReader,
    pending: VecDeque<Pending>,
    stopped: bool,
}

impl Default for HttpExchange {
    fn default() -> Self {
        Self {
            requests: MessageReader::new(Side::Request),
            answers: MessageReader::new(Side::Answer),
            pending: VecDeque::new(),
            stopped: false,
        }
    }
}

impl HttpExchange {
    /// Bytes from the client.
    pub fn observe_request_bytes(&mut self, mut bytes: &[u8], ledger: &mut HttpLedger, now: Instant) {
        while !bytes.is_empty() && !self.stopped {
            match self.requests.read(&mut bytes) {
                Ok(Some(Head::Request { class, is_head, is_connect })) => {
                    match class {
                        MethodClass::Read => ledger.counts.reads += 1,
                        MethodClass::Write => ledger.counts.writes += 1,
                        MethodClass::Other => ledger.counts.others += 1,
                    }
                    if self.pending.len() == MAX_PENDING {
                        return self.unreadable(ledger);
                    }
                    self.pending.push_back(Pending { is_head, is_connect, at: now });
                    self.requests.begin_body(false);
                }
                Ok(Some(Head::Answer { .. })) | Err(_) => return self.unreadable(ledger),
                Ok(None) => {}
            }
        }
    }

    /// Bytes from the server.
    pub fn observe_answer_bytes(&mut self, mut bytes: &[u8], ledger: &mut HttpLedger, now: Instant) {
        while !bytes.is_empty() && !self.stopped {
            match self.answers.read(&mut bytes) {
                Ok(Some(Head::Answer { status })) => self.answered(status, ledger, now),
                Ok(Some(Head::Request { .. })) | Err(_) => return self.unreadable(ledger),
                Ok(None) => {}
            }
        }
    }

    /// The connection is over.
    pub fn end(self, ledger: &mut HttpLedger) {
        if !self.stopped {
            ledger.counts.unanswered += self.pending.len() as u64;
        }
    }

    fn answered(&mut self, status: u16, ledger: &mut HttpLedger, now: Instant) {
        let class = status / 100;
        // 101 ends the HTTP of this connection; other 1xx announce the answer that follows.
        if class == 1 && status != 101 {
            count_status(ledger, class);
            return self.answers.begin_body(true);
        }
        let Some(request) = self.pending.pop_front() else { return self.unreadable(ledger) };
        count_status(ledger, class);
        ledger.latency.record(now.saturating_duration_since(request.at), now);
        if status == 101 || (request.is_connect && class == 2) {
            self.stopped = true;
            ledger.counts.upgraded += 1;
            return;
        }
        self.answers.begin_body(request.is_head || matches!(status, 204 | 304));
    }

    fn unreadable(&mut self, ledger: &mut HttpLedger) {
        self.stopped = true;
        ledger.counts.unreadable += 1;
    }
}

fn count_status(ledger: &mut HttpLedger, class: u16) {
    if let Some(count) = ledger.counts.statuses.get_mut(usize::from(class.wrapping_sub(1))) {
        *count += 1;
    }
}

#[cfg(test)]
mod tests;
