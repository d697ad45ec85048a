//! What an idle pair costs over a relay, and that its tunnel lives when UDP to the relay dies meanwhile.

#![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Answer, MAX_PAYLOAD, Murmurs, OVERHEAD, UdpCarrier, UdpReach, Via};
use crate::pulse::{Pulse, Question};

/// From a gateway to the relay.
const WAY: Duration = Duration::from_millis(15);
/// QUIC sends again what was not acknowledged for so long, then after twice as long, and so on.
const RESEND: Duration = Duration::from_millis(150);
/// IPv4 and UDP.
const HEADERS: usize = 28;
/// Around a datagram on the WebSocket: its frame, TLS, TCP with time stamps and IPv4, and TCP's acknowledgement in a packet of its own.
const LINK_HEADERS: usize = 35 + 22 + 52 + 52;
/// The WebSocket's own header: what a gateway sends is masked.
const MASKED: usize = 6;
const UNMASKED: usize = 2;
/// QUIC acknowledges one packet alone after this.
const ACKNOWLEDGES_AFTER: Duration = Duration::from_millis(25);
/// The body of a ping or a pong.
const PING: usize = 17;
/// UDP is up, and the first questions are answered.
const WARM: Duration = Duration::from_secs(60);
const WATCHED: Duration = Duration::from_secs(600);

/// What goes through the tunnel, one packet each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Frame {
    /// Whether it wants an answer.
    Ask(u64, bool),
    /// Acknowledges the question, too.
    Answer(u64),
    HasQuestion(u64),
    HasAnswer(u64),
    /// A message.
    Data,
}

impl Frame {
    /// Sealed, as measured and rounded up.
    fn length(self) -> usize {
        match self {
            Self::Ask(_, true) => 46,
            Self::Ask(_, false) => 47,
            Self::Answer(_) => 54,
            Self::HasQuestion(_) | Self::HasAnswer(_) => 31,
            Self::Data => 800,
        }
    }
}

#[derive(Debug)]
enum Event {
    /// At the relay: from this side.
    AtRelay(usize, Frame, bool),
    PingAtRelay(usize, u64, u64, usize),
    /// At this side.
    Arrives(usize, Frame, bool),
    Pong(usize, Answer, usize),
    /// This side's QUIC acknowledges a question.
    Acknowledges(usize, u64),
    /// This side has no acknowledgement yet.
    Resend(usize, Frame, Duration),
}

/// A gateway and what the relay knows of it.
struct Side {
    carrier: UdpCarrier,
    murmurs: Murmurs,
    pulse: Pulse,
    reach: UdpReach,
    /// UDP passes on its line.
    passes: bool,
    seen: u64,
    /// How many packets with an acknowledgement came: every one repeats the last one.
    acknowledgements: u64,
    unacknowledged: BTreeSet<Frame>,
    /// When a packet came, or the first one since went that QUIC wants acknowledged: a tunnel ends 8 s after that.
    heard_at: Instant,
    has_asked: bool,
    longest_silence: Duration,
    disconnected: Duration,
    /// Packets of the tunnel on its line, of those how many over the WebSocket, and the bytes of all.
    packets: u32,
    over_link: u32,
    bytes: usize,
    pings: u32,
    ping_bytes: usize,
}

impl Side {
    fn hears(&mut self, now: Instant) {
        self.longest_silence = self.longest_silence.max(now.saturating_duration_since(self.heard_at));
        self.heard_at = now;
    }

    /// The other side has a question of ours.
    fn has_question(&mut self, sequence: u64) {
        self.unacknowledged.retain(|frame| !matches!(frame, Frame::Ask(known, _) if *known == sequence));
    }
}

struct World {
    now: Instant,
    sides: [Side; 2],
    events: BTreeMap<(Instant, u64), Event>,
    number: u64,
    /// Nothing arrives any more, over whatever.
    is_cut: bool,
}

impl World {
    fn new() -> Self {
        Self::of_sides_where_udp(true)
    }

    /// Where UDP passes on the lines of both sides, or never did.
    fn of_sides_where_udp(passes: bool) -> Self {
        let now = Instant::now();
        let side = |index: usize| {
            let mut carrier = UdpCarrier::default();
            carrier.start(now);
            Side {
                carrier,
                murmurs: Murmurs::default(),
                pulse: Pulse::new(index == 0, now + Duration::from_secs(5)),
                reach: UdpReach::new(&[index as u8; 16]),
                passes,
                seen: 0,
                acknowledgements: 0,
                unacknowledged: BTreeSet::new(),
                heard_at: now + Duration::from_secs(5),
                has_asked: false,
                longest_silence: Duration::ZERO,
                disconnected: Duration::ZERO,
                packets: 0,
                over_link: 0,
                bytes: 0,
                pings: 0,
                ping_bytes: 0,
            }
        };
        let mut world = Self { now, sides: [side(0), side(1)], events: BTreeMap::new(), number: 0, is_cut: false };
        world.run(WARM);
        for side in &mut world.sides {
            (side.packets, side.over_link, side.bytes, side.pings, side.ping_bytes) = (0, 0, 0, 0, 0);
            (side.longest_silence, side.disconnected) = (Duration::ZERO, Duration::ZERO);
        }
        world
    }

