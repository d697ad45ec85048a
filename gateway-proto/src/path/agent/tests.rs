//! The rules of one agent, with two of them and no network but the test's own hands.

mod locals;
mod probing;
mod selecting;
mod signalling;
mod sizing;

use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::*;
use crate::{
    id::RelayId,
    path::{CandidateKind, NatMapping, Obstacle, Selected, test_clock::start},
    signal::{Envelope, SignalKind},
};

const UNIX_MS: u64 = 1_800_000_000_000;
const MS: Duration = Duration::from_millis(1);
const RELAY: RelayId = RelayId::from_bytes([1; 16]);

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
fn where_no_packet_passes_a_nat_that_too_few_relays_look_at_is_named_beside_the_firewall() {
    let now = start();
    for (view, expected) in [
        (NatView::default(), Obstacle::UnknownNat { ours: true }),
        (NatView::of_mapping(NatMapping::EndpointIndependent), Obstacle::NothingPasses),
    ] {
        let behind = |site: u8| {
            let mut agent = ready(site, site + 1, now);
            let seen = SocketAddr::from(([203, 0, 113, site + 1], 7_000));
            let own = Candidate::new(CandidateKind::Host, SocketAddr::from(([10, site, 0, 1], 7_000)));
            agent.handle_local_candidates(vec![own, Candidate::new(CandidateKind::ServerReflexive, seen)], view, now);
            agent
        };
        let (mut a, mut b) = (behind(0), behind(1));
        introduce(&mut a, &mut b, now, UNIX_MS);
        let mut told = Vec::new();
        for at in (0..2_000_u32).map(|step| step * 100 * MS) {
            let unix_ms = UNIX_MS + at.as_millis() as u64;
            for agent in [&mut a, &mut b] {
                agent.handle_timeout(now + at, unix_ms);
            }
            // Signals pass, probes do not.
            for sealed in signals(&mut a) {
                let _ = b.handle_signal(RELAY, &sealed, now + at, unix_ms);
            }
            for sealed in signals(&mut b) {
                let _ = a.handle_signal(RELAY, &sealed, now + at, unix_ms);
            }
            told.extend(a.snapshot().obstacle);
        }
        assert!(told.contains(&expected), "{expected:?}");
        let others = [Obstacle::UnknownNat { ours: true }, Obstacle::NothingPasses];
        assert!(!others.iter().any(|other| *other != expected && told.contains(other)), "{expected:?}");
    }
}

#[test]
fn a_firewall_is_blamed_after_two_rounds_of_attempts_and_not_after_one() {
    let now = start();
    let (mut a, mut b) = introduced(now);
    let mut told = Vec::new();
    for at in (0..2_000_u32).map(|step| step * 100 * MS) {
        let unix_ms = UNIX_MS + at.as_millis() as u64;
        for agent in [&mut a, &mut b] {
            agent.handle_timeout(now + at, unix_ms);
        }
        // Signals pass, probes do not.
        for sealed in signals(&mut a) {
            let _ = b.handle_signal(RELAY, &sealed, now + at, unix_ms);
        }
        for sealed in signals(&mut b) {
            let _ = a.handle_signal(RELAY, &sealed, now + at, unix_ms);
        }
        told.extend(a.snapshot().obstacle);
        told.dedup();
    }
    use Obstacle::{NotProved, NothingPasses, Trying};
    assert_eq!(told.get(..4), Some([Trying, NotProved, Trying, NothingPasses].as_slice()), "{told:?}");
    assert!(!told[4..].contains(&NotProved), "{told:?}");
    // Another address: what failed before says nothing of it.
    let other = Candidate::new(CandidateKind::Host, SocketAddr::from(([198, 51, 100, 9], 7_000)));
    a.handle_local_candidates(vec![other], NatView::default(), now + 200_000 * MS);
    assert!(!a.punch.is_conclusive());
}

