//! Port guessing for hard NATs: the plan of one run, and its pace.
//!
//! A NAT that gives every destination another port hides the port that a peer would have to be sent to. When the other
//! NAT is easy, that port can be guessed. Towards a **random** NAT by numbers: the hard side opens 256 sockets that all
//! send to the easy side, the easy side probes random ports; a run of 2,048 misses all 256 once in several thousand runs.
//! Towards a **regular** NAT by its counter: the next ports are probed. Both look like a scan, so both sides must have
//! opted in, and a run has its caps: [`MAX_GUESS_PROBES`] probes, [`MAX_GUESS_RUNS_PER_DAY`] runs in any 24 hours, a
//! steady pace, one public address as its only target.

mod ledger;

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

pub use ledger::GuessLedger;

use super::{LocalSocket, NatView};
use crate::signal::{GuessReport, NatMapping, PortPattern};

/// Most probes of one run, per side.
pub const MAX_GUESS_PROBES: u32 = 2_048;

/// Most runs of one pair in any 24 hours, per side.
pub const MAX_GUESS_RUNS_PER_DAY: usize = 2;

/// Sockets the side with the random NAT opens.
pub const GUESS_SOCKETS: u16 = 256;

/// From the start of a punch round to the run: the first attempt has shown by then that nothing easier works.
pub(super) const GUESS_DELAY: Duration = Duration::from_secs(2);

/// A run ends after this, successful or not: 12 s after the exchange.
const RUN_LIMIT: Duration = Duration::from_secs(10);

/// The side that fires waits until the other side's sockets have opened their NAT.
const FIRE_DELAY: Duration = Duration::from_millis(500);

/// So many probes leave together, and then nothing for so long: 250 a second.
const VOLLEY: u32 = 5;
const VOLLEY_INTERVAL: Duration = Duration::from_millis(20);

/// The many sockets send a second time, for what was lost and for NATs that forget within seconds.
const SOCKET_ROUNDS: u32 = 2;
const SOCKET_ROUND_INTERVAL: Duration = Duration::from_secs(5);

/// Ports probed on both sides of a counter, and in its direction.
const NEAR: i32 = 10;
const AHEAD: i32 = 50;
const NEAR_ROUNDS: usize = 2;

/// Ports below are never outer ports of a NAT.
const FIRST_PORT: u32 = 1_024;
const PORTS: u32 = 65_536 - FIRST_PORT;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// What our side does in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// Our ports cannot be foreseen: many sockets send to the peer, one of them will be hit.
    ManySockets {
        /// The peer's one outer address.
        peer: SocketAddr,
    },
    /// The peer's ports cannot be foreseen: random ones.
    RandomPorts {
        /// The peer's outer address.
        at: IpAddr,
    },
    /// The peer's NAT counts: the ports around its last.
    NearPorts {
        /// The peer's outer address.
        at: IpAddr,
        /// Where its counter stood.
        pattern: PortPattern,
    },
    /// Our NAT counts: the peer finds our port while we send to its one address.
    Stay {
        /// That address.
        peer: SocketAddr,
    },
}

/// The plan for two NATs, if guessing may help. `peer` is an outer address of the peer, as a STUN server saw it.
pub(super) fn plan(ours: NatView, theirs: NatMapping, report: GuessReport, peer: SocketAddr) -> Option<Plan> {
    let near = || report.ports.map(|pattern| Plan::NearPorts { at: peer.ip(), pattern });
    match (ours.mapping, theirs) {
        (NatMapping::Random, NatMapping::EndpointIndependent) => Some(Plan::ManySockets { peer }),
        (NatMapping::EndpointIndependent, NatMapping::Random) => Some(Plan::RandomPorts { at: peer.ip() }),
        (NatMapping::EndpointIndependent | NatMapping::Regular, NatMapping::Regular) => near(),
        (NatMapping::Regular, NatMapping::EndpointIndependent) => Some(Plan::Stay { peer }),
        (NatMapping::Unknown, _)
        | (_, NatMapping::Unknown)
        | (NatMapping::EndpointIndependent, NatMapping::EndpointIndependent)
        | (NatMapping::Random | NatMapping::Regular, NatMapping::Random)
        | (NatMapping::Random, NatMapping::Regular) => None,
    }
}

/// The runs of the last 24 hours: when each is forgotten.
#[derive(Debug, Default)]
pub(super) struct RunsToday(VecDeque<Instant>);

impl RunsToday {
    pub(super) fn may_run(&self, now: Instant) -> bool {
        self.0.iter().filter(|until| now < **until).count() < MAX_GUESS_RUNS_PER_DAY
    }

