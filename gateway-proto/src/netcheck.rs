//! What the network around a gateway lets through, in words: for the person at the machine, and for the network team
//! that has to be asked.
//!
//! The daemon asks STUN servers, relays and the control plane and writes down what came back ([`Observations`]);
//! [`judge()`] makes a [`Report`] of it. Nothing here touches a socket or a clock, so every sentence can be tested.
//!
//! A report has facts (NAT, addresses, latencies) and [`Problem`]s. A problem says what does not work and what that
//! costs, and where somebody else can mend it, the sentence to send there. Nothing in it is secret, but it names
//! addresses of the site: it goes to the local API only, never to the control plane.

mod date;
mod host;
mod judge;
mod lease;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

pub use date::http_date;
pub use host::{HostCheck, HostOutcome, HostRole, ProxyRefusal};
pub use judge::judge;
pub use lease::{LEASE, Lease, LeaseError, outer_ipv4};
use serde::{Deserialize, Serialize};

use crate::{nat64::Nat64Prefix, relay::udp::CarrierReason, signal::NatMapping, twice::RunsTwice};

/// UDP payload that a tunnel needs (RFC 9000 §14), in bytes.
pub const TUNNEL_DATAGRAM: usize = 1200;
/// Clocks further apart than this are worth a word; at 60 s the control plane refuses our signatures.
pub const MAX_CLOCK_SKEW_MS: i64 = 10_000;
/// Who issued the certificates that our own servers make for themselves, as these say.
pub const OWN_ISSUER: &str = "gateway";

/// What the daemon saw.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observations {
    /// STUN servers asked, in the order of asking, all from one socket.
    pub reflections: Vec<Reflection>,
    /// Local port of that socket.
    pub port: u16,
    /// Whether a datagram to our own outer address came back; none: not tried.
    pub hairpin: Option<bool>,
    /// Whether a datagram of [`TUNNEL_DATAGRAM`] bytes was answered; none: not tried.
    pub large: Option<bool>,
    /// TLS servers tried.
    pub hosts: Vec<HostCheck>,
    /// Host and port of the HTTP proxy in use.
    pub proxy: Option<String>,
    /// Our own addresses towards the proxy or, without one, the internet. They are known where no STUN server is.
    pub sources: Vec<IpAddr>,
    /// The control plane's clock minus ours, milliseconds.
    pub clock_skew_ms: Option<i64>,
    /// Why the tunnel socket carries nothing.
    pub socket: Option<SocketProblem>,
    /// The prefix of the NAT64 through which IPv4 servers were asked; their [`Reflection::address`] is IPv4 then.
    pub nat64: Option<Nat64Prefix>,
    /// The router's port; none: not configured, or not yet tried.
    pub port_mapping: Option<PortMapping>,
    /// How the tunnel socket, which is older than the one asked from, gets to the relays that this gateway is attached to.
    pub carriers: Vec<CarrierSight>,
    /// Where direct paths carry data to now: partners' addresses.
    pub direct: Vec<SocketAddr>,
    /// Another process has this gateway's key.
    pub runs_twice: Option<RunsTwice>,
}

/// Why a tunnel socket that is bound to one address carries nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketProblem {
    /// This machine does not have the address any more, or its interface is down.
    AddressGone(IpAddr),
    /// The address is back, and the socket could not be opened there again.
    NotOpened {
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        problem: String,
    },
}

impl fmt::Display for SocketProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddressGone(address) => write!(
                f,
                "its address {address} ([tunnel] listen) is gone or down: everything goes over relays, and the socket is \
                 opened again as soon as the address is back"
            ),
            Self::NotOpened { address, problem } => write!(
                f,
                "it cannot be opened at {address} ([tunnel] listen): {problem}. Everything goes over relays, and it is \
                 tried again and again"
            ),
        }
    }
}

/// How a router was asked for a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MappingProtocol {
    /// Port Control Protocol (RFC 6887).
    Pcp,
    /// NAT Port Mapping Protocol (RFC 6886).
    NatPmp,
    /// UPnP Internet Gateway Device.
    Upnp,
}

impl fmt::Display for MappingProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}

/// The port that the router forwards to the tunnel socket, where that is configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// How it was asked for; none: there is none.
    pub protocol: Option<MappingProtocol>,
    /// The address that is offered to partners.
    pub outer: Option<SocketAddr>,
    /// Why there is none, or why it is of no use.
    pub problem: Option<String>,
}

/// How datagrams to a relay travel from the tunnel socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarrierSight {
    /// `host:port` of the relay.
    pub relay: String,
    /// Port of the tunnel socket.
    pub port: u16,
    /// Why they travel as they do.
    pub reason: CarrierReason,
}

/// One STUN server at one address.
#[derive(Debug, Clone, PartialEq)]
pub struct Reflection {
    /// `host:port` as configured.
    pub server: String,
    /// Its address; none: the name does not resolve.
    pub address: Option<SocketAddr>,
    /// Our own address towards it; none: there is no route, and it was not asked.
    pub source: Option<IpAddr>,
    /// Our address as it saw it, in normal form; none: no answer.
    pub seen: Option<SocketAddr>,
    /// Time to its answer, milliseconds.
    pub rtt_ms: Option<f64>,
}

