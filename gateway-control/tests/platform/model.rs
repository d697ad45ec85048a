//! What the platform should do, once more and as simply as possible: the reference that the real one is compared with.
//! It follows the documents (state-machines.md, permissions.md, control-plane.md) and shares no code with the platform, the
//! transition table included.

mod admin;
mod connections;
mod grants;
mod peering;
mod places;
mod policy;
mod shares;

use std::collections::BTreeMap;

use gateway_proto::limits::ChannelLimits;

pub(crate) use self::{
    connections::{Connection, Rotation},
    grants::Grant,
    peering::{Agreement, Request},
    places::{Channel, Server, channel_name, engine_of, server_name},
    policy::{Entries, Entry, Local},
    shares::{Level, Share},
};

/// How many organizations there are.
pub(crate) const ORGS: usize = 3;
/// One of them.
pub(crate) type Org = usize;
/// The organization with the tier Enterprise; the others have Free.
pub(crate) const LARGE: Org = 0;

/// As what somebody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Owner,
    Admin,
    Operator,
    Viewer,
    Auditor,
    /// A token of the admin with the scopes [`SCOPES`].
    Token,
}

/// What the token is for.
pub(crate) const SCOPES: [&str; 2] = ["grant", "connection"];

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) org: Org,
    pub(crate) role: Role,
    /// Nobody else has the same number, also not whoever gets the role later.
    pub(crate) person: usize,
}

/// What somebody tries, on what: numbers count what was ever made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Try {
    RequestPeering(Org),
    AcceptPeering(usize),
    DeclinePeering(usize),
    WithdrawPeering(usize),
    Suspend(usize),
    Lift(usize),
    End(usize),
    /// `limited`: with an end and limits of its own.
    Grant {
        agreement: usize,
        channel: usize,
        sender: Option<usize>,
        limited: bool,
    },
    Approve {
        grant: usize,
        sender: Option<usize>,
        auto: bool,
    },
    Deny(usize),
    Withdraw(usize),
    Revoke(usize),
    Surrender(usize),
    /// `user`: inside a self-agreement, the server it is used from; `boxed`: with an end.
    OfferAdmin {
        agreement: usize,
        server: usize,
        user: Option<usize>,
        writes: bool,
        boxed: bool,
    },
    ApproveAdmin(usize),
    AcceptAdmin {
        connection: usize,
        server: Option<usize>,
        auto: bool,
    },
    DeclineAdmin(usize),
    Activate(usize),
    Pause(usize),
    Resume(usize),
    Retry(usize),
    Terminate(usize),
    /// With the overlap that nobody named, or at once.
    Rotate {
        connection: usize,
        at_once: bool,
    },
    Share {
        agreement: usize,
        server: usize,
        level: Level,
        boxed: bool,
    },
    OpenShare {
        share: usize,
        server: Option<usize>,
    },
    EndShare(usize),
    DemandTwoPersons(bool),
    AddServer,
    RemoveServer(usize),
    AddChannel(usize),
    RemoveChannel(usize),
    /// The user of the own organization with this role.
    RemoveUser(Role),
}

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Refused(&'static str),
}

use Outcome::{Done, Refused};

const WRONG: Outcome = Refused("wrong_state");
const CONFLICT: Outcome = Refused("conflict");
const FORBIDDEN: Outcome = Refused("forbidden");
const UNKNOWN: Outcome = Refused("not_found");
const INVALID: Outcome = Refused("invalid");
const SLOW: Outcome = Refused("rate_limited");
const TIER: Outcome = Refused("tier_limit");

/// A peering request and a grant wait so long for an answer, seconds.
const ANSWER_SECS: u64 = 14 * 24 * 3600;
/// What is asked for with an end ends so much later, seconds.
pub(crate) const LIMITED_SECS: u64 = 600;

/// What a connection may carry, beside its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) max_streams: u32,
    pub(crate) beside: ChannelLimits,
    pub(crate) staleness_secs: u64,
    pub(crate) post_quantum: bool,
}

/// What the documents give a grant that asks for nothing else, and an admin connection.
const PLAIN: Limits = Limits { max_streams: 64, beside: UNLIMITED, staleness_secs: 72 * 3600, post_quantum: false };
const PLAIN_ADMIN: Limits = Limits { max_streams: 64, beside: UNLIMITED, staleness_secs: 15 * 60, post_quantum: false };
const UNLIMITED: ChannelLimits = ChannelLimits { bytes_per_second: None, receive_timeout_secs: None };
/// What a limited grant asks for.
pub(crate) const NARROW: Limits = Limits {
    max_streams: 7,
    beside: ChannelLimits { bytes_per_second: Some(2_000), receive_timeout_secs: Some(60) },
    staleness_secs: 120,
    post_quantum: true,
};

/// Everything the organizations have, and have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) servers: Vec<Server>,
    pub(crate) channels: Vec<Channel>,
    pub(crate) requests: Vec<Request>,
    pub(crate) agreements: Vec<Agreement>,
    pub(crate) grants: Vec<Grant>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) shares: Vec<Share>,
    /// Whether admin connections to their servers need a second person.
    pub(crate) two_persons: [bool; ORGS],
    /// Until when time has passed, Unix seconds.
    pub(crate) now: u64,
}

