//! Connections: what both organizations see of them, and what each side may do.

mod rotate;
mod show;

use gateway_proto::{
    api::platform::{Connection, ConnectionPage, EndedCount},
    id::{ConnectionId, OrganizationId},
    peering::{ConnectionAct, ConnectionStatus, GrantAct, Side, in_place, next},
};

use self::show::{grant_of, status_under};
pub(super) use self::{
    rotate::secrets,
    show::{is_overdue, status_at},
};
use super::{
    Actor, Service, ServiceError, ServiceResult, Work,
    backlog::FOLLOWED_AT_ONCE,
    desk::Changed,
    page::{Paging, cut},
    permission::Act,
    work::changes,
};
use crate::storage::{ConnectionFilter, ConnectionRow, ServerRow, Transaction};

/// Ended connections are counted up to so many: that costs the same however many there are.
const COUNTED: u32 = 1_000;

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
    /// Connections of the own organization; those that ended only when asked for, and else counted.
    pub async fn connections(
        &self,
        actor: &Actor,
        filter: &ConnectionFilter,
        paging: &Paging,
    ) -> ServiceResult<ConnectionPage> {
        actor.may(Act::Read)?;
        let slice = paging.slice()?;
        let mut tx = self.storage.read().await?;
        let now = self.clock.unix_secs();
        let (rows, next) =
            cut(tx.connections(actor.id(), filter, &slice, now).await?, &slice, |row| row.id.to_string());
        self.ahead_of_connections(&mut *tx, &rows).await?;
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            items.push(self.show_connection(&mut *tx, actor.id(), row).await?);
        }
        let is_first_of_all = *filter == ConnectionFilter::default() && paging.cursor.is_none();
        let ended = if is_first_of_all {
            let number = tx.count_ended_connections(actor.id(), COUNTED).await?;
            Some(EndedCount { number, and_more: number >= u64::from(COUNTED) })
        } else {
            None
        };
        Ok(ConnectionPage { items, next, ended })
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
        // The status is one of both: a second pause, and one that is released while the other stays, change an end only.
        let changes = changes(&[
            ("status", &before.status, &row.status),
            ("sender paused", &before.sender.paused, &row.sender.paused),
            ("listener paused", &before.listener.paused, &row.listener.paused),
        ]);
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

    /// The same as a consequence of something else, which both sides find in their logs. One that time has ended, written
    /// down or not, has expired, and its grant with it, whatever goes from under it afterwards.
    pub(super) async fn close_connection(
        &mut self,
        row: ConnectionRow,
        mut act: ConnectionAct,
        mut grant_act: Option<GrantAct>,
        mut side: Side,
    ) -> ServiceResult<()> {
        let before = row.status;
        let grant = grant_of(self.tx(), &row).await?;
        if status_under(&row, grant.as_ref(), self.now) == ConnectionStatus::Expired {
            (act, side) = (ConnectionAct::Expire, Side::System);
            grant_act = grant_act.map(|_| GrantAct::Expire);
        }
        let row = self.end_connection(row, act, grant_act, side).await?;
        let changes = changes(&[("status", &before, &row.status)]);
        let organizations = [row.sender.organization, row.listener.organization];
        self.audit(&organizations, &format!("connection.{act}"), row.id, changes).await
    }

    /// Whether a connection has ended by now, written down or not.
    pub(super) async fn has_ended(&mut self, row: &ConnectionRow) -> ServiceResult<bool> {
        let grant = grant_of(self.tx(), row).await?;
        Ok(status_under(row, grant.as_ref(), self.now).is_ended())
    }

    /// The gateway of this server has its applied revision in force: that is written to its ends, and some of what waited for
    /// it only becomes active. What is left of that is found when it is asked for again.
    pub(super) async fn confirm(&mut self, server: &ServerRow) -> ServiceResult<Changed> {
        let now = self.now;
        let written = self.put_in_force(server.id, server.applied_revision, now).await?;
        let confirmed = self.confirmed_connections_of_server(server.id, FOLLOWED_AT_ONCE).await?;
        let activated = confirmed.len() as u64;
        for mut row in confirmed {
            let before = row.status;
            row.status = next(before, ConnectionAct::Activate, Side::System)?;
            self.update_connection(&row).await?;
            self.touch_ends(&row);
            let organizations = [row.sender.organization, row.listener.organization];
            let changes = changes(&[("status", &before, &row.status)]);
            let detail = format!("{changes}; both gateways confirmed the policy");
            self.audit(&organizations, "connection.activate", row.id, detail).await?;
        }
        Ok(Changed { connections: written + activated, is_all: activated < u64::from(FOLLOWED_AT_ONCE) })
    }

    /// Some of the connections that a policy would have introduced, which its gateway refused, fail; whether there may be more. The
    /// gateway has the policy `in_force`, and those it introduced.
    pub(super) async fn fail_introduced(
        &mut self,
        server: &ServerRow,
        in_force: u64,
        refused: u64,
    ) -> ServiceResult<bool> {
        let introduced = self.introduced_connections(server.id, in_force, refused, FOLLOWED_AT_ONCE).await?;
        let is_all = introduced.len() < FOLLOWED_AT_ONCE as usize;
        for mut row in introduced {
            let before = row.status;
            row.status = next(before, ConnectionAct::Fail, Side::System)?;
            self.update_connection(&row).await?;
            self.touch_ends(&row);
            let organizations = [row.sender.organization, row.listener.organization];
            let changes = changes(&[("status", &before, &row.status)]);
            let detail = format!("{changes}; a gateway refused the policy");
            self.audit(&organizations, "connection.fail", row.id, detail).await?;
        }
        Ok(!is_all)
    }
}
