//! Peering requests and agreements.

use super::{
    ANSWER_SECS, CONFLICT, LARGE, Model, ORGS, Org,
    Outcome::{self, Done},
    SLOW, TIER, UNKNOWN, WRONG,
};

/// Requests without success that one organization may make to another in 14 days.
const VAIN_REQUESTS: usize = 5;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) from: Org,
    pub(crate) to: Org,
    pub(crate) status: &'static str,
    pub(crate) created_at: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Agreement {
    /// The same twice: with itself.
    pub(crate) sides: [Org; 2],
    pub(crate) ended: bool,
    pub(crate) suspends: [bool; ORGS],
}

impl Agreement {
    pub(crate) fn status(&self) -> &'static str {
        match (self.ended, self.suspends.contains(&true)) {
            (true, _) => "ended",
            (false, true) => "suspended",
            (false, false) => "active",
        }
    }

    pub(crate) fn other(&self, own: Org) -> Org {
        if self.sides[0] == own { self.sides[1] } else { self.sides[0] }
    }
}

impl Model {
    pub(super) fn request(&mut self, from: Org, to: Org, now: u64) -> Outcome {
        let pair = |one: Org, other: Org| [one, other] == [from, to] || [one, other] == [to, from];
        let waits = self.requests.iter().any(|row| row.status == "pending" && pair(row.from, row.to));
        if waits || self.agreements.iter().any(|row| !row.ended && pair(row.sides[0], row.sides[1])) {
            return CONFLICT;
        }
        let vain = self.requests.iter().filter(|row| {
            (row.from, row.to) == (from, to) && row.status != "accepted" && now < row.created_at + ANSWER_SECS
        });
        if vain.count() >= VAIN_REQUESTS {
            return SLOW;
        }
        let status = if from == to { "accepted" } else { "pending" };
        self.requests.push(Request { from, to, status, created_at: now });
        if from == to {
            self.agree([from, to]);
        }
        Done
    }

    pub(super) fn accept(&mut self, n: usize, own: Org) -> Outcome {
        let waits = self.requests[n].status == "pending";
        let outcome = self.answer(n, own, true, "accepted");
        if waits && outcome == Done {
            self.agree([self.requests[n].from, self.requests[n].to]);
        }
        outcome
    }

    pub(super) fn answer(&mut self, n: usize, own: Org, by_asked: bool, to: &'static str) -> Outcome {
        let request = &mut self.requests[n];
        if ![request.from, request.to].contains(&own) {
            return UNKNOWN;
        }
        let side = if by_asked { request.to } else { request.from };
        if side != own || (request.status != "pending" && request.status != to) {
            return WRONG;
        }
        request.status = to;
        Done
    }

    pub(super) fn suspend(&mut self, n: usize, own: Org, on: bool) -> Outcome {
        let agreement = &mut self.agreements[n];
        if !agreement.sides.contains(&own) {
            return UNKNOWN;
        }
        if agreement.ended {
            return WRONG;
        }
        agreement.suspends[own] = on;
        Done
    }

    /// Its grants with their connections, its admin connections and its shares end with it.
    pub(super) fn end(&mut self, n: usize, own: Org) -> Outcome {
        if !self.agreements[n].sides.contains(&own) {
            return UNKNOWN;
        }
        self.agreements[n].ended = true;
        self.close_grants(|grant| grant.agreement == n);
        self.end_connections("terminated", |row| row.agreement == n);
        for share in self.shares.iter_mut().filter(|share| share.agreement == n) {
            share.open = false;
        }
        Done
    }

    /// Why nothing new may begin under an agreement; none: it may.
    pub(super) fn hindrance(&self, agreement: usize, own: Org) -> Option<Outcome> {
        let agreement = &self.agreements[agreement];
        if !agreement.sides.contains(&own) {
            return Some(UNKNOWN);
        }
        (agreement.status() != "active").then_some(WRONG)
    }

    /// Why an organization may not open the engine of a server under an agreement, for writing or for reading only.
    pub(super) fn hindrance_of_opening(
        &self,
        (agreement, server): (usize, usize),
        own: Org,
        writes: bool,
    ) -> Option<Outcome> {
        if let Some(hindrance) = self.hindrance(agreement, own) {
            return Some(hindrance);
        }
        if !self.has_server(own, server) {
            return Some(UNKNOWN);
        }
        (writes && own != LARGE).then_some(TIER)
    }

    fn agree(&mut self, sides: [Org; 2]) {
        self.agreements.push(Agreement { sides, ended: false, suspends: [false; ORGS] });
    }
}
