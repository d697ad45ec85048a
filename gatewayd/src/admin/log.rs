//! The log of admin calls in the state directory: hash-chained JSON lines, bounded, written by one task.
//!
//! `admin-calls.jsonl` is the current file; a full one becomes `.1`, and so on up to `.16` ([`mod@file`]). A line cut off by a crash is
//! removed at the next start, and the chain goes on from the last whole one. While the log cannot be written, no admin call passes;
//! none begins before there is a [`Place`] for its record, so that whatever ends it, the record can be handed over at once.

mod file;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use file::LogFile;
use gateway_proto::{
    admin::call::AdminCall,
    api::local::{AdminCalls, AdminCounters},
};
use tokio::sync::mpsc;
use tracing::{error, warn};

const FILE: &str = "admin-calls.jsonl";
/// Calls under way and records that wait to be written; more of them wait at the engine's door. Many partners with all their
/// streams find a place.
const PLACES: usize = 4096;
/// Records written at once.
const BATCH: usize = 256;

/// Takes calls. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AdminLog {
    queue: mpsc::Sender<AdminCall>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    writable: AtomicBool,
    passed: AtomicU64,
    refused: AtomicU64,
    unanswered: AtomicU64,
    lost: AtomicU64,
}

/// Writes them.
#[derive(Debug)]
pub struct AdminLogWriter {
    queue: mpsc::Receiver<AdminCall>,
    shared: Arc<Shared>,
    file: LogFile,
}

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the log of admin calls {}", path.display())]
pub struct LogError {
    path: PathBuf,
    source: io::Error,
}

/// A place for one record.
#[derive(Debug)]
pub(super) struct Place {
    queue: mpsc::OwnedPermit<AdminCall>,
    shared: Arc<Shared>,
}

impl AdminLog {
    /// Opens the log of a state directory.
    pub fn open(state_dir: &Path) -> Result<(Self, AdminLogWriter), LogError> {
        let path = state_dir.join(FILE);
        let file = LogFile::open(&path).map_err(|source| LogError { path: path.clone(), source })?;
        let (sender, queue) = mpsc::channel(PLACES);
        let shared = Arc::new(Shared {
            path,
            writable: AtomicBool::new(true),
            passed: AtomicU64::default(),
            refused: AtomicU64::default(),
            unanswered: AtomicU64::default(),
            lost: AtomicU64::default(),
        });
        Ok((Self { queue: sender, shared: shared.clone() }, AdminLogWriter { queue, shared, file }))
    }

    /// Whether calls may pass: the last record was written.
    pub fn is_writable(&self) -> bool {
        self.shared.writable.load(Relaxed)
    }

    /// A place for the record of a call, before it begins; waits while there is none. None: the daemon goes down.
    pub(super) async fn place(&self) -> Option<Place> {
        let queue = self.queue.clone().reserve_owned().await.ok()?;
        Some(Place { queue, shared: self.shared.clone() })
    }

    /// What was counted since the daemon started.
    pub fn counters(&self) -> AdminCounters {
        AdminCounters {
            passed: self.shared.passed.load(Relaxed),
            refused: self.shared.refused.load(Relaxed),
            unanswered: self.shared.unanswered.load(Relaxed),
            unrecorded: self.shared.lost.load(Relaxed),
        }
    }

    /// The newest `limit` calls, oldest first, and whether their chain is whole. Reads the files.
    pub fn newest(&self, limit: usize) -> io::Result<AdminCalls> {
        file::newest(&self.shared.path, limit)
    }
}

impl Place {
    /// Records a call.
    pub(super) fn record(self, call: AdminCall) {
        let counter = match (&call.refused, call.status) {
            (Some(_), _) => &self.shared.refused,
            (None, 0 | 502) => &self.shared.unanswered,
            (None, _) => &self.shared.passed,
        };
        counter.fetch_add(1, Relaxed);
        self.queue.send(call);
    }
}

