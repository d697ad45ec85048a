//! The file: what a site should have, in the form in which the platform keeps it. What stands in it twice, or contradicts itself, is
//! told with its line. Which names may be new is not asked here: those that the platform has may be older than its rules.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry as Place},
    fmt::{self, Display},
    fs,
    path::Path,
};

use gateway_net::document::{Document, Mistake, Section, Value};
use gateway_proto::{
    api::values,
    limits::{MAX_BYTES_PER_SECOND, MAX_RECEIVE_TIMEOUT_SECS, MIN_BYTES_PER_SECOND, MIN_RECEIVE_TIMEOUT_SECS},
    names::fold,
};

use super::found::ChannelKey;
use crate::{args::Span, error::CtlError};

const NAME: &str = "a name";
const TEXT: &str = "a text";

/// A site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Site {
    /// Servers.
    pub(super) servers: Vec<SiteServer>,
    /// Listener channels.
    pub(super) channels: Vec<SiteChannel>,
    /// Partners.
    pub(super) peers: Vec<SitePeer>,
    /// Grants offered to partners.
    pub(super) grants: Vec<SiteGrant>,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SiteServer {
    /// Name.
    pub(super) name: String,
}

/// A listener channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SiteChannel {
    /// Name of its server.
    pub(super) server: String,
    /// Internal name.
    pub(super) name: String,
    /// The engine's port, `ip:port`.
    pub(super) engine: String,
    /// Kind of exchange; default `hl7v2-mllp`.
    pub(super) behavior: Option<String>,
    /// Published under this public name; left out: not published.
    pub(super) publish: Option<String>,
    /// Public description.
    pub(super) description: Option<String>,
}

/// A partner to have an agreement with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SitePeer {
    /// Id, name, or `self`.
    pub(super) organization: String,
    /// A word with the request.
    pub(super) message: String,
}

/// A grant offered to a partner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SiteGrant {
    /// Of which channel.
    pub(super) channel: ChannelName,
    /// Id or name of the partner.
    pub(super) to: String,
    /// Ends after this time, counted from the offer.
    pub(super) expires: Option<Span>,
    /// Open streams at most.
    pub(super) max_streams: Option<u32>,
    /// Payload in each direction at most, bytes per second.
    pub(super) bytes_per_second: Option<u64>,
    /// A stream in which no byte passes for so many seconds is reset.
    pub(super) receive_timeout_secs: Option<u32>,
    /// The kinds of exchange that its connection may have, sorted, once each; empty: whatever the channel has.
    pub(super) behaviors: Vec<String>,
    /// Require a post-quantum tunnel.
    pub(super) require_post_quantum: bool,
}

/// `SERVER/NAME` of a channel. Either may hold a slash itself: where it is parted shows when it is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChannelName {
    text: String,
    /// What it may mean, for each slash.
    parts: Vec<ChannelKey>,
}

impl ChannelName {
    fn read(text: &str) -> Option<Self> {
        let part = |(at, slash): (usize, &str)| (fold(&text[..at]), fold(&text[at + slash.len()..]));
        let parts: Vec<_> = text.match_indices('/').map(part).filter(|(a, b)| !a.is_empty() && !b.is_empty()).collect();
        (!parts.is_empty()).then(|| Self { text: text.trim().to_owned(), parts })
    }

    /// The channel of this name on this server, and no other one.
    fn on(server: &str, name: &str) -> Self {
        Self { text: format!("{server}/{name}"), parts: vec![(fold(server), fold(name))] }
    }

    /// Whether it may mean this channel.
    pub(super) fn may_be(&self, channel: &ChannelKey) -> bool {
        self.parts.contains(channel)
    }
}

impl Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Site {
    /// Reads and checks a file: every mistake is told, not only the first. `now` in Unix seconds.
    pub(super) fn load(path: &Path, now: u64) -> Result<Self, CtlError> {
        let text = fs::read_to_string(path).map_err(|source| CtlError::File { path: path.to_owned(), source })?;
        Self::parse(&text, now).map_err(|mistakes| unusable(path, &mistakes))
    }

