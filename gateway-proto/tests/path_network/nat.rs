//! A network address translator with the behaviours of RFC 4787, on virtual time.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// RFC 4787, section 4.1; the ports of the second kind are counted or drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mapping {
    EndpointIndependent,
    /// Per destination, the next port.
    Counting,
    /// Per destination, any port.
    Random,
    /// One port for all, that of the socket inside while it is free.
    Preserving,
    /// A stateful firewall: nothing is translated.
    Transparent,
}

impl Mapping {
    /// One outer port for all destinations.
    pub(crate) fn is_easy(self) -> bool {
        match self {
            Self::EndpointIndependent | Self::Preserving | Self::Transparent => true,
            Self::Counting | Self::Random => false,
        }
    }
}

/// RFC 4787, section 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Filtering {
    EndpointIndependent,
    AddressDependent,
    AddressAndPortDependent,
}

#[derive(Debug)]
pub(crate) struct Nat {
    pub(crate) mapping: Mapping,
    pub(crate) filtering: Filtering,
    pub(crate) public_ip: IpAddr,
    pub(crate) lifetime: Duration,
    /// A packet that nobody asked for blocks its sender for so long: its port is taken, as far as this NAT is concerned.
    pub(crate) offence: Option<Duration>,
    offended: BTreeMap<SocketAddr, Duration>,
    allocated: u32,
    /// Ports that were drawn: none comes twice, so that nothing is direct by luck.
    drawn: BTreeSet<u16>,
    state: u64,
    bindings: Vec<Binding>,
}

#[derive(Debug)]
struct Binding {
    inside: SocketAddr,
    /// The destination that made it, where that matters.
    towards: Option<SocketAddr>,
    port: u16,
    used_at: Duration,
    sent_to: BTreeMap<SocketAddr, Duration>,
}

impl Nat {
    pub(crate) fn new(mapping: Mapping, filtering: Filtering, public_ip: [u8; 4]) -> Self {
        Self {
            mapping,
            filtering,
            public_ip: public_ip.into(),
            lifetime: Duration::from_secs(30),
            offence: None,
            offended: BTreeMap::new(),
            allocated: 0,
            drawn: BTreeSet::new(),
            state: u64::from(public_ip[3]) + 1,
            bindings: Vec::new(),
        }
    }

    /// A stateful firewall in front of a host that has a public address, of either family.
    pub(crate) fn firewall(filtering: Filtering, host: IpAddr) -> Self {
        Self { public_ip: host, ..Self::new(Mapping::Transparent, filtering, [0; 4]) }
    }

    /// Other random ports, another start of the counter.
    pub(crate) fn seeded(mut self, seed: u64) -> Self {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed);
        self
    }

    /// A packet leaves: its source as the world sees it.
    pub(crate) fn outbound(&mut self, inside: SocketAddr, to: SocketAddr, now: Duration) -> SocketAddr {
        self.expire(now);
        let offended = self.offended.contains_key(&to);
        let towards = match self.mapping {
            Mapping::Transparent => None,
            Mapping::EndpointIndependent | Mapping::Preserving if !offended => None,
            Mapping::EndpointIndependent | Mapping::Preserving | Mapping::Counting | Mapping::Random => Some(to),
        };
        let index = self.bindings.iter().position(|b| b.inside == inside && b.towards == towards);
        let index = index.unwrap_or_else(|| {
            let port = self.port_for(inside);
            self.bindings.push(Binding { inside, towards, port, used_at: now, sent_to: BTreeMap::new() });
            self.bindings.len() - 1
        });
        let binding = &mut self.bindings[index];
        binding.used_at = now;
        binding.sent_to.insert(to, now);
        SocketAddr::new(self.public_ip, binding.port)
    }

    /// A packet arrives: the address inside, if it is let through.
    pub(crate) fn inbound(&mut self, port: u16, from: SocketAddr, now: Duration) -> Option<SocketAddr> {
        self.expire(now);
        let filtering = self.filtering;
        let binding = self.bindings.iter().find(|b| b.port == port);
        let allowed = binding.is_some_and(|binding| match filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => binding.sent_to.keys().any(|to| to.ip() == from.ip()),
            Filtering::AddressAndPortDependent => binding.sent_to.contains_key(&from),
        });
        if !allowed && let Some(offence) = self.offence {
            self.offended.insert(from, now + offence);
        }
        binding.filter(|_| allowed).map(|binding| binding.inside)
    }

    /// Reboot: every binding is gone, new ones get other ports.
    pub(crate) fn flush(&mut self) {
        self.bindings.clear();
    }

    fn port_for(&mut self, inside: SocketAddr) -> u16 {
        let is_free = self.bindings.iter().all(|binding| binding.port != inside.port());
        match self.mapping {
            Mapping::Transparent => inside.port(),
            Mapping::Preserving if is_free => inside.port(),
            Mapping::EndpointIndependent | Mapping::Preserving | Mapping::Counting | Mapping::Random => {
                self.free_port()
            }
        }
    }

    fn free_port(&mut self) -> u16 {
        loop {
            self.allocated += 1;
            // A generator of Knuth's; its upper bits are good enough for ports.
            self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let port = match self.mapping {
                Mapping::Counting => 20_000 + (self.state_base() + self.allocated) % 40_000,
                Mapping::EndpointIndependent | Mapping::Preserving | Mapping::Random | Mapping::Transparent => {
                    1_024 + (self.state >> 40) as u32 % 64_512
                }
            };
            let port = u16::try_from(port).unwrap();
            let is_new = self.mapping != Mapping::Random || self.drawn.insert(port);
            if is_new && self.bindings.iter().all(|binding| binding.port != port) {
                return port;
            }
        }
    }

    fn state_base(&self) -> u32 {
        u32::from(self.public_ip.is_ipv4()) * 137
    }

    fn expire(&mut self, now: Duration) {
        let lifetime = self.lifetime;
        self.offended.retain(|_, until| now < *until);
        self.bindings.retain(|binding| now < binding.used_at + lifetime);
        for binding in &mut self.bindings {
            binding.sent_to.retain(|_, at| now < *at + lifetime);
        }
    }
}
