//! Gathers our own candidates: the addresses of the interfaces, and the reflexive ones that STUN servers see.
//!
//! All requests leave from the one tunnel socket, so what a STUN server sees is what a peer would see, and comparing
//! the ports that several servers see tells how the NAT maps (RFC 4787 §4.1).

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use gateway_net::entropy::random;
use gateway_proto::{
    path::{Candidate, CandidateKind, NatMapping},
    stun,
};
use tokio::{
    net::lookup_host,
    sync::{mpsc, watch},
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{peer::LocalCandidates, socket::TunnelSocket};

/// Interfaces are looked at this often; cheap, and it bounds how long a new uplink goes unnoticed.
const INTERFACE_INTERVAL: Duration = Duration::from_secs(5);
/// STUN is asked this often: below the usual 30 s after which a NAT forgets an idle UDP mapping.
const STUN_INTERVAL: Duration = Duration::from_secs(23);
/// A request unanswered for this long is sent again, twice at most.
const STUN_RETRY: Duration = Duration::from_millis(500);
/// Tries of one round.
const STUN_TRIES: u32 = 3;
/// Resolving a STUN server's name.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);
/// STUN servers asked in one round.
const MAX_SERVERS: usize = 8;
/// Mapped ports that differ by no more than this look like a NAT that counts upwards.
const REGULAR_SPREAD: u16 = 5;

/// Gathers candidates until `stop`.
#[derive(Debug)]
pub struct Gatherer {
    /// The tunnel socket.
    pub socket: Arc<TunnelSocket>,
    /// `host:port` of the STUN servers of the policy.
    pub servers: watch::Receiver<Vec<String>>,
    /// STUN packets from the socket.
    pub packets: mpsc::Receiver<(SocketAddr, Vec<u8>)>,
    /// Where the result goes.
    pub candidates: watch::Sender<LocalCandidates>,
    /// Whether loopback addresses are candidates.
    pub allow_loopback: bool,
}

struct Round {
    waiting: HashMap<[u8; 12], SocketAddr>,
    tries: u32,
    sent_at: Instant,
}

impl Gatherer {
    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.gather()).await;
    }

    async fn gather(&mut self) {
        let mut interfaces = interval(INTERFACE_INTERVAL);
        let mut stun_due = interval(STUN_INTERVAL);
        let mut retry = interval(STUN_RETRY);
        let mut hosts = BTreeSet::new();
        let mut mapped: HashMap<SocketAddr, SocketAddr> = HashMap::new();
        let mut round: Option<Round> = None;
        loop {
            tokio::select! {
                _ = interfaces.tick() => {
                    let found = self.host_addresses();
                    if found != hosts {
                        hosts = found;
                        mapped.clear();
                        round = Some(self.ask().await);
                        self.publish(&hosts, &mapped);
                    }
                }
                _ = stun_due.tick() => round = Some(self.ask().await),
                Ok(()) = self.servers.changed() => {
                    self.servers.mark_unchanged();
                    mapped.clear();
                    round = Some(self.ask().await);
                }
                _ = retry.tick(), if round.is_some() => self.repeat(&mut round, &mut mapped),
                Some((from, packet)) = self.packets.recv() => {
                    let Some(current) = &mut round else { continue };
                    let Some(transaction) = stun::transaction_id(&packet) else { continue };
                    // Only the server that was asked may answer: anybody else could only have guessed 96 random bits.
                    if current.waiting.get(&transaction) != Some(&from) {
                        continue;
                    }
                    match stun::parse_response(&packet, &transaction) {
                        Ok(seen) => {
                            current.waiting.remove(&transaction);
                            mapped.insert(from, gateway_proto::path::normalize(seen));
                        }
                        Err(error) => debug!(%error, "STUN answer refused"),
                    }
                    if current.waiting.is_empty() {
                        round = None;
                    }
                    self.publish(&hosts, &mapped);
                }
            }
        }
    }

    fn host_addresses(&self) -> BTreeSet<SocketAddr> {
        let Ok(port) = self.socket.local_port() else { return BTreeSet::new() };
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        interfaces
            .iter()
            .filter(|interface| self.allow_loopback || !interface.is_loopback())
            .filter(|interface| !interface.is_link_local())
            .map(|interface| SocketAddr::new(interface.ip(), port))
            .filter(|address| address.is_ipv4() || self.socket.has_ipv6())
            .collect()
    }

    async fn ask(&self) -> Round {
        let servers: Vec<_> = self.servers.borrow().iter().take(MAX_SERVERS).cloned().collect();
        let resolved = join_all(servers.iter().map(|server| timeout(RESOLVE_TIMEOUT, lookup_host(server)))).await;
        let mut waiting = HashMap::new();
        for answer in resolved {
            match answer {
                Ok(Ok(addresses)) => {
                    let usable = addresses.map(gateway_proto::path::normalize);
                    let usable = usable.filter(|a| a.is_ipv4() || self.socket.has_ipv6());
                    waiting.extend(usable.take(2).map(|address| (random(), address)));
                }
                Ok(Err(error)) => debug!(%error, "STUN server's name does not resolve"),
                Err(_) => debug!("resolving a STUN server's name takes too long"),
            }
        }
        let round = Round { waiting, tries: 1, sent_at: Instant::now() };
        self.send(&round);
        round
    }

    fn send(&self, round: &Round) {
        for (transaction, server) in &round.waiting {
            self.socket.send_probe(*server, &stun::binding_request(transaction));
        }
    }

    fn repeat(&self, round: &mut Option<Round>, mapped: &mut HashMap<SocketAddr, SocketAddr>) {
        let Some(current) = round else { return };
        if current.sent_at.elapsed() < STUN_RETRY {
            return;
        }
        if current.tries >= STUN_TRIES {
            // Who does not answer any more says nothing about us any more.
            for server in current.waiting.values() {
                mapped.remove(server);
            }
            *round = None;
            return;
        }
        current.tries += 1;
        current.sent_at = Instant::now();
        self.send(current);
    }

    fn publish(&self, hosts: &BTreeSet<SocketAddr>, mapped: &HashMap<SocketAddr, SocketAddr>) {
        let reflexive: BTreeSet<_> = mapped.values().filter(|seen| !hosts.contains(seen)).copied().collect();
        let next = LocalCandidates {
            candidates: hosts
                .iter()
                .map(|host| Candidate::new(CandidateKind::Host, *host))
                .chain(reflexive.iter().map(|seen| Candidate::new(CandidateKind::ServerReflexive, *seen)))
                .collect(),
            nat: mapping(mapped),
        };
        self.candidates.send_if_modified(|current| {
            let changed = current.candidates != next.candidates || current.nat != next.nat;
            *current = next;
            changed
        });
    }
}

