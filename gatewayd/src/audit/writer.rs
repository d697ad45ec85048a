//! The one task that writes the log.
//!
//! Notes are taken in batches: the first of a batch waits a moment for others, which makes one write of many and one record of a
//! stream that is opened and ended at once. The record of an admin call is written without that pause. Written lines are
//! brought to the disk (`fdatasync`) no more often than configured, apart from the data path, on a thread for blocking work.
//!
//! What cannot be written is counted; the first record after it says how much is missing, and since when. While nothing else
//! is to be written, that record itself is tried again.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use gateway_net::time::unix_ms;
use gateway_proto::audit::{
    condense::{Condensed, Condenser},
    note::Note,
    record::{Event, Gap},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tracing::{error, info, warn};

use super::{Call, NOTES, Shared, files::LogFiles, names::Names};

/// The first note of a batch waits so long for others.
const PAUSE: Duration = Duration::from_millis(250);
/// Calls of one batch.
const BATCH: usize = 8_192;
/// While the disk takes nothing, it is tried again this often.
const RETRY: Duration = Duration::from_secs(1);
/// How often it is looked whether files are too old.
const LOOK: Duration = Duration::from_secs(3600);

/// Writes the log.
#[derive(Debug)]
pub struct AuditWriter {
    notes: mpsc::Receiver<Note>,
    calls: mpsc::Receiver<Call>,
    book: Box<Book>,
    sync: Duration,
    synced_at: Instant,
    looked_at: Option<Instant>,
}

/// What a thread for blocking work takes along.
#[derive(Debug)]
struct Book {
    shared: Arc<Shared>,
    files: LogFiles,
    condenser: Condenser,
    names: Names,
    gap: Gap,
}

/// What is to be done at once.
#[derive(Debug, Default)]
struct Batch {
    notes: Vec<Note>,
    calls: Vec<Call>,
    syncs: bool,
    looks: bool,
    /// The last one.
    is_last: bool,
}

impl AuditWriter {
    pub(super) fn new(
        notes: mpsc::Receiver<Note>,
        calls: mpsc::Receiver<Call>,
        shared: Arc<Shared>,
        files: LogFiles,
        sync: Duration,
    ) -> Self {
        let book =
            Book { shared, files, condenser: Condenser::default(), names: Names::default(), gap: Gap::default() };
        Self { notes, calls, book: Box::new(book), sync, synced_at: Instant::now(), looked_at: None }
    }

    /// Takes the file for a full one.
    #[cfg(test)]
    pub(super) fn fill(&mut self) {
        self.book.files.fill();
    }

    /// Writes until every sender is gone, then says that the daemon stops.
    pub async fn run(mut self, names: Names) {
        self.book.names = names;
        let head = self.book.files.head();
        info!(sequence = head.sequence, hash = head.hash, "the audit log goes on");
        if self.book.files.is_behind() {
            error!(
                dir = %self.book.shared.dir.display(),
                "the audit log cannot be written; data passes, no admin call does until it can: make room on the disk"
            );
        }
        loop {
            let mut batch = self.gather().await;
            let now = Instant::now();
            batch.syncs = batch.is_last || now >= self.synced_at + self.sync;
            batch.looks = self.looked_at.is_none_or(|at| now >= at + LOOK);
            if batch.syncs {
                self.synced_at = now;
            }
            if batch.looks {
                self.looked_at = Some(now);
            }
            let is_last = batch.is_last;
            let mut book = self.book;
            let written = tokio::task::spawn_blocking(move || {
                book.write(batch, now.into_std());
                book
            });
            match written.await {
                Ok(book) => self.book = book,
                // The runtime goes down.
                Err(_) => return,
            }
            if is_last {
                let head = self.book.files.head();
                info!(sequence = head.sequence, hash = head.hash, "the audit log ends in order");
                return;
            }
        }
    }

    /// Waits until there is something to do.
    async fn gather(&mut self) -> Batch {
        let mut batch = Batch::default();
        let mut until = self.next_look();
        let mut notes_end = false;
        loop {
            tokio::select! {
                biased;
                // None: nobody has the log any more.
                taken = self.calls.recv_many(&mut batch.calls, BATCH) => {
                    batch.is_last = taken == 0;
                    break;
                }
                // The first ones; the queue has room for those that follow, and nothing wakes for each of them.
                taken = self.notes.recv_many(&mut batch.notes, NOTES), if batch.notes.is_empty() && !notes_end => {
                    notes_end = taken == 0;
                    until = until.min(Instant::now() + PAUSE);
                }
                () = sleep_until(until) => break,
            }
        }
        // What came before the call stands before it.
        while batch.notes.len() < NOTES
            && let Ok(note) = self.notes.try_recv()
        {
            batch.notes.push(note);
        }
        batch
    }

    /// When something is to be done although nothing comes.
    fn next_look(&self) -> Instant {
        let now = Instant::now();
        let mut next = self.looked_at.map_or(now, |at| at + LOOK);
        if let Some(due) = self.book.condenser.poll_timeout() {
            next = next.min(due.into());
        }
        if self.book.files.is_unsynced() {
            next = next.min(self.synced_at + self.sync);
        }
        if !self.book.shared.writable.load(Relaxed) || self.book.shared.dropped.load(Relaxed) > 0 {
            next = next.min(now + RETRY);
        }
        next
    }
}

impl Book {
    fn write(&mut self, batch: Batch, now: std::time::Instant) {
        let mut condensed = Vec::new();
        self.names.refresh();
        self.condenser.handle_notes(&batch.notes, now, &mut condensed);
        self.condenser.handle_timeout(now, &mut condensed);
        if batch.is_last {
            self.condenser.finish(now, &mut condensed);
        }
        self.note_dropped();
        let calls = batch.calls.len() as u64;
        let mut events = self.events(condensed, batch.calls);
        let count = events.len() as u64;
        if !self.gap.is_empty() {
            events.insert(0, (unix_ms(), Event::Gap(self.gap.clone())));
        }
        if batch.is_last {
            events.push((unix_ms(), Event::Ended));
        }
        let nothing = events.is_empty() && !self.files.is_behind();
        let appended = if nothing { Ok(()) } else { self.files.append_all(events) };
        if appended.is_ok() {
            self.gap = Gap::default();
            self.shared.written.fetch_add(count, Relaxed);
        } else {
            self.note_unwritten(count, calls);
        }
        let result = appended
            .and_then(|()| if batch.looks { self.files.remove_oldest() } else { Ok(()) })
            .and_then(|()| if batch.syncs { self.files.sync() } else { Ok(()) });
        let head = self.files.head();
        if !self.files.is_unsynced() {
            *self.shared.durable.lock().unwrap_or_else(PoisonError::into_inner) = Some(head.clone());
        }
        *self.shared.head.lock().unwrap_or_else(PoisonError::into_inner) = head;
        self.tell(&result);
    }

    /// Logs when the disk begins or ends to take nothing.
    fn tell(&self, result: &std::io::Result<()>) {
        let was_writable = self.shared.writable.swap(result.is_ok(), Relaxed);
        match result {
            Ok(()) if !was_writable => warn!("the audit log can be written again; a record says what is missing"),
            Ok(()) => {}
            Err(error) if was_writable => error!(
                %error,
                dir = %self.shared.dir.display(),
                "the audit log cannot be written; data goes on, no admin call passes until it can: make room on the disk"
            ),
            Err(_) => {}
        }
    }

    fn note_unwritten(&mut self, count: u64, calls: u64) {
        if self.gap.is_empty() {
            self.gap.since = unix_ms();
        }
        self.gap.unwritten += count;
        self.gap.unwritten_calls += calls;
        self.shared.lost.fetch_add(count, Relaxed);
        self.shared.unrecorded.fetch_add(calls, Relaxed);
    }

    /// Takes over what the queue had no room for.
    fn note_dropped(&mut self) {
        let dropped = self.shared.dropped.swap(0, Relaxed);
        let since = self.shared.dropped_since.swap(u64::MAX, Relaxed);
        if dropped > 0 {
            if self.gap.is_empty() {
                self.gap.since = since;
            }
            self.gap.too_fast += dropped;
            warn!(dropped, "records of streams came faster than the audit log could be written");
        }
    }

    /// In the order of time as far as it is known: notes of this batch and calls.
    fn events(&self, condensed: Vec<Condensed>, calls: Vec<Call>) -> Vec<(u64, Event)> {
        let mut events: Vec<_> = condensed.into_iter().map(|condensed| self.names.event(condensed)).collect();
        events.extend(calls.into_iter().map(|(at, call)| (at, Event::AdminCall(call))));
        events.sort_by_key(|(at, _)| *at);
        events
    }
}
