//! Reading ahead what a list is going to ask for.

use std::collections::BTreeSet;

use async_trait::async_trait;
use gateway_proto::id::{
    AgreementId, ChannelId, ConnectionId, DeviceId, GrantId, OrganizationId, ServerId, ShareId, UserId,
};

use super::StorageResult;

/// What is going to be asked for one by one.
#[derive(Debug, Clone)]
pub enum Ahead {
    /// [`super::Accounts::organization`].
    Organizations(BTreeSet<OrganizationId>),
    /// [`super::Accounts::user`].
    Users(BTreeSet<UserId>),
    /// [`super::Servers::server`].
    Servers(BTreeSet<ServerId>),
    /// [`super::Policies::policy_revision`].
    Revisions(BTreeSet<ServerId>),
    /// [`super::Channels::channel`].
    Channels(BTreeSet<ChannelId>),
    /// [`super::Channels::grant`].
    Grants(BTreeSet<GrantId>),
    /// [`super::Channels::open_grants_of_channel`].
    GrantsOfChannels(BTreeSet<ChannelId>),
    /// [`super::Peering::agreement`].
    Agreements(BTreeSet<AgreementId>),
    /// [`super::Peering::agreement_between`] the one and each of the others.
    AgreementsWith(OrganizationId, BTreeSet<OrganizationId>),
    /// [`super::Peering::pending_between`] the one and each of the others, at this time.
    RequestsWith(OrganizationId, BTreeSet<OrganizationId>, u64),
    /// [`super::Connections::connection_of_grant`].
    ConnectionsOfGrants(BTreeSet<GrantId>),
    /// [`super::Shares::open_connections_of_share`].
    ConnectionsOfShares(BTreeSet<ShareId>),
    /// [`super::Deliveries::delivery`].
    Deliveries(BTreeSet<ConnectionId>),
    /// [`super::Devices::device`].
    Devices(BTreeSet<DeviceId>),
    /// [`super::Replicas::watch_heard`] since a time.
    Watches(BTreeSet<ServerId>, u64),
    /// [`super::Replicas::report`] since a time.
    Reports(BTreeSet<(ServerId, ConnectionId)>, u64),
}

/// Lists.
#[async_trait]
pub trait ReadAhead: Send {
    /// Reads in one query what is going to be asked for one by one: those questions cost nothing then. In a transaction that
    /// writes it does nothing.
    async fn read_ahead(&mut self, what: Ahead) -> StorageResult<()>;
}
