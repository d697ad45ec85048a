//! Our own addresses: by which one the kernel would send to a peer, and which are gone.
//!
//! On a machine with one uplink a probe always arrives at the address from which the kernel answers, and nothing follows. With
//! several (source routing, a second address that alone is reachable) it may not: then the path agent is told the address.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::net_watch::ask_way;

/// So long an answer of the kernel is good: routes may change without a change of address.
const LIFETIME: Duration = Duration::from_secs(30);
/// The same where it would have an address named: the network may have changed since, and what is named is remembered.
const DOUBTED_LIFETIME: Duration = Duration::from_millis(100);
/// A peer has at most so many addresses; above it all are asked for anew.
const MAX_REMEMBERED: usize = gateway_proto::path::MAX_PAIRS;

/// What the kernel would choose, as asked last.
#[derive(Debug, Default)]
pub(super) struct Sources {
    usual: BTreeMap<IpAddr, Usual>,
}

/// An answer of the kernel.
#[derive(Debug, Clone, Copy)]
struct Usual {
    /// `None`: there is no way.
    address: Option<IpAddr>,
    asked_at: Instant,
}

impl Sources {
    /// The address of ours at which a packet came, if the kernel would send to `from` by another one or knows no way there. While it
    /// cannot be asked, none is named.
    pub(super) fn unusual(&mut self, local: Option<IpAddr>, from: SocketAddr, now: Instant) -> Option<IpAddr> {
        self.unusual_as(ask_way, local, from, now)
    }

    fn unusual_as(
        &mut self,
        ask: impl FnOnce(SocketAddr) -> io::Result<Option<IpAddr>>,
        local: Option<IpAddr>,
        from: SocketAddr,
        now: Instant,
    ) -> Option<IpAddr> {
        // What came through a NAT64 is known by an address of the other protocol.
        let local = local.filter(|local| local.is_ipv4() == from.is_ipv4() && !local.is_multicast())?;
        let known = self.usual.get(&from.ip()).filter(|usual| {
            let lifetime = if usual.address == Some(local) { LIFETIME } else { DOUBTED_LIFETIME };
            now < usual.asked_at + lifetime
        });
        let address = match known.copied() {
            Some(usual) => usual.address,
            None => {
                let address = ask(from).ok()?;
                self.remember(from.ip(), Usual { address, asked_at: now });
                address
            }
        };
        (address != Some(local)).then_some(local)
    }

    fn remember(&mut self, from: IpAddr, usual: Usual) {
        if self.usual.len() >= MAX_REMEMBERED {
            self.usual.clear();
        }
        self.usual.insert(from, usual);
    }

    /// The network changed.
    pub(super) fn forget(&mut self) {
        self.usual.clear();
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

    const NOT_ASKED: Result<Option<IpAddr>, io::ErrorKind> = Err(io::ErrorKind::OutOfMemory);

    /// What is named when the kernel says this, and whether it was asked.
    fn named(
        sources: &mut Sources,
        says: Result<Option<IpAddr>, io::ErrorKind>,
        local: IpAddr,
        now: Instant,
    ) -> (Option<IpAddr>, bool) {
        let mut was_asked = false;
        let ask = |_| {
            was_asked = true;
            says.map_err(io::Error::from)
        };
        let named = sources.unusual_as(ask, Some(local), "198.51.100.1:4000".parse().unwrap(), now);
        (named, was_asked)
    }

    #[test]
    fn the_kernel_is_asked_again_after_a_while_and_after_a_change() {
        let (mut sources, now) = (Sources::default(), Instant::now());
        let usual: IpAddr = "192.0.2.1".parse().unwrap();
        let says = Ok(Some(usual));
        assert_eq!(named(&mut sources, says, usual, now), (None, true));
        assert_eq!(named(&mut sources, says, usual, now + LIFETIME / 2), (None, false));
        assert_eq!(named(&mut sources, says, usual, now + LIFETIME), (None, true));
        sources.forget();
        assert_eq!(named(&mut sources, says, usual, now + LIFETIME), (None, true));
    }

    #[test]
    fn no_address_is_named_by_an_answer_from_before_a_change_of_the_network() {
        let (mut sources, now) = (Sources::default(), Instant::now());
        let (former, usual): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        assert_eq!(named(&mut sources, Ok(Some(former)), former, now), (None, true));
        // The change itself is noticed up to half a second later.
        let later = now + Duration::from_secs(2);
        assert_eq!(named(&mut sources, Ok(Some(usual)), usual, later), (None, true));
        assert_eq!(named(&mut sources, Ok(Some(usual)), former, later), (Some(former), false), "asked just now");
    }

    #[test]
    fn while_the_kernel_cannot_be_asked_no_address_is_named_and_where_it_knows_no_way_it_is() {
        let (mut sources, now) = (Sources::default(), Instant::now());
        let local: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(named(&mut sources, NOT_ASKED, local, now), (None, true));
        assert_eq!(named(&mut sources, Ok(None), local, now), (Some(local), true), "nothing was remembered");
        assert_eq!(named(&mut sources, NOT_ASKED, local, now + LIFETIME), (None, true));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut sources, now) = (Sources::default(), Instant::now());
        for count in 0..=u8::MAX {
            let from = IpAddr::from([198, 51, 100, count]);
            sources.unusual_as(|_| Ok(None), Some("192.0.2.1".parse().unwrap()), (from, 1).into(), now);
            assert!(sources.usual.len() <= MAX_REMEMBERED);
        }
    }

    #[test]
    fn an_address_that_no_interface_has_is_not_ours() {
        let ours = are_ours().unwrap();
        assert!(ours("127.0.0.2".parse().unwrap()) && !ours("203.0.113.77".parse().unwrap()));
    }
}
