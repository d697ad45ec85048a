//! The networks a gateway may sit in, and which pairs of them can be direct: the oracle of the matrix.
//!
//! What a router does is described by RFC 4787's two words: its *mapping* (which outer port a socket gets) and its
//! *filtering* (who may send to it). The oracle knows nothing of our programs: it says what is possible on such
//! networks without guessing ports.

use std::fmt;

use super::way::{Carrier, Family, Way};

/// What stands between a site and the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouterKind {
    /// Nothing: public addresses, IPv4 and IPv6.
    Public,
    /// A firewall that keeps state and translates nothing, IPv4 and IPv6.
    Firewall,
    /// One outer port for all destinations; everybody may send to it ("full cone").
    OpenFilter,
    /// One outer port for all destinations; addresses that were sent to may answer from any port.
    AddressFilter,
    /// One outer port for all destinations; only what was sent to may answer ("port restricted").
    PortFilter,
    /// Linux `masquerade`: a mapping per destination that keeps the inner port while that is free.
    PreservedPort,
    /// The same without a rule for what arrives unasked: every such packet leaves an entry, and the entry takes the port. What
    /// a router without a firewall does. Not in the matrix: a scenario of its own.
    PlainMasquerade,
    /// Linux `masquerade fully-random`: another outer port for every destination ("symmetric").
    RandomPort,
    /// The same, and a router that forwards a port when it is asked by UPnP, PCP or NAT-PMP; the gateway asks.
    MappedPort,
    /// A home router behind a carrier's NAT.
    CarrierGrade,
    /// No IPv4 at all; IPv6 behind a firewall that keeps state.
    Ipv6Only,
    /// A NAT that forwards no UDP.
    NoUdp,
    /// A NAT that forwards TCP to port 443 and nothing else.
    OnlyHttps,
    /// Forwards nothing; an HTTP proxy with a user and password is the only way out.
    OnlyProxy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mapping {
    Independent,
    Random,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filtering {
    Open,
    Address,
    Port,
}

/// How far up the ladder a pair can get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// UDP between the sites.
    Direct,
    /// Through a relay.
    Relayed,
}

impl RouterKind {
    /// Those of the matrix, in the order of the table.
    pub const ALL: [Self; 13] = [
        Self::Public,
        Self::Firewall,
        Self::OpenFilter,
        Self::AddressFilter,
        Self::PortFilter,
        Self::PreservedPort,
        Self::RandomPort,
        Self::MappedPort,
        Self::CarrierGrade,
        Self::Ipv6Only,
        Self::NoUdp,
        Self::OnlyHttps,
        Self::OnlyProxy,
    ];

