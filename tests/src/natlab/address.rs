//! The address plan: who has which addresses.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::RouterKind;

/// The two addresses of a machine; where a kind of site has only one, the other is not configured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address {
    pub(super) v4: Ipv4Addr,
    pub(super) v6: Ipv6Addr,
}

impl Address {
    /// Of a service on the internet.
    pub(super) fn service(index: u8) -> Self {
        Self { v4: Ipv4Addr::new(198, 51, 100, 4 * index + 2), v6: v6(0, index, 2) }
    }

    /// Of the outermost router of a site.
    pub(super) fn wan(index: u8) -> Self {
        Self { v4: Ipv4Addr::new(203, 0, 113, 4 * index + 2), v6: v6(1, index, 2) }
    }

    /// Of the gateway of a site.
    pub(super) fn site(kind: RouterKind, index: u8) -> Self {
        if kind == RouterKind::Public {
            return Self::wan(index);
        }
        let v4 = match kind == RouterKind::Firewall {
            true => Ipv4Addr::new(192, 0, 2, 4 * index + 2),
            false => Ipv4Addr::new(10, index + 1, 0, 2),
        };
        Self { v4, v6: v6(2, index, 2) }
    }

    /// The other end of its link.
    pub(super) fn gateway(self) -> Self {
        Self { v4: Ipv4Addr::from(u32::from(self.v4) - 1), v6: Ipv6Addr::from(u128::from(self.v6) - 1) }
    }
}

pub(super) fn v6(net: u16, index: u8, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, net, index.into(), 0, 0, 0, host)
}

/// Between a carrier and its customer: both ends.
pub(super) fn carrier_lan(index: u8) -> (Ipv4Addr, Ipv4Addr) {
    (Ipv4Addr::new(100, 64, index, 1), Ipv4Addr::new(100, 64, index, 2))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{super::MAX_SITES, *};

    #[test]
    fn no_two_machines_of_a_lab_share_an_address() {
        let mut seen = std::collections::BTreeMap::new();
        for index in 0..MAX_SITES {
            for kind in [RouterKind::Firewall, RouterKind::PortFilter] {
                let site = Address::site(kind, index);
                seen.entry(IpAddr::from(site.v4)).or_insert_with(Vec::new).push((kind, index));
                assert_eq!(u128::from(site.v6) - u128::from(site.gateway().v6), 1, "{site:?}");
            }
            seen.entry(Address::wan(index).v4.into()).or_default().push((RouterKind::Public, index));
        }
        assert!(seen.values().all(|owners| owners.len() == 1), "{seen:?}");
    }
}