    pub(super) fn note(&mut self, now: Instant) {
        self.0.retain(|until| now < *until);
        self.0.push_back(now + DAY);
    }

    /// There were runs so long ago, before this agent was made.
    pub(super) fn resume(&mut self, ages: impl IntoIterator<Item = Duration>, now: Instant) {
        let left = ages.into_iter().map(|age| DAY.saturating_sub(age)).filter(|left| !left.is_zero());
        self.0.extend(left.take(MAX_GUESS_RUNS_PER_DAY).map(|left| now + left));
    }
}

/// One run under way.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) plan: Plan,
    started_at: Instant,
    next_at: Instant,
    sent: u32,
    /// A random start and step through all ports: none is probed twice.
    offset: u32,
    stride: u32,
}

/// One probe of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shot {
    pub(super) socket: LocalSocket,
    pub(super) to: SocketAddr,
}

impl Run {
    /// A run that begins now; `random` picks the order of the ports.
    pub(super) fn new(plan: Plan, random: u32, now: Instant) -> Self {
        let next_at = match plan {
            // The driver needs a moment to open the sockets.
            Plan::ManySockets { .. } => now + VOLLEY_INTERVAL,
            Plan::Stay { .. } => now,
            Plan::RandomPorts { .. } | Plan::NearPorts { .. } => now + FIRE_DELAY,
        };
        // A step that shares no factor with the number of ports (2, 3 and 7) meets every one of them.
        let stride = (random % PORTS..).find(|step| step % 2 != 0 && step % 3 != 0 && step % 7 != 0).unwrap_or(1);
        Self { plan, started_at: now, next_at, sent: 0, offset: random.rotate_left(16) % PORTS, stride }
    }

    /// Probes sent so far.
    pub(super) fn sent(&self) -> u32 {
        self.sent
    }

    /// When the next probes, or the end, are due.
    pub(super) fn next_at(&self) -> Instant {
        self.next_at.min(self.started_at + RUN_LIMIT)
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.started_at + RUN_LIMIT
    }

    /// The probes due now; a late driver gets one volley, not all it missed.
    pub(super) fn take_volley(&mut self, now: Instant) -> Vec<Shot> {
        if now < self.next_at {
            return Vec::new();
        }
        self.next_at = now + VOLLEY_INTERVAL;
        let mut volley = Vec::new();
        while volley.len() < VOLLEY as usize && self.sent < MAX_GUESS_PROBES {
            let Some(shot) = self.shot(self.sent) else {
                self.rest();
                break;
            };
            self.sent += 1;
            volley.push(shot);
            if matches!(self.plan, Plan::ManySockets { .. }) && self.sent.is_multiple_of(u32::from(GUESS_SOCKETS)) {
                self.next_at = self.started_at + SOCKET_ROUND_INTERVAL;
                break;
            }
        }
        if self.sent >= MAX_GUESS_PROBES {
            self.rest();
        }
        volley
    }

    /// Nothing more to send; answers may still come.
    fn rest(&mut self) {
        self.next_at = self.started_at + RUN_LIMIT;
    }

    fn shot(&self, n: u32) -> Option<Shot> {
        let from_main = |to| Shot { socket: LocalSocket::MAIN, to };
        match &self.plan {
            Plan::ManySockets { peer } => {
                let sockets = u32::from(GUESS_SOCKETS);
                let socket = LocalSocket(u16::try_from(n % sockets + 1).ok()?);
                (n < SOCKET_ROUNDS * sockets).then_some(Shot { socket, to: *peer })
            }
            Plan::RandomPorts { at } => {
                let step = u64::from(self.offset) + u64::from(n) * u64::from(self.stride);
                let port = FIRST_PORT + u32::try_from(step % u64::from(PORTS)).ok()?;
                Some(from_main(SocketAddr::new(*at, u16::try_from(port).ok()?)))
            }
            Plan::NearPorts { at, pattern } => {
                let order = near_order(*pattern);
                let place = usize::try_from(n).ok()?;
                let port = (place < NEAR_ROUNDS * order.len()).then(|| order[place % order.len()])?;
                Some(from_main(SocketAddr::new(*at, port)))
            }
            // A probe a volley: the NAT stays open towards the peer.
            Plan::Stay { peer } => (n < MAX_GUESS_PROBES / 16).then_some(from_main(*peer)),
        }
    }
}

