//! The audit log: append-only, one hash chain per organization ([`gateway_proto::audit`]).

use gateway_proto::{
    api::{
        Page,
        platform::{AuditAnchor, AuditEntry, AuditOrder},
    },
    audit::{PLATFORM_CHAIN, hash},
    id::AuditId,
};

use super::{
    Actor, Service, ServiceError, ServiceResult,
    page::{Paging, cut},
    permission::Act,
    validate,
    work::Who,
};
use crate::{
    clock::DAY_SECS,
    storage::{AuditFilter, AuditRow, StorageResult, Transaction},
};

/// Entries that are looked at for the chains to shorten, and entries of each that one transaction removes.
const LOOKED_AT: u32 = 1_000;
const ENTRIES: u32 = 500;

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
        filter: &AuditFilter,
        order: AuditOrder,
        paging: &Paging,
    ) -> ServiceResult<Page<AuditEntry>> {
        actor.may(Act::ReadAudit)?;
        self.log_of(&actor.organization.id.to_string(), filter, order, paging).await
    }

    /// The audit log of the platform, for its operator: relays, tiers, keys, organizations that came and went.
    pub async fn platform_audit_log(
        &self,
        filter: &AuditFilter,
        order: AuditOrder,
        paging: &Paging,
    ) -> ServiceResult<Page<AuditEntry>> {
        self.log_of(PLATFORM_CHAIN, filter, order, paging).await
    }

    async fn log_of(
        &self,
        chain: &str,
        filter: &AuditFilter,
        order: AuditOrder,
        paging: &Paging,
    ) -> ServiceResult<Page<AuditEntry>> {
        validate::moment("since", filter.since)?;
        filter.until.map(|until| validate::moment("until", until)).transpose()?;
        let slice = paging.slice()?;
        let beyond = match slice.after.as_str() {
            "" => 0,
            text => text
                .parse()
                .map_err(|_| ServiceError::Invalid("cursor is not one that this list answered".to_owned()))?,
        };
        let rows = self.storage.read().await?.audit(chain, filter, order, beyond, slice.limit).await?;
        let (rows, next) = cut(rows, &slice, |row| row.entry.sequence.to_string());
        let items = rows.into_iter().map(|row| row.entry).collect();
        Ok(Page { items, next })
    }

    /// Where the audit log of the own organization begins.
    pub async fn audit_anchor(&self, actor: &Actor) -> ServiceResult<AuditAnchor> {
        actor.may(Act::ReadAudit)?;
        self.anchor_of(&actor.organization.id.to_string()).await
    }

    /// Where the audit log of the platform begins.
    pub async fn platform_audit_anchor(&self) -> ServiceResult<AuditAnchor> {
        self.anchor_of(PLATFORM_CHAIN).await
    }

    async fn anchor_of(&self, chain: &str) -> ServiceResult<AuditAnchor> {
        let anchor = self.storage.read().await?.audit_anchor(chain).await?;
        Ok(anchor.unwrap_or(AuditAnchor { sequence: 0, hash: String::new(), removed_at: None }))
    }

    /// Removes some entries that are older than they are kept; whether there may be more. What is left can still be
    /// verified: the removal is an entry itself, and names where the chain begins from now on.
    pub async fn retain_audit(&self) -> ServiceResult<bool> {
        let Some(days) = self.settings.audit_retention_days else { return Ok(false) };
        let before = self.clock.unix_secs().saturating_sub(days * DAY_SECS);
        let chains = self.storage.read().await?.chains_before(before, LOOKED_AT).await?;
        if chains.is_empty() {
            return Ok(false);
        }
        let mut work = self.work(Who::System).await?;
        let mut removed = false;
        for chain in &chains {
            // A time that went back leaves what is old behind what is not: only a beginning is removed.
            let Some(last) = work.audit_before(chain, before, ENTRIES).await?.pop() else { continue };
            let AuditEntry { sequence, hash, .. } = last.entry;
            let record = Record {
                chain,
                at_ms: self.clock.unix_ms(),
                actor: "system".to_owned(),
                act: "audit.retain",
                object: chain.clone(),
                detail: format!("kept for {days} days; removed up to entry {sequence} with hash {hash}"),
                request: String::new(),
            };
            append(work.tx(), record).await?;
            let removed_at = Some(work.now);
            work.remove_audit(chain, &AuditAnchor { sequence, hash, removed_at }).await?;
            removed = true;
        }
        work.commit().await?;
        Ok(removed)
    }
}
