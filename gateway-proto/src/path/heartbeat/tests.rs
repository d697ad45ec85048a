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
    let left = at(Beat::Demote { missing: Missing { small: Some(start + ACTIVE_INTERVAL), full: None } });
    assert_eq!((at(Beat::Doubt), at(Beat::Distrust), left), (1_500, 2_000, 2_500));
    let pings = beats.iter().filter(|(_, beat)| matches!(beat, Beat::Ping { .. })).count();
    assert!((6..=10).contains(&pings), "several questions, no storm: {pings}");
}

#[test]
fn after_a_change_of_our_network_data_is_duplicated_at_once_and_the_path_is_left_no_sooner_than_usual() {
    let start = start();
    let mut heartbeat = Heartbeat::new(true, true, start);
    heartbeat.suspect(Suspicion::NetworkChanged, RTT, start);
    let beats = run_silent(&mut heartbeat, true, start);
    let at = |wanted| beats.iter().find(|(_, beat)| *beat == wanted).unwrap().0;
    let left = at(Beat::Demote { missing: Missing { small: Some(start), full: None } });
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
    assert_eq!(beats, [Beat::Doubt, Beat::Ping { padded: false }, Beat::Ping { padded: true }]);
}

#[test]
fn an_idle_path_is_asked_rarely_and_at_once_when_streams_open() {
    let start = start();
    let mut heartbeat = Heartbeat::new(true, false, start);
    assert_eq!(heartbeat.next_at(), start + IDLE_INTERVAL + BEHIND);
    heartbeat.set_active(true, start + RTT);
    assert_eq!(heartbeat.next_at(), start + RTT);
}

#[test]
fn a_connection_for_each_message_asks_no_more_often_than_one_that_stays() {
    let start = start();
    let (mut heartbeat, mut asked) = (Heartbeat::new(true, false, start), 0);
    for step in 0..500 {
        let now = start + step * Duration::from_millis(10);
        heartbeat.set_active(step % 2 == 0, now);
        while let Some(beat) = heartbeat.poll(RTT, step % 2 == 0, now) {
            asked += 1;
            heartbeat.answered(beat == Beat::Ping { padded: true }, step % 2 == 0, now);
        }
    }
    assert_eq!(asked, 5);
}