/// The ports near a counter, the likeliest first: those it gives next, then those around it.
fn near_order(pattern: PortPattern) -> Vec<u16> {
    let last = i32::from(pattern.last);
    let ahead = match pattern.direction.signum() {
        0 => 0,
        _ => AHEAD,
    };
    let direction = i32::from(pattern.direction.signum());
    let next = (1..=ahead).map(|step| last + direction * step);
    let around = (1..=NEAR).flat_map(|step| [last + step, last - step]).chain([last]);
    let mut order: Vec<u16> = Vec::new();
    for port in next.chain(around).filter_map(|port| u16::try_from(port).ok()) {
        if u32::from(port) >= FIRST_PORT && !order.contains(&port) {
            order.push(port);
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::path::test_clock::start;

    fn peer() -> SocketAddr {
        SocketAddr::from(([198, 51, 100, 7], 4_000))
    }

    fn fire(mut run: Run) -> Vec<(Duration, Shot)> {
        let started = run.started_at;
        let mut shots = Vec::new();
        while !run.is_over(run.next_at()) {
            let now = run.next_at();
            shots.extend(run.take_volley(now).into_iter().map(|shot| (now - started, shot)));
        }
        shots
    }

    #[test]
    fn random_ports_are_all_different_all_at_one_address_paced_and_capped() {
        for seed in [0, 1, 77, 0xdead_beef, u32::MAX] {
            let shots = fire(Run::new(Plan::RandomPorts { at: peer().ip() }, seed, start()));
            assert_eq!(shots.len(), MAX_GUESS_PROBES as usize);
            let ports: BTreeSet<_> = shots.iter().map(|(_, shot)| shot.to.port()).collect();
            assert_eq!(ports.len(), shots.len(), "none twice");
            assert!(ports.iter().all(|port| *port >= 1_024));
            assert!(shots.iter().all(|(_, shot)| shot.to.ip() == peer().ip() && shot.socket == LocalSocket::MAIN));
            for (at, _) in &shots {
                let within = shots.iter().filter(|(other, _)| *other >= *at && *other < *at + Duration::from_secs(1));
                assert!(within.count() <= 255, "no burst");
            }
        }
    }

    #[test]
    fn every_one_of_many_sockets_sends_twice() {
        let shots = fire(Run::new(Plan::ManySockets { peer: peer() }, 5, start()));
        let sockets: BTreeSet<_> = shots.iter().map(|(_, shot)| shot.socket).collect();
        assert_eq!((shots.len(), sockets.len()), (512, 256));
        assert!(!sockets.contains(&LocalSocket::MAIN));
        assert!(shots[255].0 < SOCKET_ROUND_INTERVAL && shots[256].0 == SOCKET_ROUND_INTERVAL);
        assert!(shots.iter().all(|(_, shot)| shot.to == peer()));
    }

    #[test]
    fn a_counter_is_followed_in_its_direction_first() {
        let order = near_order(PortPattern { last: 4_000, direction: 1 });
        assert_eq!(order[..3], [4_001, 4_002, 4_003]);
        assert_eq!(order.len(), 50 + 10 + 1);
        assert_eq!(near_order(PortPattern { last: 4_000, direction: -1 })[..2], [3_999, 3_998]);
        assert_eq!(near_order(PortPattern { last: 4_000, direction: 0 }).len(), 21);
        assert!(near_order(PortPattern { last: 65_535, direction: 1 }).iter().all(|port| *port > 65_000));
        let shots = fire(Run::new(
            Plan::NearPorts { at: peer().ip(), pattern: PortPattern { last: 4_000, direction: 1 } },
            0,
            start(),
        ));
        assert_eq!(shots.len(), 2 * 61);
    }

    #[test]
    fn only_pairs_that_guessing_can_help_have_a_plan() {
        use NatMapping::{EndpointIndependent as Easy, Random, Regular, Unknown};
        let report = GuessReport { allowed: true, ports: Some(PortPattern { last: 4_000, direction: 1 }) };
        let has_plan = |ours, theirs| plan(NatView::of_mapping(ours), theirs, report, peer()).is_some();
        for (ours, theirs, expected) in [
            (Easy, Random, true),
            (Random, Easy, true),
            (Easy, Regular, true),
            (Regular, Easy, true),
            (Regular, Regular, true),
            (Random, Random, false),
            (Random, Regular, false),
            (Regular, Random, false),
            (Easy, Easy, false),
            (Unknown, Random, false),
            (Random, Unknown, false),
        ] {
            assert_eq!(has_plan(ours, theirs), expected, "{ours:?} × {theirs:?}");
        }
    }

    #[test]
    fn two_runs_a_day_and_no_more() {
        let start = start();
        let mut runs = RunsToday::default();
        for _ in 0..MAX_GUESS_RUNS_PER_DAY {
            assert!(runs.may_run(start));
            runs.note(start);
        }
        assert!(!runs.may_run(start + DAY - Duration::from_secs(1)));
        assert!(runs.may_run(start + DAY));
    }
}
