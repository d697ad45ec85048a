//! The files of the log: one that grows, and full ones with a number.
//!
//! A full file is put aside only once the next one is there, and the numbers move up only as far as there is no gap: an attempt
//! that fails in the middle, and is made again, costs no file.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use gateway_proto::{
    admin::call::{AdminCall, Chain},
    api::local::AdminCalls,
};
use tracing::warn;

/// A file is full at this many bytes: about 20,000 calls.
const MAX_FILE_LEN: u64 = 8 << 20;
/// Full files kept. With the current one 340,000 calls: somebody who calls as fast as
/// [`ConnectionLimiter::calls`](gateway_proto::admin::limiter::ConnectionLimiter::calls) lets him needs hours to push a call out.
const KEPT_FILES: u32 = 16;

#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    length: u64,
    chain: Chain,
    next: u64,
}

impl LogFile {
    /// Opens the current file, and goes on where the newest one ends.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < text.len() {
            file.set_len(whole as u64)?;
            file.seek(SeekFrom::End(0))?;
        }
        let last = last_line(&text[..whole])
            .or_else(|| (1..=KEPT_FILES).find_map(|number| last_line(&std::fs::read(numbered(path, number)).ok()?)));
        let (chain, next) = match last.map(|line| Chain::after(&line)) {
            None => (Chain::default(), 0),
            Some(Ok((chain, call))) => (chain, call.sequence + 1),
            Some(Err(error)) => {
                warn!(path = %path.display(), %error, "the log of admin calls cannot be continued: a new chain begins");
                (Chain::default(), 0)
            }
        };
        Ok(Self { path: path.to_owned(), file, length: whole as u64, chain, next })
    }

    pub(super) fn append(&mut self, mut call: AdminCall) -> io::Result<()> {
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
        let mut fresh_path = self.path.as_os_str().to_owned();
        fresh_path.push(".new");
        // What was left of an attempt before is empty. Only appended to, as every file here: half a line can be cut off.
        let fresh = OpenOptions::new().append(true).create(true).mode(0o600).open(&fresh_path)?;
        // An attempt that failed at the very end has put it aside already.
        if self.path.try_exists()? {
            let gap = (1..KEPT_FILES).find(|number| !numbered(&self.path, *number).exists()).unwrap_or(KEPT_FILES);
            for number in (1..gap).rev() {
                std::fs::rename(numbered(&self.path, number), numbered(&self.path, number + 1))?;
            }
            std::fs::rename(&self.path, numbered(&self.path, 1))?;
        }
        std::fs::rename(&fresh_path, &self.path)?;
        (self.file, self.length) = (fresh, 0);
        Ok(())
    }
}

/// The newest `limit` calls, oldest first, and whether the chain of the files read for them is whole.
pub(super) fn newest(path: &Path, limit: usize) -> io::Result<AdminCalls> {
    let mut texts = vec![std::fs::read_to_string(path)?];
    let mut count = texts[0].lines().count();
    for number in 1..=KEPT_FILES {
        if count >= limit {
            break;
        }
        let text = match std::fs::read_to_string(numbered(path, number)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        };
        count += text.lines().count();
        texts.push(text);
    }
    let mut lines = texts.iter().rev().flat_map(|text| text.lines());
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

fn last_line(text: &[u8]) -> Option<String> {
    String::from_utf8_lossy(text).lines().next_back().map(str::to_owned)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::{super::tests::call, *};

    fn path(directory: &tempfile::TempDir) -> PathBuf {
        directory.path().join("admin-calls.jsonl")
    }

    fn sequences(path: &Path) -> Vec<u64> {
        let calls = newest(path, usize::MAX).unwrap();
        assert!(calls.whole);
        calls.calls.iter().map(|call| call.sequence).collect()
    }

    /// Appends one call to a file that is full.
    fn turn(file: &mut LogFile) -> io::Result<()> {
        file.length = MAX_FILE_LEN;
        file.append(call())
    }

    #[test]
    fn the_chain_goes_on_after_a_crash_in_the_middle_of_a_line_and_over_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(&directory);
        let mut file = LogFile::open(&path).unwrap();
        file.append(call()).unwrap();
        file.append(call()).unwrap();
        drop(file);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], b"{\"hash\":\"torn"].concat()).unwrap();
        let mut file = LogFile::open(&path).unwrap();
        file.append(call()).unwrap();
        turn(&mut file).unwrap();
        assert_eq!(sequences(&path), [0, 1, 2, 3]);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
    }

    #[test]
    fn a_full_file_stays_where_it_is_until_the_next_one_can_be_opened_and_no_older_one_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(&directory);
        let mut file = LogFile::open(&path).unwrap();
        file.append(call()).unwrap();
        for _ in 0..4 {
            turn(&mut file).unwrap();
        }
        let in_the_way = directory.path().join("admin-calls.jsonl.new");
        std::fs::create_dir(&in_the_way).unwrap();
        for _ in 0..30 {
            turn(&mut file).unwrap_err();
        }
        assert_eq!(sequences(&path), [0, 1, 2, 3, 4]);
        std::fs::remove_dir(&in_the_way).unwrap();
        turn(&mut file).unwrap();
        assert_eq!(sequences(&path), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn an_attempt_that_could_not_put_the_full_file_aside_is_made_again_without_a_loss() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(&directory);
        let mut file = LogFile::open(&path).unwrap();
        file.append(call()).unwrap();
        for _ in 0..3 {
            turn(&mut file).unwrap();
        }
        // As a crash in the middle leaves it: the numbers have moved up, the full file has not.
        for number in (1..4).rev() {
            std::fs::rename(numbered(&path, number), numbered(&path, number + 1)).unwrap();
        }
        turn(&mut file).unwrap();
        assert_eq!(sequences(&path), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_start_without_the_current_file_goes_on_after_the_newest_one_there_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(&directory);
        let mut file = LogFile::open(&path).unwrap();
        file.append(call()).unwrap();
        file.append(call()).unwrap();
        std::fs::rename(&path, numbered(&path, 2)).unwrap();
        let mut file = LogFile::open(&path).unwrap();
        file.append(call()).unwrap();
        let calls = newest(&path, 9).unwrap();
        assert_eq!(calls.calls[0].sequence, 2);
    }

    #[test]
    fn the_newest_calls_are_found_across_files_and_the_oldest_file_goes_at_last() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(&directory);
        let mut file = LogFile::open(&path).unwrap();
        file.append(call()).unwrap();
        for _ in 0..u64::from(KEPT_FILES) + 3 {
            turn(&mut file).unwrap();
        }
        assert_eq!(newest(&path, 2).unwrap().calls.len(), 2);
        assert_eq!(sequences(&path), (3..=u64::from(KEPT_FILES) + 3).collect::<Vec<_>>());
        assert!(!numbered(&path, KEPT_FILES + 1).exists());
    }
}
