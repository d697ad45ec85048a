//! The role matrix of the platform, as one table.

use gateway_proto::api::platform::Role::{self, Admin, Auditor, Operator, Owner, Viewer};

/// What a user may want to do, as far as roles tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// See everything of the own organization except the audit log.
    Read,
    /// See the audit log.
    ReadAudit,
    /// Change name, description and visibility of the organization.
    ChangeOrganization,
    /// Add and remove users.
    ManageUsers,
    /// Add and remove servers, make enrolment codes.
    ManageServers,
    /// Peering requests and agreements.
    ManagePeering,
    /// Offer, ask for, approve and end grants.
    ManageGrants,
    /// Add, change, publish and remove channels.
    PublishChannels,
    /// Activate, pause, resume and retry connections.
    OperateConnections,
    /// End connections for good.
    TerminateConnections,
}

/// Who may do what.
pub const MATRIX: &[(Act, &[Role])] = &[
    (Act::Read, &[Owner, Admin, Operator, Viewer, Auditor]),
    (Act::ReadAudit, &[Owner, Admin, Auditor]),
    (Act::ChangeOrganization, &[Owner, Admin]),
    (Act::ManageUsers, &[Owner, Admin]),
    (Act::ManageServers, &[Owner, Admin]),
    (Act::ManagePeering, &[Owner, Admin]),
    (Act::ManageGrants, &[Owner, Admin]),
    (Act::PublishChannels, &[Owner, Admin, Operator]),
    (Act::OperateConnections, &[Owner, Admin, Operator]),
    (Act::TerminateConnections, &[Owner, Admin]),
];

/// The roles that may do it.
pub fn allowed(act: Act) -> &'static [Role] {
    MATRIX.iter().find(|(entry, _)| *entry == act).map_or(&[], |(_, roles)| roles)
}

/// Whether a user of one role may add or remove a user of another: owners everybody, admins everybody below owner.
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
