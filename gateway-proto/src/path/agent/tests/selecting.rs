//! Which path carries data, and when it is left.

mod short_packets;

use super::*;
use crate::path::Carried;

#[test]
fn the_relay_is_selected_at_once_and_left_when_it_goes() {
    let now = start();
    let mut agent = PathAgent::new(config(0), [1; 32], now);
    assert_eq!(agent.selected(), Selected::None);
    agent.handle_relay_state(true, None, now);
    agent.handle_relay_state(true, Some(5 * MS), now);
    agent.handle_relay_state(false, None, now);
    assert_eq!(
        events(&mut agent),
        [
            PathEvent::Selected { selected: Selected::Relayed, reason: PathReason::RelayFirst },
            PathEvent::Selected { selected: Selected::None, reason: PathReason::RelayLost },
        ]
    );
}

#[test]
fn an_exchange_and_two_round_trips_make_a_direct_path() {
    let now = start();
    let (mut a, mut b) = introduced(now);
    assert_eq!(a.probe_session_ids().collect::<Vec<_>>(), b.probe_session_ids().collect::<Vec<_>>());
    a.handle_timeout(now, UNIX_MS);
    exchange(&mut a, &mut b, now);
    let selected = Selected::Direct {
        remote: addr(1),
        socket: LocalSocket::MAIN,
        local: None,
        kind: CandidateKind::Host,
        rtt: Duration::ZERO,
        duplicate: false,
    };
    assert_eq!(a.selected(), selected);
    assert!(is_direct(&b), "the answering side proves the path for itself");
    let events = events(&mut a);
    assert!(events.contains(&PathEvent::AddressAuthenticated(addr(1))));
    assert!(events.contains(&PathEvent::Selected { selected, reason: PathReason::DirectProved }));
}

#[test]
fn a_direct_path_no_longer_wanted_is_given_up_and_no_longer_probed() {
    let now = start();
    let (mut a, mut b) = introduced(now);
    a.handle_timeout(now, UNIX_MS);
    exchange(&mut a, &mut b, now);
    events(&mut a);
    a.wants_direct(false, now);
    assert_eq!(events(&mut a), [PathEvent::Selected { selected: Selected::Relayed, reason: PathReason::NotWanted }]);
    assert_eq!(a.poll_timeout().map(|(_, why)| why), Some("address expires"), "the peer may still send from there");
    b.set_active(true, now);
    b.handle_timeout(now, UNIX_MS);
    for (_, packet) in probes(&mut b) {
        a.handle_probe(LocalSocket::MAIN, addr(1), &packet, now).unwrap();
    }
    assert_eq!(probes(&mut a).len(), 1, "a pong and nothing of its own");
}

#[test]
fn data_is_duplicated_in_doubt_and_no_longer_when_the_path_answers() {
    let now = start();
    let (mut a, mut b) = introduced(now);
    a.handle_timeout(now, UNIX_MS);
    exchange(&mut a, &mut b, now);
    events(&mut a);
    a.set_active(true, now);
    let mut at = now;
    while at < now + 1_100 * MS {
        a.handle_timeout(at, UNIX_MS);
        at = a.poll_timeout().unwrap().0;
    }
    assert!(matches!(a.selected(), Selected::Direct { duplicate: true, .. }));
    assert_eq!(events(&mut a), [PathEvent::Distrusted]);
    exchange(&mut a, &mut b, at);
    assert!(matches!(a.selected(), Selected::Direct { duplicate: false, .. }));
    assert_eq!(events(&mut a), [PathEvent::Trusted]);
}

/// Two agents on a direct path, when all that follows a promotion is over.
fn settled(now: Instant) -> (PathAgent, PathAgent, Instant) {
    let (mut a, mut b) = introduced(now);
    a.handle_timeout(now, UNIX_MS);
    exchange(&mut a, &mut b, now);
    let later = now + 10_000 * MS;
    while let Some((at, _)) = a.poll_timeout().filter(|(at, _)| *at < later) {
        a.handle_timeout(at, UNIX_MS);
        exchange(&mut a, &mut b, at);
    }
    assert!(is_direct(&a));
    (a, b, later)
}

/// Brings one probe to b, and what b says to a.
fn ask(a: &mut PathAgent, b: &mut PathAgent, packet: &[u8], now: Instant, passes: impl Fn(&[u8]) -> bool) {
    if !passes(packet) {
        return;
    }
    b.handle_probe(LocalSocket::MAIN, addr(0), packet, now).unwrap();
    for (_, packet) in probes(b).iter().filter(|(_, packet)| passes(packet)) {
        a.handle_probe(LocalSocket::MAIN, addr(1), packet, now).unwrap();
    }
}

