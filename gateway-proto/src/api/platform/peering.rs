//! The directory of organizations, peering requests, and the agreements they become.

use serde::{Deserialize, Serialize};

use crate::{
    id::{AgreementId, OrganizationId, PeeringRequestId},
    peering::{AgreementStatus, PeeringStatus},
};

api_types! {
    /// An organization, seen by strangers.
    DirectoryEntry {
        /// Id.
        id: OrganizationId,
        /// Name; `Self` marks the own organization in `relation`.
        name: String,
        /// Description.
        description: String,
        /// `self`, `none`, `requested`, `invited` or `peer`.
        relation: String,
    }
    /// Ask an organization for an agreement; the own one is accepted at once (self-peering).
    #[serde(deny_unknown_fields)]
    CreatePeeringRequest {
        /// Whom.
        organization_id: OrganizationId,
        /// A word to them, up to 500 characters.
        #[serde(default)]
        message: String,
    }
    /// A peering request.
    PeeringRequest {
        /// Id.
        id: PeeringRequestId,
        /// `incoming`, `outgoing` or `self`.
        direction: String,
        /// The other organization.
        peer_id: OrganizationId,
        /// Its name, `Self` for the own one; of what is over, the name it had then.
        peer_name: String,
        /// The word that came with it.
        message: String,
        /// Status.
        status: PeeringStatus,
        /// The agreement it became.
        agreement_id: Option<AgreementId>,
        /// Creation, Unix seconds.
        created_at: u64,
        /// When it expires unanswered, Unix seconds.
        expires_at: u64,
    }
    /// An agreement.
    Agreement {
        /// Id.
        id: AgreementId,
        /// The other organization.
        peer_id: OrganizationId,
        /// Its name, `Self` for the own one; of what is over, the name it had then.
        peer_name: String,
        /// Status.
        status: AgreementStatus,
        /// Whether we suspend it.
        suspended_by_us: bool,
        /// Whether the peer suspends it.
        suspended_by_peer: bool,
        /// Creation, Unix seconds.
        created_at: u64,
        /// End, Unix seconds.
        ended_at: Option<u64>,
    }
}
