//! Where something between two sites drops short packets: what is direct is left, and is not taken up before they pass again.

use std::time::Duration;

use gateway_proto::path::{Obstacle, PathReason, Selected};

use super::{
    SECOND, direct_world, easy,
    sim::{Link, World},
};

/// The same for acknowledgements and small probes; data and probes of full size pass.
const HOLE: usize = 200;
/// One way, the other way, both ways.
const HOLES: [[usize; 2]; 3] = [[HOLE, 0], [0, HOLE], [HOLE, HOLE]];
/// How long data may wait when a direct path dies while the relay lives.
const PROMISE: Duration = Duration::from_millis(2_500);

fn both_relayed(world: &World) -> bool {
    world.sites.iter().all(|site| site.agent.selected() == Selected::Relayed)
}

/// How the paths of both sites changed from now on, until short packets have not passed for ten minutes.
fn changes_while_it_lasts(world: &mut World) -> [usize; 2] {
    let before = world.sites.each_ref().map(|site| site.history.len());
    world.run(600 * SECOND);
    let after = world.sites.each_ref().map(|site| site.history.len());
    [after[0] - before[0], after[1] - before[1]]
}

fn says_why(world: &World) {
    for site in &world.sites {
        let snapshot = site.agent.snapshot();
        assert_eq!(snapshot.reason, PathReason::SmallPacketsLost);
        assert_eq!(snapshot.obstacle, Some(Obstacle::SmallPacketsLost));
    }
}

#[test]
fn a_path_in_use_that_comes_to_drop_short_packets_is_left_in_time_and_not_used_again_before_they_pass() {
    for (shortest, after) in HOLES.into_iter().flat_map(|hole| [(hole, 10_000), (hole, 10_700), (hole, 19_300)]) {
        let mut world = direct_world();
        world.run(Duration::from_millis(after));
        world.link.shortest = shortest;
        let begun = world.now;
        assert!(world.run_until(10 * SECOND, both_relayed), "{shortest:?}: {:?}", world.sites[0].agent.snapshot());
        // A question that was on its way may just have been answered.
        assert!(world.now - begun <= PROMISE + Duration::from_millis(50), "{:?} at {shortest:?}", world.now - begun);
        says_why(&world);
        assert_eq!(changes_while_it_lasts(&mut world), [0, 0], "{shortest:?}");
        // Where none passes either way nobody is heard any more, and that is all that is known then.
        if shortest != [HOLE; 2] {
            says_why(&world);
        }
        world.link.shortest = [0; 2];
        // Attempts in vain are made less and less often, down to one in a quarter of an hour.
        assert!(world.run_until(960 * SECOND, World::both_direct), "nothing is latched: {shortest:?}");
        assert!(world.sites.iter().all(|site| site.longest_gap <= Duration::from_millis(500)));
    }
}

#[test]
fn an_idle_path_that_comes_to_drop_short_packets_is_left_as_soon_as_an_answer_is_missed() {
    for shortest in HOLES {
        let mut world = direct_world();
        world.rest();
        world.run(100 * SECOND);
        world.link.shortest = shortest;
        // The question of the tunnel has no answer.
        let now = world.instant();
        world.sites.iter_mut().for_each(|site| site.agent.check(now));
        let begun = world.now;
        assert!(world.run_until(10 * SECOND, both_relayed), "{shortest:?}");
        assert!(world.now - begun <= PROMISE, "{:?} at {shortest:?}", world.now - begun);
        says_why(&world);
        assert_eq!(changes_while_it_lasts(&mut world), [0, 0], "{shortest:?}");
    }
}

#[test]
fn a_path_that_never_carried_short_packets_one_way_or_both_is_never_used() {
    for shortest in HOLES {
        let mut world = World::new([easy(1), easy(2)], Link { shortest, ..Link::default() }, 1);
        world.start_both();
        world.run(300 * SECOND);
        for site in &world.sites {
            assert_eq!((site.agent.selected(), site.history.len()), (Selected::Relayed, 1), "{shortest:?}");
            assert!(site.longest_gap < Duration::from_millis(200));
        }
    }
}

#[test]
fn a_line_that_loses_a_fifth_each_way_is_hardly_ever_said_to_lose_small_packets_and_is_used_most_of_the_time() {
    let mut world = World::new([easy(1), easy(2)], Link { loss_percent: 20, ..Link::default() }, 3);
    world.start_both();
    let mut direct = 0;
    for _ in 0..3_600 {
        world.run(SECOND);
        direct += usize::from(world.is_direct(0)) + usize::from(world.is_direct(1));
    }
    let left: u64 = world.sites.iter().map(|site| site.agent.snapshot().counters.demotions).sum();
    let all = world.sites.iter().flat_map(|site| &site.history);
    let mistaken = all.filter(|(_, _, reason)| *reason == PathReason::SmallPacketsLost).count();
    // By chance alone five questions in a row fail some twenty times in an hour, at each of the two sites.
    assert!(left <= 70, "left {left} times");
    assert!(mistaken <= 15, "{mistaken} times of {left}");
    assert!(direct >= 2 * 3_600 * 8 / 10, "{direct} s of 7200");
}
