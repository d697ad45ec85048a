#![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
use super::*;

const MS: Duration = Duration::from_millis(1);
const RTT: Duration = Duration::from_millis(20);

/// Pings over a line that loses, beside a connection that is late at times.
struct Scales {
    weigher: Weigher,
    start: Instant,
    now: Instant,
    random: u64,
    next: u64,
    answers: Vec<(Instant, u64)>,
    link_answers: Vec<(Instant, [u8; 8])>,
    link_pings: u32,
}

impl Scales {
    fn new() -> Self {
        let start = Instant::now();
        Self {
            weigher: Weigher::default(),
            start,
            now: start,
            random: 5,
            next: 0,
            answers: Vec::new(),
            link_answers: Vec::new(),
            link_pings: 0,
        }
    }

    fn happens(&mut self, percent: u64) -> bool {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % 100 < percent
    }

    /// A ping every 150 ms, of which these are lost, or late. When UDP is to be left, if it is within this time.
    fn weigh(&mut self, lost: u64, late: u64, span: Duration) -> Option<Duration> {
        let begun = self.now;
        while self.now < begun + span {
            self.now += 10 * MS;
            let now = self.now;
            if (now - self.start).as_millis().is_multiple_of(150) {
                self.next += 1;
                self.weigher.sent(self.next, now);
                if !self.happens(lost) {
                    self.answers.push((now + RTT, self.next));
                }
            }
            for (_, id) in self.answers.extract_if(.., |(at, _)| *at <= now) {
                self.weigher.answered(id);
            }
            for (_, bytes) in self.link_answers.extract_if(.., |(at, _)| *at <= now) {
                assert!(self.weigher.link_answered(bytes, now));
            }
            if self.weigher.handle_timeout(Some(RTT), true, now, u32::MAX) {
                self.weigher.clear();
                return Some(now - begun);
            }
            while let Some(bytes) = self.weigher.poll_link_ping() {
                self.link_pings += 1;
                let took = if self.happens(late) { 300 * MS } else { RTT };
                self.link_answers.push((now + took, bytes));
            }
        }
        None
    }
}

#[test]
fn udp_that_loses_a_third_is_left_in_some_seconds_where_tls_is_clean_and_sooner_with_a_reason() {
    let mut scales = Scales::new();
    let alone = scales.weigh(36, 0, Duration::from_secs(60)).unwrap();
    assert!(alone < Duration::from_secs(20), "{alone:?}");
    let again = scales.weigh(36, 0, Duration::from_secs(60)).unwrap();
    assert!(again < Duration::from_secs(6), "it was left before: {again:?}");
    let mut scales = Scales::new();
    scales.weigher.blame(scales.now);
    let blamed = scales.weigh(36, 0, Duration::from_secs(60)).unwrap();
    assert!(blamed < Duration::from_secs(10), "{blamed:?}");
}

#[test]
fn where_tls_is_no_better_udp_is_kept_and_the_question_rests() {
    let mut scales = Scales::new();
    for _ in 0..90 {
        scales.weigher.blame(scales.now);
        assert_eq!(scales.weigh(36, 36, Duration::from_secs(10)), None);
    }
    // Weighed for a few seconds after 30 s, a minute, two, and so on; not all the time.
    assert!(scales.link_pings < 15 * 40, "{} in a quarter of an hour", scales.link_pings);
}

#[test]
fn what_is_borne_leaves_nothing_and_what_loses_nothing_asks_nothing() {
    let mut scales = Scales::new();
    assert_eq!(scales.weigh(0, 0, Duration::from_secs(600)), None);
    assert_eq!(scales.link_pings, 0);
    assert_eq!(scales.weigh(4, 0, Duration::from_secs(600)), None, "two of a hundred each way");
}

#[test]
fn the_links_own_pings_are_not_taken() {
    let mut scales = Scales::new();
    assert!(!scales.weigher.link_answered(77_u64.to_be_bytes(), scales.now));
}
