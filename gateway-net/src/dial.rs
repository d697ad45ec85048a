//! TCP to a host: resolve, then happy eyeballs (RFC 8305).
//!
//! DNS may be out of order while everything else works, so a connection that matters remembers the addresses at which a host
//! was reached last, and uses them when its name does not resolve, or resolves to where the host is not. Invariants: the memory is bounded and holds only addresses
//! at which the host itself answered, as its TLS key (or, of a proxy, its answer) proved; a captive portal that takes every
//! connection is not remembered. Addresses from DNS always come before it.

mod names;

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::net::{TcpSocket, TcpStream};
use url::Host;

use crate::{mss, nat64};

/// Head start of one address over the next (RFC 8305 §5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Addresses tried of one name: more are a misconfiguration or an attack through DNS.
const MAX_ADDRESSES: usize = 16;
/// So long the addresses from DNS are tried alone, when others are at hand.
const NAMED_FIRST: Duration = Duration::from_secs(2);
/// For an answer of the name servers, when other addresses are at hand, and when there are none.
const RESOLVE_WITHIN: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(4)];

/// Which half of it failed.
#[derive(Debug)]
pub(crate) enum DialError {
    /// The name has no address, or no name server answers.
    Resolve(io::Error),
    /// No address accepts a connection; the error of the one that says most.
    Connect(io::Error),
}

/// What is done when the name does not resolve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unresolved {
    /// The addresses at which the host was reached last are tried.
    Remember,
    /// It is an error: somebody wants to know.
    Fail,
}

/// What to call the two steps of it, for the time limit of the caller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steps {
    pub(crate) resolve: &'static str,
    pub(crate) connect: &'static str,
}

impl Steps {
    /// Straight to the host.
    pub(crate) const DIRECT: Self = Self { resolve: "name resolution", connect: "TCP connect" };
    /// To the proxy on the way.
    pub(crate) const PROXY: Self =
        Self { resolve: "name resolution of the proxy", connect: "TCP connect to the proxy" };
}

/// A connection to the host, without Nagle's delay. The caller sets the time limit; `step` says what is under way.
pub(crate) async fn dial(
    host: &Host<&str>,
    port: u16,
    unresolved: Unresolved,
    steps: Steps,
    step: &mut &'static str,
) -> Result<TcpStream, DialError> {
    *step = steps.resolve;
    let mut addresses = addresses(host, port, unresolved).await?;
    *step = steps.connect;
    addresses.connect().await
}

/// Where the host may be, for whoever can tell it from another one. The caller sets the time limit.
pub(crate) async fn addresses(host: &Host<&str>, port: u16, unresolved: Unresolved) -> Result<Addresses, DialError> {
    let one = |ip: IpAddr| Addresses { named: vec![SocketAddr::new(ip, port)], ..Addresses::default() };
    match host {
        Host::Domain(name) => resolve(name, port, unresolved).await.map_err(DialError::Resolve),
        Host::Ipv4(ip) => Ok(one((*ip).into())),
        Host::Ipv6(ip) => Ok(one((*ip).into())),
    }
}

/// Addresses of one host that were not tried in vain yet.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    /// From DNS, or the host is an address.
    named: Vec<SocketAddr>,
    /// Others, at which it was reached last.
    remembered: Vec<SocketAddr>,
    /// Why there are none from DNS.
    problem: Option<io::Error>,
}

impl Addresses {
    /// A connection to one of them, without Nagle's delay, and not to that one again.
    pub(crate) async fn connect(&mut self) -> Result<TcpStream, DialError> {
        let tcp = self.reach().await.map_err(|error| match &self.problem {
            // Whoever reads it looks at the name servers first: the host may have moved.
            Some(problem) => DialError::Resolve(io::Error::new(
                problem.kind(),
                format!("{problem}; at the addresses it had last: {error}"),
            )),
            None => DialError::Connect(error),
        })?;
        // Through a NAT64 the host has another address than it was named with.
        let tried = nat64::plain(tcp.peer_addr().map_err(DialError::Connect)?);
        for addresses in [&mut self.named, &mut self.remembered] {
            addresses.retain(|address| nat64::plain(*address).ip() != tried.ip());
        }
        tcp.set_nodelay(true).map_err(DialError::Connect)?;
        Ok(tcp)
    }