#[test]
fn a_side_with_ipv6_only_and_one_with_ipv4_only_are_told_so_instead_of_blaming_a_firewall() {
    let now = start();
    let with = |site: u8, own: &str, outer: &str| {
        let mut agent = ready(site, site + 1, now);
        let own = Candidate::new(CandidateKind::Host, own.parse().unwrap());
        let outer = Candidate::new(CandidateKind::ServerReflexive, outer.parse().unwrap());
        agent.handle_local_candidates(vec![own, outer], NatView::default(), now);
        agent
    };
    // The first one's NAT64 showed a server an IPv4 address.
    let mut a = with(0, "[2001:db8:1::2]:7000", "203.0.113.2:7000");
    let mut b = with(1, "10.1.0.2:7000", "203.0.113.9:7001");
    introduce(&mut a, &mut b, now, UNIX_MS);
    for step in 1..=300_u32 {
        for agent in [&mut a, &mut b] {
            agent.handle_timeout(now + step * 100 * MS, UNIX_MS);
            probes(agent);
        }
    }
    let told = |ipv6_here| Some(Obstacle::NoCommonFamily { ipv6_here });
    assert_eq!((a.snapshot().obstacle, b.snapshot().obstacle), (told(true), told(false)));
    assert!(told(true).unwrap().to_string().starts_with("no common address family (IPv6 only here, IPv4 only there)"));
    // The first one finds out how its NAT64 translates, and can send to the other one's address.
    let own = a.local.clone();
    a.handle_local_candidates(own, NatView { nat64: true, ..NatView::default() }, now + 31_000 * MS);
    assert_eq!(a.snapshot().obstacle, Some(Obstacle::Trying), "at once, not after the pause");
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
fn a_pair_asks_for_fresh_addresses_of_ours_only_while_it_wants_a_direct_path_and_has_none() {
    let now = start();
    let (mut a, mut b) = introduced(now);
    assert!(a.looks_for_path(now));
    a.handle_timeout(now, UNIX_MS);
    exchange(&mut a, &mut b, now);
    assert!(!a.looks_for_path(now), "it is direct");
    a.wants_direct(false, now);
    assert!(!a.looks_for_path(now), "no connection may carry data");
    a.handle_config(PathConfig { allow_direct: false, ..config(0) }, now);
    a.wants_direct(true, now);
    assert!(!a.looks_for_path(now), "direct paths are switched off");
}

#[test]
fn a_pair_on_a_slow_or_doubtful_direct_path_asks_for_fresh_addresses_of_ours_too() {
    let now = start();
    let (mut a, mut b) = (ready(0, 1, now), ready(1, 2, now));
    for (site, agent) in [(0, &mut a), (1, &mut b)] {
        // Between own addresses no path counts as slow.
        let outer = Candidate::new(CandidateKind::ServerReflexive, addr(site));
        agent.handle_local_candidates(vec![outer], NatView::default(), now);
    }
    introduce(&mut a, &mut b, now, UNIX_MS);
    let mut at = now;
    while !is_direct(&a) {
        assert!(at < now + 20_000 * MS, "no direct path");
        for agent in [&mut a, &mut b] {
            agent.handle_timeout(at, UNIX_MS);
        }
        let on_the_way = (probes(&mut a), probes(&mut b));
        at += 300 * MS;
        for (_, packet) in on_the_way.0 {
            b.handle_probe(LocalSocket::MAIN, addr(0), &packet, at).unwrap();
        }
        for (_, packet) in on_the_way.1 {
            a.handle_probe(LocalSocket::MAIN, addr(1), &packet, at).unwrap();
        }
    }
    assert!(a.looks_for_path(at), "slower than over the relays");

    let (mut a, mut b) = introduced(now);
    a.handle_timeout(now, UNIX_MS);
    exchange(&mut a, &mut b, now);
    a.set_active(true, now);
    assert!(!a.looks_for_path(now));
    let at = now + distrusted_after(&mut a, now, |_, _| {}).unwrap() * MS;
    assert!(is_direct(&a) && a.looks_for_path(at), "the line that was better may come back behind NATs that forgot it");
    assert!(!a.looks_for_path(at + 600_000 * MS));
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
