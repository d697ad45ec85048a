//! Shared servers.

use super::{
    CONFLICT, Caller, Connection, Model, Org,
    Outcome::{self, Done},
    UNKNOWN, WRONG,
};

/// How far a server is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Operator,
    Viewer,
    Metrics,
}

impl Level {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Viewer => "viewer",
            Self::Metrics => "metrics",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) agreement: usize,
    pub(crate) server: usize,
    pub(crate) owner: Org,
    pub(crate) peer: Org,
    pub(crate) level: Level,
    pub(crate) expires_at: Option<u64>,
    pub(crate) open: bool,
    shared_by: usize,
}

impl Model {
    /// In force at once; where the peer has one server only, its tunnel comes with the share.
    pub(super) fn share(
        &mut self,
        who: Caller,
        (agreement, server): (usize, usize),
        level: Level,
        expires_at: Option<u64>,
        now: u64,
    ) -> Outcome {
        if let Some(hindrance) = self.hindrance_of_opening((agreement, server), who.org, level == Level::Operator) {
            return hindrance;
        }
        let peer = self.agreements[agreement].other(who.org);
        if self.shares.iter().any(|row| row.open && (row.server, row.peer) == (server, peer)) {
            return CONFLICT;
        }
        let (owner, shared_by) = (who.org, who.person);
        self.shares.push(Share { agreement, server, owner, peer, level, expires_at, open: true, shared_by });
        if let Ok(user) = self.own_server(peer, None)
            && self.servers[user].gateway
            && level != Level::Metrics
        {
            self.open_tunnel(self.shares.len() - 1, user, now);
        }
        Done
    }

    /// One tunnel from each server.
    pub(super) fn open_share(&mut self, n: usize, own: Org, server: Option<usize>, now: u64) -> Outcome {
        let share = &self.shares[n];
        if ![share.owner, share.peer].contains(&own) {
            return UNKNOWN;
        }
        if share.peer != own || !share.open {
            return WRONG;
        }
        if let Some(hindrance) = self.hindrance(share.agreement, own) {
            return hindrance;
        }
        let user = match self.using_server(own, server) {
            Ok(server) => server,
            Err(refused) => return refused,
        };
        let there = |row: &Connection| !row.is_over() && row.share == Some(n) && row.sender == Some(user);
        if self.connections.iter().any(there) {
            return Done;
        }
        if self.shares[n].level == Level::Metrics {
            return WRONG;
        }
        self.open_tunnel(n, user, now);
        Done
    }

    pub(super) fn end_share(&mut self, n: usize, own: Org) -> Outcome {
        let share = &mut self.shares[n];
        if ![share.owner, share.peer].contains(&own) {
            return UNKNOWN;
        }
        share.open = false;
        self.end_connections("terminated", |row| row.share == Some(n));
        Done
    }

    fn open_tunnel(&mut self, n: usize, user: usize, now: u64) {
        let share = &self.shares[n];
        let person = share.shared_by;
        let row = Connection {
            share: Some(n),
            sender: Some(user),
            writes: share.level == Level::Operator,
            expires_at: share.expires_at,
            ..Connection::new(share.agreement, share.owner, share.peer, share.server)
        };
        self.begin_admin(row, person, now);
    }
}
