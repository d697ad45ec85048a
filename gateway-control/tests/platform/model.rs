//! What the platform should do, once more and as simply as possible: the reference that the real one is compared with.
//! It shares no code with it, the transition table included.

use std::collections::BTreeMap;

/// One of the two organizations.
pub(crate) type Org = usize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Owner,
    Operator,
    Viewer,
}

/// What somebody tries. Numbers choose among what exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Try {
    RequestPeering,
    AcceptPeering(usize),
    DeclinePeering(usize),
    WithdrawPeering(usize),
    Suspend(usize),
    Lift(usize),
    End(usize),
    /// The channel of this organization: to offer the own one, to ask for the other's.
    Grant(Org),
    Approve(usize),
    Deny(usize),
    Withdraw(usize),
    Revoke(usize),
    Surrender(usize),
    OfferAdmin,
    AcceptAdmin(usize),
    DeclineAdmin(usize),
    Activate(usize),
    Pause(usize),
    Resume(usize),
    Terminate(usize),
}

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Refused(&'static str),
}

use Outcome::{Done, Refused};

pub(crate) const WRONG: Outcome = Refused("wrong_state");
pub(crate) const CONFLICT: Outcome = Refused("conflict");
pub(crate) const FORBIDDEN: Outcome = Refused("forbidden");
pub(crate) const SLOW: Outcome = Refused("rate_limited");

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) from: Org,
    pub(crate) status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Agreement {
    pub(crate) ended: bool,
    pub(crate) suspends: [bool; 2],
}

impl Agreement {
    pub(crate) fn status(&self) -> &'static str {
        match (self.ended, self.suspends.contains(&true)) {
            (true, _) => "ended",
            (false, true) => "suspended",
            (false, false) => "active",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) agreement: usize,
    pub(crate) owner: Org,
    pub(crate) status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) agreement: usize,
    /// None: an admin connection.
    pub(crate) grant: Option<usize>,
    pub(crate) owner: Org,
    pub(crate) status: &'static str,
    pub(crate) paused: [bool; 2],
}

/// Everything the two organizations have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) requests: Vec<Request>,
    pub(crate) agreements: Vec<Agreement>,
    pub(crate) grants: Vec<Grant>,
    pub(crate) connections: Vec<Connection>,
}

/// Requests without success that one organization may make to another in 14 days.
const VAIN_REQUESTS: usize = 5;

impl Model {
    /// Whether there is something the attempt is about.
    pub(crate) fn has_object(&self, what: Try) -> bool {
        match what {
            Try::RequestPeering => true,
            Try::AcceptPeering(_) | Try::DeclinePeering(_) | Try::WithdrawPeering(_) => !self.requests.is_empty(),
            Try::Suspend(_) | Try::Lift(_) | Try::End(_) | Try::Grant(_) | Try::OfferAdmin => {
                !self.agreements.is_empty()
            }
            Try::Approve(_) | Try::Deny(_) | Try::Withdraw(_) | Try::Revoke(_) | Try::Surrender(_) => {
                !self.grants.is_empty()
            }
            Try::AcceptAdmin(_)
            | Try::DeclineAdmin(_)
            | Try::Activate(_)
            | Try::Pause(_)
            | Try::Resume(_)
            | Try::Terminate(_) => !self.connections.is_empty(),
        }
    }

    /// Does it, if it may be done.
    pub(crate) fn attempt(&mut self, own: Org, role: Role, what: Try) -> Outcome {
        let operates = matches!(what, Try::Activate(_) | Try::Pause(_) | Try::Resume(_));
        if role == Role::Viewer || (role == Role::Operator && !operates) {
            return FORBIDDEN;
        }
        match what {
            Try::RequestPeering => self.request(own),
            Try::AcceptPeering(n) => {
                let outcome = self.answer(n, own, true, "accepted");
                if outcome == Done && self.agreements.len() < self.accepted() {
                    self.agreements.push(Agreement { ended: false, suspends: [false; 2] });
                }
                outcome
            }
            Try::DeclinePeering(n) => self.answer(n, own, true, "declined"),
            Try::WithdrawPeering(n) => self.answer(n, own, false, "withdrawn"),
            Try::Suspend(n) => self.suspend(n, own, true),
            Try::Lift(n) => self.suspend(n, own, false),
            Try::End(n) => self.end(n),
            Try::Grant(owner) => self.grant(own, owner),
            Try::Approve(n) => self.approve(n, own),
            Try::Deny(n) => self.answer_grant(n, own, false, "denied"),
            Try::Withdraw(n) => self.answer_grant(n, own, true, "withdrawn"),
            Try::Revoke(n) => self.give_up(n, own, true),
            Try::Surrender(n) => self.give_up(n, own, false),
            Try::OfferAdmin => {
                let last = self.agreements.len() - 1;
                if self.agreements[last].status() != "active" {
                    return WRONG;
                }
                let paused = [false; 2];
                self.connections.push(Connection {
                    agreement: last,
                    grant: None,
                    owner: own,
                    status: "offered",
                    paused,
                });
                Done
            }
            Try::AcceptAdmin(n) => self.answer_admin(n, own, "ready"),
            Try::DeclineAdmin(n) => self.answer_admin(n, own, "declined"),
            Try::Activate(n) => match self.connections[n].status {
                "ready" | "active" => {
                    self.connections[n].status = "active";
                    Done
                }
                _ => WRONG,
            },
            Try::Pause(n) => match self.connections[n].status {
                "active" | "paused" => {
                    let connection = &mut self.connections[n];
                    connection.paused[own] = true;
                    connection.status = "paused";
                    Done
                }
                _ => WRONG,
            },
            Try::Resume(n) => match self.connections[n].status {
                "active" | "paused" => {
                    let connection = &mut self.connections[n];
                    connection.paused[own] = false;
                    connection.status = if connection.paused.contains(&true) { "paused" } else { "active" };
                    Done
                }
                _ => WRONG,
            },
            Try::Terminate(n) => self.terminate(n, own),
        }
    }

