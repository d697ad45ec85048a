//! The log of admin calls in the state directory: hash-chained JSON lines, bounded, written by one task.
//!
//! `admin-calls.jsonl` is the current file; a full one becomes `.1`, and so on up to `.4`. A line cut off by a crash is removed at
//! the next start, and the chain goes on from the last whole one. While the log cannot be written, no admin call passes.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use gateway_proto::{
    admin::call::{AdminCall, Chain},
    api::local::{AdminCalls, AdminCounters},
};
use tokio::sync::mpsc;
use tracing::{error, warn};

const FILE: &str = "admin-calls.jsonl";
/// A file is full at this many bytes: about 20,000 calls.
const MAX_FILE_LEN: u64 = 8 << 20;
/// Full files kept.
const KEPT_FILES: u32 = 4;
/// Calls that wait to be written; more of them wait at the engine's door.
const QUEUE: usize = 256;

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

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
    length: u64,
    chain: Chain,
    next: u64,
}

impl AdminLog {
    /// Opens the log of a state directory.
    pub fn open(state_dir: &Path) -> Result<(Self, AdminLogWriter), LogError> {
        let path = state_dir.join(FILE);
        let file = LogFile::open(&path).map_err(|source| LogError { path: path.clone(), source })?;
        let (sender, queue) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            path,
            writable: AtomicBool::new(true),
            passed: AtomicU64::default(),
            refused: AtomicU64::default(),
            lost: AtomicU64::default(),
        });
        Ok((Self { queue: sender, shared: shared.clone() }, AdminLogWriter { queue, shared, file }))
    }

    /// Whether calls may pass: the last record was written.
    pub fn is_writable(&self) -> bool {
        self.shared.writable.load(Relaxed)
    }

    /// Records a call; waits while the writer is behind.
    pub(super) async fn record(&self, call: AdminCall) {
        self.count(&call);
        if self.queue.send(call).await.is_err() {
            self.shared.lost.fetch_add(1, Relaxed);
        }
    }

    /// Records a call that was cut off; the caller cannot wait.
    pub(super) fn record_now(&self, call: AdminCall) {
        self.count(&call);
        if self.queue.try_send(call).is_err() {
            self.shared.lost.fetch_add(1, Relaxed);
        }
    }

    fn count(&self, call: &AdminCall) {
        let counter = if call.refused.is_some() { &self.shared.refused } else { &self.shared.passed };
        counter.fetch_add(1, Relaxed);
    }

    /// What was counted since the daemon started.
    pub fn counters(&self) -> AdminCounters {
        AdminCounters {
            passed: self.shared.passed.load(Relaxed),
            refused: self.shared.refused.load(Relaxed),
            unrecorded: self.shared.lost.load(Relaxed),
        }
    }

    /// The newest `limit` calls of the current file, oldest first, and whether its chain is whole. Reads the file.
    pub fn newest(&self, limit: usize) -> io::Result<AdminCalls> {
        let text = std::fs::read_to_string(&self.shared.path)?;
        let mut lines = text.lines();
        let mut calls = Vec::new();
        let mut whole = true;
        // The first line continues a file that may be gone.
        let Some(first) = lines.next() else { return Ok(AdminCalls { calls, whole }) };
        let Ok((mut chain, call)) = Chain::after(first) else { return Ok(AdminCalls { calls, whole: false }) };
        calls.push(call);
        for line in lines {
            match chain.verify(line) {
                Ok(call) => calls.push(call),
                Err(_) => whole = false,
            }
        }
        calls.drain(..calls.len().saturating_sub(limit));
        Ok(AdminCalls { calls, whole })
    }
}

impl AdminLogWriter {
    /// Writes until every sender is gone.
    pub async fn run(mut self) {
        let mut calls = Vec::new();
        while self.queue.recv_many(&mut calls, QUEUE).await > 0 {
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

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < text.len() {
            file.set_len(whole as u64)?;
            file.seek(SeekFrom::End(0))?;
        }
        let kept = String::from_utf8_lossy(&text[..whole]);
        let last = match kept.lines().next_back() {
            Some(line) => Some(line.to_owned()),
            None => {
                std::fs::read_to_string(numbered(path, 1)).ok().and_then(|t| t.lines().next_back().map(str::to_owned))
            }
        };
        let (chain, next) = last
            .and_then(|line| Chain::after(&line).ok())
            .map_or((Chain::default(), 0), |(chain, call)| (chain, call.sequence + 1));
        Ok(Self { path: path.to_owned(), file, length: whole as u64, chain, next })
    }

    fn append(&mut self, mut call: AdminCall) -> io::Result<()> {
        if self.length >= MAX_FILE_LEN {
            self.rotate()?;
        }
        call.sequence = self.next;
        let mut chain = self.chain;
        let mut line = chain.append(&call);
        line.push('\n');
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            // Half a line must not stay before the next one.
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        (self.chain, self.next, self.length) = (chain, self.next + 1, self.length + line.len() as u64);
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        for number in (1..KEPT_FILES).rev() {
            let _ = std::fs::rename(numbered(&self.path, number), numbered(&self.path, number + 1));
        }
        std::fs::rename(&self.path, numbered(&self.path, 1))?;
        self.file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        self.length = 0;
        Ok(())
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use gateway_proto::{admin::opening::KnownBy, id::ConnectionId};

    use super::*;

    fn call() -> AdminCall {
        AdminCall {
            sequence: 0,
            at: 1,
            connection: ConnectionId::new(1, [1; 10]),
            organization: "North".into(),
            server: "north".into(),
            user: "maria".into(),
            known_by: KnownBy::LocalAccount,
            account: None,
            method: "GET".into(),
            path: "/channels".into(),
            class: None,
            status: 200,
            refused: None,
            duration_ms: 1,
        }
    }

    #[test]
    fn the_chain_goes_on_after_a_crash_in_the_middle_of_a_line_and_over_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let mut file = LogFile::open(&path).unwrap();
        file.append(call()).unwrap();
        file.append(call()).unwrap();
        drop(file);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], b"{\"hash\":\"torn"].concat()).unwrap();
        let mut file = LogFile::open(&path).unwrap();
        file.append(call()).unwrap();
        file.length = MAX_FILE_LEN;
        file.append(call()).unwrap();
        let text = std::fs::read_to_string(numbered(&path, 1)).unwrap() + &std::fs::read_to_string(&path).unwrap();
        let mut chain = Chain::default();
        let sequences: Vec<_> = text.lines().map(|line| chain.verify(line).unwrap().sequence).collect();
        assert_eq!(sequences, [0, 1, 2, 3]);
    }

    #[tokio::test]
    async fn calls_are_read_back_and_a_change_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let (log, writer) = AdminLog::open(directory.path()).unwrap();
        for _ in 0..3 {
            log.record(call()).await;
        }
        let reader = log.clone();
        drop(log);
        // The reader is the last sender: it goes when the queue is empty.
        let path = reader.shared.path.clone();
        let again = AdminLog { queue: mpsc::channel(1).0, shared: reader.shared.clone() };
        drop(reader);
        writer.run().await;
        let calls = again.newest(2).unwrap();
        assert!(calls.whole && calls.calls.iter().map(|c| c.sequence).eq([1, 2]));
        let text = std::fs::read_to_string(&path).unwrap().replacen("\"status\":200", "\"status\":201", 2);
        std::fs::write(&path, text).unwrap();
        assert!(!again.newest(9).unwrap().whole);
    }
}
