use super::*;

fn instance(n: u8) -> Instance {
    Instance::from_random([n; 16])
}

const A: Instance = Instance::from_random([1; 16]);
const B: Instance = Instance::from_random([2; 16]);
const C: Instance = Instance::from_random([3; 16]);

fn enter(seat: &mut Seat, who: Instance, life: Life, now: u64) -> Verdict {
    seat.enter(who, Some("192.0.2.1".into()), life, now)
}

#[test]
fn an_instance_is_thirty_two_hex_digits_and_back() {
    let text = A.to_string();
    assert_eq!((text.len(), text.parse()), (32, Ok(A)));
    for wrong in ["", "01", &"g".repeat(32), &"0".repeat(34)] {
        assert_eq!(wrong.parse::<Instance>(), Err(InstanceError), "{wrong}");
    }
    assert_eq!(serde_json::to_string(&A).unwrap(), format!("\"{text}\""));
}

#[test]
fn a_restart_takes_the_place_at_once_and_nobody_runs_twice() {
    let mut seat = Seat::default();
    assert_eq!(enter(&mut seat, A, Life::Gone, 0), Verdict::Enters);
    seat.leave(A, 5);
    assert_eq!(enter(&mut seat, B, Life::Gone, 6), Verdict::Enters, "its link was closed");
    assert_eq!(enter(&mut seat, C, Life::Mute, 7), Verdict::Enters, "its link is open and dead");
    assert_eq!(enter(&mut seat, C, Life::Answers, 8), Verdict::Enters, "its own");
    assert!(seat.twice(8).is_none());
}

#[test]
fn a_copy_never_gets_the_place_of_one_that_answers() {
    let mut seat = Seat::default();
    enter(&mut seat, A, Life::Gone, 0);
    assert_eq!(enter(&mut seat, B, Life::Answers, 10), Verdict::Refused);
    let told = seat.twice(10).unwrap();
    assert_eq!((told.since, told.at), (10, 10));
    assert_eq!(enter(&mut seat, B, Life::Mute, 40), Verdict::Refused, "also while it gives no sign for a moment");
    assert_eq!(seat.twice(40).unwrap().since, 10);
    assert_eq!(enter(&mut seat, C, Life::Unasked, 50), Verdict::Refused, "nor does the copy that is started again");
    assert!(seat.twice(50 + MEMORY_SECS).is_none(), "an hour after the last time it is over");
}

#[test]
fn where_nobody_can_be_asked_the_one_that_comes_back_keeps_the_place() {
    let mut seat = Seat::default();
    enter(&mut seat, A, Life::Gone, 0);
    assert_eq!(enter(&mut seat, B, Life::Unasked, 10), Verdict::Enters);
    assert_eq!(enter(&mut seat, A, Life::Unasked, 11), Verdict::Enters);
    assert_eq!(enter(&mut seat, B, Life::Unasked, 11), Verdict::Refused);
    assert!(seat.is_held_by(A) && seat.twice(11).is_some());
    for now in 12..60 {
        assert_eq!(enter(&mut seat, A, Life::Unasked, now), Verdict::Enters);
        assert_eq!(enter(&mut seat, B, Life::Unasked, now), Verdict::Refused);
    }
}

#[test]
fn one_that_stands_by_gets_a_place_that_stays_empty_and_not_that_of_a_restart() {
    let mut seat = Seat::default();
    enter(&mut seat, A, Life::Gone, 0);
    enter(&mut seat, B, Life::Answers, 10);
    seat.leave(A, 20);
    assert_eq!(enter(&mut seat, B, Life::Gone, 21), Verdict::Refused, "it was only quicker");
    assert_eq!(enter(&mut seat, C, Life::Gone, 25), Verdict::Enters);
    assert_eq!(enter(&mut seat, B, Life::Answers, 50), Verdict::Refused);
    seat.leave(C, 60);
    assert_eq!(enter(&mut seat, B, Life::Gone, 60 + RETURN_SECS), Verdict::StandsIn);
    assert_eq!(enter(&mut seat, B, Life::Gone, 100), Verdict::StandsIn, "roaming");
    // The original is started again after all.
    assert_eq!(enter(&mut seat, instance(4), Life::Answers, 120), Verdict::Enters);
    assert_eq!(enter(&mut seat, B, Life::Answers, 121), Verdict::Refused);
}

#[test]
fn one_that_was_cut_off_comes_back_to_its_place() {
    let mut seat = Seat::default();
    enter(&mut seat, A, Life::Gone, 0);
    enter(&mut seat, B, Life::Answers, 10);
    seat.leave(A, 20);
    assert_eq!(enter(&mut seat, B, Life::Gone, 60), Verdict::StandsIn);
    assert_eq!(enter(&mut seat, A, Life::Answers, 90), Verdict::Enters);
    assert_eq!(enter(&mut seat, B, Life::Answers, 91), Verdict::Refused);
}

