#![expect(clippy::disallowed_methods, reason = "a start for virtual time")]

mod short_packets;

use super::*;

/// A relay at the far end of a line that delays, loses and cuts.
struct Line {
    carrier: UdpCarrier,
    start: Instant,
    now: Instant,
    rtt: Duration,
    /// Longest payload that passes; none when the line is cut.
    passes: Option<usize>,
    /// Payload below which nothing passes.
    shortest: usize,
    /// Of a hundred packets, so many are lost each way.
    loss: u64,
    random: u64,
    /// Answers on their way.
    answers: VecDeque<(Instant, Answer, usize)>,
    pings: Vec<(Duration, usize)>,
    /// The challenge the relay's next pongs bring.
    challenge: u64,
}

impl Line {
    fn new(rtt_ms: u64) -> Self {
        let start = Instant::now();
        let mut carrier = UdpCarrier::default();
        carrier.start(start);
        Self {
            carrier,
            start,
            now: start,
            rtt: Duration::from_millis(rtt_ms),
            passes: Some(MAX_PAYLOAD),
            shortest: 0,
            loss: 0,
            random: 1,
            answers: VecDeque::new(),
            pings: Vec::new(),
            challenge: 7,
        }
    }

    fn lost(&mut self) -> bool {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % 100 < self.loss
    }

    fn settle(&mut self) {
        while let Some(ping) = self.carrier.poll_transmit() {
            self.pings.push((self.now - self.start, ping.payload));
            let arrives = self.passes.is_some_and(|longest| (self.shortest..=longest).contains(&ping.payload));
            if arrives && !self.lost() && !self.lost() {
                let answer = Answer { id: ping.id, challenge: self.challenge, validated: ping.echo == self.challenge };
                self.answers.push_back((self.now + self.rtt, answer, ping.payload));
            }
        }
    }

    /// Runs for a while; `each` is called every 10 ms.
    fn run_with(&mut self, for_ms: u64, mut each: impl FnMut(&mut Self)) {
        let end = self.now + Duration::from_millis(for_ms);
        let mut tick = self.now;
        while self.now < end {
            if self.now >= tick {
                each(self);
                tick += Duration::from_millis(10);
            }
            while self.answers.front().is_some_and(|(at, ..)| *at <= self.now) {
                if let Some((_, answer, payload)) = self.answers.pop_front() {
                    self.carrier.answered(answer, payload, self.now);
                }
            }
            self.carrier.handle_timeout(self.now, u32::MAX);
            self.settle();
            let due = [self.carrier.poll_timeout(), self.answers.front().map(|(at, ..)| *at), Some(tick)];
            let next = due.into_iter().flatten().min().unwrap_or(end);
            assert!(
                next > self.now
                    || self.answers.front().is_some_and(|(at, ..)| *at <= self.now)
                    || self.carrier.poll_timeout().is_some_and(|at| at <= self.now)
            );
            self.now = next.max(self.now + Duration::from_micros(1)).min(end);
        }
    }

    fn run(&mut self, for_ms: u64) {
        self.run_with(for_ms, |_| {});
    }

    fn run_with_data(&mut self, for_ms: u64) {
        self.run_with(for_ms, |line| {
            let payload = line.carrier.limit().unwrap_or(0);
            line.carrier.active(payload, line.now);
        });
    }
}

#[test]
fn udp_is_used_after_two_round_trips_of_full_length() {
    let mut line = Line::new(30);
    line.run(55);
    assert_eq!(line.carrier.limit(), None, "one round trip proves no address");
    line.run(20);
    assert_eq!(line.carrier.limit(), Some(MAX_PAYLOAD));
    assert_eq!(line.carrier.reason(), CarrierReason::Passes);
    assert!(line.carrier.rtt.is_some_and(|rtt| rtt >= Duration::from_millis(30)));
}

