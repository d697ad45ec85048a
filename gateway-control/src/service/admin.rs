//! Admin connections: the owner of a server offers a partner its engine's admin API, the partner accepts and names the
//! server it is used from. Read-only or not, and what else the offer allows, is enforced by the owner's gateway.
//!
//! The connection is the offer: it begins `provisioning` (the owner's server has no gateway yet) or `offered`, and becomes
//! `ready` when it is accepted. Unanswered for 7 days it expires; its time-box ends it in any status.
//!
//! Where the owner's organization or its tenant demands two persons, it stays `provisioning` until another owner or admin
//! of the owner's organization than the one who offered it (or shared the server) has approved it. The other side is asked
//! then and not before, and no policy has it. What was offered before that was demanded, goes on as it was.

mod terms;

use gateway_proto::{
    api::{
        platform::{AcceptAdmin, AdminAccess, Connection, OfferAdmin},
        values::MAX_STREAMS,
    },
    id::{ConnectionId, OrganizationId, ServerId},
    peering::{ConnectionAct, ConnectionStatus, Side, in_place, next},
    policy::{ConnectionKind, DEFAULT_ADMIN_STALENESS_SECS, Secret},
};

use self::terms::is_approved;
pub(super) use self::terms::{NewAdmin, show_terms, sound_scope};
use super::{
    Actor, Service, ServiceError, ServiceResult, Work, bounds, connections::status_at, kept::NamedEnd, permission::Act,
    servers::own_server, tiers::Counted, validate, work::changes,
};
use crate::storage::{AdminRow, AdminTermsRow, AgreementRow, ApprovalRow, ConnectionRow, EndRow, ServerRow};

/// An offer that nobody answers for so long expires.
pub(super) const OFFER_SECS: u64 = 7 * 24 * 3600;
const DEFAULT_MAX_STREAMS: u32 = 64;

/// Admin connections of one agreement that may wait for an answer.
const OFFERS_OF_AGREEMENT: usize = 20;

impl Service {
    /// Offers the peer of an agreement the admin API of an own server's engine. Inside a self-agreement it is accepted at once.
    pub async fn offer_admin(&self, actor: &Actor, body: OfferAdmin) -> ServiceResult<Connection> {
        actor.may(Act::OfferAdmin)?;
        let own = actor.id();
        let terms = AdminTermsRow {
            access: body.access,
            scope: sound_scope(body.access, body.scope)?,
            message: validate::text("message", &body.message, bounds::MAX_TEXT)?,
            max_streams: validate::range(
                "max_streams",
                body.max_streams.unwrap_or(DEFAULT_MAX_STREAMS),
                1,
                MAX_STREAMS,
            )?,
            staleness_secs: validate::range(
                "staleness_secs",
                body.staleness_secs.unwrap_or(DEFAULT_ADMIN_STALENESS_SECS),
                bounds::ADMIN_STALENESS_SECS.0,
                bounds::ADMIN_STALENESS_SECS.1,
            )?,
            require_post_quantum: body.require_post_quantum,
        };
        let mut work = self.work_of(actor).await?;
        validate::in_future(body.expires_at, work.now)?;
        let agreement = work.agreement_in_force(own, body.agreement_id).await?;
        let server = own_server(work.tx(), own, body.server_id).await?;
        if body.access == AdminAccess::ReadWrite {
            work.allows_read_write(own).await?;
        }
        self.may_disturb(actor, agreement.id)?;
        let open = work.open_connections_of_agreement(agreement.id).await?;
        let waits = |row: &&ConnectionRow| {
            let waits_for_us = row.admin.as_ref().is_some_and(|admin| !is_approved(admin));
            let status = status_at(row, work.now);
            status == ConnectionStatus::Offered || (waits_for_us && !status.is_ended())
        };
        if open.iter().filter(waits).count() >= OFFERS_OF_AGREEMENT {
            return Err(ServiceError::Conflict(format!(
                "{OFFERS_OF_AGREEMENT} offers of this agreement wait for an answer already"
            )));
        }
        let user = agreement.other(own);
        let user_end = if user == own {
            Some((work.using_server(own, body.user_server_id).await?.id, body.user_port.unwrap_or(0)))
        } else if body.user_server_id.is_some() || body.user_port.is_some() {
            return Err(ServiceError::Invalid("the peer names the server it uses when it accepts".to_owned()));
        } else {
            None
        };
        let new = NewAdmin {
            agreement: agreement.id,
            owner: own,
            server: server.id,
            user,
            user_end,
            terms,
            expires_at: body.expires_at,
            share: None,
            offered_by: Some(actor.user.id),
        };
        let row = work.create_admin(new, "admin.offer").await?;
        self.changed_connection(work, own, row).await
    }

