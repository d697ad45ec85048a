//! Shared servers: in force at once, without an offer. `operator` is an admin connection read-write, `viewer` one read-only,
//! `metrics` has no tunnel. The peer opens the tunnels from the servers it likes, one from each; where it has one server
//! only, that is done with the share.

use gateway_proto::{
    api::{
        Page,
        gateway::Connectivity,
        platform::{AdminAccess, Connection, CreateShare, OpenShare, ServerMetrics, ServerShare},
    },
    id::{OrganizationId, ServerId, ShareId},
    peering::{AgreementStatus, ConnectionAct, ConnectionStatus, Side},
    policy::{AdminScope, DEFAULT_ADMIN_STALENESS_SECS},
};

use super::{
    Actor, Service, ServiceError, ServiceResult, Work,
    admin::{NewAdmin, sound_scope},
    connections::status_at,
    page::{Paging, cut},
    peering::name_in,
    permission::Act,
    servers::own_server,
    tiers::TIME_IS_OVER,
    validate,
    work::changes,
};
use crate::storage::{AdminTermsRow, Ahead, ConnectionRow, ServerRow, ShareRow, Slice, Transaction};

/// Requests of a shared server at the same time.
const MAX_STREAMS: u32 = 64;

/// Shares inside one agreement at most: each may put a tunnel into the peer's policy without asking.
const SHARES_OF_AGREEMENT: usize = 100;

/// Whether the figures of a shared server are wanted: they take a look at every connection of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Figures {
    Shown,
    LeftOut,
}

