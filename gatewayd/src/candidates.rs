//! Gathers our own candidates: the addresses of the interfaces, and the reflexive ones that STUN servers see.
//!
//! All requests leave from the one tunnel socket, so what a STUN server sees is what a peer would see, and comparing
//! the ports that several servers see tells how the NAT maps (RFC 4787 §4.1).

mod punching;
mod reflections;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use gateway_net::{
    entropy::{random, random_u32},
    nat64,
};
use gateway_proto::{
    nat64::Nat64Prefix,
    netcheck::PortMapping,
    path::{Candidate, CandidateKind, NatMapping, NatView, Regather, normalize},
    stun,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{ipv6_state, peer::LocalCandidates, resolver::Resolver, socket::TunnelSocket};
pub use punching::Punching;
pub(crate) use punching::PunchingPeer;
use reflections::{Reflections, host};

/// A request unanswered for this long is sent again, twice at most.
const STUN_RETRY: Duration = Duration::from_millis(500);
/// Tries of one round.
const STUN_TRIES: u32 = 3;
/// Resolving a STUN server's name.
pub(crate) const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);
/// STUN servers asked in one round, at two addresses each.
const MAX_SERVERS: usize = 8;

/// Gathers candidates until `stop`.
#[derive(Debug)]
pub struct Gatherer {
    /// The tunnel socket.
    pub socket: Arc<TunnelSocket>,
    /// `host:port` of the STUN servers of the policy.
    pub servers: watch::Receiver<Vec<String>>,
    /// Knows their addresses.
    pub resolver: Resolver,
    /// Told whenever the machine's network changes or it slept.
    pub network: watch::Receiver<u64>,
    /// STUN packets from the socket.
    pub packets: mpsc::Receiver<(SocketAddr, Vec<u8>)>,
    /// Where the result goes.
    pub candidates: watch::Sender<LocalCandidates>,
    /// Where prefixes of a NAT64 go that a server showed.
    pub translators: mpsc::Sender<Nat64Prefix>,
    /// The port that the router forwards to the socket.
    pub mapped: watch::Receiver<Option<PortMapping>>,
    /// For how many peers a direct path, or a better one, is looked for.
    pub punching: watch::Receiver<usize>,
    /// What the administrator says partners reach the socket at.
    pub configured: Vec<SocketAddr>,
    /// Whether loopback addresses are candidates.
    pub allow_loopback: bool,
    /// Whether the administrator chose our port, and may have let it in at the router.
    pub fixed_port: bool,
}

struct Round {
    /// Who was asked, in the order of asking: a NAT that counts shows it in the answers.
    waiting: Vec<([u8; 12], SocketAddr)>,
    /// The addresses of each server's name, as the name servers said.
    names: Vec<Vec<SocketAddr>>,
    tries: u32,
    sent_at: Instant,
}

