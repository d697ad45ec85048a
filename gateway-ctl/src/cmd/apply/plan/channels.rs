//! Channels: what is made, what is changed, and which of them are known although the engine calls them otherwise by now.

use gateway_proto::{
    api::{
        platform::{Channel, UpdateChannel},
        values::{self, MAX_TEXT},
    },
    engine::plan::EndState,
    id::ServerId,
    names::fold,
};

use super::{Planner, Standing, Step, Which};
use crate::cmd::apply::site::SiteChannel;

impl<'a> Planner<'a> {
    pub(super) fn channel(&mut self, place: usize, wanted: &SiteChannel) -> Option<Standing> {
        let label = format!("{}/{}", wanted.server, wanted.name);
        let published = wanted.publish.is_some();
        let server = match self.found.server(&wanted.server) {
            Some(server) => Which::There(server.id),
            None => match self.servers.get(&fold(&wanted.server)) {
                Some(place) => Which::Made(*place),
                None => {
                    let words = "waits for its server, which the file does not name";
                    return self.wait(format!("the channel '{label}' {words}"));
                }
            },
        };
        let there = match server {
            Which::There(id) => self.found.channel(id, &wanted.name),
            Which::Made(_) => None,
        };
        if there.is_none()
            && let Which::There(id) = server
            && let Some(renamed) = self.renamed_in_engine(id, wanted)
        {
            return Some(self.keep(&label, renamed));
        }
        let Some(there) = there else {
            self.accept_words(&label, Some(&wanted.name), wanted.publish.as_ref(), wanted.description.as_ref());
            self.accept_behaviors(&format!("the channel '{label}'"), wanted.behavior.as_ref());
            self.plan.steps.push(Step::CreateChannel { place, server, channel: wanted.clone() });
            return Some(Standing { channel: Which::Made(place), published, is_renamed: false });
        };
        if wanted.behavior.as_ref().is_some_and(|behavior| *behavior != there.behavior) {
            let behavior = &there.behavior;
            return self.wait(format!(
                "the channel '{label}' is for {behavior}: a channel's behavior never changes, make a new one"
            ));
        }
        self.change(label, there, wanted);
        Some(Standing { channel: Which::There(there.id), published, is_renamed: false })
    }

    /// A channel that no name leads to may have taken another name from its engine: it is known by its public name, or, where partners do
    /// not see it, by its port. Made anew, partners would find it twice, once where the engine no longer is.
    fn renamed_in_engine(&self, server: ServerId, wanted: &SiteChannel) -> Option<&'a Channel> {
        let is_it = |channel: &Channel| match &wanted.publish {
            Some(name) => channel.published && fold(&channel.public_name) == fold(name),
            None => !channel.published && channel.engine == wanted.engine,
        };
        let is_free = |channel: &Channel| {
            let key = (fold(&wanted.server), fold(&channel.name));
            !self.in_file.contains(&key) && !self.renamed.contains(&channel.id)
        };
        let is_of_kind =
            |channel: &Channel| wanted.behavior.as_ref().is_none_or(|behavior| *behavior == channel.behavior);
        let found = self.found;
        let may_be = |channel: &&Channel| {
            let follows = channel.server_id == server && found.following.contains_key(&channel.id);
            follows && is_of_kind(channel) && is_it(channel) && is_free(channel)
        };
        let mut fitting = found.channels.iter().filter(may_be);
        fitting.next().filter(|_| fitting.next().is_none())
    }

    /// What was recognised by less than its name is left as it is, until the file calls it by its name.
    fn keep(&mut self, label: &str, there: &Channel) -> Standing {
        self.renamed.insert(there.id);
        self.plan.waits.push(format!(
            "the channel '{label}' is '{}' at {} now, as in its engine: let the file say so, until then nothing of it is changed",
            there.name, there.engine
        ));
        Standing { channel: Which::There(there.id), published: there.published, is_renamed: true }
    }

    /// What differs is changed, and nothing else is sent: what is there may be older than the rules of today.
    fn change(&mut self, label: String, there: &Channel, wanted: &SiteChannel) {
        let mut changes = Vec::new();
        let engine = self.other_engine(&label, there, wanted);
        if engine.is_some() {
            changes.push(format!("engine {} → {}", there.engine, wanted.engine));
        }
        let shown = there.published.then_some(&there.public_name);
        let differs = shown != wanted.publish.as_ref();
        if differs {
            let name =
                |name: Option<&String>| name.map_or_else(|| "not published".to_owned(), |name| format!("'{name}'"));
            changes.push(format!("published {} → {}", name(shown), name(wanted.publish.as_ref())));
        }
        let public_name = wanted.publish.clone().filter(|name| *name != there.public_name);
        let public_description = wanted.description.clone().filter(|text| *text != there.public_description);
        if public_description.is_some() {
            changes.push("public description".to_owned());
        }
        if changes.is_empty() {
            return;
        }
        self.accept_words(&label, None, public_name.as_ref(), public_description.as_ref());
        let published = differs.then_some(wanted.publish.is_some());
        let update =
            UpdateChannel { name: None, engine, engine_channel: None, published, public_name, public_description };
        self.plan.steps.push(Step::ChangeChannel { id: there.id, label, update, changes });
    }

    /// Where a channel is to be reached instead. One that follows its engine is where the engine says: the file's port is where it was when
    /// the file was written.
    fn other_engine(&mut self, label: &str, there: &Channel, wanted: &SiteChannel) -> Option<String> {
        let (is, file) = (&there.engine, &wanted.engine);
        if is == file {
            return None;
        }
        let why = match self.found.following.get(&there.id) {
            None => return Some(file.clone()),
            Some(EndState::Started | EndState::Stopped) => {
                format!("follows its engine, which has it at {is} and not at {file}: let the file say so")
            }
            Some(EndState::Missing) => format!(
                "follows a channel that its engine has no more, or that listens no more, and stays at {is}: bind it to another one \
                 with `gateway-ctl channel update --engine-channel`, or to {file} with `--unlink --engine`"
            ),
        };
        self.plan.waits.push(format!("the channel '{label}' {why}"));
        None
    }

    /// What is new has to be acceptable.
    fn accept_words(&mut self, label: &str, name: Option<&String>, public: Option<&String>, text: Option<&String>) {
        let what = format!("the channel '{label}'");
        if let Some(name) = name {
            self.accept(&what, "name", values::name(name));
        }
        if let Some(public) = public {
            self.accept(&what, "publish", values::name(public));
        }
        if let Some(text) = text {
            self.accept(&what, "description", values::text(text, MAX_TEXT));
        }
    }

    pub(super) fn accept_behaviors<'n>(&mut self, what: &str, named: impl IntoIterator<Item = &'n String>) {
        let found = self.found;
        for unknown in named.into_iter().filter(|name| !found.behaviors.contains(name)) {
            let known = found.behaviors.join(", ");
            let words = format!("behavior '{unknown}' is none of this platform: known are {known}");
            self.plan.refusals.push(format!("{what}: {words}"));
        }
    }
}
