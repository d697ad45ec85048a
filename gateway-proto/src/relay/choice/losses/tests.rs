#![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
use super::*;
use crate::relay::{Choice, RelayChoice, Share, Standing};

const HOME: RelayId = RelayId::from_bytes([1; 16]);
const OTHER: RelayId = RelayId::from_bytes([2; 16]);
const LOOK: Duration = Duration::from_millis(250);
const SECOND: Duration = Duration::from_secs(1);

/// A choice between relays, of which it uses the first, and a tunnel over it.
struct Tunnel {
    choice: RelayChoice,
    links: Vec<Seen>,
    chosen: Choice,
    start: Instant,
    now: Instant,
    blamed: Vec<(Duration, LossVerdict)>,
    used: Vec<(Duration, Option<RelayId>)>,
}

impl Tunnel {
    fn over(relays: &[RelayId]) -> Self {
        let start = Instant::now();
        let seen = |relay: &RelayId| Seen {
            relay: *relay,
            standing: Standing::Sound,
            restarting: false,
            falls: 0,
            drops: None,
        };
        let mut tunnel = Self {
            choice: RelayChoice::new(true),
            links: relays.iter().map(seen).collect(),
            chosen: Choice::default(),
            start,
            now: start,
            blamed: Vec::new(),
            used: Vec::new(),
        };
        tunnel.choice.set_home(Some(HOME));
        tunnel.choose();
        tunnel
    }

    fn choose(&mut self) {
        self.chosen = self.choice.choose(&self.links, Some(self.now), self.now);
        let at = self.now - self.start;
        if self.used.last().is_none_or(|(_, best)| *best != self.chosen.best) {
            self.used.push((at, self.chosen.best));
        }
    }

    /// Four looks a second; of `sent` packets in each, those that `lost` says for the relay in use.
    fn run(&mut self, span: Duration, sent: u64, lost: impl Fn(RelayId, u64) -> u64) {
        let end = self.now + span;
        let mut look = 0;
        while self.now < end {
            self.now += LOOK;
            look += 1;
            let lost = self.chosen.best.map_or(0, |best| lost(best, look));
            let verdict = self.choice.carried(Carried { sent, lost, lost_bytes: 0 }, 0, self.now);
            if verdict != LossVerdict::Bearable {
                self.blamed.push((self.now - self.start, verdict));
            }
            self.choose();
        }
    }

    fn moves(&self) -> usize {
        self.used.len() - 1
    }
}

#[test]
fn udp_has_the_blame_first_then_the_relay_which_is_joined_by_another_before_it_is_left() {
    let mut tunnel = Tunnel::over(&[HOME, OTHER]);
    let at_home = |relay: RelayId, _: u64| if relay == HOME { 2 } else { 0 };
    tunnel.run(5 * SECOND, 10, at_home);
    assert_eq!(tunnel.blamed.iter().map(|(_, verdict)| *verdict).collect::<Vec<_>>(), [LossVerdict::BlamesUdp]);
    while tunnel.blamed.len() < 2 {
        assert_eq!((tunnel.chosen.best, tunnel.chosen.spare), (Some(HOME), None));
        tunnel.run(LOOK, 10, at_home);
        assert!(tunnel.now - tunnel.start < 12 * SECOND, "never");
    }
    assert!(
        matches!(tunnel.blamed[1].1, LossVerdict::BlamesRelay { relay: HOME, percent: 18..=22 }),
        "{:?}",
        tunnel.blamed
    );
    assert_eq!((tunnel.chosen.best, tunnel.chosen.spare), (Some(HOME), Some(OTHER)), "copies first");
    assert!(tunnel.chosen.begins_anew);
    assert!(tunnel.choice.poll_timeout(tunnel.now).is_some_and(|at| at <= tunnel.now + JOINED_FOR));
    tunnel.run(JOINED_FOR, 10, at_home);
    assert_eq!((tunnel.chosen.best, tunnel.chosen.spare), (Some(OTHER), None));
}

