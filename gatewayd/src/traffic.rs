//! What passed over each connection, and what went wrong last: counts, sizes and times, never a byte of payload.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use gateway_net::time::unix_ms;
use gateway_proto::id::ConnectionId;

/// Which end of a connection: with itself, a server is both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// We open a local port for the engine.
    Sender,
    /// We dial the engine.
    Listener,
}

/// Counters of one end of one connection since the daemon started.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes towards the peer.
    pub bytes_sent: AtomicU64,
    /// Bytes from the peer.
    pub bytes_received: AtomicU64,
    /// Last bytes towards the peer, Unix milliseconds, 0 for never.
    pub last_sent_at: AtomicU64,
    /// Last bytes from the peer, Unix milliseconds, 0 for never.
    pub last_received_at: AtomicU64,
    /// Open streams.
    pub streams: AtomicU32,
    /// Streams that ended by a finish on both sides.
    pub finished: AtomicU64,
    /// Streams that ended by a reset.
    pub reset: AtomicU64,
    /// Streams refused by us or the peer.
    pub refused: AtomicU64,
    problem: Mutex<Option<String>>,
}

impl Traffic {
    /// Counts bytes towards the peer.
    pub fn sent(&self, bytes: usize) {
        self.bytes_sent.fetch_add(bytes as u64, Relaxed);
        self.last_sent_at.store(unix_ms(), Relaxed);
    }

    /// Counts bytes from the peer.
    pub fn received(&self, bytes: usize) {
        self.bytes_received.fetch_add(bytes as u64, Relaxed);
        self.last_received_at.store(unix_ms(), Relaxed);
    }

    /// Remembers what went wrong last, for `status`.
    pub fn note_problem(&self, problem: impl Into<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem.into());
    }

    /// Something worked: the last problem is over.
    pub fn clear_problem(&self) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What went wrong last.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes one of at most `limit` places for a stream; it is given back when the guard is dropped.
    pub fn open_stream(self: &Arc<Self>, limit: u32) -> Option<StreamGuard> {
        self.streams
            .fetch_update(Relaxed, Relaxed, |open| (open < limit).then_some(open + 1))
            .ok()
            .map(|_| StreamGuard(self.clone()))
    }
}

/// A place among the open streams of a connection.
#[derive(Debug)]
pub struct StreamGuard(Arc<Traffic>);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Relaxed);
    }
}

/// The counters of all connections; entries live as long as the policy lists their connection.
#[derive(Debug, Clone, Default)]
pub struct TrafficTable(Arc<Mutex<ByEnd>>);

type ByEnd = HashMap<(ConnectionId, Role), Arc<Traffic>>;

impl TrafficTable {
    /// The counters of one end of a connection.
    pub fn of(&self, id: ConnectionId, role: Role) -> Arc<Traffic> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((id, role)).or_default().clone()
    }

    /// Forgets connections that the policy does not list any more.
    pub fn retain(&self, listed: impl Fn(ConnectionId, Role) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(id, role), _| listed(*id, *role));
    }

    /// Open streams over all connections.
    pub fn open_streams(&self) -> u64 {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.values().map(|traffic| u64::from(traffic.streams.load(Relaxed))).sum()
    }
}
