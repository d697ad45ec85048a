//! Registered channels kept in step with those of the engine.
//!
//! An engine may have two thousand channels, and all of them may have moved: what has to be followed is found in one look
//! ([`plan()`]), and followed some channels at a time, each portion in a transaction of its own with a turn of its own, so that others
//! go between. Each is looked at again there: a person may have bound it to another channel meanwhile, and the engine may have
//! told something newer. What is not followed to the end, because the gateway or this process went away, is found in the next report.
//!
//! Where a channel is reached is in the policy of its own server and in no other one: nobody else's is compiled.

use std::collections::BTreeMap;

use gateway_proto::{
    engine::{
        EngineChannel,
        plan::{EndState, Registered, Step, plan, step},
    },
    id::{ChannelId, ServerId},
};

use super::super::{GatewayCaller, Service, ServiceResult, Work, validate};
use crate::storage::{ChannelRow, EngineLinkRow, Transaction};

/// Channels followed in one transaction: some 10 ms.
const STEPS_AT_ONCE: usize = 20;

/// A registered channel that is behind, and which channel of the engine it is.
type Behind = (ChannelId, String);

impl Service {
    /// Registered channels follow what the engine says of them.
    pub(super) async fn keep_in_step(&self, caller: &GatewayCaller) -> ServiceResult<()> {
        let behind = self.behind(caller).await?;
        for some in behind.chunks(STEPS_AT_ONCE) {
            let Some((mut work, server)) = self.work_of_gateway(caller).await? else { return Ok(()) };
            for (channel, engine_channel) in some {
                work.follow(server.id, *channel, engine_channel).await?;
            }
            work.commit().await?;
        }
        Ok(())
    }

    /// What has to follow, in a turn of its gateways.
    async fn behind(&self, caller: &GatewayCaller) -> ServiceResult<Vec<Behind>> {
        let _turn = self.turn_to_tell(caller.organization).await?;
        let mut tx = self.storage.read_for_gateways().await?;
        let found = tx.engine_channels(caller.server).await?;
        let links = links(&mut *tx, caller.server).await?;
        let rows = tx.channels_of_server(caller.server).await?;
        drop(tx);
        let registered: Vec<_> = rows.iter().filter_map(|row| registered(row, links.get(&row.id))).collect();
        let rows: BTreeMap<_, _> = rows.into_iter().map(|row| (row.id, row)).collect();
        let steps = plan(&registered, &found).steps;
        let is_behind = |step: &Step<ChannelId>| {
            let is_other_state = links.get(&step.key).is_none_or(|link| link.state != step.state);
            is_other_state || rows.get(&step.key).is_some_and(|row| followed(row, step) != *row)
        };
        Ok(steps.into_iter().filter(is_behind).map(|step| (step.key, step.engine_channel)).collect())
    }
}

impl Work {
    /// One registered channel follows; `recognised`: which channel of the engine it is, where that is not known yet.
    pub(super) async fn follow(&mut self, server: ServerId, channel: ChannelId, recognised: &str) -> ServiceResult<()> {
        let row = self.channel(channel).await?.filter(|row| row.removed_at.is_none() && row.server == server);
        let Some(row) = row else { return Ok(()) };
        let link = self.engine_link(channel).await?;
        let id = link.as_ref().map_or(recognised, |link| link.engine_channel.as_str()).to_owned();
        let found = self.engine_channel(server, &id).await?;
        let Some(known) = registered(&row, link.as_ref()) else { return Ok(()) };
        if link.is_none() && !self.is_still_recognised(server, &known, &id, found.as_ref()).await? {
            return Ok(());
        }
        let Some(step) = step(&known, id, found.as_ref()) else { return Ok(()) };
        let mut now = followed(&row, &step);
        if now.name != row.name && self.channel_named(server, &now.name).await?.is_some_and(|other| other != channel) {
            now.name.clone_from(&row.name);
        }
        let news = self.follow_in_state(server, &row, link.as_ref(), &step).await?;
        self.write_followed(&row, &now, news).await
    }

    /// Notes which channel of the engine a registered one is, and whether it is started; what of it is worth an entry in the log.
    async fn follow_in_state(
        &mut self,
        server: ServerId,
        row: &ChannelRow,
        link: Option<&EngineLinkRow>,
        step: &Step<ChannelId>,
    ) -> ServiceResult<Option<String>> {
        if link.is_some_and(|link| link.state == step.state) {
            return Ok(None);
        }
        let engine_channel = step.engine_channel.clone();
        self.put_engine_link(&EngineLinkRow { channel: row.id, server, engine_channel, state: step.state }).await?;
        if link.is_none() {
            // From now on the policy says which channel of the engine it is for.
            self.touch(server);
            return Ok(Some(format!("recognised as the engine's channel {}", step.engine_channel)));
        }
        let is_written = row.published && self.service().rates.engine_ends.check(&row.id).is_ok();
        Ok(is_written.then(|| became(step.state).to_owned()))
    }

    async fn write_followed(
        &mut self,
        before: &ChannelRow,
        now: &ChannelRow,
        news: Option<String>,
    ) -> ServiceResult<()> {
        let mut news = Vec::from_iter(news);
        if now.name != before.name {
            news.push(format!("renamed from '{}' to '{}'", before.name, now.name));
        }
        if now.engine != before.engine {
            news.push(format!("moved from {} to {}", before.engine, now.engine));
            self.touch(now.server);
        }
        if now != before {
            self.update_channel(now).await?;
        }
        if !news.is_empty() {
            self.audit(&[now.organization], "channel.follow", now.id, news.join(", ")).await?;
        }
        Ok(())
    }

    /// Whether a registered channel is still this one of the engine by its port, and no other registered channel is.
    async fn is_still_recognised(
        &mut self,
        server: ServerId,
        known: &Registered<ChannelId>,
        id: &str,
        found: Option<&EngineChannel>,
    ) -> ServiceResult<bool> {
        let listens = found.and_then(EngineChannel::listening).and_then(|listener| listener.address);
        Ok(listens == Some(known.address) && self.linked_channel(server, id).await?.is_none())
    }
}

/// The channel as the engine says that it is now. What cannot be a name or an address here is left as it was.
fn followed(row: &ChannelRow, step: &Step<ChannelId>) -> ChannelRow {
    let mut now = row.clone();
    if let Some(name) = step.name.as_deref().and_then(|name| validate::name("name", name).ok()) {
        now.name = name;
    }
    if let Some(engine) = step.address.and_then(|address| validate::engine(&address.to_string()).ok()) {
        now.engine = engine;
    }
    now
}

/// Which registered channels of a server are which of its engine.
pub(super) async fn links(
    tx: &mut dyn Transaction,
    server: ServerId,
) -> ServiceResult<BTreeMap<ChannelId, EngineLinkRow>> {
    Ok(tx.engine_links(server).await?.into_iter().map(|link| (link.channel, link)).collect())
}

/// A channel as it is compared with those of the engine; none: where it is reached cannot be read.
pub(super) fn registered(row: &ChannelRow, link: Option<&EngineLinkRow>) -> Option<Registered<ChannelId>> {
    Some(Registered {
        key: row.id,
        name: row.name.clone(),
        address: row.engine.parse().ok()?,
        engine_channel: link.map(|link| link.engine_channel.clone()),
    })
}

fn became(state: EndState) -> &'static str {
    match state {
        EndState::Started => "started in the engine",
        EndState::Stopped => "stopped in the engine",
        EndState::Missing => "deleted in the engine, or it listens no more",
    }
}
