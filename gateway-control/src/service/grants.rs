//! Grants: offered by the owner of a channel or asked for by the peer, approved by the other side. Approval makes the
//! connection in the same transaction; the end of the grant ends it.

mod limits;
mod sender;
mod show;

use gateway_proto::{
    api::{
        Page,
        platform::{ApproveGrant, CreateGrant, Grant},
    },
    id::{ConnectionId, GrantId, OrganizationId, ServerId},
    peering::{ConnectionAct, ConnectionStatus, GrantAct, GrantStatus, Side, in_place, next},
    policy::{ConnectionKind, DEFAULT_STALENESS_SECS, Secret},
};

pub(super) use self::show::is_overdue;
use self::show::{side, status_at};
use super::{
    Actor, Service, ServiceError, ServiceResult, Work, bounds,
    page::{Paging, cut},
    peering::ANSWER_SECS,
    permission::Act,
    servers::own_server,
    tiers::Counted,
    validate,
    work::changes,
};
use crate::storage::{Ahead, ChannelRow, ConnectionRow, EndRow, GrantFilter, GrantRow, Slice, Transaction};

impl Service {
    /// Grants given and received by the own organization.
    pub async fn grants(&self, actor: &Actor, filter: &GrantFilter, paging: &Paging) -> ServiceResult<Page<Grant>> {
        actor.may(Act::Read)?;
        let slice = paging.slice()?;
        let mut tx = self.storage.read().await?;
        let now = self.clock.unix_secs();
        let (rows, next) = cut(tx.grants(actor.id(), filter, &slice, now).await?, &slice, |row| row.id.to_string());
        tx.read_ahead(Ahead::Channels(rows.iter().map(|row| row.channel).collect())).await?;
        tx.read_ahead(Ahead::ConnectionsOfGrants(rows.iter().map(|row| row.id).collect())).await?;
        tx.read_ahead(Ahead::Agreements(rows.iter().map(|row| row.agreement).collect())).await?;
        tx.read_ahead(Ahead::Organizations(rows.iter().flat_map(|row| [row.owner, row.peer]).collect())).await?;
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            items.push(self.show_grant(&mut *tx, actor.id(), row).await?);
        }
        Ok(Page { items, next })
    }

    /// One grant.
    pub async fn grant(&self, actor: &Actor, id: GrantId) -> ServiceResult<Grant> {
        actor.may(Act::Read)?;
        let mut tx = self.storage.read().await?;
        let row = own_grant(&mut *tx, actor.id(), id).await?;
        self.show_grant(&mut *tx, actor.id(), row).await
    }

    /// Offers an own channel, or asks for one of the peer's. Inside a self-agreement it is in force at once.
    pub async fn create_grant(&self, actor: &Actor, body: CreateGrant) -> ServiceResult<Grant> {
        actor.may(Act::OfferGrant).or_else(|_| actor.may(Act::RequestGrant))?;
        let own = actor.id();
        let max_streams = limits::streams(body.max_streams)?;
        let limits = limits::of(&body)?;
        let staleness = body.staleness_secs.unwrap_or(DEFAULT_STALENESS_SECS);
        let staleness_secs =
            validate::range("staleness_secs", staleness, bounds::STALENESS_SECS.0, bounds::STALENESS_SECS.1)?;
        let mut work = self.work_of(actor).await?;
        validate::in_future(body.expires_at, work.now)?;
        let agreement = work.agreement_in_force(own, body.agreement_id).await?;
        let other = agreement.other(own);
        let channel = work.channel(body.channel_id).await?.filter(|row| {
            row.removed_at.is_none() && (row.organization == own || (row.organization == other && row.published))
        });
        let channel = channel.ok_or(ServiceError::NotFound("channel or published endpoint"))?;
        if !channel.published {
            return Err(ServiceError::Conflict("the channel is not published; publish it first".to_owned()));
        }
        let offered = channel.organization == own;
        actor.may(if offered { Act::OfferGrant } else { Act::RequestGrant })?;
        if !offered && staleness_secs > DEFAULT_STALENESS_SECS {
            return Err(ServiceError::Invalid(format!(
                "staleness_secs is above {DEFAULT_STALENESS_SECS}: only the channel's owner may offer more"
            )));
        }
        self.may_disturb(actor, agreement.id)?;
        let behaviors = work.granted_behaviors(body.behaviors, &channel).await?;
        let peer = if offered { other } else { own };
        let now = work.now;
        if let Some(open) = work.waiting_grant(channel.id, agreement.id, now).await? {
            return Err(ServiceError::Conflict(format!("a grant of this channel is waiting already: {}", open.id)));
        }
        work.has_room(channel.organization, Counted::Grants(channel.id)).await?;
        // Whoever will send names the sending server: now, or with the approval.
        let sender_server = if peer == own {
            Some(work.sender_server(own, body.sender_server_id).await?)
        } else if body.sender_server_id.is_some() || body.sender_port.is_some() {
            return Err(ServiceError::Invalid("the peer names its sending server when it approves".to_owned()));
        } else {
            None
        };
        let (ms, random) = work.seed();
        let mut row = GrantRow {
            id: GrantId::new(ms, random),
            agreement: agreement.id,
            channel: channel.id,
            owner: channel.organization,
            peer,
            status: if offered { GrantStatus::Pending } else { GrantStatus::Requested },
            answer_by: work.now + ANSWER_SECS,
            expires_at: body.expires_at,
            max_streams,
            limits,
            behaviors,
            staleness_secs,
            require_post_quantum: body.require_post_quantum,
            sender_server,
            sender_port: body.sender_port.unwrap_or(0),
            kept_endpoint: None,
            created_at: work.now,
        };
        if let Some(server) = sender_server {
            work.check_port(server, row.sender_port).await?;
        }
        work.insert_grant(&row).await?;
        let act = if offered { "grant.offer" } else { "grant.request" };
        work.audit(&[row.owner, row.peer], act, row.id, channel.public_name).await?;
        if row.owner == row.peer {
            work.approve(&mut row, Side::Both, true).await?;
        }
        self.changed_grant(work, own, row).await
    }

    /// Approves a grant; its connection is made with it. The owner of the channel may approve a request under tighter limits.
    pub async fn approve_grant(&self, actor: &Actor, id: GrantId, body: ApproveGrant) -> ServiceResult<Grant> {
        actor.may(Act::AnswerGrant)?;
        let own = actor.id();
        let mut work = self.work_of(actor).await?;
        let (mut row, side) = self.grant_to_change(actor, &mut work, id).await?;
        limits::check(&body, work.now)?;
        if in_place(row.status, GrantAct::Approve, side) {
            limits::check_kept(&row, &body, work.now)?;
            work.check_sender_kept(&row, own, &body).await?;
            return self.unchanged_grant(work, own, row).await;
        }
        next(row.status, GrantAct::Approve, side)?;
        work.agreement_in_force(own, row.agreement).await?;
        if row.peer == own {
            row.sender_server = Some(work.sender_server(own, body.sender_server_id).await?);
            row.sender_port = body.sender_port.unwrap_or(0);
        } else {
            sender::is_the_peers(&body)?;
        }
        if row.owner == own {
            let tightened = limits::tighten(&mut row, &body)?;
            if !tightened.is_empty() {
                work.audit(&[row.owner, row.peer], "grant.tighten", id, tightened).await?;
            }
        } else if limits::are_named(&body) {
            return Err(ServiceError::Invalid(
                "limits of an approval are for the owner of the channel, who answers a request; an offer is approved as it \
                 is: leave them out"
                    .to_owned(),
            ));
        }
        work.approve(&mut row, side, body.auto_activate.unwrap_or(true)).await?;
        self.changed_grant(work, own, row).await
    }

    /// Denies, withdraws, revokes or gives back a grant.
    pub async fn end_grant(&self, actor: &Actor, id: GrantId, act: GrantAct) -> ServiceResult<Grant> {
        actor.may(permission(act))?;
        let own = actor.id();
        let mut work = self.work_of(actor).await?;
        let (row, side) = self.grant_to_change(actor, &mut work, id).await?;
        if in_place(row.status, act, side) {
            return self.unchanged_grant(work, own, row).await;
        }
        self.disturbs(actor, row.agreement);
        let before = row.status;
        let row = work.end_grant(row, act, side).await?;
        let changes = changes(&[("status", &before, &row.status)]);
        work.audit(&[row.owner, row.peer], &format!("grant.{act}"), id, changes).await?;
        self.changed_grant(work, own, row).await
    }

    /// The own grant that a user is about to change, in the status that time made, and the side the user is on; refused
    /// where the request has a condition that does not hold.
    async fn grant_to_change(&self, actor: &Actor, work: &mut Work, id: GrantId) -> ServiceResult<(GrantRow, Side)> {
        let own = actor.id();
        let mut row = own_grant(work.tx(), own, id).await?;
        row.status = status_at(&row, work.now);
        if actor.is_conditional() {
            actor.check_match(&self.show_grant(work.tx(), own, row.clone()).await?)?;
        }
        let side = side(&row, own);
        Ok((row, side))
    }

    /// Ends a change and shows what it made.
    async fn changed_grant(&self, mut work: Work, own: OrganizationId, row: GrantRow) -> ServiceResult<Grant> {
        let shown = self.show_grant(work.tx(), own, row).await?;
        work.commit().await?;
        Ok(shown)
    }

    /// Ends a change that found nothing to change.
    async fn unchanged_grant(&self, mut work: Work, own: OrganizationId, row: GrantRow) -> ServiceResult<Grant> {
        let shown = self.show_grant(work.tx(), own, row).await?;
        work.unchanged().await?;
        Ok(shown)
    }
}