/// Plays on until the direct path is left; what of the probes passes is asked for each.
fn play_until_left(a: &mut PathAgent, b: &mut PathAgent, from: Instant, passes: impl Fn(Instant, &[u8]) -> bool) {
    a.set_active(true, from);
    let mut at = from;
    while is_direct(a) {
        assert!(at < from + 60_000 * MS, "the path is never left");
        at = at.max(a.poll_timeout().unwrap().0);
        a.handle_timeout(at, UNIX_MS);
        for (_, packet) in probes(a) {
            ask(a, b, &packet, at, |packet| passes(at, packet));
        }
    }
}

#[test]
fn a_path_that_stops_carrying_large_packets_is_left_for_that_reason_at_whatever_moment_it_stops() {
    for stop in (0..12_000).step_by(250) {
        let (mut a, mut b, from) = settled(start());
        let hole = from + stop * MS;
        play_until_left(&mut a, &mut b, from, |at, packet| at < hole || packet.len() < 1_200);
        assert_eq!(a.snapshot().reason, PathReason::PacketsTooSmall, "after {stop} ms");
    }
}

#[test]
fn a_peer_that_stands_still_is_said_not_to_answer_at_whatever_moment_it_stops() {
    for stop in (0..12_000).step_by(250) {
        let (mut a, mut b, from) = settled(start());
        let still = from + stop * MS;
        play_until_left(&mut a, &mut b, from, |at, _| at < still);
        let snapshot = a.snapshot();
        assert_eq!(snapshot.reason, PathReason::HeartbeatLost, "after {stop} ms");
        assert_ne!(snapshot.obstacle, Some(Obstacle::PacketsTooSmall), "after {stop} ms");
    }
}

#[test]
fn a_small_answer_to_a_question_from_before_the_full_size_one_says_nothing_of_the_size() {
    let (mut a, mut b, mut at) = settled(start());
    // Each answer comes when the next question is on its way: so the last small one comes after the full-size question.
    let mut asked: Option<Vec<u8>> = None;
    loop {
        at += 10 * MS;
        a.check(at);
        a.handle_timeout(at, UNIX_MS);
        let (_, packet) = probes(&mut a).pop().unwrap();
        let is_full = packet.len() == 1_200;
        if let Some(before) = asked.replace(packet) {
            ask(&mut a, &mut b, &before, at, |_| true);
        }
        if is_full {
            break;
        }
    }
    play_until_left(&mut a, &mut b, at, |_, _| false);
    assert_eq!(a.snapshot().reason, PathReason::HeartbeatLost);
}

#[test]
fn another_proved_path_takes_over_before_the_silent_one_is_given_up() {
    let now = start();
    let (mut a, mut b) = (ready(0, 1, now), ready(1, 2, now));
    let other: SocketAddr = "198.51.100.200:7000".parse().unwrap();
    let both = [addr(1), other].map(|addr| Candidate::new(CandidateKind::Host, addr));
    b.handle_local_candidates(both.to_vec(), NatView::default(), now);
    introduce(&mut a, &mut b, now, UNIX_MS);
    // What a asks at an address of b is answered from there, while that address lives.
    let settle = |a: &mut PathAgent, b: &mut PathAgent, dead: Option<SocketAddr>, now| loop {
        let asked = probes(a);
        if asked.is_empty() {
            return;
        }
        for (to, packet) in asked.into_iter().filter(|(to, _)| Some(*to) != dead) {
            b.handle_probe(LocalSocket::MAIN, addr(0), &packet, now).unwrap();
            for (_, packet) in probes(b) {
                a.handle_probe(LocalSocket::MAIN, to, &packet, now).unwrap();
            }
        }
    };
    a.handle_timeout(now, UNIX_MS);
    settle(&mut a, &mut b, None, now);
    let Selected::Direct { remote: first, .. } = a.selected() else { panic!("not direct") };
    // The round is over when the path dies.
    while let Some((at, _)) = a.poll_timeout().filter(|(at, _)| *at < now + 10_000 * MS) {
        a.handle_timeout(at, UNIX_MS);
        settle(&mut a, &mut b, None, at);
    }
    let now = now + 10_000 * MS;
    a.set_active(true, now);
    let (mut at, mut distrusted_at) = (now, None);
    while a.direct_remote() == Some(first) {
        at = a.poll_timeout().unwrap().0;
        a.handle_timeout(at, UNIX_MS);
        distrusted_at =
            distrusted_at.or(matches!(a.selected(), Selected::Direct { duplicate: true, .. }).then_some(at));
        settle(&mut a, &mut b, Some(first), at);
    }
    assert!(a.is_direct(), "{:?}", a.selected());
    assert_eq!(a.snapshot().reason, PathReason::Failover);
    assert_eq!(
        (at - now, distrusted_at),
        (1_000 * MS, None),
        "at the second miss, with the proof asked for at the first"
    );
}

