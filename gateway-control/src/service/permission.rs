//! The permission matrix of the platform: role × relation × act, as one table ([`MATRIX`]).
//!
//! The services ask it before they touch anything ([`super::Actor::may`]), `docs/permissions.md` is generated from it, and
//! `tests/platform/permissions.rs` makes every call as every role from every side and compares the answers with it. What is
//! not in the table is forbidden. A relation that the table leaves out is refused by what stands behind it: an
//! organization that may not see an object is told that there is none, and the wrong side of a relationship is refused by
//! the transition table, which says who could.

mod document;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub use document::document;
use gateway_proto::api::platform::Role::{self, Admin, Auditor, Operator, Owner, Viewer};

/// What the user's organization has to do with the object of an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Relation {
    /// The object is its own: its server, its channel, its request, the grant of its channel, the connection to its server.
    Own,
    /// The other side of that relationship: asked, granted, connected.
    Peer,
    /// Nothing: the object belongs to others.
    Stranger,
}

impl Relation {
    /// Every relation, in the order of the document.
    pub const ALL: &'static [Self] = &[Self::Own, Self::Peer, Self::Stranger];

    /// The word in the document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Peer => "peer",
            Self::Stranger => "stranger",
        }
    }
}

/// A row of the table: who may do it, on what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// What is done.
    pub act: Act,
    /// The roles that may do it,
    pub roles: &'static [Role],
    /// in an organization that stands in one of these relations to the object.
    pub relations: &'static [Relation],
}

const EVERYBODY: &[Role] = &[Owner, Admin, Operator, Viewer, Auditor];
const AUDITORS: &[Role] = &[Owner, Admin, Auditor];
const OPERATORS: &[Role] = &[Owner, Admin, Operator];
const MANAGERS: &[Role] = &[Owner, Admin];
const OWNERS: &[Role] = &[Owner];

const OWN: &[Relation] = &[Relation::Own];
const PEER: &[Relation] = &[Relation::Peer];
const EITHER: &[Relation] = &[Relation::Own, Relation::Peer];
const ANYONE: &[Relation] = Relation::ALL;
const OUTSIDE: &[Relation] = &[Relation::Own, Relation::Stranger];

macro_rules! matrix {
    ($($(#[$doc:meta])* $act:ident = $name:literal, $what:literal: $roles:ident on $relations:ident;)*) => {
        /// What a user may want to do, as far as permissions tell it apart.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Act { $(#[doc = $what] $act),* }

        impl Act {
            /// Every act, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$act),*];

            /// The name in documents and refusals: noun and verb.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$act => $name),* }
            }

            /// What it is, in words.
            pub fn what(self) -> &'static str {
                match self { $(Self::$act => $what),* }
            }
        }

        /// Who may do what on which side.
        pub const MATRIX: &[Rule] = &[
            $(Rule { act: Act::$act, roles: $roles, relations: $relations }),*
        ];
    };
}

