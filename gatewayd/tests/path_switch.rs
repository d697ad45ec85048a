//! Throughput after a change of path, in a simulated network on virtual time: a tunnel that loses its path, or moves to a
//! faster one, against a fresh tunnel on the same path. Prints the figures of docs/adr and docs/paths.md.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests, one of which prints its figures")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::BytesMut;
use gateway_proto::identity::GatewayKey;
use gatewayd::{
    credentials::{AllowedPeers, Credentials},
    tunnel::transport,
};
use quinn::{ServerConfig, TransportConfig, congestion::CubicConfig};
use quinn_proto::{ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, StreamId};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const BATCH: usize = 10;

/// One way between the two, each direction the same.
#[derive(Debug, Clone, Copy)]
struct Path {
    latency: Duration,
    bytes_per_second: u64,
    /// What waits at the bottleneck before packets are dropped.
    queue: u64,
    dead: bool,
}

const RELAY: Path =
    Path { latency: Duration::from_millis(40), bytes_per_second: 2_000_000, queue: 200_000, dead: false };
const DIRECT: Path =
    Path { latency: Duration::from_millis(15), bytes_per_second: 10_000_000, queue: 400_000, dead: false };
const DEAD: Path = Path { dead: true, ..DIRECT };

struct Side {
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    /// Datagrams on their way to us.
    arriving: BTreeMap<(Instant, u64), BytesMut>,
    /// When the bottleneck towards us is free again.
    free_at: Instant,
}

struct Pair {
    now: Instant,
    path: Path,
    sides: [Side; 2],
    stream: Option<StreamId>,
    received: u64,
    sequence: u64,
}

impl Pair {
    /// A tunnel that has just been made over `path`; the first side sends without end.
    fn new(path: Path, transport: impl Fn() -> TransportConfig) -> Self {
        let keys = [1, 2].map(|seed| GatewayKey::from_seed(&[seed; 32]));
        let now = Instant::now();
        let credentials = keys.each_ref().map(|key| Credentials::new(key).unwrap());
        let allowed = AllowedPeers::default();
        allowed.replace(vec![keys[0].public()]);
        let mut server = ServerConfig::with_crypto(Arc::new(credentials[1].server(allowed).unwrap()));
        server.transport_config(Arc::new(transport()));
        let mut client = ClientConfig::new(Arc::new(credentials[0].client(keys[1].public()).unwrap()));
        client.transport_config(Arc::new(transport()));
        let side = |server: Option<ServerConfig>| Side {
            endpoint: Endpoint::new(Arc::new(EndpointConfig::default()), server.map(Arc::new), true, Some([7; 32])),
            connection: None,
            arriving: BTreeMap::new(),
            free_at: now,
        };
        let mut pair =
            Self { now, path, sides: [side(None), side(Some(server))], stream: None, received: 0, sequence: 0 };
        pair.sides[0].connection = Some(pair.sides[0].endpoint.connect(now, client, address(1), "gateway").unwrap());
        while pair.sides[0].connection.as_ref().unwrap().1.is_handshaking() {
            pair.step();
        }
        pair.stream = pair.sides[0].connection.as_mut().unwrap().1.streams().open(Dir::Bi);
        pair
    }

    /// Packets take this path from now on, with a bottleneck of its own; those on the former one still arrive.
    fn switch_to(&mut self, path: Path) {
        self.path = path;
        self.sides.iter_mut().for_each(|side| side.free_at = self.now);
    }

    /// Runs for that long; returns the bytes that arrived.
    fn run(&mut self, time: Duration) -> u64 {
        let (end, before) = (self.now + time, self.received);
        while self.now < end {
            self.step();
        }
        self.received - before
    }

    /// One millisecond.
    fn step(&mut self) {
        self.now += MS;
        for side in 0..2 {
            self.take_arrivals(side);
        }
        self.write();
        self.read();
        for side in 0..2 {
            self.drive(side);
        }
    }