#[test]
fn what_a_change_of_the_carrier_ends_is_not_held_against_the_relay() {
    let mut tunnel = Tunnel::over(&[HOME, OTHER]);
    tunnel.run(5 * SECOND, 10, |_, _| 2);
    tunnel.links[0].falls += 1;
    tunnel.choose();
    tunnel.run(600 * SECOND, 10, |_, _| 0);
    assert_eq!((tunnel.blamed.len(), tunnel.moves()), (1, 0));
}

#[test]
fn what_twenty_messages_a_second_bear_and_a_bad_moment_move_nothing() {
    let mut tunnel = Tunnel::over(&[HOME, OTHER]);
    tunnel.run(600 * SECOND, 20, |_, look| u64::from(look % 2 == 0) * 2);
    tunnel.run(600 * SECOND, 1_000, |_, _| 60);
    assert!(tunnel.blamed.is_empty(), "one in twenty");
    // A second in which everything is lost, once in ten.
    tunnel.run(600 * SECOND, 10, |_, look| if look % 40 < 4 { 10 } else { 0 });
    // The end of a slow start that overshoots.
    tunnel.run(20 * SECOND, 500, |_, look| if look % 8 == 0 { 300 } else { 0 });
    assert_eq!((tunnel.blamed.len(), tunnel.moves()), (0, 0));
}

#[test]
fn a_tunnel_of_which_almost_nothing_passes_sends_little_and_that_is_enough() {
    let mut tunnel = Tunnel::over(&[HOME, OTHER]);
    tunnel.run(20 * SECOND, 1, |relay, look| u64::from(relay == HOME && look % 4 != 0));
    assert_eq!(tunnel.chosen.best, Some(OTHER));
}

#[test]
fn where_there_is_no_other_relay_nothing_changes_and_nothing_is_said_again_and_again() {
    let mut tunnel = Tunnel::over(&[HOME]);
    tunnel.run(900 * SECOND, 10, |_, _| 3);
    assert_eq!(tunnel.moves(), 0);
    assert!(tunnel.chosen.spare.is_none() && tunnel.chosen.further.is_empty());
    assert!(tunnel.blamed.len() <= 2, "{:?}", tunnel.blamed);
}

#[test]
fn home_is_tried_again_after_pauses_that_grow_and_the_try_is_short() {
    let mut tunnel = Tunnel::over(&[HOME, OTHER]);
    tunnel.run(3_600 * SECOND, 10, |relay, _| if relay == HOME { 3 } else { 0 });
    let tries: Vec<_> =
        tunnel.used.windows(2).filter(|two| two[0].1 == Some(HOME)).map(|two| two[1].0 - two[0].0).collect();
    assert!((6..=9).contains(&tries.len()), "in an hour {tries:?}");
    assert!(tries.iter().skip(1).all(|took| *took <= 6 * SECOND), "{tries:?}");
    // It is well again.
    tunnel.run(1_000 * SECOND, 10, |_, _| 0);
    assert_eq!(tunnel.chosen.best, Some(HOME));
}

#[test]
fn of_relays_that_all_lose_the_one_that_loses_less_than_half_as_much_is_used() {
    for (at_home, at_other, best) in [(4, 4, None), (2, 7, Some(HOME)), (8, 2, Some(OTHER))] {
        let mut tunnel = Tunnel::over(&[HOME, OTHER]);
        tunnel.run(60 * SECOND, 10, |relay, _| if relay == HOME { at_home } else { at_other });
        assert!(tunnel.moves() <= 3, "{:?}", tunnel.used);
        assert!(best.is_none_or(|best| tunnel.chosen.best == Some(best)), "{at_home} {at_other}: {:?}", tunnel.used);
        let before = tunnel.moves();
        tunnel.run(900 * SECOND, 10, |relay, _| if relay == HOME { at_home } else { at_other });
        assert!(tunnel.moves() - before <= 14, "in a quarter of an hour: {:?}", tunnel.used);
    }
}