    /// Whether one is left to try.
    pub(crate) fn are_left(&self) -> bool {
        !self.named.is_empty() || !self.remembered.is_empty()
    }

    async fn reach(&self) -> io::Result<TcpStream> {
        let named = race(interleave(self.named.clone()));
        if self.remembered.is_empty() {
            return named.await;
        }
        if let Ok(Ok(tcp)) = tokio::time::timeout(NAMED_FIRST, named).await {
            return Ok(tcp);
        }
        race(self.remembered.iter().chain(&self.named).copied().collect()).await
    }
}

/// The host at the other end of a connection that [`dial`] made has proved that it is `host`.
pub(crate) fn reached(host: &Host<&str>, tcp: &TcpStream) {
    if let (Host::Domain(name), Ok(reached)) = (host, tcp.peer_addr()) {
        // The next network may have another NAT64, or none.
        names::KNOWN.reached(name, nat64::plain(reached).ip());
    }
}

/// The addresses of a name.
async fn resolve(name: &str, port: u16, unresolved: Unresolved) -> io::Result<Addresses> {
    let mut known: Vec<_> = match unresolved {
        Unresolved::Remember => names::KNOWN.of(name).into_iter().map(|ip| SocketAddr::new(ip, port)).collect(),
        Unresolved::Fail => Vec::new(),
    };
    let limit = if known.is_empty() { RESOLVE_WITHIN[1] } else { RESOLVE_WITHIN[0] };
    let error = match tokio::time::timeout(limit, tokio::net::lookup_host((name, port))).await {
        Ok(Ok(found)) => {
            let named: Vec<_> = found.take(MAX_ADDRESSES).collect();
            if named.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
            }
            known.retain(|address| !named.contains(address));
            return Ok(Addresses { named, remembered: known, problem: None });
        }
        // That there is no such name and that no server could be asked look alike here.
        Ok(Err(error)) => error,
        Err(_) => io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the DNS servers of this machine did not answer within {} s", limit.as_secs()),
        ),
    };
    if known.is_empty() {
        return Err(error);
    }
    tracing::debug!(host = name, %error, "the name does not resolve: the addresses at which it was reached last are tried");
    Ok(Addresses { named: Vec::new(), remembered: known, problem: Some(error) })
}

/// The families in turn, the resolver's first choice first (RFC 8305 §4).
fn interleave(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, other): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| a.is_ipv6() == first_is_v6);
    let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
    let mut order = VecDeque::new();
    loop {
        let before = order.len();
        order.extend(preferred.next());
        order.extend(other.next());
        if order.len() == before {
            return order;
        }
    }
}

/// Starts one attempt after the other, [`ATTEMPT_DELAY`] apart or as soon as one fails; the first connection wins. Of the
/// errors that counts which says most.
async fn race(mut waiting: VecDeque<SocketAddr>) -> io::Result<TcpStream> {
    let mut attempts = FuturesUnordered::new();
    let mut telling = io::Error::new(io::ErrorKind::NotFound, "no address to connect to");
    loop {
        match waiting.pop_front() {
            Some(address) => attempts.push(connect(address)),
            None if attempts.is_empty() => return Err(telling),
            None => {}
        }
        tokio::select! {
            Some(result) = attempts.next() => match result {
                Ok(stream) => return Ok(stream),
                Err(error) if weight(&error) >= weight(&telling) => telling = error,
                Err(_) => {}
            },
            () = tokio::time::sleep(ATTEMPT_DELAY), if !waiting.is_empty() => {}
        }
    }
}