    /// Approves an admin connection to an own server, as the second person: the other side is asked, or (a share, or inside
    /// a self-agreement) it is open.
    pub async fn approve_admin(&self, actor: &Actor, id: ConnectionId) -> ServiceResult<Connection> {
        actor.may(Act::ApproveAdmin)?;
        actor.in_person()?;
        let own = actor.id();
        let mut work = self.work_of(actor).await?;
        let (mut row, side) = self.connection_to_change(actor, &mut work, id).await?;
        let approval = row.admin.as_ref().and_then(|admin| admin.approval.clone());
        if approval.as_ref().is_some_and(|approval| approval.approved.is_some())
            && side != Side::Peer
            && !row.status.is_ended()
        {
            return self.unchanged_connection(work, own, row).await;
        }
        let before = row.status;
        row.status = next(before, ConnectionAct::Approve, side)?;
        let (Some(approval), Some(admin)) = (approval, &mut row.admin) else {
            return Err(ServiceError::Blocked("nothing waits for a second person's approval here".to_owned()));
        };
        if approval.offered_by == Some(actor.user.id) {
            return Err(ServiceError::Forbidden(
                "you offered it: another owner or admin of this organization approves it".to_owned(),
            ));
        }
        admin.approval = Some(ApprovalRow { approved: Some((actor.user.id, work.now)), ..approval });
        admin.answer_by = work.now + OFFER_SECS;
        let (writes, share) = (admin.terms.access.writes(), admin.share);
        work.agreement_in_force(own, row.agreement).await?;
        if writes {
            work.allows_read_write(own).await?;
        }
        work.update_connection(&row).await?;
        let changes = changes(&[("status", &before, &row.status), ("approved", &false, &true)]);
        let what = share.map_or_else(|| changes.clone(), |share| format!("{changes}; of the share {share}"));
        work.audit(&[row.sender.organization, row.listener.organization], "admin.approve", id, what).await?;
        let row = work.provision(row).await?;
        self.changed_connection(work, own, row).await
    }

    /// Accepts an offered admin connection, naming the server it is used from.
    pub async fn accept_admin(&self, actor: &Actor, id: ConnectionId, body: AcceptAdmin) -> ServiceResult<Connection> {
        actor.may(Act::AnswerAdmin)?;
        let own = actor.id();
        let mut work = self.work_of(actor).await?;
        let (mut row, side) = self.connection_to_change(actor, &mut work, id).await?;
        if in_place(row.status, ConnectionAct::Accept, side) && row.admin.is_some() {
            let (server, port) = (("server_id", body.server_id), ("port", body.port));
            NamedEnd { server, port, auto_activate: body.auto_activate }.check_kept(&row)?;
            return self.unchanged_connection(work, own, row).await;
        }
        let before = row.status;
        row.status = next(before, ConnectionAct::Accept, side)?;
        work.agreement_in_force(own, row.agreement).await?;
        if row.admin.as_ref().is_some_and(|admin| admin.terms.access.writes()) {
            work.allows_read_write(row.listener.organization).await?;
        }
        let server = work.using_server(own, body.server_id).await?;
        work.has_room(own, Counted::Connections(server.id)).await?;
        row.sender.server = Some(server.id);
        row.sender_port = body.port.unwrap_or(0);
        row.auto_activate = body.auto_activate.unwrap_or(true);
        work.check_port(server.id, row.sender_port).await?;
        work.update_connection(&row).await?;
        work.touch_ends(&row);
        let organizations = [row.sender.organization, row.listener.organization];
        let changes = changes(&[("status", &before, &row.status), ("used from", &"none", &server.id)]);
        work.audit(&organizations, "admin.accept", id, changes).await?;
        self.changed_connection(work, own, row).await
    }

    /// Declines an offered admin connection.
    pub async fn decline_admin(&self, actor: &Actor, id: ConnectionId) -> ServiceResult<Connection> {
        actor.may(Act::AnswerAdmin)?;
        let own = actor.id();
        let mut work = self.work_of(actor).await?;
        let (row, side) = self.connection_to_change(actor, &mut work, id).await?;
        if in_place(row.status, ConnectionAct::Decline, side) {
            return self.unchanged_connection(work, own, row).await;
        }
        let before = row.status;
        let row = work.end_connection(row, ConnectionAct::Decline, None, side).await?;
        let changes = changes(&[("status", &before, &row.status)]);
        work.audit(&[row.sender.organization, row.listener.organization], "admin.decline", id, changes).await?;
        self.changed_connection(work, own, row).await
    }
}

