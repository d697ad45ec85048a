//! Turns: how much of one organization is at work at once.
//!
//! The database has one place to write and few to read, and serves whoever comes in the order of coming: forty requests of one
//! organization would be forty turns that everybody else waits for. So each organization stands in a [`Lane`] of its own before
//! it comes to the database, and only so many of a lane are at the database at once ([`Bounds`]). A flood costs the others one
//! act; whoever floods waits for itself, and beyond a lane's length is refused.
//!
//! What decides ([`Lanes`]) knows neither time nor tasks. A [`Turn`] is given back by dropping it, also while it waits. The table
//! holds those that are at work or wait, so it is as long as there are requests, and no longer than [`Bounds::waiting_in_all`].

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gateway_proto::id::OrganizationId;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use tokio::{sync::oneshot, time::timeout};

/// How long anybody waits for a turn; whoever has it may wait for the database as long again, and more.
const PATIENCE: Duration = Duration::from_secs(5);
/// Changes of one organization: one writes, and the next ones wait here.
const WRITES: Bounds = Bounds { at_once: 1, waiting: 64, waiting_in_all: 4_096 };
/// Reading requests of one organization: half of those that can be read for at once.
const READS: Bounds = Bounds { at_once: 2, waiting: 64, waiting_in_all: 4_096 };
/// What the gateways of one organization tell, each one thing at a time: there are as many as there are watches.
const TELLS: Bounds = Bounds { at_once: 1, waiting: 50_000, waiting_in_all: 50_000 };

/// How many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Of one organization at once.
    pub at_once: usize,
    /// Of one organization that wait.
    pub waiting: usize,
    /// Of all that wait.
    pub waiting_in_all: usize,
}

/// What comes of asking for a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// It has one.
    Now,
    /// It waits, under this number.
    Waits(u64),
    /// Too many wait already.
    Full,
}

/// Those of one organization that are at work, and the numbers of those that wait, in their order.
#[derive(Debug, Default)]
struct Lane {
    at_work: usize,
    waiting: VecDeque<u64>,
}

/// The lanes of all organizations that have something at work.
#[derive(Debug)]
struct Lanes {
    bounds: Bounds,
    lanes: BTreeMap<OrganizationId, Lane>,
    at_work: usize,
    waiting: usize,
    numbers: u64,
}

impl Lanes {
    fn new(bounds: Bounds) -> Self {
        Self { bounds, lanes: BTreeMap::new(), at_work: 0, waiting: 0, numbers: 0 }
    }

    /// Somebody comes.
    fn ask(&mut self, organization: OrganizationId) -> Asked {
        let lane = self.lanes.entry(organization).or_default();
        if lane.at_work < self.bounds.at_once {
            lane.at_work += 1;
            self.at_work += 1;
            return Asked::Now;
        }
        if lane.waiting.len() >= self.bounds.waiting || self.waiting >= self.bounds.waiting_in_all {
            return Asked::Full;
        }
        self.numbers += 1;
        self.waiting += 1;
        lane.waiting.push_back(self.numbers);
        Asked::Waits(self.numbers)
    }

    /// Somebody who waits goes; false: it has been called already.
    fn give_up(&mut self, organization: OrganizationId, number: u64) -> bool {
        let Some(lane) = self.lanes.get_mut(&organization) else { return false };
        let Some(place) = lane.waiting.iter().position(|waits| *waits == number) else { return false };
        lane.waiting.remove(place);
        self.waiting -= 1;
        true
    }

    /// Somebody who was at work is done; whose turn it is now.
    fn leave(&mut self, organization: OrganizationId) -> Option<u64> {
        let lane = self.lanes.get_mut(&organization)?;
        let next = lane.waiting.pop_front();
        if next.is_some() {
            self.waiting -= 1;
            return next;
        }
        lane.at_work -= 1;
        self.at_work -= 1;
        if lane.at_work == 0 {
            self.lanes.remove(&organization);
        }
        None
    }
}

