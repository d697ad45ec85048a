//! `gateway-ctl channel discover`: what the engines have, what of it is registered, what differs, and what could be published.

use clap::Args;
use gateway_proto::{
    api::{
        engine::{PublishEngineChannel, ServerEngine},
        gateway::SenderPort,
        platform::{self, Server},
    },
    engine::{EngineChannel, plan::EndState},
    id::ServerId,
};

use crate::{
    client::Control,
    cmd::{Context, server},
    error::CtlError,
    output::{table, time, word},
    resolve,
};

/// Which engines to look at.
#[derive(Debug, Args)]
pub(crate) struct Discover {
    /// Name or id of the server; default: all of them.
    #[arg(long)]
    server: Option<String>,
}

impl Discover {
    pub(super) async fn run(self, context: &mut Context, control: &Control) -> Result<(), CtlError> {
        let servers = servers(control, self.server.as_deref()).await?;
        let mut engines = Vec::with_capacity(servers.len());
        for server in &servers {
            engines.push(engine(control, server).await?);
        }
        if context.out.is_json() {
            return context.out.json(&engines);
        }
        let channels: Vec<platform::Channel> = control.list(super::PATH, &[("direction", "any")], None).await?;
        for (server, engine) in servers.iter().zip(&engines) {
            for line in render(server, engine, &channels, gateway_net::time::unix_secs()) {
                context.out.line(&line)?;
            }
        }
        Ok(())
    }
}

/// The engine beside a server.
pub(crate) async fn engine(control: &Control, server: &Server) -> Result<ServerEngine, CtlError> {
    Ok(control.get(&format!("/servers/{}/engine", server.id)).await?)
}

/// The engine's id of the channel that `wanted` names, by that id or by the engine's name.
pub(super) async fn engine_channel(control: &Control, server: ServerId, wanted: &str) -> Result<String, CtlError> {
    let engine: ServerEngine = control.get(&format!("/servers/{server}/engine")).await?;
    let fits = |channel: &&EngineChannel| channel.id == wanted || channel.name == wanted;
    let found: Vec<_> = engine.channels.iter().filter(fits).map(|channel| channel.id.clone()).collect();
    match <[String; 1]>::try_from(found) {
        Ok([id]) => Ok(id),
        Err(none) if none.is_empty() => {
            Err(CtlError::No(format!("the engine has no channel '{wanted}': see `gateway-ctl channel discover`")))
        }
        Err(several) => Err(CtlError::No(format!(
            "'{wanted}' fits {} channels of the engine; say which one by the engine's id: {}",
            several.len(),
            several.join(", ")
        ))),
    }
}

/// One line about an engine.
pub(crate) fn summary(engine: &ServerEngine, now: u64) -> String {
    let (Some(head), Some(at)) = (&engine.head, engine.reported_at) else {
        return "not known: no [engine] user is configured at its gateway (docs/engine.md)".to_owned();
    };
    let count = |is: fn(&EngineChannel) -> bool| engine.channels.iter().filter(|channel| is(channel)).count();
    let version = head.version.as_ref().map(|version| format!(", version {version}")).unwrap_or_default();
    let [queued, errors] = engine.channels.iter().fold([0, 0], |[queued, errors], channel| {
        [channel.counts.queued.saturating_add(queued), channel.counts.errors.saturating_add(errors)]
    });
    let problem = head.problem.as_ref().map(|problem| format!(": {problem}")).unwrap_or_default();
    format!(
        "{}{problem}{version}, {} of {} channels started, {queued} messages queued, {errors} errors, told {}",
        head.state,
        count(|channel| channel.state == gateway_proto::engine::EngineChannelState::Started),
        engine.channels.len(),
        time::relative(now, at)
    )
}

/// A channel of an engine that is to be published.
#[derive(Debug)]
pub(super) struct Proposal {
    server: Server,
    body: PublishEngineChannel,
}

impl Proposal {
    /// The channel of an engine that `wanted` names, by the engine's id or its name; none: no engine has such a one.
    pub(super) async fn find(
        control: &Control,
        wanted: &str,
        server: Option<&str>,
        body: PublishEngineChannel,
    ) -> Result<Option<Self>, CtlError> {
        let (mut found, mut others) = (Vec::new(), Vec::new());
        for server in servers(control, server).await? {
            let engine = engine(control, &server).await?;
            let fits = |channel: &&EngineChannel| channel.id == wanted || channel.name == wanted;
            for channel in engine.channels.iter().filter(fits) {
                if engine.proposals.contains(&channel.id) {
                    found.push((server.clone(), channel.id.clone()));
                } else {
                    others.push(format!("the one of '{}' {}", server.name, no_proposal(&engine, channel)));
                }
            }
        }
        match found.as_slice() {
            [] if !others.is_empty() => Err(CtlError::No(format!(
                "the channel '{wanted}' of the engine cannot be published: {}",
                others.join("; ")
            ))),
            [] => Ok(None),
            [(server, id)] => {
                let body = PublishEngineChannel { engine_channel: id.clone(), ..body };
                Ok(Some(Self { server: server.clone(), body }))
            }
            several => Err(CtlError::No(format!(
                "'{wanted}' fits {} channels of engines; say which one by its server (--server) or by the engine's id",
                several.len()
            ))),
        }
    }

    /// The public name it gets; nobody else may choose it.
    pub(super) fn name_publicly(&mut self, public_name: Option<String>) -> Result<(), CtlError> {
        let missing = || {
            CtlError::Usage(
                "a channel of an engine is published under a name of your choice: --public-name NAME".into(),
            )
        };
        self.body.public_name = public_name.ok_or_else(missing)?;
        Ok(())
    }

