//! Path agents in a simulated network: NATs, latency, loss, death and return, on virtual time.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests, one of which prints its figures")]

#[path = "path_network/idle.rs"]
mod idle;
#[path = "path_network/nat.rs"]
mod nat;
#[path = "path_network/short_packets.rs"]
mod short_packets;
#[path = "path_network/sim.rs"]
mod sim;

use std::{net::SocketAddr, time::Duration};

use gateway_proto::path::{CandidateKind, Obstacle, PathReason, Selected};
use nat::{Filtering, Mapping, Nat};
use proptest::prelude::*;
use sim::{Link, World};

const SECOND: Duration = Duration::from_secs(1);

fn easy(site: u8) -> Option<Nat> {
    Some(Nat::new(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent, [192, 0, 2, site]))
}

fn hard(site: u8) -> Option<Nat> {
    Some(Nat::new(Mapping::Random, Filtering::AddressAndPortDependent, [192, 0, 2, site]))
}

/// A world that has gone direct.
fn direct_world() -> World {
    let mut world = World::new([easy(1), easy(2)], Link::default(), 1);
    world.start_both();
    assert!(world.run_until(5 * SECOND, World::both_direct), "two easy NATs must go direct");
    world
}

#[test]
fn data_flows_over_the_relay_before_any_direct_path_is_proved() {
    let mut world = World::new([easy(1), easy(2)], Link::default(), 1);
    world.start_both();
    assert_eq!(world.sites[0].agent.selected(), Selected::Relayed);
    world.run(Duration::from_millis(60));
    assert!(world.sites[1].data_received > 0);
    assert!(!world.is_direct(0));
}

#[test]
fn two_easy_nats_go_direct_on_the_first_attempt() {
    let mut world = World::new([easy(1), easy(2)], Link::default(), 1);
    world.start_both();
    assert!(world.run_until(SECOND, World::both_direct), "one exchange and two round trips are enough");
    for site in &world.sites {
        assert_eq!(site.agent.snapshot().attempts, 1);
        assert_eq!(site.history.last().unwrap().2, PathReason::DirectProved);
    }
    world.run(20 * SECOND);
    assert!(world.sites.iter().all(|site| site.longest_gap < Duration::from_millis(200)), "no data is lost on the way");
}

#[test]
fn a_public_gateway_is_reached_from_behind_any_nat() {
    let mut world = World::new([None, hard(2)], Link::default(), 1);
    world.start_both();
    assert!(world.run_until(2 * SECOND, World::both_direct));
    let Selected::Direct { kind, .. } = world.sites[0].agent.selected() else { unreachable!() };
    assert_eq!(kind, CandidateKind::PeerReflexive, "the port of the hard NAT is only known from its probe");
}

#[test]
fn neighbours_on_one_lan_use_their_own_addresses() {
    let mut world = World::new([easy(1), easy(1)], Link::default(), 1);
    world.sites[1].host = SocketAddr::from(([10, 0, 0, 6], 7_000));
    world.start_both();
    assert!(world.run_until(2 * SECOND, World::both_direct));
    for site in 0..2 {
        let Selected::Direct { kind, remote, .. } = world.sites[site].agent.selected() else { unreachable!() };
        assert_eq!((kind, remote), (CandidateKind::Host, world.sites[1 - site].host));
    }
}

#[test]
fn two_hard_nats_stay_on_the_relay_and_data_keeps_flowing() {
    let mut world = World::new([hard(1), hard(2)], Link::default(), 1);
    world.start_both();
    world.run(300 * SECOND);
    for site in &world.sites {
        assert_eq!(site.agent.selected(), Selected::Relayed);
        assert_eq!(site.agent.snapshot().reason, PathReason::RelayFirst);
        assert!(site.longest_gap < Duration::from_millis(200));
        assert!(site.agent.snapshot().attempts >= 3, "and it is tried again");
        assert!(site.most_probes_in_a_minute < 300, "without a storm: {}", site.most_probes_in_a_minute);
    }
}

