//! The files of the log: `audit-<sequence of its first record>.jsonl`, the newest one grows.
//!
//! A file is full at [`MAX_FILE_LEN`] and closed after a day. Whenever one is closed, the oldest are removed that are too many or
//! too old, and a record says so before. A write takes whole batches: one that fails leaves no half line.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use gateway_proto::audit::{
    line::{Head, LineChain, read},
    record::{Begun, Event, FileBegun, Record, Removed},
};

/// A file is full at this many bytes: about 20,000 records. A reader takes a file at a time.
pub(super) const MAX_FILE_LEN: u64 = 8 << 20;
/// A file is closed after this time, so that old records can be removed by their age.
const MAX_FILE_AGE: Duration = Duration::from_secs(24 * 3600);

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Retention {
    /// Bytes of all files together, at most.
    pub(super) max_bytes: u64,
    /// Age of a record at most; none: as long as there is room.
    pub(super) max_age: Option<Duration>,
}

/// The log as it is written.
#[derive(Debug)]
pub(super) struct LogFiles {
    dir: PathBuf,
    retention: Retention,
    file: File,
    length: u64,
    begun: SystemTime,
    chain: LineChain,
    next: u64,
    /// Half a line may stand behind `length`.
    is_torn: bool,
    /// Written, and not on the disk for sure.
    is_unsynced: bool,
    /// That the daemon began, while the disk takes nothing: it comes before whatever is written next.
    waiting: Option<(u64, Event)>,
}

/// One file of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) first: u64,
    pub(super) path: PathBuf,
}

/// The files there are, oldest first.
pub(super) fn parts(dir: &Path) -> io::Result<Vec<Part>> {
    let mut parts = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let first = name.to_str().and_then(|name| name.strip_prefix("audit-")?.strip_suffix(".jsonl")?.parse().ok());
        if let Some(first) = first {
            parts.push(Part { first, path: entry.path() });
        }
    }
    parts.sort_by_key(|part| part.first);
    Ok(parts)
}

/// Where a log ends.
struct Tail {
    part: Part,
    length: u64,
    torn_bytes: u64,
    /// None: its lines do not verify.
    chain: Option<LineChain>,
    next: u64,
    in_order: bool,
}