/// How our NAT maps, from what several servers saw of the one socket.
fn mapping(mapped: &HashMap<SocketAddr, SocketAddr>) -> NatMapping {
    let ipv4 = mapped.iter().filter(|(server, _)| server.is_ipv4());
    let ports: Vec<u16> = ipv4.map(|(_, seen)| seen.port()).collect();
    let (Some(low), Some(high)) = (ports.iter().min(), ports.iter().max()) else { return NatMapping::Unknown };
    match (ports.len(), high - low) {
        (1, _) => NatMapping::Unknown,
        (_, 0) => NatMapping::EndpointIndependent,
        (_, spread) if spread <= REGULAR_SPREAD => NatMapping::Regular,
        _ => NatMapping::Random,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(ports: &[u16]) -> NatMapping {
        let entry = |(n, port): (usize, &u16)| {
            let server: SocketAddr = format!("192.0.2.1:{}", 3478 + n).parse().unwrap();
            (server, SocketAddr::from(([198, 51, 100, 1], *port)))
        };
        mapping(&ports.iter().enumerate().map(entry).collect())
    }

    #[test]
    fn the_nat_is_classified_by_the_ports_that_several_servers_see() {
        assert_eq!(seen(&[]), NatMapping::Unknown);
        assert_eq!(seen(&[4000]), NatMapping::Unknown);
        assert_eq!(seen(&[4000, 4000, 4000]), NatMapping::EndpointIndependent);
        assert_eq!(seen(&[4000, 4002]), NatMapping::Regular);
        assert_eq!(seen(&[4000, 51234]), NatMapping::Random);
    }
}
