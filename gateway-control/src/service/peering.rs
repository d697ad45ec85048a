//! Peering requests.

use std::time::Duration;

use gateway_proto::{
    api::{
        Page,
        platform::{CreatePeeringRequest, PeeringRequest},
    },
    id::{AgreementId, OrganizationId, PeeringRequestId},
    peering::{AgreementStatus, PeeringAct, PeeringStatus, Side, in_place, next},
};

use super::{
    Actor, SELF, Service, ServiceError, ServiceResult, Work, bounds,
    page::{Paging, cut},
    permission::Act,
    tiers::Counted,
    validate,
    work::changes,
};
use crate::storage::{AgreementRow, Ahead, PeeringFilter, PeeringRequestRow, Transaction};

/// A peering request or grant that nobody answers for so long expires.
pub(super) const ANSWER_SECS: u64 = 14 * 24 * 3600;
/// Requests without success that one organization may make to another within that time.
const VAIN_REQUESTS: u32 = 5;

impl Service {
    /// Peering requests from and to the own organization.
    pub async fn peering_requests(
        &self,
        actor: &Actor,
        filter: &PeeringFilter,
        paging: &Paging,
    ) -> ServiceResult<Page<PeeringRequest>> {
        actor.may(Act::Read)?;
        let slice = paging.slice()?;
        let mut tx = self.storage.read().await?;
        let now = self.clock.unix_secs();
        let (rows, next) =
            cut(tx.peering_requests(actor.id(), filter, &slice, now).await?, &slice, |row| row.id.to_string());
        tx.read_ahead(Ahead::Agreements(rows.iter().filter_map(|row| row.agreement).collect())).await?;
        tx.read_ahead(Ahead::Organizations(rows.iter().flat_map(|row| [row.from, row.to]).collect())).await?;
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            items.push(self.show_request(&mut *tx, actor.id(), row).await?);
        }
        Ok(Page { items, next })
    }

    /// Asks an organization for an agreement. The own one accepts at once.
    pub async fn create_peering_request(
        &self,
        actor: &Actor,
        body: CreatePeeringRequest,
    ) -> ServiceResult<PeeringRequest> {
        actor.may(Act::RequestPeering)?;
        let message = validate::text("message", &body.message, bounds::MAX_TEXT)?;
        let own = actor.id();
        let mut work = self.work_of(actor).await?;
        let now = work.now;
        let target = work.organization(body.organization_id).await?;
        let agreement = work.agreement_between(own, body.organization_id).await?;
        // An organization that does not want to be found, and that we have nothing to do with, does not exist for us.
        let known = target.filter(|row| row.discoverable || row.id == own || agreement.is_some());
        let target = known.ok_or(ServiceError::NotFound("organization or directory entry"))?;
        if let Some(agreement) = agreement {
            return Err(ServiceError::Conflict(format!("there is an agreement already: {}", agreement.id)));
        }
        if let Some(pending) = work.pending_between(own, target.id, now).await? {
            return Err(ServiceError::Conflict(if pending.from == own {
                format!("your request {} is still waiting for an answer", pending.id)
            } else {
                format!("they asked you already: accept {}", pending.id)
            }));
        }
        if target.id != own {
            work.has_room(own, Counted::Peers).await?;
        }
        // Whoever asks, is refused or takes it back, and asks again, fills the other side's list and log.
        let since = now.saturating_sub(ANSWER_SECS);
        let vain = work.vain_requests(own, target.id, since, VAIN_REQUESTS).await?;
        if vain.len() >= VAIN_REQUESTS as usize
            && let Some(oldest) = vain.last()
        {
            let wait = (oldest + ANSWER_SECS).saturating_sub(now).max(1);
            return Err(ServiceError::RateLimited(Duration::from_secs(wait)));
        }
        let (ms, random) = work.seed();
        let mut row = PeeringRequestRow {
            id: PeeringRequestId::new(ms, random),
            from: own,
            to: target.id,
            message,
            status: PeeringStatus::Pending,
            agreement: None,
            kept_names: None,
            created_at: work.now,
            expires_at: work.now + ANSWER_SECS,
        };
        work.insert_peering_request(&row).await?;
        work.audit(&[own, target.id], "peering_request.create", row.id, target.name).await?;
        if target.id == own {
            work.accept(&mut row, Side::Both).await?;
        }
        let shown = self.show_request(work.tx(), own, row).await?;
        work.commit().await?;
        Ok(shown)
    }

    /// Accepts, declines or withdraws a peering request.
    pub async fn act_on_request(
        &self,
        actor: &Actor,
        id: PeeringRequestId,
        act: PeeringAct,
    ) -> ServiceResult<PeeringRequest> {
        actor.may(if act == PeeringAct::Withdraw { Act::WithdrawPeering } else { Act::AnswerPeering })?;
        let own = actor.id();
        let mut work = self.work_of(actor).await?;
        let row = work.peering_request(id).await?.filter(|row| row.from == own || row.to == own);
        let mut row = row.ok_or(ServiceError::NotFound("peering request"))?;
        let side = match (row.from == own, row.to == own) {
            (true, true) => Side::Both,
            (true, false) => Side::Owner,
            (false, _) => Side::Peer,
        };
        let status = status_at(&row, work.now);
        if actor.is_conditional() {
            actor.check_match(&self.show_request(work.tx(), own, row.clone()).await?)?;
        }
        if in_place(status, act, side) {
            let shown = self.show_request(work.tx(), own, row).await?;
            work.unchanged().await?;
            return Ok(shown);
        }
        row.status = status;
        if act == PeeringAct::Accept {
            work.accept(&mut row, side).await?;
        } else {
            row.status = next(status, act, side)?;
            work.close_request(&mut row).await?;
            let changes = changes(&[("status", &status, &row.status)]);
            work.audit(&[row.from, row.to], &format!("peering_request.{act}"), id, changes).await?;
        }
        let shown = self.show_request(work.tx(), own, row).await?;
        work.commit().await?;
        Ok(shown)
    }

    async fn show_request(
        &self,
        tx: &mut dyn Transaction,
        viewer: OrganizationId,
        row: PeeringRequestRow,
    ) -> ServiceResult<PeeringRequest> {
        let peer = if row.from == viewer { row.to } else { row.from };
        let direction = match (row.from == viewer, row.to == viewer) {
            (true, true) => "self",
            (true, false) => "outgoing",
            (false, _) => "incoming",
        };
        let agreement = match row.agreement {
            Some(id) => tx.agreement(id).await?,
            None => None,
        };
        let peer_name = match (&agreement, &row.kept_names) {
            (Some(agreement), _) => name_in(tx, agreement, peer, viewer).await?,
            (None, Some((from, _))) if row.from == peer => from.clone(),
            (None, Some((_, to))) => to.clone(),
            (None, None) => name_of(tx, peer, viewer).await?,
        };
        Ok(PeeringRequest {
            id: row.id,
            direction: direction.to_owned(),
            peer_id: peer,
            peer_name,
            status: status_at(&row, self.clock.unix_secs()),
            message: row.message,
            agreement_id: row.agreement,
            created_at: row.created_at,
            expires_at: row.expires_at,
        })
    }
}

