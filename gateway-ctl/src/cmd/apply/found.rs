//! What the platform has, by the names that the platform takes for the same.

use std::collections::BTreeMap;

use gateway_proto::{
    api::platform::{Agreement, Channel, DirectoryEntry, Grant, Organization, PeeringRequest, Server},
    id::{OrganizationId, ServerId},
    names::fold,
    peering::{AgreementStatus, PeeringStatus},
};

use super::partners::Remembered;

/// Server and name of a channel, as the platform compares them.
pub(super) type ChannelKey = (String, String);

/// What the platform has, and what is remembered of it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) own: Organization,
    pub(super) servers: Vec<Server>,
    pub(super) channels: Vec<Channel>,
    pub(super) requests: Vec<PeeringRequest>,
    pub(super) agreements: Vec<Agreement>,
    pub(super) grants: Vec<Grant>,
    /// Of partners of the file that are nowhere else.
    pub(super) directory: Vec<DirectoryEntry>,
    pub(super) remembered: Remembered,
    /// Unix seconds.
    pub(super) now: u64,
}

impl Found {
    pub(super) fn server(&self, name: &str) -> Option<&Server> {
        named(self.servers.iter(), |server| &server.name, name)
    }

    pub(super) fn channel(&self, server: ServerId, name: &str) -> Option<&Channel> {
        named(self.channels.iter().filter(|channel| channel.server_id == server), |channel| &channel.name, name)
    }

    /// The key of each channel, in their order; empty where the server is not known.
    pub(super) fn channel_keys(&self) -> Vec<ChannelKey> {
        let servers: BTreeMap<_, _> = self.servers.iter().map(|server| (server.id, fold(&server.name))).collect();
        let key =
            |channel: &Channel| (servers.get(&channel.server_id).cloned().unwrap_or_default(), fold(&channel.name));
        self.channels.iter().map(key).collect()
    }

    pub(super) fn agreement(&self, peer: OrganizationId) -> Option<&Agreement> {
        self.agreements.iter().find(|agreement| agreement.status != AgreementStatus::Ended && agreement.peer_id == peer)
    }

    /// Other organizations with the names they have now.
    pub(super) fn others(&self) -> impl Iterator<Item = (OrganizationId, &str)> {
        let agreements = self.agreements.iter().filter(|agreement| agreement.status != AgreementStatus::Ended);
        let requests = self.requests.iter().filter(|request| request.status == PeeringStatus::Pending);
        let others = agreements.map(|agreement| (agreement.peer_id, agreement.peer_name.as_str()));
        let others = others.chain(requests.map(|request| (request.peer_id, request.peer_name.as_str())));
        let others = others.chain(self.directory.iter().map(|entry| (entry.id, entry.name.as_str())));
        let own = self.own.id;
        others.filter(move |(id, _)| *id != own)
    }

    /// A partner as the file calls it, and as it is called now where that differs.
    pub(super) fn shown(&self, wanted: &str, id: OrganizationId) -> String {
        let now = self.others().find(|(other, _)| *other == id).map(|(_, name)| name);
        match now {
            Some(now) if fold(now) != fold(wanted) => format!("'{wanted}' (called '{now}' now)"),
            Some(_) | None => format!("'{wanted}'"),
        }
    }
}

/// The one with this name: written like this, or else the first that the platform takes for the same.
fn named<'a, T>(
    mut items: impl Iterator<Item = &'a T> + Clone,
    name_of: impl Fn(&T) -> &String,
    wanted: &str,
) -> Option<&'a T> {
    let key = fold(wanted);
    let is_written = items.clone().find(|&item| name_of(item) == wanted);
    is_written.or_else(|| items.find(|&item| fold(name_of(item)) == key))
}
