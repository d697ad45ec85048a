//! The gateway's audit log: every stream, every refusal and every admin call, hash-chained, in the state directory.
//!
//! The data path hands a small note without names to a bounded queue ([`StreamRecord`], [`AuditLog::refused`]) and never waits; what
//! finds no room is counted and becomes a record of its own. One task ([`AuditWriter`]) takes notes in batches, keeps floods out
//! ([`gateway_proto::audit::condense`]), adds the names of the policy ([`names`]), and appends lines to the files ([`files`]).
//!
//! An admin call is different: none begins before there is a [`Place`] for its record, so that whatever ends it, the record can
//! be handed over at once; and while the log cannot be written, none passes. Data goes on meanwhile.

mod files;
mod names;
mod reader;
mod stream;
mod writer;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use files::{LogFiles, Retention};
use gateway_net::time::unix_ms;
use gateway_proto::{
    admin::call::AdminCall,
    api::local::{AdminCounters, AuditComparison, AuditHeld, AuditNewest},
    audit::{
        line::Head,
        note::{Note, Noted, Refusal, StreamKey, StreamRole},
    },
    id::ConnectionId,
};
pub use stream::StreamRecord;
pub(crate) use stream::{say_of, span_of};
use tokio::sync::mpsc;
use tracing::warn;
pub use {names::Names, writer::AuditWriter};

use crate::{config::AuditConfig, traffic::Role};

/// The folder in the state directory.
const FOLDER: &str = "audit";
/// Admin calls under way and records of them that wait to be written; more of them wait at the engine's door. Many partners
/// with all their streams find a place.
const PLACES: usize = 4096;
/// Notes that wait to be written: more than half a second of 10,000 streams a second.
const NOTES: usize = 16_384;

/// Takes notes and calls. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AuditLog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    notes: mpsc::Sender<Note>,
    calls: mpsc::Sender<Call>,
    shared: Arc<Shared>,
}

/// A call and when it ended.
type Call = (u64, AdminCall);

/// What the log and its writer share.
#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    head: Mutex<Head>,
    /// The newest record that is on the disk for sure; none: nothing was brought there yet.
    durable: Mutex<Option<Head>>,
    /// What the control plane asked for last.
    compared: Mutex<Option<AuditComparison>>,
    mismatches: AtomicU64,
    writable: AtomicBool,
    streams: AtomicU64,
    dropped: AtomicU64,
    dropped_since: AtomicU64,
    written: AtomicU64,
    lost: AtomicU64,
    passed: AtomicU64,
    refused: AtomicU64,
    unanswered: AtomicU64,
    unrecorded: AtomicU64,
}

/// Numbers since the daemon started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuditCounters {
    /// Records written.
    pub written: u64,
    /// Records that the queue or the disk did not take.
    pub lost: u64,
    /// Whether the last record was written.
    pub writable: bool,
    /// Sequence of the newest record.
    pub sequence: u64,
}

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the audit log in {}", dir.display())]
pub struct AuditError {
    dir: PathBuf,
    source: io::Error,
}

/// A place for the record of one admin call.
#[derive(Debug)]
pub(crate) struct Place {
    queue: mpsc::OwnedPermit<Call>,
    shared: Arc<Shared>,
}

impl AuditLog {
    /// Opens the log of a state directory, and writes that the daemon begins.
    pub fn open(state_dir: &Path, config: &AuditConfig) -> Result<(Self, AuditWriter), AuditError> {
        let dir = state_dir.join(FOLDER);
        let max_age = config.retention_days.map(|days| Duration::from_secs(u64::from(days) * 24 * 3600));
        let retention = Retention { max_bytes: config.max_bytes, max_age };
        let files = LogFiles::open(&dir, retention).map_err(|source| AuditError { dir: dir.clone(), source })?;
        let (notes, notes_rx) = mpsc::channel(NOTES);
        let (calls, calls_rx) = mpsc::channel(PLACES);
        let shared = Arc::new(Shared {
            dir,
            head: Mutex::new(files.head()),
            durable: Mutex::default(),
            compared: Mutex::default(),
            mismatches: AtomicU64::default(),
            writable: AtomicBool::new(!files.is_behind()),
            streams: AtomicU64::default(),
            dropped: AtomicU64::default(),
            dropped_since: AtomicU64::new(u64::MAX),
            written: AtomicU64::default(),
            lost: AtomicU64::default(),
            passed: AtomicU64::default(),
            refused: AtomicU64::default(),
            unanswered: AtomicU64::default(),
            unrecorded: AtomicU64::default(),
        });
        let writer = AuditWriter::new(notes_rx, calls_rx, shared.clone(), files, config.sync);
        Ok((Self(Arc::new(Inner { notes, calls, shared })), writer))
    }

