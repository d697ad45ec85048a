//! IPv4 from a machine that has IPv6 only: what a NAT64 (RFC 6146) at the edge of its network translates.
//!
//! An IPv4 address is written into an IPv6 prefix (RFC 6052); what is sent there leaves the translator as IPv4, and its
//! answers come from there. Everything above the sockets goes on in IPv4 addresses: [`Nat64::translated`] is the last thing before
//! a packet goes out, [`Nat64::plain`] the first when one comes in. How the prefix is found out is in [`Discovery`].
//!
//! Private, shared, loopback and group addresses are not translated, whatever the prefix (RFC 6052 §3.1 forbids it for the
//! well-known one): behind the translator they mean other machines than those the peer meant.

mod discovery;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
};

pub use discovery::{Discovery, LOOK_UP_AGAIN, WELL_KNOWN_NAME};

use crate::path::is_public;

/// Prefixes kept of a network: more than one is rare (RFC 7050 §3).
pub const MAX_PREFIXES: usize = 4;

/// The lengths that RFC 6052 §2.2 has, in bits, the most specific first.
const LENGTHS: [u8; 6] = [96, 64, 56, 48, 40, 32];
/// Bits 64 to 71 are never part of the IPv4 address (RFC 6052 §2.2).
const U_OCTET: usize = 8;
/// What `ipv4only.arpa` resolves to, without a DNS64 (RFC 7050 §8.2).
const WELL_KNOWN: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];

/// A prefix into which a NAT64 translates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nat64Prefix {
    /// All bits after the prefix are zero.
    prefix: Ipv6Addr,
    /// One of [`LENGTHS`].
    length: u8,
}

impl Nat64Prefix {
    /// The prefix of an address and its length in bits; `None` where RFC 6052 has no such length, and for prefixes of addresses
    /// that are nobody's (groups, link-local ones, those below `100::` but the well-known one).
    pub fn new(address: Ipv6Addr, length: u8) -> Option<Self> {
        let is_reserved = matches!(address.segments()[0], 0..=0x63 | 0x65..=0xff);
        if !LENGTHS.contains(&length) || is_reserved || address.is_multicast() || address.is_unicast_link_local() {
            return None;
        }
        let mut octets = address.octets();
        octets[usize::from(length / 8)..].fill(0);
        Some(Self { prefix: octets.into(), length })
    }

    /// The IPv6 address of an IPv4 one (RFC 6052 §2.2).
    pub fn embed(self, ip: Ipv4Addr) -> Ipv6Addr {
        let mut octets = self.prefix.octets();
        for (at, octet) in self.places().zip(ip.octets()) {
            octets[at] = octet;
        }
        octets.into()
    }

    /// The IPv4 address in an IPv6 one; `None`: that is not one of this prefix, or is one of the network's own that has
    /// something where an embedded one has zeros.
    pub fn extract(self, ip: Ipv6Addr) -> Option<Ipv4Addr> {
        let octets = ip.octets();
        let mut inner = [0; 4];
        for (at, octet) in self.places().zip(&mut inner) {
            *octet = octets[at];
        }
        let inner = inner.into();
        (self.embed(inner) == ip).then_some(inner)
    }

    /// The prefix by which `outer` is the translation of `inner`, if it is one.
    pub fn between(outer: Ipv6Addr, inner: Ipv4Addr) -> Option<Self> {
        let mut prefixes = LENGTHS.into_iter().filter_map(|length| Self::new(outer, length));
        prefixes.find(|prefix| prefix.embed(inner) == outer)
    }

    /// The prefixes that the answer to [`WELL_KNOWN_NAME`] shows (RFC 7050 §3): those in which both well-known addresses are found, so
    /// that no other bits can be taken for one. In the order of the answer, a few.
    pub fn in_answer(answer: impl IntoIterator<Item = IpAddr>) -> Vec<Self> {
        let all: Vec<_> = answer.into_iter().filter_map(v6).collect();
        let mut found = Vec::new();
        for address in &all {
            for prefix in LENGTHS.into_iter().filter_map(|length| Self::new(*address, length)) {
                let is_whole = WELL_KNOWN.iter().all(|known| all.contains(&prefix.embed(*known)));
                if is_whole && !found.contains(&prefix) && found.len() < MAX_PREFIXES {
                    found.push(prefix);
                }
            }
        }
        found
    }

    /// Where the octets of the IPv4 address are.
    fn places(self) -> impl Iterator<Item = usize> {
        (usize::from(self.length / 8)..16).filter(|at| *at != U_OCTET).take(4)
    }
}

impl fmt::Display for Nat64Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.prefix, self.length)
    }
}

/// The NAT64 of the network, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nat64 {
    /// The one that is sent through first.
    prefixes: Vec<Nat64Prefix>,
}

impl Nat64 {
    /// One with these prefixes, a few; packets go through the first.
    pub fn new(prefixes: impl IntoIterator<Item = Nat64Prefix>) -> Self {
        let mut known = Self::default();
        for prefix in prefixes {
            if known.prefixes.len() < MAX_PREFIXES && !known.prefixes.contains(&prefix) {
                known.prefixes.push(prefix);
            }
        }
        known
    }

    /// The prefix that is sent through; none: no NAT64 is known.
    pub fn prefix(&self) -> Option<Nat64Prefix> {
        self.prefixes.first().copied()
    }

    /// Where a packet to an IPv4 address goes; none: not through a NAT64.
    pub fn translated(&self, to: SocketAddr) -> Option<SocketAddr> {
        let SocketAddr::V4(to) = to else { return None };
        let prefix = self.prefix().filter(|_| is_public(*to.ip()))?;
        Some(SocketAddrV6::new(prefix.embed(*to.ip()), to.port(), 0, 0).into())
    }

    /// Who is behind an address: the IPv4 address of a translated one, any other as it is. `address` in normal form
    /// ([`crate::path::normalize`]).
    pub fn plain(&self, address: SocketAddr) -> SocketAddr {
        let SocketAddr::V6(outer) = address else { return address };
        let mut inner = self.prefixes.iter().filter_map(|prefix| prefix.extract(*outer.ip()));
        inner.find(|inner| is_public(*inner)).map_or(address, |inner| SocketAddrV4::new(inner, outer.port()).into())
    }
}

fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}

#[cfg(test)]
mod tests;