impl Work {
    /// Makes an admin connection: offered, or accepted at once when the end it is used from is known.
    pub(super) async fn create_admin(&mut self, new: NewAdmin, act: &str) -> ServiceResult<ConnectionRow> {
        let (ms, random) = self.seed();
        let end = |server, organization| EndRow { server, organization, paused: false, revision: 0, in_force_at: None };
        let kind = match new.terms.access {
            AdminAccess::ReadOnly => ConnectionKind::AdminReadOnly,
            AdminAccess::ReadWrite => ConnectionKind::AdminReadWrite,
        };
        let approval = self
            .demands_two_persons(new.owner)
            .await?
            .then_some(ApprovalRow { offered_by: new.offered_by, approved: None });
        let mut row = ConnectionRow {
            id: ConnectionId::new(ms, random),
            grant: None,
            agreement: new.agreement,
            channel: None,
            admin: Some(AdminRow {
                terms: new.terms,
                answer_by: self.now + OFFER_SECS,
                expires_at: new.expires_at,
                share: new.share,
                approval,
                people: Vec::new(),
            }),
            kind,
            status: ConnectionStatus::Provisioning,
            auto_activate: true,
            secret: Secret::from_bytes(gateway_net::random()),
            rotation: None,
            sender: end(new.user_end.map(|(server, _)| server), new.user),
            sender_port: new.user_end.map_or(0, |(_, port)| port),
            listener: end(Some(new.server), new.owner),
            created_at: self.now,
            ended_at: None,
        };
        if let Some((server, port)) = new.user_end {
            self.check_port(server, port).await?;
        }
        self.has_room_at_ends(&row).await?;
        self.insert_connection(&row).await?;
        let waits = row.admin.as_ref().is_some_and(|admin| !is_approved(admin));
        let detail =
            format!("{} on {}{}", word(kind), new.server, if waits { ", waits for a second person" } else { "" });
        self.audit(&[new.owner, new.user], act, row.id, detail).await?;
        row = self.provision(row).await?;
        Ok(row)
    }

    /// Goes on with an admin connection whose owner has a gateway: the other side is asked, unless its server is named
    /// already (a share, or a self-agreement).
    pub(super) async fn provision_admin(&mut self, mut row: ConnectionRow) -> ServiceResult<ConnectionRow> {
        let listener = row.listener.server.ok_or(ServiceError::Internal("an admin connection to no server"))?;
        if row.admin.as_ref().is_some_and(|admin| !is_approved(admin)) {
            return Ok(row);
        }
        if self.server(listener).await?.is_none_or(|server| server.gateway.is_none()) {
            return Ok(row);
        }
        row.status = next(row.status, ConnectionAct::Offer, Side::System)?;
        if row.sender.server.is_some() {
            row.status = next(row.status, ConnectionAct::Accept, Side::Both)?;
        }
        self.update_connection(&row).await?;
        self.touch_ends(&row);
        Ok(row)
    }

    /// Whether admin connections to the servers of an organization need a second person: it says so, or its tenant.
    async fn demands_two_persons(&mut self, owner: OrganizationId) -> ServiceResult<bool> {
        let own = self.organization(owner).await?.ok_or(ServiceError::Internal("a server of no organization"))?;
        if own.two_person_admin {
            return Ok(true);
        }
        let Some(tenant) = self.tenant_itself(own.tenant).await? else { return Ok(false) };
        Ok(self.organization(tenant).await?.is_some_and(|tenant| tenant.two_person_admin))
    }

    /// The server an admin connection is used from: the one named, or the only one; its gateway must be enrolled.
    pub(super) async fn using_server(
        &mut self,
        organization: OrganizationId,
        named: Option<ServerId>,
    ) -> ServiceResult<ServerRow> {
        let id = self.only_server(organization, named, "server_id").await?;
        let server = own_server(self.tx(), organization, id).await?;
        if server.gateway.is_none() {
            return Err(ServiceError::Blocked(format!(
                "the server '{}' has no gateway yet; enrol one first",
                server.name
            )));
        }
        Ok(server)
    }

    /// Ends the admin connections and shares of an agreement that is over.
    pub(super) async fn end_admin_of(&mut self, agreement: &AgreementRow) -> ServiceResult<()> {
        for share in self.open_shares_of_agreement(agreement.id).await? {
            self.end_share_of(share).await?;
        }
        for row in self.open_connections_of_agreement(agreement.id).await? {
            if row.admin.is_some() {
                self.close_connection(row, ConnectionAct::Terminate, None, Side::System).await?;
            }
        }
        Ok(())
    }
}

fn word(kind: ConnectionKind) -> &'static str {
    match kind {
        ConnectionKind::P2p => "channel data",
        ConnectionKind::AdminReadOnly => "read-only",
        ConnectionKind::AdminReadWrite => "read-write",
    }
}
