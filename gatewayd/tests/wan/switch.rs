//! Throughput after a change of path: a tunnel that loses its path, or moves to a faster one, against a fresh tunnel on the
//! same path.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use gatewayd::tunnel::transport;

use crate::pair::{MS, Pair, Path, SECOND, Wire, ours, stock};

pub(crate) const RELAY: Path =
    Path { latency: Duration::from_millis(40), bytes_per_second: 2_000_000, queue: 200_000, loss: 0, dead: false };
pub(crate) const DIRECT: Path =
    Path { latency: Duration::from_millis(15), bytes_per_second: 10_000_000, queue: 400_000, loss: 0, dead: false };
const DEAD: Path = Path { dead: true, ..DIRECT };

/// Bytes in the third second of a fresh tunnel.
pub(crate) fn fresh(path: Path) -> u64 {
    let mut wire = Wire::new(path);
    let mut pair = Pair::new(&mut wire, Instant::now(), ours);
    pair.run(&mut wire, 2 * SECOND);
    pair.run(&mut wire, SECOND)
}

/// Bytes in the third second after the last of these changes, and the stall after it. Each path has a bottleneck of its
/// own; packets on the former one still arrive.
fn after(changes: &[(Path, Duration)], last: Path, epoch: Option<&Arc<AtomicU64>>) -> (u64, Duration) {
    let config = || epoch.map_or_else(stock, |epoch| transport(64, epoch));
    let mut pair = Pair::new(&mut Wire::new(changes[0].0), Instant::now(), config);
    for (path, time) in changes {
        pair.run(&mut Wire::new(*path), *time);
    }
    let mut wire = Wire::new(last);
    if let Some(epoch) = epoch {
        epoch.fetch_add(1, Relaxed);
    }
    let switched = pair.now;
    let before = pair.received;
    while pair.received == before && pair.now < switched + 10 * SECOND {
        pair.step(&mut wire);
    }
    let stall = pair.now - switched;
    pair.run(&mut wire, (2 * SECOND).saturating_sub(stall));
    (pair.run(&mut wire, SECOND), stall)
}

/// What happened before, and the path after it.
type Scene<'a> = (&'a str, &'a [(Path, Duration)], Path);

#[test]
fn after_every_change_of_path_the_tunnel_is_nearly_as_fast_as_a_fresh_one_within_three_seconds() {
    let scenes: [Scene<'_>; 4] = [
        ("relay to direct", &[(RELAY, Duration::from_secs(5))], DIRECT),
        ("direct to relay", &[(DIRECT, Duration::from_secs(5))], RELAY),
        (
            "direct, dead for 2.5 s, relay",
            &[(DIRECT, Duration::from_secs(5)), (DEAD, Duration::from_millis(2_500))],
            RELAY,
        ),
        ("relay, dead for 5 s, direct", &[(RELAY, Duration::from_secs(5)), (DEAD, Duration::from_secs(5))], DIRECT),
    ];
    for (name, changes, last) in scenes {
        let expected = fresh(last);
        let (without, stall_without) = after(changes, last, None);
        let (bytes, stall) = after(changes, last, Some(&Arc::default()));
        let share = |bytes: u64| bytes * 100 / expected;
        println!(
            "{name}: {} % of a fresh tunnel in the third second, first byte after {} ms (stock: {} %, {} ms)",
            share(bytes),
            stall.as_millis(),
            share(without),
            stall_without.as_millis(),
        );
        assert!(share(bytes) >= 80, "{name}: {} %", share(bytes));
        assert!(stall <= 500 * MS, "{name}: {stall:?}");
    }
}
