//! The state machines of the platform: peering request, agreement, grant, connection.
//!
//! There is one table ([`PEERING`], [`AGREEMENT`], [`GRANT`], [`CONNECTION`]), made of rows "in this status, this act by
//! this side leads to that status". What is not in the table is forbidden. The control plane acts on [`next`], the
//! documentation is drawn from the table ([`diagrams`]), and the tests walk every cell.
//!
//! What the table does not say, because it is not a status: each side of an agreement holds its own suspension and each
//! side of a connection its own pause. [`AgreementAct::resume`] and [`ConnectionAct::resume`] pick the right row, and
//! [`activation`] is what the gateways get to know of all of it.

mod diagram;
mod machine;
mod table;
#[cfg(test)]
mod tests;

pub use diagram::diagrams;
pub use machine::{Act, By, Side, Status, Transition, TransitionError, in_place, next, possible};
use serde::{Deserialize, Serialize};
pub use table::{AGREEMENT, CONNECTION, GRANT, PEERING};

use crate::policy::Activation;

/// Status of a peering request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PeeringStatus {
    /// Waits for the other organization.
    Pending,
    /// Became an agreement.
    Accepted,
    /// The other organization said no.
    Declined,
    /// The asking organization took it back.
    Withdrawn,
    /// Nobody answered within 14 days.
    Expired,
}

/// Status of an agreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgreementStatus {
    /// In force.
    Active,
    /// At least one side suspends it.
    Suspended,
    /// Over, for good.
    Ended,
}

/// Status of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GrantStatus {
    /// Offered by the owner, waits for the peer.
    Pending,
    /// Asked for by the peer, waits for the owner.
    Requested,
    /// In force.
    Active,
    /// Taken away by the owner.
    Revoked,
    /// Given back by the peer.
    Surrendered,
    /// Its time is over, or nobody answered within 14 days.
    Expired,
    /// The other side said no.
    Denied,
    /// Taken back before it was approved.
    Withdrawn,
}

/// Status of a connection (its activation; connectivity is another thing).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionStatus {
    /// Being made: both servers need an enrolled gateway.
    Provisioning,
    /// Admin only: waits for the other side.
    Offered,
    /// Provisioned; both gateways confirm the policy, or the user activates.
    Ready,
    /// Carries data.
    Active,
    /// At least one side holds a pause.
    Paused,
    /// Could not be provisioned; may be retried.
    Failed,
    /// Admin only: the other side said no.
    Declined,
    /// Its time is over.
    Expired,
    /// Ended by either side, for good.
    Terminated,
}

macro_rules! names {
    ($($name:ident { $($variant:ident = $text:literal),* $(,)? })*) => {$(
        impl $name {
            /// Every value, in the order of the definition.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in the API, the storage and the documentation.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text).ok_or(UnknownName)
            }
        }
    )*};
}

/// The text names no status or act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a known name")]
pub struct UnknownName;

/// What can be done with a peering request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeeringAct {
    /// The asked organization says yes.
    Accept,
    /// The asked organization says no.
    Decline,
    /// The asking organization takes it back.
    Withdraw,
    /// Nobody answered in time.
    Expire,
}

/// What can be done with an agreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AgreementAct {
    /// A side puts its suspension on.
    Suspend,
    /// A side lifts its suspension, and the other side holds none.
    Resume,
    /// A side lifts its suspension while the other side still holds one.
    Release,
    /// Over, for good.
    End,
}

/// What can be done with a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GrantAct {
    /// The side that did not start it says yes.
    Approve,
    /// The side that did not start it says no.
    Deny,
    /// The side that started it takes it back.
    Withdraw,
    /// The owner takes it away.
    Revoke,
    /// The peer gives it back.
    Surrender,
    /// Its time is over, or nobody answered in time.
    Expire,
    /// What it stood on is gone: the agreement ended, or the channel or its server was removed.
    Close,
}

/// What can be done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectionAct {
    /// Both servers have a gateway (channel data).
    Provision,
    /// A second person of the owner's side agrees that it is offered (admin, where that is demanded).
    Approve,
    /// The owner's server has a gateway (admin): the other side is asked.
    Offer,
    /// The other side takes the offer.
    Accept,
    /// The other side refuses the offer.
    Decline,
    /// A gateway cannot put it into force.
    Fail,
    /// Try a failed one again.
    Retry,
    /// Let it carry data.
    Activate,
    /// A side puts its pause on.
    Pause,
    /// A side lifts its pause, and the other side holds none.
    Resume,
    /// A side lifts its pause while the other side still holds one.
    Release,
    /// Its time is over.
    Expire,
    /// Over, for good.
    Terminate,
}

names! {
    PeeringStatus {
        Pending = "pending", Accepted = "accepted", Declined = "declined", Withdrawn = "withdrawn", Expired = "expired",
    }
    AgreementStatus { Active = "active", Suspended = "suspended", Ended = "ended" }
    GrantStatus {
        Pending = "pending", Requested = "requested", Active = "active", Revoked = "revoked",
        Surrendered = "surrendered", Expired = "expired", Denied = "denied", Withdrawn = "withdrawn",
    }
    ConnectionStatus {
        Provisioning = "provisioning", Offered = "offered", Ready = "ready", Active = "active", Paused = "paused",
        Failed = "failed", Declined = "declined", Expired = "expired", Terminated = "terminated",
    }
    PeeringAct { Accept = "accept", Decline = "decline", Withdraw = "withdraw", Expire = "expire" }
    AgreementAct { Suspend = "suspend", Resume = "resume", Release = "release", End = "end" }
    GrantAct {
        Approve = "approve", Deny = "deny", Withdraw = "withdraw", Revoke = "revoke", Surrender = "surrender",
        Expire = "expire", Close = "close",
    }
    ConnectionAct {
        Provision = "provision", Approve = "approve", Offer = "offer", Accept = "accept", Decline = "decline", Fail = "fail",
        Retry = "retry", Activate = "activate", Pause = "pause", Resume = "resume", Release = "release",
        Expire = "expire", Terminate = "terminate",
    }
}

impl AgreementAct {
    /// Lifting one's own suspension: what it is depends on whether the other side holds one too.
    pub fn resume(other_side_suspends: bool) -> Self {
        if other_side_suspends { Self::Release } else { Self::Resume }
    }
}

impl ConnectionAct {
    /// Lifting one's own pause: what it is depends on whether the other side holds one too.
    pub fn resume(other_side_pauses: bool) -> Self {
        if other_side_pauses { Self::Release } else { Self::Resume }
    }
}

impl ConnectionStatus {
    /// Declined, expired or terminated: hidden in lists by default, and never in a policy.
    pub fn is_ended(self) -> bool {
        possible::<ConnectionAct>(self).next().is_none()
    }
}

/// What the gateways of a connection get to know of its status; none: it is not in their policy at all.
pub fn activation(status: ConnectionStatus, agreement: AgreementStatus) -> Option<Activation> {
    let open = match status {
        ConnectionStatus::Ready => Activation::Ready,
        ConnectionStatus::Active => Activation::Active,
        ConnectionStatus::Paused => Activation::Paused,
        ConnectionStatus::Provisioning
        | ConnectionStatus::Offered
        | ConnectionStatus::Failed
        | ConnectionStatus::Declined
        | ConnectionStatus::Expired
        | ConnectionStatus::Terminated => return None,
    };
    match agreement {
        AgreementStatus::Active => Some(open),
        AgreementStatus::Suspended => Some(Activation::Suspended),
        AgreementStatus::Ended => None,
    }
}
