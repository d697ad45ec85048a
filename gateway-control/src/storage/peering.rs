//! Peering requests and agreements.

use async_trait::async_trait;
use gateway_proto::{
    id::{AgreementId, OrganizationId, PeeringRequestId},
    peering::{AgreementStatus, PeeringStatus},
};

use super::{Slice, StorageResult, rows::rows};

/// Peering requests and agreements.
#[async_trait]
pub trait Peering: Send {
    /// One peering request.
    async fn peering_request(&mut self, id: PeeringRequestId) -> StorageResult<Option<PeeringRequestRow>>;
    /// Peering requests from or to an organization. For the status that is asked for, what time has ended by now has expired,
    /// whether or not it was written down.
    async fn peering_requests(
        &mut self,
        organization: OrganizationId,
        filter: &PeeringFilter,
        slice: &Slice,
        now: u64,
    ) -> StorageResult<Vec<PeeringRequestRow>>;
    /// A pending request between two organizations, either way.
    async fn pending_between(
        &mut self,
        one: OrganizationId,
        other: OrganizationId,
        now: u64,
    ) -> StorageResult<Option<PeeringRequestRow>>;
    /// Adds one.
    async fn insert_peering_request(&mut self, row: &PeeringRequestRow) -> StorageResult<()>;
    /// Stores a changed one.
    async fn update_peering_request(&mut self, row: &PeeringRequestRow) -> StorageResult<()>;
    /// Pending ones whose time is over.
    async fn overdue_peering_requests(&mut self, now: u64, limit: u32) -> StorageResult<Vec<PeeringRequestId>>;
    /// One agreement.
    async fn agreement(&mut self, id: AgreementId) -> StorageResult<Option<AgreementRow>>;
    /// Agreements of an organization.
    async fn agreements(
        &mut self,
        organization: OrganizationId,
        status: Option<AgreementStatus>,
        slice: &Slice,
    ) -> StorageResult<Vec<AgreementRow>>;
    /// The agreement between two organizations that has not ended.
    async fn agreement_between(
        &mut self,
        one: OrganizationId,
        other: OrganizationId,
    ) -> StorageResult<Option<AgreementRow>>;
    /// Adds one.
    async fn insert_agreement(&mut self, row: &AgreementRow) -> StorageResult<()>;
    /// Stores a changed one.
    async fn update_agreement(&mut self, row: &AgreementRow) -> StorageResult<()>;
}

rows! {
    /// A peering request.
    PeeringRequestRow {
        /// Id.
        id: PeeringRequestId,
        /// The asking organization.
        from: OrganizationId,
        /// The asked organization.
        to: OrganizationId,
        /// A word with it.
        message: String,
        /// Status.
        status: PeeringStatus,
        /// What it became.
        agreement: Option<AgreementId>,
        /// The names that the asking and the asked organization had when it came to nothing; none: it waits, or became
        /// an agreement.
        kept_names: Option<(String, String)>,
        /// Creation.
        created_at: u64,
        /// When it expires unanswered.
        expires_at: u64,
    }
    /// An agreement.
    AgreementRow {
        /// Id.
        id: AgreementId,
        /// The organization that asked.
        first: OrganizationId,
        /// The organization that accepted; the same, inside a self-agreement.
        second: OrganizationId,
        /// Status.
        status: AgreementStatus,
        /// Whether the first suspends it.
        first_suspends: bool,
        /// Whether the second suspends it.
        second_suspends: bool,
        /// The names that the first and the second had when it ended; none: it has not ended.
        kept_names: Option<(String, String)>,
        /// Creation.
        created_at: u64,
        /// End.
        ended_at: Option<u64>,
    }
}

/// Which peering requests of an organization.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeeringFilter {
    /// Those in one status.
    pub status: Option<PeeringStatus>,
    /// Those it sent, or those it got.
    pub outgoing: Option<bool>,
}

impl AgreementRow {
    /// Whether the organization is a side of it.
    pub fn has(&self, organization: OrganizationId) -> bool {
        self.first == organization || self.second == organization
    }

    /// The name that a side had when it ended; none: it has not ended.
    pub fn kept_name(&self, organization: OrganizationId) -> Option<&str> {
        let (first, second) = self.kept_names.as_ref()?;
        Some(if self.first == organization { first.as_str() } else { second.as_str() })
    }

    /// The other side; the same one, inside a self-agreement.
    pub fn other(&self, organization: OrganizationId) -> OrganizationId {
        if self.first == organization { self.second } else { self.first }
    }
}
