//! Notices that this machine's network changed, or that it slept.
//!
//! Twice a second the addresses of the interfaces and the source addresses that the kernel would use towards the internet
//! are compared with those before; without a way out every 100 ms at first, so that a returning uplink is used at once.
//! A look costs some tens of microseconds and no packet; notifications of the kernel would need netlink and a crate for
//! it, and a debounce of about the same time. A jump of the clock that counts sleep against the one that does not means
//! that the machine slept, a look that comes far too late that this process was not run: peers and NATs have forgotten
//! it meanwhile.
//!
//! A tunnel socket that is bound to one address follows no change. When that address goes, everything goes over relays and
//! status says why; when it is back the socket is opened anew, again and again until the kernel lets it. An address that went
//! and came back between two looks shows in the socket: the kernel refused what was sent meanwhile.

mod clocks;

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use clocks::Clocks;
use gateway_net::entropy::random_u32;
use gateway_proto::{backoff::Backoff, netcheck::SocketProblem};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{ipv6_state, socket::TunnelSocket};

/// Between two looks; also the longest wait for a way out.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The same at first when there is no way out; doubles.
const FIRST_OFFLINE_INTERVAL: Duration = Duration::from_millis(100);

/// After the first failure to open the tunnel socket at its address again; an IPv6 address takes about a second to be usable.
const FIRST_REOPENING: Duration = Duration::from_millis(100);
const REOPENING_LIMIT: Duration = Duration::from_secs(10);
/// Between two reopenings for what the socket itself shows: a device may be without batches for good.
const FIRST_REPAIR: Duration = Duration::from_secs(1);
const REPAIR_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Addresses of documentation (RFC 5737, RFC 3849): the kernel is asked for the way there, nothing is ever sent.
const FAR_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
const FAR_V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9);

/// Looks at the network until `stop`, counts its changes in `changes`, and keeps the tunnel socket open.
pub async fn watch_network(changes: watch::Sender<u64>, socket: Arc<TunnelSocket>, stop: CancellationToken) {
    stop.run_until_cancelled(look(changes, socket)).await;
}

async fn look(changes: watch::Sender<u64>, socket: Arc<TunnelSocket>) {
    let mut network = Network::now();
    let mut opener = Opener::new(socket, &network);
    let mut looked = Clocks::now();
    let mut offline = FIRST_OFFLINE_INTERVAL;
    loop {
        let pause = if network.has_way_out() {
            offline = FIRST_OFFLINE_INTERVAL;
            LOOK_INTERVAL
        } else {
            let pause = offline;
            offline = (offline * 2).min(LOOK_INTERVAL);
            pause
        };
        let pause = opener.due().map_or(pause, |due| pause.min(due.saturating_duration_since(looked.at)));
        sleep(pause).await;
        let (next, clocks) = (Network::now(), Clocks::now());
        let missed = clocks.missed_since(&looked, pause);
        let changed = next != network || missed.is_some();
        // The socket first: whoever hears of the change sends at once.
        let opened = opener.look(&next, changed, clocks.at);
        if changed {
            let slept = missed.unwrap_or_default();
            info!(slept_s = slept.as_secs(), way_out = next.has_way_out(), "the network changed or the machine slept");
        }
        if changed || opened {
            changes.send_modify(|count| *count = count.wrapping_add(1));
        }
        (network, looked) = (next, clocks);
    }
}

/// Opens the tunnel socket anew when it is time.
struct Opener {
    socket: Arc<TunnelSocket>,
    /// Whether its address was there when it was looked at last.
    present: bool,
    /// When to try again.
    retry_at: Option<Instant>,
    retries: Backoff,
    /// Not before, for what the socket itself shows.
    repair_at: Option<Instant>,
    repairs: Backoff,
}

impl Opener {
    fn new(socket: Arc<TunnelSocket>, network: &Network) -> Self {
        Self {
            present: socket.pinned().is_none_or(|address| network.has(address)),
            socket,
            retry_at: None,
            retries: Backoff::new(FIRST_REOPENING, REOPENING_LIMIT),
            repair_at: None,
            repairs: Backoff::new(FIRST_REPAIR, REPAIR_LIMIT),
        }
    }

    /// When it wants to look again at the latest.
    fn due(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Looks after the socket; true: it was opened anew.
    fn look(&mut self, network: &Network, changed: bool, now: Instant) -> bool {
        let Some(address) = self.socket.pinned() else {
            // It follows every address, but what the kernel refused on the former network it may take on this one.
            return changed && !self.socket.is_sound() && self.reopen(now);
        };
        let was_present = std::mem::replace(&mut self.present, network.has(address));
        if !self.present {
            self.retry_at = None;
            if was_present {
                let problem = SocketProblem::AddressGone(address);
                warn!(%problem, "the tunnel socket carries nothing");
                self.socket.set_problem(Some(problem));
            }
            return false;
        }
        if !was_present {
            self.retries.reset();
            return self.reopen(now);
        }
        match self.retry_at {
            Some(at) => now >= at && self.reopen(now),
            None => self.repair(now),
        }
    }

    /// The kernel refused packets: the address went and came back unseen.
    fn repair(&mut self, now: Instant) -> bool {
        if self.socket.is_sound() || self.repair_at.is_some_and(|at| now < at) {
            return false;
        }
        self.repair_at = Some(now + self.repairs.next_delay(random_u32()));
        self.reopen(now)
    }

    fn reopen(&mut self, now: Instant) -> bool {
        match self.socket.reopen() {
            Ok(()) => {
                info!("the tunnel socket was opened anew");
                self.retry_at = None;
                true
            }
            Err(error) => {
                let pause = self.retries.next_delay(random_u32());
                warn!(%error, retry_ms = pause.as_millis(), "the tunnel socket cannot be opened at its address ([tunnel] listen)");
                self.retry_at = Some(now + pause);
                false
            }
        }
    }
}

/// Whether the kernel would now send from another address than `local` to `remote`; a connection from there is dead or
/// soon will be. Without any way out it is not known, and may live on.
pub(crate) fn has_moved(local: SocketAddr, remote: SocketAddr) -> bool {
    match way_to(remote) {
        Some(source) => source.to_canonical() != local.ip().to_canonical(),
        None => Network::now().has_way_out(),
    }
}

/// What matters of the machine's network.
#[derive(Debug, PartialEq, Eq)]
struct Network {
    /// Of the interfaces that are up.
    addresses: BTreeSet<IpAddr>,
    /// Those of them that are not to be offered to partners.
    unfit: BTreeSet<Ipv6Addr>,
    /// Our source address towards the internet, per protocol.
    ways_out: [Option<IpAddr>; 2],
}

impl Network {
    fn now() -> Self {
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        let lasting = interfaces.iter().filter(|interface| !interface.is_link_local() && interface.is_oper_up());
        let addresses: BTreeSet<IpAddr> = lasting.map(|interface| interface.ip()).collect();
        let mut unfit = ipv6_state::unfit();
        // Those of the link are nobody's candidates: that the kernel has made sure of one is no change.
        unfit.retain(|address| addresses.contains(&IpAddr::V6(*address)));
        Self { addresses, unfit, ways_out: ways_out() }
    }

