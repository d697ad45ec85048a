//! The engines beside gateways: what their gateways tell of them, and registered channels kept in step.
//!
//! A registered channel is linked to a channel of the engine by the engine's own id. When that one is renamed the internal
//! name follows, when its port moves the policy follows, when it is stopped or deleted its owner sees which, and partners
//! see that it is stopped. What is new in the engine is a proposal: publishing takes a person. So does binding a registered
//! channel to another one of the engine, for example to the same one that was deleted and imported anew under another id.
//!
//! The policy names the engine's id: the gateway lets nothing through to another channel on the same port.

mod follow;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use gateway_proto::{
    api::{
        engine::{EngineLink, PublishEngineChannel, ServerEngine},
        gateway::{EngineHead, EngineReport, MAX_REPORT_ENGINE_CHANNELS, MAX_REPORT_ENGINE_LINES},
        platform::{Channel, CreateChannel},
    },
    engine::{
        EngineChannel, EngineState, MAX_CHANNELS, MAX_DESTINATIONS, clean,
        plan::{EndState, Plan, Registered, plan, step},
    },
    id::{ChannelId, ServerId},
};

use self::follow::{links, registered};
use super::{
    Actor, GatewayCaller, Service, ServiceError, ServiceResult, Work, channels::show, permission::Act,
    servers::own_server, validate,
};
use crate::{
    storage::{ChannelRow, EngineLinkRow, EngineRow, Transaction},
    watchers::brief,
};

/// The longest id of an engine's channel.
const MAX_ENGINE_ID: usize = 64;

impl Service {
    /// Takes news of an engine from the gateway beside it, and has the registered channels follow them.
    pub async fn gateway_engine(&self, caller: &GatewayCaller, report: EngineReport) -> ServiceResult<()> {
        let report = checked(report)?;
        let is_whole = report.head.state == EngineState::Up && !report.more;
        let Some((mut work, server)) = self.work_of_gateway(caller).await? else { return Ok(()) };
        if report.complete {
            work.delete_engine_channels(server.id).await?;
        }
        for id in &report.gone {
            work.delete_engine_channel(server.id, id).await?;
        }
        let known = work.engine_channel_ids(server.id).await?;
        let mut room = MAX_CHANNELS.saturating_sub(known.len());
        for channel in &report.channels {
            let is_new = !known.contains(&channel.id);
            if is_new && room == 0 {
                continue;
            }
            room -= usize::from(is_new);
            work.put_engine_channel(server.id, channel).await?;
        }
        let reported_at = work.now;
        work.put_engine(&EngineRow { server: server.id, head: report.head, reported_at }).await?;
        work.commit().await?;
        if is_whole {
            self.keep_in_step(caller).await?;
        }
        Ok(())
    }

    /// The engine beside an own server, what of it is registered, and what is not.
    pub async fn server_engine(&self, actor: &Actor, id: ServerId) -> ServiceResult<ServerEngine> {
        actor.may(Act::Read)?;
        let mut tx = self.storage.read().await?;
        let server = own_server(&mut *tx, actor.id(), id).await?;
        let engine = tx.engine(server.id).await?;
        let channels = tx.engine_channels(server.id).await?;
        let links = tx.engine_links(server.id).await?;
        let Plan { proposals, .. } = compare(&mut *tx, server.id, &channels).await?;
        Ok(ServerEngine {
            server_id: server.id,
            head: engine.as_ref().map(|engine| engine.head.clone()),
            reported_at: engine.map(|engine| engine.reported_at),
            links: links
                .into_iter()
                .map(|link| EngineLink {
                    channel_id: link.channel,
                    engine_channel: link.engine_channel,
                    state: link.state,
                })
                .collect(),
            channels,
            proposals,
        })
    }

