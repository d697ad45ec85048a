//! Whether the selected direct path still answers.

use std::time::{Duration, Instant};

/// Between heartbeats while streams are open: an engine's acknowledgement timer runs.
const ACTIVE_INTERVAL: Duration = Duration::from_secs(1);

/// Between heartbeats when idle: below the 30 s after which common NATs forget a mapping.
const IDLE_INTERVAL: Duration = Duration::from_secs(24);
/// Whoever asked last waits so much longer when idle, so that the peer asks next: either question and its answer hold the
/// path open for both. The side that does not lead waits twice as much, so that two that asked in one moment part again.
const BEHIND: Duration = Duration::from_secs(2);

/// Between heartbeats once an answer is missing: loss is told from death by asking more often.
const DOUBT_INTERVAL: Duration = Duration::from_millis(250);

/// Silence that counts as one miss; on a path of long round trips, one and a half of them.
const MIN_MISS: Duration = Duration::from_millis(500);
/// The same when the peer was just heard from another address, or our own network changed.
const MIN_SUSPECT_MISS: Duration = Duration::from_millis(100);
/// A miss that leads to duplicates costs little, so it never waits for longer: an engine's timer runs.
const MAX_EARLY_MISS: Duration = Duration::from_millis(750);
/// The last one costs the path.
const MAX_LAST_MISS: Duration = Duration::from_secs(2);
const LAST_SUSPECT_MISS: Duration = Duration::from_secs(1);

/// Misses after which data is duplicated onto the relay.
const DISTRUST_AFTER: u32 = 2;

/// Misses after which the path is left.
const DEMOTE_AFTER: u32 = 3;

/// One heartbeat in so many has full size: small packets may pass where data does not.
const PADDED_EVERY: u32 = 10;
/// The same when idle, where such a heartbeat is most of what an idle path costs.
const PADDED_EVERY_IDLE: u32 = 40;

/// What has to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    /// Send a ping.
    Ping {
        /// At full size.
        padded: bool,
    },
    /// First miss: look for other ways.
    Doubt,
    /// First miss after the peer was heard elsewhere: it has moved there, unless it answers at once.
    Moved,
    /// Duplicate data.
    Distrust,
    /// Leave the path.
    Demote {
        /// When the first full-size ping was sent whose answer is missing, of those sent by plan.
        full_asked_at: Option<Instant>,
    },
}

/// The heartbeat of one selected path.
#[derive(Debug)]
pub(super) struct Heartbeat {
    leads: bool,
    next_ping_at: Instant,
    silence: Option<Silence>,
    sent: u32,
    /// The next ping is asked with little patience, because of this.
    suspicion: Option<Suspicion>,
}

/// Why the peer may not be there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// It was heard from another address.
    HeardElsewhere,
    /// Our own network changed.
    NetworkChanged,
    /// Its packets come another way.
    PeerDoubts,
    /// The handshake of a tunnel has no answer.
    DialledInVain,
}

/// Since the oldest ping without an answer.
#[derive(Debug, Clone, Copy)]
struct Silence {
    since: Instant,
    /// The first ping of full size among the unanswered: a small answer ends nothing.
    full_asked_at: Option<Instant>,
    suspicion: Option<Suspicion>,
    /// Pings sent in doubt.
    asked: u32,
    misses: u32,
    /// Counted from the last miss, so that a process that stood still asks again before it gives a path up.
    next_miss_at: Instant,
}

impl Heartbeat {
    /// For a path just promoted: the proof was its first heartbeat. One of the two sides leads.
    pub(super) fn new(leads: bool, active: bool, now: Instant) -> Self {
        Self { leads, next_ping_at: now + interval(active, leads), silence: None, sent: 0, suspicion: None }
    }

    /// Whether data has to be duplicated.
    pub(super) fn is_distrusted(&self) -> bool {
        self.silence.is_some_and(|silence| silence.misses >= DISTRUST_AFTER)
    }

    /// When the current silence began, once it counts.
    pub(super) fn doubted_since(&self) -> Option<Instant> {
        self.silence.filter(|silence| silence.misses > 0).map(|silence| silence.since)
    }

    /// Streams opened or closed.
    pub(super) fn set_active(&mut self, active: bool, now: Instant) {
        if active && self.next_ping_at > now {
            self.next_ping_at = now;
        }
    }