#[test]
fn an_active_path_that_dies_is_replaced_by_the_relay_within_three_seconds() {
    let mut world = direct_world();
    world.run(10 * SECOND);
    world.link.cut = true;
    let cut_at = world.now;
    assert!(world.run_until(10 * SECOND, |w| w.sites.iter().all(|s| s.agent.selected() == Selected::Relayed)));
    assert!(world.now - cut_at <= 3 * SECOND, "{:?}", world.now - cut_at);
    world.run(5 * SECOND);
    for site in &world.sites {
        assert_eq!(site.history.last().unwrap().2, PathReason::HeartbeatLost);
        assert!(site.longest_gap <= Duration::from_millis(2_500), "duplicates come first: {:?}", site.longest_gap);
    }
    world.link.cut = false;
    assert!(world.run_until(8 * SECOND, World::both_direct), "nothing is latched");
}

#[test]
fn a_path_that_carries_small_packets_only_is_never_promoted() {
    let mut world = World::new([easy(1), easy(2)], Link { mtu: 900, ..Link::default() }, 1);
    world.start_both();
    assert!(world.run_until(20 * SECOND, both_say_too_small), "and both sides know why");
    world.run(100 * SECOND);
    for site in &world.sites {
        assert_eq!(site.agent.selected(), Selected::Relayed);
        let snapshot = site.agent.snapshot();
        assert!(snapshot.heard_pairs > 0 && snapshot.proved_pairs == 0);
        assert!(site.longest_gap < Duration::from_millis(200));
    }
}

#[test]
fn a_path_whose_packet_size_shrinks_is_left() {
    let mut world = direct_world();
    world.link.mtu = 900;
    assert!(world.run_until(30 * SECOND, |w| !w.is_direct(0) && !w.is_direct(1)));
    for site in &world.sites {
        assert_eq!(site.history.last().unwrap().2, PathReason::PacketsTooSmall, "{:?}", site.history);
    }
    assert!(world.run_until(30 * SECOND, both_say_too_small), "and stays the reason after all was tried again");
}

fn both_say_too_small(world: &World) -> bool {
    world.sites.iter().all(|site| site.agent.snapshot().obstacle == Some(Obstacle::PacketsTooSmall))
}

#[test]
fn a_peer_that_stands_still_is_never_taken_for_a_path_of_small_packets() {
    // One heartbeat in ten has full size: whatever is on its way when the peer stops.
    for ms in (0..11_000).step_by(310) {
        let mut world = direct_world();
        world.run(Duration::from_millis(ms));
        world.sites[1].frozen = true;
        assert!(world.run_until(10 * SECOND, |w| w.sites[0].agent.selected() == Selected::Relayed));
        assert_eq!(world.sites[0].history.last().unwrap().2, PathReason::HeartbeatLost, "stopped after {ms} ms");
        for _ in 0..100 {
            let obstacle = world.sites[0].agent.snapshot().obstacle;
            assert_ne!(obstacle, Some(Obstacle::PacketsTooSmall), "stopped after {ms} ms");
            world.run(SECOND);
        }
        assert_eq!(world.sites[0].agent.snapshot().obstacle, Some(Obstacle::NoAnswer));
    }
}

#[test]
fn a_flushed_nat_is_recovered_from() {
    let mut world = direct_world();
    world.run(5 * SECOND);
    world.sites[0].nat.as_mut().unwrap().flush();
    world.run(30 * SECOND);
    assert!(world.both_direct(), "the new mapping is learned");
    for site in &world.sites {
        assert!(site.longest_gap <= 3 * SECOND, "{:?}", site.longest_gap);
    }
}

#[test]
fn an_idle_direct_path_lives_for_ever_without_flapping() {
    let mut world = direct_world();
    for site in &mut world.sites {
        site.history.clear();
    }
    let now = world.instant();
    world.sites.iter_mut().for_each(|site| site.agent.set_active(false, now));
    world.run(1_800 * SECOND);
    assert!(world.both_direct());
    for site in &world.sites {
        assert!(site.history.is_empty(), "{:?}", site.history);
        assert!(site.most_probes_in_a_minute < 100, "{}", site.most_probes_in_a_minute);
    }
}

#[test]
fn moderate_loss_neither_prevents_a_direct_path_nor_makes_it_flap() {
    let mut world = World::new([easy(1), easy(2)], Link { loss_percent: 5, ..Link::default() }, 7);
    world.start_both();
    assert!(world.run_until(12 * SECOND, World::both_direct));
    world.run(600 * SECOND);
    for site in &world.sites {
        assert!(site.agent.snapshot().counters.demotions == 0, "{:?}", site.history);
    }
}

