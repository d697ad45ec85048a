//! The rules of one agent, with two of them and no network but the test's own hands.

use x25519_dalek::{PublicKey, StaticSecret};

use super::*;
use crate::{
    id::RelayId,
    path::{Carried, MAX_PAIRS, ProbeError, test_clock::start},
    signal::{Envelope, SignalError, SignalKind},
};

const UNIX_MS: u64 = 1_800_000_000_000;
const MS: Duration = Duration::from_millis(1);
const RELAY: RelayId = RelayId::from_bytes([1; 16]);
const OTHER_RELAY: RelayId = RelayId::from_bytes([2; 16]);

fn config(site: u8) -> PathConfig {
    let secret = |site: u8| StaticSecret::from([site + 1; 32]);
    PathConfig {
        local_key: [site + 1; 32],
        remote_key: [2 - site; 32],
        noise_private: Zeroizing::new(secret(site).to_bytes()),
        remote_noise: PublicKey::from(&secret(1 - site)).to_bytes(),
        pair_secret: Zeroizing::new([9; 32]),
        allow_loopback: false,
        allow_direct: true,
        allow_guessing: false,
    }
}

fn addr(site: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, site + 1], 7_000))
}

/// An agent whose relay is up, that knows its address and wants a direct path. Agent 0 has the smaller key.
fn ready(site: u8, seed: u8, now: Instant) -> PathAgent {
    let mut agent = PathAgent::new(config(site), [seed; 32], now);
    agent.handle_relay_state(true, Some(20 * MS), now);
    agent.handle_local_candidates(vec![Candidate::new(CandidateKind::Host, addr(site))], NatView::default(), now);
    agent.wants_direct(true, now);
    agent
}

fn signals(agent: &mut PathAgent) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| agent.poll_transmit())
        .filter_map(|transmit| match transmit {
            PathTransmit::Signal { sealed } => Some(sealed),
            PathTransmit::Probe { .. } => None,
        })
        .collect()
}

fn probes(agent: &mut PathAgent) -> Vec<(SocketAddr, Vec<u8>)> {
    std::iter::from_fn(|| agent.poll_transmit())
        .filter_map(|transmit| match transmit {
            PathTransmit::Probe { to, packet, .. } => Some((to, packet)),
            PathTransmit::Signal { .. } => None,
        })
        .collect()
}

fn events(agent: &mut PathAgent) -> Vec<PathEvent> {
    std::iter::from_fn(|| agent.poll_event()).collect()
}

fn offer_of(agent: &mut PathAgent, now: Instant, unix_ms: u64) -> Vec<u8> {
    agent.handle_timeout(now, unix_ms);
    let sealed = signals(agent).pop().unwrap();
    assert_eq!(Envelope::parse(&sealed).unwrap().kind, SignalKind::Offer);
    sealed
}

/// Two agents with a common session, no probe sent yet; the first made the offer.
fn introduced(now: Instant) -> (PathAgent, PathAgent) {
    let (mut a, mut b) = (ready(0, 1, now), ready(1, 2, now));
    introduce(&mut a, &mut b, now, UNIX_MS);
    (a, b)
}

fn introduce(a: &mut PathAgent, b: &mut PathAgent, now: Instant, unix_ms: u64) {
    let offer = offer_of(a, now, unix_ms);
    b.handle_signal(RELAY, &offer, now, unix_ms).unwrap();
    let answer = signals(b).pop().unwrap();
    a.handle_signal(RELAY, &answer, now, unix_ms).unwrap();
}

/// Carries probes back and forth without delay until there are none.
fn exchange(a: &mut PathAgent, b: &mut PathAgent, now: Instant) {
    loop {
        let (from_a, from_b) = (probes(a), probes(b));
        if from_a.is_empty() && from_b.is_empty() {
            return;
        }
        for (to, packet) in from_a {
            assert_eq!(to, addr(1));
            b.handle_probe(LocalSocket::MAIN, addr(0), &packet, now).unwrap();
        }
        for (to, packet) in from_b {
            assert_eq!(to, addr(0));
            a.handle_probe(LocalSocket::MAIN, addr(1), &packet, now).unwrap();
        }
    }
}