/// Whether a grant that is narrowed to some kinds of exchange, or to none in particular, allows connections of this one.
pub(super) fn allows(behaviors: &[String], behavior: &str) -> bool {
    behaviors.is_empty() || behaviors.iter().any(|allowed| allowed == behavior)
}

/// What an end of a grant is to the permission matrix. (Users neither expire nor close one.)
fn permission(act: GrantAct) -> Act {
    match act {
        GrantAct::Revoke | GrantAct::Expire | GrantAct::Close => Act::RevokeGrant,
        GrantAct::Surrender => Act::SurrenderGrant,
        GrantAct::Approve | GrantAct::Deny | GrantAct::Withdraw => Act::AnswerGrant,
    }
}

async fn own_grant(tx: &mut dyn Transaction, organization: OrganizationId, id: GrantId) -> ServiceResult<GrantRow> {
    let row = tx.grant(id).await?.filter(|row| row.owner == organization || row.peer == organization);
    row.ok_or(ServiceError::NotFound("grant"))
}

impl Work {
    /// Ends a grant, and its connection with it. One that time has ended, written down or not, has expired, whatever goes
    /// from under it afterwards.
    pub(super) async fn end_grant(&mut self, mut row: GrantRow, act: GrantAct, side: Side) -> ServiceResult<GrantRow> {
        let (act, side) = if is_overdue(&row, self.now) { (GrantAct::Expire, Side::System) } else { (act, side) };
        let before = row.status;
        self.finish_grant(&mut row, act, side).await?;
        if matches!(act, GrantAct::Close | GrantAct::Expire) {
            // Whoever ends a grant itself says so.
            let changes = changes(&[("status", &before, &row.status)]);
            self.audit(&[row.owner, row.peer], &format!("grant.{act}"), row.id, changes).await?;
        }
        let connection = self.connection_of_grant(row.id).await?.filter(|connection| !connection.status.is_ended());
        if let Some(connection) = connection {
            let act = if act == GrantAct::Expire { ConnectionAct::Expire } else { ConnectionAct::Terminate };
            self.close_connection(connection, act, None, Side::System).await?;
        }
        Ok(row)
    }