    /// Registers a channel that the engine has, published under a public name.
    pub async fn publish_engine_channel(
        &self,
        actor: &Actor,
        id: ServerId,
        body: PublishEngineChannel,
    ) -> ServiceResult<Channel> {
        actor.may(Act::PublishChannels)?;
        let mut work = self.work_of(actor).await?;
        let server = own_server(work.tx(), actor.id(), id).await?;
        let channels = work.engine_channels(server.id).await?;
        let links = work.engine_links(server.id).await?;
        let found = channels.iter().find(|channel| channel.id == body.engine_channel);
        let found = found.ok_or(ServiceError::NotFound("channel of the engine"))?;
        if links.iter().any(|link| link.engine_channel == found.id) {
            return Err(ServiceError::Conflict(format!("the engine's channel '{}' is registered already", found.name)));
        }
        let (address, behavior) = reached(found)?;
        let body = CreateChannel {
            server_id: server.id,
            name: body.name.unwrap_or_else(|| found.name.clone()),
            engine: address.to_string(),
            behavior: Some(behavior.to_owned()),
            public_name: Some(body.public_name),
            public_description: body.public_description,
        };
        let channel = work.add_channel(actor.id(), body).await?;
        let state = compare_one(&channel.id, found);
        let engine_channel = found.id.clone();
        work.put_engine_link(&EngineLinkRow { channel: channel.id, server: server.id, engine_channel, state }).await?;
        work.commit().await?;
        Ok(show(channel))
    }
}

impl Work {
    /// Refuses to move a channel by hand that follows the engine: the policy would name a channel of the engine and a port
    /// that is not this one's, until the engine's next news set it right again.
    pub(super) async fn follows_no_engine(&mut self, row: &ChannelRow) -> ServiceResult<()> {
        let Some(link) = self.engine_link(row.id).await? else { return Ok(()) };
        let found = self.engine_channel(row.server, &link.engine_channel).await?;
        let name = found.map_or(link.engine_channel, |found| found.name);
        Err(ServiceError::Conflict(format!(
            "this channel follows the engine's channel '{name}', which says where it is reached ({}): give that one \
             another port in the engine, and this one follows; or bind this one to another channel of the engine \
             (engine_channel); or let it follow none any more: an empty engine_channel together with engine \
             (gateway-ctl channel update CHANNEL --unlink --engine IP:PORT)",
            row.engine
        )))
    }

    /// Lets a registered channel follow the engine no more; the engine's id until now, none if it followed none. While a
    /// channel of the engine listens where it is reached, the engine's next news link the two again.
    pub(super) async fn unbind_engine_channel(&mut self, row: &ChannelRow) -> ServiceResult<Option<(String, String)>> {
        let Some(link) = self.engine_link(row.id).await? else { return Ok(None) };
        self.delete_engine_link(row.id).await?;
        Ok(Some((link.engine_channel, String::new())))
    }

    /// Binds a registered channel to another one of its server's engine, and has it reached where that one listens; the
    /// engine's ids before and after, none if it is that one already.
    pub(super) async fn bind_engine_channel(
        &mut self,
        row: &mut ChannelRow,
        wanted: &str,
    ) -> ServiceResult<Option<(String, String)>> {
        let channels = self.engine_channels(row.server).await?;
        let found = channels.iter().find(|channel| channel.id == wanted);
        let found = found.ok_or(ServiceError::NotFound("channel of the engine"))?;
        let links = self.engine_links(row.server).await?;
        if links.iter().any(|link| link.engine_channel == found.id && link.channel != row.id) {
            return Err(ServiceError::Conflict(format!("the engine's channel '{}' is registered already", found.name)));
        }
        let (address, behavior) = reached(found)?;
        // What partners were granted is a kind of exchange; a listener of plain TCP may be for any.
        if behavior != row.behavior && behavior != "tcp" {
            return Err(ServiceError::Invalid(format!(
                "the engine's channel '{}' is for {behavior}, and this one was published for {}",
                found.name, row.behavior
            )));
        }
        row.engine = validate::engine(&address.to_string())?;
        let before = links.into_iter().find(|link| link.channel == row.id).map(|link| link.engine_channel);
        if before.as_ref() == Some(&found.id) {
            return Ok(None);
        }
        let state = compare_one(&row.id, found);
        let engine_channel = found.id.clone();
        self.put_engine_link(&EngineLinkRow { channel: row.id, server: row.server, engine_channel, state }).await?;
        Ok(Some((before.unwrap_or_default(), found.id.clone())))
    }
}

