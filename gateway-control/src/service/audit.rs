//! The audit log: append-only, one hash chain per organization ([`gateway_proto::audit`]).

use gateway_proto::{
    api::{
        Page,
        platform::{AuditEntry, AuditOrder},
    },
    audit::hash,
    id::AuditId,
};

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
    pub(super) request: String,
}

/// Appends an entry to its chain.
pub(super) async fn append(tx: &mut dyn Transaction, record: Record<'_>) -> StorageResult<()> {
    let last = tx.last_audit(record.chain).await?;
    let mut entry = AuditEntry {
        id: AuditId::new(record.at_ms, gateway_net::random()),
        sequence: last.as_ref().map_or(0, |last| last.entry.sequence) + 1,
        at: record.at_ms / 1000,
        actor: record.actor,
        act: record.act.to_owned(),
        object: record.object,
        detail: record.detail,
        request_id: record.request,
        hash: String::new(),
    };
    entry.hash = hash(record.chain, last.as_ref().map_or("", |last| &last.entry.hash), &entry);
    tx.append_audit(&AuditRow { chain: record.chain.to_owned(), entry }).await
}

impl Service {
    /// The audit log of the own organization.
    pub async fn audit_log(
        &self,
        actor: &Actor,
        paging: &Paging,
        order: AuditOrder,
    ) -> ServiceResult<Page<AuditEntry>> {
        actor.may(Act::ReadAudit)?;
        let slice = paging.slice()?;
        let beyond = match slice.after.as_str() {
            "" => 0,
            text => text
                .parse()
                .map_err(|_| ServiceError::Invalid("cursor is not one that this list answered".to_owned()))?,
        };
        let chain = actor.organization.id.to_string();
        let mut reading = self.storage.read().await?;
        let rows = match order {
            AuditOrder::Newest => reading.audit(&chain, beyond, slice.limit).await?,
            AuditOrder::Oldest => reading.audit_after(&chain, beyond, slice.limit).await?,
        };
        let (rows, next) = cut(rows, &slice, |row| row.entry.sequence.to_string());
        let items = rows.into_iter().map(|row| row.entry).collect();
        Ok(Page { items, next })
    }
}