    fn later(&mut self, after: Duration, event: Event) {
        self.number += 1;
        self.events.insert((self.now + after, self.number), event);
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let timers = self.sides.iter().flat_map(|side| [Some(side.pulse.next_at()), side.carrier.poll_timeout()]);
            let events = self.events.keys().next().map(|(at, _)| *at);
            let next = timers.chain([events]).flatten().min().unwrap_or(end).max(self.now + Duration::from_micros(1));
            let passed = next.min(end) - self.now;
            for side in &mut self.sides {
                side.disconnected += if side.pulse.is_connected(self.now) { Duration::ZERO } else { passed };
            }
            self.now += passed;
            if next > end {
                return;
            }
            self.step();
        }
    }

    fn step(&mut self) {
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let event = entry.remove();
            self.happens(event);
        }
        for index in 0..2 {
            let now = self.now;
            let side = &mut self.sides[index];
            if side.pulse.next_at() <= now {
                side.pulse.on_acknowledgements(side.acknowledgements);
            }
            if let Some(question) = side.pulse.on_timer(now) {
                self.ask(index, question);
            }
            let side = &mut self.sides[index];
            side.carrier.handle_timeout(now, u32::MAX);
            side.reach.set_limit(side.carrier.limit_to_tell(now));
            while let Some(ping) = self.sides[index].carrier.poll_transmit() {
                let length = ping.payload.max(PING);
                self.ping_passes(index, length);
                if self.sides[index].passes {
                    self.later(WAY, Event::PingAtRelay(index, ping.id, ping.echo, length));
                }
            }
        }
    }

    fn ping_passes(&mut self, index: usize, length: usize) {
        self.sides[index].pings += 1;
        self.sides[index].ping_bytes += HEADERS + OVERHEAD + length;
    }

    /// A packet of the tunnel is on the line of this side.
    fn count(&mut self, index: usize, frame: Frame, over_udp: bool, websocket: usize) {
        let side = &mut self.sides[index];
        side.packets += 1;
        side.over_link += u32::from(!over_udp);
        side.bytes += frame.length() + if over_udp { HEADERS + OVERHEAD } else { websocket + LINK_HEADERS };
    }

    fn ask(&mut self, index: usize, question: Question) {
        self.say(index, Frame::Ask(question.sequence, question.wants_answer));
    }

    /// Something that QUIC sends again until it is acknowledged.
    fn say(&mut self, index: usize, frame: Frame) {
        let side = &mut self.sides[index];
        side.unacknowledged.insert(frame);
        if !std::mem::replace(&mut side.has_asked, true) {
            side.hears(self.now);
        }
        self.send(index, frame);
        self.later(RESEND, Event::Resend(index, frame, RESEND * 2));
    }

    fn send(&mut self, index: usize, frame: Frame) {
        let (now, length) = (self.now, frame.length());
        let side = &mut self.sides[index];
        if side.murmurs.sent(0, length, now) {
            side.carrier.active(length, now);
        }
        let over_udp = side.carrier.limit().is_some_and(|limit| length <= limit);
        let over_link = !over_udp || side.carrier.in_doubt(now);
        let passes = side.passes;
        for over_udp in [over_udp.then_some(true), over_link.then_some(false)].into_iter().flatten() {
            self.count(index, frame, over_udp, MASKED);
            if passes || !over_udp {
                self.later(WAY, Event::AtRelay(index, frame, over_udp));
            }
        }
    }

    fn happens(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::AtRelay(from, frame, over_udp) => {
                if over_udp {
                    self.sides[from].reach.heard(via(from), now);
                }
                let to = 1 - from;
                let way = self.sides[to].reach.way(frame.length(), now);
                if way.is_some() && self.sides[to].passes {
                    self.later(WAY, Event::Arrives(to, frame, true));
                }
                if way.is_none_or(|way| way.doubt) {
                    self.later(WAY, Event::Arrives(to, frame, false));
                }
            }
            Event::PingAtRelay(from, id, echo, length) => {
                let answer = self.sides[from].reach.pinged(via(from), id, echo, now);
                if self.sides[from].passes {
                    self.later(WAY, Event::Pong(from, answer, length));
                }
            }
            Event::Pong(index, answer, length) => {
                self.ping_passes(index, length);
                self.sides[index].carrier.answered(answer, length, now);
            }
            Event::Arrives(..) if self.is_cut => {}
            Event::Arrives(index, frame, over_udp) => {
                self.count(index, frame, over_udp, UNMASKED);
                let side = &mut self.sides[index];
                side.hears(now);
                side.has_asked = false;
                if side.murmurs.came(0, frame.length(), now) {
                    side.carrier.active(if over_udp { frame.length() } else { 0 }, now);
                }
                self.take(index, frame);
            }
            Event::Acknowledges(index, sequence) => self.send(index, Frame::HasQuestion(sequence)),
            Event::Resend(index, frame, pause) => {
                if self.sides[index].unacknowledged.contains(&frame) {
                    // QUIC sends two at a time.
                    self.send(index, frame);
                    self.send(index, frame);
                    self.later(pause, Event::Resend(index, frame, pause * 2));
                }
            }
        }
    }

    fn take(&mut self, index: usize, frame: Frame) {
        let now = self.now;
        let side = &mut self.sides[index];
        side.acknowledgements += 1;
        match frame {
            Frame::Ask(sequence, wants_answer) if sequence > side.seen => {
                side.seen = sequence;
                let question = side.pulse.on_question(now);
                if wants_answer {
                    self.say(index, Frame::Answer(sequence));
                } else {
                    self.later(ACKNOWLEDGES_AFTER, Event::Acknowledges(index, sequence));
                }
                if let Some(question) = question {
                    self.ask(index, question);
                }
            }
            Frame::Ask(sequence, _) => self.send(index, Frame::HasQuestion(sequence)),
            Frame::Answer(sequence) => {
                side.has_question(sequence);
                assert!(side.pulse.on_answer(sequence, now));
                self.send(index, Frame::HasAnswer(sequence));
            }
            Frame::HasQuestion(sequence) => side.has_question(sequence),
            Frame::HasAnswer(sequence) => drop(side.unacknowledged.remove(&Frame::Answer(sequence))),
            Frame::Data => {}
        }
    }
}