    /// Takes a grant out of force. What the channel is called from then on is for those to see who may use it.
    pub(super) async fn finish_grant(&mut self, row: &mut GrantRow, act: GrantAct, side: Side) -> ServiceResult<()> {
        row.status = next(row.status, act, side)?;
        let channel = self.channel(row.channel).await?.ok_or(ServiceError::Internal("a grant without channel"))?;
        row.kept_endpoint = Some(channel.public_name);
        Ok(self.update_grant(row).await?)
    }

    async fn approve(&mut self, row: &mut GrantRow, side: Side, auto_activate: bool) -> ServiceResult<()> {
        let before = row.status;
        row.status = next(before, GrantAct::Approve, side)?;
        let sender = row.sender_server.ok_or(ServiceError::Internal("a grant without sending server"))?;
        let sender =
            self.server(sender).await?.filter(|server| server.removed_at.is_none()).ok_or_else(|| {
                ServiceError::Conflict("the sending server was removed; ask for a new grant".to_owned())
            })?;
        self.check_port(sender.id, row.sender_port).await?;
        let channel = self.channel(row.channel).await?.ok_or(ServiceError::Internal("a grant without channel"))?;
        if !allows(&row.behaviors, &channel.behavior) {
            return Err(other_behavior(&row.behaviors, &channel));
        }
        self.update_grant(row).await?;
        let (ms, random) = self.seed();
        let end = |server, organization| EndRow { server, organization, paused: false, revision: 0, in_force_at: None };
        let connection = ConnectionRow {
            id: ConnectionId::new(ms, random),
            grant: Some(row.id),
            agreement: row.agreement,
            channel: Some(channel.id),
            admin: None,
            kind: ConnectionKind::P2p,
            status: ConnectionStatus::Provisioning,
            auto_activate,
            secret: Secret::from_bytes(gateway_net::random()),
            rotation: None,
            sender: end(Some(sender.id), row.peer),
            sender_port: row.sender_port,
            listener: end(Some(channel.server), row.owner),
            created_at: self.now,
            ended_at: None,
        };
        self.has_room_at_ends(&connection).await?;
        self.insert_connection(&connection).await?;
        let changes = changes(&[("status", &before, &row.status), ("connection", &"none", &connection.id)]);
        self.audit(&[row.owner, row.peer], "grant.approve", row.id, changes).await?;
        self.provision(connection).await?;
        Ok(())
    }

