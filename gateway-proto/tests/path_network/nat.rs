//! A network address translator with the behaviours of RFC 4787, on virtual time.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// RFC 4787, section 4.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mapping {
    EndpointIndependent,
    AddressAndPortDependent,
}

/// RFC 4787, section 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    allocated: u32,
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
            allocated: 0,
            bindings: Vec::new(),
        }
    }

    /// A packet leaves: its source as the world sees it.
    pub(crate) fn outbound(&mut self, inside: SocketAddr, to: SocketAddr, now: Duration) -> SocketAddr {
        self.expire(now);
        let towards = match self.mapping {
            Mapping::EndpointIndependent => None,
            Mapping::AddressAndPortDependent => Some(to),
        };
        let index = self.bindings.iter().position(|b| b.inside == inside && b.towards == towards);
        let index = index.unwrap_or_else(|| {
            // Far from the last one: nobody guesses it, and a port is not used twice for long.
            self.allocated += 1;
            let port = 20_000 + u16::try_from(self.allocated * 7_919 % 40_000).unwrap();
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
        let binding = self.bindings.iter().find(|b| b.port == port)?;
        let allowed = match filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => binding.sent_to.keys().any(|to| to.ip() == from.ip()),
            Filtering::AddressAndPortDependent => binding.sent_to.contains_key(&from),
        };
        allowed.then_some(binding.inside)
    }

    /// Reboot: every binding is gone, new ones get other ports.
    pub(crate) fn flush(&mut self) {
        self.bindings.clear();
    }

    fn expire(&mut self, now: Duration) {
        let lifetime = self.lifetime;
        self.bindings.retain(|binding| now < binding.used_at + lifetime);
        for binding in &mut self.bindings {
            binding.sent_to.retain(|_, at| now < *at + lifetime);
        }
    }
}
