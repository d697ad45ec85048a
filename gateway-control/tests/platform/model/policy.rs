//! What the gateway of a server may have in its policy: nothing else, and nothing more.

use std::collections::BTreeMap;

use super::{Connection, Limits, Model, channel_name, engine_of, server_name};

/// What a gateway does at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Local {
    Sender,
    /// With the address of the engine.
    Listener(String),
    AdminUser,
    AdminOwner,
}

/// One entry of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: &'static str,
    pub(crate) activation: &'static str,
    /// The server at the other end.
    pub(crate) peer: usize,
    pub(crate) local: Local,
    pub(crate) endpoint: String,
    pub(crate) behavior: String,
    pub(crate) limits: Limits,
    /// The secrets in their order: how often each was replaced, and until when it counts, Unix seconds.
    pub(crate) secrets: Vec<(usize, Option<u64>)>,
    pub(crate) expires_at: Option<u64>,
}

/// The entries of a policy, by the number of the connection and whether this end opens its streams: a server may be connected
/// with itself.
pub(crate) type Entries = BTreeMap<(usize, bool), Entry>;

impl Model {
    pub(crate) fn policy(&self, server: usize) -> Entries {
        let mut entries = Entries::new();
        for (n, connection) in self.connections.iter().enumerate() {
            let Some(activation) = self.activation(connection) else { continue };
            if connection.sender == Some(server) {
                entries.insert((n, true), self.entry(connection, activation, true));
            }
            if connection.listener == server {
                entries.insert((n, false), self.entry(connection, activation, false));
            }
        }
        entries
    }

    pub(super) fn activation(&self, connection: &Connection) -> Option<&'static str> {
        match (connection.status, self.agreements[connection.agreement].status()) {
            (_, "ended") => None,
            ("ready" | "active" | "paused", "suspended") => Some("suspended"),
            (status @ ("ready" | "active" | "paused"), _) => Some(status),
            _ => None,
        }
    }

    /// Whoever takes streams takes the one before for the whole overlap, whoever opens them opens them with it for the first half.
    fn secrets(&self, connection: &Connection, sends: bool) -> Vec<(usize, Option<u64>)> {
        let newest = (connection.secret, None);
        let Some(rotation) = connection.rotation else { return vec![newest] };
        let before = |until| (connection.secret - 1, Some(until));
        match (sends, self.now < rotation.turns_at) {
            (true, true) => vec![before(rotation.turns_at), newest],
            (true, false) => vec![newest],
            (false, _) => vec![newest, before(rotation.until)],
        }
    }

    fn entry(&self, connection: &Connection, activation: &'static str, sends: bool) -> Entry {
        let channel = connection.grant.map(|grant| self.grants[grant].channel);
        let kind = match (channel, connection.writes) {
            (Some(_), _) => "p2p",
            (None, false) => "admin_read_only",
            (None, true) => "admin_read_write",
        };
        let local = match (channel, sends) {
            (Some(_), true) => Local::Sender,
            (Some(channel), false) => Local::Listener(engine_of(channel)),
            (None, true) => Local::AdminUser,
            (None, false) => Local::AdminOwner,
        };
        Entry {
            kind,
            activation,
            peer: if sends { connection.listener } else { connection.sender.unwrap_or(connection.listener) },
            local,
            endpoint: channel.map_or_else(|| server_name(connection.listener), channel_name),
            behavior: if channel.is_some() { "hl7v2-mllp" } else { "admin-api" }.to_owned(),
            limits: connection.limits,
            secrets: self.secrets(connection, sends),
            expires_at: connection.expires_at,
        }
    }
}
