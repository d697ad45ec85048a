//! Servers and the codes that enrol their gateways.

use serde::{Deserialize, Serialize};

use super::Hidden;
use crate::{
    id::{EnrollmentCodeId, ServerId},
    identity::GatewayPublicKey,
};

api_types! {
    /// A server.
    Server {
        /// Id.
        id: ServerId,
        /// Name, unique in the organization.
        name: String,
        /// Key of its gateway, once enrolled.
        #[schema(value_type = Option<String>)]
        gateway: Option<GatewayPublicKey>,
        /// Version of its gateway.
        gateway_version: Option<String>,
        /// Whether its gateway watches the policy now.
        online: bool,
        /// Last sign of life, Unix seconds.
        last_seen_at: Option<u64>,
        /// Newest policy revision of its gateway.
        policy_revision: u64,
        /// Revision its gateway has in force.
        applied_revision: u64,
        /// Why its gateway refused the newest policy, in its words.
        policy_problem: Option<String>,
        /// The audit log of its gateway is not the one that was reported; the details are for those who may read audit logs.
        #[serde(default)]
        audit_alarm: bool,
        /// Two processes use the key of its gateway, or did within the last hour: a machine was copied.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        runs_twice: Option<TwoProcesses>,
        /// Creation, Unix seconds.
        created_at: u64,
    }
    /// Two processes with the key of one gateway. The second carries nothing.
    TwoProcesses {
        /// When the second was refused first, Unix seconds.
        since: u64,
        /// When it was refused last, Unix seconds.
        at: u64,
        /// Where the one comes from that holds the place.
        address: Option<String>,
        /// Where the second comes from.
        other_address: Option<String>,
    }
    /// A new server.
    #[serde(deny_unknown_fields)]
    CreateServer {
        /// Name, 1–120 characters.
        name: String,
    }
    /// A new enrolment code; an unused older one of the server ends.
    #[serde(deny_unknown_fields)]
    CreateEnrollmentCode {
        /// Valid for so many seconds: 60 to 604,800; default 3,600.
        #[serde(default)]
        valid_secs: Option<u64>,
    }
    /// An enrolment code that can still be used; the code itself is shown once, when it is made.
    OpenEnrollmentCode {
        /// Id, to revoke it by.
        id: EnrollmentCodeId,
        /// E-mail address of the user who made it; none: it is from a time when that was not written down.
        issued_by: Option<String>,
        /// When it ends, Unix seconds.
        expires_at: u64,
    }
    /// The code, shown once.
    CreatedEnrollmentCode {
        /// The code.
        code: Hidden,
        /// When it ends, Unix seconds.
        expires_at: u64,
    }
}
