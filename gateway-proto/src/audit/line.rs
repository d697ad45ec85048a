//! The lines of a gateway's audit log, the chain over them, and how whoever holds the files verifies them.
//!
//! One line of JSON a record: `{"hash":"<hex>","record":{…}}`. The hash covers the record's bytes and the hash of the line
//! before, so a line that is changed, removed, put in or put elsewhere breaks the chain. The first record of every file is
//! [`Event::File`] with the hash of the line before it, so the chain goes on over files, and what is left verifies after the
//! oldest files were removed. Their removal is a record too ([`Event::Removed`]): a beginning that is gone without one was
//! removed by somebody else. A tail that is cut off shows against a [`Head`] known from elsewhere: the running daemon's, one
//! that its log told, an export.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::record::{Event, Record};

const CONTEXT: &[u8] = b"gateway/audit-line/1\0";
const PREFIX: &str = "{\"hash\":\"";
const MIDDLE: &str = "\",\"record\":";

/// The end of a chain of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LineChain {
    last: [u8; 32],
}

/// The newest line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its sequence.
    pub sequence: u64,
    /// Its hash, 64 hex digits.
    pub hash: String,
}

/// Why lines are not a log as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Not a line of this form.
    #[error("after record {after} stands a line that is no record of the audit log")]
    Malformed {
        /// The sequence of the last good line, or of the one that should come first.
        after: u64,
    },
    /// The hash is another one.
    #[error("record {sequence} was changed, or lines before it were")]
    Changed {
        /// The sequence it claims.
        sequence: u64,
    },
    /// A record is missing, repeated or out of order.
    #[error("record {found} stands where record {expected} belongs: lines were removed, repeated or put elsewhere")]
    Gap {
        /// The sequence that should come.
        expected: u64,
        /// The sequence that came.
        found: u64,
    },
    /// The log does not begin with the head of a file.
    #[error("the log begins in the middle of a file, with record {sequence}")]
    Beginning {
        /// The first sequence.
        sequence: u64,
    },
    /// The beginning is gone, and no record says that it was removed.
    #[error("the log begins with record {first}, and no record says that those before it were removed")]
    Beheaded {
        /// The first sequence that is there.
        first: u64,
    },
    /// The daemon could not go on after what it found at a start.
    #[error("with record {sequence} a new chain begins: what was there before did not verify when the daemon started")]
    NewChain {
        /// Its first sequence.
        sequence: u64,
    },
    /// A record that is known from elsewhere says something else now.
    #[error("record {sequence} is not the one that is known: the log was written anew")]
    Rewritten {
        /// Its sequence.
        sequence: u64,
    },
    /// Records up to a known head are not there any more.
    #[error("the log ends with record {last}, but record {known} was written: its newest lines were removed")]
    CutOff {
        /// The newest sequence that is there.
        last: u64,
        /// The newest that is known.
        known: u64,
    },
}

impl LineChain {
    /// The chain that ends with this hash, 64 hex digits.
    pub fn from_hash(hash: &str) -> Option<Self> {
        let last = HEXLOWER.decode(hash.as_bytes()).ok()?.try_into().ok()?;
        Some(Self { last })
    }

    /// The hash of the last line, 64 hex digits.
    pub fn hash(&self) -> String {
        HEXLOWER.encode(&self.last)
    }

    /// Appends the line of a record, with its line break; it is the new end.
    pub fn append(&mut self, record: &Record, text: &mut String) {
        let record = serde_json::to_string(record).expect("plain fields serialize");
        self.last = self.next(record.as_bytes());
        text.push_str(PREFIX);
        HEXLOWER.encode_append(&self.last, text);
        text.push_str(MIDDLE);
        text.push_str(&record);
        text.push_str("}\n");
    }

    /// The record of a line that continues the chain; the line is the new end. None: it does not, or is no line.
    pub fn follow(&mut self, line: &str) -> Option<Record> {
        let (hash, record) = split(line)?;
        if self.next(record.as_bytes()) != hash {
            return None;
        }
        let record = serde_json::from_str(record).ok()?;
        self.last = hash;
        Some(record)
    }

    fn next(&self, record: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(CONTEXT).chain_update(self.last).chain_update(record).finalize().into()
    }
}

/// The record of a line and the line's hash, whether it continues anything or not.
pub fn read(line: &str) -> Option<(Record, String)> {
    let (hash, record) = split(line)?;
    Some((serde_json::from_str(record).ok()?, HEXLOWER.encode(&hash)))
}