#[test]
fn after_an_hour_the_one_that_stands_in_is_the_gateway() {
    let mut seat = Seat::default();
    enter(&mut seat, A, Life::Gone, 0);
    enter(&mut seat, B, Life::Answers, 10);
    seat.leave(A, 20);
    assert_eq!(enter(&mut seat, B, Life::Gone, 60), Verdict::StandsIn);
    assert_eq!(enter(&mut seat, B, Life::Gone, 10 + MEMORY_SECS), Verdict::Enters);
    assert_eq!(enter(&mut seat, C, Life::Answers, 11 + MEMORY_SECS), Verdict::Refused);
}

#[test]
fn a_place_whose_holder_nobody_saw_leave_counts_as_empty_from_the_first_look() {
    let mut seat = Seat::default();
    enter(&mut seat, A, Life::Gone, 0);
    enter(&mut seat, B, Life::Answers, 10);
    // As after a restart of whoever decides.
    let mut seat: Seat = serde_json::from_str(&serde_json::to_string(&seat).unwrap()).unwrap();
    assert_eq!(enter(&mut seat, B, Life::Gone, 100), Verdict::Refused);
    assert_eq!(enter(&mut seat, B, Life::Gone, 100 + RETURN_SECS), Verdict::StandsIn);
}

#[test]
fn what_is_remembered_is_bounded_and_forgotten() {
    let mut seat = Seat::default();
    enter(&mut seat, A, Life::Gone, 0);
    for n in 10..200 {
        assert_eq!(enter(&mut seat, instance(n), Life::Answers, u64::from(n)), Verdict::Refused);
        assert!(seat.others.len() <= MAX_OTHERS);
    }
    assert!(seat.is_contested(200) && !seat.is_contested(200 + MEMORY_SECS));
    seat.leave(A, 200 + MEMORY_SECS);
    assert!(seat.others.is_empty() && seat.twice.is_none());
    // A clock that was set back by far keeps nothing for ever.
    enter(&mut seat, B, Life::Gone, 1_000_000);
    enter(&mut seat, C, Life::Answers, 1_000_000);
    assert!(seat.twice(10).is_none());
}

/// Processes with one key, and a decider that knows their links: what each of them does follows from what it is told.
struct World {
    seat: Seat,
    now: u64,
    /// Who has a link.
    linked: Option<Instance>,
    alive: Vec<Instance>,
    can_ask: bool,
    random: u64,
    changes: usize,
}

impl World {
    fn draw(&mut self, below: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % below
    }

    fn anybody(&mut self) -> Instance {
        let position = self.draw(self.alive.len());
        self.alive[position]
    }

    fn knock(&mut self, who: Instance) {
        let life = match self.linked {
            None => Life::Gone,
            Some(holder) if self.can_ask && self.alive.contains(&holder) => Life::Answers,
            Some(_) if self.can_ask => Life::Mute,
            Some(_) => Life::Unasked,
        };
        let verdict = self.seat.enter(who, None, life, self.now);
        if verdict != Verdict::Refused && self.linked != Some(who) {
            self.linked = Some(who);
            self.changes += 1;
        }
    }

    /// Dies, with or without a word.
    fn die(&mut self, who: Instance, is_seen: bool) {
        self.alive.retain(|one| *one != who);
        if is_seen && self.linked == Some(who) {
            self.linked = None;
            self.seat.leave(who, self.now);
        }
    }

    /// Time passes: a dead link is silent beyond the limit.
    fn pass(&mut self, secs: u64) {
        self.now += secs;
        if secs >= RETURN_SECS
            && let Some(holder) = self.linked.filter(|holder| !self.alive.contains(holder))
        {
            self.linked = None;
            self.seat.leave(holder, self.now);
        }
    }
}

#[test]
fn whatever_happened_it_settles_with_one_holder_that_nobody_puts_off_again() {
    for seed in 0..2_000_u64 {
        let (seat, alive) = (Seat::default(), Vec::new());
        let can_ask = seed & 1 == 0;
        let mut world = World { seat, now: 1_000, linked: None, alive, can_ask, random: seed, changes: 0 };
        let mut next = 1_u8;
        for _ in 0..40 {
            match world.draw(5) {
                0 if world.alive.len() < 4 => {
                    world.alive.push(instance(next));
                    next += 1;
                }
                1 if !world.alive.is_empty() => {
                    let (who, is_seen) = (world.anybody(), world.draw(2) == 0);
                    world.die(who, is_seen);
                }
                2 => {
                    let secs = world.draw(40) as u64;
                    world.pass(secs);
                }
                _ if !world.alive.is_empty() => {
                    let who = world.anybody();
                    world.knock(who);
                }
                _ => {}
            }
        }
        if world.alive.is_empty() {
            continue;
        }
        // From now on nobody comes or goes; whoever has no link knocks again and again.
        let settle = |world: &mut World, rounds: usize| {
            for _ in 0..rounds {
                world.pass(RETURN_SECS);
                for who in world.alive.clone() {
                    if world.linked != Some(who) {
                        world.knock(who);
                    }
                }
            }
        };
        settle(&mut world, 8);
        let (holder, changes) = (world.linked, world.changes);
        assert!(holder.is_some_and(|holder| world.alive.contains(&holder)), "seed {seed}: nobody has the place");
        settle(&mut world, 20);
        assert_eq!((world.linked, world.changes), (holder, changes), "seed {seed}: it goes on and on");
    }
}
