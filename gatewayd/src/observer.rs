//! The observer beside the copy loops of one stream; what it may say of the bytes is decided in `gateway_proto::observe`.
//!
//! For some connections it is switched off ([`Unobserved`]). Then nothing is counted or kept. Only how an MLLP conversation
//! may end is still decided by what passed, in a book that ends with the stream and that nobody reads: socket truth is no
//! observation.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use gateway_net::entropy::random;
use gateway_proto::{
    mllp::{End, HashKey},
    observe::{Book, Exchange, Protocol},
    policy::ConnectionEntry,
};

use crate::traffic::{Role, Traffic};

/// The connections that are not observed: `[observer] off`. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unobserved(Arc<BTreeSet<String>>);

impl Unobserved {
    /// Connections by their ids or the public names of their endpoints.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(Arc::new(names.into_iter().collect()))
    }

    /// Whether a connection is among them.
    pub fn has(&self, entry: &ConnectionEntry) -> bool {
        !self.0.is_empty() && (self.0.contains(&entry.endpoint) || self.0.contains(&entry.id.to_string()))
    }

    /// What is observed of a connection.
    pub fn protocol(&self, entry: &ConnectionEntry) -> Protocol {
        if self.has(entry) { Protocol::Unknown } else { Protocol::of(&entry.behavior) }
    }
}

/// One stream that is observed. Its end is entered when it is dropped.
#[derive(Debug)]
pub struct Observer {
    traffic: Arc<Traffic>,
    role: Role,
    protocol: Protocol,
    is_kept: bool,
    book: Arc<Mutex<Book>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    exchange: Exchange,
    end: End,
    is_accepted: bool,
}

impl Observer {
    /// Begins. `accepted`: the far side has taken the stream.
    pub fn new(traffic: Arc<Traffic>, role: Role, behavior: &str, accepted: bool) -> Self {
        let protocol = Protocol::of(behavior);
        let book = traffic.book(protocol);
        Self::with_book(traffic, role, protocol, book, true, accepted)
    }

    /// Begins for a connection of the policy, which may be one that is not observed.
    pub fn of(
        traffic: Arc<Traffic>,
        role: Role,
        entry: &ConnectionEntry,
        unobserved: &Unobserved,
        accepted: bool,
    ) -> Self {
        if !unobserved.has(entry) {
            return Self::new(traffic, role, &entry.behavior, accepted);
        }
        let protocol = match (role, Protocol::of(&entry.behavior)) {
            (Role::Sender, Protocol::Mllp) => Protocol::Mllp,
            (Role::Sender | Role::Listener, _) => Protocol::Unknown,
        };
        let book = Arc::new(Mutex::new(Book::new(protocol, HashKey::from_bytes(random()))));
        Self::with_book(traffic, role, protocol, book, false, accepted)
    }

    fn with_book(
        traffic: Arc<Traffic>,
        role: Role,
        protocol: Protocol,
        book: Arc<Mutex<Book>>,
        is_kept: bool,
        accepted: bool,
    ) -> Self {
        let exchange = lock(&book).begin(accepted);
        let end = if accepted { End::Otherwise } else { End::Refused };
        let state = Mutex::new(State { exchange, end, is_accepted: accepted });
        Self { traffic, role, protocol, is_kept, book, state }
    }

    /// Our end's role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether our engine sends MLLP here: then an end with an unacknowledged message is never a clean one.
    pub fn is_mllp_sender(&self) -> bool {
        self.role == Role::Sender && self.protocol == Protocol::Mllp
    }

    /// The far side has taken the stream.
    pub fn accepted(&self) {
        let mut state = lock(&self.state);
        lock(&self.book).accepted(&mut state.exchange);
        (state.end, state.is_accepted) = (End::Otherwise, true);
    }

    /// Whether messages are counted.
    pub fn counts(&self) -> bool {
        self.is_kept && self.protocol != Protocol::Unknown
    }

    /// Bytes from our engine: how many messages they completed.
    pub fn from_engine(&self, bytes: &[u8], now: Instant) -> u64 {
        match self.role {
            Role::Sender => self.asked(bytes, now),
            Role::Listener => self.answered(bytes, now),
        }
    }

    /// Bytes from the tunnel: how many messages they completed.
    pub fn from_tunnel(&self, bytes: &[u8], now: Instant) -> u64 {
        match self.role {
            Role::Sender => self.answered(bytes, now),
            Role::Listener => self.asked(bytes, now),
        }
    }

    /// Whether the receiving side may end the stream with a FIN.
    pub fn may_end_cleanly(&self) -> bool {
        lock(&self.state).exchange.may_end_cleanly()
    }

    /// The stream ended, or is about to, and by whom.
    pub fn ended(&self, end: End) {
        lock(&self.state).end = end;
    }

