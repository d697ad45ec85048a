//! What has to be done so that what is found becomes what is wanted: every step in its order, those that stand on what an earlier one
//! makes included. Decides only; knows no network. What is shown by a dry run and what is done are the same list.

mod channels;
mod grants;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use gateway_proto::{
    api::{
        platform::UpdateChannel,
        values::{self, MAX_TEXT, ValueFault},
    },
    id::{AgreementId, ChannelId, OrganizationId, ServerId},
    names::fold,
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
    /// The file has another name for it than it has now.
    is_renamed: bool,
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
    /// Channels that are known by something else than the name in the file.
    renamed: BTreeSet<ChannelId>,
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
            renamed: BTreeSet::new(),
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

    fn peer(&mut self, wanted: &SitePeer) {
        let name = &wanted.organization;
        let id = match meant(name, self.found) {
            Meant::One(id) => id,
            Meant::Nobody => {
                let words = "is not in the directory: it can be asked once it is, or may ask itself";
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
        match self.found.pending(id) {
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
            None => self.ask(wanted, id, shown),
        }
    }

    /// There is nothing between the two: it is asked, unless that is for a person to decide.
    fn ask(&mut self, wanted: &SitePeer, id: OrganizationId, shown: String) {
        if let Some(why) = self.found.over(id) {
            let words = format!("{shown} is not asked again, as {why}: `gateway-ctl peering request {id}` asks it");
            return self.plan.waits.push(words);
        }
        if !self.found.may_be_asked(id) {
            let words = "cannot be found now: it can be asked once it is in the directory again, or may ask itself";
            return self.plan.waits.push(format!("{shown} {words}"));
        }
        self.plan.meant.push((wanted.organization.clone(), id));
        self.accept(&shown, "message", values::text(&wanted.message, MAX_TEXT));
        self.plan.steps.push(Step::RequestPeering { id, shown, message: wanted.message.clone() });
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
