//! Audit logs and their hash chains: how an entry is hashed, and how whoever holds a log verifies it.
//!
//! A gateway's own log of streams, refusals and admin calls: [`record`] (what is written), [`line`](mod@line) (how, and the chain),
//! [`note`] (what the data path says), [`condense`] (floods), [`heads`] (what the control plane keeps of it). The rest of this module is the chain of the control plane's log.
//!
//! `hash = SHA-256(hash of the entry before ‖ for each field: its length as 8 bytes, its UTF-8 bytes)` over the fields
//! chain, sequence, id, at, actor, act, object, detail and, where there is one, request id; numbers in decimal; the first
//! entry follows 32 zero bytes. The chain is the id of the organization, so an organization verifies its own log without
//! seeing anybody else's. Whoever can rewrite the whole storage can rewrite the whole chain: compare with an older export.

pub mod condense;
pub mod heads;
pub mod line;
pub mod note;
pub mod record;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::api::platform::AuditEntry;

/// The chain of what belongs to no organization: what the operator of a platform does.
pub const PLATFORM_CHAIN: &str = "platform";

/// Why a log is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// An entry is missing, repeated or out of order.
    #[error("entry {found} stands where entry {expected} belongs: the log is not complete")]
    Gap {
        /// The sequence that should come.
        expected: u64,
        /// The sequence that came.
        found: u64,
    },
    /// An entry does not have the hash it must have.
    #[error("entry {sequence} ({id}) was changed after it was written, or the one before it was")]
    Changed {
        /// Its position.
        sequence: u64,
        /// Its id.
        id: String,
    },
}

/// The hash an entry must have after the entry with hash `previous` (empty: it is the first). Its own is not looked at.
pub fn hash(chain: &str, previous: &str, entry: &AuditEntry) -> String {
    let previous = HEXLOWER.decode(previous.as_bytes()).unwrap_or_default();
    let previous: [u8; 32] = previous.try_into().unwrap_or_default();
    let mut digest = Sha256::new_with_prefix(previous);
    let mut field = |text: &str| {
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text.as_bytes());
    };
    field(chain);
    field(&entry.sequence.to_string());
    field(&entry.id.to_string());
    field(&entry.at.to_string());
    for text in [&entry.actor, &entry.act, &entry.object, &entry.detail] {
        field(text);
    }
    // Entries from before there were request ids, and those without, have the eight fields only.
    if !entry.request_id.is_empty() {
        field(&entry.request_id);
    }
    HEXLOWER.encode(&digest.finalize())
}

/// Verifies a whole log, oldest entry first; the hash of its newest entry, or an empty text for an empty log.
pub fn verify(chain: &str, entries: &[AuditEntry]) -> Result<String, ChainError> {
    verify_after(chain, 0, "", entries)
}

/// The same for a log whose entries up to position `anchor`, the one with hash `anchor_hash`, were removed.
pub fn verify_after(chain: &str, anchor: u64, anchor_hash: &str, entries: &[AuditEntry]) -> Result<String, ChainError> {
    let mut verifier = Verifier::after(chain, anchor, anchor_hash);
    entries.iter().try_for_each(|entry| verifier.push(entry))?;
    Ok(verifier.head)
}

/// Verifies a log entry by entry, oldest first, however long it is.
#[derive(Debug)]
pub struct Verifier<'a> {
    chain: &'a str,
    /// Position of the entry before the first.
    anchor: u64,
    entries: u64,
    head: String,
}

impl<'a> Verifier<'a> {
    /// For the log of this chain whose entries up to position `anchor`, the one with hash `anchor_hash`, were removed; 0 and
    /// an empty hash: for the whole log.
    pub fn after(chain: &'a str, anchor: u64, anchor_hash: &str) -> Self {
        Self { chain, anchor, entries: 0, head: anchor_hash.to_owned() }
    }