    /// A short name for columns, servers and namespaces.
    pub fn short(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Firewall => "firewall",
            Self::OpenFilter => "open",
            Self::AddressFilter => "address",
            Self::PortFilter => "port",
            Self::PreservedPort => "preserved",
            Self::PlainMasquerade => "plain",
            Self::RandomPort => "random",
            Self::MappedPort => "mapped",
            Self::CarrierGrade => "carrier",
            Self::Ipv6Only => "ipv6",
            Self::NoUdp => "no-udp",
            Self::OnlyHttps => "https",
            Self::OnlyProxy => "proxy",
        }
    }

    /// In words, for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Public => "no router: public addresses, IPv4 and IPv6",
            Self::Firewall => "stateful firewall, no NAT, IPv4 and IPv6",
            Self::OpenFilter => "NAT, one outer port, open to everybody (full cone)",
            Self::AddressFilter => "NAT, one outer port, open to addresses sent to (address restricted)",
            Self::PortFilter => "NAT, one outer port, open to address and port sent to (port restricted)",
            Self::PreservedPort => "Linux masquerade: a mapping per destination that keeps the port",
            Self::PlainMasquerade => "Linux masquerade without a firewall: an early packet takes the port",
            Self::RandomPort => "masquerade fully-random: a random port per destination (symmetric)",
            Self::MappedPort => "the same, and a router that forwards a port when asked (miniupnpd); the gateway asks",
            Self::CarrierGrade => "double NAT: a masquerading router behind a carrier's NAT",
            Self::Ipv6Only => "IPv6 only, behind a stateful firewall",
            Self::NoUdp => "NAT, UDP blocked",
            Self::OnlyHttps => "NAT, only TCP port 443",
            Self::OnlyProxy => "only an HTTP proxy with Basic authentication",
        }
    }

    /// Whether IPv6 passes, with UDP.
    pub fn has_ipv6(self) -> bool {
        matches!(self, Self::Public | Self::Firewall | Self::Ipv6Only)
    }

    /// Whether IPv4 passes at all.
    pub fn has_ipv4(self) -> bool {
        self != Self::Ipv6Only
    }

    /// Mapping and filtering of UDP over IPv4; none where there is no such thing.
    fn udp4(self) -> Option<(Mapping, Filtering)> {
        match self {
            // Everybody may send to the forwarded port; what leaves from others is answered there.
            Self::Public | Self::OpenFilter | Self::MappedPort => Some((Mapping::Independent, Filtering::Open)),
            Self::AddressFilter => Some((Mapping::Independent, Filtering::Address)),
            // `masquerade` maps per destination, but a lone host always gets its own port: independent in effect.
            Self::Firewall | Self::PortFilter | Self::PreservedPort | Self::PlainMasquerade | Self::CarrierGrade => {
                Some((Mapping::Independent, Filtering::Port))
            }
            Self::RandomPort => Some((Mapping::Random, Filtering::Port)),
            Self::Ipv6Only | Self::NoUdp | Self::OnlyHttps | Self::OnlyProxy => None,
        }
    }

    /// The best rung that a pair of such sites can reach without guessing ports.
    pub fn best_rung(self, other: Self) -> Rung {
        let over_ipv6 = self.has_ipv6() && other.has_ipv6();
        let over_ipv4 = match (self.udp4(), other.udp4()) {
            (Some(one), Some(another)) => can_punch(one, another) && can_punch(another, one),
            (None, _) | (_, None) => false,
        };
        if over_ipv6 || over_ipv4 { Rung::Direct } else { Rung::Relayed }
    }

    /// The same where both sides may guess ports: one NAT with random ports is no obstacle then, two are.
    pub fn best_rung_guessing(self, other: Self) -> Rung {
        let guessable = match (self.udp4(), other.udp4()) {
            (Some(one), Some(another)) => one.0 == Mapping::Independent || another.0 == Mapping::Independent,
            (None, _) | (_, None) => false,
        };
        if guessable { Rung::Direct } else { self.best_rung(other) }
    }

    /// How the packets of a pair may travel on a rung, as the side of `self` sees it; each way is as good. Where both
    /// protocols pass, or a forwarded port and a punched one, the one that is proved first stays.
    pub fn best_ways(self, other: Self, rung: Rung) -> Vec<Way> {
        if rung == Rung::Relayed {
            return vec![Way::Relayed(self.carrier(), other.carrier())];
        }
        let mut ways = Vec::new();
        if self.has_ipv6() && other.has_ipv6() {
            ways.push(Way::Own(Family::V6));
        }
        if self.udp4().is_some() && other.udp4().is_some() {
            ways.extend(self.ways_over_ipv4(other));
        }
        ways
    }

    fn ways_over_ipv4(self, other: Self) -> Vec<Way> {
        if matches!(other, Self::Public | Self::Firewall) {
            return vec![Way::Own(Family::V4)];
        }
        if other != Self::MappedPort {
            return vec![Way::Punched(Family::V4)];
        }
        // Its own packets leave from a random port: only who lets these in finds it there too.
        let heard = self.best_rung(Self::RandomPort) == Rung::Direct;
        [Way::Mapped(Family::V4)].into_iter().chain(heard.then_some(Way::Punched(Family::V4))).collect()
    }

    /// How such a site reaches its relay.
    fn carrier(self) -> Carrier {
        if matches!(self, Self::NoUdp | Self::OnlyHttps | Self::OnlyProxy) { Carrier::Tls } else { Carrier::Udp }
    }
}

