//! The audit log: append-only, one hash chain per organization.
//!
//! `hash = SHA-256(hash of the entry before ‖ for each field: its length as 8 bytes, its UTF-8 bytes)` over the fields
//! chain, sequence, id, at, actor, act, object, detail; numbers in decimal; the first entry follows 32 zero bytes. An
//! organization can verify its own chain without seeing anybody else's.

use data_encoding::HEXLOWER;
use gateway_proto::{
    api::{Page, platform::AuditEntry},
    id::AuditId,
};
use sha2::{Digest, Sha256};

use super::{
    Actor, Service, ServiceError, ServiceResult,
    page::{Paging, cut},
    permission::Act,
};
use crate::storage::{AuditRow, StorageResult, Transaction};

/// The chain of what belongs to no organization.
pub const PLATFORM_CHAIN: &str = "platform";

/// An entry to be appended.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) chain: &'a str,
    pub(super) at_ms: u64,
    pub(super) actor: String,
    pub(super) act: &'a str,
    pub(super) object: String,
    pub(super) detail: String,
}

/// Appends an entry to its chain.
pub(super) async fn append(tx: &mut dyn Transaction, record: Record<'_>) -> StorageResult<()> {
    let last = tx.last_audit(record.chain).await?;
    let mut row = AuditRow {
        chain: record.chain.to_owned(),
        sequence: last.as_ref().map_or(0, |last| last.sequence) + 1,
        id: AuditId::new(record.at_ms, gateway_net::random()),
        at: record.at_ms / 1000,
        actor: record.actor,
        act: record.act.to_owned(),
        object: record.object,
        detail: record.detail,
        hash: String::new(),
    };
    row.hash = hash(last.as_ref().map_or("", |last| &last.hash), &row);
    tx.append_audit(&row).await
}

/// The hash an entry must have after the entry with hash `previous` (empty: it is the first).
pub fn hash(previous: &str, row: &AuditRow) -> String {
    let previous = HEXLOWER.decode(previous.as_bytes()).unwrap_or_default();
    let previous: [u8; 32] = previous.try_into().unwrap_or_default();
    let mut digest = Sha256::new_with_prefix(previous);
    let (sequence, id, at) = (row.sequence.to_string(), row.id.to_string(), row.at.to_string());
    for field in [&row.chain, &sequence, &id, &at, &row.actor, &row.act, &row.object, &row.detail] {
        digest.update((field.len() as u64).to_be_bytes());
        digest.update(field.as_bytes());
    }
    HEXLOWER.encode(&digest.finalize())
}

impl Service {
    /// The audit log of the own organization, newest first.
    pub async fn audit_log(&self, actor: &Actor, paging: &Paging) -> ServiceResult<Page<AuditEntry>> {
        actor.may(Act::ReadAudit)?;
        let slice = paging.slice()?;
        let before = match slice.after.as_str() {
            "" => 0,
            text => text
                .parse()
                .map_err(|_| ServiceError::Invalid("cursor is not one that this list answered".to_owned()))?,
        };
        let chain = actor.organization.id.to_string();
        let rows = self.storage.read().await?.audit(&chain, before, slice.limit).await?;
        let (rows, next) = cut(rows, &slice, |row| row.sequence.to_string());
        let items = rows
            .into_iter()
            .map(|row| AuditEntry {
                id: row.id,
                sequence: row.sequence,
                at: row.at,
                actor: row.actor,
                act: row.act,
                object: row.object,
                detail: row.detail,
                hash: row.hash,
            })
            .collect();
        Ok(Page { items, next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> AuditRow {
        AuditRow {
            chain: "platform".into(),
            sequence: 1,
            id: AuditId::new(0, [0; 10]),
            at: 7,
            actor: "system".into(),
            act: "grant.expire".into(),
            object: "x".into(),
            detail: String::new(),
            hash: String::new(),
        }
    }

    #[test]
    fn every_field_and_the_entry_before_count_in_the_hash() {
        let base = hash("", &row());
        let changed = [
            AuditRow { chain: "other".into(), ..row() },
            AuditRow { sequence: 2, ..row() },
            AuditRow { at: 8, ..row() },
            AuditRow { actor: "s".into(), ..row() },
            AuditRow { act: "grant.expirex".into(), object: String::new(), ..row() },
            AuditRow { detail: "d".into(), ..row() },
        ];
        for row in &changed {
            assert_ne!(hash("", row), base);
        }
        assert_ne!(hash(&base, &row()), base);
    }
}
