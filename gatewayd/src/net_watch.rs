//! Notices that this machine's network changed, or that it slept.
//!
//! Once a second the addresses of the interfaces and the source addresses that the kernel would use towards the internet
//! are compared with those before; without a way out every 100 ms at first, so that a returning uplink is used at once.
//! A look costs some tens of microseconds and no packet; notifications of the kernel would need netlink and a crate for
//! it, and a debounce of the same second. A jump of the clock that counts sleep against the one that does not means that
//! the machine slept: peers and NATs have forgotten it meanwhile.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Between two looks; also the longest wait for a way out.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The same at first when there is no way out; doubles.
const FIRST_OFFLINE_INTERVAL: Duration = Duration::from_millis(100);
/// The clocks drift apart by less than this between two looks, unless the machine slept.
const SLEPT: Duration = Duration::from_secs(2);

/// Addresses of documentation (RFC 5737, RFC 3849): the kernel is asked for the way there, nothing is ever sent.
const FAR_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
const FAR_V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9);

/// Looks at the network until `stop`, and counts its changes in `changes`.
pub async fn watch_network(changes: watch::Sender<u64>, stop: CancellationToken) {
    stop.run_until_cancelled(look(changes)).await;
}

async fn look(changes: watch::Sender<u64>) {
    let mut network = Network::now();
    let mut asleep = time_asleep();
    let mut offline = FIRST_OFFLINE_INTERVAL;
    loop {
        if network.has_way_out() {
            offline = FIRST_OFFLINE_INTERVAL;
            sleep(LOOK_INTERVAL).await;
        } else {
            sleep(offline).await;
            offline = (offline * 2).min(LOOK_INTERVAL);
        }
        let (next, next_asleep) = (Network::now(), time_asleep());
        let slept = next_asleep.saturating_sub(asleep);
        let changed = next != network;
        if changed || slept > SLEPT {
            info!(slept_s = slept.as_secs(), way_out = next.has_way_out(), "the network changed or the machine slept");
            changes.send_modify(|count| *count = count.wrapping_add(1));
        }
        (network, asleep) = (next, next_asleep);
    }
}

/// What matters of the machine's network.
#[derive(Debug, PartialEq, Eq)]
struct Network {
    addresses: BTreeSet<IpAddr>,
    /// Our source address towards the internet, per protocol.
    ways_out: [Option<IpAddr>; 2],
}

impl Network {
    fn now() -> Self {
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        let lasting = interfaces.iter().filter(|interface| !interface.is_link_local());
        Self { addresses: lasting.map(|interface| interface.ip()).collect(), ways_out: [FAR_V4, FAR_V6].map(way_to) }
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
    fn the_time_asleep_does_not_grow_while_awake() {
        let before = time_asleep();
        assert!(time_asleep().saturating_sub(before) < SLEPT);
    }

    #[tokio::test]
    async fn a_stopped_watch_ends() {
        let stop = CancellationToken::new();
        stop.cancel();
        watch_network(watch::Sender::new(0), stop).await;
    }
}