/// Whether packets of `from` can get into `to` once both have sent to the addresses they know of each other.
fn can_punch(from: (Mapping, Filtering), to: (Mapping, Filtering)) -> bool {
    match (from.0, to) {
        (Mapping::Independent, (Mapping::Independent, _)) => true,
        // The source port is none that `to` has sent to.
        (Mapping::Random, (Mapping::Independent, filtering)) => filtering != Filtering::Port,
        // `to` is reached at the port that its first packets were seen to come from; it has sent to `from`.
        (Mapping::Independent, (Mapping::Random, _)) => true,
        (Mapping::Random, (Mapping::Random, _)) => false,
    }
}

impl fmt::Display for RouterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.short())
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Relayed => "relay",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oracle_does_not_care_who_dials() {
        for one in RouterKind::ALL {
            for other in RouterKind::ALL {
                assert_eq!(one.best_rung(other), other.best_rung(one), "{one} and {other}");
            }
        }
    }

    #[test]
    fn random_ports_meet_only_who_lets_unknown_ports_in() {
        use RouterKind::{AddressFilter, Firewall, MappedPort, OpenFilter, PortFilter, Public, RandomPort};
        for open in [Public, OpenFilter, AddressFilter, MappedPort] {
            assert_eq!(RandomPort.best_rung(open), Rung::Direct, "{open}");
        }
        for closed in [PortFilter, Firewall, RandomPort] {
            assert_eq!(RandomPort.best_rung(closed), Rung::Relayed, "{closed}");
        }
    }

    #[test]
    fn the_ways_of_a_pair_are_those_of_its_rung() {
        for one in RouterKind::ALL {
            for other in RouterKind::ALL {
                let rung = one.best_rung(other);
                let ways = one.best_ways(other, rung);
                let is_relayed = |way: &Way| matches!(way, Way::Relayed(..));
                assert!(
                    !ways.is_empty() && ways.iter().all(|way| is_relayed(way) == (rung == Rung::Relayed)),
                    "{ways:?}"
                );
            }
        }
    }

    #[test]
    fn each_side_sees_the_other_as_its_router_shows_it() {
        use RouterKind::{Firewall, Ipv6Only, MappedPort, NoUdp, OpenFilter, PortFilter, Public, RandomPort};
        let ways = |one: RouterKind, other: RouterKind| one.best_ways(other, one.best_rung(other));
        assert_eq!(ways(PortFilter, Public), [Way::Own(Family::V4)]);
        assert_eq!(ways(Public, PortFilter), [Way::Punched(Family::V4)]);
        assert_eq!(ways(Public, Firewall), [Way::Own(Family::V6), Way::Own(Family::V4)]);
        assert_eq!(ways(Ipv6Only, Public), [Way::Own(Family::V6)]);
        assert_eq!(ways(PortFilter, MappedPort), [Way::Mapped(Family::V4)]);
        assert_eq!(ways(OpenFilter, MappedPort), [Way::Mapped(Family::V4), Way::Punched(Family::V4)]);
        assert_eq!(ways(RandomPort, PortFilter), [Way::Relayed(Carrier::Udp, Carrier::Udp)]);
        assert_eq!(ways(NoUdp, PortFilter), [Way::Relayed(Carrier::Tls, Carrier::Udp)]);
        assert_eq!(RandomPort.best_ways(PortFilter, Rung::Direct), [Way::Punched(Family::V4)], "guessed");
    }

    #[test]
    fn ipv6_meets_ipv6_and_nothing_else() {
        assert_eq!(RouterKind::Ipv6Only.best_rung(RouterKind::Firewall), Rung::Direct);
        assert_eq!(RouterKind::Ipv6Only.best_rung(RouterKind::OpenFilter), Rung::Relayed);
    }
}
