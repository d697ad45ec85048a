//! The heads of the audit logs of gateways: what gateways report, what contradicts it, and who acknowledges that
//! (rules: [`gateway_proto::audit::heads`]).
//!
//! A head that follows from the one before costs nothing now: it waits with the watchers and is entered with those of others, once
//! in a round. One that contradicts what is known is entered at once, in its gateway's turn to write.

#[cfg(test)]
mod tests;

use gateway_proto::{
    api::{
        Page,
        platform::{AcknowledgeAudit, GatewayAudit, KeptHead},
    },
    audit::{
        heads::{HeadBook, HeadFault, HeadOutcome, MAX_KEPT, ReportedHead},
        line::Head,
    },
    id::{OrganizationId, ServerId},
    identity::GatewayPublicKey,
};

use super::{
    Actor, GatewayCaller, Service, ServiceError, ServiceResult, Work, bounds,
    desk::Note,
    page::{Paging, cut},
    permission::Act,
    servers::own_server,
    validate,
    work::Who,
};
use crate::{
    clock::DAY_SECS,
    storage::{KeptHeadRow, ServerRow},
    watchers::{GatewayHead, TakenHeads},
};

/// Heads of the history are kept for so long where entries of the audit log are kept for ever.
const KEPT_DAYS: u64 = 400;
/// Heads entered in one transaction, so that people's changes never wait for long.
const AT_ONCE: usize = 100;

/// What a watch needs to know of its gateway's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownAudit {
    /// What the gateway must hold.
    pub asked: Option<ReportedHead>,
    /// The newest head that it reported.
    pub newest: Option<Head>,
    /// An alarm stands.
    pub is_alarmed: bool,
}

impl Service {
    /// What is known of the log of a gateway.
    pub async fn known_audit(&self, caller: &GatewayCaller) -> ServiceResult<KnownAudit> {
        // What an older watch of it left behind here comes first, with what others note: a watch waits for it.
        let mut left = self.watchers.take_head(caller.server, caller.key);
        if let Some(head) = left.one() {
            self.note(caller, Note::Head(head)).await?;
            left.heads.clear();
        }
        let book = self.storage.read_for_gateways().await?.head_book(caller.server).await?;
        Ok(KnownAudit {
            asked: book.as_ref().and_then(|book| book.asked_of(caller.key)),
            newest: book.as_ref().filter(|book| book.gateway == caller.key).map(|book| book.newest.head()),
            is_alarmed: book.is_some_and(|book| book.alarm.is_some()),
        })
    }

    /// Enters a head at once; `missing`: what the gateway was asked for and says that it does not hold. What was raised.
    pub async fn gateway_audit(
        &self,
        caller: &GatewayCaller,
        head: ReportedHead,
        missing: Option<ReportedHead>,
    ) -> ServiceResult<HeadOutcome> {
        let Some((mut work, server)) = self.work_of_gateway(caller).await? else { return Ok(HeadOutcome::default()) };
        let mut outcome = HeadOutcome::default();
        // What it reported before on this watch may be what it contradicts.
        let mut before = self.watchers.take_head(server.id, caller.key);
        if let Some(before) = before.one() {
            work.enter_head(server.id, caller.key, before, false).await?;
        }
        if let Some(missing) = missing
            && let Some(mut book) = work.head_book(server.id).await?
        {
            let now = work.now;
            outcome = book.handle_missing(caller.key, missing, now);
            work.settle(&server, &book, outcome).await?;
        }
        let entered = work.enter_head(server.id, caller.key, head, false).await?;
        work.commit().await?;
        before.heads.clear();
        Ok(if outcome.is_raised { outcome } else { entered })
    }

    /// Enters the heads that gateways reported here since the last round. One that cannot be entered waits for the next round, and
    /// holds up no other.
    pub async fn enter_heads(&self) -> ServiceResult<()> {
        let mut passed_over = self.watchers.take_heads(0);
        loop {
            let mut taken = self.watchers.take_heads(AT_ONCE);
            if taken.heads.is_empty() {
                return Ok(());
            }
            match self.enter_all(&taken.heads).await {
                Ok(()) => taken.heads.clear(),
                Err(error @ (ServiceError::Unavailable(_) | ServiceError::Busy)) => return Err(error),
                Err(_) => self.enter_each(&mut taken, &mut passed_over).await?,
            }
        }
    }

