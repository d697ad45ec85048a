//! Servers and channels, and what ends with them.

use super::{
    CONFLICT, Caller, FORBIDDEN, INVALID, LARGE, Model, Org,
    Outcome::{self, Done},
    Role, TIER, UNKNOWN, WRONG,
};

/// Servers of an organization, and channels of a server, in the tier Free.
const FREE_SERVERS: usize = 2;
const FREE_CHANNELS: usize = 5;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) owner: Org,
    pub(crate) lives: bool,
    /// Whether its gateway is enrolled.
    pub(crate) gateway: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Channel {
    pub(crate) owner: Org,
    pub(crate) server: usize,
    pub(crate) lives: bool,
}

/// What it is called.
pub(crate) fn server_name(n: usize) -> String {
    format!("Server {n}")
}

/// Its public name.
pub(crate) fn channel_name(n: usize) -> String {
    format!("Channel {n}")
}

/// Where the engine listens for it.
pub(crate) fn engine_of(channel: usize) -> String {
    format!("127.0.0.1:{}", 6000 + channel)
}

impl Model {
    pub(crate) fn has_server(&self, own: Org, server: usize) -> bool {
        self.servers[server].lives && self.servers[server].owner == own
    }

    pub(crate) fn servers_of(&self, own: Org) -> Vec<usize> {
        (0..self.servers.len()).filter(|n| self.has_server(own, *n)).collect()
    }

    /// The own server that is named, or the only one there is.
    pub(super) fn own_server(&self, own: Org, named: Option<usize>) -> Result<usize, Outcome> {
        match (named, self.servers_of(own).as_slice()) {
            (Some(server), _) if self.has_server(own, server) => Ok(server),
            (Some(_), _) => Err(UNKNOWN),
            (None, [only]) => Ok(*only),
            (None, []) => Err(CONFLICT),
            (None, _) => Err(INVALID),
        }
    }

    /// The same, which needs a gateway.
    pub(super) fn using_server(&self, own: Org, named: Option<usize>) -> Result<usize, Outcome> {
        let server = self.own_server(own, named)?;
        if self.servers[server].gateway { Ok(server) } else { Err(WRONG) }
    }

    pub(super) fn add_server(&mut self, own: Org) -> Outcome {
        if own != LARGE && self.servers_of(own).len() >= FREE_SERVERS {
            return TIER;
        }
        self.servers.push(Server { owner: own, lives: true, gateway: false });
        Done
    }

    /// Its gateway is enrolled: what waited for that goes on.
    pub(crate) fn enroll(&mut self, server: usize) {
        self.servers[server].gateway = true;
        for n in 0..self.connections.len() {
            if self.connections[n].status == "provisioning" && self.connections[n].is_at(server) {
                self.provision(n);
            }
        }
    }

    /// Its channels with their grants and connections, requests that wait and name it as the sender, the grants it received,
    /// admin connections and shares.
    pub(super) fn remove_server(&mut self, server: usize, own: Org) -> Outcome {
        if !self.has_server(own, server) {
            return UNKNOWN;
        }
        for channel in 0..self.channels.len() {
            if self.channels[channel].server == server {
                self.close_channel(channel);
            }
        }
        self.close_grants(|grant| grant.waits() && grant.sender == Some(server));
        for connection in self.connections.iter().filter(|row| row.is_at(server) && !row.is_over()) {
            if let Some(grant) = connection.grant {
                self.grants[grant].status = "surrendered";
            }
        }
        self.end_connections("terminated", |row| row.is_at(server));
        for n in 0..self.shares.len() {
            if self.shares[n].server == server {
                self.shares[n].open = false;
                self.end_connections("terminated", |row| row.share == Some(n));
            }
        }
        self.servers[server].lives = false;
        self.servers[server].gateway = false;
        Done
    }

    pub(super) fn add_channel(&mut self, server: usize, own: Org) -> Outcome {
        if !self.has_server(own, server) {
            return UNKNOWN;
        }
        let there = self.channels.iter().filter(|row| row.lives && row.server == server).count();
        if own != LARGE && there >= FREE_CHANNELS {
            return TIER;
        }
        self.channels.push(Channel { owner: own, server, lives: true });
        Done
    }

    /// Taking away what partners were granted needs the role that could revoke it.
    pub(super) fn remove_channel(&mut self, channel: usize, who: Caller) -> Outcome {
        if !self.channels[channel].lives || self.channels[channel].owner != who.org {
            return UNKNOWN;
        }
        let granted = self.grants.iter().any(|grant| grant.channel == channel && grant.is_open());
        if granted && who.role == Role::Operator {
            return FORBIDDEN;
        }
        self.close_channel(channel);
        Done
    }

    fn close_channel(&mut self, channel: usize) {
        self.channels[channel].lives = false;
        self.close_grants(|grant| grant.channel == channel);
    }
}