    /// The kinds of exchange that a grant is narrowed to: known ones, the channel's among them.
    async fn granted_behaviors(&mut self, names: Vec<String>, channel: &ChannelRow) -> ServiceResult<Vec<String>> {
        if names.is_empty() {
            return Ok(names);
        }
        let names = self.known_behaviors(names).await?;
        if allows(&names, &channel.behavior) { Ok(names) } else { Err(other_behavior(&names, channel)) }
    }

    /// A server of the organization: the one named in this field, or its only one.
    pub(super) async fn only_server(
        &mut self,
        organization: OrganizationId,
        named: Option<ServerId>,
        field: &str,
    ) -> ServiceResult<ServerId> {
        if let Some(id) = named {
            return Ok(own_server(self.tx(), organization, id).await?.id);
        }
        let servers = self.servers(organization, &Slice { after: String::new(), limit: 2 }).await?;
        match servers.as_slice() {
            [only] => Ok(only.id),
            [] => Err(ServiceError::Conflict("your organization has no server yet; register one first".to_owned())),
            _ => Err(ServiceError::Invalid(format!(
                "your organization has several servers: name the one you mean with {field}"
            ))),
        }
    }
}

fn other_behavior(behaviors: &[String], channel: &ChannelRow) -> ServiceError {
    ServiceError::Conflict(format!(
        "the channel's behavior is {}, and the grant is for {} only: name the channel's behavior too, or none",
        channel.behavior,
        behaviors.join(", ")
    ))
}