    fn take_arrivals(&mut self, index: usize) {
        let (now, side) = (self.now, &mut self.sides[index]);
        while side.arriving.first_key_value().is_some_and(|((at, _), _)| *at <= now) {
            let (_, data) = side.arriving.pop_first().unwrap();
            let mut answer = Vec::new();
            match side.endpoint.handle(now, address(1 - index), None, None, data, &mut answer) {
                Some(DatagramEvent::ConnectionEvent(_, event)) => {
                    side.connection.as_mut().unwrap().1.handle_event(event);
                }
                Some(DatagramEvent::NewConnection(incoming)) => {
                    side.connection = side.endpoint.accept(incoming, now, &mut answer, None).ok();
                }
                Some(DatagramEvent::Response(_)) | None => {}
            }
        }
    }

    fn write(&mut self) {
        let (Some(stream), Some((_, connection))) = (self.stream, &mut self.sides[0].connection) else { return };
        while connection.send_stream(stream).write(&[0x55; 64 << 10]).is_ok_and(|written| written > 0) {}
    }

    fn read(&mut self) {
        let Some((_, connection)) = &mut self.sides[1].connection else { return };
        while connection.poll().is_some() {}
        let Some(stream) = self.stream else { return };
        let _ = connection.streams().accept(Dir::Bi);
        let mut receiving = connection.recv_stream(stream);
        let Ok(mut chunks) = receiving.read(true) else { return };
        while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
            self.received += chunk.bytes.len() as u64;
        }
        let _ = chunks.finalize();
    }

    fn drive(&mut self, index: usize) {
        let (now, path) = (self.now, self.path);
        let (sender, receiver) = match &mut self.sides {
            [first, second] if index == 0 => (first, second),
            [first, second] => (second, first),
        };
        let Some((handle, connection)) = &mut sender.connection else { return };
        if connection.poll_timeout().is_some_and(|at| at <= now) {
            connection.handle_timeout(now);
        }
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = sender.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        loop {
            let mut buffer = Vec::new();
            let Some(transmit) = connection.poll_transmit(now, BATCH, &mut buffer) else { break };
            for packet in buffer[..transmit.size].chunks(transmit.segment_size.unwrap_or(transmit.size)) {
                let waiting =
                    receiver.free_at.saturating_duration_since(now).as_secs_f64() * path.bytes_per_second as f64;
                if path.dead || waiting as u64 > path.queue {
                    continue;
                }
                let serial = Duration::from_secs_f64(packet.len() as f64 / path.bytes_per_second as f64);
                receiver.free_at = receiver.free_at.max(now) + serial;
                self.sequence += 1;
                receiver.arriving.insert((receiver.free_at + path.latency, self.sequence), BytesMut::from(packet));
            }
        }
        while connection.poll().is_some() {}
    }
}

fn address(side: usize) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1 + side as u8], 7))
}

/// What the tunnel would do without knowing of paths.
fn stock() -> TransportConfig {
    let mut config = transport(64, &Arc::default());
    config.congestion_controller_factory(Arc::new(CubicConfig::default()));
    config
}

/// Bytes in the third second of a fresh tunnel.
fn fresh(path: Path) -> u64 {
    let mut pair = Pair::new(path, || transport(64, &Arc::default()));
    pair.run(2 * SECOND);
    pair.run(SECOND)
}

/// Bytes in the third second after the last of these changes, and the stall after it.
fn after(changes: &[(Path, Duration)], last: Path, epoch: Option<&Arc<AtomicU64>>) -> (u64, Duration) {
    let config = || epoch.map_or_else(stock, |epoch| transport(64, epoch));
    let mut pair = Pair::new(changes[0].0, config);
    for (path, time) in changes {
        pair.switch_to(*path);
        pair.run(*time);
    }
    pair.switch_to(last);
    if let Some(epoch) = epoch {
        epoch.fetch_add(1, Relaxed);
    }
    let switched = pair.now;
    let before = pair.received;
    while pair.received == before && pair.now < switched + 10 * SECOND {
        pair.step();
    }
    let stall = pair.now - switched;
    pair.run((2 * SECOND).saturating_sub(stall));
    (pair.run(SECOND), stall)
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