/// Where the kernel has no way to an IPv4 address, through the NAT64 of the network, if there is one.
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    nat64::connect(address, connect_at).await
}

async fn connect_at(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if !address.ip().is_loopback() {
        mss::limit(&socket);
    }
    socket.connect(address).await
}

/// How much an error tells of the host: nothing, when it is only that this machine has no such network.
fn weight(error: &io::Error) -> u8 {
    use io::ErrorKind::{AddrNotAvailable, ConnectionRefused, NetworkUnreachable, NotFound, TimedOut, Unsupported};
    if matches!(error.kind(), ConnectionRefused | TimedOut) {
        3
    } else if error.kind() == NotFound {
        0
    } else if matches!(error.kind(), NetworkUnreachable | AddrNotAvailable | Unsupported) {
        1
    } else {
        2
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_next_address_is_tried_when_one_refuses() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = race([closed, open.local_addr().unwrap()].into()).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open.local_addr().unwrap());
    }

    #[test]
    fn the_families_take_turns() {
        let all = ["[::1]:1", "[::2]:1", "10.0.0.1:1", "[::3]:1"].map(|text| text.parse().unwrap()).to_vec();
        let order: Vec<_> = interleave(all).iter().map(ToString::to_string).collect();
        assert_eq!(order, ["[::1]:1", "10.0.0.1:1", "[::2]:1", "[::3]:1"]);
    }

    #[test]
    fn that_a_host_refuses_says_more_than_that_there_is_no_network_of_the_other_family() {
        let of = |kind: io::ErrorKind| weight(&kind.into());
        assert!(of(io::ErrorKind::NotFound) < of(io::ErrorKind::NetworkUnreachable));
        assert!(of(io::ErrorKind::NetworkUnreachable) < of(io::ErrorKind::HostUnreachable));
        assert!(of(io::ErrorKind::HostUnreachable) < of(io::ErrorKind::ConnectionRefused));
        assert_eq!(of(io::ErrorKind::ConnectionRefused), of(io::ErrorKind::TimedOut), "the later one counts");
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_any_more_is_tried_where_it_was_reached_last() {
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (name, port) = ("relay.invalid", open.local_addr().unwrap().port());
        let dial = async |unresolved| {
            let mut step = "";
            dial(&Host::Domain(name), port, unresolved, Steps::DIRECT, &mut step).await
        };
        assert!(matches!(dial(Unresolved::Remember).await, Err(DialError::Resolve(_))));
        let before = TcpStream::connect(open.local_addr().unwrap()).await.unwrap();
        reached(&Host::Domain(name), &before);
        assert!(dial(Unresolved::Remember).await.is_ok());
        assert!(matches!(dial(Unresolved::Fail).await, Err(DialError::Resolve(_))), "a diagnosis says what is wrong");
        drop(open);
        let Err(DialError::Resolve(error)) = dial(Unresolved::Remember).await else { panic!("nobody listens") };
        assert!(error.to_string().contains("at the addresses it had last"), "{error}");
    }

    #[tokio::test]
    async fn where_the_host_was_reached_last_is_tried_after_what_dns_says_and_no_address_twice() {
        let (named, known) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.2:0").await);
        let known = known.unwrap();
        let (first, second) = (named.local_addr().unwrap(), known.local_addr().unwrap());
        let mut addresses = Addresses { named: vec![first], remembered: vec![second], problem: None };
        assert_eq!(addresses.connect().await.unwrap().peer_addr().unwrap(), first);
        assert!(addresses.are_left());
        assert_eq!(addresses.connect().await.unwrap().peer_addr().unwrap(), second, "the first was another host");
        assert!(!addresses.are_left() && addresses.connect().await.is_err());
        drop(named);
        let mut addresses = Addresses { named: vec![first], remembered: vec![second], problem: None };
        assert_eq!(addresses.connect().await.unwrap().peer_addr().unwrap(), second, "nobody listens at the first");
    }
}
