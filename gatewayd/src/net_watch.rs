//! Notices that this machine's network changed, or that it slept.
//!
//! Twice a second the addresses of the interfaces and the source addresses that the kernel would use towards the internet
//! are compared with those before; without a way out every 100 ms at first, so that a returning uplink is used at once.
//! A look costs some tens of microseconds and no packet; notifications of the kernel would need netlink and a crate for
//! it, and a debounce of about the same time. A jump of the clock that counts sleep against the one that does not means
//! that the machine slept, a look that comes far too late that this process was not run: peers and NATs have forgotten
//! it meanwhile.
//!
//! A tunnel socket that is bound to one address follows no change: when that address goes, it is said in the log and by
//! netcheck what to do.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Between two looks; also the longest wait for a way out.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The same at first when there is no way out; doubles.
const FIRST_OFFLINE_INTERVAL: Duration = Duration::from_millis(100);
/// The clocks drift apart by less than this between two looks, unless the machine slept; and a look is late by less, unless
/// the process was stopped.
const SLEPT: Duration = Duration::from_secs(2);

/// Addresses of documentation (RFC 5737, RFC 3849): the kernel is asked for the way there, nothing is ever sent.
const FAR_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
const FAR_V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9);

/// Looks at the network until `stop`, and counts its changes in `changes`. `listen` is the address of the tunnel socket.
pub async fn watch_network(changes: watch::Sender<u64>, listen: IpAddr, stop: CancellationToken) {
    stop.run_until_cancelled(look(changes, listen)).await;
}

async fn look(changes: watch::Sender<u64>, listen: IpAddr) {
    let mut network = Network::now();
    let (mut asleep, mut looked) = (time_asleep(), Instant::now());
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
        sleep(pause).await;
        let (next, next_asleep, now) = (Network::now(), time_asleep(), Instant::now());
        let slept = next_asleep.saturating_sub(asleep) + now.saturating_duration_since(looked + pause);
        if next != network || slept > SLEPT {
            info!(slept_s = slept.as_secs(), way_out = next.has_way_out(), "the network changed or the machine slept");
            changes.send_modify(|count| *count = count.wrapping_add(1));
        }
        match (network.has(listen), next.has(listen)) {
            (true, false) => warn!(
                "the address of the tunnel socket ([tunnel] listen) is gone or down: everything goes over relays until it is back; set \
                 listen to \"[::]:PORT\" and restart gatewayd, so that it follows every address"
            ),
            (false, true) => info!("the address of the tunnel socket ([tunnel] listen) is back"),
            (true, true) | (false, false) => {}
        }
        (network, asleep, looked) = (next, next_asleep, now);
    }
}

/// Whether a socket bound to this address can still send: it is an address of this machine, or any.
pub(crate) fn can_send_from(address: IpAddr) -> bool {
    address.is_unspecified() || Network::now().has(address)
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
    /// Our source address towards the internet, per protocol.
    ways_out: [Option<IpAddr>; 2],
}

impl Network {
    fn now() -> Self {
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        let lasting = interfaces.iter().filter(|interface| !interface.is_link_local() && interface.is_oper_up());
        Self { addresses: lasting.map(|interface| interface.ip()).collect(), ways_out: [FAR_V4, FAR_V6].map(way_to) }
    }

    fn has(&self, address: IpAddr) -> bool {
        address.is_unspecified() || self.addresses.contains(&address)
    }

    fn has_way_out(&self) -> bool {
        self.ways_out.iter().any(Option::is_some)
    }
}

/// The source address the kernel would use; `None`: there is no route. No packet is sent.
pub(crate) fn way_to(far: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match far {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(far).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// How long the machine has slept since it was started.
fn time_asleep() -> Duration {
    let read = |clock| clock_gettime(clock).map(Duration::from).unwrap_or_default();
    read(ClockId::CLOCK_BOOTTIME).saturating_sub(read(ClockId::CLOCK_MONOTONIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_stable_while_nothing_changes_and_every_part_of_it_counts() {
        let network = Network::now();
        assert_eq!(network, Network::now());
        let gained = network.addresses.iter().copied().chain(["203.0.113.77".parse().unwrap()]).collect();
        assert_ne!(network, Network { addresses: gained, ways_out: network.ways_out });
        let addresses = network.addresses.clone();
        assert_ne!(network, Network { addresses, ways_out: [Some("203.0.113.77".parse().unwrap()), None] });
    }

    #[test]
    fn a_connection_from_an_address_that_the_kernel_no_longer_chooses_has_moved() {
        let (local, remote) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        assert!(!has_moved(local, remote));
        assert!(has_moved("203.0.113.77:1".parse().unwrap(), remote));
        assert!(can_send_from(local.ip()) && can_send_from(Ipv6Addr::UNSPECIFIED.into()));
        assert!(!can_send_from("203.0.113.77".parse().unwrap()));
    }

    #[test]
    fn the_time_asleep_does_not_grow_while_awake() {
        let before = time_asleep();
        assert!(time_asleep().saturating_sub(before) < SLEPT);
    }

    #[tokio::test]
    async fn a_stopped_watch_ends() {
        let stop = CancellationToken::new();
        stop.cancel();
        watch_network(watch::Sender::new(0), Ipv4Addr::UNSPECIFIED.into(), stop).await;
    }
}
