//! `gateway-ctl channel`: channels of the own servers, and what partners see of the listeners among them.

pub(crate) mod discover;
mod show;

use clap::{Args, Subcommand, ValueEnum};
use discover::{Discover, Proposal};
use gateway_proto::{
    api::{
        engine::PublishEngineChannel,
        platform::{self, CreateChannel, UpdateChannel},
    },
    id::ChannelId,
};

pub(crate) use self::show::channel_id;
use self::show::{id_of_any, list, sender_id};
use crate::{
    args::Confirmed,
    client::Control,
    cmd::{Context, server},
    error::CtlError,
    resolve,
};

const PATH: &str = "/channels";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Channel {
    /// List the channels: the listeners, and the senders that their engines deliver through.
    List(List),
    /// Show what the engines have, what of it is registered, and what differs.
    Discover(Discover),
    /// Add a channel.
    Create(Create),
    /// Show a channel.
    Show(One),
    /// Who has access to it, and who was offered or asked for it.
    Access(One),
    /// Let partners see it under its public name; also a channel that an engine has and nobody registered yet.
    Publish(Publish),
    /// Hide it from partners; what was granted stays.
    Unpublish(One),
    /// Change a channel; what is not named stays. Of a sender, the name may change.
    Update(Update),
    /// Delete a channel; its grants and connections end.
    Delete(Confirmed<One>),
}

/// Which channels.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Those of one direction only.
    #[arg(long, value_enum)]
    direction: Option<Direction>,
}

/// Directions, from the engine's point of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
    /// Receives from partners.
    Listener,
    /// Delivers to one partner.
    Sender,
}

/// A new channel.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Name or id of the server.
    #[arg(long)]
    server: String,
    /// Internal name; no partner ever sees it.
    #[arg(long)]
    name: String,
    /// Where the engine listens, seen from the gateway, for example 127.0.0.1:6661.
    #[arg(long, value_name = "IP:PORT")]
    engine: String,
    /// Kind of exchange; default hl7v2-mllp.
    #[arg(long)]
    behavior: Option<String>,
    /// Publish it at once under this public name.
    #[arg(long, value_name = "PUBLIC_NAME")]
    publish: Option<String>,
    /// Public description.
    #[arg(long)]
    description: Option<String>,
}

/// A channel.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// Name, `SERVER/NAME`, public name or id.
    channel: String,
}

/// A channel to publish.
#[derive(Debug, Args)]
pub(crate) struct Publish {
    #[command(flatten)]
    one: One,
    /// Public name; default: the one it has.
    #[arg(long, value_name = "NAME")]
    public_name: Option<String>,
    /// Public description; default: the one it has.
    #[arg(long)]
    description: Option<String>,
    /// Name or id of the server, for a channel that is not registered yet.
    #[arg(long)]
    server: Option<String>,
    /// Internal name of a channel that is not registered yet; default: the engine's.
    #[arg(long)]
    name: Option<String>,
}

/// Changes.
#[derive(Debug, Args)]
pub(crate) struct Update {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    changes: Changes,
}

/// What may change.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Changes {
    /// New internal name.
    #[arg(long)]
    name: Option<String>,
    /// New port of the engine; of a channel that follows the engine, the engine says it.
    #[arg(long, value_name = "IP:PORT")]
    engine: Option<String>,
    /// Let it follow the engine no more, and be reached where `--engine` says.
    #[arg(long, requires = "engine", conflicts_with = "engine_channel")]
    unlink: bool,
    /// Bind it to another channel of the engine beside its server, by that one's id or name in the engine.
    #[arg(long, value_name = "CHANNEL", conflicts_with = "engine")]
    engine_channel: Option<String>,
    /// New public name.
    #[arg(long, value_name = "NAME")]
    public_name: Option<String>,
    /// New public description.
    #[arg(long)]
    description: Option<String>,
}