#[test]
fn where_nothing_passes_it_is_tried_for_ever_and_rarely() {
    let mut line = Line::new(30);
    line.passes = None;
    line.run(600_000);
    assert_eq!((line.carrier.limit(), line.carrier.reason()), (None, CarrierReason::DoesNotPass));
    let late = line.pings.iter().filter(|(at, _)| *at > Duration::from_secs(300)).count();
    assert!((12..=60).contains(&late), "{late} pings in five minutes");
    line.passes = Some(MAX_PAYLOAD);
    line.run(65_000);
    assert!(line.carrier.limit().is_some(), "no latch");
}

#[test]
fn data_leaves_a_dead_line_within_a_second_and_comes_back_later() {
    for rtt_ms in [1, 50, 200] {
        let mut line = Line::new(rtt_ms);
        line.run_with_data(5_000);
        assert!(line.carrier.limit().is_some());
        line.passes = None;
        let cut = line.now;
        while !line.carrier.in_doubt(line.now) {
            line.run_with_data(10);
        }
        let doubted = line.now - cut;
        assert!(doubted < Duration::from_millis(400 + 3 * rtt_ms), "{doubted:?} at {rtt_ms} ms");
        assert_eq!(line.carrier.limit_to_tell(line.now), MAX_PAYLOAD as u16 | LIMIT_IN_DOUBT);
        while line.carrier.limit().is_some() {
            line.run_with_data(10);
        }
        assert_eq!(line.carrier.limit_to_tell(line.now), 0);
        let took = line.now - cut;
        assert!(took < Duration::from_millis(1_000 + 3 * rtt_ms), "{took:?} at {rtt_ms} ms");
        assert_eq!(line.carrier.reason(), CarrierReason::StoppedPassing);
        line.passes = Some(MAX_PAYLOAD);
        line.run_with_data(4_000);
        assert!(line.carrier.limit().is_some(), "back");
    }
}

#[test]
fn an_idle_line_that_died_is_noticed_a_second_after_the_first_data() {
    let mut line = Line::new(50);
    line.run(10_000);
    line.passes = None;
    line.run(3_000);
    assert!(line.carrier.limit().is_some(), "nobody asked yet");
    line.run_with_data(1_000);
    assert_eq!(line.carrier.limit(), None);
}

#[test]
fn loss_alone_does_not_end_the_use_of_udp() {
    let mut line = Line::new(40);
    line.loss = 10;
    line.run_with_data(3_000);
    assert!(line.carrier.limit().is_some());
    for _ in 0..600 {
        line.run_with_data(100);
        assert!(line.carrier.limit().is_some(), "left after {:?}", line.now - line.start);
    }
}

#[test]
fn a_line_that_passes_short_datagrams_only_is_used_for_short_ones() {
    let mut line = Line::new(20);
    line.passes = Some(1300);
    line.run_with_data(1_000);
    assert_eq!(line.carrier.limit(), Some(MIN_PAYLOAD));
    line.run_with_data(130_000);
    assert_eq!(line.carrier.limit(), Some(MIN_PAYLOAD), "the stretch is lost and changes nothing");
    line.passes = Some(MAX_PAYLOAD);
    line.run_with_data(61_000);
    assert_eq!(line.carrier.limit(), Some(MAX_PAYLOAD));
}

#[test]
fn pings_that_fit_do_not_hide_that_data_does_not() {
    let mut line = Line::new(20);
    line.run_with_data(2_000);
    line.passes = Some(1300);
    line.run_with_data(1_500);
    assert_ne!(line.carrier.limit(), Some(MAX_PAYLOAD));
    line.run_with_data(6_000);
    assert_eq!(line.carrier.limit(), Some(MIN_PAYLOAD));
}

#[test]
fn an_idle_line_costs_a_short_ping_below_every_thirty_seconds() {
    let mut line = Line::new(30);
    line.run(5_000);
    line.pings.clear();
    line.run(600_000);
    assert_eq!(line.pings.len(), 40);
    assert!(line.pings.iter().all(|(_, payload)| *payload == 0));
}