    fn asked(&self, bytes: &[u8], now: Instant) -> u64 {
        if self.protocol == Protocol::Unknown {
            return 0;
        }
        let mut state = lock(&self.state);
        let passed = lock(&self.book).asked(&mut state.exchange, bytes, now);
        if passed > 0 && self.is_kept {
            self.traffic.message_passed();
        }
        passed
    }

    fn answered(&self, bytes: &[u8], now: Instant) -> u64 {
        if self.protocol != Protocol::Unknown {
            let mut state = lock(&self.state);
            let mut book = lock(&self.book);
            let before = book.answers();
            book.answered(&mut state.exchange, bytes, now);
            if self.is_kept && book.answers() > before {
                self.traffic.acknowledged();
            }
        }
        0
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        let exchange = std::mem::replace(&mut state.exchange, Exchange::Nothing);
        lock(&self.book).end(exchange, state.end);
        if state.is_accepted && !self.counts() {
            self.traffic.carried_unobserved();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use gateway_proto::observe::http::HttpCounts;

    use super::*;

    fn http(traffic: &Traffic) -> HttpCounts {
        let book = traffic.book(Protocol::Http);
        let book = lock(&book);
        let Book::Http(ledger) = &*book else { panic!("an HTTP book") };
        ledger.counts
    }

    #[test]
    fn a_request_that_the_far_side_refuses_is_counted_as_little_here_as_there() {
        let traffic = Arc::new(Traffic::default());
        let observer = |accepted| Observer::new(Arc::clone(&traffic), Role::Sender, "http", accepted);
        let refused = observer(false);
        assert_eq!(refused.from_engine(b"GET / HTTP/1.1\r\n\r\n", Instant::now()), 1);
        refused.ended(End::Refused);
        drop(refused);
        assert_eq!(http(&traffic), HttpCounts::default());
        // Also when nobody says how it ended, as long as the far side has not taken it.
        let dropped = observer(false);
        dropped.from_engine(b"GET / HTTP/1.1\r\n\r\n", Instant::now());
        drop(dropped);
        assert_eq!(http(&traffic), HttpCounts::default());
        let taken = observer(false);
        taken.from_engine(b"GET / HTTP/1.1\r\n\r\n", Instant::now());
        taken.accepted();
        assert_eq!(http(&traffic).reads, 1);
        drop(taken);
        assert_eq!((http(&traffic).reads, http(&traffic).unanswered), (1, 1));
    }

    #[test]
    fn the_last_acknowledgement_is_that_of_a_whole_answer_or_of_a_stream_that_nobody_looks_into() {
        const MESSAGE: &[u8] = b"\x0bMSH|^~\\&|A|B|C|D|1||ADT^A01|ID\r\x1c\r";
        const REFUSED: &[u8] = b"\x0bMSH|^~\\&|C|D|A|B|2||ACK|R\rMSA|AE|ID\r\x1c\r";
        let traffic = Arc::new(Traffic::default());
        let at = || traffic.last_acknowledged_at.load(std::sync::atomic::Ordering::Relaxed);
        let observer = Observer::new(Arc::clone(&traffic), Role::Sender, "hl7v2-mllp", true);
        observer.from_engine(MESSAGE, Instant::now());
        observer.from_tunnel(&REFUSED[..20], Instant::now());
        assert_eq!(at(), 0, "nothing is acknowledged by half an answer");
        observer.from_tunnel(&REFUSED[20..], Instant::now());
        assert_ne!(at(), 0);

        let traffic = Arc::new(Traffic::default());
        let at = || traffic.last_acknowledged_at.load(std::sync::atomic::Ordering::Relaxed);
        let observer = Observer::new(Arc::clone(&traffic), Role::Listener, "tcp", true);
        observer.from_tunnel(b"anything", Instant::now());
        observer.from_engine(b"anything", Instant::now());
        assert_eq!(at(), 0, "what these bytes mean is not known");
        drop(observer);
        assert_ne!(at(), 0);
    }

    #[test]
    fn a_stream_is_metered_as_one_where_the_far_side_took_it_and_nothing_counts_what_passes_in_it() {
        let traffic = Arc::new(Traffic::default());
        for (behavior, accepted, metered) in
            [("hl7v2-mllp", true, 0), ("http", true, 0), ("dicom", true, 0), ("tcp", false, 0), ("tcp", true, 1)]
        {
            drop(Observer::new(Arc::clone(&traffic), Role::Listener, behavior, accepted));
            assert_eq!(traffic.unobserved(), metered, "{behavior}");
        }
        let taken = Observer::new(Arc::clone(&traffic), Role::Sender, "tcp", false);
        taken.accepted();
        drop(taken);
        assert_eq!(traffic.unobserved(), 2);
    }
}