#[test]
fn a_direct_path_that_loses_a_third_is_left_while_the_relay_stands_and_rests() {
    let now = start();
    let (mut a, mut b) = introduced(now);
    a.handle_timeout(now, UNIX_MS);
    exchange(&mut a, &mut b, now);
    let lossy = |agent: &mut PathAgent, from: Instant| {
        for step in 1..=10 {
            let carried = Carried { sent: 100, lost: 40, lost_bytes: 40 * 500 };
            agent.handle_traffic(carried, 20 * MS, from + step * 500 * MS);
        }
    };
    a.handle_relay_state(false, None, now);
    lossy(&mut a, now);
    assert!(is_direct(&a), "a bad path is better than none");
    a.handle_relay_state(true, Some(20 * MS), now + 5_000 * MS);
    lossy(&mut a, now + 5_000 * MS);
    assert_eq!(a.selected(), Selected::Relayed);
    let snapshot = a.snapshot();
    assert_eq!((snapshot.reason, snapshot.obstacle), (PathReason::Lossy, Some(Obstacle::Lossy)));
    // Its probes still pass, but it rests for 30 s.
    for second in 11..70 {
        let at = now + second * 1_000 * MS;
        a.handle_timeout(at, UNIX_MS);
        b.handle_timeout(at, UNIX_MS);
        exchange(&mut a, &mut b, at);
        if second < 35 {
            assert!(!is_direct(&a), "used again after {second} s");
        }
    }
    assert!(is_direct(&a), "and is tried again after that");
}

#[test]
fn a_relayed_pair_that_nobody_uses_is_looked_at_ever_more_rarely_and_again_as_soon_as_a_stream_opens() {
    let now = start();
    let mut a = ready(0, 1, now);
    let mut looks = Vec::new();
    loop {
        let (at, why) = a.poll_timeout().unwrap();
        if at > now + 7_200_000 * MS {
            break;
        }
        if why == "new look due" {
            looks.push(at - now);
        }
        a.handle_timeout(at, UNIX_MS);
        signals(&mut a);
    }
    let pauses: Vec<_> = looks.windows(2).map(|two| two[1] - two[0]).collect();
    assert_eq!((looks[0], pauses[0], pauses.last()), (30_000 * MS, 30_000 * MS, Some(&(600_000 * MS))));
    let looked_at = a.looked_at;
    a.set_active(true, looked_at + 100_000 * MS);
    assert_eq!(a.relook_at, Some(looked_at + 30_000 * MS), "as if a stream had been open all the time");
    a.handle_timeout(looked_at + 100_000 * MS, UNIX_MS);
    assert_eq!(a.relook_at, Some(looked_at + 130_000 * MS));
}

#[test]
fn a_peer_heard_from_a_new_address_is_followed_when_the_old_one_is_silent() {
    let now = start();
    let (mut a, mut b) = introduced(now);
    a.handle_timeout(now, UNIX_MS);
    exchange(&mut a, &mut b, now);
    let moved: SocketAddr = "203.0.113.9:40000".parse().unwrap();
    let mut at = now + 10_000 * MS;
    b.relook(at);
    b.handle_timeout(at, UNIX_MS);
    for (_, packet) in probes(&mut b) {
        a.handle_probe(LocalSocket::MAIN, moved, &packet, at).unwrap();
    }
    let until = at + 400 * MS;
    while at < until && a.direct_remote() != Some(moved) {
        for (to, packet) in probes(&mut a) {
            if to == moved {
                b.handle_probe(LocalSocket::MAIN, addr(0), &packet, at).unwrap();
                for (_, packet) in probes(&mut b) {
                    a.handle_probe(LocalSocket::MAIN, moved, &packet, at).unwrap();
                }
            }
        }
        at += 10 * MS;
        a.handle_timeout(at, UNIX_MS);
    }
    assert_eq!(a.direct_remote(), Some(moved));
    assert_eq!(a.snapshot().reason, PathReason::PeerMoved);
    assert!(a.looks_for_path(at), "both sides' NATs let a former path come back, whichever left it first");
}

#[test]
fn while_a_tunnel_is_dialled_in_vain_its_packets_go_over_the_relay_too_within_half_a_second() {
    let (mut a, _gone, from) = settled(start());
    assert_eq!(distrusted_after(&mut a, from, |_, _| {}), None, "an idle path is asked rarely");
    let (mut a, _gone, from) = settled(start());
    a.set_active(true, from);
    let after = distrusted_after(&mut a, from, |a, at| {
        if at > from {
            a.dialled_in_vain(at);
        }
    });
    assert!(after.is_some_and(|ms| ms <= 500), "{after:?}");
}

#[test]
fn a_path_that_answers_is_not_doubted_because_the_peer_takes_no_tunnel() {
    let (mut a, mut b, from) = settled(start());
    a.set_active(true, from);
    events(&mut a);
    for ms in (0..5_000_u32).step_by(10) {
        let at = from + ms * MS;
        if ms % 250 == 0 {
            a.dialled_in_vain(at);
        }
        a.handle_timeout(at, UNIX_MS);
        exchange(&mut a, &mut b, at);
    }
    assert!(is_direct(&a) && events(&mut a).is_empty());
}
