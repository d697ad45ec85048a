//! What an admin connection is offered with, and how both sides see it.

use gateway_proto::{
    api::platform::{AdminAccess, AdminApproval, AdminTerms},
    id::{AgreementId, OrganizationId, ServerId, ShareId, UserId},
    policy::AdminScope,
};

use super::super::{ServiceError, ServiceResult};
use crate::storage::{AdminRow, AdminTermsRow, ApprovalRow, Transaction};

/// What a new admin connection is made from.
pub(in crate::service) struct NewAdmin {
    pub(in crate::service) agreement: AgreementId,
    pub(in crate::service) owner: OrganizationId,
    pub(in crate::service) server: ServerId,
    pub(in crate::service) user: OrganizationId,
    /// The server it is used from, and its port; none: the other side names it when it accepts.
    pub(in crate::service) user_end: Option<(ServerId, u16)>,
    pub(in crate::service) terms: AdminTermsRow,
    pub(in crate::service) expires_at: Option<u64>,
    pub(in crate::service) share: Option<ShareId>,
    /// The first person, if known.
    pub(in crate::service) offered_by: Option<UserId>,
}

/// Whether one person was enough, or the second one has approved.
pub(super) fn is_approved(admin: &AdminRow) -> bool {
    admin.approval.as_ref().is_none_or(|approval| approval.approved.is_some())
}

/// The terms as both sides see them; who its persons are, is the owner's.
pub(in crate::service) async fn show_terms(
    tx: &mut dyn Transaction,
    admin: AdminRow,
    own: bool,
    now: u64,
) -> ServiceResult<AdminTerms> {
    let approval = match admin.approval {
        Some(ApprovalRow { offered_by, approved }) => {
            let (by, at) = approved.unzip();
            let offered_by = person(tx, offered_by.filter(|_| own)).await?;
            Some(AdminApproval { offered_by, approved_by: person(tx, by.filter(|_| own)).await?, approved_at: at })
        }
        None => None,
    };
    Ok(AdminTerms {
        access: admin.terms.access,
        scope: admin.terms.scope,
        message: admin.terms.message,
        answer_by: admin.answer_by,
        expires_at: admin.expires_at,
        max_streams: admin.terms.max_streams,
        staleness_secs: admin.terms.staleness_secs,
        require_post_quantum: admin.terms.require_post_quantum,
        share_id: admin.share,
        approval,
        people: admin.people.into_iter().map(|row| row.entry).filter(|entry| now < entry.until).collect(),
    })
}

async fn person(tx: &mut dyn Transaction, id: Option<UserId>) -> ServiceResult<Option<String>> {
    let Some(id) = id else { return Ok(None) };
    Ok(Some(tx.user(id).await?.map_or_else(|| "somebody who has left".to_owned(), |user| user.name)))
}

/// Options that only make sense with the right to write.
pub(in crate::service) fn sound_scope(access: AdminAccess, scope: AdminScope) -> ServiceResult<AdminScope> {
    if access == AdminAccess::ReadOnly && (scope.probes || scope.extension_upload) {
        return Err(ServiceError::Invalid(
            "scope.probes and scope.extension_upload need access read_write: a read-only connection changes nothing"
                .to_owned(),
        ));
    }
    Ok(scope)
}
