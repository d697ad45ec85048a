//! Grants of channels.

use super::{
    CONFLICT, Connection, INVALID, LIMITED_SECS, Limits, Model, NARROW, Org,
    Outcome::{self, Done},
    PLAIN, UNKNOWN, WRONG,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) agreement: usize,
    pub(crate) channel: usize,
    /// Whose channel it is.
    pub(crate) owner: Org,
    pub(crate) peer: Org,
    /// The sending server, once it is named.
    pub(crate) sender: Option<usize>,
    pub(crate) status: &'static str,
    pub(crate) limits: Limits,
    pub(crate) created_at: u64,
    pub(crate) expires_at: Option<u64>,
}

impl Grant {
    pub(crate) fn waits(&self) -> bool {
        matches!(self.status, "pending" | "requested")
    }

    pub(crate) fn is_open(&self) -> bool {
        self.waits() || self.status == "active"
    }
}

impl Model {
    /// Offers an own channel, or asks for one of the other side; inside a self-agreement it is approved at once.
    pub(super) fn grant(
        &mut self,
        own: Org,
        (agreement, channel): (usize, usize),
        sender: Option<usize>,
        limited: bool,
        now: u64,
    ) -> Outcome {
        if let Some(hindrance) = self.hindrance(agreement, own) {
            return hindrance;
        }
        let other = self.agreements[agreement].other(own);
        let owner = self.channels[channel].owner;
        if !self.channels[channel].lives || ![own, other].contains(&owner) {
            return UNKNOWN;
        }
        let waits = |row: &Grant| row.waits() && (row.agreement, row.channel) == (agreement, channel);
        if self.grants.iter().any(waits) {
            return CONFLICT;
        }
        let peer = if owner == own { other } else { own };
        let mut named = None;
        if peer == own {
            match self.own_server(own, sender) {
                Ok(server) => named = Some(server),
                Err(refused) => return refused,
            }
        }
        self.grants.push(Grant {
            agreement,
            channel,
            owner,
            peer,
            sender: named,
            status: if owner == own { "pending" } else { "requested" },
            limits: if limited { NARROW } else { PLAIN },
            created_at: now,
            expires_at: limited.then_some(now + LIMITED_SECS),
        });
        if owner == peer {
            self.put_in_force(self.grants.len() - 1, true);
        }
        Done
    }

    pub(super) fn approve(&mut self, n: usize, own: Org, sender: Option<usize>, auto: bool) -> Outcome {
        let grant = &self.grants[n];
        if ![grant.owner, grant.peer].contains(&own) {
            return UNKNOWN;
        }
        match grant.status {
            "active" => return self.approve_again(n, own, sender, auto),
            "pending" if grant.peer == own => {}
            "requested" if grant.owner == own => {}
            _ => return WRONG,
        }
        if let Some(hindrance) = self.hindrance(grant.agreement, own) {
            return hindrance;
        }
        if grant.peer == own {
            match self.own_server(own, sender) {
                Ok(server) => self.grants[n].sender = Some(server),
                Err(refused) => return refused,
            }
        }
        self.put_in_force(n, auto);
        Done
    }

    /// What the first approval said stays.
    fn approve_again(&self, n: usize, own: Org, sender: Option<usize>, auto: bool) -> Outcome {
        if self.grants[n].peer != own && sender.is_some() {
            return INVALID;
        }
        let made = self.connections.iter().find(|row| row.grant == Some(n)).unwrap();
        if made.answered(sender, auto) { Done } else { CONFLICT }
    }

    pub(super) fn answer_grant(&mut self, n: usize, own: Org, by_starter: bool, to: &'static str) -> Outcome {
        let grant = &mut self.grants[n];
        if ![grant.owner, grant.peer].contains(&own) {
            return UNKNOWN;
        }
        let started = (grant.status == "pending") == (grant.owner == own);
        if grant.status == to {
            return Done;
        }
        if !grant.waits() || started != by_starter {
            return WRONG;
        }
        grant.status = to;
        Done
    }

    /// Taken away by the owner, or given back by the peer.
    pub(super) fn give_up(&mut self, n: usize, own: Org, by_owner: bool) -> Outcome {
        let to = if by_owner { "revoked" } else { "surrendered" };
        let grant = &mut self.grants[n];
        if ![grant.owner, grant.peer].contains(&own) {
            return UNKNOWN;
        }
        let side = if by_owner { grant.owner } else { grant.peer };
        if side != own || (grant.status != "active" && grant.status != to) {
            return WRONG;
        }
        grant.status = to;
        self.end_connections("terminated", |row| row.grant == Some(n));
        Done
    }

    /// What they stand on is gone.
    pub(super) fn close_grants(&mut self, which: impl Fn(&Grant) -> bool) {
        for n in 0..self.grants.len() {
            if self.grants[n].is_open() && which(&self.grants[n]) {
                self.grants[n].status = "revoked";
                self.end_connections("terminated", |row| row.grant == Some(n));
            }
        }
    }

    fn put_in_force(&mut self, n: usize, auto: bool) {
        let grant = &mut self.grants[n];
        grant.status = "active";
        let connection = Connection {
            grant: Some(n),
            auto,
            sender: grant.sender,
            limits: grant.limits,
            expires_at: grant.expires_at,
            ..Connection::new(grant.agreement, grant.owner, grant.peer, self.channels[grant.channel].server)
        };
        self.connections.push(connection);
        self.provision(self.connections.len() - 1);
    }
}