impl LogFiles {
    /// Opens the log, goes on where it ends, and writes that the daemon begins. A full disk is no reason not to begin, and [`is_behind`](Self::is_behind) then.
    pub(super) fn open(dir: &Path, retention: Retention) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let (tail, mut torn_bytes) = tail(dir)?;
        let mut begun =
            Begun { version: env!("CARGO_PKG_VERSION").into(), in_order: true, torn_bytes: 0, broken: false };
        let now = SystemTime::now();
        let mut log = match tail {
            Some(tail) => {
                torn_bytes += tail.torn_bytes;
                begun.in_order = tail.in_order && torn_bytes == 0;
                match tail.chain {
                    Some(chain) => {
                        let file = OpenOptions::new().append(true).open(&tail.part.path)?;
                        let begun = file.metadata()?.created().unwrap_or(now);
                        let (length, next) = (tail.length, tail.next);
                        let dir = dir.to_owned();
                        let is_torn = tail.torn_bytes > 0;
                        let is_unsynced = false;
                        Self { dir, retention, file, length, begun, chain, next, is_torn, is_unsynced, waiting: None }
                    }
                    None => {
                        begun.broken = true;
                        Self::begin(dir, retention, LineChain::default(), tail.next)?
                    }
                }
            }
            None => Self::begin(dir, retention, LineChain::default(), 0)?,
        };
        begun.torn_bytes = torn_bytes;
        log.waiting = Some((gateway_net::time::unix_ms(), Event::Begun(begun)));
        // What fails here fails again with the next write, and is told then.
        let _ = log.append_all([]);
        Ok(log)
    }

    fn begin(dir: &Path, retention: Retention, chain: LineChain, next: u64) -> io::Result<Self> {
        let path = dir.join(format!("audit-{next:020}.jsonl"));
        // What an attempt that failed left of it is emptied.
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        file.set_len(0)?;
        let (mut text, mut after) = (String::new(), chain);
        let head = Event::File(FileBegun { previous: chain.hash() });
        after.append(&Record { sequence: next, at: gateway_net::time::unix_ms(), event: head }, &mut text);
        file.write_all(text.as_bytes())?;
        Ok(Self {
            dir: dir.to_owned(),
            retention,
            file,
            length: text.len() as u64,
            begun: SystemTime::now(),
            chain: after,
            next: next + 1,
            is_torn: false,
            is_unsynced: true,
            waiting: None,
        })
    }

    /// The newest record.
    pub(super) fn head(&self) -> Head {
        Head { sequence: self.next - 1, hash: self.chain.hash() }
    }

    /// Appends records that happened at `at`, all or none of them.
    pub(super) fn append(&mut self, at: u64, events: impl IntoIterator<Item = Event>) -> io::Result<()> {
        self.append_all(events.into_iter().map(|event| (at, event)))
    }

    /// Appends records, each with its time, all or none of them.
    pub(super) fn append_all(&mut self, events: impl IntoIterator<Item = (u64, Event)>) -> io::Result<()> {
        let waiting = self.waiting.take();
        let written = self.write(waiting.clone().into_iter().chain(events));
        if written.is_err() {
            self.waiting = waiting;
        }
        written
    }

    /// Whether something waits to be written since the log was opened.
    pub(super) fn is_behind(&self) -> bool {
        self.waiting.is_some()
    }

    fn write(&mut self, events: impl Iterator<Item = (u64, Event)>) -> io::Result<()> {
        if self.is_torn {
            self.file.set_len(self.length)?;
            self.is_torn = false;
        }
        if self.is_full() {
            self.turn()?;
        }
        let (mut text, mut chain, mut next) = (String::new(), self.chain, self.next);
        for (at, event) in events {
            chain.append(&Record { sequence: next, at, event }, &mut text);
            next += 1;
        }
        if let Err(error) = self.file.write_all(text.as_bytes()) {
            self.is_torn = self.file.set_len(self.length).is_err();
            return Err(error);
        }
        self.is_unsynced = true;
        (self.chain, self.next, self.length) = (chain, next, self.length + text.len() as u64);
        Ok(())
    }

    /// What was written is on the disk when this has returned.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.is_unsynced {
            self.file.sync_data()?;
            self.is_unsynced = false;
        }
        Ok(())
    }

    /// Whether [`sync`](Self::sync) has something to do.
    pub(super) fn is_unsynced(&self) -> bool {
        self.is_unsynced
    }

    fn is_full(&self) -> bool {
        self.length >= MAX_FILE_LEN || self.begun.elapsed().is_ok_and(|age| age >= MAX_FILE_AGE)
    }

    /// The next file. One that cannot be made leaves everything as it was.
    fn turn(&mut self) -> io::Result<()> {
        self.sync()?;
        let next = Self::begin(&self.dir, self.retention, self.chain, self.next)?;
        *self = next;
        self.remove_oldest()
    }

    /// Takes the file for a full one.
    #[cfg(test)]
    pub(super) fn fill(&mut self) {
        self.begun = SystemTime::UNIX_EPOCH;
    }

    /// The disk takes nothing, as when it was full at the start: what is written now waits.
    #[cfg(test)]
    pub(super) fn on_a_full_disk(&mut self, event: Event) -> io::Result<File> {
        let full = OpenOptions::new().append(true).open("/dev/full")?;
        self.waiting = Some((1, event));
        Ok(std::mem::replace(&mut self.file, full))
    }

    /// It takes something again.
    #[cfg(test)]
    pub(super) fn with_room(&mut self, file: File) {
        self.file = file;
    }

    /// Removes what is too much or too old, the file that grows never.
    pub(super) fn remove_oldest(&mut self) -> io::Result<()> {
        if self.is_full() {
            // That comes back here, with a file that takes the record of it.
            return self.turn();
        }
        let parts = parts(&self.dir)?;
        let mut lengths = Vec::with_capacity(parts.len());
        for part in &parts {
            let metadata = std::fs::metadata(&part.path)?;
            let age = metadata.modified().ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
            lengths.push((metadata.len(), age));
        }
        let mut total: u64 = lengths.iter().map(|(length, _)| length).sum();
        let mut gone = 0;
        // The newest full file stays, however small the limit: its records may not have been read by anybody.
        while gone + 1 < parts.len() {
            let (length, age) = lengths[gone];
            if total <= self.retention.max_bytes && self.retention.max_age.is_none_or(|most| age <= most) {
                break;
            }
            total -= length;
            gone += 1;
        }
        if gone == 0 {
            return Ok(());
        }
        // The file that follows those removed names the hash of the last line of them.
        let follows = std::fs::read_to_string(&parts[gone].path)?;
        let previous = match follows.lines().next().and_then(read) {
            Some((Record { event: Event::File(begun), .. }, _)) => begun.previous,
            _ => String::new(),
        };
        let through = parts[gone].first.saturating_sub(1);
        self.append(gateway_net::time::unix_ms(), [Event::Removed(Removed { through, hash: previous })])?;
        self.sync()?;
        for part in &parts[..gone] {
            std::fs::remove_file(&part.path)?;
        }
        Ok(())
    }
}

/// Where the log ends, and the bytes of files that hold no whole line; those are removed.
fn tail(dir: &Path) -> io::Result<(Option<Tail>, u64)> {
    let mut parts = parts(dir)?;
    let mut torn = 0;
    while let Some(part) = parts.pop() {
        let bytes = std::fs::read(&part.path)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole == 0 {
            // A crash at the beginning of a file.
            torn += bytes.len() as u64;
            std::fs::remove_file(&part.path)?;
            continue;
        }
        let text = String::from_utf8_lossy(&bytes[..whole]);
        let torn_bytes = (bytes.len() - whole) as u64;
        let mut next = part.first + text.lines().count() as u64;
        let chain = last_of(&text, part.first);
        if let Some((_, last)) = &chain {
            next = last.sequence + 1;
        }
        let in_order = chain.as_ref().is_some_and(|(_, last)| last.event == Event::Ended);
        let chain = chain.map(|(chain, _)| chain);
        return Ok((Some(Tail { part, length: whole as u64, torn_bytes, chain, next, in_order }), torn));
    }
    Ok((None, torn))
}

/// The end of the chain of a file and its last record, if all its lines verify.
fn last_of(text: &str, first: u64) -> Option<(LineChain, Record)> {
    let mut lines = text.lines();
    let (Record { sequence, event: Event::File(begun), .. }, _) = read(lines.clone().next()?)? else { return None };
    let mut chain = LineChain::from_hash(&begun.previous)?;
    let mut last = chain.follow(lines.next()?).filter(|_| sequence == first)?;
    for line in lines {
        let record = chain.follow(line)?;
        if record.sequence != last.sequence + 1 {
            return None;
        }
        last = record;
    }
    Some((chain, last))
}