    /// Registers and publishes it.
    pub(super) async fn publish(self, control: &Control) -> Result<platform::Channel, CtlError> {
        Ok(control.post(&format!("/servers/{}/engine/channels", self.server.id), &self.body).await?)
    }
}

/// Why a channel of an engine is none that could be published, after "the one of SERVER".
fn no_proposal(engine: &ServerEngine, channel: &EngineChannel) -> String {
    if engine.links.iter().any(|link| link.engine_channel == channel.id) {
        return "is registered already: see `gateway-ctl channel list`".to_owned();
    }
    match &channel.listener {
        None => "listens on no port".to_owned(),
        Some(listener) if listener.is_unread() => {
            format!("listens on port {}, and more is not read yet; try again in a minute", listener.port)
        }
        Some(listener) if listener.connects_out() => {
            format!("connects out to port {} and listens nowhere; switch its listener to server mode", listener.port)
        }
        Some(listener) => format!(
            "listens on port {} for a kind of exchange that is not known; register it by hand with `gateway-ctl channel \
             create --engine IP:PORT --behavior BEHAVIOR`",
            listener.port
        ),
    }
}

async fn servers(control: &Control, wanted: Option<&str>) -> Result<Vec<Server>, CtlError> {
    let servers = server::all(control).await?;
    match wanted {
        None => Ok(servers),
        Some(wanted) => Ok(vec![resolve::pick(wanted, &servers, |_| true)?.clone()]),
    }
}

fn render(server: &Server, engine: &ServerEngine, registered: &[platform::Channel], now: u64) -> Vec<String> {
    let mut lines = vec![format!("Engine of {}: {}", server.name, summary(engine, now))];
    let name_of = |id| registered.iter().find(|channel| channel.id == id);
    let rows: Vec<_> = engine.channels.iter().map(|channel| row(engine, channel, name_of)).collect();
    if !rows.is_empty() {
        let headers = ["CHANNEL", "STATE", "LISTENS ON", "BEHAVIOR", "REGISTERED AS", "ENGINE ID"];
        lines.extend(table::render(&headers, &rows).lines().map(|line| format!("  {line}")));
    }
    for link in engine.links.iter().filter(|link| link.state == EndState::Missing) {
        if let Some(channel) = name_of(link.channel_id) {
            lines.push(format!(
                "  missing: the engine has no listening channel for '{}' ({}) any more; bind it to another one: \
                 gateway-ctl channel update {} --engine-channel CHANNEL",
                channel.name, channel.id, channel.id
            ));
        }
    }
    let Some(head) = &engine.head else { return lines };
    for sender in &head.senders {
        let users = if sender.destinations.is_empty() { "nothing".to_owned() } else { sender.destinations.join(", ") };
        let state = if sender.closed { ", closed now (the connection is paused or not in force)" } else { "" };
        let name = name_of_sender(sender, registered);
        lines.push(format!("  local port {} of {name}{state}: used by {users}", sender.port));
    }
    lines.extend(head.advice.iter().map(|advice| format!("  advice: {advice}")));
    if head.left_out > 0 {
        lines.push(format!("  {} more channels are not looked at", head.left_out));
    }
    if !engine.proposals.is_empty() {
        lines.push(format!(
            "  publish one: gateway-ctl channel publish CHANNEL --server '{}' --public-name NAME",
            server.name
        ));
    }
    lines
}

/// What people call a sender: by the name that it was given, and where it leads; its connection, if the platform has none of it.
fn name_of_sender(sender: &SenderPort, registered: &[platform::Channel]) -> String {
    match registered.iter().find(|channel| channel.connection_id == Some(sender.connection)) {
        None => sender.connection.to_string(),
        Some(channel) => match channel.feeds.as_ref().filter(|feeds| **feeds != channel.name) {
            None => format!("'{}'", channel.name),
            Some(feeds) => format!("'{}' (feeds {feeds})", channel.name),
        },
    }
}

fn row<'a>(
    engine: &ServerEngine,
    channel: &EngineChannel,
    name_of: impl Fn(gateway_proto::id::ChannelId) -> Option<&'a platform::Channel>,
) -> Vec<String> {
    let (listens, behavior) = match &channel.listener {
        None => ("no port".to_owned(), "-".to_owned()),
        Some(listener) if listener.is_unread() => (format!("not read yet ({})", listener.port), "-".to_owned()),
        Some(listener) if listener.connects_out() => (format!("connects out ({})", listener.port), "-".to_owned()),
        Some(listener) => {
            let address =
                listener.address.map_or_else(|| format!("{}:{}", listener.host, listener.port), |a| a.to_string());
            (address, listener.behavior.clone().unwrap_or_else(|| "-".to_owned()))
        }
    };
    let link = engine.links.iter().find(|link| link.engine_channel == channel.id);
    let registered = match link.and_then(|link| name_of(link.channel_id)) {
        Some(registered) if registered.published => format!("{} ({})", registered.name, registered.public_name),
        Some(registered) => format!("{}, not published", registered.name),
        None if engine.proposals.contains(&channel.id) => "new".to_owned(),
        None => "-".to_owned(),
    };
    let changed = if channel.undeployed_changes { ", changed and not deployed" } else { "" };
    let state = format!("{}{changed}", word(&channel.state).replace('_', " "));
    vec![channel.name.clone(), state, listens, behavior, registered, channel.id.clone()]
}

#[cfg(test)]
mod tests;
