//! What a relayed pair costs that nobody uses, beside its tunnel: it goes on looking for a direct path.

use std::time::Duration;

use super::{
    SECOND, easy, hard,
    nat::Nat,
    sim::{Link, World},
};

const HOUR: Duration = Duration::from_secs(3_600);
/// IPv4 and UDP.
const HEADERS: u64 = 28;
/// Around a signal: the WebSocket's frame, TLS, TCP and IPv4, and TCP's acknowledgement.
const SIGNAL_HEADERS: u64 = 170;
/// A tunnel over a relay has 40 of the 60 bytes a second that an idle pair may cost (`relay::udp::idle`).
const BYTES_PER_SECOND: f64 = 15.0;

/// Bytes on the line of a site so far, if all of its partner's probes arrive there: those of both sites, and the signals.
fn bytes(world: &World) -> u64 {
    let probes = world.sites.iter().map(|site| site.agent.snapshot().counters);
    let probes = probes.map(|sent| sent.probe_bytes_sent + (sent.pings_sent + sent.pongs_sent) * HEADERS);
    let signals = world.overheard.iter().map(|sealed| sealed.len() as u64 + SIGNAL_HEADERS);
    probes.chain(signals).sum()
}

/// A pair between which nothing passes, for hours after its last stream.
fn relayed_for_hours(nats: [Option<Nat>; 2]) -> World {
    let mut world = World::new(nats, Link { cut: true, ..Link::default() }, 1);
    world.start_both();
    world.run(10 * SECOND);
    world.rest();
    world.run(4 * HOUR);
    assert!(!world.is_direct(0) && !world.is_direct(1));
    world
}

#[test]
fn an_idle_relayed_pair_looks_for_a_direct_path_for_ever_and_for_a_few_bytes_a_second() {
    for nats in [[easy(1), easy(2)], [hard(1), hard(2)]] {
        let mut world = relayed_for_hours(nats);
        let attempts = |world: &World| world.sites.each_ref().map(|site| site.agent.snapshot().attempts);
        let (before, tried) = (bytes(&world), attempts(&world));
        world.run(12 * HOUR);
        let per_second = (bytes(&world) - before) as f64 / (12 * HOUR).as_secs_f64();
        println!("a relayed pair that nobody uses looks for a direct path for {per_second:.1} bytes/s");
        assert!(per_second <= BYTES_PER_SECOND, "{per_second:.1} bytes/s");
        let tried_since = attempts(&world)[0] - tried[0];
        assert!((24..=96).contains(&tried_since), "{tried_since} attempts in twelve hours");
    }
}

#[test]
fn what_keeps_an_idle_pair_from_a_direct_path_may_go_away_at_any_time() {
    let mut world = relayed_for_hours([easy(1), easy(2)]);
    world.link.cut = false;
    assert!(world.run_until(HOUR + 30 * SECOND, World::both_direct));
}

#[test]
fn the_first_stream_after_hours_looks_for_a_direct_path_at_once() {
    let mut world = relayed_for_hours([easy(1), easy(2)]);
    let attempts = |world: &World| world.sites[0].agent.snapshot().attempts;
    let before = attempts(&world);
    assert!(world.run_until(2 * HOUR, |world| attempts(world) >= before + 3), "one more round");
    // The pause that a pair in use would have made is over, the present one is not.
    world.run(920 * SECOND);
    assert_eq!(attempts(&world), before + 3);
    world.link.cut = false;
    let now = world.instant();
    world.sites.iter_mut().for_each(|site| site.agent.set_active(true, now));
    assert!(world.run_until(5 * SECOND, World::both_direct));
}