    /// Takes the next entry. After an error nothing is known of those behind it.
    pub fn push(&mut self, entry: &AuditEntry) -> Result<(), ChainError> {
        let expected = self.anchor.saturating_add(self.entries).saturating_add(1);
        if entry.sequence != expected {
            return Err(ChainError::Gap { expected, found: entry.sequence });
        }
        if hash(self.chain, &self.head, entry) != entry.hash {
            return Err(ChainError::Changed { sequence: entry.sequence, id: entry.id.to_string() });
        }
        self.entries += 1;
        self.head.clone_from(&entry.hash);
        Ok(())
    }

    /// How many entries were taken.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The hash of the newest one; empty: there was none.
    pub fn head(&self) -> &str {
        &self.head
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::AuditId;

    fn entry(sequence: u64) -> AuditEntry {
        AuditEntry {
            id: AuditId::new(sequence, [0; 10]),
            sequence,
            at: 7,
            actor: "system".into(),
            act: "grant.expire".into(),
            object: "x".into(),
            detail: String::new(),
            request_id: String::new(),
            hash: String::new(),
        }
    }

    fn log(length: u64) -> Vec<AuditEntry> {
        let mut previous = String::new();
        let chained = (1..=length).map(|sequence| {
            let mut entry = entry(sequence);
            entry.hash = hash("org", &previous, &entry);
            previous.clone_from(&entry.hash);
            entry
        });
        chained.collect()
    }

    #[test]
    fn every_field_and_the_entry_before_count_in_the_hash() {
        let base = hash("org", "", &entry(1));
        let changed = [
            AuditEntry { sequence: 2, ..entry(1) },
            AuditEntry { id: AuditId::new(9, [0; 10]), ..entry(1) },
            AuditEntry { at: 8, ..entry(1) },
            AuditEntry { actor: "s".into(), ..entry(1) },
            AuditEntry { act: "grant.expirex".into(), object: String::new(), ..entry(1) },
            AuditEntry { detail: "d".into(), ..entry(1) },
            AuditEntry { request_id: "r".into(), ..entry(1) },
        ];
        for entry in &changed {
            assert_ne!(hash("org", "", entry), base);
        }
        assert_ne!(hash("other", "", &entry(1)), base);
        assert_ne!(hash("org", &base, &entry(1)), base);
    }

    #[test]
    fn a_log_that_was_changed_cut_or_reordered_is_told_from_a_whole_one() {
        let whole = log(4);
        assert_eq!(verify("org", &whole).unwrap(), whole[3].hash);
        assert_eq!(verify("org", &[]).unwrap(), "");
        let mut changed = whole.clone();
        changed[1].actor = "somebody else".into();
        assert!(matches!(verify("org", &changed), Err(ChainError::Changed { sequence: 2, .. })));
        let mut cut = whole.clone();
        cut.remove(1);
        assert_eq!(verify("org", &cut), Err(ChainError::Gap { expected: 2, found: 3 }));
        let mut swapped = whole.clone();
        swapped.swap(0, 1);
        assert_eq!(verify("org", &swapped), Err(ChainError::Gap { expected: 1, found: 2 }));
        assert!(verify("another", &whole).is_err());
    }

    #[test]
    fn a_log_whose_beginning_was_removed_is_whole_after_its_anchor_and_only_there() {
        let whole = log(5);
        let rest = &whole[2..];
        assert_eq!(verify_after("org", 2, &whole[1].hash, rest).unwrap(), whole[4].hash);
        assert_eq!(verify("org", rest), Err(ChainError::Gap { expected: 1, found: 3 }));
        assert_eq!(verify_after("org", 1, &whole[0].hash, rest), Err(ChainError::Gap { expected: 2, found: 3 }));
        assert!(matches!(verify_after("org", 2, &whole[0].hash, rest), Err(ChainError::Changed { sequence: 3, .. })));
        assert_eq!(verify_after("org", 5, &whole[4].hash, &[]).unwrap(), whole[4].hash);
    }
}
