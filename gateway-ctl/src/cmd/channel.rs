//! `gateway-ctl channel`: listener channels of the own servers, and what partners see of them.

pub(crate) mod discover;

use clap::{Args, Subcommand};
use discover::{Discover, Proposal};
use gateway_proto::{
    api::{
        engine::PublishEngineChannel,
        platform::{self, CreateChannel, UpdateChannel},
    },
    id::ChannelId,
};

use crate::{
    args::Confirmed,
    client::Control,
    cmd::{Context, server},
    error::CtlError,
    output::{View, or_dash, time},
    resolve::{self, Named},
};

const PATH: &str = "/channels";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Channel {
    /// List the channels.
    List,
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
    /// Change a channel; what is not named stays.
    Update(Update),
    /// Delete a channel; its grants and connections end.
    Delete(Confirmed<One>),
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
            Self::List => return list(context, &control).await,
            Self::Discover(discover) => return discover.run(context, &control).await,
            Self::Create(create) => create.run(&control).await?,
            Self::Access(One { channel }) => {
                let id = channel_id(&control, &channel).await?;
                let entries: Vec<platform::AccessEntry> =
                    control.list(&format!("{PATH}/{id}/access"), &[], None).await?;
                return context.out.list(&entries);
            }
            Self::Show(One { channel }) => {
                let id = channel_id(&control, &channel).await?;
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
                let id = channel_id(&control, &channel).await?;
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
        let registered = match (&server, &name) {
            (None, None) => channel_id(control, &one.channel).await.map(Some),
            (_, _) => Ok(None),
        };
        match registered {
            Ok(Some(id)) => {
                let published = Some(true);
                let body = UpdateChannel { published, public_name, public_description: description, ..unchanged };
                Ok(control.patch(&format!("{PATH}/{id}"), &body).await?)
            }
            Err(error) if !matches!(error, CtlError::Resolve(resolve::ResolveError::Unknown { .. })) => Err(error),
            Ok(None) | Err(_) => {
                let body = PublishEngineChannel {
                    engine_channel: String::new(),
                    name,
                    public_name: String::new(),
                    public_description: description,
                };
                let mut proposal = Proposal::find(control, &one.channel, server.as_deref(), body).await?;
                proposal.name_publicly(public_name)?;
                proposal.publish(control).await
            }
        }
    }
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
        let id = channel_id(control, &self.channel).await?;
        Ok(control.patch(&format!("{PATH}/{id}"), body).await?)
    }
}

async fn list(context: &mut Context, control: &Control) -> Result<(), CtlError> {
    let channels: Vec<platform::Channel> = control.list(PATH, &[], None).await?;
    if context.out.is_json() {
        return context.out.json(&channels);
    }
    let places = places(control, channels).await?;
    let headers = ["SERVER", "NAME", "ENGINE", "BEHAVIOR", "PUBLISHED AS", "ID"];
    context.out.table(&(), &headers, || places.iter().map(Place::row).collect())
}

/// The own channel that `wanted` names.
pub(crate) async fn channel_id(control: &Control, wanted: &str) -> Result<ChannelId, CtlError> {
    if let Ok(id) = wanted.parse() {
        return Ok(id);
    }
    let places = places(control, control.list(PATH, &[], None).await?).await?;
    Ok(resolve::pick(wanted, &places, |_| true)?.channel.id)
}

/// A channel with the name of its server: names of channels are unique on a server only.
#[derive(Debug)]
struct Place {
    channel: platform::Channel,
    server: String,
}

async fn places(control: &Control, channels: Vec<platform::Channel>) -> Result<Vec<Place>, CtlError> {
    let servers = server::all(control).await?;
    let name = |channel: &platform::Channel| {
        let server = servers.iter().find(|server| server.id == channel.server_id);
        server.map_or_else(|| channel.server_id.to_string(), |server| server.name.clone())
    };
    Ok(channels.into_iter().map(|channel| Place { server: name(&channel), channel }).collect())
}

impl Place {
    fn row(&self) -> Vec<String> {
        let Self { channel, server } = self;
        let (name, engine) = (channel.name.clone(), channel.engine.clone());
        vec![server.clone(), name, engine, channel.behavior.clone(), published(channel), channel.id.to_string()]
    }
}

impl Named for Place {
    type Id = ChannelId;
    const KIND: &'static str = "channel";
    const LIST: &'static str = "channel list";

    fn id(&self) -> ChannelId {
        self.channel.id
    }

    fn names(&self) -> Vec<String> {
        let Self { channel, server } = self;
        // An unpublished channel may have no public name yet.
        let public = Some(channel.public_name.clone()).filter(|name| !name.is_empty());
        [channel.name.clone(), format!("{server}/{}", channel.name)].into_iter().chain(public).collect()
    }

    fn describe(&self) -> String {
        format!("{}/{}, published: {}", self.server, self.channel.name, published(&self.channel))
    }
}

impl View for platform::Channel {
    const HEADERS: &'static [&'static str] = &["NAME", "ENGINE", "PUBLISHED AS", "ID"];

    fn row(&self, _now: u64) -> Vec<String> {
        vec![self.name.clone(), self.engine.clone(), published(self), self.id.to_string()]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        vec![
            ("Id", self.id.to_string()),
            ("Server", self.server_id.to_string()),
            ("Name", self.name.clone()),
            ("Engine", self.engine.clone()),
            ("Behavior", self.behavior.clone()),
            ("Published as", published(self)),
            ("Description", self.public_description.clone()),
            ("Created", time::relative(now, self.created_at)),
        ]
    }
}

fn published(channel: &platform::Channel) -> String {
    or_dash(channel.published.then_some(&channel.public_name))
}
