//! What several reflectors saw of one socket, and what that says of the NAT before it (RFC 4787, section 4.1).

use std::net::SocketAddr;

use crate::signal::{NatMapping, PortPattern};

/// Outer ports that follow each other no further apart than this are a NAT that counts.
const REGULAR_STEP: u16 = 5;

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

    /// What the reflectors saw, in the order in which they were asked, all from one socket. Only IPv4 counts: IPv6 has no
    /// port mapping worth a name. Two answers are needed to say anything; three from two addresses to be sure, because a
    /// NAT may give one port per destination address and show it to both ports of one server.
    pub fn from_reflections(seen: impl IntoIterator<Item = SocketAddr>) -> Self {
        let seen: Vec<_> = seen.into_iter().filter(SocketAddr::is_ipv4).collect();
        let [first, .., last] = seen[..] else { return Self::default() };
        if seen.iter().any(|other| other.ip() != first.ip()) {
            // A pool of outer addresses: nobody can tell where the next packet comes from.
            return Self::of_mapping(NatMapping::Random);
        }
        let mut ports: Vec<_> = seen.iter().map(SocketAddr::port).collect();
        let rising = ports.is_sorted();
        let falling = ports.iter().rev().is_sorted();
        ports.sort_unstable();
        let step = ports.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        match step {
            0 => Self::of_mapping(NatMapping::EndpointIndependent),
            1..=REGULAR_STEP => {
                let direction = i8::from(rising) - i8::from(falling);
                let ports = Some(PortPattern { last: last.port(), direction });
                Self { ports, ..Self::of_mapping(NatMapping::Regular) }
            }
            _ => Self::of_mapping(NatMapping::Random),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(ports: &[u16]) -> NatView {
        NatView::from_reflections(ports.iter().map(|port| SocketAddr::from(([198, 51, 100, 1], *port))))
    }

    #[test]
    fn the_class_follows_from_the_ports_that_the_reflectors_saw() {
        assert_eq!(view(&[]).mapping, NatMapping::Unknown);
        assert_eq!(view(&[4000]).mapping, NatMapping::Unknown);
        assert_eq!(view(&[4000, 4000, 4000]).mapping, NatMapping::EndpointIndependent);
        assert_eq!(view(&[4000, 4002, 4003, 4008]).mapping, NatMapping::Regular);
        assert_eq!(view(&[4000, 4002, 51_234]).mapping, NatMapping::Random);
    }

    #[test]
    fn a_counting_nat_shows_its_direction() {
        assert_eq!(view(&[4000, 4001, 4003]).ports, Some(PortPattern { last: 4003, direction: 1 }));
        assert_eq!(view(&[4003, 4002, 4001]).ports, Some(PortPattern { last: 4001, direction: -1 }));
        assert_eq!(view(&[4003, 4002, 4004]).ports, Some(PortPattern { last: 4004, direction: 0 }));
        assert_eq!(view(&[4000, 4000]).ports, None);
    }

    #[test]
    fn several_outer_addresses_cannot_be_foreseen_and_ipv6_says_nothing() {
        let seen = ["198.51.100.1:4000", "198.51.100.2:4000"].map(|addr| addr.parse().unwrap());
        assert_eq!(NatView::from_reflections(seen).mapping, NatMapping::Random);
        let seen = ["[2001:db8::1]:4000", "[2001:db8::1]:5000"].map(|addr| addr.parse().unwrap());
        assert_eq!(NatView::from_reflections(seen).mapping, NatMapping::Unknown);
    }
}