impl Service {
    /// Shares given and received by the own organization; those that ended only when asked for.
    pub async fn shares(&self, actor: &Actor, ended: bool, paging: &Paging) -> ServiceResult<Page<ServerShare>> {
        actor.may(Act::Read)?;
        let slice = paging.slice()?;
        let mut tx = self.storage.read().await?;
        let now = self.clock.unix_secs();
        let (rows, next) = cut(tx.shares(actor.id(), ended, &slice, now).await?, &slice, |row| row.id.to_string());
        tx.read_ahead(Ahead::Servers(rows.iter().map(|row| row.server).collect())).await?;
        tx.read_ahead(Ahead::Agreements(rows.iter().map(|row| row.agreement).collect())).await?;
        tx.read_ahead(Ahead::ConnectionsOfShares(rows.iter().map(|row| row.id).collect())).await?;
        tx.read_ahead(Ahead::Organizations(rows.iter().flat_map(|row| [row.owner, row.peer]).collect())).await?;
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            items.push(self.show_share(&mut *tx, actor.id(), row, Figures::LeftOut).await?);
        }
        Ok(Page { items, next })
    }

    /// One share.
    pub async fn share(&self, actor: &Actor, id: ShareId) -> ServiceResult<ServerShare> {
        actor.may(Act::Read)?;
        let mut tx = self.storage.read().await?;
        let row = own_share(&mut *tx, actor.id(), id).await?;
        self.show_share(&mut *tx, actor.id(), row, Figures::Shown).await
    }

    /// Shares an own server with the peer of an agreement.
    pub async fn create_share(&self, actor: &Actor, body: CreateShare) -> ServiceResult<ServerShare> {
        actor.may(Act::ShareServer)?;
        let own = actor.id();
        let scope = match body.level.access() {
            Some(access) => sound_scope(access, body.scope)?,
            None if body.scope != AdminScope::default() => {
                return Err(ServiceError::Invalid("scope is for levels with a tunnel: operator and viewer".to_owned()));
            }
            None => body.scope,
        };
        let mut work = self.work_of(actor).await?;
        validate::in_future(body.expires_at, work.now)?;
        let agreement = work.agreement_in_force(own, body.agreement_id).await?;
        let server = own_server(work.tx(), own, body.server_id).await?;
        if body.level.access() == Some(AdminAccess::ReadWrite) {
            work.allows_read_write(own).await?;
        }
        let peer = agreement.other(own);
        self.may_disturb(actor, agreement.id)?;
        // One that time has ended counts until that is written down: until then its tunnels are in policies.
        if work.open_shares_of_agreement(agreement.id).await?.len() >= SHARES_OF_AGREEMENT {
            return Err(ServiceError::Conflict(format!(
                "{SHARES_OF_AGREEMENT} servers are shared inside this agreement already ({TIME_IS_OVER} count until \
                 then); end one first"
            )));
        }
        let shared = work.open_shares_of_server(server.id).await?;
        // In the way of the next share of the server it is not.
        if let Some(share) = shared.iter().find(|row| row.peer == peer && !is_overdue(row, work.now)) {
            return Err(ServiceError::Conflict(format!("this server is shared with them already: {}", share.id)));
        }
        let (ms, random) = work.seed();
        let row = ShareRow {
            id: ShareId::new(ms, random),
            agreement: agreement.id,
            server: server.id,
            owner: own,
            peer,
            shared_by: Some(actor.user.id),
            level: body.level,
            scope,
            expires_at: body.expires_at,
            created_at: work.now,
            ended_at: None,
        };
        work.insert_share(&row).await?;
        work.audit(&[own, peer], "share.create", row.id, format!("{:?} of {}", row.level, server.id)).await?;
        if row.level.access().is_some()
            && let Some(user) = work.only_enrolled_server(peer).await?
        {
            work.open_share(&row, user, 0).await?;
        }
        let shown = self.show_share(work.tx(), own, row, Figures::LeftOut).await?;
        work.commit().await?;
        Ok(shown)
    }

    /// Opens a tunnel to a server that was shared with us; the one that is open already, if there is one.
    pub async fn open_share(&self, actor: &Actor, id: ShareId, body: OpenShare) -> ServiceResult<Connection> {
        actor.may(Act::OpenShare)?;
        let own = actor.id();
        let mut work = self.work_of(actor).await?;
        let row = own_share(work.tx(), own, id).await?;
        if row.peer != own {
            return Err(ServiceError::Blocked("this is your own server: the peer opens tunnels to it".to_owned()));
        }
        if actor.is_conditional() {
            actor.check_match(&self.show_share(work.tx(), own, row.clone(), Figures::Shown).await?)?;
        }
        if row.ended_at.is_some() || is_overdue(&row, work.now) {
            return Err(ServiceError::Blocked("the share has ended".to_owned()));
        }
        work.agreement_in_force(own, row.agreement).await?;
        self.may_disturb(actor, row.agreement)?;
        let user = work.using_server(own, body.server_id).await?;
        if row.level.access().is_some_and(AdminAccess::writes) {
            work.allows_read_write(row.owner).await?;
        }
        let open = work.open_connections_of_share(id).await?;
        let now = work.now;
        let is_there = |row: &ConnectionRow| row.sender.server == Some(user.id) && !status_at(row, now).is_ended();
        let connection = match open.into_iter().find(is_there) {
            Some(connection) => connection,
            None => work.open_share(&row, user.id, body.port.unwrap_or(0)).await?,
        };
        let shown = self.show_connection(work.tx(), own, connection).await?;
        work.commit().await?;
        Ok(shown)
    }

    /// Ends a share with its tunnels.
    pub async fn end_share(&self, actor: &Actor, id: ShareId) -> ServiceResult<ServerShare> {
        actor.may(Act::EndShare)?;
        let own = actor.id();
        let mut work = self.work_of(actor).await?;
        let row = own_share(work.tx(), own, id).await?;
        if actor.is_conditional() {
            actor.check_match(&self.show_share(work.tx(), own, row.clone(), Figures::Shown).await?)?;
        }
        if row.ended_at.is_some() {
            let shown = self.show_share(work.tx(), own, row, Figures::LeftOut).await?;
            work.unchanged().await?;
            return Ok(shown);
        }
        let row = work.close_share(row, "").await?;
        let shown = self.show_share(work.tx(), own, row, Figures::LeftOut).await?;
        work.commit().await?;
        Ok(shown)
    }

    async fn show_share(
        &self,
        tx: &mut dyn Transaction,
        viewer: OrganizationId,
        row: ShareRow,
        figures: Figures,
    ) -> ServiceResult<ServerShare> {
        let server = tx.server(row.server).await?.ok_or(ServiceError::Internal("a share without server"))?;
        let (direction, other) = match (row.owner == viewer, row.peer == viewer) {
            (true, true) => ("self", viewer),
            (true, false) => ("given", row.peer),
            (false, _) => ("received", row.owner),
        };
        let agreement = tx.agreement(row.agreement).await?;
        let agreement = agreement.ok_or(ServiceError::Internal("a share without agreement"))?;
        let now = self.clock.unix_secs();
        let in_force = row.ended_at.is_none()
            && row.expires_at.is_none_or(|end| now < end)
            && agreement.status == AgreementStatus::Active;
        let metrics =
            if in_force && figures == Figures::Shown { Some(self.server_metrics(tx, &server).await?) } else { None };
        let connections = tx.open_connections_of_share(row.id).await?;
        Ok(ServerShare {
            id: row.id,
            agreement_id: row.agreement,
            server_id: row.server,
            server_name: server.name,
            direction: direction.to_owned(),
            peer_name: name_in(tx, &agreement, other, viewer).await?,
            level: row.level,
            scope: row.scope,
            connections: connections
                .iter()
                .filter(|connection| !status_at(connection, now).is_ended())
                .map(|connection| connection.id)
                .collect(),
            metrics,
            expires_at: row.expires_at,
            created_at: row.created_at,
            ended_at: row.ended_at,
        })
    }

    async fn server_metrics(&self, tx: &mut dyn Transaction, server: &ServerRow) -> ServiceResult<ServerMetrics> {
        let watching = self.last_heard(tx, server.id).await?;
        let newest = tx.policy(server.id).await?.map_or(0, |policy| policy.revision);
        let open = tx.open_connections_of_server(server.id).await?;
        let mut metrics = ServerMetrics {
            online: watching.is_some(),
            last_seen_at: watching.or(server.last_seen_at),
            gateway_version: server.gateway_version.clone(),
            policy_in_force: server.applied_revision >= newest,
            connections: u32::try_from(open.len()).unwrap_or(u32::MAX),
            active: 0,
            connected: 0,
            streams: 0,
            bytes_sent: 0,
            bytes_received: 0,
        };
        for row in open {
            metrics.active += u32::from(row.status == ConnectionStatus::Active);
            let Some((report, _)) = self.last_report(tx, server.id, row.id).await? else { continue };
            metrics.connected += u32::from(report.connectivity == Connectivity::Connected);
            metrics.streams = metrics.streams.saturating_add(report.streams);
            metrics.bytes_sent = metrics.bytes_sent.saturating_add(report.bytes_sent);
            metrics.bytes_received = metrics.bytes_received.saturating_add(report.bytes_received);
        }
        Ok(metrics)
    }
}

