//! Our own end of a path, on a machine with two uplinks.

use std::net::IpAddr;

use super::*;
use crate::path::LocalEnd;

/// The second address of b. The kernel's choice is `addr(1)`.
fn second() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 2], 7_000))
}

fn at_second() -> LocalEnd {
    LocalEnd { address: Some(second().ip()), ..LocalEnd::default() }
}

fn with_two_uplinks(now: Instant) -> (PathAgent, PathAgent) {
    let (mut a, mut b) = (ready(0, 1, now), ready(1, 2, now));
    let own = [addr(1), second()].map(|address| Candidate::new(CandidateKind::Host, address));
    b.handle_local_candidates(own.to_vec(), NatView::default(), now);
    introduce(&mut a, &mut b, now, UNIX_MS);
    (a, b)
}

fn local(agent: &PathAgent) -> Option<Option<IpAddr>> {
    match agent.selected() {
        Selected::Direct { local, .. } => Some(local),
        Selected::None | Selected::Relayed => None,
    }
}

/// Carries probes without delay until there are none; what passes b's first uplink only if that works.
fn carry(a: &mut PathAgent, b: &mut PathAgent, first_works: bool, now: Instant) {
    loop {
        let from_a = probes(a);
        let from_b: Vec<_> = std::iter::from_fn(|| b.poll_transmit()).collect();
        if from_a.is_empty() && from_b.is_empty() {
            return;
        }
        for (to, packet) in from_a {
            let end = if to == second() { at_second() } else { LocalEnd::default() };
            if first_works || to == second() {
                b.handle_probe(end, addr(0), &packet, now).unwrap();
            }
        }
        for transmit in from_b {
            let PathTransmit::Probe { local, packet, .. } = transmit else { continue };
            let from = if local == at_second().address { second() } else { addr(1) };
            if first_works || from == second() {
                a.handle_probe(LocalSocket::MAIN, from, &packet, now).unwrap();
            }
        }
    }
}

/// Lets so many milliseconds pass.
fn play(a: &mut PathAgent, b: &mut PathAgent, first_works: bool, now: Instant, milliseconds: u32) {
    for ms in (0..milliseconds).step_by(10) {
        let at = now + ms * MS;
        for agent in [&mut *a, &mut *b] {
            agent.set_active(true, at);
            agent.handle_timeout(at, UNIX_MS + u64::from(ms));
        }
        carry(a, b, first_works, at);
    }
}

#[test]
fn a_site_whose_second_address_alone_is_reachable_is_direct_and_sends_by_that() {
    let now = start();
    let (mut a, mut b) = with_two_uplinks(now);
    play(&mut a, &mut b, false, now, 3_000);
    assert!(matches!(a.selected(), Selected::Direct { remote, local: None, .. } if remote == second()));
    assert_eq!(local(&b), Some(at_second().address));
    assert_eq!(b.local_addresses().collect::<Vec<_>>(), [second().ip()]);
    let learned = [&a, &b].map(|agent| agent.snapshot().counters.addresses_learned);
    assert_eq!(learned, [0, 0], "nobody met an address that was not offered");
    // Heartbeats keep to it.
    play(&mut a, &mut b, false, now + 3_000 * MS, 10_000);
    assert!(is_direct(&a) && local(&b) == Some(at_second().address));
    assert_eq!((a.snapshot().counters.distrusts, b.snapshot().counters.distrusts), (0, 0));
}

#[test]
fn where_both_uplinks_work_the_kernel_chooses_and_no_path_flaps() {
    let now = start();
    let (mut a, mut b) = with_two_uplinks(now);
    play(&mut a, &mut b, true, now, 20_000);
    assert!(is_direct(&a));
    assert_eq!(local(&b), Some(None));
    assert_eq!(b.local_addresses().count(), 0);
    assert_eq!(b.snapshot().counters.promotions, 1);
}

#[test]
fn a_path_whose_own_address_is_gone_is_left_at_once() {
    let now = start();
    let (mut a, mut b) = with_two_uplinks(now);
    play(&mut a, &mut b, false, now, 3_000);
    events(&mut b);
    let later = now + 3_000 * MS;
    b.handle_local_addresses(|_| true, later);
    assert!(is_direct(&b) && events(&mut b).is_empty());
    b.handle_local_addresses(|address| address != second().ip(), later);
    let reason = PathReason::LocalAddressGone;
    assert!(events(&mut b).contains(&PathEvent::Selected { selected: Selected::Relayed, reason }));
    assert_eq!((b.selected(), b.local_addresses().count()), (Selected::Relayed, 0));
    let asked: Vec<_> = std::iter::from_fn(|| b.poll_transmit()).collect();
    assert!(
        asked.iter().any(|sent| matches!(sent, PathTransmit::Probe { local: None, to, .. } if *to == addr(0))),
        "the kernel's choice is tried at once"
    );
}

#[test]
fn an_address_that_has_become_the_kernels_choice_is_remembered_no_more_and_its_path_stays() {
    let now = start();
    let (mut a, mut b) = with_two_uplinks(now);
    play(&mut a, &mut b, false, now, 3_000);
    events(&mut b);
    b.handle_ways(|_| Some(addr(1).ip()));
    assert_eq!(local(&b), Some(at_second().address), "the kernel chooses the other one");
    b.handle_ways(|_| None);
    assert_eq!(local(&b), Some(at_second().address), "or none");
    b.handle_ways(|_| Some(second().ip()));
    assert_eq!((local(&b), b.local_addresses().count()), (Some(None), 0));
    // As the address goes, nothing is left for it.
    b.handle_local_addresses(|_| false, now + 3_000 * MS);
    assert!(is_direct(&b) && events(&mut b).is_empty());
}

#[test]
fn when_the_path_by_the_second_address_falls_silent_the_kernels_choice_is_tried_again() {
    let now = start();
    let (mut a, mut b) = with_two_uplinks(now);
    play(&mut a, &mut b, false, now, 3_000);
    assert_eq!(local(&b), Some(at_second().address));
    // The second uplink dies behind its router: the address stays.
    let mut asked = Vec::new();
    for ms in (3_000_u32..60_000).step_by(10) {
        b.set_active(true, now + ms * MS);
        b.handle_timeout(now + ms * MS, UNIX_MS + u64::from(ms));
        let sent = std::iter::from_fn(|| b.poll_transmit()).collect::<Vec<_>>();
        if !is_direct(&b) {
            asked.extend(sent.into_iter().filter_map(|transmit| match transmit {
                PathTransmit::Probe { local, .. } => Some(local),
                PathTransmit::Signal { .. } => None,
            }));
        }
    }
    assert!(!asked.is_empty() && asked.iter().all(Option::is_none), "{asked:?}");
    assert_eq!(b.local_addresses().count(), 0);
}
