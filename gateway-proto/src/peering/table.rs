//! The table itself.

use super::{
    Act, AgreementAct, AgreementStatus, ConnectionAct, ConnectionStatus, GrantAct, GrantStatus, PeeringAct,
    PeeringStatus,
    machine::{By, Transition},
};

macro_rules! table {
    ($status:ident, $act:ident: $($from:ident + $step:ident ($by:ident) => $to:ident;)*) => {
        &[$(Transition { from: $status::$from, act: $act::$step, by: By::$by, to: $status::$to }),*]
    };
}

/// Peering request; the owner is the asking organization.
pub const PEERING: &[Transition<PeeringStatus, PeeringAct>] = table! { PeeringStatus, PeeringAct:
    Pending + Accept (Peer) => Accepted;
    Pending + Decline (Peer) => Declined;
    Pending + Withdraw (Owner) => Withdrawn;
    Pending + Expire (System) => Expired;
};

/// Agreement; the sides are equal.
pub const AGREEMENT: &[Transition<AgreementStatus, AgreementAct>] = table! { AgreementStatus, AgreementAct:
    Active + Suspend (Either) => Suspended;
    Suspended + Suspend (Either) => Suspended;
    Suspended + Release (Either) => Suspended;
    Suspended + Resume (Either) => Active;
    Active + End (Anyone) => Ended;
    Suspended + End (Anyone) => Ended;
};

/// Grant; the owner is the organization whose channel it is.
pub const GRANT: &[Transition<GrantStatus, GrantAct>] = table! { GrantStatus, GrantAct:
    Pending + Approve (Peer) => Active;
    Pending + Deny (Peer) => Denied;
    Pending + Withdraw (Owner) => Withdrawn;
    Pending + Expire (System) => Expired;
    Pending + Close (System) => Revoked;
    Requested + Approve (Owner) => Active;
    Requested + Deny (Owner) => Denied;
    Requested + Withdraw (Peer) => Withdrawn;
    Requested + Expire (System) => Expired;
    Requested + Close (System) => Revoked;
    Active + Revoke (Owner) => Revoked;
    Active + Surrender (Peer) => Surrendered;
    Active + Expire (System) => Expired;
    Active + Close (System) => Revoked;
};

/// Connection; the owner is the organization of the receiving server.
pub const CONNECTION: &[Transition<ConnectionStatus, ConnectionAct>] = table! { ConnectionStatus, ConnectionAct:
    Provisioning + Provision (System) => Ready;
    Provisioning + Approve (Owner) => Provisioning;
    Provisioning + Offer (System) => Offered;
    Provisioning + Fail (System) => Failed;
    Provisioning + Expire (System) => Expired;
    Provisioning + Terminate (Anyone) => Terminated;
    Offered + Accept (Peer) => Ready;
    Offered + Decline (Peer) => Declined;
    Offered + Expire (System) => Expired;
    Offered + Terminate (Anyone) => Terminated;
    Ready + Activate (Anyone) => Active;
    Ready + Fail (System) => Failed;
    Ready + Expire (System) => Expired;
    Ready + Terminate (Anyone) => Terminated;
    Active + Pause (Either) => Paused;
    Active + Expire (System) => Expired;
    Active + Terminate (Anyone) => Terminated;
    Paused + Pause (Either) => Paused;
    Paused + Release (Either) => Paused;
    Paused + Resume (Either) => Active;
    Paused + Expire (System) => Expired;
    Paused + Terminate (Anyone) => Terminated;
    Failed + Retry (Either) => Ready;
    Failed + Expire (System) => Expired;
    Failed + Terminate (Anyone) => Terminated;
};

impl Act for PeeringAct {
    type Status = PeeringStatus;
    const MACHINE: &'static str = "peering request";
    const START: &'static [PeeringStatus] = &[PeeringStatus::Pending];
    const STATUSES: &'static [PeeringStatus] = PeeringStatus::ALL;
    const TABLE: &'static [Transition<PeeringStatus, Self>] = PEERING;
}

impl Act for AgreementAct {
    type Status = AgreementStatus;
    const MACHINE: &'static str = "agreement";
    const START: &'static [AgreementStatus] = &[AgreementStatus::Active];
    const STATUSES: &'static [AgreementStatus] = AgreementStatus::ALL;
    const TABLE: &'static [Transition<AgreementStatus, Self>] = AGREEMENT;
}

impl Act for GrantAct {
    type Status = GrantStatus;
    const MACHINE: &'static str = "grant";
    const START: &'static [GrantStatus] = &[GrantStatus::Pending, GrantStatus::Requested];
    const STATUSES: &'static [GrantStatus] = GrantStatus::ALL;
    const TABLE: &'static [Transition<GrantStatus, Self>] = GRANT;
}

impl Act for ConnectionAct {
    type Status = ConnectionStatus;
    const MACHINE: &'static str = "connection";
    const START: &'static [ConnectionStatus] = &[ConnectionStatus::Provisioning];
    const STATUSES: &'static [ConnectionStatus] = ConnectionStatus::ALL;
    const TABLE: &'static [Transition<ConnectionStatus, Self>] = CONNECTION;
}