    fn has(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    fn has_way_out(&self) -> bool {
        self.ways_out.iter().any(Option::is_some)
    }
}

/// Our source address towards the internet, per protocol.
pub(crate) fn ways_out() -> [Option<IpAddr>; 2] {
    [FAR_V4, FAR_V6].map(way_to)
}

/// The source address the kernel would use; `None`: there is no route, or it cannot be asked. No packet is sent.
pub(crate) fn way_to(far: SocketAddr) -> Option<IpAddr> {
    ask_way(far).ok().flatten()
}

/// The same for whoever concludes something from `None`: then the kernel says that there is no route.
///
/// # Errors
/// When the kernel cannot be asked, as without a free file descriptor.
pub(crate) fn ask_way(far: SocketAddr) -> io::Result<Option<IpAddr>> {
    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable};
    let any: IpAddr = match far {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    match socket.connect(far) {
        Ok(()) => Ok(Some(socket.local_addr()?.ip())),
        Err(error) if matches!(error.kind(), NetworkUnreachable | HostUnreachable | AddrNotAvailable) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path_actor::SessionIndex;

    #[test]
    fn a_look_is_stable_while_nothing_changes_and_every_part_of_it_counts() {
        let network = Network::now();
        assert_eq!(network, Network::now());
        let gained = network.addresses.iter().copied().chain(["203.0.113.77".parse().unwrap()]).collect();
        assert_ne!(network, Network { addresses: gained, ..Network::now() });
        assert_ne!(network, Network { ways_out: [Some("203.0.113.77".parse().unwrap()), None], ..Network::now() });
        let faded = network.unfit.iter().copied().chain(["2001:db8::77".parse().unwrap()]).collect();
        assert_ne!(
            network,
            Network { unfit: faded, ..Network::now() },
            "an address that is deprecated now is offered no more"
        );
    }

    #[test]
    fn a_connection_from_an_address_that_the_kernel_no_longer_chooses_has_moved() {
        let (local, remote) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        assert!(!has_moved(local, remote));
        assert!(has_moved("203.0.113.77:1".parse().unwrap(), remote));
    }

    fn bound(address: &str) -> Arc<TunnelSocket> {
        let address: SocketAddr = address.parse().unwrap();
        TunnelSocket::bind([address].into_iter(), Arc::default(), SessionIndex::default()).unwrap().0
    }

    fn network(addresses: &[&str]) -> Network {
        Network {
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            unfit: BTreeSet::new(),
            ways_out: [None, None],
        }
    }

    #[tokio::test]
    async fn a_pinned_socket_is_opened_anew_when_its_address_is_back_and_says_meanwhile_why_not() {
        let (there, gone) = (network(&["127.0.0.1"]), network(&["10.0.0.1"]));
        let socket = bound("127.0.0.1:0");
        let port = socket.local_port();
        let (mut opener, now) = (Opener::new(socket.clone(), &there), Instant::now());
        assert!(!opener.look(&there, false, now) && socket.status().problem.is_none());
        assert!(!opener.look(&gone, true, now));
        let problem = socket.status().problem.unwrap();
        assert!(problem.contains("127.0.0.1 ") && problem.contains("gone"), "{problem}");
        assert!(!opener.look(&gone, false, now) && socket.status().reopened == 0);
        assert!(opener.look(&there, true, now));
        let status = socket.status();
        assert_eq!((status.address.port(), status.reopened, status.problem), (port, 1, None));
        assert!(!opener.look(&there, false, now), "once is enough");
    }

    #[tokio::test]
    async fn a_socket_for_every_address_is_left_alone() {
        let socket = bound("0.0.0.0:0");
        let (mut opener, now) = (Opener::new(socket.clone(), &network(&["127.0.0.1"])), Instant::now());
        assert!(!opener.look(&network(&[]), true, now) && !opener.look(&network(&["127.0.0.1"]), true, now));
        assert_eq!((socket.status().reopened, socket.status().problem), (0, None));
    }

    #[tokio::test]
    async fn a_stopped_watch_ends() {
        let stop = CancellationToken::new();
        stop.cancel();
        watch_network(watch::Sender::new(0), bound("127.0.0.1:0"), stop).await;
    }
}
