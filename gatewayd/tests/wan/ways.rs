//! The ways to get back to full throughput after a change of path that docs/adr/0020 compares, by the same changes.
//!
//! Only the bytes that the new path brought count: what was on its way over the former one still arrives, and is taken off. Prints
//! the rows of the table there; by name only, because it shows what a choice rests on and guards little:
//! `cargo test --workspace --test wan ways -- --ignored --nocapture`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use gatewayd::tunnel::transport;

use crate::{
    congestion::{ACCESS, FAR},
    pair::{MS, Pair, Path, SECOND, Wire, stock},
    switch::{DIRECT, RELAY, fresh},
};

/// The tunnel has settled on its former path by then.
const BEFORE: Duration = Duration::from_secs(10);
/// Milliseconds after the change that are looked at.
const LOOKED_AT: usize = 10_000;
/// Milliseconds over which throughput is taken.
const SPAN: usize = 500;
/// [`ACCESS`] with a tenth of its width and the same wait in its queue.
const NARROW: Path = Path { bytes_per_second: 1_250_000, queue: 144_000, ..ACCESS };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Plain CUBIC, and nobody tells it.
    Nothing,
    /// The accepting side sends, and sees another made-up address. No epoch.
    MigrationAccepting,
    /// The same while the dialling side sends, for which QUIC has no migration.
    MigrationDialling,
    /// A second tunnel, dialled at the change. Transfers that began before stay on the first, and are not counted. No epoch.
    SecondTunnel,
    /// The product: the epoch moves on.
    Epoch,
}

const WAYS: [Way; 5] = [Way::Nothing, Way::MigrationAccepting, Way::MigrationDialling, Way::SecondTunnel, Way::Epoch];

/// What the new path brought, added up, at each millisecond since the change.
fn gained(way: Way, former: Path, path: Path) -> Vec<u64> {
    let epoch: Arc<AtomicU64> = Arc::default();
    let config = || if way == Way::Nothing { stock() } else { transport(64, &epoch) };
    let dialler = usize::from(way == Way::MigrationAccepting);
    let mut pair = Pair::dialled_by(dialler, &mut Wire::new(former), Instant::now(), config);
    pair.run(&mut Wire::new(former), BEFORE);
    let (mut wire, changed_at) = (Wire::new(path), pair.now);
    match way {
        Way::Nothing => {}
        Way::MigrationAccepting | Way::MigrationDialling => pair.migrate(),
        Way::SecondTunnel => pair = Pair::new(&mut wire, changed_at, config),
        Way::Epoch => {
            epoch.fetch_add(1, Relaxed);
        }
    }
    let (received, left) = (pair.received, pair.on_the_way());
    // The handshake of a second tunnel brings nothing.
    let mut gained = vec![0; (pair.now - changed_at).as_millis() as usize];
    while gained.len() < LOOKED_AT {
        pair.step(&mut wire);
        gained.push((pair.received - received).saturating_sub(left));
    }
    gained
}

/// When the first half second begins that brings four fifths of what a fresh tunnel does.
fn regained(gained: &[u64], fresh: u64) -> Option<Duration> {
    let enough = fresh * 4 / 5 * SPAN as u64 / 1_000;
    let at = gained.windows(SPAN + 1).position(|span| span[SPAN] - span[0] >= enough)?;
    Some(MS * at as u32)
}

fn cell(gained: &[u64], fresh: u64) -> String {
    let megabytes = gained[2_999] as f64 / 3e6;
    match regained(gained, fresh) {
        Some(time) => format!("{} ms, {megabytes:.2}", time.as_millis()),
        None => format!("never in 10 s, {megabytes:.2}"),
    }
}

#[test]
#[ignore = "prints the table of docs/adr/0020; takes long"]
fn the_ways_to_regain_throughput_after_a_change_of_path() {
    let changes = [
        ("relay → direct", RELAY, DIRECT),
        ("direct → relay", DIRECT, RELAY),
        ("100 Mbit/s → 10 Mbit/s", ACCESS, NARROW),
        ("10 Mbit/s → 100 Mbit/s", NARROW, ACCESS),
        ("20 ms → 80 ms", ACCESS, FAR),
    ];
    let rows = changes.map(|(name, former, path)| {
        let fresh = fresh(path);
        let gains = WAYS.map(|way| gained(way, former, path));
        let cells = gains.each_ref().map(|gained| cell(gained, fresh)).join(" | ");
        println!("| {name} | {:.2} | {cells} |", fresh as f64 / 1e6);
        (name, regained(&gains[4], fresh))
    });
    // After the last row: a way that falls behind is seen beside the others.
    for (name, ours) in rows {
        assert!(ours.is_some_and(|time| time <= 3 * SECOND), "{name}: {ours:?}");
    }
}