/// How well the network suits a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing to mend.
    Good,
    /// Data flows, but not as well as it could.
    Limited,
    /// The control plane, or every relay, is out of reach: no new connection may come up. A tunnel that stands goes on. Or another process
    /// with the gateway's key holds its place, and this one carries nothing.
    Blocked,
    /// There was nobody to ask.
    Unknown,
}

/// The report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// When it was made, Unix milliseconds.
    pub checked_at: u64,
    /// In a word.
    pub verdict: Verdict,
    /// Whether UDP gets out and back; none: there was no server to ask, or no name of one resolves.
    pub udp: Option<bool>,
    /// Our IPv4 address as the internet sees it.
    pub public_ipv4: Option<SocketAddr>,
    /// Our IPv6 address as the internet sees it.
    pub public_ipv6: Option<SocketAddr>,
    /// How the NAT maps.
    pub nat: NatMapping,
    /// The same in words.
    pub nat_text: String,
    /// The prefix of the NAT64 that is the only way to IPv4, for example `64:ff9b::/96`; none: there is another way, or none.
    #[serde(default)]
    pub nat64: Option<String>,
    /// Whether the NAT keeps our port; none: no answer over IPv4.
    pub port_preserved: Option<bool>,
    /// Whether our outer address is reached from inside; none: not known.
    pub hairpin: Option<bool>,
    /// Whether datagrams large enough for a tunnel pass; none: not known.
    pub large_datagrams: Option<bool>,
    /// Time to the answer of each STUN server.
    pub latencies: Vec<Latency>,
    /// The port that the router forwards; none: not configured.
    #[serde(default)]
    pub port_mapping: Option<PortMapping>,
    /// Control plane and relays.
    pub hosts: Vec<HostCheck>,
    /// Host and port of the HTTP proxy in use.
    pub proxy: Option<String>,
    /// The control plane's clock minus ours, milliseconds.
    pub clock_skew_ms: Option<i64>,
    /// What is to be mended, the most pressing first.
    pub problems: Vec<Problem>,
    /// What keeps only some partners from a direct path: worth a request where it concerns them, and no part of the verdict.
    #[serde(default)]
    pub notes: Vec<Problem>,
}

/// Time to the answer of a STUN server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// `host:port`.
    pub server: String,
    /// Milliseconds.
    pub rtt_ms: f64,
}

/// Something that does not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable code, for example `udp_blocked`.
    pub code: String,
    /// What does not work and what that costs.
    pub text: String,
    /// What to send to those who can mend it; none: it is for the person at this machine.
    pub request: Option<String>,
}

/// Body of `POST /v1/netcheck`: further servers to ask, beside those of the policy. What an unenrolled gateway can try.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetcheckBody {
    /// `host:port` of STUN servers (UDP).
    #[serde(default)]
    pub stun: Vec<String>,
    /// `host:port` of a control plane (TLS), whose key is not known yet.
    #[serde(default)]
    pub control: Option<String>,
    /// `host:port` of relays (TLS), whose keys are not known yet.
    #[serde(default)]
    pub relays: Vec<String>,
}

impl NetcheckBody {
    /// Entries of each list at most.
    pub const MAX_ENTRIES: usize = 8;

    /// What is wrong with it, for people.
    pub fn mistake(&self) -> Option<String> {
        if self.stun.len() > Self::MAX_ENTRIES || self.relays.len() > Self::MAX_ENTRIES {
            return Some(format!("at most {} servers of a kind", Self::MAX_ENTRIES));
        }
        let all = self.stun.iter().chain(&self.relays).chain(&self.control);
        let wrong = all.into_iter().find(|text| split_host(text).is_none())?;
        Some(format!("'{wrong}' is not HOST:PORT"))
    }
}

/// Host and port of `host:port`, `[v6]:port`.
pub fn split_host(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
    (!bare.is_empty() && bare.len() <= 253 && bare.chars().all(is_name)).then_some((bare, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_taken_apart_and_nonsense_is_not() {
        assert_eq!(split_host("relay.example:443"), Some(("relay.example", 443)));
        assert_eq!(split_host("[2001:db8::1]:3478"), Some(("2001:db8::1", 3478)));
        for wrong in ["", "relay", "relay:", "relay:0", "relay:65536", ":443", "2001:db8::1:443", "a b:1", "[::1:1"] {
            assert_eq!(split_host(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_body_with_a_wrong_entry_says_which() {
        let body = NetcheckBody { stun: vec!["relay.example".into()], ..NetcheckBody::default() };
        assert_eq!(body.mistake().as_deref(), Some("'relay.example' is not HOST:PORT"));
        let body = NetcheckBody { relays: vec!["r:1".into(); 9], ..NetcheckBody::default() };
        assert!(body.mistake().is_some());
        assert_eq!(NetcheckBody::default().mistake(), None);
    }
}
