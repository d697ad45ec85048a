//! How connections are shown to each of their two sides.

use std::collections::BTreeSet;

use gateway_proto::{
    api::{
        gateway::{ConnectionReport, EndDetails},
        platform::{Connection, ConnectionEnd, SecretRotation},
    },
    id::OrganizationId,
    peering::{AgreementStatus, ConnectionStatus},
};

use super::super::{Service, ServiceError, ServiceResult, admin::show_terms, delivery, grants, peering::name_in};
use crate::storage::{ADMIN_BEHAVIOR, AgreementRow, Ahead, ConnectionRow, EndRow, GrantRow, ServerRow, Transaction};

impl Service {
    /// Reads what a page of them names, in one query of each kind.
    pub(super) async fn ahead_of_connections(
        &self,
        tx: &mut dyn Transaction,
        rows: &[ConnectionRow],
    ) -> ServiceResult<()> {
        let ends = || rows.iter().flat_map(|row| row.ends().map(|end| (row, end)));
        let servers: BTreeSet<_> = ends().filter_map(|(_, end)| end.server).collect();
        let reports = ends().filter_map(|(row, end)| Some((end.server?, row.id))).collect();
        let people = rows.iter().filter_map(|row| row.admin.as_ref()?.approval.as_ref());
        let people = people.flat_map(|approval| {
            [approval.offered_by, approval.approved.as_ref().map(|(by, _)| *by)].into_iter().flatten()
        });
        tx.read_ahead(Ahead::Users(people.collect())).await?;
        self.watches_ahead(tx, servers.clone()).await?;
        tx.read_ahead(Ahead::Servers(servers)).await?;
        tx.read_ahead(Ahead::Channels(rows.iter().filter_map(|row| row.channel).collect())).await?;
        tx.read_ahead(Ahead::Agreements(rows.iter().map(|row| row.agreement).collect())).await?;
        tx.read_ahead(Ahead::Grants(rows.iter().filter_map(|row| row.grant).collect())).await?;
        tx.read_ahead(Ahead::Deliveries(rows.iter().map(|row| row.id).collect())).await?;
        tx.read_ahead(Ahead::Organizations(ends().map(|(_, end)| end.organization).collect())).await?;
        self.reports_ahead(tx, reports).await
    }

    pub(in crate::service) async fn show_connection(
        &self,
        tx: &mut dyn Transaction,
        viewer: OrganizationId,
        row: ConnectionRow,
    ) -> ServiceResult<Connection> {
        let grant = grant_of(tx, &row).await?;
        let (endpoint, behavior) = endpoint(tx, &row, grant.as_ref()).await?;
        let (user, owner) = if row.admin.is_some() { ("admin_user", "admin_owner") } else { ("sender", "listener") };
        let agreement = tx.agreement(row.agreement).await?;
        let agreement = agreement.ok_or(ServiceError::Internal("a connection without agreement"))?;
        let terms = match &row.admin {
            Some(admin) => {
                let own = row.listener.organization == viewer;
                Some(show_terms(tx, admin.clone(), own, self.clock.unix_secs()).await?)
            }
            None => None,
        };
        let delivery = delivery::shown(tx, &row, &behavior).await?;
        let granted = grant.as_ref().map(|grant| grant.staleness_secs);
        let staleness = row.admin.as_ref().map(|admin| admin.terms.staleness_secs).or(granted);
        let sender = self.show_end(tx, viewer, &agreement, (&row, staleness), (&row.sender, user)).await?;
        let listener = self.show_end(tx, viewer, &agreement, (&row, staleness), (&row.listener, owner)).await?;
        Ok(Connection {
            id: row.id,
            grant_id: row.grant,
            agreement_id: row.agreement,
            kind: row.kind,
            endpoint,
            behavior,
            status: status_under(&row, grant.as_ref(), self.clock.unix_secs()),
            suspended: agreement.status == AgreementStatus::Suspended,
            auto_activate: row.auto_activate,
            policy_in_force_since: sender
                .policy_in_force_since
                .max(listener.policy_in_force_since)
                .filter(|_| [&sender, &listener].iter().all(|end| end.policy_in_force_since.is_some())),
            sender,
            listener,
            secret_rotation: row
                .rotation
                .as_ref()
                .filter(|rotation| !row.status.is_ended() && self.clock.unix_secs() < rotation.until)
                .map(|rotation| SecretRotation { new_from: rotation.turns_at, old_until: rotation.until }),
            delivery,
            created_at: row.created_at,
            ended_at: row.ended_at,
            admin: terms,
        })
    }

    /// When the policy of a server is last known to have been confirmed to its gateway; none: it is not known.
    async fn confirmed_at(
        &self,
        tx: &mut dyn Transaction,
        server: &ServerRow,
        details: Option<&EndDetails>,
    ) -> ServiceResult<Option<u64>> {
        match self.last_heard(tx, server.id).await? {
            Some(heard_at) => Ok(confirmed_by(heard_at, details)),
            // Nothing was confirmed since it was last heard, whatever its version.
            None => Ok(server.last_seen_at.filter(|_| server.gateway.is_some())),
        }
    }