fn split(line: &str) -> Option<([u8; 32], &str)> {
    let (hash, rest) = line.strip_prefix(PREFIX)?.split_at_checked(64)?;
    let record = rest.strip_prefix(MIDDLE)?.strip_suffix('}')?;
    let hash = HEXLOWER.decode(hash.as_bytes()).ok()?.try_into().ok()?;
    Some((hash, record))
}

/// Verifies a log line by line, oldest first, however long it is.
#[derive(Debug, Default)]
pub struct LineVerifier {
    /// Heads known from elsewhere: hashes by sequence.
    known: BTreeMap<u64, String>,
    contradicting: Option<u64>,
    chain: LineChain,
    first: Option<u64>,
    next: u64,
    removal_explained: bool,
    missing: u64,
    unclean_starts: u64,
}

/// A log that is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Records that were verified.
    pub records: u64,
    /// Sequence of the first of them.
    pub first: u64,
    /// The newest; none: there are no records.
    pub head: Option<Head>,
    /// Records that could not be written when they happened, as the log says itself.
    pub missing: u64,
    /// Starts of the daemon after a run that did not stop in order.
    pub unclean_starts: u64,
}

impl LineVerifier {
    /// For a log that must hold, or have removed when their time was over, records known from elsewhere.
    pub fn knowing(known: impl IntoIterator<Item = Head>) -> Self {
        let mut verifier = Self::default();
        for Head { sequence, hash } in known {
            if verifier.known.insert(sequence, hash.clone()).is_some_and(|other| other != hash) {
                verifier.contradicting = Some(sequence);
            }
        }
        verifier
    }

    /// Takes the next line. After an error nothing is known of those behind it.
    pub fn push(&mut self, line: &str) -> Result<Record, LineError> {
        let malformed = LineError::Malformed { after: self.next.saturating_sub(1) };
        let Some((claimed, _)) = read(line) else { return Err(malformed) };
        match (self.first, &claimed.event) {
            (Some(_), _) if claimed.sequence != self.next => {
                return Err(LineError::Gap { expected: self.next, found: claimed.sequence });
            }
            (Some(_), Event::File(begun)) if begun.previous != self.chain.hash() => {
                let sequence = claimed.sequence;
                let is_new = begun.previous == LineChain::default().hash();
                return Err(if is_new { LineError::NewChain { sequence } } else { LineError::Changed { sequence } });
            }
            (Some(_), _) => {}
            (None, Event::File(begun)) => {
                self.chain = LineChain::from_hash(&begun.previous).ok_or(malformed)?;
                self.first = Some(claimed.sequence);
            }
            (None, _) => return Err(LineError::Beginning { sequence: claimed.sequence }),
        }
        let record = self.chain.follow(line).ok_or(LineError::Changed { sequence: claimed.sequence })?;
        self.next = record.sequence.saturating_add(1);
        let is_other = |hash: &String| *hash != self.chain.hash();
        if self.contradicting == Some(record.sequence) || self.known.get(&record.sequence).is_some_and(is_other) {
            return Err(LineError::Rewritten { sequence: record.sequence });
        }
        match &record.event {
            Event::Removed(removed) => {
                self.removal_explained |= self.first.is_some_and(|first| removed.through.saturating_add(1) == first);
            }
            Event::Gap(gap) => self.missing = self.missing.saturating_add(gap.too_fast).saturating_add(gap.unwritten),
            Event::Begun(begun) => self.unclean_starts += u64::from(!begun.in_order),
            Event::File(_)
            | Event::Ended
            | Event::StreamOpened(_)
            | Event::StreamEnded(_)
            | Event::Streams(_)
            | Event::StreamRefused(_)
            | Event::TunnelRefused(_)
            | Event::SignalRefused(_)
            | Event::AdminCall(_) => {}
        }
        Ok(record)
    }

    /// The newest line so far.
    pub fn head(&self) -> Option<Head> {
        self.first.map(|_| Head { sequence: self.next - 1, hash: self.chain.hash() })
    }

    /// The log is at its end.
    pub fn finish(self) -> Result<Verified, LineError> {
        let head = self.head();
        let last = head.as_ref().map_or(0, |head| head.sequence);
        if let Some((known, _)) = self.known.last_key_value()
            && (head.is_none() || last < *known)
        {
            return Err(LineError::CutOff { last, known: *known });
        }
        let first = self.first.unwrap_or(0);
        if first > 0 && !self.removal_explained {
            return Err(LineError::Beheaded { first });
        }
        Ok(Verified {
            records: self.next - first,
            first,
            head,
            missing: self.missing,
            unclean_starts: self.unclean_starts,
        })
    }
}

#[cfg(test)]
mod tests;