impl Model {
    /// Does it, if it may be done. `now`: Unix seconds.
    pub(crate) fn attempt(&mut self, who: Caller, what: Try, now: u64) -> Outcome {
        self.pass(now);
        if !may(who.role, what) {
            return FORBIDDEN;
        }
        let own = who.org;
        match what {
            Try::RequestPeering(to) => self.request(own, to, now),
            Try::AcceptPeering(n) => self.accept(n, own),
            Try::DeclinePeering(n) => self.answer(n, own, true, "declined"),
            Try::WithdrawPeering(n) => self.answer(n, own, false, "withdrawn"),
            Try::Suspend(n) => self.suspend(n, own, true),
            Try::Lift(n) => self.suspend(n, own, false),
            Try::End(n) => self.end(n, own),
            Try::Grant { agreement, channel, sender, limited } => {
                self.grant(own, (agreement, channel), sender, limited, now)
            }
            Try::Approve { grant, sender, auto } => self.approve(grant, own, sender, auto),
            Try::Deny(n) => self.answer_grant(n, own, false, "denied"),
            Try::Withdraw(n) => self.answer_grant(n, own, true, "withdrawn"),
            Try::Revoke(n) => self.give_up(n, own, true),
            Try::Surrender(n) => self.give_up(n, own, false),
            Try::OfferAdmin { agreement, server, user, writes, boxed } => {
                self.offer_admin(who, (agreement, server), user, writes, boxed.then_some(now + LIMITED_SECS), now)
            }
            Try::ApproveAdmin(n) => self.approve_admin(n, who, now),
            Try::AcceptAdmin { connection, server, auto } => self.accept_admin(connection, own, server, auto),
            Try::DeclineAdmin(n) => self.decline_admin(n, own),
            Try::Activate(n) => self.activate(n, own),
            Try::Pause(n) => self.pause(n, own, true),
            Try::Resume(n) => self.pause(n, own, false),
            Try::Retry(n) => self.retry(n, own),
            Try::Terminate(n) => self.terminate(n, own),
            Try::Rotate { connection, at_once } => self.rotate(connection, own, at_once, now),
            Try::Share { agreement, server, level, boxed } => {
                self.share(who, (agreement, server), level, boxed.then_some(now + LIMITED_SECS), now)
            }
            Try::OpenShare { share, server } => self.open_share(share, own, server, now),
            Try::EndShare(n) => self.end_share(n, own),
            Try::DemandTwoPersons(on) => self.demand_two_persons(who, on),
            Try::AddServer => self.add_server(own),
            Try::RemoveServer(n) => self.remove_server(n, own),
            Try::AddChannel(server) => self.add_channel(server, own),
            Try::RemoveChannel(n) => self.remove_channel(n, who),
            Try::RemoveUser(_) => Done,
        }
    }

    /// What time alone does: to the second, whenever it is written down.
    pub(crate) fn pass(&mut self, now: u64) {
        let over = |end: Option<u64>| end.is_some_and(|end| now >= end);
        for request in self.requests.iter_mut().filter(|row| row.status == "pending") {
            if now >= request.created_at + ANSWER_SECS {
                request.status = "expired";
            }
        }
        for n in 0..self.grants.len() {
            let grant = &mut self.grants[n];
            let unanswered = grant.waits() && now >= grant.created_at + ANSWER_SECS;
            if grant.is_open() && (unanswered || over(grant.expires_at)) {
                grant.status = "expired";
                self.end_connections("expired", |row| row.grant == Some(n));
            }
        }
        self.end_connections("expired", |row| {
            let waits = matches!(row.status, "provisioning" | "offered");
            row.grant.is_none() && (over(row.expires_at) || (waits && now >= row.answer_by))
        });
        for share in self.shares.iter_mut().filter(|share| over(share.expires_at)) {
            share.open = false;
        }
        for connection in &mut self.connections {
            connection.rotation = connection.rotation.filter(|rotation| now < rotation.until);
        }
        self.now = now;
    }

    /// The statuses one organization is shown, by list: nothing of what it has nothing to do with.
    pub(crate) fn shown(&self, own: Org) -> BTreeMap<(&'static str, usize), &'static str> {
        let requests = self.requests.iter().map(|row| ([row.from, row.to], row.status));
        let agreements = self.agreements.iter().map(|row| (row.sides, row.status()));
        let grants = self.grants.iter().map(|row| ([row.owner, row.peer], row.status));
        let connections = self.connections.iter().map(|row| ([row.owner, row.user], row.status));
        let shares = self.shares.iter().map(|row| ([row.owner, row.peer], if row.open { "open" } else { "over" }));
        let mut shown = BTreeMap::new();
        let mut add = |list: &'static str, rows: Vec<([Org; 2], &'static str)>| {
            let own_rows = rows.into_iter().enumerate().filter(|(_, (sides, _))| sides.contains(&own));
            shown.extend(own_rows.map(|(n, (_, status))| ((list, n), status)));
        };
        add("requests", requests.collect());
        add("agreements", agreements.collect());
        add("grants", grants.collect());
        add("connections", connections.collect());
        add("shares", shares.collect());
        // What is over is left out of the list of shares.
        shown.retain(|_, status| *status != "over");
        shown
    }
}

/// The table of permissions.md. Nobody without a role tries anything.
fn may(role: Role, what: Try) -> bool {
    let operates = matches!(
        what,
        Try::Activate(_)
            | Try::Pause(_)
            | Try::Resume(_)
            | Try::Retry(_)
            | Try::OpenShare { .. }
            | Try::AddChannel(_)
            | Try::RemoveChannel(_)
    );
    match role {
        Role::Owner | Role::Admin => true,
        Role::Operator => operates,
        Role::Viewer | Role::Auditor => false,
        Role::Token => matches!(
            what,
            Try::Grant { .. }
                | Try::Approve { .. }
                | Try::Deny(_)
                | Try::Withdraw(_)
                | Try::Revoke(_)
                | Try::Surrender(_)
                | Try::Activate(_)
                | Try::Pause(_)
                | Try::Resume(_)
                | Try::Retry(_)
                | Try::Terminate(_)
                | Try::Rotate { .. }
        ),
    }
}