    /// The peer asked on this path: when idle, our own question can wait its turn.
    pub(super) fn peer_asked(&mut self, active: bool, now: Instant) {
        if !active && self.silence.is_none() && self.suspicion.is_none() {
            self.next_ping_at = self.next_ping_at.max(now + IDLE_INTERVAL);
        }
    }

    /// Is the peer still here? Asked now, with little patience.
    pub(super) fn suspect(&mut self, suspicion: Suspicion, rtt: Duration, now: Instant) {
        self.next_ping_at = self.next_ping_at.min(now);
        self.suspicion = Some(suspicion);
        if let Some(silence) = &mut self.silence
            && silence.misses < DISTRUST_AFTER
        {
            silence.suspicion = Some(suspicion);
            let patience = patience(silence.misses, silence.suspicion, rtt);
            silence.next_miss_at = silence.next_miss_at.min(now + patience);
        }
    }

    /// Whether the peer seems to have moved: it was heard elsewhere, and an answer is overdue here.
    pub(super) fn seems_moved(&self) -> bool {
        let elsewhere = |silence: Silence| silence.suspicion == Some(Suspicion::HeardElsewhere);
        self.silence.is_some_and(|silence| elsewhere(silence) && silence.misses > 0)
    }

    /// The next moment at which [`Self::poll`] has something to say.
    pub(super) fn next_at(&self) -> Instant {
        self.silence.map_or(self.next_ping_at, |silence| self.next_ping_at.min(silence.next_miss_at))
    }

    /// What is due; call until `None`.
    pub(super) fn poll(&mut self, rtt: Duration, active: bool, now: Instant) -> Option<Beat> {
        if let Some(silence) = &mut self.silence
            && silence.misses < DEMOTE_AFTER
            && now >= silence.next_miss_at
        {
            silence.misses += 1;
            silence.next_miss_at = now + patience(silence.misses, silence.suspicion, rtt);
            return Some(match silence.misses {
                DEMOTE_AFTER => Beat::Demote { full_asked_at: silence.full_asked_at },
                DISTRUST_AFTER => Beat::Distrust,
                _ => {
                    self.next_ping_at = now;
                    match silence.suspicion {
                        Some(Suspicion::HeardElsewhere) => Beat::Moved,
                        Some(Suspicion::NetworkChanged | Suspicion::PeerDoubts | Suspicion::DialledInVain) | None => {
                            Beat::Doubt
                        }
                    }
                }
            });
        }
        if now < self.next_ping_at {
            return None;
        }
        let doubted = self.doubted_since().is_some();
        // In doubt both sizes are asked in turn: what answers small packets only is left for another reason.
        let padded = match &mut self.silence {
            Some(silence) if doubted => {
                silence.asked += 1;
                silence.asked % 2 == 1
            }
            Some(_) | None => {
                let every = if active { PADDED_EVERY } else { PADDED_EVERY_IDLE };
                self.sent % every == every - 1
            }
        };
        self.sent = self.sent.wrapping_add(1);
        self.next_ping_at = now + if doubted { DOUBT_INTERVAL } else { interval(active, self.leads) };
        let suspicion = self.suspicion.take();
        let silence = self.silence.get_or_insert(Silence {
            since: now,
            full_asked_at: None,
            suspicion,
            asked: 0,
            misses: 0,
            next_miss_at: now + patience(0, suspicion, rtt),
        });
        // A probe of full size asked while in doubt is only a second opinion; one sent by plan must be answered in kind.
        if padded && !doubted {
            silence.full_asked_at.get_or_insert(now);
        }
        Some(Beat::Ping { padded })
    }

    /// An answer came. True when the path was distrusted and is no more.
    pub(super) fn answered(&mut self, padded: bool, active: bool, now: Instant) -> bool {
        let Some(silence) = &self.silence else { return false };
        if silence.full_asked_at.is_some() && !padded {
            return false;
        }
        let missed = silence.misses > 0;
        let was_distrusted = self.is_distrusted();
        self.silence = None;
        if missed {
            self.next_ping_at = now + interval(active, self.leads);
        }
        was_distrusted
    }
}

/// How long the next miss takes after so many before it.
fn patience(misses: u32, suspicion: Option<Suspicion>, rtt: Duration) -> Duration {
    let (least, most) = match (misses + 1 == DEMOTE_AFTER, suspicion.is_some()) {
        (false, false) => (MIN_MISS, MAX_EARLY_MISS),
        (false, true) => (MIN_SUSPECT_MISS, MAX_EARLY_MISS),
        (true, false) => (MIN_MISS, MAX_LAST_MISS),
        (true, true) => (LAST_SUSPECT_MISS, MAX_LAST_MISS),
    };
    (rtt * 3 / 2).clamp(least, most)
}

