#![expect(clippy::disallowed_methods, reason = "virtual time begins somewhere")]

use std::collections::BTreeMap;

use proptest::{prop_assert, proptest};

use super::*;

/// What arrives at an end.
#[derive(Debug, Clone, Copy)]
enum Frame {
    /// Whether it wants an answer.
    Ask(u64, bool),
    Answer(u64),
    /// QUIC's, of a question that wants no answer.
    Acknowledgement,
}

/// QUIC acknowledges one packet alone after this.
const ACKNOWLEDGES_AFTER: Duration = Duration::from_millis(25);

/// Two ends, and what is on its way between them; end 0 dialled.
struct Pair {
    began: Instant,
    now: Instant,
    ends: [Pulse; 2],
    /// By arrival and order: to whom, and what.
    wire: BTreeMap<(Instant, usize), (usize, Frame)>,
    sent: usize,
    /// How many acknowledgements each end had, and how many of its questions wanted an answer.
    acknowledged: [u64; 2],
    wanted_answers: usize,
    /// Whether they answer whatever is asked.
    is_old: bool,
    /// Who asked, and when.
    asked: Vec<(usize, Duration)>,
    /// When something arrived at each end.
    heard: [Vec<Duration>; 2],
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        let ends = [Pulse::new(true, now), Pulse::new(false, now)];
        Self {
            began: now,
            now,
            ends,
            wire: BTreeMap::new(),
            sent: 0,
            acknowledged: [0; 2],
            wanted_answers: 0,
            is_old: false,
            asked: Vec::new(),
            heard: [Vec::new(), Vec::new()],
        }
    }

    fn send(&mut self, to: usize, frame: Frame, delay: Duration) {
        self.sent += 1;
        // A stream: nothing overtakes.
        let before = self.wire.iter().filter(|(_, (end, _))| *end == to).map(|((at, _), _)| *at).max();
        let at = (self.now + delay).max(before.unwrap_or(self.now));
        self.wire.insert((at, self.sent), (to, frame));
    }

    fn ask(&mut self, end: usize, question: Question, delay: Duration) {
        self.asked.push((end, self.now - self.began));
        self.wanted_answers += usize::from(question.wants_answer);
        self.send(1 - end, Frame::Ask(question.sequence, question.wants_answer), delay);
    }

    /// Lets time pass; `delay` says how long each frame takes.
    fn run(&mut self, time: Duration, mut delay: impl FnMut() -> Duration) {
        let until = self.now + time;
        loop {
            let arrival = self.wire.first_key_value().map(|((at, _), _)| *at);
            let timer = self.ends[0].next_at().min(self.ends[1].next_at());
            let next = arrival.map_or(timer, |at| at.min(timer));
            if next > until {
                break;
            }
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let (_, (to, frame)) = self.wire.pop_first().unwrap();
                self.heard[to].push(self.now - self.began);
                match frame {
                    Frame::Ask(sequence, wants_answer) => {
                        let question = self.ends[to].on_question(self.now);
                        if wants_answer || self.is_old {
                            self.send(1 - to, Frame::Answer(sequence), delay());
                        } else {
                            self.send(1 - to, Frame::Acknowledgement, ACKNOWLEDGES_AFTER + delay());
                        }
                        if let Some(question) = question {
                            self.ask(to, question, delay());
                        }
                    }
                    Frame::Answer(sequence) => assert!(self.ends[to].on_answer(sequence, self.now)),
                    Frame::Acknowledgement => self.acknowledged[to] += 1,
                }
                continue;
            }
            for end in [0, 1] {
                if self.ends[end].next_at() > self.now {
                    continue;
                }
                self.ends[end].on_acknowledgements(self.acknowledged[end]);
                if let Some(question) = self.ends[end].on_timer(self.now) {
                    self.ask(end, question, delay());
                }
            }
        }
        self.now = until;
    }
}

const LATENCY: Duration = Duration::from_millis(40);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn idle_ends_take_turns_asking() {
    let mut pair = Pair::new();
    pair.run(HOUR, || LATENCY);
    let asked = &pair.asked[2..];
    assert!(asked.windows(2).filter(|two| two[0].0 == two[1].0).count() <= 1, "{asked:?}");
    // One question about every seven seconds, of either.
    assert!((480..=520).contains(&asked.len()), "{}", asked.len());
    assert!(pair.ends.iter().all(|end| end.is_connected(pair.now) && end.rtt() == Some(2 * LATENCY)));
}

