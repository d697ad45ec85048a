//! What passed over each connection, and what went wrong last: counts, sizes and times, never a byte of payload.

mod failures;
mod pace;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

pub use failures::Failure;
use failures::Failures;
use gateway_net::{
    entropy::random,
    time::{unix_ms, unix_ms_at_tick, unix_secs},
};
use gateway_proto::{
    id::ConnectionId,
    mllp::HashKey,
    observe::{Book, Protocol, RESPONSE_TIMEOUT, Schedule, Silence},
    places::NoPlace,
};
pub use pace::Pace;
use tokio::time::Instant;

/// Which end of a connection: with itself, a server is both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// We open a local port for the engine.
    Sender,
    /// We dial the engine.
    Listener,
}

/// Counters of one end of one connection since the daemon started.
#[derive(Debug)]
pub struct Traffic {
    /// Since when: Unix milliseconds. Names these counters, and is no epoch of a book.
    pub began_at: u64,
    /// Bytes towards the peer.
    pub bytes_sent: AtomicU64,
    /// Bytes from the peer.
    pub bytes_received: AtomicU64,
    /// Last bytes towards the peer, Unix milliseconds, 0 for never.
    pub last_sent_at: AtomicU64,
    /// Last bytes from the peer, Unix milliseconds, 0 for never.
    pub last_received_at: AtomicU64,
    /// Last acknowledgement or answer, or the last end of a stream in which nothing is observed; Unix milliseconds, 0 for never.
    pub last_acknowledged_at: AtomicU64,
    /// Open streams.
    pub streams: AtomicU32,
    /// Streams that ended by a finish on both sides.
    pub finished: AtomicU64,
    /// Streams that ended by a reset.
    pub reset: AtomicU64,
    /// Streams refused by us or the peer.
    pub refused: AtomicU64,
    /// Of those that ended by a reset, those that were silent for longer than the grant allows.
    pub silent: AtomicU64,
    to_peer: Pace,
    from_peer: Pace,
    unobserved: AtomicU64,
    problem: Mutex<Option<String>>,
    failures: Failures,
    /// How long a sending engine waits for an acknowledgement.
    patience: Duration,
    observed: Mutex<Observed>,
    schedule: Mutex<Schedule>,
    waiting: Mutex<BTreeMap<u64, Waiting>>,
    waits: AtomicU64,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From our engine to the peer.
    ToPeer,
    /// From the peer to our engine.
    FromPeer,
}

/// A book, and when it began empty: Unix milliseconds, no two of one process alike.
#[derive(Debug)]
struct Observed {
    epoch: u64,
    book: Arc<Mutex<Book>>,
}

/// What a stream waits for before it carries data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitFor {
    /// A tunnel to the partner.
    Tunnel,
    /// The far side's answer.
    Answer,
    /// A place in our engine's listener.
    Place(NoPlace),
}

/// A stream that waits.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    what: WaitFor,
    since: Instant,
    until: Instant,
}

impl Default for Traffic {
    fn default() -> Self {
        let began_at = unix_ms();
        Self {
            began_at,
            bytes_sent: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            last_sent_at: AtomicU64::new(0),
            last_received_at: AtomicU64::new(0),
            last_acknowledged_at: AtomicU64::new(0),
            streams: AtomicU32::new(0),
            finished: AtomicU64::new(0),
            reset: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            silent: AtomicU64::new(0),
            to_peer: Pace::default(),
            from_peer: Pace::default(),
            unobserved: AtomicU64::new(0),
            problem: Mutex::default(),
            failures: Failures::default(),
            patience: RESPONSE_TIMEOUT,
            observed: Mutex::new(Observed { epoch: began_at, book: Arc::new(Mutex::new(Book::Nothing)) }),
            schedule: Mutex::default(),
            waiting: Mutex::default(),
            waits: AtomicU64::new(0),
        }
    }
}

impl Traffic {
    /// Counts bytes towards the peer.
    pub fn sent(&self, bytes: usize) {
        self.bytes_sent.fetch_add(bytes as u64, Relaxed);
        self.last_sent_at.store(unix_ms_at_tick(), Relaxed);
    }

    /// Counts bytes that went ahead of the far side's answer: they may still be refused, so nothing was sent as people mean it.
    pub fn sent_ahead(&self, bytes: usize) {
        self.bytes_sent.fetch_add(bytes as u64, Relaxed);
    }

    /// The far side took what had gone ahead.
    pub fn taken(&self) {
        self.last_sent_at.store(unix_ms_at_tick(), Relaxed);
    }

    /// Counts bytes from the peer.
    pub fn received(&self, bytes: usize) {
        self.bytes_received.fetch_add(bytes as u64, Relaxed);
        self.last_received_at.store(unix_ms_at_tick(), Relaxed);
    }

    /// What all streams share under the owner's rate, each direction on its own.
    pub fn pace(&self, way: Way) -> &Pace {
        match way {
            Way::ToPeer => &self.to_peer,
            Way::FromPeer => &self.from_peer,
        }
    }

    /// A stream was silent for longer than the grant allows, and was reset for it.
    pub fn was_silent(&self, problem: impl Into<String>) {
        self.silent.fetch_add(1, Relaxed);
        self.note_problem(problem);
    }

    /// A stream that was carried has ended, and no observer counted what passed in it.
    pub fn carried_unobserved(&self) {
        self.unobserved.fetch_add(1, Relaxed);
        self.acknowledged();
    }

    /// An acknowledgement or an answer passed.
    pub fn acknowledged(&self) {
        self.last_acknowledged_at.store(unix_ms_at_tick(), Relaxed);
    }

    /// How many such there were. Those that were observed are metered by what was counted in them, and not again as streams.
    pub fn unobserved(&self) -> u64 {
        self.unobserved.load(Relaxed)
    }

