//! Who asks without being a user: the operator of the platform, and whoever is not signed in. Each comes with its request, so
//! that no entry of an audit log is made without one.

use std::net::IpAddr;

use super::{Claim, Condition};

/// The operator of the platform.
#[derive(Debug, Clone)]
pub struct OperatorCaller {
    /// The request, for the audit log.
    pub request: String,
    /// The condition of the request, where what is changed has a tag.
    pub if_match: Option<Condition>,
    /// The key of a request that may be sent twice.
    pub claim: Option<Claim>,
}

/// Somebody who is not signed in.
#[derive(Debug, Clone)]
pub struct Stranger {
    /// Where the request comes from: who asks from there shares what strangers may cost.
    pub address: IpAddr,
    /// The request, for the audit log.
    pub request: String,
}
