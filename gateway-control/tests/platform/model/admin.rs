//! Admin connections: offered, approved by a second person where that is demanded, answered.

use super::{
    CONFLICT, Caller, Connection, FORBIDDEN, Model, Org,
    Outcome::{self, Done},
    PLAIN_ADMIN, Role, UNKNOWN, WRONG,
};

/// An offer waits so long for an answer, seconds.
const OFFER_SECS: u64 = 7 * 24 * 3600;
/// Offers of one agreement that may wait.
const WAITING_OFFERS: usize = 20;

impl Model {
    pub(super) fn offer_admin(
        &mut self,
        who: Caller,
        (agreement, server): (usize, usize),
        user: Option<usize>,
        writes: bool,
        expires_at: Option<u64>,
        now: u64,
    ) -> Outcome {
        if let Some(hindrance) = self.hindrance_of_opening((agreement, server), who.org, writes) {
            return hindrance;
        }
        let waits = |row: &&Connection| {
            row.agreement == agreement && (row.status == "offered" || (row.first_person.is_some() && !row.approved))
        };
        if self.connections.iter().filter(|row| !row.is_over()).filter(waits).count() >= WAITING_OFFERS {
            return CONFLICT;
        }
        let peer = self.agreements[agreement].other(who.org);
        let mut sender = None;
        if peer == who.org {
            match self.using_server(peer, user) {
                Ok(server) => sender = Some(server),
                Err(refused) => return refused,
            }
        }
        let row = Connection { sender, writes, expires_at, ..Connection::new(agreement, who.org, peer, server) };
        self.begin_admin(row, who.person, now);
        Done
    }

    /// A new admin connection, or tunnel of a share, of which `person` is the first one behind it.
    pub(super) fn begin_admin(&mut self, row: Connection, person: usize, now: u64) {
        let first_person = self.two_persons[row.owner].then_some(person);
        self.connections.push(Connection { first_person, limits: PLAIN_ADMIN, answer_by: now + OFFER_SECS, ..row });
        self.provision(self.connections.len() - 1);
    }

    pub(super) fn approve_admin(&mut self, n: usize, who: Caller, now: u64) -> Outcome {
        let connection = &self.connections[n];
        if !connection.has(who.org) {
            return UNKNOWN;
        }
        let owns = connection.owner == who.org;
        if connection.approved && owns && !connection.is_over() {
            return Done;
        }
        if connection.status != "provisioning" || !owns || connection.first_person.is_none() {
            return WRONG;
        }
        if connection.first_person == Some(who.person) {
            return FORBIDDEN;
        }
        if let Some(hindrance) = self.hindrance(connection.agreement, who.org) {
            return hindrance;
        }
        let connection = &mut self.connections[n];
        connection.approved = true;
        connection.answer_by = now + OFFER_SECS;
        self.provision(n);
        Done
    }

    pub(super) fn accept_admin(&mut self, n: usize, own: Org, server: Option<usize>, auto: bool) -> Outcome {
        let connection = &self.connections[n];
        if !connection.has(own) {
            return UNKNOWN;
        }
        if connection.user != own || connection.grant.is_some() {
            return WRONG;
        }
        match connection.status {
            "ready" => return if connection.answered(server, auto) { Done } else { CONFLICT },
            "offered" => {}
            _ => return WRONG,
        }
        if let Some(hindrance) = self.hindrance(connection.agreement, own) {
            return hindrance;
        }
        let server = match self.using_server(own, server) {
            Ok(server) => server,
            Err(refused) => return refused,
        };
        let connection = &mut self.connections[n];
        connection.sender = Some(server);
        connection.auto = auto;
        connection.status = "ready";
        Done
    }

    pub(super) fn decline_admin(&mut self, n: usize, own: Org) -> Outcome {
        let connection = &mut self.connections[n];
        if !connection.has(own) {
            return UNKNOWN;
        }
        if connection.user != own || !matches!(connection.status, "offered" | "declined") {
            return WRONG;
        }
        connection.status = "declined";
        Done
    }

    /// Only an owner gives it up.
    pub(super) fn demand_two_persons(&mut self, who: Caller, on: bool) -> Outcome {
        if self.two_persons[who.org] && !on && who.role != Role::Owner {
            return FORBIDDEN;
        }
        self.two_persons[who.org] = on;
        Done
    }
}