#[test]
fn a_relay_that_sees_a_new_address_gets_it_proved_at_once() {
    let mut line = Line::new(30);
    line.run_with_data(2_000);
    line.challenge = 8;
    let at = line.pings.len();
    line.run_with_data(400);
    assert!(line.pings.len() - at <= 4, "one extra ping, no loop: {:?}", &line.pings[at..]);
    assert_eq!(line.carrier.echo, 8);
    assert!(line.carrier.limit().is_some());
}

#[test]
fn a_strange_relay_gets_no_ping_storm() {
    let mut line = Line::new(1);
    line.run_with(10_000, |line| line.challenge += 1);
    assert!(line.pings.len() < 1_200, "{}", line.pings.len());
}

#[test]
fn a_session_that_ended_is_not_used() {
    let mut line = Line::new(30);
    line.run(1_000);
    line.carrier.stop(CarrierReason::NotOffered);
    assert_eq!((line.carrier.limit(), line.carrier.poll_timeout()), (None, None));
    assert_eq!(line.carrier.poll_transmit(), None);
    line.carrier.start(line.now);
    line.run(1_000);
    assert!(line.carrier.limit().is_some());
}

/// Until UDP is left, or goes on with less; what data does meanwhile.
fn until_the_limit_falls(line: &mut Line, mut each: impl FnMut(&mut Line)) -> Duration {
    let (begun, before) = (line.now, line.carrier.limit());
    while line.carrier.limit() == before {
        line.run_with(10, &mut each);
        assert!(line.now - begun < Duration::from_secs(10), "never");
    }
    line.now - begun
}

#[test]
fn small_answers_do_not_hide_that_large_packets_vanish_under_way() {
    for rtt_ms in [1, 30, 150] {
        let mut line = Line::new(rtt_ms);
        line.run_with_data(5_000);
        assert_eq!(line.carrier.limit(), Some(MAX_PAYLOAD));
        line.passes = Some(1_079);
        let took = until_the_limit_falls(&mut line, |line| {
            line.carrier.active(MAX_PAYLOAD, line.now);
            // Acknowledgements beside them.
            line.carrier.active(40, line.now);
        });
        assert!(took < Duration::from_millis(1_100 + 3 * rtt_ms), "{took:?} at {rtt_ms} ms");
        assert_eq!((line.carrier.limit(), line.carrier.reason()), (None, CarrierReason::OnlySmallPackets));
        line.run_with_data(600_000);
        assert_eq!((line.carrier.limit(), line.carrier.reason()), (None, CarrierReason::OnlySmallPackets));
        line.passes = Some(MAX_PAYLOAD);
        line.run_with_data(65_000);
        assert_eq!(line.carrier.limit(), Some(MAX_PAYLOAD), "no latch");
        line.passes = None;
        line.run_with_data(2_000);
        assert_eq!(line.carrier.reason(), CarrierReason::StoppedPassing);
    }
}

#[test]
fn what_is_missed_goes_over_both_ways_before_udp_is_left() {
    let mut line = Line::new(20);
    line.run_with_data(5_000);
    line.passes = Some(1_079);
    line.run_with(400, |line| {
        line.carrier.active(MAX_PAYLOAD, line.now);
    });
    assert!(line.carrier.in_doubt(line.now));
    line.run_with(200, |line| {
        line.carrier.active(MAX_PAYLOAD, line.now);
    });
    assert!(line.carrier.in_doubt(line.now), "a small answer is no comfort");
}

#[test]
fn a_gateway_that_only_receives_notices_that_large_packets_do_not_come_any_more() {
    let mut line = Line::new(30);
    line.run_with_data(5_000);
    line.passes = Some(1_079);
    // The last large one came just before; the peer's small ones go on.
    line.carrier.active(1_400, line.now);
    let took = until_the_limit_falls(&mut line, |line| {
        line.carrier.active(0, line.now);
    });
    assert!(took < Duration::from_millis(1_300), "{took:?}");
    assert_eq!(line.carrier.reason(), CarrierReason::OnlySmallPackets);
}

