//! Why the service did not do it. Knows nothing of HTTP: the edge maps it once.

use std::time::Duration;

use gateway_proto::{
    api::refusal::{GatewayRefusal, RefusalReason},
    peering::TransitionError,
    twice::RunsTwice,
};

use crate::{oidc::ProviderError, storage::StorageError, turns::NoTurn};

/// Why the service did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// It does not exist, or it is not for this organization to see: the two look the same.
    #[error("there is no such {0}, or it is not for your organization to see")]
    NotFound(&'static str),
    /// The role does not allow it.
    #[error("{0}")]
    Forbidden(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// It contradicts what exists.
    #[error("{0}")]
    Conflict(String),
    /// The tier has no room for it.
    #[error("{0}")]
    Limit(String),
    /// The key of the request was used before.
    #[error("{0}")]
    IdempotencyKey(&'static str),
    /// The request came with a key, and nobody is there whose key it could be.
    #[error(
        "Idempotency-Key is kept for the changes of a signed-in user and of the operator; this request is neither: send it \
         without the key"
    )]
    KeyNotKept,
    /// The object is not what the user saw.
    #[error("the object was changed meanwhile: get it again, and decide anew")]
    Changed,
    /// The request is on a condition, and what it does is not.
    #[error(
        "If-Match is for changes of one object that has a tag; this request has no such object: send it without the condition"
    )]
    Unconditional,
    /// Not possible in this status.
    #[error(transparent)]
    WrongState(#[from] TransitionError),
    /// Not possible in the status of something it depends on.
    #[error("{0}")]
    Blocked(String),
    /// Nobody knows who asks.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// A gateway that is not let in.
    #[error("{}", refused(.0))]
    Refused(GatewayRefusal),
    /// The password is right, and the user has a second factor.
    #[error("this user has a second factor: send the code of now, or a recovery code")]
    TotpRequired,
    /// A provider of OpenID Connect, or what it says.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The sign-in through a provider is unknown, used or over.
    #[error("{0}")]
    OidcAttempt(&'static str),
    /// Nobody here is meant by who signed in at the provider.
    #[error("{0}")]
    OidcUnknown(String),
    /// Several users are meant by who signed in at the provider.
    #[error("there are users for you in more than one organization: name the one to sign in to, by its name or id")]
    OidcOrganization,
    /// The user signs in through a provider only.
    #[error("this user signs in through '{0}' only, not with a password")]
    OidcRequired(String),
    /// Too much at once.
    #[error("too many requests; wait {} s", .0.as_secs().max(1))]
    RateLimited(Duration),
    /// The enrolment code is not usable.
    #[error("{0}")]
    EnrollmentCode(&'static str),
    /// An assertion was used before, or is older than this process.
    #[error("{0}")]
    Replay(&'static str),
    /// Another process of the same gateway holds its place.
    #[error("another process with the same key holds this gateway's place")]
    RunsTwice(Box<RunsTwice>),
    /// Too much work is waiting already.
    #[error("the platform is busy; try again in a moment")]
    Busy,
    /// Too much work of the same organization is waiting already.
    #[error("too many requests of your organization wait already; send fewer at a time, and this one again")]
    Crowded,
    /// The storage cannot be reached now, or takes no change.
    #[error("{}", unavailable(.0))]
    Unavailable(#[source] StorageError),
    /// The data directory belongs to another database.
    #[error(
        "the database belongs to a platform that began with the policy key {0}, which is not the one in the data \
         directory; restore the file policy-key that belongs to this database (all replicas have the same)"
    )]
    OtherKey(String),
    /// The data directory lacks the key that sealed secrets in the database.
    #[error(
        "secrets in the database are sealed with another storage key than the one in the data directory; copy the file \
         storage-key from the replica that made it, or from the backup (all replicas have the same)"
    )]
    OtherStorageKey,
    /// The storage failed.
    #[error("the storage failed")]
    Storage(#[source] StorageError),
    /// Something that cannot be did happen.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

/// Result of a service operation.
pub type ServiceResult<T> = Result<T, ServiceError>;

impl From<StorageError> for ServiceError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Busy => Self::Busy,
            StorageError::Unavailable(_)
            | StorageError::Full(_)
            | StorageError::ReadOnly(_)
            | StorageError::Outdated => Self::Unavailable(error),
            StorageError::Nul => Self::Invalid(error.to_string()),
            StorageError::Duplicate => Self::Conflict(error.to_string()),
            StorageError::Database(_) | StorageError::Migrate(_) | StorageError::Unreadable(_) => Self::Storage(error),
        }
    }
}

impl From<NoTurn> for ServiceError {
    fn from(why: NoTurn) -> Self {
        match why {
            NoTurn::Full => Self::Crowded,
            // Not its own doing, or not only.
            NoTurn::Busy | NoTurn::Late => Self::Busy,
        }
    }
}

/// What a gateway is told that is not let in.
fn refused(refusal: &GatewayRefusal) -> String {
    match refusal.reason {
        RefusalReason::PolicyKey => {
            "the gateway assertion was made for a control plane with another policy key".to_owned()
        }
        RefusalReason::NotEnrolled => "this gateway is not enrolled here".to_owned(),
        RefusalReason::Clock => format!(
            "the gateway assertion is not valid at this time; compare the two clocks (ours says {}, Unix seconds)",
            refusal.now
        ),
    }
}

/// What somebody is told who can do nothing about it.
fn unavailable(cause: &StorageError) -> &'static str {
    if matches!(cause, StorageError::Full(_)) {
        "the disk of the database is full: what is there can be read, nothing can be changed and nobody can sign in until \
         the operator of the platform makes room"
    } else if matches!(cause, StorageError::ReadOnly(_)) {
        "the disk of the database fails, or became read-only: what is there can be read, nothing can be changed and nobody \
         can sign in until the operator of the platform has mended it"
    } else if matches!(cause, StorageError::Outdated) {
        "this replica is being replaced by one of a newer version; try again in a moment"
    } else {
        "the database cannot be reached; try again in a moment"
    }
}

/// Gives a broken uniqueness rule its words.
pub(super) trait OrConflict<T> {
    fn or_conflict(self, detail: impl FnOnce() -> String) -> ServiceResult<T>;
}

impl<T> OrConflict<T> for Result<T, StorageError> {
    fn or_conflict(self, detail: impl FnOnce() -> String) -> ServiceResult<T> {
        self.map_err(|error| match error {
            StorageError::Duplicate => ServiceError::Conflict(detail()),
            StorageError::Database(_)
            | StorageError::Unavailable(_)
            | StorageError::Full(_)
            | StorageError::ReadOnly(_)
            | StorageError::Outdated
            | StorageError::Busy
            | StorageError::Nul
            | StorageError::Migrate(_)
            | StorageError::Unreadable(_) => error.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whoever_has_too_many_requests_itself_is_told_so() {
        assert!(matches!(ServiceError::from(NoTurn::Full), ServiceError::Crowded));
        assert!(matches!(ServiceError::from(NoTurn::Busy), ServiceError::Busy));
        assert!(matches!(ServiceError::from(NoTurn::Late), ServiceError::Busy));
    }

    #[test]
    fn who_asks_a_replica_of_an_older_version_for_a_change_is_told_to_ask_again() {
        let told = ServiceError::from(StorageError::Outdated);
        assert!(matches!(told, ServiceError::Unavailable(_)) && told.to_string().contains("try again"), "{told}");
    }
}