    async fn show_end(
        &self,
        tx: &mut dyn Transaction,
        viewer: OrganizationId,
        agreement: &AgreementRow,
        (row, staleness): (&ConnectionRow, Option<u64>),
        (end, role): (&EndRow, &str),
    ) -> ServiceResult<ConnectionEnd> {
        let server = match end.server {
            Some(id) => Some(tx.server(id).await?.ok_or(ServiceError::Internal("a connection without server"))?),
            None => None,
        };
        let (report, reported_at) = match end.server {
            Some(server) => self.last_report(tx, server, row.id).await?.unzip(),
            None => (None, None),
        };
        let own = end.organization == viewer;
        let report = report.map(|report| if own { report } else { for_the_other_side(report) });
        let in_force = end.revision > 0
            && server.as_ref().is_some_and(|server| !server.stale && server.applied_revision >= end.revision);
        let details = report.as_ref().and_then(|report| report.details.as_ref());
        let policy_confirmed_at = match &server {
            Some(server) if !row.status.is_ended() => self.confirmed_at(tx, server, details).await?,
            Some(_) | None => None,
        };
        let now = self.clock.unix_secs();
        Ok(ConnectionEnd {
            policy_confirmed_at,
            policy_stale: policy_confirmed_at.zip(staleness).map(|(at, limit)| now.saturating_sub(at) > limit),
            server_id: end.server,
            policy_in_force: in_force,
            policy_in_force_since: end.in_force_at.filter(|_| in_force),
            server_name: server.map(|server| server.name).unwrap_or_default(),
            organization_name: name_in(tx, agreement, end.organization, viewer).await?,
            role: role.to_owned(),
            paused: end.paused,
            report,
            reported_at,
        })
    }
}

/// What the other side is told of a report: what was measured, and no words of the gateway. What is wrong at an end may name its
/// engine's address, and why a path is in use tells of its network: both are its owner's only.
fn for_the_other_side(report: ConnectionReport) -> ConnectionReport {
    let details = report.details.map(|details| EndDetails {
        path_reason: details.path_reason.map(|why| why.for_the_other_side()),
        local_port: None,
        kept_port: None,
        ..details
    });
    ConnectionReport { problem: None, details, ..report }
}

/// When an end had its policy confirmed, as its watch says. While it watches, its gateway hears of the newest policy with every
/// heartbeat, and says when that is not the one it has; so nothing needs to be told while all is well.
fn confirmed_by(heard_at: u64, details: Option<&EndDetails>) -> Option<u64> {
    details.map(|details| details.policy_unconfirmed_since.map_or(heard_at, |since| since.min(heard_at)))
}

/// The grant that a connection was made from; none: it is an admin connection.
pub(super) async fn grant_of(tx: &mut dyn Transaction, row: &ConnectionRow) -> ServiceResult<Option<GrantRow>> {
    Ok(match row.grant {
        Some(id) => tx.grant(id).await?,
        None => None,
    })
}

/// What is at the receiving end, under the name both sides know it by (knew it by, when that is over), and the kind of
/// exchange.
async fn endpoint(
    tx: &mut dyn Transaction,
    row: &ConnectionRow,
    grant: Option<&GrantRow>,
) -> ServiceResult<(String, String)> {
    if let Some(channel) = row.channel {
        let channel = tx.channel(channel).await?.ok_or(ServiceError::Internal("a connection without channel"))?;
        let kept = grant.and_then(|grant| grant.kept_endpoint.clone());
        return Ok((kept.unwrap_or(channel.public_name), channel.behavior));
    }
    let server = row.listener.server.ok_or(ServiceError::Internal("an admin connection to no server"))?;
    let name = tx.server(server).await?.map(|server| server.name).unwrap_or_default();
    Ok((name, ADMIN_BEHAVIOR.to_owned()))
}

/// The status as time makes it: an overdue offer has expired, whether or not it was written down.
pub(in crate::service) fn status_at(row: &ConnectionRow, now: u64) -> ConnectionStatus {
    let Some(admin) = &row.admin else { return row.status };
    let waits = matches!(row.status, ConnectionStatus::Provisioning | ConnectionStatus::Offered);
    let over = admin.expires_at.is_some_and(|end| now >= end) || (waits && now >= admin.answer_by);
    if over && !row.status.is_ended() { ConnectionStatus::Expired } else { row.status }
}

/// The same, with the end of the grant it was made from.
pub(super) fn status_under(row: &ConnectionRow, grant: Option<&GrantRow>, now: u64) -> ConnectionStatus {
    let status = status_at(row, now);
    let over = grant.is_some_and(|grant| grants::is_overdue(grant, now));
    if over && !status.is_ended() { ConnectionStatus::Expired } else { status }
}

/// Whether time ended it, and it is not written down yet.
pub(in crate::service) fn is_overdue(row: &ConnectionRow, now: u64) -> bool {
    row.status != ConnectionStatus::Expired && status_at(row, now) == ConnectionStatus::Expired
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_as_old_as_the_last_word_of_a_gateway_that_watches_unless_it_says_otherwise() {
        let told = |policy_unconfirmed_since| EndDetails { policy_unconfirmed_since, ..EndDetails::default() };
        assert_eq!(confirmed_by(1_000, Some(&told(None))), Some(1_000));
        assert_eq!(confirmed_by(1_000, Some(&told(Some(400)))), Some(400));
        assert_eq!(confirmed_by(1_000, Some(&told(Some(4_000)))), Some(1_000), "its clock is ahead of ours");
        assert_eq!(confirmed_by(1_000, None), None, "an older gateway does not tell");
    }
}