    /// The record of a stream of channel data that is about to be opened.
    pub fn stream(&self, connection: ConnectionId, role: Role, trace: u64) -> Box<StreamRecord> {
        let role = match role {
            Role::Sender => StreamRole::Sender,
            Role::Listener => StreamRole::Listener,
        };
        self.record(connection, role, trace)
    }

    /// The record of an admin stream that is about to be opened.
    pub fn admin_stream(&self, connection: ConnectionId, role: Role, trace: u64) -> Box<StreamRecord> {
        let role = match role {
            Role::Sender => StreamRole::AdminUser,
            Role::Listener => StreamRole::AdminOwner,
        };
        self.record(connection, role, trace)
    }

    fn record(&self, connection: ConnectionId, role: StreamRole, trace: u64) -> Box<StreamRecord> {
        let serial = self.0.shared.streams.fetch_add(1, Relaxed);
        // On the heap: it is handed from task to task, and every move would take its room in each of them.
        Box::new(StreamRecord::new(self.clone(), StreamKey { serial, connection, role, trace }))
    }

    /// Notes a refusal.
    pub fn refused(&self, refusal: Refusal) {
        self.note(Noted::Refused(refusal));
    }

    /// Never waits: a note without room is counted.
    fn note(&self, what: Noted) {
        let at = unix_ms();
        if self.0.notes.try_send(Note { at, what }).is_err() {
            self.0.shared.dropped_since.fetch_min(at, Relaxed);
            self.0.shared.dropped.fetch_add(1, Relaxed);
            self.0.shared.lost.fetch_add(1, Relaxed);
        }
    }

    /// A place for the record of an admin call, before it begins; waits while there is none. None: the daemon goes down.
    pub(crate) async fn place(&self) -> Option<Place> {
        let queue = self.0.calls.clone().reserve_owned().await.ok()?;
        Some(Place { queue, shared: self.0.shared.clone() })
    }

    /// Whether admin calls may pass: the last record was written.
    pub fn is_writable(&self) -> bool {
        self.0.shared.writable.load(Relaxed)
    }

    /// What was written since the daemon started.
    pub fn counters(&self) -> AuditCounters {
        let shared = &self.0.shared;
        AuditCounters {
            written: shared.written.load(Relaxed),
            lost: shared.lost.load(Relaxed),
            writable: self.is_writable(),
            sequence: self.head().sequence,
        }
    }

    /// Admin calls since the daemon started.
    pub fn admin_counters(&self) -> AdminCounters {
        let shared = &self.0.shared;
        AdminCounters {
            passed: shared.passed.load(Relaxed),
            refused: shared.refused.load(Relaxed),
            unanswered: shared.unanswered.load(Relaxed),
            unrecorded: shared.unrecorded.load(Relaxed),
        }
    }

    /// The newest record that was written.
    pub fn head(&self) -> Head {
        self.0.shared.head.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The newest record that is on the disk for sure: what a power cut does not take back.
    pub fn durable_head(&self) -> Option<Head> {
        self.0.shared.durable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks whether the files hold a record that was reported. Reads a file of the log.
    pub fn compare(&self, asked: Head) -> io::Result<AuditHeld> {
        let shared = &self.0.shared;
        let held = reader::held(&shared.dir, &asked)?;
        if held.is_alarm() {
            shared.mismatches.fetch_add(1, Relaxed);
            warn!(
                sequence = asked.sequence,
                hash = asked.hash,
                "the audit log is not the one that was reported to the control plane: lines of it were removed or changed, or the \
                 state directory is an older copy"
            );
        }
        *shared.compared.lock().unwrap_or_else(PoisonError::into_inner) = Some(AuditComparison { asked, held });
        Ok(held)
    }

    /// What the control plane asked for last, and whether it is there.
    pub fn compared(&self) -> Option<AuditComparison> {
        self.0.shared.compared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often the files did not hold what the control plane asked for, since the daemon started.
    pub fn mismatches(&self) -> u64 {
        self.0.shared.mismatches.load(Relaxed)
    }

    /// The newest `limit` records whose act begins with `act`, oldest first, and whether the files read for them are whole.
    pub fn newest(&self, limit: usize, act: &str) -> io::Result<AuditNewest> {
        reader::newest(&self.0.shared.dir, limit, act)
    }

    /// The lines of one file from this record on, oldest first; empty: there are none.
    pub fn lines_from(&self, sequence: u64) -> io::Result<Vec<u8>> {
        reader::lines_from(&self.0.shared.dir, sequence)
    }
}

impl Place {
    /// Records a call.
    pub(crate) fn record(self, call: AdminCall) {
        let counter = match (&call.refused, call.status) {
            (Some(_), _) => &self.shared.refused,
            (None, 0 | 502) => &self.shared.unanswered,
            (None, _) => &self.shared.passed,
        };
        counter.fetch_add(1, Relaxed);
        self.queue.send((unix_ms(), call));
    }
}

#[cfg(test)]
mod tests;