async fn own_share(tx: &mut dyn Transaction, organization: OrganizationId, id: ShareId) -> ServiceResult<ShareRow> {
    let row = tx.share(id).await?.filter(|row| row.owner == organization || row.peer == organization);
    row.ok_or(ServiceError::NotFound("server share"))
}

/// Whether its end has come, and it is not written down yet.
pub(super) fn is_overdue(row: &ShareRow, now: u64) -> bool {
    row.ended_at.is_none() && row.expires_at.is_some_and(|end| now >= end)
}

impl Work {
    async fn open_share(&mut self, share: &ShareRow, user: ServerId, port: u16) -> ServiceResult<ConnectionRow> {
        let access = share.level.access().ok_or_else(|| {
            ServiceError::Blocked("this share is for metrics only: it has no tunnel; GET it for the figures".to_owned())
        })?;
        let new = NewAdmin {
            agreement: share.agreement,
            owner: share.owner,
            server: share.server,
            user: share.peer,
            user_end: Some((user, port)),
            terms: AdminTermsRow {
                access,
                scope: share.scope,
                message: String::new(),
                max_streams: MAX_STREAMS,
                staleness_secs: DEFAULT_ADMIN_STALENESS_SECS,
                require_post_quantum: false,
            },
            expires_at: share.expires_at,
            share: Some(share.id),
            offered_by: share.shared_by,
        };
        self.create_admin(new, "share.open").await
    }

    /// Ends a share with its tunnels, or writes down that its time has; `why` goes into both logs.
    pub(super) async fn close_share(&mut self, mut row: ShareRow, why: &str) -> ServiceResult<ShareRow> {
        let (act, ended, why) = if is_overdue(&row, self.now) {
            ("share.expire", "expired", "its time is over")
        } else {
            ("share.end", "ended", why)
        };
        for connection in self.open_connections_of_share(row.id).await? {
            self.close_connection(connection, ConnectionAct::Terminate, None, Side::System).await?;
        }
        row.ended_at = Some(self.now);
        self.update_share(&row).await?;
        let changes = changes(&[("status", &"open", &ended)]);
        let detail = if why.is_empty() { changes } else { format!("{changes}; {why}") };
        self.audit(&[row.owner, row.peer], act, row.id, detail).await?;
        Ok(row)
    }

    /// The same, because what it stood on is gone.
    pub(super) async fn end_share_of(&mut self, row: ShareRow) -> ServiceResult<()> {
        self.close_share(row, "what it stood on is gone").await?;
        Ok(())
    }

    /// The server of an organization that has only one, if its gateway is enrolled.
    async fn only_enrolled_server(&mut self, organization: OrganizationId) -> ServiceResult<Option<ServerId>> {
        let servers = self.servers(organization, &Slice { after: String::new(), limit: 2 }).await?;
        Ok(match servers.as_slice() {
            [only] if only.gateway.is_some() => Some(only.id),
            _ => None,
        })
    }
}
