//! Where the tunnel's packets fit, and what happens where they do not.

use super::*;
use crate::path::Carried;

/// What a tunnel has found out on an Ethernet path.
const GROWN: usize = 1_431;
/// What is left of a link like WireGuard's.
const NARROW: usize = 1_392;
const LARGE_LOST: Carried = Carried { sent: 40, lost: 20, lost_bytes: 20 * GROWN as u64 };

/// What a sends to an address of b is answered from there, as far as it passes.
fn carry(a: &mut PathAgent, b: &mut PathAgent, now: Instant, passes: impl Fn(SocketAddr, usize) -> bool) {
    loop {
        let sent = probes(a);
        if sent.is_empty() {
            return;
        }
        for (to, packet) in sent.into_iter().filter(|(to, packet)| passes(*to, packet.len())) {
            b.handle_probe(LocalSocket::MAIN, addr(0), &packet, now).unwrap();
            for (_, packet) in probes(b) {
                a.handle_probe(LocalSocket::MAIN, to, &packet, now).unwrap();
            }
        }
    }
}

/// How often the tunnel was asked for a round trip from one moment to another.
fn play(
    a: &mut PathAgent,
    b: &mut PathAgent,
    [from, to]: [u32; 2],
    now: Instant,
    passes: impl Fn(usize) -> bool,
) -> usize {
    events(a);
    for at in (from..to).step_by(10).map(|ms| now + ms * MS) {
        a.handle_timeout(at, UNIX_MS);
        carry(a, b, at, |_, len| passes(len));
    }
    events(a).iter().filter(|event| **event == PathEvent::AskTunnel).count()
}

/// The address at which b is reached by a at first, through its NAT.
fn outer() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 9], 7_000))
}

/// a is direct through b's NAT, with a tunnel whose packets have grown; b's own address was out of reach, and b is heard there now.
fn heard_nearer() -> (PathAgent, PathAgent, Instant) {
    let now = start();
    let (mut a, mut b) = (ready(0, 1, now), ready(1, 2, now));
    let own = Candidate::new(CandidateKind::Host, addr(1));
    b.handle_local_candidates(
        vec![own, Candidate::new(CandidateKind::ServerReflexive, outer())],
        NatView::default(),
        now,
    );
    introduce(&mut a, &mut b, now, UNIX_MS);
    a.handle_timeout(now, UNIX_MS);
    carry(&mut a, &mut b, now, |to, _| to == outer());
    assert_eq!(a.direct_remote(), Some(outer()));
    a.set_datagram_size(GROWN);
    let later = now + 10_000 * MS;
    hear_nearer(&mut a, &mut b, later);
    (a, b, later)
}

fn hear_nearer(a: &mut PathAgent, b: &mut PathAgent, at: Instant) {
    b.check(at);
    b.handle_timeout(at, UNIX_MS);
    let packets = probes(b);
    assert!(!packets.is_empty());
    for (_, packet) in packets {
        a.handle_probe(LocalSocket::MAIN, addr(1), &packet, at).unwrap();
    }
}

#[test]
fn a_healthy_path_is_left_for_a_better_one_only_when_that_carries_packets_as_large_as_the_tunnels() {
    let (mut a, mut b, at) = heard_nearer();
    carry(&mut a, &mut b, at, |_, _| true);
    assert_eq!((a.direct_remote(), a.snapshot().reason), (Some(addr(1)), PathReason::BetterPath), "at once");

    let (mut a, mut b, at) = heard_nearer();
    let narrow = |to: SocketAddr, len: usize| to == outer() || len <= NARROW;
    carry(&mut a, &mut b, at, narrow);
    assert_eq!(a.direct_remote(), Some(outer()), "1200 bytes passed, the tunnel's packets would not");
    assert_eq!(a.snapshot().proved_pairs, 2);
    // A tunnel that has just begun sends packets that every path carries.
    a.set_datagram_size(1_200);
    let at = at + 6_000 * MS;
    hear_nearer(&mut a, &mut b, at);
    carry(&mut a, &mut b, at, narrow);
    assert_eq!((a.direct_remote(), a.snapshot().reason), (Some(addr(1)), PathReason::BetterPath));
}

#[test]
fn a_tunnel_that_comes_from_the_relay_with_packets_too_large_is_asked_for_round_trips_for_a_second() {
    let now = start();
    for (widest, asked) in [(NARROW, 15..=20), (GROWN, 0..=0)] {
        let (mut a, mut b) = introduced(now);
        a.set_datagram_size(GROWN);
        a.handle_timeout(now, UNIX_MS);
        carry(&mut a, &mut b, now, |_, len| len <= widest);
        assert!(is_direct(&a), "1200 bytes are enough where there was no direct path");
        let first = play(&mut a, &mut b, [0, 1_010], now, |len| len <= widest);
        assert!(asked.contains(&first), "{widest} pass: {first}");
        assert_eq!(play(&mut a, &mut b, [1_010, 5_000], now, |len| len <= widest), 0);
        assert!(is_direct(&a));
    }
}

#[test]
fn packets_lost_because_they_are_too_large_are_not_held_against_the_line_and_a_bad_line_is_left() {
    let now = start();
    for shrinks in [true, false] {
        let (mut a, mut b) = introduced(now);
        a.set_datagram_size(GROWN);
        a.handle_timeout(now, UNIX_MS);
        carry(&mut a, &mut b, now, |_, _| true);
        play(&mut a, &mut b, [0, 12_000], now, |_| true);
        // Something under the path changes.
        let mut asked = 0;
        for look in 0..40 {
            let from = 12_000 + look * 250;
            let is_fitting = shrinks && look >= 4;
            if is_fitting {
                a.set_datagram_size(1_200);
            }
            let carried = if is_fitting { Carried { lost: 0, lost_bytes: 0, ..LARGE_LOST } } else { LARGE_LOST };
            a.handle_traffic(carried, 20 * MS, now + from * MS);
            asked += play(&mut a, &mut b, [from, from + 250], now, |len| len <= NARROW);
        }
        assert!((15..=20).contains(&asked), "{asked}");
        assert_eq!((is_direct(&a), a.snapshot().counters.lossy), (shrinks, u64::from(!shrinks)));
    }
}