/// What is counted of one kind of turns.
#[derive(Debug, Clone, Default)]
pub struct TurnCounts {
    /// Requests that have a turn.
    pub at_work: Gauge,
    /// Requests that wait for one.
    pub waiting: Gauge,
    /// Requests that got none.
    pub refused: Counter,
}

/// Why there was no turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoTurn {
    /// Too many of this organization wait.
    Full,
    /// Those before it took too long: the database is slow, or away.
    Late,
}

/// Turns of one kind; clones share them.
#[derive(Debug, Clone)]
pub struct Turns(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    counts: TurnCounts,
}

#[derive(Debug)]
struct State {
    lanes: Lanes,
    /// How those that wait are called.
    calls: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Turns {
    /// With these bounds.
    pub fn new(bounds: Bounds) -> Self {
        let state = Mutex::new(State { lanes: Lanes::new(bounds), calls: BTreeMap::new() });
        Self(Arc::new(Shared { state, counts: TurnCounts::default() }))
    }

    /// A turn of this organization, behind those that came before.
    pub async fn turn(&self, organization: OrganizationId) -> Result<Turn, NoTurn> {
        let (mut turn, called) = self.ask(organization)?;
        if let Some(called) = called {
            if !matches!(timeout(PATIENCE, called).await, Ok(Ok(()))) {
                self.0.counts.refused.inc();
                return Err(NoTurn::Late);
            }
            turn.waits = None;
        }
        Ok(turn)
    }

    /// What is counted.
    pub fn counts(&self) -> TurnCounts {
        self.0.counts.clone()
    }

    fn ask(&self, organization: OrganizationId) -> Result<(Turn, Option<oneshot::Receiver<()>>), NoTurn> {
        let mut state = self.0.state();
        let waits = match state.lanes.ask(organization) {
            Asked::Now => None,
            Asked::Waits(number) => Some(number),
            Asked::Full => {
                self.0.counts.refused.inc();
                return Err(NoTurn::Full);
            }
        };
        let called = waits.map(|number| {
            let (call, called) = oneshot::channel();
            state.calls.insert(number, call);
            called
        });
        self.0.tell(&state);
        Ok((Turn { shared: self.0.clone(), organization, waits }, called))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, state: &State) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.counts.at_work.set(number(state.lanes.at_work));
        self.counts.waiting.set(number(state.lanes.waiting));
    }
}

/// A turn, or a place among those that wait for one; dropped, the next one is called.
#[derive(Debug)]
pub struct Turn {
    shared: Arc<Shared>,
    organization: OrganizationId,
    /// The number it waits under; none: it is at work.
    waits: Option<u64>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        let gave_up = self.waits.is_some_and(|number| {
            state.calls.remove(&number);
            state.lanes.give_up(self.organization, number)
        });
        // Whoever was called while it gave up passes the turn on.
        if !gave_up
            && let Some(next) = state.lanes.leave(self.organization)
            && let Some(call) = state.calls.remove(&next)
        {
            // One that does not hear it any more is being dropped, and passes it on.
            let _ = call.send(());
        }
        self.shared.tell(&state);
    }
}

/// The turns of all kinds.
#[derive(Debug)]
pub struct AllTurns {
    /// Changes that people make.
    pub(crate) writes: Turns,
    /// What people read.
    pub(crate) reads: Turns,
    /// What gateways tell.
    pub(crate) tells: Turns,
}

impl Default for AllTurns {
    fn default() -> Self {
        Self { writes: Turns::new(WRITES), reads: Turns::new(READS), tells: Turns::new(TELLS) }
    }
}

