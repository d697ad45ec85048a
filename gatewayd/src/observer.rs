//! The observer beside the copy loops of one stream; what it may say of the bytes is decided in `gateway_proto::observe`.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use gateway_proto::{
    mllp::End,
    observe::{Book, Exchange, Protocol},
};

use crate::traffic::{Role, Traffic};

/// One stream that is observed. Its end is entered when it is dropped.
#[derive(Debug)]
pub struct Observer {
    traffic: Arc<Traffic>,
    role: Role,
    protocol: Protocol,
    book: Arc<Mutex<Book>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    exchange: Exchange,
    end: End,
}

impl Observer {
    /// Begins. `accepted`: the far side has taken the stream.
    pub fn new(traffic: Arc<Traffic>, role: Role, behavior: &str, accepted: bool) -> Self {
        let protocol = Protocol::of(behavior);
        let book = traffic.book(protocol);
        let exchange = lock(&book).begin(accepted);
        let end = if accepted { End::Otherwise } else { End::Refused };
        Self { traffic, role, protocol, book, state: Mutex::new(State { exchange, end }) }
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
        state.end = End::Otherwise;
    }

    /// Bytes from our engine.
    pub fn from_engine(&self, bytes: &[u8]) {
        match self.role {
            Role::Sender => self.asked(bytes),
            Role::Listener => self.answered(bytes),
        }
    }

    /// Bytes from the tunnel.
    pub fn from_tunnel(&self, bytes: &[u8]) {
        match self.role {
            Role::Sender => self.answered(bytes),
            Role::Listener => self.asked(bytes),
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

    fn asked(&self, bytes: &[u8]) {
        if self.protocol == Protocol::Unknown {
            return;
        }
        let mut state = lock(&self.state);
        if lock(&self.book).asked(&mut state.exchange, bytes, Instant::now()) {
            self.traffic.message_passed();
        }
    }

    fn answered(&self, bytes: &[u8]) {
        if self.protocol == Protocol::Unknown {
            return;
        }
        let mut state = lock(&self.state);
        lock(&self.book).answered(&mut state.exchange, bytes, Instant::now());
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        let exchange = std::mem::replace(&mut state.exchange, Exchange::Nothing);
        lock(&self.book).end(exchange, state.end);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
