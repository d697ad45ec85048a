//! HTTP/1.1 as it passes: method classes, status classes, times. Paths, names, values and bodies are skipped.
//!
//! It follows kept-open and pipelined connections, chunked and sized bodies, interim answers. It stops for good, and says
//! so in the counts, where it cannot follow: after an upgrade or CONNECT, on HTTP/2 or TLS, and on whatever is malformed.

mod message;

use std::{collections::VecDeque, time::Instant};

use message::{Head, MessageReader, Side};

use super::{
    completed::{Completed, Followed},
    latency::Latency,
    uncounted::{Counted, Uncounted},
};
use crate::mllp::End;

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
    /// Requests that are over.
    pub completed: Completed,
}

impl Counted for HttpCounts {
    fn add(&mut self, later: Self) {
        let Self { reads, writes, others, statuses, unanswered, upgraded, unreadable, completed } = later;
        self.reads += reads;
        self.writes += writes;
        self.others += others;
        for (count, more) in self.statuses.iter_mut().zip(statuses) {
            *count += more;
        }
        self.unanswered += unanswered;
        self.upgraded += upgraded;
        self.unreadable += unreadable;
        self.completed.add(completed);
    }
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
    followed: Followed,
    stopped: bool,
    uncounted: Uncounted<HttpCounts>,
}

impl HttpExchange {
    /// An exchange. `accepted`: the far side has taken it; otherwise [`accepted`](Self::accepted) follows, or its end.
    pub fn new(accepted: bool) -> Self {
        Self {
            requests: MessageReader::new(Side::Request),
            answers: MessageReader::new(Side::Answer),
            pending: VecDeque::new(),
            followed: Followed::default(),
            stopped: false,
            uncounted: Uncounted::new(accepted),
        }
    }

    /// The far side has taken the exchange.
    pub fn accepted(&mut self, ledger: &mut HttpLedger) {
        self.uncounted.accepted(&mut ledger.counts);
    }

    /// Bytes from the client: how many requests they completed.
    pub fn observe_request_bytes(&mut self, mut bytes: &[u8], ledger: &mut HttpLedger, now: Instant) -> u64 {
        let mut completed = 0;
        while !bytes.is_empty() && !self.stopped {
            match self.requests.read(&mut bytes) {
                Ok(Some(Head::Request { class, is_head, is_connect })) => {
                    completed += 1;
                    self.followed.asked();
                    let counts = self.uncounted.counts(&mut ledger.counts);
                    match class {
                        MethodClass::Read => counts.reads += 1,
                        MethodClass::Write => counts.writes += 1,
                        MethodClass::Other => counts.others += 1,
                    }
                    if self.pending.len() == MAX_PENDING {
                        self.unreadable(ledger);
                        break;
                    }
                    self.pending.push_back(Pending { is_head, is_connect, at: now });
                    self.requests.begin_body(false);
                }
                Ok(Some(Head::Answer { .. })) | Err(_) => self.unreadable(ledger),
                Ok(None) => {}
            }
        }
        completed
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
    pub fn end(mut self, ledger: &mut HttpLedger, end: End) {
        let counts = self.uncounted.counts(&mut ledger.counts);
        if self.stopped {
            self.followed.end_unfollowed(&mut counts.completed);
        } else {
            counts.unanswered += self.pending.len() as u64;
            self.followed.end(&mut counts.completed, end);
        }
        self.uncounted.end(&mut ledger.counts, end);
    }

    fn answered(&mut self, status: u16, ledger: &mut HttpLedger, now: Instant) {
        let class = status / 100;
        // 101 ends the HTTP of this connection; other 1xx announce the answer that follows.
        if class == 1 && status != 101 {
            self.count_status(ledger, class);
            return self.answers.begin_body(true);
        }
        let Some(request) = self.pending.pop_front() else { return self.unreadable(ledger) };
        self.count_status(ledger, class);
        self.followed.answered(&mut self.uncounted.counts(&mut ledger.counts).completed);
        ledger.latency.record(now.saturating_duration_since(request.at), now);
        if status == 101 || (request.is_connect && class == 2) {
            self.stopped = true;
            self.uncounted.counts(&mut ledger.counts).upgraded += 1;
            return;
        }
        self.answers.begin_body(request.is_head || matches!(status, 204 | 304));
    }

    fn unreadable(&mut self, ledger: &mut HttpLedger) {
        self.stopped = true;
        let counts = self.uncounted.counts(&mut ledger.counts);
        counts.unreadable += 1;
        self.followed.lost_track(&mut counts.completed);
    }

    fn count_status(&mut self, ledger: &mut HttpLedger, class: u16) {
        let counts = self.uncounted.counts(&mut ledger.counts);
        if let Some(count) = counts.statuses.get_mut(usize::from(class.wrapping_sub(1))) {
            *count += 1;
        }
    }
}

#[cfg(test)]
mod tests;