#[test]
fn idle_ends_far_from_each_other_take_turns_too() {
    for latency in [151, 250, 299] {
        let mut pair = Pair::new();
        pair.run(HOUR, || Duration::from_millis(latency));
        assert!(pair.asked.len() < 560, "{latency} ms: {}", pair.asked.len());
    }
}

#[test]
fn a_question_that_comes_before_our_first_one_does_not_put_that_off() {
    let now = Instant::now();
    let mut end = Pulse::new(false, now);
    assert_eq!(end.on_question(now), None);
    let first = end.on_timer(now);
    assert_eq!(first, Some(Question { sequence: 1, is_repeated: false, wants_answer: true }));
}

#[test]
fn ends_that_asked_in_one_moment_part_again() {
    // Both ask at the start, so each pair of questions crosses until they part.
    let mut pair = Pair::new();
    pair.run(Duration::from_secs(60), || LATENCY);
    let crossed = pair.asked.windows(2).filter(|two| two[1].1 - two[0].1 < LATENCY).count();
    assert!(crossed <= 2, "{:?}", pair.asked);
}

#[test]
fn an_active_end_asks_every_second() {
    let mut pair = Pair::new();
    pair.ends[0].set_active(true);
    pair.run(Duration::from_secs(60), || LATENCY);
    let by_active = pair.asked.iter().filter(|(end, _)| *end == 0).count();
    assert!((60..=62).contains(&by_active), "{by_active}");
}

#[test]
fn what_is_not_answered_is_asked_again_and_counts_as_lost_after_the_limit() {
    let now = Instant::now();
    let at = |ms| now + Duration::from_millis(ms);
    let mut pulse = Pulse::new(true, now);
    assert!(!pulse.is_connected(now));
    let first = pulse.on_timer(now).unwrap();
    assert_eq!(first, Question { sequence: 1, is_repeated: false, wants_answer: true });
    assert!(pulse.on_answer(1, at(80)));
    assert_eq!(pulse.rtt(), Some(Duration::from_millis(80)));
    assert!(pulse.is_connected(at(80)));
    assert_eq!(pulse.ask(at(1_000)), Question { sequence: 2, is_repeated: false, wants_answer: true });
    assert_eq!(pulse.next_at(), at(2_000));
    assert_eq!(pulse.on_timer(at(1_999)), None);
    let again = Question { sequence: 3, is_repeated: true, wants_answer: true };
    assert_eq!(pulse.on_timer(at(2_000)), Some(again));
    assert!(pulse.is_connected(at(3_500)));
    assert!(!pulse.is_connected(at(3_501)));
    // A late answer to what was asked before the silence proves nothing about it.
    assert!(pulse.on_answer(1, at(3_600)));
    assert!(!pulse.is_connected(at(3_600)));
    // One to the last question ends it, for those before as well.
    assert!(pulse.on_answer(3, at(3_700)));
    assert!(pulse.is_connected(at(60_000)));
}

#[test]
fn a_question_out_of_turn_beside_one_that_is_under_way_misses_nothing() {
    let now = Instant::now();
    let at = |ms| now + Duration::from_millis(ms);
    let mut pulse = Pulse::new(true, now);
    let asked = [0, 5, 400, 999].map(|ms| pulse.ask(at(ms)).is_repeated);
    assert_eq!(asked, [false; 4]);
    assert!(pulse.ask(at(1_000)).is_repeated, "however often it was asked meanwhile");
    assert!(pulse.on_answer(5, at(1_005)));
    assert!(!pulse.ask(at(1_010)).is_repeated);
}

#[test]
fn an_answer_to_a_question_that_was_never_asked_proves_nothing() {
    let now = Instant::now();
    let mut pulse = Pulse::new(false, now);
    for sequence in [0, 1, u64::MAX] {
        assert!(!pulse.on_answer(sequence, now));
    }
    pulse.ask(now);
    for sequence in [0, 2, u64::MAX] {
        assert!(!pulse.on_answer(sequence, now));
    }
    assert!(!pulse.is_connected(now));
}