    /// Remembers what went wrong last, for `status`.
    pub fn note_problem(&self, problem: impl Into<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem.into());
    }

    /// A stream failed: which one of its run it is, where the log is to be told of it.
    pub fn tell(&self, failure: Failure) -> Option<u64> {
        self.failures.tell(failure, unix_secs())
    }

    /// Something worked: the last problem is over.
    pub fn clear_problem(&self) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What went wrong last.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was observed of this protocol. When the connection's behavior changes, a new book begins; streams under way
    /// write into the former one to their end.
    pub fn book(&self, protocol: Protocol) -> Arc<Mutex<Book>> {
        self.dated_book(protocol).1
    }

    /// The same, and the epoch of its counts: they begin at zero with each book, and only grow inside it.
    pub fn dated_book(&self, protocol: Protocol) -> (u64, Arc<Mutex<Book>>) {
        let mut observed = lock(&self.observed);
        if lock(&observed.book).protocol() != protocol {
            let book = Book::new(protocol, HashKey::from_bytes(random())).with_patience(self.patience);
            let book = Arc::new(Mutex::new(book));
            *observed = Observed { epoch: unix_ms().max(observed.epoch + 1), book };
        }
        (observed.epoch, Arc::clone(&observed.book))
    }

    /// A message or a request passed: the schedule learns.
    pub fn message_passed(&self) {
        lock(&self.schedule).message(unix_ms_at_tick() / 1000);
    }

    /// Whether the connection is silent for longer than it should.
    pub fn silence(&self) -> Option<Silence> {
        lock(&self.schedule).silence(unix_secs())
    }

    /// A stream waits, as long as the guard lives.
    pub fn wait(self: &Arc<Self>, what: WaitFor, until: Instant) -> WaitGuard {
        let number = self.waits.fetch_add(1, Relaxed);
        lock(&self.waiting).insert(number, Waiting { what, since: Instant::now(), until });
        WaitGuard { traffic: Arc::clone(self), number }
    }

    /// What streams wait for, in words: the one that has waited longest for data to begin, and how many others; else turns.
    pub fn waiting(&self) -> Option<String> {
        let waiting = lock(&self.waiting);
        let Some(first) = waiting.values().next() else {
            let is_paced = self.to_peer.is_waited_for() || self.from_peer.is_waited_for();
            return is_paced.then(|| "waiting for a turn under the rate of the grant".to_owned());
        };
        let what = match first.what {
            WaitFor::Tunnel => "the tunnel".to_owned(),
            WaitFor::Answer => "the partner's answer".to_owned(),
            WaitFor::Place(places) => format!("a place in our engine's listener ({places})"),
        };
        let limit = first.until.saturating_duration_since(first.since).as_secs_f32();
        let text = format!("waiting for {what}, {:.1} s of {limit:.1} s", first.since.elapsed().as_secs_f32());
        Some(match waiting.len() - 1 {
            0 => text,
            others => format!("{text}; {others} more wait"),
        })
    }

    /// Takes one of at most `limit` places for a stream; it is given back when the guard is dropped.
    pub fn open_stream(self: &Arc<Self>, limit: u32) -> Option<StreamGuard> {
        self.streams
            .fetch_update(Relaxed, Relaxed, |open| (open < limit).then_some(open + 1))
            .ok()
            .map(|_| StreamGuard(self.clone()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream that waits.
#[derive(Debug)]
pub struct WaitGuard {
    traffic: Arc<Traffic>,
    number: u64,
}

impl Drop for WaitGuard {
    fn drop(&mut self) {
        lock(&self.traffic.waiting).remove(&self.number);
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
#[derive(Debug, Clone)]
pub struct TrafficTable {
    ends: Arc<Mutex<ByEnd>>,
    patience: Duration,
}

type ByEnd = HashMap<End, Arc<Traffic>>;

/// One end of a connection.
pub type End = (ConnectionId, Role);

impl Default for TrafficTable {
    fn default() -> Self {
        Self::new(RESPONSE_TIMEOUT)
    }
}

impl TrafficTable {
    /// An empty one. `patience`: how long sending engines wait for an acknowledgement.
    pub fn new(patience: Duration) -> Self {
        Self { ends: Arc::default(), patience }
    }

    /// The counters of one end of a connection.
    pub fn of(&self, id: ConnectionId, role: Role) -> Arc<Traffic> {
        let nothing = || Arc::new(Traffic { patience: self.patience, ..Traffic::default() });
        lock(&self.ends).entry((id, role)).or_insert_with(nothing).clone()
    }

    /// Forgets connections that the policy does not list any more.
    pub fn retain(&self, listed: impl Fn(ConnectionId, Role) -> bool) {
        lock(&self.ends).retain(|(id, role), _| listed(*id, *role));
    }

    /// What was learned of each end's silence.
    pub fn schedules(&self) -> BTreeMap<End, Schedule> {
        let table = lock(&self.ends);
        table.iter().map(|(end, traffic)| (*end, lock(&traffic.schedule).clone())).collect()
    }

    /// Goes on from what was learned before, where nothing was learned since.
    pub fn restore_schedules(&self, schedules: BTreeMap<End, Schedule>) {
        for ((id, role), schedule) in schedules {
            let traffic = self.of(id, role);
            let mut learned = lock(&traffic.schedule);
            if *learned == Schedule::default() {
                *learned = schedule;
            }
        }
    }

    /// Open streams over all connections.
    pub fn open_streams(&self) -> u64 {
        let table = lock(&self.ends);
        table.values().map(|traffic| u64::from(traffic.streams.load(Relaxed))).sum()
    }
}

#[cfg(test)]
mod tests;
