//! How our NAT maps (RFC 4787, section 4.1), as far as relays' answers to STUN requests from one socket tell.

mod weighed;

pub use weighed::{Missing, Told, Weighed, Word};

use crate::signal::{NatMapping, PortPattern};

/// How our NAT maps, and the ports it gave last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NatView {
    /// The class.
    pub mapping: NatMapping,
    /// Of a regular NAT: where its counter stands.
    pub ports: Option<PortPattern>,
    /// It is a NAT64, through which IPv4 addresses are reached from this machine, which has IPv6 only.
    pub nat64: bool,
}

impl NatView {
    /// A class without ports.
    pub fn of_mapping(mapping: NatMapping) -> Self {
        Self { mapping, ..Self::default() }
    }
}