    async fn enter_each(&self, taken: &mut TakenHeads, passed_over: &mut TakenHeads) -> ServiceResult<()> {
        while let Some(one) = taken.heads.last() {
            let entered = self.enter_all(std::slice::from_ref(one)).await;
            match entered {
                Ok(()) => {
                    taken.heads.pop();
                }
                Err(error @ (ServiceError::Unavailable(_) | ServiceError::Busy)) => return Err(error),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(server = %one.0, error, "the head of an audit log cannot be entered");
                    passed_over.heads.extend(taken.heads.pop());
                }
            }
        }
        Ok(())
    }

    async fn enter_all(&self, heads: &[(ServerId, GatewayHead)]) -> ServiceResult<()> {
        let mut work = self.work(Who::System).await?;
        for (server, (gateway, head)) in heads {
            work.told_by(*server);
            work.enter_head(*server, *gateway, head.clone(), true).await?;
        }
        work.commit().await
    }

    /// What is known of the audit log of an own server's gateway.
    pub async fn server_audit(&self, actor: &Actor, id: ServerId) -> ServiceResult<GatewayAudit> {
        actor.may(Act::ReadAudit)?;
        let mut tx = self.storage.read().await?;
        let server = own_server(&mut *tx, actor.id(), id).await?;
        Ok(show(tx.head_book(server.id).await?))
    }

    /// The history of its heads, newest first.
    pub async fn server_audit_heads(
        &self,
        actor: &Actor,
        id: ServerId,
        paging: &Paging,
    ) -> ServiceResult<Page<KeptHead>> {
        actor.may(Act::ReadAudit)?;
        let slice = paging.slice()?;
        let before = match slice.after.as_str() {
            "" => u64::MAX,
            text => text
                .parse()
                .map_err(|_| ServiceError::Invalid("cursor is not one that this list answered".to_owned()))?,
        };
        let mut tx = self.storage.read().await?;
        let server = own_server(&mut *tx, actor.id(), id).await?;
        let series = tx.head_book(server.id).await?.map(|book| (book.gateway, book.series_from));
        let rows = tx.kept_heads(server.id, before, slice.limit).await?;
        let (rows, next) = cut(rows, &slice, |row| row.entry.to_string());
        let items = rows.into_iter().map(|row| KeptHead {
            entry: row.entry,
            gateway: row.gateway,
            current: series.is_some_and(|(gateway, from)| row.gateway == gateway && row.entry >= from),
            head: row.head,
        });
        Ok(Page { items: items.collect(), next })
    }

    /// Acknowledges that the log is not the one that was reported: from now on it is compared with what was reported since.
    pub async fn acknowledge_audit(
        &self,
        actor: &Actor,
        id: ServerId,
        body: AcknowledgeAudit,
    ) -> ServiceResult<GatewayAudit> {
        actor.may(Act::ManageServers)?;
        actor.in_person()?;
        let note = validate::single_line("note", &body.note, bounds::MAX_NOTE)?;
        let mut work = self.work_of(actor).await?;
        let server = own_server(work.tx(), actor.id(), id).await?;
        let mut book = work.head_book(server.id).await?;
        if actor.is_conditional() {
            actor.check_match(&show(book.clone()))?;
        }
        let alarm = book.as_mut().and_then(HeadBook::acknowledge);
        let (Some(alarm), Some(book)) = (alarm, &book) else {
            return Err(ServiceError::Conflict("there is no alarm about the audit log of this server".to_owned()));
        };
        work.put_head_book(server.id, book).await?;
        work.set_audit_alarm(server.id, false).await?;
        let known = alarm.known.head();
        let why = if note.is_empty() { String::new() } else { format!(": {note}") };
        let detail = format!("{}, record {}:{}{why}", alarm.fault.code(), known.sequence, known.hash);
        work.audit(&[server.organization], "gateway.audit_acknowledge", server.id, detail).await?;
        work.commit().await?;
        Ok(show(Some(book.clone())))
    }
}

impl Work {
    /// Enters what a gateway reported, if it is still the one of its server.
    pub(super) async fn enter_head(
        &mut self,
        server: ServerId,
        gateway: GatewayPublicKey,
        head: ReportedHead,
        late: bool,
    ) -> ServiceResult<HeadOutcome> {
        let Some(row) = self.server(server).await?.filter(|row| row.gateway == Some(gateway)) else {
            return Ok(HeadOutcome::default());
        };
        let (book, outcome) = match self.head_book(server).await? {
            Some(mut book) => {
                let outcome = book.handle_head(gateway, head, late);
                (book, outcome)
            }
            None => {
                let outcome = HeadOutcome { is_news: true, keeps: true, ..HeadOutcome::default() };
                (HeadBook::new(gateway, head), outcome)
            }
        };
        self.settle(&row, &book, outcome).await?;
        Ok(outcome)
    }

    /// Writes down what became of a report.
    async fn settle(&mut self, server: &ServerRow, book: &HeadBook, outcome: HeadOutcome) -> ServiceResult<()> {
        if !outcome.is_news {
            return Ok(());
        }
        self.put_head_book(server.id, book).await?;
        if outcome.keeps {
            let (entry, gateway, head) = (book.entries, book.gateway, book.newest.clone());
            self.insert_kept_head(&KeptHeadRow { server: server.id, entry, gateway, head }, MAX_KEPT).await?;
        }
        if outcome.is_raised {
            self.set_audit_alarm(server.id, true).await?;
        }
        if let Some(fault) = outcome.tells {
            self.tell_fault(server.organization, server.id, book, fault).await?;
        }
        Ok(())
    }

    async fn tell_fault(
        &mut self,
        organization: OrganizationId,
        server: ServerId,
        book: &HeadBook,
        fault: HeadFault,
    ) -> ServiceResult<()> {
        let Some(alarm) = &book.alarm else { return Ok(()) };
        let known = alarm.known.head();
        let found = alarm.found.as_ref().map(|found| format!(", found {}:{}", found.sequence, found.hash));
        let detail = format!(
            "{}: {}; reported {}:{}{}; {} times",
            fault.code(),
            fault.what(),
            known.sequence,
            known.hash,
            found.unwrap_or_default(),
            alarm.times
        );
        tracing::warn!(%server, fault = fault.code(), known = known.sequence, "the audit log of a gateway is not what it was");
        self.audit(&[organization], "gateway.audit_differs", server, detail).await
    }

    /// Removes heads of the history that are older than they are kept.
    pub(super) async fn forget_heads(&mut self) -> ServiceResult<()> {
        let days = self.service().settings.audit_retention_days.unwrap_or(KEPT_DAYS);
        let before = self.now.saturating_sub(days * DAY_SECS);
        Ok(self.purge_kept_heads(before).await?)
    }
}

fn show(book: Option<HeadBook>) -> GatewayAudit {
    match book {
        Some(HeadBook { gateway, newest, alarm, .. }) => {
            GatewayAudit { gateway: Some(gateway), newest: Some(newest), alarm }
        }
        None => GatewayAudit { gateway: None, newest: None, alarm: None },
    }
}
