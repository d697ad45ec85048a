//! Reads the log for people and verifiers, beside the writer.

use std::{collections::VecDeque, io, path::Path};

use gateway_proto::{
    api::local::{AuditHeld, AuditLine, AuditNewest},
    audit::{
        line::{Head, LineChain, read},
        record::{Event, Record},
    },
};

use super::files::{Part, parts};

/// Records shown at once, at most.
const MAX_NEWEST: usize = 10_000;

/// See [`AuditLog::newest`](super::AuditLog::newest). Reads from the newest file back until there are enough.
pub(super) fn newest(dir: &Path, limit: usize, act: &str) -> io::Result<AuditNewest> {
    let limit = limit.min(MAX_NEWEST);
    let (mut found, mut whole) = (VecDeque::new(), true);
    for part in parts(dir)?.iter().rev() {
        if found.len() >= limit {
            break;
        }
        let Some(text) = text_of(part)? else { continue };
        let mut chain = None;
        let mut of_this = Vec::new();
        for line in text.lines() {
            let Some((record, hash)) = read(line) else {
                whole = false;
                continue;
            };
            let first =
                if let Event::File(begun) = &record.event { LineChain::from_hash(&begun.previous) } else { None };
            let follows = chain.or(first).is_some_and(|mut before: LineChain| {
                let follows = before.follow(line).is_some();
                chain = Some(before);
                follows
            });
            if !follows {
                whole = false;
                chain = LineChain::from_hash(&hash);
            }
            if record.event.act().starts_with(act) {
                of_this.push(AuditLine { hash, record });
            }
        }
        let room = limit - found.len();
        for line in of_this.into_iter().rev().take(room) {
            found.push_front(line);
        }
    }
    Ok(AuditNewest { lines: found.into(), whole })
}

/// See [`AuditLog::lines_from`](super::AuditLog::lines_from).
pub(super) fn lines_from(dir: &Path, sequence: u64) -> io::Result<Vec<u8>> {
    let parts = parts(dir)?;
    let holding = parts.iter().rposition(|part| part.first <= sequence).unwrap_or(0);
    for part in &parts[holding.min(parts.len())..] {
        let Some(text) = text_of(part)? else { continue };
        // What cannot be read is handed on: whoever verifies must see it.
        let is_before =
            |line: &&str| read(line.trim_end_matches('\n')).is_some_and(|(record, _)| record.sequence < sequence);
        let before: usize = text.split_inclusive('\n').take_while(is_before).map(str::len).sum();
        if before < text.len() {
            return Ok(text.as_bytes()[before..].to_vec());
        }
    }
    Ok(Vec::new())
}

/// See [`AuditLog::compare`](super::AuditLog::compare). A hash commits to everything before it: of the file that should hold the
/// record, every line up to it has to lead to it, and from there every line to the newest. Whether the files before that one
/// are whole is for a verifier to say.
pub(super) fn held(dir: &Path, asked: &Head) -> io::Result<AuditHeld> {
    let parts = parts(dir)?;
    let Some(holding) = parts.iter().rposition(|part| part.first <= asked.sequence) else {
        return removal(&parts, asked.sequence);
    };
    let (mut chain, mut is_found): (Option<LineChain>, bool) = (None, false);
    for part in &parts[holding..] {
        // The oldest files are removed first.
        let Some(text) = text_of(part)? else { return Ok(AuditHeld::Removed) };
        for line in text.lines() {
            let Some(mut after) = chain.or_else(|| before(line)) else { return Ok(AuditHeld::Changed) };
            let Some(record) = after.follow(line) else { return Ok(AuditHeld::Changed) };
            if record.sequence == asked.sequence {
                if after.hash() != asked.hash {
                    return Ok(AuditHeld::Changed);
                }
                is_found = true;
            }
            chain = Some(after);
        }
    }
    Ok(if is_found { AuditHeld::Held } else { AuditHeld::CutOff })
}

/// The chain that the first line of a file goes on with.
fn before(line: &str) -> Option<LineChain> {
    match read(line)? {
        (Record { event: Event::File(begun), .. }, _) => LineChain::from_hash(&begun.previous),
        _ => None,
    }
}

/// No file goes back that far: whether a record says that they were removed in order. It is in one of the newest files.
fn removal(parts: &[Part], sequence: u64) -> io::Result<AuditHeld> {
    let Some(first) = parts.first().map(|part| part.first) else { return Ok(AuditHeld::CutOff) };
    for part in parts.iter().rev() {
        let Some(text) = text_of(part)? else { continue };
        for line in text.lines().rev().filter(|line| line.contains("\"log.remove\"")) {
            if let Some((Record { event: Event::Removed(removed), .. }, _)) = read(line) {
                let is_told = removed.through >= sequence && removed.through.saturating_add(1) >= first;
                return Ok(if is_told { AuditHeld::Removed } else { AuditHeld::Changed });
            }
        }
    }
    Ok(AuditHeld::Changed)
}

/// The whole lines of a file; none: it was removed meanwhile.
fn text_of(part: &Part) -> io::Result<Option<String>> {
    let bytes = match std::fs::read(&part.path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    Ok(Some(String::from_utf8_lossy(&bytes[..whole]).into_owned()))
}