#[test]
fn a_restarted_peer_is_direct_again_while_the_other_side_never_lost_the_relay() {
    let mut world = direct_world();
    world.run(5 * SECOND);
    world.restart(1);
    assert!(world.run_until(10 * SECOND, World::both_direct));
    world.run(20 * SECOND);
    assert!(world.both_direct());
    assert!(world.sites.iter().all(|site| site.longest_gap <= 3 * SECOND));
}

#[test]
fn a_direct_path_outlives_the_relay() {
    let mut world = direct_world();
    world.set_relay(0, false);
    world.set_relay(1, false);
    world.run(120 * SECOND);
    assert!(world.both_direct());
    world.link.cut = true;
    world.run(10 * SECOND);
    assert!(world.sites.iter().all(|site| site.agent.selected() == Selected::None));
    world.link.cut = false;
    assert!(world.run_until(30 * SECOND, World::both_direct), "known addresses are tried without a relay, too");
}

#[test]
fn without_a_relay_a_short_cut_is_recovered_from_with_what_both_sides_know() {
    let mut world = direct_world();
    world.set_relay(0, false);
    world.set_relay(1, false);
    world.run(3 * SECOND);
    world.link.cut = true;
    world.run(4 * SECOND);
    assert!(world.sites.iter().all(|site| site.agent.selected() == Selected::None));
    world.link.cut = false;
    assert!(world.run_until(Duration::from_millis(2_200), World::both_direct), "a punch round follows the demotion");
}

#[test]
fn a_relay_that_comes_late_starts_the_punch() {
    let mut world = World::new([easy(1), easy(2)], Link::default(), 1);
    let now = world.instant();
    world.sites.iter_mut().for_each(|site| site.agent.wants_direct(true, now));
    world.run(10 * SECOND);
    assert!(world.sites.iter().all(|site| site.agent.selected() == Selected::None));
    world.set_relay(0, true);
    world.set_relay(1, true);
    assert!(world.run_until(5 * SECOND, World::both_direct));
}

#[test]
fn the_relay_sees_no_address_in_any_signal() {
    let mut world = World::new([easy(1), easy(2)], Link { cut: true, ..Link::default() }, 1);
    world.start_both();
    world.run(200 * SECOND);
    assert!(world.overheard.len() >= 4);
    let secrets: Vec<Vec<u8>> =
        vec![vec![10, 0, 0, 5], vec![10, 1, 0, 5], vec![192, 0, 2, 1], vec![192, 0, 2, 2], [9; 32].to_vec()];
    for signal in &world.overheard {
        assert!(!secrets.iter().any(|secret| signal.windows(secret.len()).any(|window| window == secret)));
    }
}

/// What the two NATs allow: the promise of the agents for every network.
fn direct_is_possible(nats: &[Option<Nat>; 2]) -> bool {
    match nats {
        [None, _] | [_, None] => true,
        [Some(a), Some(b)] => match (a.mapping.is_easy(), b.mapping.is_easy()) {
            (true, true) => true,
            // The easy side must let in a port it did not send to.
            (true, false) => a.filtering != Filtering::AddressAndPortDependent,
            (false, true) => b.filtering != Filtering::AddressAndPortDependent,
            // Each answer comes from another port than the question went to.
            (false, false) => false,
        },
    }
}

fn any_filtering() -> impl Strategy<Value = Filtering> {
    prop_oneof![
        Just(Filtering::EndpointIndependent),
        Just(Filtering::AddressDependent),
        Just(Filtering::AddressAndPortDependent)
    ]
}

/// A router, by what it does; `None`: there is none.
fn any_kind() -> impl Strategy<Value = Kind> {
    let mapping = prop_oneof![
        Just(Mapping::EndpointIndependent),
        Just(Mapping::Preserving),
        Just(Mapping::Transparent),
        Just(Mapping::Counting),
        Just(Mapping::Random)
    ];
    prop::option::weighted(0.85, (mapping, any_filtering()))
}

/// The same in a world of IPv6, where nothing is translated.
fn any_kind6() -> impl Strategy<Value = Kind> {
    prop::option::weighted(0.85, (Just(Mapping::Transparent), any_filtering()))
}

/// The kinds of both sites, and whether they have IPv6 addresses.
fn any_kinds() -> impl Strategy<Value = ([Kind; 2], bool)> {
    prop_oneof![
        4 => [any_kind(), any_kind()].prop_map(|kinds| (kinds, false)),
        1 => [any_kind6(), any_kind6()].prop_map(|kinds| (kinds, true)),
    ]
}