impl Gatherer {
    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.gather()).await;
    }

    async fn gather(&mut self) {
        self.network.mark_changed();
        let mut translation = nat64::subscribe();
        let mut regather = Regather::new(Instant::now().into_std(), random_u32());
        regather.handle_wanted(*self.punching.borrow_and_update() > 0);
        let mut retry = interval(STUN_RETRY);
        let mut hosts = BTreeSet::new();
        let mut mapped = Reflections::default();
        let mut round: Option<Round> = None;
        loop {
            tokio::select! {
                Ok(()) = self.network.changed() => {
                    self.network.mark_unchanged();
                    hosts = self.host_addresses();
                    mapped.clear();
                    self.publish(&hosts, &mapped);
                    regather.start_over();
                    round = Some(self.ask(&mut mapped, &mut regather).await);
                }
                // What is IPv4 and what is IPv6 is another thing now.
                Ok(()) = translation.changed() => round = Some(self.ask(&mut mapped, &mut regather).await),
                Ok(()) = self.mapped.changed() => {
                    self.mapped.mark_unchanged();
                    self.publish(&hosts, &mapped);
                }
                Ok(()) = self.punching.changed() => {
                    regather.handle_wanted(*self.punching.borrow_and_update() > 0);
                }
                () = sleep_until(regather.poll_timeout().into()) => {
                    round = Some(self.ask(&mut mapped, &mut regather).await);
                }
                Ok(()) = self.servers.changed() => {
                    self.servers.mark_unchanged();
                    mapped.clear();
                    regather.start_over();
                    round = Some(self.ask(&mut mapped, &mut regather).await);
                }
                _ = retry.tick(), if round.is_some() => {
                    let silent = self.repeat(&mut round, &mut mapped);
                    if !silent.is_empty() {
                        self.publish(&hosts, &mapped);
                    }
                    let mut may_have_moved = false;
                    for server in silent {
                        may_have_moved |= self.resolver.silent(server);
                    }
                    if may_have_moved {
                        round = Some(self.ask(&mut mapped, &mut regather).await);
                    }
                }
                Some((from, packet)) = self.packets.recv() => {
                    let Some(current) = &mut round else { continue };
                    let Some(transaction) = stun::transaction_id(&packet) else { continue };
                    // Only the server that was asked may answer: anybody else could only have guessed 96 random bits.
                    if !current.waiting.contains(&(transaction, from)) {
                        continue;
                    }
                    match stun::parse_response(&packet, &transaction) {
                        Ok(seen) => {
                            current.waiting.retain(|(waiting, _)| *waiting != transaction);
                            mapped.note(from, normalize(seen));
                            self.resolver.answered(from);
                            if let Some(prefix) = translator(&current.names, from, normalize(seen)) {
                                // One that waits is the same.
                                let _ = self.translators.try_send(prefix);
                            }
                        }
                        Err(error) => debug!(%error, "STUN answer refused"),
                    }
                    if current.waiting.is_empty() {
                        if current.names.iter().all(|addresses| !addresses.is_empty()) {
                            regather.handle_complete();
                        }
                        round = None;
                    }
                    self.publish(&hosts, &mapped);
                }
            }
        }
    }

    fn host_addresses(&self) -> BTreeSet<SocketAddr> {
        let port = self.socket.local_port();
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        let unfit = ipv6_state::unfit();
        interfaces
            .iter()
            .filter(|interface| self.allow_loopback || !interface.is_loopback())
            .filter(|interface| !interface.is_link_local() && interface.is_oper_up())
            .map(|interface| interface.ip())
            .filter(|own| self.socket.takes(*own) && is_fit(*own, self.socket.pinned(), &unfit))
            .map(|own| SocketAddr::new(own, port))
            .collect()
    }

    async fn ask(&self, mapped: &mut Reflections, regather: &mut Regather) -> Round {
        let servers: Vec<_> = self.servers.borrow().iter().take(MAX_SERVERS).cloned().collect();
        let names = self.resolver.resolve(servers.iter().map(String::as_str), RESOLVE_TIMEOUT).await;
        let mut waiting: Vec<([u8; 12], SocketAddr)> = Vec::new();
        let mut asked = Vec::new();
        for (server, named) in servers.iter().zip(&names) {
            let plain = named.iter().map(|address| nat64::plain(*address));
            for address in plain.filter(|address| self.socket.reaches(address)).take(2) {
                if waiting.iter().all(|(_, other)| *other != address) {
                    waiting.push((random(), address));
                    asked.push((host(server), address));
                }
            }
        }
        mapped.expect(asked.into_iter());
        let round = Round { waiting, names, tries: 1, sent_at: Instant::now() };
        regather.handle_asked(round.sent_at.into_std(), random_u32());
        self.send(&round);
        round
    }

    fn send(&self, round: &Round) {
        for (transaction, server) in &round.waiting {
            self.socket.send_probe(*server, &stun::binding_request(transaction));
        }
    }

    /// Asks again who did not answer. Gives those that are given up: what they saw once is no candidate any more.
    fn repeat(&self, round: &mut Option<Round>, mapped: &mut Reflections) -> Vec<SocketAddr> {
        let Some(current) = round else { return Vec::new() };
        if current.sent_at.elapsed() < STUN_RETRY {
            return Vec::new();
        }
        if current.tries >= STUN_TRIES {
            // Who does not answer any more says nothing about us any more.
            let silent: Vec<_> = current.waiting.iter().map(|(_, server)| *server).collect();
            for server in &silent {
                mapped.forget(server);
            }
            *round = None;
            return silent;
        }
        current.tries += 1;
        current.sent_at = Instant::now();
        self.send(current);
        Vec::new()
    }

    fn publish(&self, hosts: &BTreeSet<SocketAddr>, mapped: &Reflections) {
        let weighed = mapped.weighed();
        let nat = NatView { nat64: nat64::is_known(), ..weighed.view };
        let contradiction = weighed.contradiction();
        let mut reflexive: Vec<_> = weighed.addresses.into_iter().filter(|seen| !hosts.contains(seen)).collect();
        if self.fixed_port {
            reflexive.extend(forwarded(&reflexive, nat.mapping, self.socket.local_port()));
        }
        let forwarded = self.mapped.borrow().as_ref().and_then(|mapping| mapping.outer);
        let next = LocalCandidates {
            candidates: hosts
                .iter()
                .map(|host| Candidate::new(CandidateKind::Host, *host))
                .chain(self.configured.iter().map(|named| Candidate::new(CandidateKind::Configured, *named)))
                .chain(forwarded.map(|outer| Candidate::new(CandidateKind::PortMapped, outer)))
                .chain(reflexive.iter().map(|seen| Candidate::new(CandidateKind::ServerReflexive, *seen)))
                .collect(),
            nat,
            contradiction,
        };
        self.candidates.send_if_modified(|current| {
            let changed = current.candidates != next.candidates || current.nat != next.nat;
            *current = next;
            changed
        });
    }
}