/// Where a channel of an engine is reached, and its behavior.
fn reached(found: &EngineChannel) -> ServiceResult<(SocketAddr, &str)> {
    let listener = found
        .listening()
        .ok_or_else(|| ServiceError::Invalid(format!("the engine's channel '{}' listens on no port", found.name)))?;
    listener.address.zip(listener.behavior.as_deref()).ok_or_else(|| {
        ServiceError::Invalid(format!(
            "where the engine's channel '{}' is reached is not known; register it by hand with its ip:port",
            found.name
        ))
    })
}

/// The registered channels of a server beside those of its engine.
async fn compare(
    tx: &mut dyn Transaction,
    server: ServerId,
    found: &[EngineChannel],
) -> ServiceResult<Plan<ChannelId>> {
    let links = links(tx, server).await?;
    let rows = tx.channels_of_server(server).await?;
    let registered: Vec<_> = rows.iter().filter_map(|row| registered(row, links.get(&row.id))).collect();
    Ok(plan(&registered, found))
}

fn compare_one(channel: &ChannelId, found: &EngineChannel) -> EndState {
    let registered = found.listening().and_then(|listener| listener.address).map(|address| Registered {
        key: *channel,
        name: found.name.clone(),
        address,
        engine_channel: Some(found.id.clone()),
    });
    let step = registered.and_then(|known| step(&known, found.id.clone(), Some(found)));
    step.map_or(EndState::Missing, |step| step.state)
}

/// A report within its limits, its texts cut: a gateway may have been taken over.
fn checked(report: EngineReport) -> ServiceResult<EngineReport> {
    let EngineReport { head, complete, more, channels, gone } = report;
    let too_many = |what: &str| Err(ServiceError::Invalid(format!("too many {what} in one report")));
    if channels.len() > MAX_REPORT_ENGINE_CHANNELS || gone.len() > MAX_REPORT_ENGINE_CHANNELS {
        return too_many("channels");
    }
    if head.senders.len() > MAX_REPORT_ENGINE_LINES || head.advice.len() > MAX_REPORT_ENGINE_LINES {
        return too_many("lines");
    }
    let is_id = |id: &str| !id.is_empty() && id.len() <= MAX_ENGINE_ID && id.chars().all(|c| c.is_ascii_graphic());
    if !channels.iter().map(|channel| &channel.id).chain(&gone).all(|id| is_id(id)) {
        return Err(ServiceError::Invalid("not an id of an engine's channel".to_owned()));
    }
    let head = EngineHead {
        version: head.version.as_deref().map(clean),
        problem: head.problem.as_deref().map(brief),
        advice: head.advice.iter().map(|line| brief(line)).collect(),
        senders: head
            .senders
            .into_iter()
            .map(|mut sender| {
                sender.destinations.truncate(MAX_DESTINATIONS);
                sender.destinations = sender.destinations.iter().map(|name| brief(name)).collect();
                sender
            })
            .collect(),
        ..head
    };
    let channels = channels.into_iter().map(|mut channel| {
        channel.name = clean(&channel.name);
        if let Some(listener) = &mut channel.listener {
            listener.transport = clean(&listener.transport);
            listener.host = clean(&listener.host);
            listener.behavior = listener.behavior.as_deref().map(clean);
        }
        channel.destinations.truncate(MAX_DESTINATIONS);
        for destination in &mut channel.destinations {
            destination.name = clean(&destination.name);
            destination.transport = clean(&destination.transport);
            destination.host = destination.host.as_deref().map(clean);
        }
        channel
    });
    Ok(EngineReport { head, complete, more, channels: channels.collect(), gone })
}
