//! Sender channels: the sending ends of the connections that carry channel data, shown as the channels they are.
//!
//! Nothing is kept of a sender but the name that somebody gave it: that it feeds one connection, and has its local port to itself,
//! is so because it is the end of that connection.

use std::collections::{BTreeMap, BTreeSet};

use gateway_proto::{
    api::{
        gateway::ConnectionReport,
        platform::{Channel, ChannelDirection, UpdateChannel},
    },
    id::{ChannelId, ConnectionId, OrganizationId, ServerId},
    names,
};

use super::{
    Actor, Service, ServiceError, ServiceResult, Work, error::OrConflict, peering::name_of, tiers::TIME_IS_OVER,
    validate, work::changes,
};
use crate::storage::{Ahead, ChannelFilter, SenderRow, Slice, Transaction};

impl Service {
    /// A page of the senders of an organization; keys of the slice are ids of channels.
    pub(super) async fn senders(
        &self,
        tx: &mut dyn Transaction,
        own: OrganizationId,
        filter: &ChannelFilter,
        slice: &Slice,
    ) -> ServiceResult<Vec<Channel>> {
        // Ids of channels and of connections sort alike, but for the prefix.
        let digits = slice.after.strip_prefix(ChannelId::PREFIX).unwrap_or_default();
        let slice = Slice { after: format!("{}{digits}", ConnectionId::PREFIX), limit: slice.limit };
        let rows = tx.senders(own, filter, &slice, self.clock.unix_secs()).await?;
        tx.read_ahead(Ahead::Organizations(rows.iter().map(|row| row.peer).collect())).await?;
        let ends: BTreeSet<_> = rows.iter().map(|row| (row.server, row.connection)).collect();
        self.reports_ahead(tx, ends).await?;
        let mut shown = Vec::with_capacity(rows.len());
        for row in rows {
            shown.push(self.show_sender(tx, row).await?);
        }
        Ok(shown)
    }

    /// The own sender with this id, if there is one.
    pub(super) async fn own_sender(
        &self,
        tx: &mut dyn Transaction,
        own: OrganizationId,
        id: ChannelId,
    ) -> ServiceResult<Option<Channel>> {
        let connection = ConnectionId::from_bytes(id.to_bytes());
        let row = tx.sender(connection, self.clock.unix_secs()).await?;
        match row.filter(|row| row.organization == own) {
            Some(row) => Ok(Some(self.show_sender(tx, row).await?)),
            None => Ok(None),
        }
    }

    /// Gives a sender another name: all of it that may be changed here.
    pub(super) async fn rename_sender(
        &self,
        actor: &Actor,
        mut work: Work,
        sender: Channel,
        body: UpdateChannel,
    ) -> ServiceResult<Channel> {
        actor.check_match(&sender)?;
        let UpdateChannel { name, engine, engine_channel, published, public_name, public_description } = body;
        let texts = [&engine, &engine_channel, &public_name, &public_description];
        if published.is_some() || texts.iter().any(|text| text.is_some()) {
            return Err(ServiceError::Invalid(
                "this channel is a sender: it has a name to change and nothing else; where it leads and its port \
                 were said with the grant that it was made from"
                    .to_owned(),
            ));
        }
        let name = name.map(|name| validate::renamed("name", &sender.name, &name)).transpose()?;
        let Some(name) = name.filter(|name| *name != sender.name) else {
            work.unchanged().await?;
            return Ok(sender);
        };
        // In what is compared, like the names of those: `／` is a `/` too.
        if names::fold(&name).contains('/') {
            return Err(ServiceError::Invalid(format!(
                "name: '{name}' holds a '/', as the names of senders that nobody named do (PEER/ENDPOINT); leave it out"
            )));
        }
        let connection = ConnectionId::from_bytes(sender.id.to_bytes());
        work.name_sender(connection, &name).await.or_conflict(|| {
            format!(
                "this server has a sender called '{name}' already, or had one ({TIME_IS_OVER} keep their names until \
                 then)"
            )
        })?;
        let detail = changes(&[("name", &sender.name, &name)]);
        work.audit(&[actor.id()], "channel.update", sender.id, detail).await?;
        work.commit().await?;
        Ok(Channel { name, ..sender })
    }