impl AdminLogWriter {
    /// Writes until every sender is gone.
    pub async fn run(mut self) {
        let mut calls = Vec::new();
        while self.queue.recv_many(&mut calls, BATCH).await > 0 {
            let batch = std::mem::take(&mut calls);
            let shared = self.shared.clone();
            let mut file = self.file;
            let written = tokio::task::spawn_blocking(move || {
                for call in batch {
                    let result = file.append(call);
                    if let Err(error) = &result {
                        shared.lost.fetch_add(1, Relaxed);
                        if shared.writable.swap(false, Relaxed) {
                            error!(%error, "the log of admin calls cannot be written; no admin call passes until it can");
                        }
                    } else if !shared.writable.swap(true, Relaxed) {
                        warn!("the log of admin calls can be written again");
                    }
                }
                file
            });
            match written.await {
                Ok(file) => self.file = file,
                // The runtime goes down.
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
pub(in crate::admin) mod tests {
    use gateway_proto::{admin::opening::KnownBy, id::ConnectionId};

    use super::*;

    pub(in crate::admin) fn call() -> AdminCall {
        AdminCall {
            sequence: 0,
            at: 1,
            connection: ConnectionId::new(1, [1; 10]),
            organization: "North".into(),
            server: "north".into(),
            user: "maria".into(),
            known_by: KnownBy::LocalAccount,
            person: None,
            account: None,
            method: "GET".into(),
            path: "/channels".into(),
            class: None,
            status: 200,
            refused: None,
            duration_ms: 1,
        }
    }

    #[tokio::test]
    async fn calls_are_read_back_and_a_change_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let (log, writer) = AdminLog::open(directory.path()).unwrap();
        for _ in 0..3 {
            log.place().await.unwrap().record(call());
        }
        let shared = log.shared.clone();
        // The last sender: the writer ends when the queue is empty.
        drop(log);
        writer.run().await;
        let calls = file::newest(&shared.path, 2).unwrap();
        assert!(calls.whole && calls.calls.iter().map(|c| c.sequence).eq([1, 2]));
        let text = std::fs::read_to_string(&shared.path).unwrap().replacen("\"status\":200", "\"status\":201", 2);
        std::fs::write(&shared.path, text).unwrap();
        assert!(!file::newest(&shared.path, 9).unwrap().whole);
    }

    #[tokio::test]
    async fn only_a_call_that_the_engine_answered_counts_as_passed() {
        let directory = tempfile::tempdir().unwrap();
        let (log, _writer) = AdminLog::open(directory.path()).unwrap();
        let refused = |status| AdminCall { status, refused: Some("no".into()), ..call() };
        let ended = |status| AdminCall { status, ..call() };
        for call in [ended(200), ended(404), refused(403), refused(502), ended(502), ended(0)] {
            log.place().await.unwrap().record(call);
        }
        assert_eq!(log.counters(), AdminCounters { passed: 2, refused: 2, unanswered: 2, unrecorded: 0 });
    }

    #[tokio::test]
    async fn a_call_that_began_is_recorded_however_many_others_wait_and_none_begins_without_a_place() {
        let directory = tempfile::tempdir().unwrap();
        let (log, writer) = AdminLog::open(directory.path()).unwrap();
        let change = log.place().await.unwrap();
        // The writer stands still, and the queue is filled.
        for _ in 1..PLACES {
            log.place().await.unwrap().record(AdminCall { refused: Some("no".into()), ..call() });
        }
        assert!(futures_util::poll!(std::pin::pin!(log.place())).is_pending());
        // Handed over without waiting: whoever cuts the stream cannot prevent it.
        change.record(AdminCall { path: "/channels/_stop".into(), ..call() });
        assert_eq!(log.counters(), AdminCounters { passed: 1, refused: PLACES as u64 - 1, ..AdminCounters::default() });
        let shared = log.shared.clone();
        drop(log);
        writer.run().await;
        let calls = file::newest(&shared.path, 1).unwrap().calls;
        assert_eq!((calls[0].sequence, calls[0].path.as_ref()), (PLACES as u64 - 1, "/channels/_stop"));
    }
}
