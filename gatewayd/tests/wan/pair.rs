//! Two QUIC endpoints with the product's transport, joined by a wire with a bottleneck, on virtual time.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
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

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
const BATCH: usize = 10;
/// Bytes of a message.
const MESSAGE: usize = 1_024;

/// One way between the two, each direction the same.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path {
    pub(crate) latency: Duration,
    pub(crate) bytes_per_second: u64,
    /// Bytes that wait at the bottleneck before packets are dropped.
    pub(crate) queue: u64,
    /// Packets lost of a thousand, whatever the queue.
    pub(crate) loss: u64,
    pub(crate) dead: bool,
}

/// The bottleneck of a path; several pairs may share it.
#[derive(Debug)]
pub(crate) struct Wire {
    path: Path,
    /// When each direction is free again.
    free_at: [Option<Instant>; 2],
    random: u64,
    /// The largest datagram that passes.
    widest: usize,
}

impl Wire {
    pub(crate) fn new(path: Path) -> Self {
        Self { path, free_at: [None; 2], random: 1, widest: usize::MAX }
    }

    /// The same with a small MTU.
    pub(crate) fn narrowed(self, widest: usize) -> Self {
        Self { widest, ..self }
    }

    /// When a packet that leaves now arrives, if it does.
    fn carry(&mut self, direction: usize, size: usize, now: Instant) -> Option<Instant> {
        let path = self.path;
        // Knuth's MMIX generator: the same losses in every run.
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let free_at = self.free_at[direction].map_or(now, |at| at.max(now));
        let waiting = (free_at - now).as_secs_f64() * path.bytes_per_second as f64;
        if path.dead || size > self.widest || waiting as u64 > path.queue || (self.random >> 33) % 1_000 < path.loss {
            return None;
        }
        let free_at = free_at + Duration::from_secs_f64(size as f64 / path.bytes_per_second as f64);
        self.free_at[direction] = Some(free_at);
        Some(free_at + path.latency)
    }
}

struct Side {
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    /// Where our datagrams come from, as the other side sees it.
    address: SocketAddr,
    /// Datagrams on their way to us, and where they come from.
    arriving: BTreeMap<(Instant, u64), (SocketAddr, BytesMut)>,
}

/// Messages that go beside the transfer, one every [`Messages::pause`].
struct Messages {
    stream: StreamId,
    size: usize,
    pause: Duration,
    next: Instant,
    waiting: VecDeque<Instant>,
    arrived: usize,
    took: Vec<Duration>,
}

/// What goes on the control stream when the path actor asks for round trips.
struct Asks {
    stream: StreamId,
    pause: Duration,
    next: Instant,
}

/// A tunnel whose first side sends without end.
pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) received: u64,
    sides: [Side; 2],
    /// The side that dialled.
    dialler: usize,
    stream: Option<StreamId>,
    messages: Option<Messages>,
    asks: Option<Asks>,
    bulk: bool,
    sequence: u64,
}

/// The product's transport on a path that stays.
pub(crate) fn ours() -> TransportConfig {
    transport(64, &Arc::default())
}

/// What the tunnel would do with plain CUBIC.
pub(crate) fn stock() -> TransportConfig {
    let mut config = ours();
    config.congestion_controller_factory(Arc::new(CubicConfig::default()));
    config
}

impl Pair {
    /// A tunnel that has just been made over `wire`, at `now`; the side that sends dialled it.
    pub(crate) fn new(wire: &mut Wire, now: Instant, transport: impl Fn() -> TransportConfig) -> Self {
        Self::dialled_by(0, wire, now, transport)
    }