matrix! {
    Read = "read", "See what belongs to the own organization or is shared with it, the audit log excepted": EVERYBODY on EITHER;
    ReadDirectory = "directory.read", "See the organizations that chose to be found": EVERYBODY on ANYONE;
    ReadAudit = "audit.read", "See the audit log of the own organization": AUDITORS on OWN;
    ChangeOrganization = "organization.update", "Change name, description and visibility of the organization": MANAGERS on OWN;
    DeleteOrganization = "organization.delete", "Remove the own organization with everything in it": OWNERS on OWN;
    ManageTenant = "tenant.manage", "As the organization that is the tenant itself: make, invite into and remove the others": MANAGERS on OWN;
    ManageUsers = "user.manage", "Add and remove users, change their roles; owners only by owners": MANAGERS on OWN;
    ManageServers = "server.manage", "Add and remove servers, make, see and revoke enrolment codes, acknowledge alarms about audit logs of gateways": MANAGERS on OWN;
    ManageDevices = "device.manage", "Add, change and remove devices": MANAGERS on OWN;
    ManageDeviceTokens = "device_token.manage", "Make and revoke tokens of own devices": OPERATORS on OWN;
    CreateLink = "link.create", "Link an own device to one that may be linked to": MANAGERS on OWN;
    RemoveLink = "link.remove", "Remove a link from or to an own device": MANAGERS on EITHER;
    ManageTokens = "token.manage", "Make and revoke own tokens for automation; those of others with user.manage": EVERYBODY on OWN;
    PublishChannels = "channel.manage", "Add, change, publish and remove channels": OPERATORS on OWN;
    RequestPeering = "peering_request.create", "Ask a discoverable organization, or oneself, for an agreement": MANAGERS on OUTSIDE;
    AnswerPeering = "peering_request.answer", "Accept or decline a peering request": MANAGERS on PEER;
    WithdrawPeering = "peering_request.withdraw", "Take an own peering request back": MANAGERS on OWN;
    ChangeAgreement = "agreement.change", "Suspend (own side), resume (own side) or end an agreement": MANAGERS on EITHER;
    OfferGrant = "grant.offer", "Offer a partner an own published channel": MANAGERS on OWN;
    RequestGrant = "grant.request", "Ask a partner for one of its published endpoints": MANAGERS on PEER;
    AnswerGrant = "grant.answer", "Approve, deny or withdraw a grant, as its status has it": MANAGERS on EITHER;
    RevokeGrant = "grant.revoke", "Take a grant of an own channel away": MANAGERS on OWN;
    SurrenderGrant = "grant.surrender", "Give a received grant back": MANAGERS on PEER;
    OperateConnections = "connection.operate", "Activate, pause (own side), resume (own side) and retry connections": OPERATORS on EITHER;
    RotateSecret = "connection.rotate_secret", "Replace the secret of a connection": MANAGERS on EITHER;
    OfferAdmin = "admin.offer", "Offer a partner the admin API of an own server's engine": MANAGERS on OWN;
    ApproveAdmin = "admin.approve", "As the second person, approve an admin connection to an own server": MANAGERS on OWN;
    AnswerAdmin = "admin.answer", "Accept or decline an offered admin connection": MANAGERS on PEER;
    EnterAdmin = "admin.enter", "Name oneself as the person behind an account or address at an accepted admin connection": OPERATORS on PEER;
    ShareServer = "share.create", "Share an own server with a partner": MANAGERS on OWN;
    OpenShare = "share.open", "Open a tunnel to a server that was shared": OPERATORS on PEER;
    EndShare = "share.end", "End a share with its tunnels": MANAGERS on EITHER;
    TerminateConnections = "connection.terminate", "End connections for good": MANAGERS on EITHER;
}

impl Act {
    /// The scope that a token needs for it: the noun.
    pub fn scope(self) -> &'static str {
        self.as_str().split('.').next().unwrap_or_default()
    }
}

/// The scopes that tokens of automation may have: the nouns of the acts, but for tokens themselves.
pub fn scopes() -> Vec<&'static str> {
    let mut scopes: Vec<_> = Act::ALL.iter().map(|act| act.scope()).filter(|scope| *scope != "token").collect();
    scopes.sort_unstable();
    scopes.dedup();
    scopes
}

/// The scopes in which a role may do anything at all.
pub(super) fn scopes_of(role: Role) -> BTreeSet<&'static str> {
    MATRIX.iter().filter(|rule| rule.roles.contains(&role)).map(|rule| rule.act.scope()).collect()
}

/// The row of an act.
pub fn rule(act: Act) -> &'static Rule {
    // The macro makes a row for every act, in the same order.
    &MATRIX[act as usize]
}

/// Whether a user of this role, whose organization stands in this relation to the object, may do it.
pub fn allows(role: Role, relation: Relation, act: Act) -> bool {
    let rule = rule(act);
    rule.roles.contains(&role) && rule.relations.contains(&relation)
}

/// Whether a user of one role may add, change or remove a user of another: owners everybody, admins everybody below owner.
pub fn may_manage(role: Role, other: Role) -> bool {
    match role {
        Owner => true,
        Admin => other != Owner,
        Operator | Viewer | Auditor => false,
    }
}

/// The role in words.
pub fn name(role: Role) -> &'static str {
    match role {
        Owner => "owner",
        Admin => "admin",
        Operator => "operator",
        Viewer => "viewer",
        Auditor => "auditor",
    }
}