#[test]
fn a_relay_that_says_that_it_drops_much_is_left_within_a_second_and_tried_after_a_minute() {
    let mut tunnel = Tunnel::over(&[HOME, OTHER]);
    tunnel.links[0].drops = Some(64);
    tunnel.choose();
    tunnel.choose();
    assert_eq!((tunnel.chosen.best, tunnel.chosen.spare), (Some(HOME), Some(OTHER)));
    tunnel.run(JOINED_FOR, 10, |_, _| 0);
    assert_eq!(tunnel.chosen.best, Some(OTHER));
    tunnel.run(15 * SECOND, 10, |_, _| 0);
    tunnel.links[0].drops = None;
    tunnel.run(40 * SECOND, 10, |_, _| 0);
    assert_eq!(tunnel.chosen.best, Some(OTHER), "nobody sends over it: of course it drops nothing");
    tunnel.run(10 * SECOND, 10, |_, _| 0);
    assert_eq!(tunnel.chosen.best, Some(HOME));
    for link in &mut tunnel.links {
        link.drops = Some(30);
    }
    let before = tunnel.moves();
    tunnel.run(600 * SECOND, 10, |_, _| 3);
    assert!(tunnel.moves() - before <= 8, "{:?}", tunnel.used);
}

#[test]
fn a_relay_that_does_not_see_the_peer_is_no_better_than_one_that_loses() {
    let mut tunnel = Tunnel::over(&[HOME, OTHER]);
    for _ in 0..600 {
        tunnel.run(LOOK, 10, |relay, _| if relay == HOME { 3 } else { 10 });
        if tunnel.chosen.best == Some(OTHER) || tunnel.chosen.spare == Some(OTHER) {
            tunnel.choice.absent(OTHER, tunnel.now);
            tunnel.choose();
        }
        tunnel.choice.heard(HOME, tunnel.now);
    }
    assert_eq!(tunnel.moves(), 0, "{:?}", tunnel.used);
}

/// A proxy that lets through a third of what eight partners want: our own link is full, and what it has no room for is declared lost long
/// after it was dropped, behind all that waits.
#[test]
fn what_our_own_slow_link_has_no_room_for_is_not_held_against_the_relay() {
    const BEHIND: u64 = 40;
    for relay_drops in [0_u64, 3] {
        let mut tunnel = Tunnel::over(&[HOME, OTHER]);
        for look in 0..2_400_u64 {
            tunnel.now += LOOK;
            // Half a minute in every minute it is full.
            let is_full = |look: u64| look % 240 < 120;
            let own = if is_full(look) { 6 } else { 0 };
            let lost = look.checked_sub(BEHIND).map_or(0, |sent| if is_full(sent) { 6 } else { 0 });
            let carried = Carried { sent: 9, lost: lost + relay_drops.min(9 - lost), lost_bytes: 0 };
            let verdict = tunnel.choice.carried(carried, own, tunnel.now);
            if verdict != LossVerdict::Bearable {
                tunnel.blamed.push((tunnel.now - tunnel.start, verdict));
            }
            tunnel.choose();
        }
        let moves = tunnel.moves();
        assert_eq!((moves > 0, !tunnel.blamed.is_empty()), (relay_drops > 0, relay_drops > 0), "{:?}", tunnel.used);
    }
}

#[test]
fn what_was_kept_back_and_never_declared_lost_hides_no_loss_for_long() {
    let mut tunnel = Tunnel::over(&[HOME, OTHER]);
    tunnel.run(2 * SECOND, 10, |_, _| 0);
    tunnel.choice.carried(Carried::default(), 1_000_000, tunnel.now);
    tunnel.run(59 * SECOND, 10, |_, _| 3);
    assert_eq!(tunnel.moves(), 0);
    tunnel.run(15 * SECOND, 10, |relay, _| if relay == HOME { 3 } else { 0 });
    assert_eq!(tunnel.chosen.best, Some(OTHER));
}

#[test]
fn what_goes_over_several_relays_or_beside_a_direct_path_says_nothing_of_one() {
    let mut tunnel = Tunnel::over(&[HOME, OTHER]);
    tunnel.choice.set_share(Share::Copies, tunnel.now);
    tunnel.run(60 * SECOND, 10, |_, _| 5);
    tunnel.choice.set_share(Share::Everything, tunnel.now);
    tunnel.links[0].standing = Standing::Suspected;
    tunnel.choose();
    tunnel.run(60 * SECOND, 10, |_, _| 5);
    assert_eq!((tunnel.blamed.len(), tunnel.moves()), (0, 0));
}