fn interval(active: bool, leads: bool) -> Duration {
    match (active, leads) {
        (true, _) => ACTIVE_INTERVAL,
        (false, true) => IDLE_INTERVAL + BEHIND,
        (false, false) => IDLE_INTERVAL + 2 * BEHIND,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::test_clock::start;

    const RTT: Duration = Duration::from_millis(20);

    /// Runs a path that answers nothing from `start` on; returns the milliseconds of each beat.
    fn run_silent(heartbeat: &mut Heartbeat, active: bool, start: Instant) -> Vec<(u128, Beat)> {
        let mut beats = Vec::new();
        while !matches!(beats.last(), Some((_, Beat::Demote { .. }))) {
            let now = heartbeat.next_at();
            while let Some(beat) = heartbeat.poll(RTT, active, now) {
                beats.push(((now - start).as_millis(), beat));
                if matches!(beat, Beat::Demote { .. }) {
                    break;
                }
            }
        }
        beats
    }

    #[test]
    fn an_active_path_that_dies_is_distrusted_after_two_seconds_and_left_after_two_and_a_half() {
        let start = start();
        let mut heartbeat = Heartbeat::new(true, true, start);
        let beats = run_silent(&mut heartbeat, true, start);
        let at = |wanted| beats.iter().find(|(_, beat)| *beat == wanted).unwrap().0;
        assert_eq!(
            (at(Beat::Doubt), at(Beat::Distrust), at(Beat::Demote { full_asked_at: None })),
            (1_500, 2_000, 2_500)
        );
        let pings = beats.iter().filter(|(_, beat)| matches!(beat, Beat::Ping { .. })).count();
        assert!((4..=8).contains(&pings), "several questions, no storm: {pings}");
    }

    #[test]
    fn after_a_change_of_our_network_data_is_duplicated_at_once_and_the_path_is_left_no_sooner_than_usual() {
        let start = start();
        let mut heartbeat = Heartbeat::new(true, true, start);
        heartbeat.suspect(Suspicion::NetworkChanged, RTT, start);
        let beats = run_silent(&mut heartbeat, true, start);
        let at = |wanted| beats.iter().find(|(_, beat)| *beat == wanted).unwrap().0;
        let left = at(Beat::Demote { full_asked_at: None });
        assert_eq!((at(Beat::Doubt), at(Beat::Distrust), left), (100, 200, 1_200));
        assert!(!heartbeat.seems_moved());
    }

    #[test]
    fn a_slow_path_is_duplicated_within_two_and_a_half_seconds_too() {
        let (start, slow) = (start(), Duration::from_secs(4));
        let mut heartbeat = Heartbeat::new(true, true, start);
        let mut now = start;
        while !heartbeat.is_distrusted() {
            now = heartbeat.next_at();
            while heartbeat.poll(slow, true, now).is_some() {}
        }
        assert_eq!(now - start, Duration::from_millis(2_500));
    }

    #[test]
    fn a_process_that_stood_still_asks_again_before_it_gives_the_path_up() {
        let start = start();
        let mut heartbeat = Heartbeat::new(true, true, start);
        let asked = start + ACTIVE_INTERVAL;
        assert_eq!(heartbeat.poll(RTT, true, asked), Some(Beat::Ping { padded: false }));
        let woken = asked + Duration::from_secs(60);
        let beats: Vec<_> = std::iter::from_fn(|| heartbeat.poll(RTT, true, woken)).collect();
        assert_eq!(beats, [Beat::Doubt, Beat::Ping { padded: true }]);
    }

    #[test]
    fn an_idle_path_is_asked_rarely_and_at_once_when_streams_open() {
        let start = start();
        let mut heartbeat = Heartbeat::new(true, false, start);
        assert_eq!(heartbeat.next_at(), start + IDLE_INTERVAL + BEHIND);
        heartbeat.set_active(true, start + RTT);
        assert_eq!(heartbeat.next_at(), start + RTT);
    }

    /// Two idle ends of a path; gives how many questions each asked, and the longest time without any.
    fn run_idle(delay: Duration, begun: [Instant; 2], until: Instant) -> ([u32; 2], Duration) {
        let mut sides = [(true, begun[0]), (false, begun[1])].map(|(leads, at)| Heartbeat::new(leads, false, at));
        let (mut asked, mut last, mut longest) = ([0, 0], begun[0].max(begun[1]), Duration::ZERO);
        let mut arriving: Vec<(Instant, usize)> = Vec::new();
        loop {
            let due = sides.iter().map(Heartbeat::next_at).chain(arriving.iter().map(|(at, _)| *at)).min().unwrap();
            if due > until {
                return (asked, longest);
            }
            let (now_here, later): (Vec<_>, Vec<_>) = arriving.into_iter().partition(|(at, _)| *at <= due);
            arriving = later;
            for (_, side) in now_here {
                sides[side].peer_asked(false, due);
                // Answered at once, and the answer is there before anything is due.
                sides[1 - side].answered(true, false, due);
            }
            for (side, heartbeat) in sides.iter_mut().enumerate() {
                while let Some(beat) = heartbeat.poll(delay * 2, false, due) {
                    assert!(matches!(beat, Beat::Ping { .. }), "{beat:?}");
                    asked[side] += 1;
                    longest = longest.max(due - last);
                    last = due;
                    arriving.push((due + delay, 1 - side));
                }
            }
        }
    }

    #[test]
    fn two_idle_sides_take_turns_and_the_path_is_never_silent_for_longer_than_a_nat_remembers() {
        let start = start();
        let day = Duration::from_secs(86_400);
        for delay in [1, 20, 150].map(Duration::from_millis) {
            for apart in [0, 1, 30, 700, 9_000].map(Duration::from_millis) {
                let (asked, longest) = run_idle(delay, [start, start + apart], start + day);
                let all = asked[0] + asked[1];
                assert!(longest < Duration::from_secs(30), "{longest:?}");
                assert!((3_000..3_700).contains(&all), "{asked:?} in a day, not twice as many");
                assert!(asked[0].abs_diff(asked[1]) <= 2, "{asked:?}: each proves the path for itself");
            }
        }
    }

    #[test]
    fn a_peer_that_asks_does_not_put_off_a_question_that_is_open() {
        let start = start();
        let mut heartbeat = Heartbeat::new(true, false, start);
        heartbeat.suspect(Suspicion::PeerDoubts, RTT, start);
        heartbeat.peer_asked(false, start);
        assert_eq!(heartbeat.next_at(), start);
        assert_eq!(heartbeat.poll(RTT, false, start), Some(Beat::Ping { padded: false }));
        heartbeat.peer_asked(false, start + RTT);
        assert_eq!(heartbeat.next_at(), start + MIN_SUSPECT_MISS);
        let mut active = Heartbeat::new(true, true, start);
        active.peer_asked(true, start);
        assert_eq!(active.next_at(), start + ACTIVE_INTERVAL);
    }

    #[test]
    fn an_answer_ends_the_silence_and_says_when_trust_returns() {
        let start = start();
        let mut heartbeat = Heartbeat::new(true, true, start);
        let mut now = start;
        while !heartbeat.is_distrusted() {
            now = heartbeat.next_at();
            while heartbeat.poll(RTT, true, now).is_some() {}
        }
        assert!(heartbeat.answered(true, true, now));
        assert!(!heartbeat.is_distrusted());
        assert_eq!(heartbeat.next_at(), now + ACTIVE_INTERVAL);
        assert!(!heartbeat.answered(true, true, now), "there was nothing to end");
    }

    #[test]
    fn a_path_that_only_carries_small_packets_is_left() {
        let start = start();
        let mut heartbeat = Heartbeat::new(true, true, start);
        for _ in 0..100 {
            let now = heartbeat.next_at();
            while let Some(beat) = heartbeat.poll(RTT, true, now) {
                match beat {
                    Beat::Ping { padded: false } => {
                        heartbeat.answered(false, true, now + RTT);
                    }
                    Beat::Ping { padded: true } | Beat::Doubt | Beat::Moved | Beat::Distrust => {}
                    Beat::Demote { full_asked_at } => {
                        let asked_at = full_asked_at.expect("it is known which question has no answer");
                        assert_eq!(now - asked_at, 3 * MIN_MISS);
                        return;
                    }
                }
            }
        }
        panic!("pings pass, data dies, and nobody noticed");
    }
}
