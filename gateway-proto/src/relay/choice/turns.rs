//! Relays that die and come back in turn: two gateways that choose for themselves where to attach have one in common again, soon.

#![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
use std::collections::BTreeSet;

use super::*;
use crate::{
    backoff::Backoff,
    pulse::{Pulse, Question},
    relay::HomeChooser,
};

const MS: Duration = Duration::from_millis(1);
/// What a packet takes from end to end, and how finely time passes.
const STEP: Duration = Duration::from_millis(20);
/// Both ends send data so often.
const DATA: Duration = Duration::from_millis(100);
const TIME: Duration = Duration::from_secs(90);
/// Nothing dies before.
const BEGINS: Duration = Duration::from_secs(2);
/// What an attachment takes.
const ATTACHES: Duration = Duration::from_millis(160);
/// A gateway whose relay was lost soon after it was admitted waits no longer; and one that held so long is tried at once.
const AFTER_ADMISSION: Duration = Duration::from_secs(2);
const PROVEN_ALIVE: Duration = Duration::from_secs(5);
/// Where the partner's home is, is known so late.
const POLICY: Duration = Duration::from_secs(10);
const RELAYS: [RelayId; 4] = [
    RelayId::from_bytes([1; 16]),
    RelayId::from_bytes([2; 16]),
    RelayId::from_bytes([3; 16]),
    RelayId::from_bytes([4; 16]),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Packet {
    Ask(u64),
    Answer(u64),
    Data,
    /// Of the relay: it does not see the other end.
    Absent,
}

/// One gateway's link.
struct Link {
    relay: RelayId,
    attached_at: Option<Instant>,
    /// Then it is attached, if the relay lives.
    tries_at: Instant,
    backoff: Backoff,
}

impl Link {
    fn begun(relay: RelayId, now: Instant) -> Self {
        let backoff = Backoff::new(100 * MS, Duration::from_secs(16));
        Self { relay, attached_at: None, tries_at: now + ATTACHES, backoff }
    }

    /// Whether it was attached or lost.
    fn step(&mut self, is_dead: bool, random: u32, now: Instant) -> bool {
        match self.attached_at {
            Some(at) if is_dead => {
                if now - at > PROVEN_ALIVE {
                    self.backoff.reset();
                }
                self.attached_at = None;
                self.tries_at = now + self.backoff.next_delay(random).min(AFTER_ADMISSION) + ATTACHES;
                true
            }
            None if now >= self.tries_at && is_dead => {
                self.tries_at = now + self.backoff.next_delay(random) + ATTACHES;
                false
            }
            None if now >= self.tries_at => {
                self.attached_at = Some(now);
                true
            }
            Some(_) | None => false,
        }
    }
}

struct End {
    choice: RelayChoice,
    chooser: HomeChooser,
    home: Option<RelayId>,
    home_of_peer: Option<RelayId>,
    /// The next word of the policy.
    learns_at: Instant,
    own: Vec<RelayId>,
    /// The most wanted first.
    links: Vec<Link>,
    looks_at: Option<Instant>,
    chosen: Choice,
    choose_at: Option<Instant>,
    pulse: Pulse,
    wants_to_ask: bool,
    answered_at: Option<Instant>,
    /// Copies of what came already are nothing.
    taken: BTreeSet<Packet>,
    heard_at: Instant,
    /// The longest time in which nothing of the other end came.
    longest: Duration,
}

impl End {
    fn new(follows: bool, map: &[RelayId], learns_at: Instant, now: Instant) -> Self {
        let (mut choice, mut chooser, mut pulse) =
            (RelayChoice::new(follows), HomeChooser::default(), Pulse::new(follows, now));
        choice.set_tunnel(true, now);
        chooser.set_map(map.iter().map(|relay| (*relay, None)));
        pulse.set_active(true);
        let mut end = Self {
            choice,
            chooser,
            home: None,
            home_of_peer: None,
            learns_at,
            own: Vec::new(),
            links: Vec::new(),
            looks_at: None,
            chosen: Choice::default(),
            choose_at: None,
            pulse,
            wants_to_ask: false,
            answered_at: None,
            taken: BTreeSet::new(),
            heard_at: now,
            longest: Duration::ZERO,
        };
        end.attach(now);
        end
    }

    fn is_attached(&self, relay: RelayId) -> bool {
        self.links.iter().any(|link| link.relay == relay && link.attached_at.is_some())
    }

    /// Makes the links equal to those that are wanted: its own and the home of the other end.
    fn attach(&mut self, now: Instant) {
        self.tell_links(now);
        self.own = self.chooser.wanted(2, 8, now);
        let mut wanted = self.own.clone();
        wanted.extend(self.home_of_peer.filter(|home| !self.own.contains(home)));
        self.links.retain(|link| wanted.contains(&link.relay));
        for relay in &wanted {
            if self.links.iter().all(|link| link.relay != *relay) {
                self.links.push(Link::begun(*relay, now));
            }
        }
        self.links.sort_by_key(|link| wanted.iter().position(|relay| *relay == link.relay));
        self.tell_links(now);
        self.choose_home(now);
        self.looks_at = self.chooser.poll_timeout(now);
        self.choose(now);
    }

    fn look_at_links(&mut self, now: Instant) {
        self.choose_home(now);
        self.tell_links(now);
        if self.chooser.wanted(2, 8, now) != self.own {
            return self.attach(now);
        }
        self.looks_at = self.chooser.poll_timeout(now);
        self.choose(now);
    }

    fn tell_links(&mut self, now: Instant) {
        self.chooser.links(self.links.iter().map(|link| (link.relay, link.attached_at.is_some())), now);
    }

    fn choose_home(&mut self, now: Instant) {
        let attached = self.links.iter().filter(|link| link.attached_at.is_some()).map(|link| link.relay);
        let attached: Vec<_> = attached.collect();
        self.home = self.chooser.decide(&attached, now);
    }

    fn choose(&mut self, now: Instant) {
        let seen = |link: &Link| Seen {
            relay: link.relay,
            standing: Standing::Sound,
            restarting: false,
            falls: 0,
            drops: None,
        };
        let links: Vec<_> = self.links.iter().filter(|link| link.attached_at.is_some()).map(seen).collect();
        self.chosen = self.choice.choose(&links, self.answered_at, now);
        self.choose_at = self.choice.poll_timeout(now);
        self.wants_to_ask |= self.chosen.begins_anew || self.chosen.asks_peer;
    }

    fn step(&mut self, dead: Option<RelayId>, home_of_peer: Option<RelayId>, random: u32, now: Instant) {
        let mut changed = false;
        for link in &mut self.links {
            changed |= link.step(dead == Some(link.relay), random, now);
        }
        if changed || self.looks_at.is_some_and(|at| at <= now) {
            self.look_at_links(now);
        }
        if now >= self.learns_at {
            self.learns_at += POLICY;
            self.home_of_peer = home_of_peer;
            self.choice.set_home(home_of_peer);
            self.attach(now);
        }
        if self.choose_at.is_some_and(|at| at <= now) {
            self.choose(now);
        }
    }

    /// What it asks now.
    fn asks(&mut self, now: Instant) -> Option<Question> {
        let asks = std::mem::take(&mut self.wants_to_ask);
        self.pulse.on_timer(now).or_else(|| asks.then(|| self.pulse.ask(now)))
    }
}

struct Pair {
    ends: [End; 2],
    dead: Option<RelayId>,
    wire: Vec<(usize, RelayId, Packet)>,
    random: u64,
}

impl Pair {
    /// One relay after the other dies, in this order, and lives again before the next one does. Gives the longest time in which either end
    /// heard nothing.
    fn run(order: &[RelayId], map: &[RelayId], (dead, alive): (Duration, Duration), seed: u64) -> Duration {
        let start = Instant::now();
        let learns_at = |n: u64| start + MS * u32::try_from(seed * n % 10_000).unwrap();
        let ends = [End::new(true, map, learns_at(3_571), start), End::new(false, map, learns_at(7_919), start)];
        let mut pair = Self { ends, dead: None, wire: Vec::new(), random: seed };
        let mut passed = Duration::ZERO;
        while passed < TIME {
            passed += STEP;
            pair.dead = passed.checked_sub(BEGINS).and_then(|since| {
                let (turn, since) = ((dead + alive).as_millis(), since.as_millis());
                let place = usize::try_from(since / turn).unwrap() % order.len();
                (since % turn < dead.as_millis()).then_some(order[place])
            });
            pair.step(passed.as_millis().is_multiple_of(DATA.as_millis()), start + passed);
        }
        pair.ends.iter().map(|end| end.longest.max(start + passed - end.heard_at)).max().unwrap_or_default()
    }

    fn step(&mut self, sends_data: bool, now: Instant) {
        let homes = [self.ends[1].home, self.ends[0].home];
        for (end, home_of_peer) in self.ends.iter_mut().zip(homes) {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            end.step(self.dead, home_of_peer, u32::try_from(self.random >> 32).unwrap_or(0), now);
        }
        for (to, relay, packet) in std::mem::take(&mut self.wire) {
            self.arrives(to, relay, packet, now);
        }
        for index in 0..2 {
            let end = &mut self.ends[index];
            if let Some(question) = end.asks(now) {
                if question.is_repeated {
                    end.choice.in_vain(end.answered_at, now);
                    end.choose(now);
                }
                self.send(index, Packet::Ask(question.sequence));
            }
            if sends_data {
                self.send(index, Packet::Data);
            }
        }
    }

    fn send(&mut self, from: usize, packet: Packet) {
        let used: Vec<RelayId> = self.ends[from].choice.used.relays().collect();
        for relay in used {
            if self.dead == Some(relay) || !self.ends[from].is_attached(relay) {
                continue;
            }
            let arrives = self.ends[1 - from].is_attached(relay);
            self.wire.push(if arrives { (1 - from, relay, packet) } else { (from, relay, Packet::Absent) });
        }
    }

    fn arrives(&mut self, to: usize, relay: RelayId, packet: Packet, now: Instant) {
        let end = &mut self.ends[to];
        if !end.is_attached(relay) {
            return;
        }
        if packet == Packet::Absent {
            end.choice.absent(relay, now);
            return end.choose(now);
        }
        if end.choice.heard(relay, now) {
            end.choose(now);
        }
        end.longest = end.longest.max(now - end.heard_at);
        end.heard_at = now;
        match packet {
            Packet::Ask(sequence) if end.taken.insert(packet) => {
                let question = end.pulse.on_question(now);
                self.send(to, Packet::Answer(sequence));
                if let Some(question) = question {
                    self.send(to, Packet::Ask(question.sequence));
                }
            }
            Packet::Answer(sequence) if end.taken.insert(packet) && end.pulse.on_answer(sequence, now) => {
                end.answered_at = Some(now);
                if end.chosen.awaits_proof {
                    end.choose(now);
                }
            }
            Packet::Ask(_) | Packet::Answer(_) | Packet::Data | Packet::Absent => {}
        }
    }
}

#[test]
fn while_one_relay_after_the_other_is_dead_for_a_while_nobody_waits_for_long() {
    for count in [3, 4] {
        let map = &RELAYS[..count];
        let back: Vec<_> = map.iter().rev().copied().collect();
        for order in [map, back.as_slice()] {
            for (dead, alive) in [(1_500_u32, 1_700_u32), (3_000, 1_000), (3_000, 3_000), (6_000, 2_000)] {
                for seed in 1..=4 {
                    let longest = Pair::run(order, map, (dead * MS, alive * MS), seed);
                    assert!(longest <= 1_500 * MS, "{count} {order:?} {dead} {alive} {seed}: {longest:?}");
                }
            }
        }
    }
}