fn build((behaviour, site): (Kind, u8)) -> Option<Nat> {
    behaviour.map(|(mapping, filtering)| match mapping {
        Mapping::Transparent => Nat::firewall(filtering, [198, 51, 100, 20 + site].into()),
        Mapping::EndpointIndependent | Mapping::Preserving | Mapping::Counting | Mapping::Random => {
            Nat::new(mapping, filtering, [192, 0, 2, site])
        }
    })
}

fn host6(site: u16) -> SocketAddr {
    SocketAddr::from(([0x2001, 0xdb8, site, 0, 0, 0, 0, 5], 7_000))
}

/// A world of these kinds, whose routers forget after so long.
fn world_of((kinds, ipv6): ([Kind; 2], bool), link: Link, lifetime: Duration, seed: u64) -> World {
    let mut nats = [build((kinds[0], 1)), build((kinds[1], 2))];
    for (nat, site) in nats.iter_mut().zip(1..) {
        if let Some(nat) = nat {
            nat.lifetime = lifetime;
            if ipv6 {
                nat.public_ip = host6(site).ip();
            }
        }
    }
    let mut world = World::new(nats, link, seed);
    if ipv6 {
        for (site, number) in world.sites.iter_mut().zip(1..) {
            site.host = host6(number);
        }
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Five minutes: data at the beginning and at the end, and nothing in between but what the agents say, while routers forget.
    #[test]
    fn whatever_the_network_data_flows_and_direct_is_found_where_it_exists_and_nowhere_else(
        kinds in any_kinds(),
        latency_ms in 1_u64..150,
        relay_ms in 1_u64..150,
        loss_percent in 0_u32..=20,
        jitter_ms in 0_u64..40,
        lifetime_secs in 5_u64..=120,
        seed in any::<u64>(),
    ) {
        let possible = direct_is_possible(&kinds.0.map(|kind| build((kind, 1))));
        let link = Link {
            latency: Duration::from_millis(latency_ms),
            relay_latency: Duration::from_millis(relay_ms),
            jitter: Duration::from_millis(jitter_ms),
            loss_percent,
            ..Link::default()
        };
        let mut world = world_of(kinds, link, Duration::from_secs(lifetime_secs), seed);
        // Each lost probe of a handful may cost a round, and a port that a router forgot is learned with the next round of STUN.
        let limits = if loss_percent < 4 { [15 * SECOND, 60 * SECOND] } else { [70 * SECOND, 100 * SECOND] };
        world.start_both();
        for (limit, is_again) in limits.into_iter().zip([false, true]) {
            if is_again {
                world.rest();
                world.run(270 * SECOND);
                world.wake();
                // A path that died meanwhile looks like one until data moves.
                world.run(5 * SECOND);
            }
            if possible {
                let found = world.run_until(limit, World::both_direct);
                prop_assert!(found, "{:?}", world.sites.each_ref().map(|site| site.agent.snapshot()));
            } else {
                world.run(15 * SECOND);
            }
            for site in &world.sites {
                prop_assert!(site.longest_gap < 3 * SECOND, "{:?}", site.longest_gap);
                prop_assert!(site.agent.selected() != Selected::None);
            }
        }
        for site in &world.sites {
            let was_direct = site.history.iter().any(|(_, selected, _)| matches!(selected, Selected::Direct { .. }));
            prop_assert!(possible || !was_direct, "a direct path that cannot be: {:?}", site.history);
        }
    }
}

/// What the NATs of a pair make possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Oracle {
    /// By probing what both sides know.
    Punched,
    /// By guessing one port of a NAT that draws them.
    Guessed,
    /// By the relay only.
    Relayed,
}

type Kind = Option<(Mapping, Filtering)>;

fn oracle(kinds: [Kind; 2]) -> Oracle {
    let [Some(a), Some(b)] = kinds else { return Oracle::Punched };
    let nats = [a, b].map(|(mapping, filtering)| Some(Nat::new(mapping, filtering, [192, 0, 2, 1])));
    let hard = |mapping: Mapping| !mapping.is_easy();
    match (direct_is_possible(&nats), hard(a.0) && hard(b.0)) {
        (true, _) => Oracle::Punched,
        (false, true) => Oracle::Relayed,
        (false, false) => Oracle::Guessed,
    }
}