    pub(super) fn parse(text: &str, now: u64) -> Result<Self, Vec<Mistake>> {
        let document = Document::parse(text);
        let mut root = document.root();
        let servers = entries(&mut root, SiteServer::read);
        let channels: Vec<SiteChannel> = entries(&mut root, SiteChannel::read);
        let peers = entries(&mut root, SitePeer::read);
        let keys: Vec<_> = channels.iter().map(SiteChannel::key).collect();
        let grants = entries(&mut root, |section| {
            let grant = SiteGrant::read(section, now)?;
            let may_be = channels.iter().zip(&keys).filter(|(_, key)| grant.channel.may_be(key));
            let may_be: Vec<_> = may_be.map(|(channel, _)| channel).collect();
            if !may_be.is_empty() && may_be.iter().all(|channel| channel.publish.is_none()) {
                section.mistake("channel", &grant.channel.text, "a channel that is published: give it a `publish`");
            }
            if !may_be.is_empty() && may_be.iter().all(|channel| !grant.may_carry(channel.behavior.as_deref())) {
                let accepted = "the behavior of its channel among them; leave it out for whatever that is";
                section.mistake("behaviors", &grant.behaviors.join(", "), accepted);
            }
            Some(grant)
        });
        root.finish();
        let mistakes = document.into_mistakes();
        if mistakes.is_empty() { Ok(Self { servers, channels, peers, grants }) } else { Err(mistakes) }
    }
}

/// All that is wrong with a file, in one error.
pub(super) fn unusable(path: &Path, mistakes: &[impl Display]) -> CtlError {
    let lines: String = mistakes.iter().map(|mistake| format!("\n  - {mistake}")).collect();
    CtlError::Usage(format!("{} is not usable:{lines}", path.display()))
}

/// What stands in a table of its own, `[[KEY]]`.
trait Entry {
    const KEY: &'static str;
    /// The key that says which one it is.
    const WHICH: &'static str;

    /// Which one it is, in words.
    fn label(&self) -> String;
    /// The same of two that are one for the platform.
    fn identity(&self) -> Vec<String>;
}

/// The entries of one kind, without those that lack something or are there already.
fn entries<'a, 'i, T: Entry>(root: &mut Section<'a, 'i>, read: impl Fn(&mut Section<'a, 'i>) -> Option<T>) -> Vec<T> {
    let mut known = BTreeMap::new();
    let mut entries = Vec::new();
    for mut section in root.sections(T::KEY) {
        if let Some(entry) = read(&mut section) {
            match known.entry(entry.identity()) {
                Place::Occupied(first) => {
                    let accepted = format!("each {} once, and {:?} is the same one", T::KEY, first.get());
                    section.mistake(T::WHICH, &entry.label(), &accepted);
                }
                Place::Vacant(place) => {
                    place.insert(entry.label());
                    entries.push(entry);
                }
            }
        }
        section.finish();
    }
    entries
}

impl Entry for SiteServer {
    const KEY: &'static str = "server";
    const WHICH: &'static str = "name";

    fn label(&self) -> String {
        self.name.clone()
    }

    fn identity(&self) -> Vec<String> {
        vec![fold(&self.name)]
    }
}

impl Entry for SiteChannel {
    const KEY: &'static str = "channel";
    const WHICH: &'static str = "name";

    fn label(&self) -> String {
        format!("{}/{}", self.server, self.name)
    }

    fn identity(&self) -> Vec<String> {
        let (server, name) = self.key();
        vec![server, name]
    }
}

impl Entry for SitePeer {
    const KEY: &'static str = "peer";
    const WHICH: &'static str = "organization";

    fn label(&self) -> String {
        self.organization.clone()
    }

    fn identity(&self) -> Vec<String> {
        vec![fold(&self.organization)]
    }
}

impl Entry for SiteGrant {
    const KEY: &'static str = "grant";
    const WHICH: &'static str = "channel";

    fn label(&self) -> String {
        format!("{} to {}", self.channel, self.to)
    }

    fn identity(&self) -> Vec<String> {
        let parts = self.channel.parts.iter().flat_map(|(server, name)| [server.clone(), name.clone()]);
        parts.chain([fold(&self.to)]).collect()
    }
}

impl SiteServer {
    fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        Some(Self { name: section.required("name", NAME, name)? })
    }
}

impl SiteChannel {
    /// Server and name, as the platform compares them.
    pub(super) fn key(&self) -> ChannelKey {
        (fold(&self.server), fold(&self.name))
    }

    fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let server = section.required("server", "the name of its server", name);
        let own_name = section.required("name", NAME, name);
        let engine = section.required("engine", "where the engine listens, like \"127.0.0.1:6661\"", |value| {
            values::engine(value.text()?).ok()
        });
        let behavior = section.optional("behavior", "a kind of exchange, like \"hl7v2-mllp\"", |value| {
            values::behavior(value.text()?).ok()
        });
        let publish = section.optional("publish", "a public name; leave it out not to publish", name);
        let description = section.optional("description", TEXT, text);
        // What was to be published and cannot be is no channel that is not published.
        let is_sound = publish.is_some() || !section.has("publish");
        let channel = Self { server: server?, name: own_name?, engine: engine?, behavior, publish, description };
        is_sound.then_some(channel)
    }
}

impl SitePeer {
    fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let accepted = "an id (org_…), a name in the directory, or \"self\"";
        let organization = section.required("organization", accepted, name);
        let message = section.value("message", TEXT, String::new(), text);
        Some(Self { organization: organization?, message })
    }
}

impl SiteGrant {
    /// Whether its connection may have this kind of exchange; none: it is not known.
    pub(super) fn may_carry(&self, behavior: Option<&str>) -> bool {
        self.behaviors.is_empty() || behavior.is_none_or(|behavior| self.behaviors.iter().any(|name| name == behavior))
    }

    fn read(section: &mut Section<'_, '_>, now: u64) -> Option<Self> {
        let server = section.optional("server", "the name of the channel's server", name);
        let channel = if section.has("server") {
            let on_it = section.required("channel", "the name of a channel of that server", name);
            server.zip(on_it).map(|(server, on_it)| ChannelName::on(&server, &on_it))
        } else {
            section.required("channel", "\"SERVER/NAME\" of a channel", |value| ChannelName::read(value.text()?))
        };
        let to = section.required("to", "the id (org_…) or name of a partner", name);
        let expires = section.optional("expires", "a length of time such as \"90d\"", |value| {
            let span: Span = value.text()?.parse().ok()?;
            values::moment(span.after(now)).ok().map(|_| span)
        });
        let accepted = format!("a whole number from 1 to {}", values::MAX_STREAMS);
        let max_streams = section.optional("max_streams", &accepted, |value| {
            u32::try_from(value.integer()?).ok().filter(|number| (1..=values::MAX_STREAMS).contains(number))
        });
        let accepted = format!("a whole number from {MIN_BYTES_PER_SECOND} to {MAX_BYTES_PER_SECOND}");
        let bytes_per_second = section.optional("bytes_per_second", &accepted, |value| {
            let rates = MIN_BYTES_PER_SECOND..=MAX_BYTES_PER_SECOND;
            u64::try_from(value.integer()?).ok().filter(|rate| rates.contains(rate))
        });
        let (least, most) = (MIN_RECEIVE_TIMEOUT_SECS, MAX_RECEIVE_TIMEOUT_SECS);
        let accepted = format!("a length of time such as \"10m\", from {least} to {most} seconds");
        let receive_timeout_secs = section.optional("receive_timeout", &accepted, |value| {
            let span: Span = value.text()?.parse().ok()?;
            u32::try_from(span.secs).ok().filter(|secs| (least..=most).contains(secs))
        });
        let behaviors = section.optional("behaviors", "kinds of exchange, like [\"hl7v2-mllp\"]", |value| {
            let words = value.texts()?.into_iter().map(|text| values::behavior(&text).ok());
            words.collect::<Option<BTreeSet<_>>>()
        });
        let behaviors = behaviors.into_iter().flatten().collect();
        let require_post_quantum = section.flag("require_post_quantum", false);
        Some(Self {
            channel: channel?,
            to: to?,
            expires,
            max_streams,
            bytes_per_second,
            receive_timeout_secs,
            behaviors,
            require_post_quantum,
        })
    }
}

/// A name in the form that is kept; one that shows nothing is none.
fn name(value: Value<'_, '_>) -> Option<String> {
    let name = value.text()?.trim();
    (!fold(name).is_empty()).then(|| name.to_owned())
}

/// A text in the form that is kept.
fn text(value: Value<'_, '_>) -> Option<String> {
    value.text().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests;
