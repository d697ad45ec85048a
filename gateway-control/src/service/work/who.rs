//! Who acts, and how the audit logs call it.

use gateway_proto::id::{OrganizationId, ServerId};

use super::super::{Actor, OperatorCaller, Stranger};

/// Who acts, for the audit log.
#[derive(Debug, Clone)]
pub(in crate::service) enum Who {
    /// A user: named to the own organization, by the organization's name to the other one.
    User { organization: OrganizationId, email: String, organization_name: String, request: String },
    /// A gateway, over its watch.
    Gateway(ServerId),
    /// A gateway by a request of its own, which concerns its own organization only.
    Enrolling { server: ServerId, request: String },
    /// An operator of the platform.
    Operator { request: String },
    /// Somebody who asks and is not known, or not yet: the log calls that the system.
    Stranger { request: String },
    /// Time and consequences, without anybody's request.
    System,
}

impl Who {
    pub(in crate::service) fn user(actor: &Actor) -> Self {
        Self::User {
            organization: actor.organization.id,
            email: actor.user.email.clone(),
            organization_name: actor.organization.name.clone(),
            request: actor.request.clone(),
        }
    }

    pub(in crate::service) fn operator(operator: &OperatorCaller) -> Self {
        Self::Operator { request: operator.request.clone() }
    }

    pub(in crate::service) fn stranger(stranger: &Stranger) -> Self {
        Self::Stranger { request: stranger.request.clone() }
    }

    /// The request behind it. That of a user is shown to the own organization and to the platform's operator only.
    pub(super) fn request_in(&self, chain: Option<OrganizationId>) -> String {
        match self {
            Self::User { organization, .. } if chain.is_some_and(|chain| chain != *organization) => String::new(),
            Self::User { request, .. }
            | Self::Enrolling { request, .. }
            | Self::Operator { request }
            | Self::Stranger { request } => request.clone(),
            Self::Gateway(_) | Self::System => String::new(),
        }
    }

    /// The organization on whose behalf it is.
    pub(in crate::service) fn organization(&self) -> Option<OrganizationId> {
        match self {
            Self::User { organization, .. } => Some(*organization),
            Self::Gateway(_)
            | Self::Enrolling { .. }
            | Self::Operator { .. }
            | Self::Stranger { .. }
            | Self::System => None,
        }
    }

    /// How that chain calls it; none: the platform's.
    pub(super) fn shown_in(&self, chain: Option<OrganizationId>) -> String {
        match self {
            Self::User { organization, email, organization_name, .. } => {
                if chain == Some(*organization) {
                    email.clone()
                } else {
                    format!("organization {organization_name}")
                }
            }
            Self::Gateway(server) | Self::Enrolling { server, .. } => format!("gateway {server}"),
            Self::Operator { .. } => "operator".to_owned(),
            Self::Stranger { .. } | Self::System => "system".to_owned(),
        }
    }
}