/// Every NAT the matrix knows; `None`: no NAT at all.
fn kinds() -> Vec<Kind> {
    use Filtering::{AddressAndPortDependent as Port, AddressDependent as Address, EndpointIndependent as Open};
    use Mapping::{Counting, EndpointIndependent as Easy, Random};
    vec![
        None,
        Some((Easy, Open)),
        Some((Easy, Address)),
        Some((Easy, Port)),
        Some((Counting, Port)),
        Some((Random, Open)),
        Some((Random, Port)),
    ]
}

/// A network that differs from seed to seed: latency, reordering, loss, expiry, ports.
fn seeded_world(kinds: [Kind; 2], seed: u64, guessing: bool) -> World {
    let nat = |site: u8| {
        let (mapping, filtering) = kinds[usize::from(site)]?;
        let mut nat = Nat::new(mapping, filtering, [192, 0, 2, site + 1]).seeded(seed);
        nat.lifetime = Duration::from_secs(20 + seed % 3 * 20);
        Some(nat)
    };
    let link = Link {
        latency: Duration::from_millis(1 + seed * 7 % 90),
        jitter: Duration::from_millis(seed % 4 * 10),
        relay_latency: Duration::from_millis(5 + seed * 13 % 120),
        loss_percent: (seed % 3) as u32,
        ..Link::default()
    };
    World::with_guessing([nat(0), nat(1)], link, seed, [guessing; 2])
}

const RUNS: u64 = 100;

/// Plays every pair of this kind with itself and the kinds after it for which the oracle says `expected`, 100 times for up to
/// 12 s. `verdict` gets the worlds that became direct.
fn play_pairs(first: usize, expected: Oracle, mut verdict: impl FnMut([Kind; 2], Vec<Option<World>>)) {
    let kinds = kinds();
    for second in &kinds[first..] {
        let pair = [kinds[first], *second];
        if oracle(pair) == expected {
            let worlds = (0..RUNS).map(|seed| {
                let mut world = seeded_world(pair, seed, expected == Oracle::Guessed);
                world.start_both();
                world.run_until(12 * SECOND, World::both_direct).then_some(world)
            });
            verdict(pair, worlds.collect());
        }
    }
}

fn is_direct_on_the_first_attempt(first: usize) {
    play_pairs(first, Oracle::Punched, |pair, worlds| {
        let at_first = |world: &World| world.sites.iter().all(|site| site.agent.snapshot().attempts <= 1);
        let at_first = worlds.iter().flatten().filter(|world| at_first(world)).count();
        assert!(worlds.iter().all(Option::is_some), "{pair:?} can be direct and is not");
        assert!(at_first as u64 * 100 >= RUNS * 97, "{pair:?}: {at_first} of {RUNS} on the first attempt");
    });
}

// A test for each kind, so that they run beside each other.

#[test]
fn a_public_gateway_reaches_every_kind_on_the_first_attempt() {
    is_direct_on_the_first_attempt(0);
}

#[test]
fn a_full_cone_reaches_every_kind_on_the_first_attempt() {
    is_direct_on_the_first_attempt(1);
}

#[test]
fn an_address_restricted_nat_reaches_every_kind_on_the_first_attempt() {
    is_direct_on_the_first_attempt(2);
}

#[test]
fn a_port_restricted_nat_reaches_every_kind_it_can_on_the_first_attempt() {
    is_direct_on_the_first_attempt(3);
}

#[test]
fn hard_nats_reach_what_they_can_on_the_first_attempt() {
    (4..kinds().len()).for_each(is_direct_on_the_first_attempt);
}

#[test]
fn one_hard_nat_is_overcome_within_twelve_seconds_where_both_sides_allow_guessing() {
    let mut pairs = 0;
    for first in 0..kinds().len() {
        play_pairs(first, Oracle::Guessed, |pair, worlds| {
            pairs += 1;
            let found = worlds.iter().flatten().count();
            let slowest = worlds.iter().flatten().map(|world| world.now).max();
            println!("{pair:?}: {found} of {RUNS} direct within 12 s, the slowest after {slowest:?}");
            assert!(found as u64 * 100 >= RUNS * 95, "{pair:?}: {found} of {RUNS}");
        });
    }
    assert_eq!(pairs, 3, "a counting NAT, and two random ones");
}

