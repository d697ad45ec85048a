//! A tunnel whose packets have grown comes to a path with a smaller MTU, and has to find that out. Single datagrams are lost: of a
//! train that an interface refuses, [`gateway_net::udp::UdpIo`] sends the shorter end alone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use gatewayd::tunnel::transport;

use crate::pair::{MS, Pair, Path, SECOND, Wire};

/// Between two round trips that the path agent asks for (`gateway-proto`, `path::agent::sizing`).
const ASK_INTERVAL: Duration = Duration::from_millis(50);
/// UDP payload that a WireGuard interface takes over IPv4.
const NARROW: usize = 1_392;

/// The longest wait of a message of 3 kB, one every `pause`, after the path became narrow, and what the packets are then.
fn after_narrowing(latency: Duration, pause: Duration, is_asked: bool) -> (Duration, u16) {
    let path = Path { latency, bytes_per_second: 10_000_000, queue: 400_000, loss: 0, dead: false };
    let epoch = Arc::new(AtomicU64::new(0));
    let mut wire = Wire::new(path);
    let mut pair = Pair::new(&mut wire, Instant::now(), || transport(64, &epoch));
    pair = pair.without_bulk().with_messages_of(3_000, pause);
    pair.run(&mut wire, 10 * SECOND);
    assert!(usize::from(pair.widest()) > NARROW, "{}: it has grown", pair.widest());
    pair.slowest();
    let mut narrow = Wire::new(path).narrowed(NARROW);
    epoch.fetch_add(1, Relaxed);
    if is_asked {
        pair.ask(ASK_INTERVAL);
    }
    pair.run(&mut narrow, 5 * SECOND);
    (pair.slowest(), pair.widest())
}

#[test]
fn a_tunnel_that_has_to_move_to_a_narrow_path_fits_it_within_a_second_when_it_is_asked() {
    for (latency, pause) in
        [MS, 15 * MS, 50 * MS].into_iter().flat_map(|latency| [(latency, 47 * MS), (latency, SECOND)])
    {
        let (left_alone, _) = after_narrowing(latency, pause, false);
        let (asked, widest) = after_narrowing(latency, pause, true);
        println!("latency {latency:?}, a message every {pause:?}: one waited {asked:?} (left alone: {left_alone:?})");
        assert!(asked <= SECOND, "latency {latency:?}, every {pause:?}: {asked:?}");
        assert!(usize::from(widest) <= NARROW, "latency {latency:?}, every {pause:?}: {widest}");
    }
}