/// Whether an address of ours is worth an offer: not one that is about to go. The one that the administrator named for the socket is.
fn is_fit(own: IpAddr, pinned: Option<IpAddr>, unfit: &BTreeSet<Ipv6Addr>) -> bool {
    match own {
        IpAddr::V6(address) => pinned == Some(own) || !unfit.contains(&address),
        IpAddr::V4(_) => true,
    }
}

/// The prefix of the NAT64 that a server shows: it was asked over IPv6 and saw an IPv4 address, so there is one, and an IPv4 address of
/// the same name is in the address that was asked.
fn translator(names: &[Vec<SocketAddr>], server: SocketAddr, seen: SocketAddr) -> Option<Nat64Prefix> {
    let (SocketAddr::V6(outer), SocketAddr::V4(_)) = (server, seen) else { return None };
    let names = names.iter().filter(|addresses| addresses.contains(&server));
    names.flatten().find_map(|address| match address {
        SocketAddr::V4(inner) => Nat64Prefix::between(*outer.ip(), *inner.ip()),
        SocketAddr::V6(_) => None,
    })
}

/// Behind a NAT that gives every destination another port, an administrator may have forwarded the port he chose: our
/// outer addresses with our own port.
fn forwarded(reflexive: &[SocketAddr], mapping: NatMapping, port: u16) -> BTreeSet<SocketAddr> {
    let at_port = |seen: &SocketAddr| SocketAddr::new(seen.ip(), port);
    let outer_ports = || reflexive.iter().filter(|seen| seen.is_ipv4());
    match mapping {
        // Two answers that differ are too few for a class, and enough for this.
        NatMapping::Unknown if outer_ports().count() < 2 => BTreeSet::new(),
        NatMapping::Unknown | NatMapping::Regular | NatMapping::Random => {
            outer_ports().map(at_port).filter(|at| !reflexive.contains(at)).collect()
        }
        NatMapping::EndpointIndependent => BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn server(n: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 3478 + n))
    }

    pub(super) fn seen(port: u16) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, 1], port))
    }

    #[test]
    fn a_server_that_is_asked_over_ipv6_and_sees_ipv4_shows_the_prefix_of_the_nat64() {
        let names = [vec!["[2001:db8:6464::c000:201]:3478".parse().unwrap(), server(0)]];
        let translated = names[0][0];
        let shown = translator(&names, translated, seen(4000)).map(|prefix| prefix.to_string());
        assert_eq!(shown.as_deref(), Some("2001:db8:6464::/96"));
        let native = "[2001:db8:9::1]:4000".parse().unwrap();
        assert_eq!(translator(&names, translated, native), None, "a server's address may look like that by itself");
        assert_eq!(translator(&names, server(0), seen(4000)), None);
        assert_eq!(translator(&names[..0], translated, seen(4000)), None, "its IPv4 address is not known");
    }

    #[test]
    fn an_address_that_is_deprecated_is_no_candidate_unless_the_socket_is_bound_to_it() {
        let [old, new]: [Ipv6Addr; 2] = ["2001:db8:1::1", "2001:db8:2::1"].map(|address| address.parse().unwrap());
        let unfit = BTreeSet::from([old]);
        assert!(!is_fit(old.into(), None, &unfit) && is_fit(new.into(), None, &unfit));
        assert!(is_fit(old.into(), Some(old.into()), &unfit), "there is no other");
        assert!(is_fit("192.0.2.1".parse().unwrap(), None, &unfit));
    }

    #[test]
    fn a_chosen_port_is_tried_at_the_outer_address_of_a_hard_nat_only() {
        let outer = [seen(4000), seen(9000)];
        assert!(forwarded(&outer, NatMapping::Random, 7070).iter().all(|addr| *addr == seen(7070)));
        assert_eq!(forwarded(&outer, NatMapping::Random, 7070).len(), 1, "once, however many saw it");
        assert!(forwarded(&outer, NatMapping::EndpointIndependent, 7070).is_empty());
        assert_eq!(
            forwarded(&outer, NatMapping::Unknown, 7070).len(),
            1,
            "too few answers for a class, and they differ"
        );
        assert!(forwarded(&outer[..1], NatMapping::Unknown, 7070).is_empty());
    }
}
