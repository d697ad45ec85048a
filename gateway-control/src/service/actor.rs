//! Who acts: a signed-in user, by a session or a token, in one request.

use std::{collections::BTreeSet, sync::Arc};

use gateway_proto::{
    api::platform::Role,
    id::{ApiTokenId, OrganizationId},
};

use super::{
    Claim, Condition, ServiceError, ServiceResult,
    permission::{self, Act},
};
use crate::{
    storage::{OrganizationRow, UserRow},
    turns::Turn,
};

/// A signed-in user.
#[derive(Debug, Clone)]
pub struct Actor {
    /// The user.
    pub user: UserRow,
    /// The user's organization.
    pub organization: OrganizationRow,
    /// The session or token that was shown; none: the user has just been made or signed in.
    pub credential: Option<Credential>,
    /// What a token of automation is limited to; none: a session.
    pub scopes: Option<BTreeSet<String>>,
    /// The request, for the audit log.
    pub request: String,
    /// The condition of the request.
    pub if_match: Option<Condition>,
    /// The key of a request that may be sent twice.
    pub claim: Option<Claim>,
    /// The turn of a request that reads; the next one's when this is dropped.
    pub reading: Option<Arc<Turn>>,
}

/// What a user was recognised by.
#[derive(Debug, Clone)]
pub enum Credential {
    /// The hash of a session's token.
    Session(String),
    /// A token of automation.
    ApiToken(ApiTokenId),
}

impl Actor {
    /// A user, who makes this request.
    pub fn new(user: UserRow, organization: OrganizationRow, request: &str) -> Self {
        Self {
            user,
            organization,
            credential: None,
            scopes: None,
            request: request.to_owned(),
            if_match: None,
            claim: None,
            reading: None,
        }
    }

    /// Refuses what the user's role does not allow.
    pub(crate) fn may(&self, act: Act) -> ServiceResult<()> {
        let roles = permission::rule(act).roles;
        if let Some(scopes) = &self.scopes
            && !scopes.contains(act.scope())
        {
            let needed = act.scope();
            return Err(ServiceError::Forbidden(format!("this token is not for that: it needs the scope '{needed}'")));
        }
        if roles.contains(&self.user.role) {
            return Ok(());
        }
        let names: Vec<_> = roles.iter().map(|role| permission::name(*role)).collect();
        let own = permission::name(self.user.role);
        Err(ServiceError::Forbidden(format!("your role is {own}; this needs one of: {}", names.join(", "))))
    }

    /// Refuses tokens of automation: whom a token added could sign in, and would be bound by none of its scopes.
    pub(crate) fn in_person(&self) -> ServiceResult<()> {
        if self.scopes.is_none() {
            return Ok(());
        }
        Err(ServiceError::Forbidden("this is not for API tokens: sign in for it".to_owned()))
    }

    /// Refuses to give a role above the own one, to a user or with an invitation.
    pub(super) fn may_give(&self, role: Role) -> ServiceResult<()> {
        if permission::may_manage(self.user.role, role) {
            return Ok(());
        }
        Err(ServiceError::Forbidden("nobody gives a role above the own one".to_owned()))
    }

    pub(super) fn id(&self) -> OrganizationId {
        self.organization.id
    }
}
