//! The router of the default route, as the kernel lists it.

use std::net::{Ipv4Addr, UdpSocket};

/// The kernel's IPv4 routing table.
const ROUTES: &str = "/proc/net/route";
/// Flags of a route: it is up, and leads to a router.
const UP: u32 = 1;
const GATEWAY: u32 = 2;

/// The router of the IPv4 default route with the lowest metric.
pub(super) fn default_router() -> Option<Ipv4Addr> {
    best(&std::fs::read_to_string(ROUTES).ok()?)
}

/// Our address towards it.
pub(super) fn source_towards(router: Ipv4Addr) -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Nothing is sent: the kernel only chooses.
    socket.connect((router, 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        std::net::IpAddr::V4(ip) => Some(ip),
        std::net::IpAddr::V6(_) => None,
    }
}

/// Columns: interface, destination, gateway, flags, references, use, metric, mask; addresses in hex, in memory order.
fn best(table: &str) -> Option<Ipv4Addr> {
    let routes = table.lines().filter_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let [_, destination, gateway, flags, _, _, metric, mask, ..] = columns[..] else { return None };
        let hex = |text| u32::from_str_radix(text, 16).ok();
        let is_default = hex(destination)? == 0 && hex(mask)? == 0 && hex(flags)? & (UP | GATEWAY) == UP | GATEWAY;
        is_default.then_some((metric.parse::<u32>().ok()?, hex(gateway)?))
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, gateway)| Ipv4Addr::from(gateway.to_ne_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_router_of_the_default_route_with_the_lowest_metric_is_asked() {
        let table = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
                     wlan0 00000000 0100A8C0 0003 0 0 600 00000000 0 0 0\n\
                     eth0 00000000 0101000A 0003 0 0 100 00000000 0 0 0\n\
                     eth1 00000000 0201000A 0002 0 0 1 00000000 0 0 0\n\
                     tun0 00000000 00000000 0001 0 0 1 00000000 0 0 0\n\
                     eth0 0001000A 00000000 0001 0 0 100 00FFFFFF 0 0 0\n";
        assert_eq!(best(table), Some(Ipv4Addr::new(10, 0, 1, 1)));
        assert_eq!(best("Iface Destination\nnonsense\n\n"), None);
    }
}
