//! At which addresses hosts were reached, for the time when their names do not resolve.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

/// Hosts remembered: a control plane, a proxy and some relays. The one that was reached longest ago goes first.
const MAX_HOSTS: usize = 32;
/// Addresses remembered of each.
const MAX_ADDRESSES: usize = 4;

/// What this process has found out.
pub(super) static KNOWN: Names = Names::new();

/// Addresses by host, the host that was reached last at the end.
#[derive(Debug)]
pub(super) struct Names(Mutex<Vec<(String, Vec<IpAddr>)>>);

impl Names {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// A connection was made.
    pub(super) fn reached(&self, name: &str, address: IpAddr) {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut addresses = match hosts.iter().position(|(known, _)| known == name) {
            Some(at) => hosts.remove(at).1,
            None => Vec::new(),
        };
        addresses.retain(|known| *known != address);
        addresses.insert(0, address);
        addresses.truncate(MAX_ADDRESSES);
        if hosts.len() >= MAX_HOSTS {
            hosts.remove(0);
        }
        hosts.push((name.to_owned(), addresses));
    }

    /// Where it was reached, the last one first.
    pub(super) fn of(&self, name: &str) -> Vec<IpAddr> {
        let hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.iter().find(|(known, _)| known == name).map(|(_, addresses)| addresses.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_and_addresses_used_last_stay() {
        let (names, ip) = (Names::new(), |n: u8| IpAddr::from([192, 0, 2, n]));
        for n in 0..6 {
            names.reached("relay.example", ip(n));
        }
        names.reached("relay.example", ip(3));
        assert_eq!(names.of("relay.example"), [ip(3), ip(5), ip(4), ip(2)]);
        for n in 0..31 {
            names.reached(&format!("host-{n}.example"), ip(0));
        }
        assert!(!names.of("relay.example").is_empty());
        names.reached("one-more.example", ip(0));
        assert!(names.of("relay.example").is_empty() && names.of("host-0.example") == [ip(0)]);
    }
}
