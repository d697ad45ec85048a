//! The names of STUN servers, resolved by the machine's own resolver for everything that asks these again and again. What is
//! remembered, and for how long, is decided in [`HostCache`]; here the name servers are asked, with a limit, each name once.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use gateway_net::{entropy::random_u32, nat64};
use gateway_proto::{host_cache::HostCache, netcheck::split_host, path::normalize};
use tokio::{net::lookup_host, sync::watch, time::timeout};
use tracing::debug;

use crate::socket::SocketCounters;

/// Cheap to clone; all clones remember the same.
#[derive(Debug, Clone)]
pub struct Resolver(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    cache: Mutex<HostCache>,
    network: watch::Receiver<u64>,
    counters: Arc<SocketCounters>,
}

impl Resolver {
    /// One that knows nothing yet. `network` is told whenever the machine's network changes.
    pub fn new(network: watch::Receiver<u64>, counters: Arc<SocketCounters>) -> Self {
        Self(Arc::new(Shared { cache: Mutex::default(), network, counters }))
    }

    /// The addresses of each server (`host:port`) in normal form and in the resolver's order, as it said them: those of a DNS64 are
    /// not taken apart. None of a name that was never resolved, and is not within `limit`.
    pub(crate) async fn resolve(&self, servers: impl Iterator<Item = &str>, limit: Duration) -> Vec<Vec<SocketAddr>> {
        let servers: Vec<_> = servers.map(split_host).collect();
        let hosts: BTreeSet<_> = servers.iter().flatten().map(|(host, _)| *host).collect();
        let asking = hosts.into_iter().map(|host| async move { (host, self.addresses(host, limit).await) });
        let found: BTreeMap<_, _> = join_all(asking).await.into_iter().collect();
        let of = |(host, port): (&str, u16)| -> Vec<SocketAddr> {
            let ips = found.get(host).into_iter().flatten();
            ips.map(|ip| SocketAddr::new(*ip, port)).collect()
        };
        servers.into_iter().map(|server| server.map(&of).unwrap_or_default()).collect()
    }

    /// A server answered on the tunnel's socket.
    pub(crate) fn answered(&self, server: SocketAddr) {
        self.cache().answered(|ip| is_at(ip, server), server.port());
    }

    /// A server did not answer there. True: it did before, and its name is looked up anew when it is asked for next.
    pub(crate) fn silent(&self, server: SocketAddr) -> bool {
        self.cache().silent(|ip| is_at(ip, server), server.port(), Instant::now())
    }

    async fn addresses(&self, host: &str, limit: Duration) -> Vec<IpAddr> {
        if let Ok(ip) = host.parse() {
            return vec![ip];
        }
        let network = *self.0.network.borrow();
        if let Some(known) = self.cache().known(host, Instant::now()) {
            return known;
        }
        self.0.counters.name_lookups.fetch_add(1, Relaxed);
        let found = match timeout(limit, lookup_host((host, 0))).await {
            Ok(Ok(found)) => found.map(|address| normalize(address).ip()).collect(),
            Ok(Err(error)) => {
                debug!(%error, "a STUN server's name does not resolve");
                Vec::new()
            }
            Err(_) => {
                debug!("resolving a STUN server's name takes too long");
                Vec::new()
            }
        };
        let mut cache = self.cache();
        let addresses = cache.asked(host, found, network, random_u32(), Instant::now());
        self.0.counters.names_evicted.store(cache.evicted(), Relaxed);
        addresses
    }

    /// What is remembered of the present network.
    fn cache(&self) -> MutexGuard<'_, HostCache> {
        let network = *self.0.network.borrow();
        let mut cache = self.0.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.on_network(network);
        cache
    }
}

/// Whether a server, known by its own address, is reached at this one: a DNS64 gives that of the translator.
fn is_at(ip: IpAddr, server: SocketAddr) -> bool {
    nat64::plain(SocketAddr::new(ip, 0)).ip() == server.ip()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_name_is_looked_up_once_for_all_its_ports_and_again_after_a_change_of_the_network() {
        let (changes, network) = watch::channel(0);
        let counters = Arc::<SocketCounters>::default();
        let resolver = Resolver::new(network, counters.clone());
        let servers = ["localhost:3478", "localhost:3479", "192.0.2.1:3478", "[2001:db8::1]:1", "no port"];
        for _ in 0..3 {
            let found = resolver.resolve(servers.into_iter(), LIMIT).await;
            assert_eq!(found.len(), 5);
            assert!(found[0].iter().any(|address| address.ip().is_loopback() && address.port() == 3478));
            assert!(found[1].iter().all(|address| address.port() == 3479) && found[1].len() == found[0].len());
            let literal = [&found[2], &found[3]].map(|addresses| addresses[0].to_string());
            assert_eq!(literal, ["192.0.2.1:3478", "[2001:db8::1]:1"]);
            assert!(found[4].is_empty());
        }
        assert_eq!(counters.name_lookups.load(Relaxed), 1, "what is an address is no name");
        resolver.answered(SocketAddr::from(([127, 0, 0, 1], 3478)));
        changes.send_modify(|count| *count += 1);
        resolver.resolve(servers.into_iter(), LIMIT).await;
        assert_eq!(counters.name_lookups.load(Relaxed), 2);
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_not_asked_for_each_time() {
        let counters = Arc::<SocketCounters>::default();
        let resolver = Resolver::new(watch::channel(0).1, counters.clone());
        for _ in 0..3 {
            assert!(resolver.resolve(["no.such.name.invalid:1"].into_iter(), LIMIT).await[0].is_empty());
        }
        assert_eq!(counters.name_lookups.load(Relaxed), 1);
        assert!(!resolver.silent(SocketAddr::from(([192, 0, 2, 1], 1))));
    }
}
