//! Transport addresses that might reach a gateway.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
};

use serde::{Deserialize, Serialize};

/// Where an address comes from. The order is the order of trust in it, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CandidateKind {
    /// An address of one of the machine's own interfaces.
    Host,
    /// Written down by the administrator.
    Configured,
    /// Opened on the local router by a port mapping protocol.
    PortMapped,
    /// As a STUN server saw it.
    ServerReflexive,
    /// As the peer saw it, in the source of an authentic probe.
    PeerReflexive,
    /// Through a relay.
    Relayed,
}

impl fmt::Display for CandidateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "own address",
            Self::Configured => "configured address",
            Self::PortMapped => "mapped port",
            Self::ServerReflexive => "reflexive address",
            Self::PeerReflexive => "address seen by the peer",
            Self::Relayed => "relay",
        })
    }
}

/// One address that might reach a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// Where it comes from.
    pub kind: CandidateKind,
    /// The address, in the form of [`normalize`].
    pub addr: SocketAddr,
}

impl Candidate {
    /// A candidate with its address in normal form.
    pub fn new(kind: CandidateKind, addr: SocketAddr) -> Self {
        Self { kind, addr: normalize(addr) }
    }

    /// How good a path to this address would be.
    pub fn tier(&self) -> Tier {
        match self.kind {
            CandidateKind::Host => Tier::Lan,
            CandidateKind::PeerReflexive if is_private(self.addr.ip()) => Tier::Lan,
            CandidateKind::Configured
            | CandidateKind::PortMapped
            | CandidateKind::ServerReflexive
            | CandidateKind::PeerReflexive => Tier::Direct,
            CandidateKind::Relayed => Tier::Relayed,
        }
    }

    /// Whether a probe may be sent there: no stranger's device, no group and no nonsense can be reached by a candidate.
    pub fn is_usable(&self, allow_loopback: bool) -> bool {
        self.kind != CandidateKind::Relayed && is_probe_target(self.addr, allow_loopback)
    }
}

/// Classes of paths: between them only the class counts, within one the round-trip time. Best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Own addresses on both ends: the same site, or both public.
    Lan,
    /// Over the network between the sites, without a relay.
    Direct,
    /// Through a relay.
    Relayed,
}

/// The one form in which an address is compared: v4-mapped becomes v4; flow label and scope are cleared.
pub fn normalize(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => addr,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddrV4::new(v4, v6.port()).into(),
            None => SocketAddrV6::new(*v6.ip(), v6.port(), 0, 0).into(),
        },
    }
}

/// Whether a (normalised) address may be probed.
pub(super) fn is_probe_target(addr: SocketAddr, allow_loopback: bool) -> bool {
    if addr.port() == 0 {
        return false;
    }
    match addr.ip() {
        IpAddr::V4(ip) => is_v4_target(ip, allow_loopback),
        IpAddr::V6(ip) => is_v6_target(ip, allow_loopback),
    }
}

fn is_v4_target(ip: Ipv4Addr, allow_loopback: bool) -> bool {
    let nonsense = ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast() || ip.is_link_local();
    // 0.0.0.0/8 is "this network", 240.0.0.0/4 reserved (RFC 6890).
    let reserved = ip.octets()[0] == 0 || ip.octets()[0] >= 240;
    !nonsense && !reserved && (allow_loopback || !ip.is_loopback())
}

fn is_v6_target(ip: Ipv6Addr, allow_loopback: bool) -> bool {
    let nonsense = ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local();
    // A v4-mapped address here was not normalised, and an IPv4-compatible one (::a.b.c.d) has no use (RFC 4291).
    let embedded = ip.segments()[..6] == [0; 6] && !ip.is_loopback() || ip.to_ipv4_mapped().is_some();
    !nonsense && !embedded && (allow_loopback || !ip.is_loopback())
}

/// An address that means the same machine everywhere: the only kind at which ports may be guessed.
pub fn is_public(ip: Ipv4Addr) -> bool {
    // 100.64.0.0/10 is shared between a provider and its customers (RFC 6598).
    let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
    is_v4_target(ip, false) && !ip.is_private() && !shared
}

/// An address that only exists within a site.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(kind: CandidateKind, addr: &str) -> Candidate {
        Candidate::new(kind, addr.parse().unwrap())
    }

    #[test]
    fn a_v4_mapped_address_is_the_same_as_the_v4_address() {
        let plain = candidate(CandidateKind::Host, "192.0.2.1:5000");
        assert_eq!(candidate(CandidateKind::Host, "[::ffff:192.0.2.1]:5000"), plain);
        assert_eq!(
            candidate(CandidateKind::Host, "[2001:db8::1%3]:1"),
            candidate(CandidateKind::Host, "[2001:db8::1]:1")
        );
    }

    #[test]
    fn only_unicast_addresses_that_mean_one_machine_are_probed() {
        let refused = [
            "0.0.0.0:1",
            "0.1.2.3:1",
            "255.255.255.255:1",
            "224.0.0.1:1",
            "169.254.1.1:1",
            "240.0.0.1:1",
            "10.0.0.1:0",
            "[::]:1",
            "[ff02::1]:1",
            "[fe80::1]:1",
            "[::10.0.0.1]:1",
        ];
        for addr in refused {
            assert!(!candidate(CandidateKind::Host, addr).is_usable(true), "{addr}");
        }
        for addr in ["10.0.0.1:1", "198.51.100.7:65535", "[2001:db8::1]:1", "[fd00::1]:1"] {
            assert!(candidate(CandidateKind::Host, addr).is_usable(false), "{addr}");
        }
        assert!(!candidate(CandidateKind::Relayed, "198.51.100.7:1").is_usable(true));
    }

    #[test]
    fn loopback_needs_leave() {
        for addr in ["127.0.0.1:1", "[::1]:1"] {
            assert!(!candidate(CandidateKind::Host, addr).is_usable(false), "{addr}");
            assert!(candidate(CandidateKind::Host, addr).is_usable(true), "{addr}");
        }
    }

    #[test]
    fn ports_are_guessed_at_no_private_and_no_shared_address() {
        for ip in ["10.0.0.1", "172.16.9.9", "192.168.1.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "169.254.1.1"]
        {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["198.51.100.1", "100.63.0.1", "100.128.0.1"] {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn a_private_source_is_a_neighbour_and_a_public_one_is_not() {
        assert_eq!(candidate(CandidateKind::PeerReflexive, "10.1.1.1:1").tier(), Tier::Lan);
        assert_eq!(candidate(CandidateKind::PeerReflexive, "198.51.100.7:1").tier(), Tier::Direct);
        assert!(Tier::Lan < Tier::Direct && Tier::Direct < Tier::Relayed);
    }
}
