//! What has to be done so that what is found becomes what is wanted: every step in its order, those that stand on what an earlier one
//! makes included. Decides only; knows no network. What is shown by a dry run and what is done are the same list.

mod grants;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use gateway_proto::{
    api::{
        platform::{Channel, UpdateChannel},
        values::{self, MAX_TEXT, ValueFault},
    },
    id::{AgreementId, ChannelId, OrganizationId, ServerId},
    names::fold,
    peering::PeeringStatus,
};

use super::{
    found::{ChannelKey, Found},
    partners::{Meant, meant},
    site::{Site, SiteChannel, SiteGrant, SitePeer},
};

/// Something that is there, or is made by an earlier step from this place of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Which<T> {
    There(T),
    Made(usize),
}

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// A server is missing.
    CreateServer { place: usize, name: String },
    /// A channel is missing.
    CreateChannel { place: usize, server: Which<ServerId>, channel: SiteChannel },
    /// A channel is not as wanted.
    ChangeChannel { id: ChannelId, label: String, update: UpdateChannel, changes: Vec<String> },
    /// There is neither an agreement nor a request.
    RequestPeering { id: OrganizationId, shown: String, message: String },
    /// A channel is not granted.
    OfferGrant {
        agreement_id: AgreementId,
        channel: Which<ChannelId>,
        shown: String,
        grant: SiteGrant,
        expires_at: Option<u64>,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateServer { name, .. } => write!(f, "create the server '{name}'"),
            Self::CreateChannel { channel, .. } => {
                write!(f, "create the channel '{}/{}'", channel.server, channel.name)
            }
            Self::ChangeChannel { label, changes, .. } => {
                write!(f, "change the channel '{label}': {}", changes.join("; "))
            }
            Self::RequestPeering { shown, .. } => write!(f, "ask {shown} for an agreement"),
            Self::OfferGrant { grant, shown, .. } => write!(f, "offer the channel '{}' to {shown}", grant.channel),
        }
    }
}

/// What comes of a site.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// What can be done now, in this order.
    pub(super) steps: Vec<Step>,
    /// What has to be waited for, or decided by a person.
    pub(super) waits: Vec<String>,
    /// What the platform would refuse: with any of these nothing is done.
    pub(super) refusals: Vec<String>,
    /// Whom names of the file mean by what stands on them.
    pub(super) meant: Vec<(String, OrganizationId)>,
}

/// The plan.
pub(super) fn plan(site: &Site, found: &Found) -> Plan {
    let mut planner = Planner::new(site, found);
    planner.servers();
    let standing: Vec<_> =
        site.channels.iter().enumerate().map(|(place, channel)| planner.channel(place, channel)).collect();
    for peer in &site.peers {
        planner.peer(peer);
    }
    for grant in &site.grants {
        planner.grant(grant, &standing);
    }
    planner.plan
}

/// A channel once the steps up to here are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    channel: Which<ChannelId>,
    published: bool,
}

struct Planner<'a> {
    site: &'a Site,
    found: &'a Found,
    /// Servers of the file, by name.
    servers: BTreeMap<String, usize>,
    /// Server and name of each channel of the file, in its order.
    in_file: Vec<ChannelKey>,
    /// The same of each channel that is there.
    there: Vec<ChannelKey>,
    /// Partners that were looked at.
    peers: BTreeSet<OrganizationId>,
    /// Grants that were looked at.
    grants: BTreeSet<(Which<ChannelId>, AgreementId)>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn new(site: &'a Site, found: &'a Found) -> Self {
        let servers = site.servers.iter().enumerate().map(|(place, server)| (fold(&server.name), place)).collect();
        let in_file = site.channels.iter().map(SiteChannel::key).collect();
        Self {
            site,
            found,
            servers,
            in_file,
            there: found.channel_keys(),
            peers: BTreeSet::new(),
            grants: BTreeSet::new(),
            plan: Plan::default(),
        }
    }

    fn servers(&mut self) {
        for (place, server) in self.site.servers.iter().enumerate() {
            if self.found.server(&server.name).is_none() {
                self.accept(&format!("the server '{}'", server.name), "name", values::name(&server.name));
                self.plan.steps.push(Step::CreateServer { place, name: server.name.clone() });
            }
        }
    }

    fn channel(&mut self, place: usize, wanted: &SiteChannel) -> Option<Standing> {
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
        let Some(there) = there else {
            self.accept_words(&label, Some(&wanted.name), wanted.publish.as_ref(), wanted.description.as_ref());
            self.plan.steps.push(Step::CreateChannel { place, server, channel: wanted.clone() });
            return Some(Standing { channel: Which::Made(place), published });
        };
        if wanted.behavior.as_ref().is_some_and(|behavior| *behavior != there.behavior) {
            let behavior = &there.behavior;
            return self.wait(format!(
                "the channel '{label}' is for {behavior}: a channel's behavior never changes, make a new one"
            ));
        }
        self.change(label, there, wanted);
        Some(Standing { channel: Which::There(there.id), published })
    }

    /// What differs is changed, and nothing else is sent: what is there may be older than the rules of today.
    fn change(&mut self, label: String, there: &Channel, wanted: &SiteChannel) {
        let mut changes = Vec::new();
        let engine = (there.engine != wanted.engine).then(|| wanted.engine.clone());
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

    fn peer(&mut self, wanted: &SitePeer) {
        let name = &wanted.organization;
        let id = match meant(name, self.found) {
            Meant::One(id) => id,
            Meant::Nobody => {
                let words = "is not in the directory: name it by its id (org_…), or wait until it can be found";
                return self.plan.waits.push(format!("'{name}' {words}"));
            }
            Meant::Several => {
                let words = "fits more than one organization: name it by its id (org_…)";
                return self.plan.waits.push(format!("'{name}' {words}"));
            }
        };
        let shown = self.found.shown(name, id);
        if !self.peers.insert(id) {
            return self.plan.refusals.push(format!("{shown} stands in the file twice: as a name and as an id"));
        }
        if self.found.agreement(id).is_some() {
            return self.plan.meant.push((name.clone(), id));
        }
        let pending = self
            .found
            .requests
            .iter()
            .find(|request| request.status == PeeringStatus::Pending && request.peer_id == id);
        match pending {
            // Whom it comes from is what the person has to look at who decides.
            Some(request) if request.direction == "incoming" => {
                self.plan
                    .waits
                    .push(format!("{shown} asked already: decide with `gateway-ctl peering accept {}`", request.id));
            }
            Some(_) => {
                self.plan.meant.push((name.clone(), id));
                self.plan.waits.push(format!("{shown} has not answered the peering request yet"));
            }
            None => {
                self.plan.meant.push((name.clone(), id));
                self.accept(&shown, "message", values::text(&wanted.message, MAX_TEXT));
                self.plan.steps.push(Step::RequestPeering { id, shown, message: wanted.message.clone() });
            }
        }
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

    fn accept(&mut self, what: &str, field: &str, value: Result<String, ValueFault>) {
        if let Err(fault) = value {
            self.plan.refusals.push(format!("{what}: {field} {fault}"));
        }
    }

    fn wait<T>(&mut self, words: String) -> Option<T> {
        self.plan.waits.push(words);
        None
    }
}

#[cfg(test)]
mod tests;
