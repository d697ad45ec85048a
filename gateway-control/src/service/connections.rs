//! Connections: what both organizations see of them, and what each side may do.

use std::collections::BTreeSet;

use gateway_proto::{
    api::{
        Page,
        gateway::ConnectionReport,
        platform::{Connection, ConnectionEnd},
    },
    id::{ConnectionId, OrganizationId},
    peering::{AgreementStatus, ConnectionAct, ConnectionStatus, GrantAct, Side, in_place, next},
};

use super::{
    Actor, Service, ServiceError, ServiceResult, Work,
    admin::show_terms,
    delivery, grants,
    page::{Paging, cut},
    peering::name_in,
    permission::Act,
    work::changes,
};
use crate::storage::{
    ADMIN_BEHAVIOR, AgreementRow, Ahead, ConnectionFilter, ConnectionRow, EndRow, GrantRow, ServerRow, Transaction,
};

/// What a user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionChange {
    /// Let it carry data.
    Activate,
    /// Put the own pause on.
    Pause,
    /// Lift the own pause.
    Resume,
    /// Try a failed one again.
    Retry,
    /// End it, and its grant with it.
    Terminate,
}

impl Service {
    /// Connections of the own organization; those that ended only when asked for.
    pub async fn connections(
        &self,
        actor: &Actor,
        filter: &ConnectionFilter,
        paging: &Paging,
    ) -> ServiceResult<Page<Connection>> {
        actor.may(Act::Read)?;
        let slice = paging.slice()?;
        let mut tx = self.storage.read().await?;
        let (rows, next) = cut(tx.connections(actor.id(), filter, &slice).await?, &slice, |row| row.id.to_string());
        self.ahead_of_connections(&mut *tx, &rows).await?;
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            let shown = self.show_connection(&mut *tx, actor.id(), row).await?;
            // Time may have ended what is not written down as ended yet.
            if filter.status.is_none_or(|status| status == shown.status) {
                items.push(shown);
            }
        }
        Ok(Page { items, next })
    }

    /// Reads what a page of them names, in one query of each kind.
    async fn ahead_of_connections(&self, tx: &mut dyn Transaction, rows: &[ConnectionRow]) -> ServiceResult<()> {
        let ends = || rows.iter().flat_map(|row| row.ends().map(|end| (row, end)));
        let servers: BTreeSet<_> = ends().filter_map(|(_, end)| end.server).collect();
        let reports = ends().filter_map(|(row, end)| Some((end.server?, row.id))).collect();
        let people = rows.iter().filter_map(|row| row.admin.as_ref()?.approval.as_ref());
        let people = people.flat_map(|approval| {
            [approval.offered_by, approval.approved.as_ref().map(|(by, _)| *by)].into_iter().flatten()
        });
        tx.read_ahead(Ahead::Users(people.collect())).await?;
        tx.read_ahead(Ahead::Servers(servers)).await?;
        tx.read_ahead(Ahead::Channels(rows.iter().filter_map(|row| row.channel).collect())).await?;
        tx.read_ahead(Ahead::Agreements(rows.iter().map(|row| row.agreement).collect())).await?;
        tx.read_ahead(Ahead::Grants(rows.iter().filter_map(|row| row.grant).collect())).await?;
        tx.read_ahead(Ahead::Deliveries(rows.iter().map(|row| row.id).collect())).await?;
        tx.read_ahead(Ahead::Organizations(ends().map(|(_, end)| end.organization).collect())).await?;
        self.reports_ahead(tx, reports).await
    }

    /// One connection.
    pub async fn connection(&self, actor: &Actor, id: ConnectionId) -> ServiceResult<Connection> {
        actor.may(Act::Read)?;
        let mut tx = self.storage.read().await?;
        let row = own_connection(&mut *tx, actor.id(), id).await?;
        self.show_connection(&mut *tx, actor.id(), row).await
    }

    /// Activates, pauses, resumes, retries or terminates a connection.
    pub async fn change_connection(
        &self,
        actor: &Actor,
        id: ConnectionId,
        change: ConnectionChange,
    ) -> ServiceResult<Connection> {
        actor.may(match change {
            ConnectionChange::Terminate => Act::TerminateConnections,
            ConnectionChange::Activate
            | ConnectionChange::Pause
            | ConnectionChange::Resume
            | ConnectionChange::Retry => Act::OperateConnections,
        })?;
        let own = actor.id();
        let mut work = self.work_of(actor).await?;
        let (mut row, side) = self.connection_to_change(actor, &mut work, id).await?;
        let before = row.clone();
        let act = match change {
            ConnectionChange::Activate => ConnectionAct::Activate,
            ConnectionChange::Pause => ConnectionAct::Pause,
            ConnectionChange::Retry => ConnectionAct::Retry,
            ConnectionChange::Terminate => ConnectionAct::Terminate,
            ConnectionChange::Resume => {
                let other = [&row.sender, &row.listener].iter().any(|end| end.organization != own && end.paused);
                ConnectionAct::resume(other)
            }
        };
        if in_place(row.status, act, side) {
            return self.unchanged_connection(work, own, row).await;
        }
        if change == ConnectionChange::Terminate {
            let grant_act = if side == Side::Peer { GrantAct::Surrender } else { GrantAct::Revoke };
            row = work.end_connection(row, act, Some(grant_act), side).await?;
        } else {
            row.status = next(row.status, act, side)?;
            let paused = match change {
                ConnectionChange::Pause => Some(true),
                ConnectionChange::Resume => Some(false),
                ConnectionChange::Activate | ConnectionChange::Retry | ConnectionChange::Terminate => None,
            };
            if let Some(paused) = paused {
                for end in [&mut row.sender, &mut row.listener] {
                    if end.organization == own {
                        end.paused = paused;
                    }
                }
            }
            if row == before {
                return self.unchanged_connection(work, own, row).await;
            }
            self.may_disturb(actor, row.agreement)?;
            work.update_connection(&row).await?;
            work.touch_ends(&row);
            if change == ConnectionChange::Pause {
                work.cuts();
            }
        }
        let word = match change {
            ConnectionChange::Activate => "connection.activate",
            ConnectionChange::Pause => "connection.pause",
            ConnectionChange::Resume => "connection.resume",
            ConnectionChange::Retry => "connection.retry",
            ConnectionChange::Terminate => "connection.terminate",
        };
        let changes = changes(&[("status", &before.status, &row.status)]);
        work.audit(&[row.sender.organization, row.listener.organization], word, id, changes).await?;
        self.changed_connection(work, own, row).await
    }

    /// The own connection that a user is about to change, in the status that time made, and the side the user is on; refused
    /// where the request has a condition that does not hold.
    pub(super) async fn connection_to_change(
        &self,
        actor: &Actor,
        work: &mut Work,
        id: ConnectionId,
    ) -> ServiceResult<(ConnectionRow, Side)> {
        let own = actor.id();
        let mut row = own_connection(work.tx(), own, id).await?;
        let grant = grant_of(work.tx(), &row).await?;
        row.status = status_under(&row, grant.as_ref(), work.now);
        if actor.is_conditional() {
            actor.check_match(&self.show_connection(work.tx(), own, row.clone()).await?)?;
        }
        let side = side(&row, own);
        Ok((row, side))
    }

    /// Ends a change and shows what it made.
    pub(super) async fn changed_connection(
        &self,
        mut work: Work,
        own: OrganizationId,
        row: ConnectionRow,
    ) -> ServiceResult<Connection> {
        let shown = self.show_connection(work.tx(), own, row).await?;
        work.commit().await?;
        Ok(shown)
    }

    /// Ends a change that found nothing to change.
    pub(super) async fn unchanged_connection(
        &self,
        mut work: Work,
        own: OrganizationId,
        row: ConnectionRow,
    ) -> ServiceResult<Connection> {
        let shown = self.show_connection(work.tx(), own, row).await?;
        work.unchanged().await?;
        Ok(shown)
    }

    pub(super) async fn show_connection(
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
        let sender = self.show_end(tx, viewer, &agreement, &row, (&row.sender, user)).await?;
        let listener = self.show_end(tx, viewer, &agreement, &row, (&row.listener, owner)).await?;
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
            delivery: delivery::shown(tx, row.id).await?,
            created_at: row.created_at,
            ended_at: row.ended_at,
            admin: terms,
        })
    }

    async fn show_end(
        &self,
        tx: &mut dyn Transaction,
        viewer: OrganizationId,
        agreement: &AgreementRow,
        row: &ConnectionRow,
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
        // What is wrong at an end may name its engine's address: connector details are its owner's only.
        let own = end.organization == viewer;
        let report = report.map(|report| ConnectionReport { problem: report.problem.filter(|_| own), ..report });
        let in_force = end.revision > 0
            && server.as_ref().is_some_and(|server| !server.stale && server.applied_revision >= end.revision);
        Ok(ConnectionEnd {
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

/// The grant that a connection was made from; none: it is an admin connection.
async fn grant_of(tx: &mut dyn Transaction, row: &ConnectionRow) -> ServiceResult<Option<GrantRow>> {
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
pub(super) fn status_at(row: &ConnectionRow, now: u64) -> ConnectionStatus {
    let Some(admin) = &row.admin else { return row.status };
    let waits = matches!(row.status, ConnectionStatus::Provisioning | ConnectionStatus::Offered);
    let over = admin.expires_at.is_some_and(|end| now >= end) || (waits && now >= admin.answer_by);
    if over && !row.status.is_ended() { ConnectionStatus::Expired } else { row.status }
}

/// The same, with the end of the grant it was made from.
fn status_under(row: &ConnectionRow, grant: Option<&GrantRow>, now: u64) -> ConnectionStatus {
    let status = status_at(row, now);
    let over = grant.is_some_and(|grant| grants::is_overdue(grant, now));
    if over && !status.is_ended() { ConnectionStatus::Expired } else { status }
}

/// Whether time ended it, and it is not written down yet.
pub(super) fn is_overdue(row: &ConnectionRow, now: u64) -> bool {
    row.status != ConnectionStatus::Expired && status_at(row, now) == ConnectionStatus::Expired
}

pub(super) fn side(row: &ConnectionRow, own: OrganizationId) -> Side {
    match (row.listener.organization == own, row.sender.organization == own) {
        (true, true) => Side::Both,
        (true, false) => Side::Owner,
        (false, _) => Side::Peer,
    }
}

pub(super) async fn own_connection(
    tx: &mut dyn Transaction,
    organization: OrganizationId,
    id: ConnectionId,
) -> ServiceResult<ConnectionRow> {
    let row = tx.connection(id).await?;
    row.filter(|row| row.ends().iter().any(|end| end.organization == organization))
        .ok_or(ServiceError::NotFound("connection"))
}

impl Work {
    /// Ends a connection, and its grant with it if `grant_act` says so.
    pub(super) async fn end_connection(
        &mut self,
        mut row: ConnectionRow,
        act: ConnectionAct,
        grant_act: Option<GrantAct>,
        side: Side,
    ) -> ServiceResult<ConnectionRow> {
        row.status = next(row.status, act, side)?;
        row.ended_at = Some(self.now);
        self.update_connection(&row).await?;
        self.touch_ends(&row);
        self.cuts();
        if let (Some(act), Some(id)) = (grant_act, row.grant)
            && let Some(mut grant) = self.grant(id).await?
        {
            let before = grant.status;
            self.finish_grant(&mut grant, act, side).await?;
            let changes = changes(&[("status", &before, &grant.status)]);
            self.audit(&[grant.owner, grant.peer], &format!("grant.{act}"), id, changes).await?;
        }
        Ok(row)
    }

    /// The same as a consequence of something else, which both sides find in their logs.
    pub(super) async fn close_connection(
        &mut self,
        row: ConnectionRow,
        act: ConnectionAct,
        grant_act: Option<GrantAct>,
        side: Side,
    ) -> ServiceResult<()> {
        let before = row.status;
        let row = self.end_connection(row, act, grant_act, side).await?;
        let changes = changes(&[("status", &before, &row.status)]);
        let organizations = [row.sender.organization, row.listener.organization];
        self.audit(&organizations, &format!("connection.{act}"), row.id, changes).await
    }

    /// The gateway of this server has its applied revision in force: that is written to its ends, and what waited for
    /// it only becomes active.
    pub(super) async fn confirm(&mut self, server: &ServerRow) -> ServiceResult<()> {
        let now = self.now;
        self.put_in_force(server.id, server.applied_revision, now).await?;
        for mut row in self.confirmed_connections_of_server(server.id).await? {
            row.status = next(row.status, ConnectionAct::Activate, Side::System)?;
            self.update_connection(&row).await?;
            self.touch_ends(&row);
            let organizations = [row.sender.organization, row.listener.organization];
            self.audit(&organizations, "connection.activate", row.id, "both gateways confirmed the policy").await?;
        }
        Ok(())
    }
}
