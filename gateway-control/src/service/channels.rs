//! Channels and the endpoints published to peers. What is kept of a channel is kept of listeners; senders are in [`super::senders`].

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use gateway_proto::{
    api::{
        Page,
        platform::{Channel, ChannelDirection, CreateChannel, PublishedEndpoint, UpdateChannel},
        values::MAX_TEXT,
    },
    id::{AgreementId, ChannelId, OrganizationId},
    names,
    peering::{AgreementStatus, GrantAct, Side},
    policy::HL7V2_MLLP,
};

use super::{
    Actor, Service, ServiceError, ServiceResult, Work,
    agreements::own_agreement,
    bounds,
    error::OrConflict,
    grants::is_overdue,
    page::{Paging, page},
    permission::Act,
    senders::goes_with_its_connection,
    servers::own_server,
    tiers::Counted,
    validate,
    work::changes,
};
use crate::storage::{ChannelFilter, ChannelRow, Transaction};

const DEFAULT_BEHAVIOR: &str = HL7V2_MLLP;

impl Service {
    /// Channels of the own organization that carry data one way; none: either way.
    pub async fn channels(
        &self,
        actor: &Actor,
        direction: Option<ChannelDirection>,
        filter: &ChannelFilter,
        paging: &Paging,
    ) -> ServiceResult<Page<Channel>> {
        actor.may(Act::Read)?;
        validate::single_line("search", &filter.search, bounds::MAX_SEARCH)?;
        let slice = paging.slice()?;
        let mut tx = self.storage.read().await?;
        let mut found = Vec::new();
        if direction != Some(ChannelDirection::Sender) {
            found.extend(tx.channels(actor.id(), filter, &slice).await?.into_iter().map(show));
        }
        if direction != Some(ChannelDirection::Listener) && filter.published != Some(true) {
            found.extend(self.senders(&mut *tx, actor.id(), filter, &slice).await?);
            found.sort_by_key(|channel| channel.id);
        }
        Ok(page(found, &slice, |channel| channel.id.to_string(), |channel| channel))
    }

    /// One channel.
    pub async fn channel(&self, actor: &Actor, id: ChannelId) -> ServiceResult<Channel> {
        actor.may(Act::Read)?;
        let mut tx = self.storage.read().await?;
        if let Some(sender) = self.own_sender(&mut *tx, actor.id(), id).await? {
            return Ok(sender);
        }
        Ok(show(own_channel(&mut *tx, actor.id(), id).await?))
    }

    /// Adds a channel, published at once if it has a public name.
    pub async fn create_channel(&self, actor: &Actor, body: CreateChannel) -> ServiceResult<Channel> {
        actor.may(Act::PublishChannels)?;
        let mut work = self.work_of(actor).await?;
        let row = work.add_channel(actor.id(), body).await?;
        work.commit().await?;
        Ok(show(row))
    }

    /// Changes a channel. Withdrawing it from partners ends no grant: that is what revoking is for.
    pub async fn update_channel(&self, actor: &Actor, id: ChannelId, body: UpdateChannel) -> ServiceResult<Channel> {
        actor.may(Act::PublishChannels)?;
        let mut work = self.work_of(actor).await?;
        if let Some(sender) = self.own_sender(work.tx(), actor.id(), id).await? {
            return self.rename_sender(actor, work, sender, body).await;
        }
        let mut row = own_channel(work.tx(), actor.id(), id).await?;
        actor.check_match(&show(row.clone()))?;
        if body.engine.is_some() && body.engine_channel.as_ref().is_some_and(|wanted| !wanted.is_empty()) {
            let fault = "engine and engine_channel exclude each other: the one follows from the other";
            return Err(ServiceError::Invalid(fault.to_owned()));
        }
        let before = row.clone();
        if let Some(name) = &body.name {
            row.name = validate::renamed("name", &row.name, name)?;
        }
        if let Some(engine) = &body.engine {
            row.engine = validate::engine(engine)?;
        }
        if row.engine != before.engine && body.engine_channel.is_none() {
            work.follows_no_engine(&before).await?;
        }
        if let Some(public_name) = &body.public_name {
            row.public_name = validate::renamed("public_name", &row.public_name, public_name)?;
        }
        if let Some(description) = &body.public_description {
            row.public_description =
                validate::reworded("public_description", &row.public_description, description, MAX_TEXT)?;
        }
        let bound = match body.engine_channel.as_deref() {
            Some("") => work.unbind_engine_channel(&row).await?,
            Some(engine_channel) => work.bind_engine_channel(&mut row, engine_channel).await?,
            None => None,
        };
        row.published = body.published.unwrap_or(row.published);
        if row.published && row.public_name.is_empty() {
            return Err(ServiceError::Invalid("a published channel needs a public_name".to_owned()));
        }
        if row == before && bound.is_none() {
            work.unchanged().await?;
            return Ok(show(row));
        }
        // What was published twice before stays; everything else about it may change.
        if row.published && (!before.published || row.public_name != before.public_name) {
            work.public_name_is_free(&row).await?;
        }
        let (bound_before, bound) = bound.unwrap_or_default();
        let mut connections = work.open_connections_of_server(row.server).await?;
        connections.retain(|connection| connection.channel == Some(id));
        if row.public_name != before.public_name {
            // It stands in the policies of everybody who was granted it.
            for agreement in connections.iter().map(|connection| connection.agreement).collect::<BTreeSet<_>>() {
                self.may_disturb(actor, agreement)?;
            }
        }
        work.update_channel(&row).await.or_conflict(|| name_taken(&row.name))?;
        for connection in &connections {
            work.touch_ends(connection);
        }
        let changes = changes(&[
            ("name", &before.name, &row.name),
            ("engine", &before.engine, &row.engine),
            ("engine_channel", &bound_before, &bound),
            ("published", &before.published, &row.published),
            ("public_name", &before.public_name, &row.public_name),
            ("public_description", &before.public_description, &row.public_description),
        ]);
        work.audit(&[actor.id()], "channel.update", id, changes).await?;
        work.commit().await?;
        Ok(show(row))
    }