impl AllTurns {
    /// Each kind with its name and what is counted of it.
    pub fn counts(&self) -> [(&'static str, TurnCounts); 3] {
        [("writes", self.writes.counts()), ("reads", self.reads.counts()), ("tells", self.tells.counts())]
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    const ONE: Bounds = Bounds { at_once: 1, waiting: 40, waiting_in_all: 50 };

    fn organization(number: u8) -> OrganizationId {
        OrganizationId::from_bytes([number; 16])
    }

    #[test]
    fn of_each_organization_one_is_at_work_and_its_others_wait_in_their_order() {
        let mut lanes = Lanes::new(ONE);
        let (flood, other) = (organization(1), organization(2));
        assert_eq!(lanes.ask(flood), Asked::Now);
        let waiting: Vec<_> = (0..40).map(|_| lanes.ask(flood)).collect();
        assert_eq!(lanes.ask(flood), Asked::Full);
        assert_eq!(lanes.ask(other), Asked::Now, "whoever floods waits for itself");
        assert_eq!(waiting, (1..=40).map(Asked::Waits).collect::<Vec<_>>());
        assert!(lanes.give_up(flood, 2) && !lanes.give_up(flood, 2));
        assert_eq!((lanes.leave(flood), lanes.leave(flood)), (Some(1), Some(3)));
        assert!(!lanes.give_up(flood, 3), "it was called");
        assert_eq!((lanes.leave(other), lanes.at_work, lanes.waiting), (None, 1, 37));
    }

    #[test]
    fn the_table_is_as_long_as_there_is_work_and_has_an_end() {
        let mut lanes = Lanes::new(ONE);
        let mut waiting = 0;
        for number in 0..=255 {
            for _ in 0..3 {
                waiting += usize::from(matches!(lanes.ask(organization(number)), Asked::Waits(_)));
            }
        }
        assert_eq!((waiting, lanes.waiting, lanes.at_work), (50, 50, 256));
        for number in 0..=255 {
            while lanes.lanes.contains_key(&organization(number)) {
                lanes.leave(organization(number));
            }
        }
        assert_eq!((lanes.lanes.len(), lanes.waiting, lanes.at_work), (0, 0, 0));
        assert_eq!(lanes.leave(organization(1)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_passed_on_also_by_those_who_give_up() {
        let turns = Turns::new(ONE);
        let first = turns.turn(organization(1)).await.unwrap();
        let waits = |tasks: &mut JoinSet<Result<Turn, NoTurn>>| {
            let turns = turns.clone();
            tasks.spawn(async move { turns.turn(organization(1)).await })
        };
        let (mut gives_up, mut stays) = (JoinSet::new(), JoinSet::new());
        waits(&mut gives_up);
        tokio::task::yield_now().await;
        waits(&mut stays);
        tokio::task::yield_now().await;
        assert_eq!((turns.counts().at_work.get(), turns.counts().waiting.get()), (1, 2));
        // Called, and given up before it could hear of it.
        drop(first);
        gives_up.abort_all();
        assert!(gives_up.join_next().await.unwrap().is_err());
        let last = stays.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!((turns.counts().at_work.get(), turns.counts().waiting.get()), (1, 0));
        // Nobody waits for ever.
        assert_eq!(turns.turn(organization(1)).await.map(drop), Err(NoTurn::Late));
        assert_eq!((turns.counts().waiting.get(), turns.counts().refused.get()), (0, 1));
        drop(last);
        assert_eq!(turns.counts().at_work.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_comes_after_the_flood_of_another_one() {
        let turns = Turns::new(ONE);
        let first = turns.turn(organization(1)).await.unwrap();
        let mut flood = JoinSet::new();
        for _ in 0..40 {
            let turns = turns.clone();
            flood.spawn(async move { turns.turn(organization(1)).await.map(drop) });
        }
        tokio::task::yield_now().await;
        assert_eq!(turns.counts().waiting.get(), 40);
        drop(turns.turn(organization(2)).await.unwrap());
        drop(first);
        while let Some(done) = flood.join_next().await {
            assert_eq!(done.unwrap(), Ok(()));
        }
        assert_eq!((turns.counts().at_work.get(), turns.counts().waiting.get()), (0, 0));
    }
}
