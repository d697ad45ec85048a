//! Agreements: each side holds its own suspension, either side ends it.

use gateway_proto::{
    api::{Page, platform::Agreement},
    id::{AgreementId, OrganizationId},
    peering::{AgreementAct, AgreementStatus, GrantAct, Side, in_place, next},
};

use super::{
    Actor, Service, ServiceError, ServiceResult, Work,
    page::{Paging, cut},
    peering::name_in,
    permission::Act,
    work::changes,
};
use crate::storage::{AgreementRow, Ahead, Transaction};

/// What a user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgreementChange {
    /// Put the own suspension on.
    Suspend,
    /// Lift the own suspension.
    Resume,
    /// End it for good.
    End,
}

impl Service {
    /// Agreements of the own organization.
    pub async fn agreements(
        &self,
        actor: &Actor,
        status: Option<AgreementStatus>,
        paging: &Paging,
    ) -> ServiceResult<Page<Agreement>> {
        actor.may(Act::Read)?;
        let slice = paging.slice()?;
        let mut tx = self.storage.read().await?;
        let (rows, next) = cut(tx.agreements(actor.id(), status, &slice).await?, &slice, |row| row.id.to_string());
        tx.read_ahead(Ahead::Organizations(rows.iter().map(|row| row.other(actor.id())).collect())).await?;
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            items.push(show(&mut *tx, actor.id(), row).await?);
        }
        Ok(Page { items, next })
    }

    /// One agreement.
    pub async fn agreement(&self, actor: &Actor, id: AgreementId) -> ServiceResult<Agreement> {
        actor.may(Act::Read)?;
        let mut tx = self.storage.read().await?;
        let row = own_agreement(&mut *tx, actor.id(), id).await?;
        show(&mut *tx, actor.id(), row).await
    }

    /// Suspends, resumes or ends an agreement. Its end revokes its grants and terminates their connections.
    pub async fn change_agreement(
        &self,
        actor: &Actor,
        id: AgreementId,
        change: AgreementChange,
    ) -> ServiceResult<Agreement> {
        actor.may(Act::ChangeAgreement)?;
        let own = actor.id();
        let mut work = self.work_of(actor).await?;
        let mut row = own_agreement(work.tx(), own, id).await?;
        if actor.is_conditional() {
            actor.check_match(&show(work.tx(), own, row.clone()).await?)?;
        }
        let before = row.clone();
        let side = side(&row, own);
        match change {
            AgreementChange::Suspend => {
                row.status = next(row.status, AgreementAct::Suspend, side)?;
                *suspension(&mut row, own) = true;
            }
            AgreementChange::Resume if row.status == AgreementStatus::Active => {}
            AgreementChange::Resume => {
                *suspension(&mut row, own) = false;
                let act = AgreementAct::resume(row.first_suspends || row.second_suspends);
                row.status = next(row.status, act, side)?;
            }
            AgreementChange::End if in_place(row.status, AgreementAct::End, side) => {}
            AgreementChange::End => {
                row.status = next(row.status, AgreementAct::End, side)?;
                row.ended_at = Some(work.now);
            }
        }
        if row == before {
            let shown = show(work.tx(), own, row).await?;
            work.unchanged().await?;
            return Ok(shown);
        }
        if change != AgreementChange::End {
            self.may_disturb(actor, id)?;
        }
        if row.ended_at.is_some() {
            work.end_agreement(&mut row).await?;
        } else {
            work.update_agreement(&row).await?;
            for server in work.servers_of_agreement(id).await? {
                work.touch(server);
            }
            if change == AgreementChange::Suspend {
                work.cuts();
            }
        }
        let act = match change {
            AgreementChange::Suspend => "agreement.suspend",
            AgreementChange::Resume => "agreement.resume",
            AgreementChange::End => "agreement.end",
        };
        // The status is one of both: a second suspension, and one that is lifted while the other stays, change a side only.
        let (first, second) = (format!("suspended by {}", row.first), format!("suspended by {}", row.second));
        let changes = changes(&[
            ("status", &before.status, &row.status),
            (first.as_str(), &before.first_suspends, &row.first_suspends),
            (second.as_str(), &before.second_suspends, &row.second_suspends),
        ]);
        work.audit(&[row.first, row.second], act, id, changes).await?;
        let shown = show(work.tx(), own, row).await?;
        work.commit().await?;
        Ok(shown)
    }
}

fn side(row: &AgreementRow, own: OrganizationId) -> Side {
    match (row.first == own, row.second == own) {
        (true, true) => Side::Both,
        (true, false) => Side::Owner,
        (false, _) => Side::Peer,
    }
}

fn suspension(row: &mut AgreementRow, own: OrganizationId) -> &mut bool {
    if row.first == own { &mut row.first_suspends } else { &mut row.second_suspends }
}

/// An agreement that the organization is a side of.
pub(super) async fn own_agreement(
    tx: &mut dyn Transaction,
    organization: OrganizationId,
    id: AgreementId,
) -> ServiceResult<AgreementRow> {
    tx.agreement(id).await?.filter(|row| row.has(organization)).ok_or(ServiceError::NotFound("agreement"))
}

impl Work {
    /// Stores an agreement that has ended: what stood on it ends with it, and the two are strangers again, who see each
    /// other under the names they have now.
    pub(super) async fn end_agreement(&mut self, row: &mut AgreementRow) -> ServiceResult<()> {
        row.kept_names = Some(self.names_now(row.first, row.second).await?);
        self.update_agreement(row).await?;
        for grant in self.open_grants_of_agreement(row.id).await? {
            self.end_grant(grant, GrantAct::Close, Side::System).await?;
        }
        self.end_admin_of(row).await?;
        self.review_links_between(row.first, row.second).await
    }

    /// An agreement of the organization under which new things may begin.
    pub(super) async fn agreement_in_force(
        &mut self,
        organization: OrganizationId,
        id: AgreementId,
    ) -> ServiceResult<AgreementRow> {
        let row = own_agreement(self.tx(), organization, id).await?;
        match row.status {
            AgreementStatus::Active => Ok(row),
            AgreementStatus::Suspended => {
                Err(ServiceError::Blocked("the agreement is suspended; resume it first".to_owned()))
            }
            AgreementStatus::Ended => Err(ServiceError::Blocked("the agreement has ended".to_owned())),
        }
    }
}

async fn show(tx: &mut dyn Transaction, viewer: OrganizationId, row: AgreementRow) -> ServiceResult<Agreement> {
    let peer = row.other(viewer);
    let (us, them) = match (row.first == viewer, row.second == viewer) {
        (true, true) => (row.first_suspends, row.first_suspends),
        (true, false) => (row.first_suspends, row.second_suspends),
        (false, _) => (row.second_suspends, row.first_suspends),
    };
    Ok(Agreement {
        id: row.id,
        peer_id: peer,
        peer_name: name_in(tx, &row, peer, viewer).await?,
        status: row.status,
        suspended_by_us: us,
        suspended_by_peer: them,
        created_at: row.created_at,
        ended_at: row.ended_at,
    })
}