fn via(index: usize) -> Via {
    Via { local: 0, remote: SocketAddr::from(([192, 0, 2, index as u8 + 1], 7_000)) }
}

fn per_second(bytes: usize) -> f64 {
    bytes as f64 / WATCHED.as_secs_f64()
}

#[test]
fn an_idle_relayed_pair_costs_twenty_six_bytes_a_second_at_each_site_and_its_relay_nine_whatever_the_pairs() {
    let mut world = World::new();
    assert!(world.sides.iter().all(|side| side.carrier.limit() == Some(MAX_PAYLOAD)));
    world.run(WATCHED);
    for side in &world.sides {
        let (tunnel, relay) = (per_second(side.bytes), per_second(side.ping_bytes));
        assert!((24.0..=27.0).contains(&tunnel), "{tunnel:.1} bytes/s for {} packets", side.packets);
        // A question and its acknowledgement every seven seconds, and sometimes an answer.
        assert!((168..=178).contains(&side.packets), "{}", side.packets);
        assert_eq!(side.over_link, 0, "an idle gateway is reached over UDP");
        assert!(relay <= 9.1 && (78..=82).contains(&side.pings), "{relay:.1} bytes/s for {} pings", side.pings);
        assert!(side.longest_silence < Duration::from_secs(8) && side.disconnected.is_zero());
    }
}

#[test]
fn an_idle_pair_that_is_relayed_over_tls_alone_costs_less_than_sixty_bytes_a_second_at_each_site() {
    let mut world = World::of_sides_where_udp(false);
    assert!(world.sides.iter().all(|side| side.carrier.limit().is_none()));
    world.run(WATCHED);
    for side in &world.sides {
        let tunnel = per_second(side.bytes);
        assert!((55.0..=60.0).contains(&tunnel), "{tunnel:.1} bytes/s for {} packets", side.packets);
        assert_eq!(side.over_link, side.packets);
        assert!(side.longest_silence < Duration::from_secs(8) && side.disconnected.is_zero());
    }
}

#[test]
fn an_idle_tunnel_whose_relay_dies_is_called_disconnected_at_both_ends_within_ten_and_a_half_seconds() {
    for after in (0..15_000).step_by(230).map(Duration::from_millis) {
        let mut world = World::of_sides_where_udp(false);
        world.run(after);
        world.is_cut = true;
        world.run(Duration::from_millis(10_500));
        for side in &world.sides {
            assert!(!side.pulse.is_connected(world.now), "{after:?}");
        }
    }
}

#[test]
fn the_first_message_after_idling_is_watched_from_its_first_packet_on() {
    let mut world = World::new();
    world.run(WATCHED);
    world.sides[0].passes = false;
    let pings = world.sides[0].pings;
    world.send(0, Frame::Data);
    world.run(Duration::from_millis(5));
    assert!(world.sides[0].pings > pings, "at once");
    world.run(Duration::from_millis(100));
    assert!(world.sides[0].carrier.in_doubt(world.now), "what follows goes both ways");
    world.run(Duration::from_millis(800));
    assert_eq!(world.sides[0].carrier.limit(), None);
}

#[test]
fn an_idle_tunnel_stays_connected_when_udp_dies_at_one_end_whenever_that_is() {
    for end in [0, 1] {
        for after in (0..15_000).step_by(230).map(Duration::from_millis) {
            let mut world = World::new();
            world.run(after);
            world.sides[end].passes = false;
            world.run(Duration::from_secs(60));
            for side in &world.sides {
                let silence = side.longest_silence;
                assert!(silence < Duration::from_secs(8), "{silence:?} without a packet, {after:?} at {end}");
                assert!(side.disconnected.is_zero(), "{:?} without an answer, {after:?} at {end}", side.disconnected);
            }
            assert_eq!(world.sides[end].carrier.limit(), None, "it is noticed");
        }
    }
}
