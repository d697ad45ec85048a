//! How grants are shown to each of their two sides.

use gateway_proto::{
    api::platform::Grant,
    id::OrganizationId,
    peering::{GrantStatus, Side},
};

use super::super::{Service, ServiceError, ServiceResult, peering::name_in};
use crate::storage::{GrantRow, Transaction};

impl Service {
    pub(super) async fn show_grant(
        &self,
        tx: &mut dyn Transaction,
        viewer: OrganizationId,
        row: GrantRow,
    ) -> ServiceResult<Grant> {
        let channel = tx.channel(row.channel).await?.ok_or(ServiceError::Internal("a grant without channel"))?;
        let agreement = tx.agreement(row.agreement).await?;
        let agreement = agreement.ok_or(ServiceError::Internal("a grant without agreement"))?;
        let connection = tx.connection_of_grant(row.id).await?;
        let (direction, peer) = match (row.owner == viewer, row.peer == viewer) {
            (true, true) => ("self", viewer),
            (true, false) => ("given", row.peer),
            (false, _) => ("received", row.owner),
        };
        Ok(Grant {
            id: row.id,
            agreement_id: row.agreement,
            channel_id: row.channel,
            direction: direction.to_owned(),
            peer_name: name_in(tx, &agreement, peer, viewer).await?,
            behavior: channel.behavior,
            status: status_at(&row, self.clock.unix_secs()),
            endpoint: row.kept_endpoint.unwrap_or(channel.public_name),
            connection_id: connection.as_ref().map(|connection| connection.id),
            expires_at: row.expires_at,
            max_streams: row.max_streams,
            bytes_per_second: row.limits.bytes_per_second,
            receive_timeout_secs: row.limits.receive_timeout_secs,
            behaviors: row.behaviors,
            staleness_secs: row.staleness_secs,
            require_post_quantum: row.require_post_quantum,
            created_at: row.created_at,
            // The approval made it.
            approved_at: connection.map(|connection| connection.created_at),
        })
    }
}

pub(super) fn side(row: &GrantRow, own: OrganizationId) -> Side {
    match (row.owner == own, row.peer == own) {
        (true, true) => Side::Both,
        (true, false) => Side::Owner,
        (false, _) => Side::Peer,
    }
}

fn waits(status: GrantStatus) -> bool {
    matches!(status, GrantStatus::Pending | GrantStatus::Requested)
}

/// The status as time makes it: an overdue grant has expired, whether or not it was written down.
pub(super) fn status_at(row: &GrantRow, now: u64) -> GrantStatus {
    let over = row.expires_at.is_some_and(|end| now >= end);
    let unanswered = waits(row.status) && now >= row.answer_by;
    let open = waits(row.status) || row.status == GrantStatus::Active;
    if open && (over || unanswered) { GrantStatus::Expired } else { row.status }
}

/// Whether time ended it, and it is not written down yet.
pub(in crate::service) fn is_overdue(row: &GrantRow, now: u64) -> bool {
    row.status != GrantStatus::Expired && status_at(row, now) == GrantStatus::Expired
}
