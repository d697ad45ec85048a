//! How channels are listed, shown and found by their names.

use gateway_proto::{
    api::platform::{self, ChannelDirection},
    id::ChannelId,
};

use super::{Direction, PATH};
use crate::{
    client::Control,
    cmd::{Context, server},
    error::CtlError,
    output::{View, or_dash, time, word},
    resolve::{self, Named},
};

/// Lists those of one direction, or of both.
pub(super) async fn list(
    context: &mut Context,
    control: &Control,
    direction: Option<Direction>,
) -> Result<(), CtlError> {
    let wanted = match direction {
        Some(Direction::Listener) => "listener",
        Some(Direction::Sender) => "sender",
        None => "any",
    };
    let channels: Vec<platform::Channel> = control.list(PATH, &[("direction", wanted)], None).await?;
    if context.out.is_json() {
        return context.out.json(&channels);
    }
    let places = places(control, channels).await?;
    let headers = ["SERVER", "NAME", "DIRECTION", "ENGINE", "BEHAVIOR", "PUBLISHED AS", "FEEDS", "ID"];
    context.out.table(&(), &headers, || places.iter().map(Place::row).collect())
}

/// The own channel of either direction that `wanted` names. Listeners come first: partners choose what a sender is called that nobody
/// named.
pub(super) async fn id_of_any(control: &Control, wanted: &str) -> Result<ChannelId, CtlError> {
    let listener = channel_id(control, wanted).await;
    if !matches!(listener, Err(CtlError::Resolve(resolve::ResolveError::Unknown { .. }))) {
        return listener;
    }
    sender_id(control, wanted).await
}

/// The own sender that `wanted` names.
pub(super) async fn sender_id(control: &Control, wanted: &str) -> Result<ChannelId, CtlError> {
    let senders = places(control, control.list(PATH, &[("direction", "sender")], None).await?).await?;
    Ok(resolve::pick(wanted, &senders, |_| true)?.channel.id)
}

/// The own listener that `wanted` names.
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
        vec![
            server.clone(),
            channel.name.clone(),
            word(&channel.direction),
            engine(channel),
            channel.behavior.clone(),
            published(channel),
            or_dash(channel.feeds.as_ref()),
            channel.id.to_string(),
        ]
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
        let own = [channel.name.clone(), format!("{server}/{}", channel.name)];
        own.into_iter().chain(public).chain(channel.feeds.clone()).collect()
    }

    fn describe(&self) -> String {
        let Self { channel, server } = self;
        match &channel.feeds {
            Some(feeds) => format!("{server}/{}, feeds {feeds}", channel.name),
            None => format!("{server}/{}, published: {}", channel.name, published(channel)),
        }
    }
}

impl View for platform::Channel {
    const HEADERS: &'static [&'static str] = &["NAME", "DIRECTION", "ENGINE", "PUBLISHED AS", "ID"];

    fn row(&self, _now: u64) -> Vec<String> {
        let direction = word(&self.direction);
        vec![self.name.clone(), direction, engine(self), published(self), self.id.to_string()]
    }

    fn block(&self, now: u64) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("Id", self.id.to_string()),
            ("Server", self.server_id.to_string()),
            ("Name", self.name.clone()),
            ("Direction", word(&self.direction)),
            ("Engine", engine(self)),
            ("Behavior", self.behavior.clone()),
        ];
        match self.direction {
            ChannelDirection::Listener => {
                lines.push(("Published as", published(self)));
                lines.push(("Description", self.public_description.clone()));
            }
            ChannelDirection::Sender => {
                lines.push(("Feeds", or_dash(self.feeds.as_ref())));
                lines.push(("Connection", or_dash(self.connection_id.map(|id| id.to_string()).as_ref())));
            }
        }
        lines.push(("Created", time::relative(now, self.created_at)));
        lines
    }
}

fn published(channel: &platform::Channel) -> String {
    or_dash(channel.published.then_some(&channel.public_name))
}

/// Where it meets the engine: at the engine's port, or at one of the gateway that the engine sends to.
fn engine(channel: &platform::Channel) -> String {
    match (channel.direction, channel.local_port) {
        (ChannelDirection::Listener, _) => channel.engine.clone(),
        (ChannelDirection::Sender, Some(port)) => format!("local port {port}"),
        (ChannelDirection::Sender, None) => "local port not reported".to_owned(),
    }
}
