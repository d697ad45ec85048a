//! What the platform has, by the names that the platform takes for the same.

use std::collections::BTreeMap;

use gateway_proto::{
    api::platform::{Agreement, Channel, DirectoryEntry, Grant, Organization, PeeringRequest, Server},
    engine::plan::EndState,
    id::{ChannelId, OrganizationId, ServerId},
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
    /// Channels that follow one of the engine, on servers of which the file has channels, and how the engine's end is.
    pub(super) following: BTreeMap<ChannelId, EndState>,
    pub(super) requests: Vec<PeeringRequest>,
    pub(super) agreements: Vec<Agreement>,
    pub(super) grants: Vec<Grant>,
    /// Of partners of the file that are nowhere else.
    pub(super) directory: Vec<DirectoryEntry>,
    /// Names of the kinds of exchange, if the file names any.
    pub(super) behaviors: Vec<String>,
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

    /// A request between the own organization and this one that is not answered yet.
    pub(super) fn pending(&self, peer: OrganizationId) -> Option<&PeeringRequest> {
        self.requests.iter().find(|request| request.status == PeeringStatus::Pending && request.peer_id == peer)
    }

    /// Why it is for a person to ask this one again, with which there is no agreement and no open request: one of the two sides has said
    /// that it wants none.
    pub(super) fn over(&self, peer: OrganizationId) -> Option<&'static str> {
        if self.agreements.iter().any(|agreement| agreement.peer_id == peer) {
            return Some("the agreement with it has ended");
        }
        let asked = self.requests.iter().filter(|request| request.peer_id == peer && request.direction == "outgoing");
        let last = asked.max_by_key(|request| (request.created_at, request.id))?;
        (last.status == PeeringStatus::Declined).then_some("it has declined")
    }

    /// Whether the platform lets this one be asked for an agreement: one that does not want to be found does not exist for others.
    pub(super) fn may_be_asked(&self, peer: OrganizationId) -> bool {
        peer == self.own.id || self.directory.iter().any(|entry| entry.id == peer)
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