    /// What a gateway may have in its policy, by number of the connection: nothing else, and nothing more.
    pub(crate) fn policy(&self) -> BTreeMap<usize, &'static str> {
        let open = self.connections.iter().enumerate().filter_map(|(n, connection)| {
            let agreement = self.agreements[connection.agreement].status();
            match (connection.status, agreement) {
                (_, "ended") => None,
                ("ready" | "active" | "paused", "suspended") => Some((n, "suspended")),
                (status @ ("ready" | "active" | "paused"), _) => Some((n, status)),
                _ => None,
            }
        });
        open.collect()
    }

    fn accepted(&self) -> usize {
        self.requests.iter().filter(|request| request.status == "accepted").count()
    }

    fn request(&mut self, own: Org) -> Outcome {
        let pending = self.requests.iter().any(|request| request.status == "pending");
        if pending || self.agreements.iter().any(|agreement| !agreement.ended) {
            return CONFLICT;
        }
        let vain = |request: &&Request| request.from == own && request.status != "accepted";
        if self.requests.iter().filter(vain).count() >= VAIN_REQUESTS {
            return SLOW;
        }
        self.requests.push(Request { from: own, status: "pending" });
        Done
    }

    fn answer(&mut self, n: usize, own: Org, by_other: bool, to: &'static str) -> Outcome {
        let request = &mut self.requests[n];
        if (request.from == own) == by_other || (request.status != "pending" && request.status != to) {
            return WRONG;
        }
        request.status = to;
        Done
    }

    fn suspend(&mut self, n: usize, own: Org, on: bool) -> Outcome {
        if self.agreements[n].ended {
            return WRONG;
        }
        self.agreements[n].suspends[own] = on;
        Done
    }

    fn end(&mut self, n: usize) -> Outcome {
        self.agreements[n].ended = true;
        for grant in self.grants.iter_mut().filter(|grant| grant.agreement == n) {
            if matches!(grant.status, "pending" | "requested" | "active") {
                grant.status = "revoked";
            }
        }
        for connection in self.connections.iter_mut().filter(|connection| connection.agreement == n) {
            if !matches!(connection.status, "declined" | "terminated") {
                connection.status = "terminated";
            }
        }
        Done
    }

    fn grant(&mut self, own: Org, owner: Org) -> Outcome {
        let last = self.agreements.len() - 1;
        if self.agreements[last].status() != "active" {
            return WRONG;
        }
        let waits = |grant: &Grant| matches!(grant.status, "pending" | "requested");
        if self.grants.iter().any(|grant| grant.agreement == last && grant.owner == owner && waits(grant)) {
            return CONFLICT;
        }
        let status = if own == owner { "pending" } else { "requested" };
        self.grants.push(Grant { agreement: last, owner, status });
        Done
    }

    fn approve(&mut self, n: usize, own: Org) -> Outcome {
        let grant = &self.grants[n];
        let owns = grant.owner == own;
        match grant.status {
            "active" => return Done,
            "pending" if !owns => {}
            "requested" if owns => {}
            _ => return WRONG,
        }
        let (agreement, owner) = (grant.agreement, grant.owner);
        if self.agreements[agreement].status() != "active" {
            return WRONG;
        }
        self.grants[n].status = "active";
        self.connections.push(Connection { agreement, grant: Some(n), owner, status: "ready", paused: [false; 2] });
        Done
    }

    fn answer_grant(&mut self, n: usize, own: Org, by_starter: bool, to: &'static str) -> Outcome {
        let grant = &mut self.grants[n];
        let started = (grant.status == "pending") == (grant.owner == own);
        match grant.status {
            status if status == to => Done,
            "pending" | "requested" if started == by_starter => {
                grant.status = to;
                Done
            }
            _ => WRONG,
        }
    }

    fn give_up(&mut self, n: usize, own: Org, by_owner: bool) -> Outcome {
        let to = if by_owner { "revoked" } else { "surrendered" };
        let grant = &mut self.grants[n];
        if (grant.owner == own) != by_owner || (grant.status != "active" && grant.status != to) {
            return WRONG;
        }
        if grant.status == "active" {
            grant.status = to;
            for connection in self.connections.iter_mut().filter(|connection| connection.grant == Some(n)) {
                connection.status = "terminated";
            }
        }
        Done
    }

    fn answer_admin(&mut self, n: usize, own: Org, to: &'static str) -> Outcome {
        let connection = &self.connections[n];
        let suspended = self.agreements[connection.agreement].status() != "active";
        let repeated = connection.status == to;
        let possible = connection.status == "offered" && !(suspended && to == "ready");
        if connection.owner == own || connection.grant.is_some() || !(repeated || possible) {
            return WRONG;
        }
        self.connections[n].status = to;
        Done
    }

    fn terminate(&mut self, n: usize, own: Org) -> Outcome {
        let connection = &mut self.connections[n];
        match connection.status {
            "terminated" => return Done,
            "declined" => return WRONG,
            _ => connection.status = "terminated",
        }
        if let Some(grant) = connection.grant {
            self.grants[grant].status = if connection.owner == own { "revoked" } else { "surrendered" };
        }
        Done
    }
}
