//! Connections: what both organizations see of them, and what each side may do.

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
    page::{Paging, cut},
    peering::name_of,
    permission::Act,
};
use crate::storage::{ConnectionRow, EndRow, Transaction};

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
    pub async fn connections(&self, actor: &Actor, ended: bool, paging: &Paging) -> ServiceResult<Page<Connection>> {
        actor.may(Act::Read)?;
        let slice = paging.slice()?;
        let mut tx = self.storage.read().await?;
        let (rows, next) = cut(tx.connections(actor.id(), ended, &slice).await?, &slice, |row| row.id.to_string());
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            items.push(self.show_connection(&mut *tx, actor.id(), row).await?);
        }
        Ok(Page { items, next })
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
        let mut row = own_connection(work.tx(), own, id).await?;
        let before = row.clone();
        let side = side(&row, own);
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
            return self.show_connection(work.tx(), own, row).await;
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
                return self.show_connection(work.tx(), own, row).await;
            }
            work.update_connection(&row).await?;
            work.touch(row.sender.server);
            work.touch(row.listener.server);
        }
        let word = match change {
            ConnectionChange::Activate => "connection.activate",
            ConnectionChange::Pause => "connection.pause",
            ConnectionChange::Resume => "connection.resume",
            ConnectionChange::Retry => "connection.retry",
            ConnectionChange::Terminate => "connection.terminate",
        };
        work.audit(&[row.sender.organization, row.listener.organization], word, id, "").await?;
        let shown = self.show_connection(work.tx(), own, row).await?;
        work.commit().await?;
        Ok(shown)
    }

    async fn show_connection(
        &self,
        tx: &mut dyn Transaction,
        viewer: OrganizationId,
        row: ConnectionRow,
    ) -> ServiceResult<Connection> {
        let channel = tx.channel(row.channel).await?.ok_or(ServiceError::Internal("a connection without channel"))?;
        let agreement = tx.agreement(row.agreement).await?;
        Ok(Connection {
            id: row.id,
            grant_id: row.grant,
            agreement_id: row.agreement,
            kind: row.kind,
            endpoint: channel.public_name,
            behavior: channel.behavior,
            status: row.status,
            suspended: agreement.is_some_and(|agreement| agreement.status == AgreementStatus::Suspended),
            auto_activate: row.auto_activate,
            sender: self.show_end(tx, viewer, &row, &row.sender, "sender").await?,
            listener: self.show_end(tx, viewer, &row, &row.listener, "listener").await?,
            created_at: row.created_at,
            ended_at: row.ended_at,
        })
    }

    async fn show_end(
        &self,
        tx: &mut dyn Transaction,
        viewer: OrganizationId,
        row: &ConnectionRow,
        end: &EndRow,
        role: &str,
    ) -> ServiceResult<ConnectionEnd> {
        let server = tx.server(end.server).await?.ok_or(ServiceError::Internal("a connection without server"))?;
        let (report, reported_at) = self.watchers.report(end.server, row.id).unzip();
        // What is wrong at an end may name its engine's address: connector details are its owner's only.
        let own = end.organization == viewer;
        let report = report.map(|report| ConnectionReport { problem: report.problem.filter(|_| own), ..report });
        Ok(ConnectionEnd {
            server_id: server.id,
            server_name: server.name,
            organization_name: name_of(tx, end.organization, viewer).await?,
            role: role.to_owned(),
            paused: end.paused,
            policy_in_force: end.revision > 0 && server.applied_revision >= end.revision,
            report,
            reported_at,
        })
    }
}

fn side(row: &ConnectionRow, own: OrganizationId) -> Side {
    match (row.listener.organization == own, row.sender.organization == own) {
        (true, true) => Side::Both,
        (true, false) => Side::Owner,
        (false, _) => Side::Peer,
    }
}

async fn own_connection(
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
        self.touch(row.sender.server);
        self.touch(row.listener.server);
        if let (Some(act), Some(mut grant)) = (grant_act, self.grant(row.grant).await?) {
            grant.status = next(grant.status, act, side)?;
            self.update_grant(&grant).await?;
        }
        Ok(row)
    }

    /// Activates what waits for a policy of this server only: both ends have it in force now.
    pub(super) async fn activate_confirmed(&mut self, server: gateway_proto::id::ServerId) -> ServiceResult<()> {
        for mut row in self.open_connections_of_server(server).await? {
            if row.status != ConnectionStatus::Ready || !row.auto_activate || !self.is_confirmed(&row).await? {
                continue;
            }
            row.status = next(row.status, ConnectionAct::Activate, Side::System)?;
            self.update_connection(&row).await?;
            self.touch(row.sender.server);
            self.touch(row.listener.server);
            let organizations = [row.sender.organization, row.listener.organization];
            self.audit(&organizations, "connection.activate", row.id, "both gateways confirmed the policy").await?;
        }
        Ok(())
    }

    async fn is_confirmed(&mut self, row: &ConnectionRow) -> ServiceResult<bool> {
        for end in row.ends() {
            let applied = self.server(end.server).await?.map_or(0, |server| server.applied_revision);
            if end.revision == 0 || applied < end.revision {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
