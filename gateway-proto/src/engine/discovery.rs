//! From the engine's answers to its channels: what is listening, in which state, and what has changed.
//!
//! One round: [`overview`](Discovery::overview) takes the three cheap answers and tells whose details are wanted;
//! [`details`](Discovery::details) takes those, a few channels at a time; [`channels`](Discovery::channels) is the result.
//! Details are asked for again when a channel is new, has another name or port, was deployed or saved anew, or every
//! [`REFRESH_ROUNDS`] rounds, a share of the channels each time, so that no change stays unseen and no round is heavy.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use super::{
    EngineChannel, EngineChannelState, EngineCounts, EngineListener, MAX_CHANNELS,
    answers::{self, AnswerError, ChannelDetails, ChannelStatus},
};

/// Channels whose details are asked for in one request: about 22 kB each.
pub const DETAILS_AT_ONCE: usize = 20;
/// Rounds after which the details of a channel are read again though nothing seems to have changed.
pub const REFRESH_ROUNDS: u64 = 60;

/// What is known of the channels of one engine.
#[derive(Debug)]
pub struct Discovery {
    /// Where the engine is, seen from the gateway: for listeners on all interfaces.
    engine: IpAddr,
    round: u64,
    names: BTreeMap<String, String>,
    ports: BTreeMap<String, u16>,
    statuses: BTreeMap<String, ChannelStatus>,
    details: BTreeMap<String, Known>,
    left_out: usize,
}

#[derive(Debug)]
struct Known {
    mark: Mark,
    round: u64,
    details: ChannelDetails,
    /// Connections at once, as deployed: what is stored may differ from what runs.
    max_connections: Option<u32>,
}

/// What shows from outside that a channel was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    name: String,
    port: Option<u16>,
    deployed_at: u64,
    revision_delta: u64,
}

impl Discovery {
    /// Nothing known yet; `engine` is the address of the engine's API.
    pub fn new(engine: IpAddr) -> Self {
        Self {
            engine,
            round: 0,
            names: BTreeMap::new(),
            ports: BTreeMap::new(),
            statuses: BTreeMap::new(),
            details: BTreeMap::new(),
            left_out: 0,
        }
    }

    /// Takes `idsAndNames`, `portsInUse` and `statuses`, and tells whose details are wanted, in requests of
    /// [`DETAILS_AT_ONCE`]. Nothing changes when one of them is not understood.
    pub fn overview(&mut self, names: &[u8], ports: &[u8], statuses: &[u8]) -> Result<Vec<Vec<String>>, AnswerError> {
        let mut names = answers::ids_and_names(names)?;
        let (ports, statuses) = (answers::ports_in_use(ports)?, answers::statuses(statuses)?);
        self.left_out = names.len().saturating_sub(MAX_CHANNELS);
        if self.left_out > 0 {
            // The same ones each time, those that listen first: they are what partners may use.
            let mut ids: Vec<_> = names.keys().cloned().collect();
            ids.sort_by_key(|id| (!ports.contains_key(id), id.clone()));
            ids.drain(..MAX_CHANNELS);
            ids.iter().for_each(|id| drop(names.remove(id)));
        }
        (self.names, self.ports, self.statuses) = (names, ports, statuses);
        self.round += 1;
        self.details.retain(|id, _| self.names.contains_key(id));
        let wanted = self.names.keys().zip(0_u64..).filter(|(id, position)| match self.details.get(*id) {
            None => true,
            Some(known) => {
                let is_due = (self.round + position).is_multiple_of(REFRESH_ROUNDS) && known.round != self.round;
                known.mark != self.mark(id) || is_due
            }
        });
        let wanted: Vec<_> = wanted.map(|(id, _)| id.clone()).collect();
        Ok(wanted.chunks(DETAILS_AT_ONCE).map(<[String]>::to_vec).collect())
    }

    /// Takes the details of the channels of one request. One that is not among them was removed meanwhile.
    pub fn details(&mut self, answer: &[u8]) -> Result<(), AnswerError> {
        for (id, details) in answers::channels(answer)? {
            if self.names.contains_key(&id) {
                let mark = self.mark(&id);
                let max_connections = match self.details.get(&id) {
                    _ if mark.revision_delta == 0 => details.max_connections,
                    // Saved and not deployed: the listener goes on as it was.
                    Some(known) if known.mark.deployed_at == mark.deployed_at => known.max_connections,
                    Some(_) | None => None,
                };
                self.details.insert(id, Known { mark, round: self.round, details, max_connections });
            }
        }
        Ok(())
    }

    /// The channels, in the order of their ids.
    pub fn channels(&self) -> Vec<EngineChannel> {
        self.names.iter().map(|(id, name)| self.channel(id, name)).collect()
    }

    /// Channels beyond [`MAX_CHANNELS`], of which nothing is known.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    fn mark(&self, id: &str) -> Mark {
        let status = self.statuses.get(id);
        Mark {
            name: self.names.get(id).cloned().unwrap_or_default(),
            port: self.ports.get(id).copied(),
            deployed_at: status.map_or(0, |status| status.deployed_at),
            revision_delta: status.map_or(0, |status| status.revision_delta),
        }
    }

    fn channel(&self, id: &str, name: &str) -> EngineChannel {
        let status = self.statuses.get(id);
        let known = self.details.get(id);
        let details = known.map(|known| &known.details);
        // Who is in portsInUse has a listener block, even while its details are not known.
        let listener = self.ports.get(id).map(|port| self.listener(*port, known));
        EngineChannel {
            id: id.to_owned(),
            name: name.to_owned(),
            state: status.map_or(EngineChannelState::Undeployed, |status| status.state),
            undeployed_changes: status.is_some_and(|status| status.revision_delta > 0),
            listener,
            destinations: details.map(|details| details.destinations.clone()).unwrap_or_default(),
            counts: status.map_or_else(EngineCounts::default, |status| status.counts),
        }
    }

    fn listener(&self, port: u16, known: Option<&Known>) -> EngineListener {
        let Some(Known { details, max_connections, .. }) = known else {
            return EngineListener {
                transport: String::new(),
                behavior: None,
                host: String::new(),
                port,
                address: None,
                max_connections: None,
                tls: false,
                // Not known to listen: a client-mode listener looks the same from here.
                server_mode: false,
            };
        };
        let host = details.host.clone().unwrap_or_default();
        EngineListener {
            transport: details.transport.clone(),
            behavior: details.behavior.clone(),
            address: self.reachable(&host).map(|ip| SocketAddr::new(ip, port)),
            host,
            port,
            max_connections: *max_connections,
            tls: details.tls,
            server_mode: details.server_mode,
        }
    }

    /// Where a listener on `host` is reached from the gateway.
    fn reachable(&self, host: &str) -> Option<IpAddr> {
        match host {
            "" | "0.0.0.0" | "::" => Some(self.engine),
            "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
            _ => host.parse().ok(),
        }
    }
}

#[cfg(test)]
mod tests;