impl Channel {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let control = context.control()?;
        let unchanged = UpdateChannel {
            name: None,
            engine: None,
            engine_channel: None,
            published: None,
            public_name: None,
            public_description: None,
        };
        let channel = match self {
            Self::List(List { direction }) => return list(context, &control, direction).await,
            Self::Discover(discover) => return discover.run(context, &control).await,
            Self::Create(create) => create.run(&control).await?,
            Self::Access(One { channel }) => {
                // The platform says why a sender has none, and where to look; so with the others that are for listeners.
                let id = id_of_any(&control, &channel).await?;
                let entries: Vec<platform::AccessEntry> =
                    control.list(&format!("{PATH}/{id}/access"), &[], None).await?;
                return context.out.list(&entries);
            }
            Self::Show(One { channel }) => {
                let id = id_of_any(&control, &channel).await?;
                control.get(&format!("{PATH}/{id}")).await?
            }
            Self::Publish(publish) => publish.run(&control, unchanged).await?,
            Self::Unpublish(one) => {
                one.update(&control, &UpdateChannel { published: Some(false), ..unchanged }).await?
            }
            Self::Update(Update { one, changes }) => {
                let Changes { name, engine, unlink, engine_channel, public_name, description } = changes;
                let body = UpdateChannel {
                    name,
                    engine,
                    engine_channel: unlink.then(String::new),
                    public_name,
                    public_description: description,
                    ..unchanged
                };
                one.update(&control, &one.bound(&control, engine_channel, body).await?).await?
            }
            Self::Delete(Confirmed { one: One { channel }, confirm }) => {
                let id = id_of_any(&control, &channel).await?;
                confirm.ask(&format!("Delete the channel '{channel}' ({id}), its grants and its connections"))?;
                control.delete(&format!("{PATH}/{id}")).await?;
                return context.out.deed("channel.delete", id, &format!("Deleted the channel '{channel}'."));
            }
        };
        context.out.item(&channel)
    }
}

impl Create {
    async fn run(self, control: &Control) -> Result<platform::Channel, CtlError> {
        let body = CreateChannel {
            server_id: server::server_id(control, &self.server).await?,
            name: self.name,
            engine: self.engine,
            behavior: self.behavior,
            public_name: self.publish,
            public_description: self.description,
        };
        Ok(control.post(PATH, &body).await?)
    }
}

impl Publish {
    async fn run(self, control: &Control, unchanged: UpdateChannel) -> Result<platform::Channel, CtlError> {
        let Self { one, public_name, description, server, name } = self;
        let may_be_registered = server.is_none() && name.is_none();
        let found = if may_be_registered { known(channel_id(control, &one.channel).await)? } else { None };
        let id = match found {
            Some(id) => id,
            None => {
                let body = PublishEngineChannel {
                    engine_channel: String::new(),
                    name,
                    public_name: String::new(),
                    public_description: description.clone(),
                };
                if let Some(mut proposal) = Proposal::find(control, &one.channel, server.as_deref(), body).await? {
                    proposal.name_publicly(public_name)?;
                    return proposal.publish(control).await;
                }
                // Last, because partners choose what a sender is called that nobody named.
                let sender = if may_be_registered { known(sender_id(control, &one.channel).await)? } else { None };
                sender.ok_or_else(|| nowhere(&one.channel))?
            }
        };
        let body = UpdateChannel { published: Some(true), public_name, public_description: description, ..unchanged };
        Ok(control.patch(&format!("{PATH}/{id}"), &body).await?)
    }
}

/// What a name means; none: nothing.
fn known(found: Result<ChannelId, CtlError>) -> Result<Option<ChannelId>, CtlError> {
    match found {
        Err(CtlError::Resolve(resolve::ResolveError::Unknown { .. })) => Ok(None),
        found => found.map(Some),
    }
}

/// Neither the platform nor an engine has a channel of this name.
fn nowhere(wanted: &str) -> CtlError {
    CtlError::No(format!(
        "there is no channel '{wanted}', neither registered nor proposed by an engine: see `gateway-ctl channel list` and \
         `gateway-ctl channel discover`"
    ))
}

impl One {
    /// Changes that also bind it to the channel of the engine that `wanted` names, if it names one.
    async fn bound(
        &self,
        control: &Control,
        wanted: Option<String>,
        body: UpdateChannel,
    ) -> Result<UpdateChannel, CtlError> {
        let Some(wanted) = wanted else { return Ok(body) };
        let id = channel_id(control, &self.channel).await?;
        let channel: platform::Channel = control.get(&format!("{PATH}/{id}")).await?;
        let engine_channel = discover::engine_channel(control, channel.server_id, &wanted).await?;
        Ok(UpdateChannel { engine_channel: Some(engine_channel), ..body })
    }

    async fn update(&self, control: &Control, body: &UpdateChannel) -> Result<platform::Channel, CtlError> {
        let id = id_of_any(control, &self.channel).await?;
        Ok(control.patch(&format!("{PATH}/{id}"), body).await?)
    }
}