#[test]
fn what_cannot_be_direct_stays_on_the_relay_and_nobody_guesses_unless_both_allow_it() {
    let (easy, random) = (kinds()[3], kinds()[6]);
    for guessing in [[false, false], [true, false], [false, true]] {
        let nats = [build((easy, 1)), build((random, 2))];
        let mut world = World::with_guessing(nats, Link::default(), 1, guessing);
        world.start_both();
        world.run(200 * SECOND);
        for site in &world.sites {
            assert_eq!(site.agent.selected(), Selected::Relayed);
            assert_eq!(site.agent.snapshot().counters.guess_probes, 0);
        }
    }
}

#[test]
fn guessing_runs_twice_a_day_and_the_sockets_are_closed() {
    // The hard side's packets never arrive, so no run succeeds.
    let mut world = World::with_guessing([easy(1), hard(2)], Link { mtu: 60, ..Link::default() }, 3, [true; 2]);
    world.start_both();
    world.run(7_200 * SECOND);
    for site in &world.sites {
        assert_eq!(site.agent.snapshot().counters.guess_runs, 2);
        assert!(site.outcomes.len() == 2 && site.outcomes.iter().all(|outcome| !outcome.direct));
        assert!(site.extra_sockets.is_empty());
    }
}

#[test]
fn a_guessed_path_carries_data_and_outlives_the_idle_time_of_the_nat() {
    let mut world = World::with_guessing([easy(1), hard(2)], Link::default(), 4, [true; 2]);
    world.start_both();
    assert!(world.run_until(12 * SECOND, World::both_direct));
    let now = world.instant();
    world.sites.iter_mut().for_each(|site| site.agent.set_active(false, now));
    world.run(600 * SECOND);
    assert!(world.both_direct());
    let Selected::Direct { socket, .. } = world.sites[1].agent.selected() else { unreachable!() };
    assert_ne!(socket, gateway_proto::path::LocalSocket::MAIN);
    assert_eq!(world.sites[1].extra_sockets.len(), 1, "the others are closed");
    assert!(world.sites.iter().all(|site| site.longest_gap < Duration::from_millis(300)));
}

/// What a plain masquerading router does: an early packet occupies the port for half a minute, and anew each time.
fn masquerading(site: u8) -> Option<Nat> {
    let mut nat = easy(site).unwrap();
    nat.offence = Some(30 * SECOND);
    Some(nat)
}

#[test]
fn near_sites_behind_plain_masquerading_routers_go_direct_on_the_first_attempt() {
    for (latency_us, relay_us) in [(100, 200), (100, 20_000), (1_000, 1_000), (5_000, 3_000)] {
        let [latency, relay_latency] = [latency_us, relay_us].map(Duration::from_micros);
        let link = Link { latency, relay_latency, hops: 3, ..Link::default() };
        let mut world = World::new([masquerading(1), masquerading(2)], link, 1);
        world.start_both();
        assert!(world.run_until(2 * SECOND, World::both_direct), "{latency:?} {relay_latency:?}");
        assert!(world.sites.iter().all(|site| site.agent.snapshot().attempts == 1));
    }
}

#[test]
fn a_router_that_was_reached_too_early_is_left_in_peace_until_it_has_forgotten() {
    let link = Link { latency: Duration::from_millis(1), hops: 3, ..Link::default() };
    let mut world = World::new([masquerading(1), masquerading(2)], link, 1);
    // The first answer is late by more than the opener's head start.
    world.link.answer_delay = Duration::from_millis(300);
    world.start_both();
    world.run(12 * SECOND);
    assert!(!world.is_direct(0) && !world.is_direct(1), "the port is occupied");
    world.link.answer_delay = Duration::ZERO;
    assert!(
        world.run_until(80 * SECOND, World::both_direct),
        "{:?}",
        world.sites.each_ref().map(|s| s.agent.snapshot())
    );
}

#[test]
fn a_nat_that_takes_offence_at_early_packets_is_won_by_a_changed_attempt() {
    let touchy = |site| {
        let mut nat = easy(site).unwrap();
        nat.offence = Some(Duration::from_millis(1_500));
        Some(nat)
    };
    let mut world = World::new([touchy(1), easy(2)], Link { latency: Duration::from_millis(5), ..Link::default() }, 1);
    // The answering side starts long before the offering side hears of it: its packets come unasked.
    world.link.answer_delay = Duration::from_millis(120);
    world.start_both();
    assert!(
        world.run_until(12 * SECOND, World::both_direct),
        "{:?}",
        world.sites.each_ref().map(|s| s.agent.snapshot())
    );
    assert!(world.sites.iter().any(|site| site.agent.snapshot().attempts > 1), "the first attempt cannot have won");
}
