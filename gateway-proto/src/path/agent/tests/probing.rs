//! Which probes go out, and which are taken in.

use super::*;
use crate::path::{
    MAX_PAIRS, NatMapping, ProbeError,
    guess::{GUESS_DELAY, Plan},
};

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
    let expected = [(behind_nat, true), (behind_nat, false), (behind_nat, false)];
    assert_eq!(sizes, expected, "a try of full size, a small one, and the pong");
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
fn ports_are_guessed_at_the_address_that_the_peer_names_first() {
    let now = start();
    let outer = |last: u8| Candidate::new(CandidateKind::ServerReflexive, ([203, 0, 113, last], 7_000).into());
    let allowing = |site: u8, mapping: NatMapping, outer: Vec<Candidate>| {
        let mut agent = PathAgent::new(PathConfig { allow_guessing: true, ..config(site) }, [site + 1; 32], now);
        agent.handle_relay_state(true, Some(20 * MS), now);
        agent.handle_local_candidates(outer, NatView::of_mapping(mapping), now);
        agent.wants_direct(true, now);
        agent
    };
    for named in [[7, 9], [9, 7]] {
        let mut hard = allowing(0, NatMapping::Random, vec![outer(1)]);
        let mut easy = allowing(1, NatMapping::EndpointIndependent, named.map(outer).to_vec());
        introduce(&mut hard, &mut easy, now, UNIX_MS);
        hard.handle_timeout(now + GUESS_DELAY, UNIX_MS);
        let plan = hard.guess_run.as_ref().map(|run| run.plan.clone());
        assert_eq!(plan, Some(Plan::ManySockets { peer: outer(named[0]).addr }), "the one that most relays saw");
    }
}