/// The status as time makes it: a request that is overdue has expired, whether or not it was written down.
fn status_at(row: &PeeringRequestRow, now: u64) -> PeeringStatus {
    if row.status == PeeringStatus::Pending && now >= row.expires_at { PeeringStatus::Expired } else { row.status }
}

/// Whether time ended it, and it is not written down yet.
pub(super) fn is_overdue(row: &PeeringRequestRow, now: u64) -> bool {
    row.status != PeeringStatus::Expired && status_at(row, now) == PeeringStatus::Expired
}

/// The name under which a viewer sees an organization that it has to do with.
pub(super) async fn name_of(
    tx: &mut dyn Transaction,
    organization: OrganizationId,
    viewer: OrganizationId,
) -> ServiceResult<String> {
    if organization == viewer {
        return Ok(SELF.to_owned());
    }
    plain_name(tx, organization).await
}

/// The same for what stands on an agreement. Once that has ended, the two are strangers: what they are called since then
/// is for those to see who may find them.
pub(super) async fn name_in(
    tx: &mut dyn Transaction,
    agreement: &AgreementRow,
    organization: OrganizationId,
    viewer: OrganizationId,
) -> ServiceResult<String> {
    match agreement.kept_name(organization).filter(|_| organization != viewer) {
        Some(name) => Ok(name.to_owned()),
        None => name_of(tx, organization, viewer).await,
    }
}

async fn plain_name(tx: &mut dyn Transaction, organization: OrganizationId) -> ServiceResult<String> {
    Ok(tx.organization(organization).await?.map(|row| row.name).unwrap_or_default())
}

impl Work {
    /// Stores a request that came to nothing: each side is shown to the other under the name it has now from then on.
    pub(super) async fn close_request(&mut self, row: &mut PeeringRequestRow) -> ServiceResult<()> {
        row.kept_names = Some(self.names_now(row.from, row.to).await?);
        Ok(self.update_peering_request(row).await?)
    }

    /// What two organizations are called now.
    pub(super) async fn names_now(
        &mut self,
        one: OrganizationId,
        other: OrganizationId,
    ) -> ServiceResult<(String, String)> {
        Ok((plain_name(self.tx(), one).await?, plain_name(self.tx(), other).await?))
    }

    async fn accept(&mut self, row: &mut PeeringRequestRow, side: Side) -> ServiceResult<()> {
        let before = row.status;
        row.status = next(before, PeeringAct::Accept, side)?;
        if row.from != row.to {
            self.has_room(row.to, Counted::Peers).await?;
            self.has_room(row.from, Counted::Peers).await?;
        }
        let (ms, random) = self.seed();
        let agreement = AgreementRow {
            id: AgreementId::new(ms, random),
            first: row.from,
            second: row.to,
            status: AgreementStatus::Active,
            first_suspends: false,
            second_suspends: false,
            kept_names: None,
            created_at: self.now,
            ended_at: None,
        };
        self.insert_agreement(&agreement).await?;
        row.agreement = Some(agreement.id);
        self.update_peering_request(row).await?;
        let changes = changes(&[("status", &before, &row.status), ("agreement", &"none", &agreement.id)]);
        self.audit(&[row.from, row.to], "peering_request.accept", row.id, changes).await
    }
}
