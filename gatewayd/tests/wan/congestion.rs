//! Congestion control on one path: beside messages, on a line that loses packets, and beside somebody else.

use std::time::{Duration, Instant};

use quinn::TransportConfig;

use crate::pair::{MS, Pair, Path, SECOND, Wire, ours, stock};

/// 100 Mbit/s with a queue of 115 ms, as an access router has.
pub(crate) const ACCESS: Path =
    Path { latency: Duration::from_millis(10), bytes_per_second: 12_500_000, queue: 1_440_000, loss: 0, dead: false };
/// A line over a continent.
pub(crate) const FAR: Path = Path { latency: Duration::from_millis(40), ..ACCESS };
/// A router that can hold next to nothing.
const SHALLOW: Path = Path { queue: 60_000, ..ACCESS };

fn per_second(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64()
}

/// Bytes per second of one transfer, after five seconds.
fn throughput(path: Path, transport: impl Fn() -> TransportConfig) -> f64 {
    let mut wire = Wire::new(path);
    let mut pair = Pair::new(&mut wire, Instant::now(), transport);
    pair.run(&mut wire, 5 * SECOND);
    per_second(pair.run(&mut wire, 10 * SECOND), 10 * SECOND)
}

/// What a message takes one way beside a transfer, and without it.
fn message_took(path: Path, bulk: bool, transport: impl Fn() -> TransportConfig) -> Duration {
    let mut wire = Wire::new(path);
    let mut pair = Pair::new(&mut wire, Instant::now(), transport).with_messages(50 * MS);
    if !bulk {
        pair = pair.without_bulk();
    }
    pair.run(&mut wire, 5 * SECOND);
    pair.message_took();
    pair.run(&mut wire, 10 * SECOND);
    pair.message_took()
}

#[test]
fn a_transfer_alone_fills_the_line() {
    for (name, path) in [("20 ms", ACCESS), ("80 ms", FAR), ("20 ms, hardly a queue", SHALLOW)] {
        let (ours, stock) = (throughput(path, ours), throughput(path, stock));
        let share = |rate: f64| 100.0 * rate / path.bytes_per_second as f64;
        println!("{name}: {:.0} % of the line (plain CUBIC: {:.0} %)", share(ours), share(stock));
        assert!(share(ours) >= 85.0, "{name}: {:.0} %", share(ours));
    }
}

#[test]
fn a_message_beside_a_transfer_takes_at_most_half_as_long_again() {
    for (name, path) in [("20 ms", ACCESS), ("80 ms", FAR)] {
        let alone = message_took(path, false, ours);
        let (beside, stock) = (message_took(path, true, ours), message_took(path, true, stock));
        println!("{name}: {alone:?} alone, {beside:?} beside a transfer (plain CUBIC: {stock:?})");
        // One way; there and back the other way has no queue.
        assert!(beside + alone <= (alone * 2).mul_f64(1.5), "{name}: {alone:?} alone, {beside:?}");
    }
}

#[test]
fn a_line_that_loses_one_packet_in_a_hundred_is_used_at_least_twice_as_well() {
    for (name, path) in [("20 ms", ACCESS), ("80 ms", FAR)] {
        let path = Path { loss: 10, ..path };
        let (ours, stock) = (throughput(path, ours), throughput(path, stock));
        println!("{name}, 1 % lost: {:.1} MB/s (plain CUBIC: {:.1} MB/s)", ours / 1e6, stock / 1e6);
        assert!(ours >= 2.0 * stock, "{name}: {ours} against {stock}");
    }
}

#[test]
fn a_line_that_loses_one_packet_in_ten_is_no_reason_to_flood_it() {
    let path = Path { loss: 100, ..ACCESS };
    let (ours, stock) = (throughput(path, ours), throughput(path, stock));
    println!("20 ms, 10 % lost: {:.2} MB/s (plain CUBIC: {:.2} MB/s)", ours / 1e6, stock / 1e6);
    assert!(ours <= 4.0 * stock, "{ours} against {stock}");
}

/// Bytes per second of a tunnel of ours and of one with plain CUBIC that share a line for half a minute, ours second.
fn shared(path: Path) -> (f64, f64) {
    let mut wire = Wire::new(path);
    let mut other = Pair::new(&mut wire, Instant::now(), stock);
    other.run(&mut wire, 5 * SECOND);
    let mut own = Pair::new(&mut wire, other.now, ours);
    other.run(&mut wire, own.now - other.now);
    let (mut sums, time) = ((0, 0), 30 * SECOND);
    for _ in 0..time.as_millis() {
        sums.0 += own.run(&mut wire, MS);
        sums.1 += other.run(&mut wire, MS);
    }
    (per_second(sums.0, time), per_second(sums.1, time))
}

#[test]
fn beside_somebody_elses_transfer_neither_starves() {
    // Where there is hardly a queue, forgiven losses take a larger share: docs/adr/0031 says why that is accepted.
    for (name, path, least) in [("20 ms", ACCESS, 0.2), ("80 ms", FAR, 0.2), ("20 ms, hardly a queue", SHALLOW, 0.05)] {
        let (ours, other) = shared(path);
        println!("{name}: ours {:.1} MB/s, somebody else's plain CUBIC {:.1} MB/s", ours / 1e6, other / 1e6);
        assert!(ours >= 0.2 * other && other >= least * ours, "{name}: {ours} against {other}");
    }
}