    async fn show_sender(&self, tx: &mut dyn Transaction, row: SenderRow) -> ServiceResult<Channel> {
        let peer = name_of(tx, row.peer, row.organization).await?;
        let local_port = match row.port {
            0 => self.picked_port(tx, &row).await?,
            port => Some(port),
        };
        let feeds = format!("{peer}/{}", row.endpoint);
        Ok(Channel {
            id: ChannelId::from_bytes(row.connection.to_bytes()),
            server_id: row.server,
            name: row.name.unwrap_or_else(|| feeds.clone()),
            direction: ChannelDirection::Sender,
            engine: String::new(),
            local_port,
            connection_id: Some(row.connection),
            feeds: Some(feeds),
            behavior: row.behavior,
            published: false,
            public_name: String::new(),
            public_description: String::new(),
            created_at: row.created_at,
        })
    }

    /// The port that the gateway says it picked, open or not.
    async fn picked_port(&self, tx: &mut dyn Transaction, row: &SenderRow) -> ServiceResult<Option<u16>> {
        let report = self.last_report(tx, row.server, row.connection).await?;
        Ok(report.and_then(|(report, _)| own_port(&report)))
    }
}

impl Work {
    /// Two connections cannot open the same local port of one server, whether it was asked for or picked by the gateway: what is meant
    /// for one partner would go to the other. One whose time is over has its port until that is written down: only then it is so for
    /// good, however the wall clock is set.
    ///
    /// What a gateway picked is known while it watches. It opens no port for two connections in any case.
    pub(super) async fn check_port(&mut self, server: ServerId, port: u16) -> ServiceResult<()> {
        if port == 0 {
            return Ok(());
        }
        // Only whoever chose a port comes here.
        let picked = self.picked_ports(server).await?;
        for other in self.open_connections_of_server(server).await? {
            if other.sender.server != Some(server) {
                continue;
            }
            let (has, how) = match other.sender_port {
                0 => (picked.get(&other.id).copied(), ", whose gateway picked it"),
                asked => (Some(asked), ""),
            };
            if has != Some(port) {
                continue;
            }
            let is_over = self.has_ended(&other).await?;
            let until = if is_over { format!(" ({TIME_IS_OVER} keep their ports until then)") } else { String::new() };
            return Err(ServiceError::Conflict(format!(
                "sender_port {port} of this server belongs to connection {} already{how}{until}; choose another one, or \
                 leave it out and the gateway picks one",
                other.id
            )));
        }
        Ok(())
    }

    /// The ports that the gateway of a server says it has, open or not.
    async fn picked_ports(&mut self, server: ServerId) -> ServiceResult<BTreeMap<ConnectionId, u16>> {
        let service = self.service().clone();
        let reports = service.last_reports(self.tx(), server).await?;
        Ok(reports.into_iter().filter_map(|report| Some((report.id, own_port(&report)?))).collect())
    }
}

/// The local port that a gateway says belongs to its end, open or not; an older one says what is open, and no more.
fn own_port(report: &ConnectionReport) -> Option<u16> {
    let details = report.details.as_ref()?;
    details.kept_port.or(details.local_port)
}

/// What is said to somebody who wants to remove a sender.
pub(super) fn goes_with_its_connection(sender: &Channel) -> ServiceError {
    let id = ConnectionId::from_bytes(sender.id.to_bytes());
    ServiceError::Conflict(format!(
        "this channel is a sender, which goes with the connection that it feeds: end that one ({id}), \
         gateway-ctl connection terminate {id}"
    ))
}

/// What is said to somebody who asks who has access to a sender.
pub(super) fn has_no_access(sender: &Channel) -> ServiceError {
    let id = ConnectionId::from_bytes(sender.id.to_bytes());
    ServiceError::Conflict(format!(
        "this channel is a sender: it delivers to one partner, and nobody else is granted it; see the connection that it feeds, \
         gateway-ctl connection show {id}"
    ))
}