fn is_direct(agent: &PathAgent) -> bool {
    matches!(agent.selected(), Selected::Direct { .. })
}

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
fn nothing_is_signalled_and_no_offer_answered_unless_a_direct_path_is_wanted() {
    let now = start();
    let (mut a, mut b) = (ready(0, 1, now), ready(1, 2, now));
    b.wants_direct(false, now);
    let offer = offer_of(&mut a, now, UNIX_MS);
    assert_eq!(b.handle_signal(RELAY, &offer, now, UNIX_MS), Err(SignalError::NotWanted));
    assert_eq!(b.poll_timeout(), None);
    assert_eq!(b.poll_transmit(), None);
}

#[test]
fn direct_paths_that_are_switched_off_are_called_so_wherever_one_is_needed() {
    let now = start();
    let (mut a, mut b) = (ready(0, 1, now), ready(1, 2, now));
    b.handle_config(PathConfig { allow_direct: false, ..config(1) }, now);
    assert_eq!(b.snapshot().obstacle, Some(Obstacle::SwitchedOff));
    let offer = offer_of(&mut a, now, UNIX_MS);
    assert_eq!(b.handle_signal(RELAY, &offer, now, UNIX_MS), Err(SignalError::SwitchedOff));
    assert_eq!((b.poll_timeout(), b.poll_transmit()), (None, None));
    b.wants_direct(false, now);
    assert_eq!(b.snapshot().obstacle, Some(Obstacle::NotWanted));
    b.wants_direct(true, now);
    assert_eq!(b.snapshot().obstacle, Some(Obstacle::SwitchedOff));
    b.handle_config(config(1), now);
    assert_eq!(b.handle_signal(RELAY, &offer, now, UNIX_MS), Ok(()));
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
fn the_answering_side_waits_for_the_way_of_its_answer() {
    let (_, b) = introduced(start());
    let (at, reason) = b.poll_timeout().unwrap();
    assert_eq!(reason, "punch probe due");
    assert_eq!(at, b.changed_at + 20 * MS, "half of both round trips to the relay");
}

#[test]
fn when_offers_cross_the_one_of_the_smaller_key_wins() {
    let now = start();
    let (mut a, mut b) = (ready(0, 1, now), ready(1, 2, now));
    let (from_a, from_b) = (offer_of(&mut a, now, UNIX_MS), offer_of(&mut b, now, UNIX_MS));
    a.handle_signal(RELAY, &from_b, now, UNIX_MS).unwrap();
    assert_eq!(signals(&mut a), std::slice::from_ref(&from_a), "the smaller key insists");
    assert_eq!(a.snapshot().counters.offers_crossed, 1);
    b.handle_signal(RELAY, &from_a, now, UNIX_MS).unwrap();
    assert_eq!(
        b.handle_signal(RELAY, &from_a, now, UNIX_MS),
        Err(SignalError::Replayed),
        "the repetition is not needed"
    );
    let answer = signals(&mut b).pop().unwrap();
    a.handle_signal(RELAY, &answer, now, UNIX_MS).unwrap();
    assert_eq!(a.probe_session_ids().collect::<Vec<_>>(), b.probe_session_ids().collect::<Vec<_>>());
    assert_eq!(
        a.handle_signal(RELAY, &from_b, now, UNIX_MS),
        Err(SignalError::Replayed),
        "set aside, but not forgotten"
    );
}

#[test]
fn a_replayed_or_old_offer_changes_nothing() {
    let now = start();
    let (mut a, mut b) = (ready(0, 1, now), ready(1, 2, now));
    let offer = offer_of(&mut a, now, UNIX_MS);
    assert!(matches!(
        b.handle_signal(RELAY, &offer, now, UNIX_MS + 61_000),
        Err(SignalError::Stale { age_ms: 61_000 })
    ));
    b.handle_signal(RELAY, &offer, now, UNIX_MS).unwrap();
    let ids: Vec<_> = b.probe_session_ids().collect();
    signals(&mut b);
    assert_eq!(b.handle_signal(RELAY, &offer, now, UNIX_MS), Err(SignalError::Replayed));
    assert!(signals(&mut b).is_empty());
    assert_eq!(b.probe_session_ids().collect::<Vec<_>>(), ids);
    assert_eq!(b.snapshot().counters.signals_refused, 2);
}

#[test]
fn an_answer_counts_once_and_only_for_its_offer() {
    let now = start();
    let (mut a, mut b) = (ready(0, 1, now), ready(1, 2, now));
    let offer = offer_of(&mut a, now, UNIX_MS);
    b.handle_signal(RELAY, &offer, now, UNIX_MS).unwrap();
    let answer = signals(&mut b).pop().unwrap();
    let mut other = answer.clone();
    other[3] ^= 1;
    assert_eq!(a.handle_signal(RELAY, &other, now, UNIX_MS), Err(SignalError::UnknownSession));
    let mut forged = answer.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(a.handle_signal(RELAY, &forged, now, UNIX_MS), Err(SignalError::NotAuthentic));
    a.handle_signal(RELAY, &answer, now, UNIX_MS).unwrap();
    assert_eq!(a.handle_signal(RELAY, &answer, now, UNIX_MS), Err(SignalError::UnknownSession));
}

#[test]
fn a_flood_of_offers_is_not_opened() {
    let now = start();
    let mut b = ready(1, 2, now);
    let junk = [&[1, 1][..], &[0; 200]].concat();
    let errors: Vec<_> = (0..40).map(|_| b.handle_signal(RELAY, &junk, now, UNIX_MS).unwrap_err()).collect();
    assert_eq!(errors[0], SignalError::NotAuthentic);
    assert_eq!(errors[39], SignalError::TooMany);
}

#[test]
fn a_relay_that_makes_up_offers_does_not_keep_those_out_that_come_over_another() {
    let now = start();
    let (mut a, mut b) = (ready(0, 1, now), ready(1, 2, now));
    let junk = [&[1, 1][..], &[0; 200]].concat();
    for _ in 0..40 {
        b.handle_signal(OTHER_RELAY, &junk, now, UNIX_MS).unwrap_err();
    }
    a.handle_timeout(now, UNIX_MS);
    let offer = signals(&mut a).remove(0);
    assert_eq!(b.handle_signal(OTHER_RELAY, &offer, now, UNIX_MS), Err(SignalError::TooMany));
    assert_eq!(b.handle_signal(RELAY, &offer, now, UNIX_MS), Ok(()));
}

#[test]
fn two_sides_behind_one_public_address_are_not_sent_to_look_for_a_firewall_between_two_sites() {
    let now = start();
    let behind = |site: u8| {
        let mut agent = ready(site, site + 1, now);
        let own = Candidate::new(CandidateKind::Host, SocketAddr::from(([10, site, 0, 1], 7_000)));
        let outer = SocketAddr::from(([203, 0, 113, 9], 7_000 + u16::from(site)));
        let outer = Candidate::new(CandidateKind::ServerReflexive, outer);
        agent.handle_local_candidates(vec![own, outer], NatView::default(), now);
        agent
    };
    let (mut a, mut b) = (behind(0), behind(1));
    introduce(&mut a, &mut b, now, UNIX_MS);
    for step in 1..=300_u32 {
        for agent in [&mut a, &mut b] {
            agent.handle_timeout(now + step * 100 * MS, UNIX_MS);
            probes(agent);
        }
    }
    assert_eq!((a.snapshot().obstacle, b.snapshot().obstacle), (Some(Obstacle::SameNat), Some(Obstacle::SameNat)));
}

#[test]
fn candidates_that_may_not_be_probed_are_dropped_on_both_sides() {
    let now = start();
    let (mut a, mut b) = (ready(0, 1, now), ready(1, 2, now));
    let odd = ["127.0.0.1:1", "169.254.0.1:1", "224.0.0.1:1", "0.0.0.0:1", "[fe80::1]:1", "10.0.0.1:0"];
    let odd = odd.map(|addr| Candidate { kind: CandidateKind::Host, addr: addr.parse().unwrap() });
    a.handle_local_candidates(odd.to_vec(), NatView::default(), now);
    assert_eq!((a.snapshot().own_candidates, a.snapshot().counters.candidates_dropped), (0, 6));
    // A peer that does not check its own.
    a.local = odd.to_vec();
    introduce(&mut a, &mut b, now, UNIX_MS);
    assert_eq!(b.snapshot().pairs, 0);
    b.handle_timeout(now + 100 * MS, UNIX_MS);
    assert!(probes(&mut b).is_empty());
}

#[test]
fn no_more_pairs_are_probed_than_the_cap_allows() {
    let now = start();
    let (mut a, mut b) = (ready(0, 1, now), ready(1, 2, now));
    let many = (1..=60).map(|port| Candidate::new(CandidateKind::Host, ([198, 51, 100, 1], port).into()));
    a.handle_local_candidates(many.collect(), NatView::default(), now);
    introduce(&mut a, &mut b, now, UNIX_MS);
    b.handle_timeout(now + 20 * MS, UNIX_MS);
    assert_eq!(probes(&mut b).len(), MAX_PAIRS);
}

#[test]
fn an_authentic_probe_from_an_unknown_address_is_learned_and_a_forged_one_is_not() {
    let now = start();
    let (mut a, mut b) = introduced(now);
    a.handle_timeout(now, UNIX_MS);
    let (_, packet) = probes(&mut a).pop().unwrap();
    let behind_nat: SocketAddr = "203.0.113.9:40000".parse().unwrap();
    let mut forged = packet.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(b.handle_probe(LocalSocket::MAIN, behind_nat, &forged, now), Err(ProbeError::NotAuthentic));
    assert_eq!(
        b.handle_probe(LocalSocket::MAIN, "[fe80::1]:5".parse().unwrap(), &packet, now),
        Err(ProbeError::UnusableSource)
    );
    assert!(probes(&mut b).is_empty() && b.snapshot().heard_pairs == 0);

    a.handle_timeout(now + 40 * MS, UNIX_MS);
    let (_, packet) = probes(&mut a).pop().unwrap();
    b.handle_probe(LocalSocket::MAIN, behind_nat, &packet, now).unwrap();
    let sizes: Vec<_> = probes(&mut b).iter().map(|(to, packet)| (*to, packet.len() == 1_200)).collect();
    assert_eq!(sizes, [(behind_nat, true), (behind_nat, false)], "a full-size try and the pong");
    assert!(events(&mut b).contains(&PathEvent::AddressAuthenticated(behind_nat)));
    assert_eq!(b.handle_probe(LocalSocket::MAIN, behind_nat, &packet, now), Err(ProbeError::Replayed));
}

#[test]
fn a_probe_without_a_session_is_an_error_and_is_not_answered() {
    let now = start();
    let (mut a, mut b) = introduced(now);
    a.handle_timeout(now, UNIX_MS);
    let (_, packet) = probes(&mut a).pop().unwrap();
    let mut stranger = ready(1, 3, now);
    assert_eq!(stranger.handle_probe(LocalSocket::MAIN, addr(0), &packet, now), Err(ProbeError::UnknownSession));
    assert_eq!(b.handle_probe(LocalSocket::MAIN, addr(0), &packet[..30], now), Err(ProbeError::Malformed));
    assert!(stranger.poll_transmit().is_none() && probes(&mut b).is_empty());
}

#[test]
fn the_old_session_answers_until_the_new_one_has_proved_a_path() {
    let now = start();
    let (mut a, mut b) = introduced(now);
    a.handle_timeout(now, UNIX_MS);
    exchange(&mut a, &mut b, now);
    let later = now + 10_000 * MS;
    // The answer to a new offer is lost: only b has the new session.
    a.relook(later);
    let offer = offer_of(&mut a, later, UNIX_MS + 10_000);
    b.handle_signal(RELAY, &offer, later, UNIX_MS + 10_000).unwrap();
    signals(&mut b);
    assert_eq!((a.probe_session_ids().count(), b.probe_session_ids().count()), (1, 2));
    b.set_active(true, later);
    b.handle_timeout(later, UNIX_MS + 10_000);
    let (_, heartbeat) = probes(&mut b).swap_remove(0);
    a.handle_probe(LocalSocket::MAIN, addr(1), &heartbeat, later)
        .expect("heartbeats stay on the session the peer surely has");

    // The next offer gets through: the session before it goes once the new one has proved the path.
    let again = later + 4_000 * MS;
    a.handle_timeout(again, UNIX_MS + 14_000);
    introduce(&mut a, &mut b, again, UNIX_MS + 14_000);
    let newest = a.probe_session_ids().next().unwrap();
    for second in 0..15 {
        for agent in [&mut a, &mut b] {
            agent.set_active(true, again);
            agent.handle_timeout(again + second * 1_000 * MS, UNIX_MS + 14_000);
        }
        exchange(&mut a, &mut b, again + second * 1_000 * MS);
    }
    assert_eq!(a.probe_session_ids().collect::<Vec<_>>(), [newest]);
    assert_eq!(b.probe_session_ids().collect::<Vec<_>>(), [newest]);
    assert!(is_direct(&a) && is_direct(&b));
}

#[test]
fn a_peer_that_restarted_with_a_new_generation_is_accepted() {
    let now = start();
    let (mut a, mut b) = introduced(now);
    a.handle_timeout(now, UNIX_MS);
    exchange(&mut a, &mut b, now);
    let later = now + 5_000 * MS;
    let mut restarted = ready(0, 77, later);
    introduce(&mut restarted, &mut b, later, UNIX_MS + 5_000);
    restarted.handle_timeout(later, UNIX_MS + 5_000);
    exchange(&mut restarted, &mut b, later);
    assert!(is_direct(&restarted) && is_direct(&b));
}

#[test]
fn new_local_candidates_are_trickled_and_probed_at_once() {
    let now = start();
    let (mut a, mut b) = introduced(now);
    let added = Candidate::new(CandidateKind::Host, "198.51.100.77:7000".parse().unwrap());
    let mut candidates = a.local.clone();
    a.handle_local_candidates(candidates.clone(), NatView::default(), now);
    assert!(signals(&mut a).is_empty(), "nothing new, nothing said");
    candidates.push(added);
    a.handle_local_candidates(candidates, NatView::default(), now);
    let trickle = signals(&mut a).pop().unwrap();
    assert_eq!(Envelope::parse(&trickle).unwrap().kind, SignalKind::Transport);
    b.handle_signal(RELAY, &trickle, now, UNIX_MS).unwrap();
    b.handle_timeout(now, UNIX_MS);
    let targets: Vec<_> = probes(&mut b).into_iter().map(|(to, _)| to).collect();
    assert_eq!(targets, [addr(0), added.addr]);
    assert_eq!(b.handle_signal(RELAY, &trickle, now, UNIX_MS), Err(SignalError::Replayed));
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
fn a_snapshot_tells_the_state_in_numbers_and_the_reason_in_words() {
    let now = start();
    let (mut a, mut b) = introduced(now);
    a.handle_timeout(now, UNIX_MS);
    exchange(&mut a, &mut b, now);
    let snapshot = a.snapshot();
    assert_eq!((snapshot.pairs, snapshot.heard_pairs, snapshot.proved_pairs, snapshot.attempts), (1, 1, 1, 1));
    assert_eq!(snapshot.reason.to_string(), "the direct path carried a full round trip");
    assert_eq!((snapshot.counters.offers_sent, snapshot.counters.promotions), (1, 1));
}

#[test]
fn nothing_secret_shows_in_debug_output() {
    let now = start();
    let (mut a, mut b) = introduced(now);
    a.relook(now + 3_000 * MS);
    let offer = offer_of(&mut a, now + 3_000 * MS, UNIX_MS + 3_000);
    b.handle_signal(RELAY, &offer, now, UNIX_MS + 3_000).unwrap();
    let text = format!("{:?} {a:?} {b:?}", config(0));
    for secret in ["9, 9", "1, 1, 1", "2, 2, 2"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[test]
fn a_direct_path_that_loses_a_third_is_left_while_the_relay_stands_and_rests() {
    let now = start();
    let (mut a, mut b) = introduced(now);
    a.handle_timeout(now, UNIX_MS);
    exchange(&mut a, &mut b, now);
    let lossy = |agent: &mut PathAgent, from: Instant| {
        for step in 1..=10 {
            agent.handle_traffic(Carried { sent: 100, lost: 40, lost_bytes: 40 * 500 }, from + step * 500 * MS);
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
}

#[test]
fn an_offer_that_names_the_address_in_use_no_more_moves_data_to_the_relay_at_once() {
    let now = start();
    let (mut a, mut b) = introduced(now);
    a.handle_timeout(now, UNIX_MS);
    exchange(&mut a, &mut b, now);
    assert!(is_direct(&b));
    let at = now + 10_000 * MS;
    let mut restarted = PathAgent::new(config(0), [3; 32], at);
    restarted.handle_relay_state(true, Some(20 * MS), at);
    let elsewhere = Candidate::new(CandidateKind::Host, "198.51.100.1:7001".parse().unwrap());
    restarted.handle_local_candidates(vec![elsewhere], NatView::default(), at);
    restarted.wants_direct(true, at);
    let offer = offer_of(&mut restarted, at, UNIX_MS + 10_000);
    b.handle_signal(RELAY, &offer, at, UNIX_MS + 10_000).unwrap();
    assert_eq!(b.selected(), Selected::Relayed);
    assert_eq!(b.snapshot().reason, PathReason::PeerMoved);
}

#[test]
fn an_offer_that_still_names_the_address_in_use_changes_no_path() {
    let now = start();
    let (mut a, mut b) = introduced(now);
    a.handle_timeout(now, UNIX_MS);
    exchange(&mut a, &mut b, now);
    let at = now + 10_000 * MS;
    let mut again = ready(0, 3, at);
    let offer = offer_of(&mut again, at, UNIX_MS + 10_000);
    b.handle_signal(RELAY, &offer, at, UNIX_MS + 10_000).unwrap();
    assert!(is_direct(&b));
}

#[test]
fn an_offer_that_came_before_the_peer_wanted_a_path_is_made_again_when_the_peer_makes_its_own() {
    let now = start();
    let (mut a, mut b) = (ready(0, 1, now), ready(1, 2, now));
    b.wants_direct(false, now);
    let early = offer_of(&mut a, now, UNIX_MS);
    assert_eq!(b.handle_signal(RELAY, &early, now, UNIX_MS), Err(SignalError::NotWanted));
    b.wants_direct(true, now + 30 * MS);
    let crossing = offer_of(&mut b, now + 30 * MS, UNIX_MS);
    a.handle_signal(RELAY, &crossing, now + 40 * MS, UNIX_MS).unwrap();
    assert_eq!(signals(&mut a), std::slice::from_ref(&early), "the smaller key's offer counts");
    a.handle_signal(RELAY, &crossing, now + 40 * MS, UNIX_MS).unwrap_err();
    assert_eq!(signals(&mut a), [] as [Vec<u8>; 0], "a replayed offer makes nobody repeat himself");
    b.handle_signal(RELAY, &early, now + 50 * MS, UNIX_MS).unwrap();
    let answer = signals(&mut b).pop().unwrap();
    assert!(b.handle_signal(RELAY, &early, now + 60 * MS, UNIX_MS).is_err(), "a second copy changes nothing");
    a.handle_signal(RELAY, &answer, now + 60 * MS, UNIX_MS).unwrap();
    a.handle_timeout(now + 60 * MS, UNIX_MS);
    exchange(&mut a, &mut b, now + 60 * MS);
    assert!(is_direct(&a) && is_direct(&b), "without the three seconds of an unanswered offer");
}

/// The milliseconds until data is duplicated, while b says nothing; `None`: not within five seconds.
fn distrusted_after(
    a: &mut PathAgent,
    from: Instant,
    mut each_quarter: impl FnMut(&mut PathAgent, Instant),
) -> Option<u32> {
    events(a);
    (0..5_000_u32).step_by(10).find(|ms| {
        let at = from + *ms * MS;
        if ms % 250 == 0 {
            each_quarter(a, at);
        }
        a.handle_timeout(at, UNIX_MS);
        probes(a);
        events(a).contains(&PathEvent::Distrusted)
    })
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

#[test]
fn a_peer_that_restarts_with_its_clock_set_back_goes_on_above_its_last_generation_and_is_a_hint_otherwise() {
    let now = start();
    let (mut a, mut b) = (ready(0, 1, now), ready(1, 2, now));
    introduce(&mut b, &mut a, now, UNIX_MS);
    let mut at = now;
    while !is_direct(&a) {
        at += 10 * MS;
        a.handle_timeout(at, UNIX_MS);
        exchange(&mut a, &mut b, at);
        assert!(at < now + 5_000 * MS);
    }
    let behind = UNIX_MS - 30_000;
    let old = offer_of(&mut ready(1, 7, at), at, behind);
    assert_eq!(a.handle_signal(RELAY, &old, at, UNIX_MS), Err(SignalError::Replayed));
    let after = distrusted_after(&mut a, at, |_, _| {});
    assert!(after.is_some_and(|ms| ms <= 500), "{after:?}");

    let at = at + 1_000 * MS;
    let mut restarted = ready(1, 8, at);
    restarted.resume_above(b.generation());
    let new = offer_of(&mut restarted, at, behind);
    assert_eq!(a.handle_signal(RELAY, &new, at, UNIX_MS), Ok(()));
    assert_eq!(
        a.handle_signal(RELAY, &new, at, UNIX_MS),
        Err(SignalError::Replayed),
        "a replay is refused all the same"
    );
}
