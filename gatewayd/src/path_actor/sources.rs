//! Our own addresses: by which one the kernel would send to a peer, and which are gone.
//!
//! On a machine with one uplink a probe always arrives at the address from which the kernel answers, and nothing follows. With
//! several (source routing, a second address that alone is reachable) it may not: then the path agent is told the address.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::net_watch::way_to;

/// So long an answer of the kernel is good: routes may change without a change of address.
const LIFETIME: Duration = Duration::from_secs(30);
/// A peer has at most so many addresses; above it all are asked for anew.
const MAX_REMEMBERED: usize = gateway_proto::path::MAX_PAIRS;

/// What the kernel would choose, as asked last.
#[derive(Debug, Default)]
pub(super) struct Sources {
    usual: BTreeMap<IpAddr, Option<IpAddr>>,
    asked_at: Option<Instant>,
}

impl Sources {
    /// The address of ours at which a packet came, if the kernel would send to `from` by another one or knows no way there.
    pub(super) fn unusual(&mut self, local: Option<IpAddr>, from: SocketAddr, now: Instant) -> Option<IpAddr> {
        // What came through a NAT64 is known by an address of the other protocol.
        let local = local.filter(|local| local.is_ipv4() == from.is_ipv4() && !local.is_multicast())?;
        let is_old = self.asked_at.is_none_or(|at| now >= at + LIFETIME);
        if is_old || self.usual.len() >= MAX_REMEMBERED {
            self.usual.clear();
            self.asked_at = Some(now);
        }
        let usual = *self.usual.entry(from.ip()).or_insert_with(|| way_to(from));
        (usual != Some(local)).then_some(local)
    }

    /// The network changed.
    pub(super) fn forget(&mut self) {
        self.asked_at = None;
    }
}

/// Tells addresses of interfaces that are up from others; none: the interfaces are not known.
pub(super) fn are_ours() -> Option<impl Fn(IpAddr) -> bool> {
    let interfaces = if_addrs::get_if_addrs().ok()?;
    // Of the loopback network every address is there, and one is listed.
    let is_listed = move |address: IpAddr| interfaces.iter().any(|own| own.ip() == address && own.is_oper_up());
    Some(move |address: IpAddr| address.is_loopback() || is_listed(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_that_the_kernel_would_not_choose_is_named() {
        let (mut sources, now) = (Sources::default(), Instant::now());
        let from: SocketAddr = "127.0.0.1:4000".parse().unwrap();
        let mut named = |local: Option<&str>| {
            let local = local.map(|local| local.parse().unwrap());
            sources.unusual(local, from, now).map(|address: IpAddr| address.to_string())
        };
        assert_eq!(named(None), None);
        assert_eq!(named(Some("127.0.0.1")), None, "one uplink: nothing to remember");
        assert_eq!(named(Some("127.0.0.2")).as_deref(), Some("127.0.0.2"));
        assert_eq!(named(Some("2001:db8::1")), None, "through a NAT64");
    }

    #[test]
    fn the_kernel_is_asked_again_after_a_while_and_after_a_change() {
        let (mut sources, now) = (Sources::default(), Instant::now());
        let from: SocketAddr = "127.0.0.1:4000".parse().unwrap();
        let usual: IpAddr = "127.0.0.1".parse().unwrap();
        let stale = |sources: &mut Sources| {
            sources.usual.insert(from.ip(), None);
        };
        assert_eq!(sources.unusual(Some(usual), from, now), None);
        stale(&mut sources);
        assert_eq!(sources.unusual(Some(usual), from, now), Some(usual));
        assert_eq!(sources.unusual(Some(usual), from, now + LIFETIME), None);
        stale(&mut sources);
        sources.forget();
        assert_eq!(sources.unusual(Some(usual), from, now), None);
    }

    #[test]
    fn an_address_that_no_interface_has_is_not_ours() {
        let ours = are_ours().unwrap();
        assert!(ours("127.0.0.2".parse().unwrap()) && !ours("203.0.113.77".parse().unwrap()));
    }
}