    /// Removes a channel: its grants are revoked and their connections end.
    pub async fn delete_channel(&self, actor: &Actor, id: ChannelId) -> ServiceResult<()> {
        actor.may(Act::PublishChannels)?;
        let mut work = self.work_of(actor).await?;
        if let Some(sender) = self.own_sender(work.tx(), actor.id(), id).await? {
            return Err(goes_with_its_connection(&sender));
        }
        let row = own_channel(work.tx(), actor.id(), id).await?;
        actor.check_match(&show(row.clone()))?;
        let (grants, now) = (work.open_grants_of_channel(id).await?, work.now);
        if grants.iter().any(|grant| !is_overdue(grant, now)) {
            // Taking away what partners were granted needs the role that could revoke it.
            actor.may(Act::RevokeGrant)?;
        }
        let name = row.name.clone();
        work.remove_channel(row).await?;
        work.audit(&[actor.id()], "channel.delete", id, name).await?;
        work.commit().await
    }

    /// What the peer of an agreement published.
    pub async fn endpoints(
        &self,
        actor: &Actor,
        agreement: AgreementId,
        paging: &Paging,
    ) -> ServiceResult<Page<PublishedEndpoint>> {
        actor.may(Act::Read)?;
        let slice = paging.slice()?;
        let mut tx = self.storage.read().await?;
        let agreement = own_agreement(&mut *tx, actor.id(), agreement).await?;
        if agreement.status == AgreementStatus::Ended {
            return Err(ServiceError::Blocked("the agreement has ended".to_owned()));
        }
        let rows = tx.endpoints(agreement.other(actor.id()), &slice).await?;
        let stopped = tx.channels_not_started(agreement.other(actor.id())).await?;
        Ok(page(
            rows,
            &slice,
            |row| row.id.to_string(),
            |row| PublishedEndpoint {
                stopped: stopped.contains(&row.id),
                channel_id: row.id,
                name: row.public_name,
                description: row.public_description,
                behavior: row.behavior,
            },
        ))
    }
}

pub(super) async fn own_channel(
    tx: &mut dyn Transaction,
    organization: OrganizationId,
    id: ChannelId,
) -> ServiceResult<ChannelRow> {
    let row = tx.channel(id).await?.filter(|row| row.organization == organization && row.removed_at.is_none());
    row.ok_or(ServiceError::NotFound("channel"))
}

impl Work {
    /// Adds a channel of the organization, published at once if it has a public name.
    pub(super) async fn add_channel(
        &mut self,
        organization: OrganizationId,
        body: CreateChannel,
    ) -> ServiceResult<ChannelRow> {
        let name = validate::name("name", &body.name)?;
        let engine = validate::engine(&body.engine)?;
        let public_name = match &body.public_name {
            Some(public_name) => validate::name("public_name", public_name)?,
            None => String::new(),
        };
        let public_description =
            validate::text("public_description", body.public_description.as_deref().unwrap_or_default(), MAX_TEXT)?;
        let server = own_server(self.tx(), organization, body.server_id).await?;
        let behavior = self.known_behavior(body.behavior.as_deref().unwrap_or(DEFAULT_BEHAVIOR)).await?;
        self.has_room(organization, Counted::Channels(server.id)).await?;
        let (ms, random) = self.seed();
        let row = ChannelRow {
            id: ChannelId::new(ms, random),
            organization,
            server: server.id,
            name,
            engine,
            behavior,
            published: !public_name.is_empty(),
            public_name,
            public_description,
            created_at: self.now,
            removed_at: None,
        };
        if row.published {
            self.public_name_is_free(&row).await?;
        }
        self.insert_channel(&row).await.or_conflict(|| name_taken(&row.name))?;
        self.audit(&[organization], "channel.create", row.id, row.name.clone()).await?;
        Ok(row)
    }

    /// Partners choose by public name: two of one server that look the same cannot be told apart.
    async fn public_name_is_free(&mut self, row: &ChannelRow) -> ServiceResult<()> {
        let wanted = names::fold(&row.public_name);
        let channels = self.channels_of_server(row.server).await?;
        let other = channels
            .iter()
            .find(|other| other.id != row.id && other.published && names::fold(&other.public_name) == wanted);
        match other {
            Some(other) => Err(ServiceError::Conflict(format!(
                "this server publishes its channel '{}' as '{}' already: choose another public name, or withdraw that one first",
                other.name, other.public_name
            ))),
            None => Ok(()),
        }
    }

    /// Removes a channel with everything that stands on it.
    pub(super) async fn remove_channel(&mut self, mut row: ChannelRow) -> ServiceResult<()> {
        for grant in self.open_grants_of_channel(row.id).await? {
            self.end_grant(grant, GrantAct::Close, Side::System).await?;
        }
        row.published = false;
        row.removed_at = Some(self.now);
        Ok(self.update_channel(&row).await?)
    }
}

fn name_taken(name: &str) -> String {
    format!("this server has a channel called '{name}' already")
}

pub(super) fn show(row: ChannelRow) -> Channel {
    Channel {
        id: row.id,
        server_id: row.server,
        name: row.name,
        direction: ChannelDirection::Listener,
        engine: row.engine,
        local_port: None,
        connection_id: None,
        feeds: None,
        behavior: row.behavior,
        published: row.published,
        public_name: row.public_name,
        public_description: row.public_description,
        created_at: row.created_at,
    }
}