#[test]
fn a_way_that_became_narrow_while_nothing_moved_is_noticed_with_the_first_small_packets() {
    let mut line = Line::new(30);
    line.run(60_000);
    line.passes = Some(1_079);
    line.run(60_000);
    let took = until_the_limit_falls(&mut line, |line| {
        line.carrier.active(0, line.now);
    });
    assert!(took < Duration::from_millis(1_300), "{took:?}");
    assert_eq!(line.carrier.reason(), CarrierReason::OnlySmallPackets);
}

#[test]
fn when_only_the_longest_vanish_udp_goes_on_with_those_that_pass() {
    let mut line = Line::new(20);
    line.run_with_data(5_000);
    line.passes = Some(1_300);
    let took = until_the_limit_falls(&mut line, |line| {
        let payload = line.carrier.limit().unwrap_or(0);
        line.carrier.active(payload, line.now);
    });
    assert!(took < Duration::from_millis(1_200), "{took:?}");
    assert_eq!((line.carrier.limit(), line.carrier.reason()), (Some(MIN_PAYLOAD), CarrierReason::Passes));
    line.run_with_data(130_000);
    assert_eq!(line.carrier.limit(), Some(MIN_PAYLOAD));
    line.passes = Some(MAX_PAYLOAD);
    line.run_with_data(61_000);
    assert_eq!(line.carrier.limit(), Some(MAX_PAYLOAD));
}

#[test]
fn a_line_that_never_carried_more_than_small_packets_says_so() {
    let mut line = Line::new(30);
    line.passes = Some(1_079);
    line.run(3_000);
    assert_eq!((line.carrier.limit(), line.carrier.reason()), (None, CarrierReason::OnlySmallPackets));
    line.passes = None;
    line.run(70_000);
    assert_eq!(line.carrier.reason(), CarrierReason::StoppedPassing);
}

#[test]
fn pings_beside_little_traffic_cost_little_and_still_find_that_large_datagrams_vanish() {
    let mut line = Line::new(20);
    line.run_with(3_000, |_| {});
    line.pings.clear();
    let mut tick = 0;
    let mut sparse = |line: &mut Line| {
        tick += 1;
        if tick % 40 == 0 {
            line.carrier.active(MAX_PAYLOAD, line.now);
        }
    };
    line.run_with(20_000, &mut sparse);
    let long = line.pings.iter().filter(|(_, payload)| *payload > 200).count();
    assert!((18..=22).contains(&long), "{long} long pings in 20 s, not one beside each datagram");
    line.passes = Some(600);
    let cut = line.now;
    while line.carrier.limit().is_some() {
        line.run_with(10, &mut sparse);
    }
    assert!(line.now - cut < Duration::from_millis(2_500), "{:?}", line.now - cut);
    assert_eq!(line.carrier.reason(), CarrierReason::OnlySmallPackets);
}

#[test]
fn changes_between_udp_and_tls_are_counted_by_reason_and_tries_that_bring_nothing_are_none() {
    let mut line = Line::new(30);
    line.run_with_data(2_000);
    line.passes = None;
    line.run_with_data(20_000);
    assert!(line.carrier.failed_tries() > 1);
    let once = |reason| (reason, 1);
    let counted = BTreeMap::from([CarrierReason::Passes, CarrierReason::StoppedPassing].map(once));
    assert_eq!(line.carrier.changes(), &counted);
    line.carrier.stop(CarrierReason::NotOffered);
    assert_eq!(line.carrier.changes(), &counted, "the link ended: nothing took over");
    line.carrier.start(line.now);
    line.passes = Some(MAX_PAYLOAD);
    line.run_with_data(2_000);
    assert_eq!(line.carrier.changes().get(&CarrierReason::Passes), Some(&2), "the count outlives a session");
}