#[test]
fn a_peer_that_asks_again_at_once_is_asked_too_but_once_a_second_at_most() {
    let now = Instant::now();
    let mut pulse = Pulse::new(true, now);
    pulse.ask(now);
    pulse.on_answer(1, now + LATENCY);
    let flood = (0..10_000).map(|n| now + Duration::from_secs(5) + Duration::from_millis(n));
    let asked = flood.filter_map(|at| pulse.on_question(at)).count();
    assert!((9..=10).contains(&asked), "{asked}");
}

#[test]
fn idle_ends_want_an_answer_every_few_minutes_and_those_that_answer_always_are_asked_no_oftener() {
    for is_old in [false, true] {
        let mut pair = Pair::new();
        pair.is_old = is_old;
        pair.run(HOUR, || LATENCY);
        let asked = pair.asked.len();
        assert!((480..=520).contains(&asked), "{asked}");
        assert!((asked / 33..=asked / 33 + 6).contains(&pair.wanted_answers), "{} of {asked}", pair.wanted_answers);
        assert!(pair.ends.iter().all(|end| end.is_connected(pair.now)));
    }
}

/// An end that was answered once, and its first idle question, which wants no answer; acknowledgements until then: 5.
fn asks_quietly() -> (Pulse, Instant) {
    let now = Instant::now();
    let mut pulse = Pulse::new(true, now);
    pulse.ask(now);
    assert!(pulse.on_answer(1, now + LATENCY));
    let at = pulse.next_at();
    assert!(!pulse.on_acknowledgements(5), "what came before the question proves nothing of it");
    assert_eq!(pulse.on_timer(at), Some(Question { sequence: 2, is_repeated: false, wants_answer: false }));
    (pulse, at)
}

#[test]
fn what_quic_acknowledged_within_a_second_is_not_asked_again() {
    let (mut pulse, at) = asks_quietly();
    let look = pulse.next_at();
    assert_eq!(look, at + ACTIVE_PAUSE);
    assert!(pulse.on_acknowledgements(6));
    assert_eq!(pulse.on_timer(look), None);
    assert!(pulse.next_at() > at + IDLE_PAUSE && pulse.is_connected(at + IDLE_PAUSE));
}

#[test]
fn what_quic_did_not_acknowledge_within_a_second_is_missed_and_only_an_answer_helps() {
    let (mut pulse, at) = asks_quietly();
    let look = pulse.next_at();
    assert!(!pulse.on_acknowledgements(5));
    assert_eq!(pulse.on_timer(look), Some(Question { sequence: 3, is_repeated: true, wants_answer: true }));
    // QUIC at the other end lives, its daemon may not.
    assert!(!pulse.on_acknowledgements(9));
    assert!(!pulse.is_connected(at + ANSWER_LIMIT + ACTIVE_PAUSE / 100));
    assert!(pulse.on_answer(3, at + 3 * ACTIVE_PAUSE));
    assert!(pulse.is_connected(at + 3 * ACTIVE_PAUSE));
}

#[test]
fn a_question_that_crosses_one_that_wants_no_answer_is_no_proof_so_an_answer_is_wanted() {
    let (mut pulse, at) = asks_quietly();
    let question = pulse.on_question(at + LATENCY).unwrap();
    assert!(question.wants_answer && !question.is_repeated);
    // The packet that brought theirs repeated an old acknowledgement.
    assert!(!pulse.on_acknowledgements(6));
    assert!(!pulse.is_connected(at + ANSWER_LIMIT + ACTIVE_PAUSE / 100));
}

proptest! {
    #[test]
    fn however_long_frames_take_neither_end_hears_nothing_for_as_long_as_a_tunnel_lives_without_a_packet(
        delays in proptest::collection::vec(1_u64..200, 1..100),
        active in 0..3_usize,
    ) {
        let mut pair = Pair::new();
        if let Some(end) = pair.ends.get_mut(active) {
            end.set_active(true);
        }
        let mut delays = delays.into_iter().cycle();
        pair.run(Duration::from_secs(600), || Duration::from_millis(delays.next().unwrap()));
        for heard in &pair.heard {
            prop_assert!(heard.windows(2).all(|two| two[1] - two[0] < Duration::from_secs(8)), "{heard:?}");
        }
        let most = if active < 2 { 1_300 } else { 200 };
        prop_assert!(pair.asked.len() < most, "{}", pair.asked.len());
    }
}