/// Two idle ends of a path; gives how many questions each asked, and the longest time without any.
fn run_idle(delay: Duration, begun: [Instant; 2], until: Instant) -> ([u32; 2], Duration) {
    let mut sides = [(true, begun[0]), (false, begun[1])].map(|(leads, at)| Heartbeat::new(leads, false, at));
    let (mut asked, mut last, mut longest) = ([0, 0], begun[0].max(begun[1]), Duration::ZERO);
    let mut arriving: Vec<(Instant, usize, bool)> = Vec::new();
    loop {
        let due = sides.iter().map(Heartbeat::next_at).chain(arriving.iter().map(|(at, ..)| *at)).min().unwrap();
        if due > until {
            return (asked, longest);
        }
        let (now_here, later): (Vec<_>, Vec<_>) = arriving.into_iter().partition(|(at, ..)| *at <= due);
        arriving = later;
        for (_, side, padded) in now_here {
            sides[side].peer_asked(false, due);
            // Answered at once, and the answer is there before anything is due.
            sides[1 - side].answered(padded, false, due);
        }
        for (side, heartbeat) in sides.iter_mut().enumerate() {
            while let Some(beat) = heartbeat.poll(delay * 2, false, due) {
                let Beat::Ping { padded } = beat else { panic!("{beat:?}") };
                // One of full size goes beside a small one.
                asked[side] += u32::from(!padded);
                longest = longest.max(due - last);
                last = due;
                arriving.push((due + delay, 1 - side, padded));
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
fn a_question_that_somebody_ordered_is_asked_although_the_peer_asks() {
    let start = start();
    let mut heartbeat = Heartbeat::new(true, false, start);
    heartbeat.ask(start + RTT);
    heartbeat.peer_asked(false, start + RTT);
    assert_eq!(heartbeat.poll(RTT, false, start + 2 * RTT), Some(Beat::Ping { padded: false }));
    heartbeat.answered(false, false, start + 3 * RTT);
    heartbeat.peer_asked(false, start + 4 * RTT);
    assert_eq!(heartbeat.next_at(), start + 2 * RTT + IDLE_INTERVAL + BEHIND, "nothing is due any more");
}

#[test]
fn an_answer_that_waits_behind_our_own_data_is_waited_for() {
    let start = start();
    let mut heartbeat = Heartbeat::new(true, true, start);
    heartbeat.suspect_size(RTT, 15 * RTT, start);
    assert_eq!(heartbeat.poll(RTT, true, start), Some(Beat::Ping { padded: true }));
    assert_eq!(heartbeat.next_at(), start + 15 * RTT * 3 / 2, "not after a tenth of a second");
    assert!(heartbeat.poll(RTT, true, start + 15 * RTT).is_none());
    heartbeat.answered(true, true, start + 15 * RTT);
    assert_eq!(heartbeat.doubted_since(), None);
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
    assert!(!heartbeat.answered(true, true, now) && heartbeat.is_distrusted(), "a small one is missing");
    assert!(heartbeat.answered(false, true, now));
    assert!(!heartbeat.is_distrusted());
    assert_eq!(heartbeat.next_at(), now + ACTIVE_INTERVAL);
    assert!(!heartbeat.answered(false, true, now), "there was nothing to end");
}

#[test]
fn large_packets_that_are_lost_are_asked_after_at_once_and_data_is_duplicated_while_small_ones_pass() {
    let start = start();
    let mut heartbeat = Heartbeat::new(true, true, start);
    heartbeat.suspect_size(RTT, RTT, start);
    assert_eq!(heartbeat.poll(RTT, true, start), Some(Beat::Ping { padded: true }));
    assert!(!heartbeat.answered(false, true, start + RTT), "a small answer ends nothing");
    let beats = run_silent(&mut heartbeat, true, start);
    let at = |wanted| beats.iter().find(|(_, beat)| *beat == wanted).unwrap().0;
    assert_eq!((at(Beat::Doubt), at(Beat::Distrust)), (100, 200));
    let left = beats.last().unwrap();
    let missing = Missing { small: None, full: Some(start) };
    assert_eq!(*left, (1_200, Beat::Demote { missing }), "and it is known why");
}

#[test]
fn a_lossy_line_is_asked_at_full_size_once_a_second_at_most() {
    let start = start();
    let mut heartbeat = Heartbeat::new(true, true, start);
    let mut full = 0;
    for step in 0..40 {
        let now = start + step * Duration::from_millis(100);
        heartbeat.suspect_size(RTT, RTT, now);
        while let Some(beat) = heartbeat.poll(RTT, true, now) {
            full += u32::from(beat == Beat::Ping { padded: true });
        }
        heartbeat.answered(true, true, now + RTT);
    }
    assert_eq!(full, 4);
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
                Beat::Demote { missing } => {
                    assert_eq!(missing.small, None);
                    let asked_at = missing.full.expect("it is known which question has no answer");
                    assert_eq!(now - asked_at, 3 * MIN_MISS);
                    return;
                }
            }
        }
    }
    panic!("pings pass, data dies, and nobody noticed");
}

/// Runs for so many beats; `passes` says whether a ping of that size is answered. How long the first distrust and the end took, since
/// the oldest question without an answer.
fn run_with(
    heartbeat: &mut Heartbeat,
    active: bool,
    beats: u32,
    mut passes: impl FnMut(bool) -> bool,
) -> (Option<Duration>, Option<(Duration, Missing)>) {
    let mut distrusted = None;
    for _ in 0..beats {
        let now = heartbeat.next_at();
        while let Some(beat) = heartbeat.poll(RTT, active, now) {
            match beat {
                Beat::Ping { padded } if passes(padded) => drop(heartbeat.answered(padded, active, now + RTT)),
                Beat::Ping { .. } | Beat::Doubt | Beat::Moved => {}
                Beat::Distrust => distrusted = heartbeat.doubted_since().map(|since| now - since),
                Beat::Demote { missing } => {
                    let since = missing.since().expect("something is missing");
                    return (distrusted, Some((now - since, missing)));
                }
            }
        }
    }
    (distrusted, None)
}

#[test]
fn a_path_that_only_carries_large_packets_is_left_as_soon_as_one_that_carries_nothing() {
    for active in [true, false] {
        // Whichever question is the first that fails: one of full size may be next to it.
        for passed in 0..(2 * PADDED_EVERY_IDLE) {
            let mut heartbeat = Heartbeat::new(true, active, start());
            assert_eq!(run_with(&mut heartbeat, active, passed, |_| true), (None, None));
            let (distrusted, left) = run_with(&mut heartbeat, active, 100, |padded| padded);
            let (after, missing) = left.expect("the path is left");
            assert_eq!((distrusted, after), (Some(2 * MIN_MISS), 3 * MIN_MISS), "after {passed} answers");
            assert!(missing.small.is_some() && missing.full.is_none(), "{missing:?}");
        }
    }
}

#[test]
fn small_packets_are_asked_after_with_every_heartbeat() {
    let start = start();
    let mut heartbeat = Heartbeat::new(true, true, start);
    let mut asked = [Vec::new(), Vec::new()];
    while heartbeat.next_at() <= start + 30 * ACTIVE_INTERVAL {
        let now = heartbeat.next_at();
        while let Some(beat) = heartbeat.poll(RTT, true, now) {
            let Beat::Ping { padded } = beat else { panic!("{beat:?}") };
            asked[usize::from(padded)].push((now - start).as_secs());
            heartbeat.answered(padded, true, now);
        }
    }
    assert_eq!(asked, [(1..=30).collect::<Vec<_>>(), vec![10, 20, 30]]);
}

#[test]
fn a_path_that_loses_single_packets_of_both_sizes_is_neither_left_nor_distrusted() {
    let mut heartbeat = Heartbeat::new(true, true, start());
    let mut lost = [false; 2];
    // Of each size the first is lost, the next one passes, and so on.
    let every_other = |padded: bool| {
        let lost = &mut lost[usize::from(padded)];
        *lost = !*lost;
        !*lost
    };
    assert_eq!(run_with(&mut heartbeat, true, 1_000, every_other), (None, None));
}

#[test]
fn a_question_has_all_of_its_time_when_an_older_one_of_the_other_size_is_answered() {
    let start = start();
    let mut heartbeat = Heartbeat::new(true, true, start);
    heartbeat.suspect_size(RTT, RTT, start);
    assert_eq!(heartbeat.poll(RTT, true, start), Some(Beat::Ping { padded: true }));
    let later = start + 4 * RTT;
    heartbeat.ask(later);
    assert_eq!(heartbeat.poll(RTT, true, later), Some(Beat::Ping { padded: false }));
    heartbeat.answered(true, true, start + MIN_SUSPECT_MISS - RTT / 4);
    assert_eq!(heartbeat.next_at(), later + MIN_SUSPECT_MISS);
}

#[test]
fn in_doubt_both_sizes_are_asked_in_the_same_instant_four_times_a_second() {
    let start = start();
    let mut heartbeat = Heartbeat::new(true, true, start);
    let mut asked = [Vec::new(), Vec::new()];
    for (ms, beat) in run_silent(&mut heartbeat, true, start) {
        if let Beat::Ping { padded } = beat {
            asked[usize::from(padded)].push(ms);
        }
    }
    assert_eq!(asked, [vec![1_000, 1_500, 1_750, 2_000, 2_250], vec![1_500, 1_750, 2_000, 2_250]]);
}

#[test]
fn a_question_that_was_kept_back_is_not_missing_and_is_asked_again_in_a_moment() {
    let start = start();
    let mut heartbeat = Heartbeat::new(true, true, start);
    let due = start + ACTIVE_INTERVAL;
    assert_eq!(heartbeat.poll(RTT, true, due), Some(Beat::Ping { padded: false }));
    heartbeat.not_sent(false, due);
    let sent_at = due + DOUBT_INTERVAL;
    assert_eq!((heartbeat.next_at(), heartbeat.silence.is_none()), (sent_at, true));
    let mut doubts = 0;
    while heartbeat.next_at() < start + 20 * ACTIVE_INTERVAL {
        let now = heartbeat.next_at();
        while let Some(beat) = heartbeat.poll(RTT, true, now) {
            doubts += u32::from(beat == Beat::Doubt);
            if let Beat::Ping { padded } = beat
                && now > sent_at
            {
                heartbeat.not_sent(padded, now);
            }
        }
    }
    assert_eq!((doubts, heartbeat.is_distrusted()), (1, false), "one answer is missing, and nothing was asked since");
    assert!(matches!(run_silent(&mut heartbeat, true, start).last(), Some((_, Beat::Demote { .. }))));
}
