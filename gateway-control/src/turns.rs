//! Turns: how much of one organization is at work at once.
//!
//! The database has one place to write and few to read, and serves whoever comes in the order of coming: forty requests of one
//! organization would be forty turns that everybody else waits for. So each organization stands in a lane of its own before
//! it comes to the database, and only so many of a lane are at the database at once ([`Bounds`]). A flood costs the others one
//! act; whoever floods waits for itself, and beyond a lane's length is refused. The same before passwords are computed, where
//! whoever is not signed in yet stands in the lane of the address it comes from.
//!
//! What decides ([`Lanes`]) knows neither time nor tasks. A [`Turn`] is given back by dropping it, also while it waits. The table
//! holds those that are at work or wait, so it is as long as there are requests, and no longer than [`Bounds::waiting_in_all`].

mod lanes;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gateway_proto::id::OrganizationId;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use tokio::{sync::oneshot, time::timeout};

pub use self::lanes::Bounds;
use self::lanes::{Asked, Lanes};

/// How long a request waits for a turn; whoever has it may wait for the database as long again, and more.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long whatever nobody waits for does: what gateways tell, beside their watches. Those of a large organization may all have
/// something to tell at once.
pub(crate) const LONG_PATIENCE: Duration = Duration::from_secs(60);
/// Changes of one organization: one writes, and the next ones wait here.
const WRITES: Bounds = Bounds { at_once: 1, waiting: 64, waiting_in_all: 4_096 };
/// Reading requests of one organization: half of those that can be read for at once.
const READS: Bounds = Bounds { at_once: 2, waiting: 64, waiting_in_all: 4_096 };
/// What the gateways of one organization tell, each one thing at a time: there are as many as there are watches.
const TELLS: Bounds = Bounds { at_once: 1, waiting: 50_000, waiting_in_all: 50_000 };

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
    /// Too many of this lane wait.
    Full,
    /// Too many of all lanes wait.
    Busy,
    /// Those before it took too long: what they wait for is slow, or away.
    Late,
}

/// Turns of one kind; clones share them. `K` is whose lane it is.
#[derive(Debug, Clone)]
pub struct Turns<K: Ord + Copy = OrganizationId>(Arc<Shared<K>>);

#[derive(Debug)]
struct Shared<K: Ord + Copy> {
    state: Mutex<State<K>>,
    counts: TurnCounts,
}

#[derive(Debug)]
struct State<K> {
    lanes: Lanes<K>,
    /// How those that wait are called.
    calls: BTreeMap<u64, oneshot::Sender<()>>,
}

impl<K: Ord + Copy> Turns<K> {
    /// With these bounds.
    pub fn new(bounds: Bounds) -> Self {
        let state = Mutex::new(State { lanes: Lanes::new(bounds), calls: BTreeMap::new() });
        Self(Arc::new(Shared { state, counts: TurnCounts::default() }))
    }

    /// A turn in this lane, behind those that came before, for a request.
    pub async fn turn(&self, whose: K) -> Result<Turn<K>, NoTurn> {
        self.turn_within(whose, PATIENCE).await
    }

    /// The same for whoever can wait as long as that.
    pub async fn turn_within(&self, whose: K, patience: Duration) -> Result<Turn<K>, NoTurn> {
        let (mut turn, called) = self.ask(whose)?;
        if let Some(called) = called {
            if !matches!(timeout(patience, called).await, Ok(Ok(()))) {
                return Err(self.0.refuse(NoTurn::Late));
            }
            turn.waits = None;
        }
        Ok(turn)
    }

    /// What is counted.
    pub fn counts(&self) -> TurnCounts {
        self.0.counts.clone()
    }

    fn ask(&self, whose: K) -> Result<(Turn<K>, Option<oneshot::Receiver<()>>), NoTurn> {
        let mut state = self.0.state();
        let waits = match state.lanes.ask(whose) {
            Asked::Now => None,
            Asked::Waits(number) => Some(number),
            Asked::Full => return Err(self.0.refuse(NoTurn::Full)),
            Asked::Busy => return Err(self.0.refuse(NoTurn::Busy)),
        };
        let called = waits.map(|number| {
            let (call, called) = oneshot::channel();
            state.calls.insert(number, call);
            called
        });
        self.0.tell(&state);
        Ok((Turn { shared: self.0.clone(), whose, waits }, called))
    }
}

impl<K: Ord + Copy> Shared<K> {
    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, why: NoTurn) -> NoTurn {
        self.counts.refused.inc();
        why
    }

    fn tell(&self, state: &State<K>) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.counts.at_work.set(number(state.lanes.at_work));
        self.counts.waiting.set(number(state.lanes.waiting));
    }
}

/// A turn, or a place among those that wait for one; dropped, the next one is called.
#[derive(Debug)]
pub struct Turn<K: Ord + Copy = OrganizationId> {
    shared: Arc<Shared<K>>,
    whose: K,
    /// The number it waits under; none: it is at work.
    waits: Option<u64>,
}

impl<K: Ord + Copy> Drop for Turn<K> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        let gave_up = self.waits.is_some_and(|number| {
            state.calls.remove(&number);
            state.lanes.give_up(self.whose, number)
        });
        // Whoever was called while it gave up passes the turn on.
        if !gave_up
            && let Some(next) = state.lanes.leave(self.whose)
            && let Some(call) = state.calls.remove(&next)
        {
            // One that does not hear it any more is being dropped, and passes it on.
            let _ = call.send(());
        }
        self.shared.tell(&state);
    }
}

/// The turns at the database, of all kinds.
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
        // Nobody waits for ever, and a request not as long as others.
        let begun = tokio::time::Instant::now();
        assert_eq!(turns.turn_within(organization(1), LONG_PATIENCE).await.map(drop), Err(NoTurn::Late));
        assert!(begun.elapsed() >= LONG_PATIENCE);
        assert_eq!(turns.turn(organization(1)).await.map(drop), Err(NoTurn::Late));
        assert_eq!((turns.counts().waiting.get(), turns.counts().refused.get()), (0, 2));
        drop(last);
        assert_eq!(turns.counts().at_work.get(), 0);
    }

    #[test]
    fn whoever_finds_the_places_of_all_taken_is_not_told_that_it_has_too_many_itself() {
        let turns = Turns::new(ONE);
        let mut held = Vec::new();
        for number in 0..60 {
            held.extend((0..2).filter_map(|_| turns.ask(organization(number)).ok()));
        }
        assert_eq!((turns.counts().at_work.get(), turns.counts().waiting.get()), (60, 50));
        held.push(turns.ask(organization(100)).unwrap());
        assert_eq!(turns.ask(organization(100)).map(drop), Err(NoTurn::Busy));
        assert_eq!(turns.counts().refused.get(), 11);
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