    /// The same, dialled by the side that sends (0) or the other (1).
    pub(crate) fn dialled_by(
        dialler: usize,
        wire: &mut Wire,
        now: Instant,
        transport: impl Fn() -> TransportConfig,
    ) -> Self {
        let keys = [1, 2].map(|seed| GatewayKey::from_seed(&[seed; 32]));
        let credentials = keys.each_ref().map(|key| Credentials::new(key).unwrap());
        let allowed = AllowedPeers::default();
        allowed.replace(vec![keys[0].public()]);
        let mut server = ServerConfig::with_crypto(Arc::new(credentials[1].server(allowed).unwrap()));
        server.transport_config(Arc::new(transport()));
        let mut client = ClientConfig::new(Arc::new(credentials[0].client(keys[1].public()).unwrap()));
        client.transport_config(Arc::new(transport()));
        let server = Arc::new(server);
        let side = |index: usize| {
            let server = (index != dialler).then(|| server.clone());
            let endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), server, true, Some([7; 32]));
            Side { endpoint, connection: None, address: address(index), arriving: BTreeMap::new() }
        };
        let mut pair = Self {
            now,
            received: 0,
            sides: [side(0), side(1)],
            dialler,
            stream: None,
            messages: None,
            asks: None,
            bulk: true,
            sequence: 0,
        };
        let dialled = pair.sides[dialler].endpoint.connect(now, client, address(1 - dialler), "gateway").unwrap();
        pair.sides[dialler].connection = Some(dialled);
        while pair.sides[0].connection.as_ref().is_none_or(|(_, connection)| connection.is_handshaking()) {
            pair.step(wire);
        }
        pair.stream = pair.sides[0].connection.as_mut().unwrap().1.streams().open(Dir::Bi);
        pair
    }

    /// A message every `pause` on a stream of its own, before the bulk as in a gateway.
    pub(crate) fn with_messages(self, pause: Duration) -> Self {
        self.with_messages_of(MESSAGE, pause)
    }

    /// The same with messages of so many bytes.
    pub(crate) fn with_messages_of(mut self, size: usize, pause: Duration) -> Self {
        let connection = &mut self.sides[0].connection.as_mut().unwrap().1;
        let stream = connection.streams().open(Dir::Bi).unwrap();
        connection.send_stream(self.stream.unwrap()).set_priority(-1).unwrap();
        self.messages = Some(Messages {
            stream,
            size,
            pause,
            next: self.now,
            waiting: VecDeque::new(),
            arrived: 0,
            took: Vec::new(),
        });
        self
    }

    /// From now on a few bytes every `pause`, before everything else.
    pub(crate) fn ask(&mut self, pause: Duration) {
        let connection = &mut self.sides[0].connection.as_mut().unwrap().1;
        let stream = connection.streams().open(Dir::Bi).unwrap();
        connection.send_stream(stream).set_priority(1).unwrap();
        self.asks = Some(Asks { stream, pause, next: self.now + pause });
    }

    /// From now on datagrams of the dialling side come from another address: to the accepting side, QUIC has migrated. The other way
    /// round there is no such thing, a client of quinn drops what comes from an address it does not know.
    pub(crate) fn migrate(&mut self) {
        self.sides[self.dialler].address = address(self.dialler + 2);
    }

    /// Bytes that are on their way to the side that reads, headers included.
    pub(crate) fn on_the_way(&self) -> u64 {
        self.sides[1].arriving.values().map(|(_, data)| data.len() as u64).sum()
    }

    /// The largest datagram that the first side sends now.
    pub(crate) fn widest(&self) -> u16 {
        self.sides[0].connection.as_ref().unwrap().1.stats().path.current_mtu
    }

    /// The longest that a message took one way, of those that arrived since it was asked last, or has been waiting.
    pub(crate) fn slowest(&mut self) -> Duration {
        let messages = self.messages.as_mut().unwrap();
        let waiting = messages.waiting.front().map(|since| self.now - *since);
        std::mem::take(&mut messages.took).into_iter().chain(waiting).max().unwrap_or_default()
    }

    /// No transfer, messages only.
    pub(crate) fn without_bulk(mut self) -> Self {
        self.bulk = false;
        self
    }

    /// The median of what messages took one way, of those that arrived since it was asked last.
    pub(crate) fn message_took(&mut self) -> Duration {
        let mut took = std::mem::take(&mut self.messages.as_mut().unwrap().took);
        took.sort();
        took[took.len() / 2]
    }

    /// Runs over this wire for that long; returns the bytes that arrived.
    pub(crate) fn run(&mut self, wire: &mut Wire, time: Duration) -> u64 {
        let (end, before) = (self.now + time, self.received);
        while self.now < end {
            self.step(wire);
        }
        self.received - before
    }

    /// One millisecond.
    pub(crate) fn step(&mut self, wire: &mut Wire) {
        self.now += MS;
        for side in 0..2 {
            self.take_arrivals(side);
        }
        self.write();
        self.read();
        for side in 0..2 {
            self.drive(side, wire);
        }
    }

    fn take_arrivals(&mut self, index: usize) {
        let (now, side) = (self.now, &mut self.sides[index]);
        while side.arriving.first_key_value().is_some_and(|((at, _), _)| *at <= now) {
            let (_, (from, data)) = side.arriving.pop_first().unwrap();
            let mut answer = Vec::new();
            match side.endpoint.handle(now, from, None, None, data, &mut answer) {
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
        if let Some(messages) = &mut self.messages
            && self.now >= messages.next
        {
            messages.next += messages.pause;
            // One that does not fit into the stream's window any more is a message that waits too: it is not lost here.
            let written = connection.send_stream(messages.stream).write(&vec![0x55; messages.size]);
            assert_eq!(written, Ok(messages.size));
            messages.waiting.push_back(self.now);
        }
        if let Some(asks) = &mut self.asks
            && self.now >= asks.next
        {
            asks.next += asks.pause;
            assert_eq!(connection.send_stream(asks.stream).write(&[0x55; 12]), Ok(12));
        }
        while self.bulk && connection.send_stream(stream).write(&[0x55; 64 << 10]).is_ok_and(|written| written > 0) {}
    }

    fn read(&mut self) {
        let Some((_, connection)) = &mut self.sides[1].connection else { return };
        while connection.poll().is_some() {}
        while connection.streams().accept(Dir::Bi).is_some() {}
        if let Some(stream) = self.stream {
            self.received += drain(connection, stream);
        }
        if let Some(messages) = &mut self.messages {
            messages.arrived += drain(connection, messages.stream) as usize;
            while messages.arrived >= messages.size {
                messages.arrived -= messages.size;
                messages.took.push(self.now - messages.waiting.pop_front().unwrap());
            }
        }
    }

    fn drive(&mut self, index: usize, wire: &mut Wire) {
        let now = self.now;
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
                if let Some(at) = wire.carry(index, packet.len(), now) {
                    self.sequence += 1;
                    receiver.arriving.insert((at, self.sequence), (sender.address, BytesMut::from(packet)));
                }
            }
        }
        while connection.poll().is_some() {}
    }
}

/// Reads what is there; returns how much.
fn drain(connection: &mut Connection, stream: StreamId) -> u64 {
    let mut receiving = connection.recv_stream(stream);
    let Ok(mut chunks) = receiving.read(true) else { return 0 };
    let mut count = 0;
    while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
        count += chunk.bytes.len() as u64;
    }
    let _ = chunks.finalize();
    count
}

/// Of a side; two more for its next one. Another host and not only another port, which QUIC would take for a NAT's new mapping.
fn address(side: usize) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1 + side as u8], 7))
}
