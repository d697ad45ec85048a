//! The places of an engine's listener, and who waits for one.
//!
//! An engine serves so many connections (10 by default) and closes the next one at once, without a byte: to the sending
//! engine that is a lost message. So the gateway never opens more: further streams wait here, each peer in its own
//! queue, the queues served in turn, so that a peer with many streams does not keep the others out. Who waited until
//! its deadline is refused, and told why.
//!
//! A connection keeps its place while it is idle, as engines keep theirs for days; so for each further peer that was granted
//! the listener one place is kept free, of at most half of them: one peer's idle connections do not shut the others out.
//!
//! Pure: [`ask`](Places::ask), [`leave`](Places::leave), [`forget`](Places::forget),
//! [`handle_timeout`](Places::handle_timeout) go in, [`poll_event`](Places::poll_event) and
//! [`poll_timeout`](Places::poll_timeout) come out; after every input, take all events.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    time::{Duration, Instant},
};

/// Streams of one peer that wait for one listener at most.
const MAX_WAITING_PER_PEER: usize = 64;
/// Streams that wait for one listener at most.
const MAX_WAITING: usize = 512;

/// Somebody who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What became of a question for a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A place is taken.
    Granted,
    /// All are taken: an event follows, at the deadline at the latest.
    Waits(Ticket),
    /// All are taken, and too many wait already.
    Refused,
}

/// What became of somebody who waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceEvent {
    /// A place is taken.
    Granted(Ticket),
    /// The deadline came first.
    Expired(Ticket),
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    ticket: Ticket,
    deadline: Instant,
}

/// The places of one listener.
#[derive(Debug)]
pub struct Places<P> {
    most: u32,
    taken: u32,
    /// Peers that may come, whether they have a place or not.
    peers: u32,
    /// Places that each peer has; none is zero.
    holders: BTreeMap<P, u32>,
    tickets: u64,
    waiting: usize,
    queues: BTreeMap<P, VecDeque<Waiting>>,
    /// The peer that got the last place; the next one in order is served next.
    served: Option<P>,
    events: VecDeque<PlaceEvent>,
}

impl<P: Ord + Clone> Places<P> {
    /// A listener with `most` places, at least one, that so many peers were granted.
    pub fn new(most: u32, peers: u32) -> Self {
        Self {
            most: most.max(1),
            taken: 0,
            peers,
            holders: BTreeMap::new(),
            tickets: 0,
            waiting: 0,
            queues: BTreeMap::new(),
            served: None,
            events: VecDeque::new(),
        }
    }

    /// The listener has so many places now, at least one. Places that are taken stay taken.
    pub fn set_most(&mut self, most: u32) {
        self.most = most.max(1);
        self.serve();
    }

    /// So many peers were granted the listener.
    pub fn set_peers(&mut self, peers: u32) {
        self.peers = peers;
        self.serve();
    }

    /// All places.
    pub fn most(&self) -> u32 {
        self.most
    }

    /// Places that are taken.
    pub fn taken(&self) -> u32 {
        self.taken
    }

    /// Streams that wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether nobody has a place and nobody waits.
    pub fn is_idle(&self) -> bool {
        self.taken == 0 && self.waiting == 0 && self.events.is_empty()
    }

    /// A stream of `peer` wants a place, and waits for `hold` at most.
    pub fn ask(&mut self, peer: P, hold: Duration, now: Instant) -> Asked {
        // Who waits comes first, so nobody overtakes; those who still do although there is a place, may not have it.
        let queued = self.queues.get(&peer).map_or(0, VecDeque::len);
        if queued == 0 && self.may_take(&peer) {
            self.grant(peer);
            return Asked::Granted;
        }
        if self.waiting >= MAX_WAITING || queued >= MAX_WAITING_PER_PEER || hold.is_zero() {
            return Asked::Refused;
        }
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.waiting += 1;
        self.queues.entry(peer).or_default().push_back(Waiting { ticket, deadline: now + hold });
        Asked::Waits(ticket)
    }

    /// A stream of `peer` gives its place back.
    pub fn leave(&mut self, peer: &P) {
        self.taken = self.taken.saturating_sub(1);
        if let Some(held) = self.holders.get_mut(peer) {
            *held -= 1;
            if *held == 0 {
                self.holders.remove(peer);
            }
        }
        self.serve();
    }

    /// Whether a peer may have one more place: the first that is free, if it has none; else one beyond those that are kept.
    fn may_take(&self, peer: &P) -> bool {
        let free = self.most.saturating_sub(self.taken);
        if !self.holders.contains_key(peer) {
            return free > 0;
        }
        let without = self.peers.saturating_sub(u32::try_from(self.holders.len()).unwrap_or(u32::MAX));
        free > without.min(self.most / 2)
    }

    fn grant(&mut self, peer: P) {
        self.taken += 1;
        *self.holders.entry(peer).or_default() += 1;
    }

    /// Who waited does so no longer. True: it did; false: its event is there already, or was taken.
    pub fn forget(&mut self, ticket: Ticket) -> bool {
        self.remove(|waiting| waiting.ticket == ticket) > 0
    }

    /// Ends the waiting of those whose deadline has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        let mut expired = Vec::new();
        self.remove(|waiting| {
            let is_over = waiting.deadline <= now;
            if is_over {
                expired.push(waiting.ticket);
            }
            is_over
        });
        self.events.extend(expired.into_iter().map(PlaceEvent::Expired));
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<PlaceEvent> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.queues.values().flatten().map(|waiting| waiting.deadline).min()
    }

    fn serve(&mut self) {
        while let Some(peer) = self.next_peer() {
            let Some(queue) = self.queues.get_mut(&peer) else { return };
            let Some(first) = queue.pop_front() else { return };
            if queue.is_empty() {
                self.queues.remove(&peer);
            }
            self.waiting -= 1;
            self.grant(peer.clone());
            self.served = Some(peer);
            self.events.push_back(PlaceEvent::Granted(first.ticket));
        }
    }

    /// Of those who wait and may take a place, the one after the peer that was served last; queues are never empty.
    fn next_peer(&self) -> Option<P> {
        if self.taken >= self.most {
            return None;
        }
        let from = self.served.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let in_turn = self.queues.range((from, Bound::Unbounded)).chain(&self.queues);
        in_turn.map(|(peer, _)| peer).find(|peer| self.may_take(peer)).cloned()
    }

    fn remove(&mut self, mut gone: impl FnMut(&Waiting) -> bool) -> usize {
        let before = self.waiting;
        self.queues.retain(|_, queue| {
            queue.retain(|waiting| !gone(waiting));
            !queue.is_empty()
        });
        self.waiting = self.queues.values().map(VecDeque::len).sum();
        before - self.waiting
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
    use super::*;

    const HOLD: Duration = Duration::from_secs(3);

    fn events(places: &mut Places<u8>) -> Vec<PlaceEvent> {
        std::iter::from_fn(|| places.poll_event()).collect()
    }

    fn full(most: u32, now: Instant) -> Places<u8> {
        let mut places = Places::new(most, 1);
        for _ in 0..most {
            assert_eq!(places.ask(0, HOLD, now), Asked::Granted);
        }
        places
    }

    fn wait(places: &mut Places<u8>, peer: u8, now: Instant) -> Ticket {
        match places.ask(peer, HOLD, now) {
            Asked::Waits(ticket) => ticket,
            other @ (Asked::Granted | Asked::Refused) => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_eleventh_waits_and_gets_the_place_that_is_given_back() {
        let now = Instant::now();
        let mut places = full(10, now);
        let ticket = wait(&mut places, 1, now);
        assert_eq!((places.taken(), places.waiting(), places.poll_timeout()), (10, 1, Some(now + HOLD)));
        assert_eq!(events(&mut places), []);
        places.leave(&0);
        assert_eq!(events(&mut places), [PlaceEvent::Granted(ticket)]);
        assert_eq!((places.taken(), places.waiting(), places.poll_timeout()), (10, 0, None));
    }

    #[test]
    fn who_waits_too_long_is_told_so_at_its_deadline_and_not_before() {
        let now = Instant::now();
        let mut places = full(1, now);
        let first = wait(&mut places, 1, now);
        let second = wait(&mut places, 1, now + Duration::from_secs(1));
        places.handle_timeout(now + HOLD - Duration::from_millis(1));
        assert_eq!(events(&mut places), []);
        places.handle_timeout(now + HOLD);
        assert_eq!(events(&mut places), [PlaceEvent::Expired(first)]);
        places.leave(&0);
        assert_eq!(events(&mut places), [PlaceEvent::Granted(second)]);
    }

    #[test]
    fn peers_are_served_in_turn_however_many_streams_one_of_them_has() {
        let now = Instant::now();
        let mut places = full(1, now);
        let greedy: Vec<_> = (0..5).map(|_| wait(&mut places, 1, now)).collect();
        let modest = wait(&mut places, 2, now);
        let third = wait(&mut places, 3, now);
        let (mut order, mut leaves) = (Vec::new(), 0);
        for next in [1, 2, 3, 1, 1, 1, 1] {
            places.leave(&leaves);
            order.extend(events(&mut places));
            leaves = next;
        }
        let expected = [greedy[0], modest, third, greedy[1], greedy[2], greedy[3], greedy[4]];
        assert_eq!(order, expected.map(PlaceEvent::Granted));
    }

    #[test]
    fn nobody_overtakes_and_who_went_away_takes_no_place() {
        let now = Instant::now();
        let mut places = full(1, now);
        let (first, second) = (wait(&mut places, 1, now), wait(&mut places, 1, now));
        assert!(places.forget(first));
        assert!(!places.forget(first));
        places.leave(&0);
        assert_eq!(events(&mut places), [PlaceEvent::Granted(second)]);
        assert!(!places.forget(second), "it has a place, and gives it back by leaving");
        places.leave(&1);
        assert!(places.is_idle());
        assert_eq!(places.ask(9, HOLD, now), Asked::Granted);
    }

    #[test]
    fn the_queue_is_bounded_for_each_peer_and_as_a_whole() {
        let now = Instant::now();
        let mut places = full(1, now);
        for _ in 0..MAX_WAITING_PER_PEER {
            wait(&mut places, 1, now);
        }
        assert_eq!(places.ask(1, HOLD, now), Asked::Refused);
        for peer in 2..=9 {
            while let Asked::Waits(_) = places.ask(peer, HOLD, now) {}
        }
        assert_eq!(places.waiting(), MAX_WAITING);
        assert_eq!(places.ask(10, HOLD, now), Asked::Refused);
        assert_eq!(full(1, now).ask(1, Duration::ZERO, now), Asked::Refused, "without a hold nobody waits");
    }

    #[test]
    fn more_places_are_given_out_at_once_and_fewer_as_they_are_given_back() {
        let now = Instant::now();
        let mut places = full(2, now);
        let (first, second) = (wait(&mut places, 1, now), wait(&mut places, 1, now));
        places.set_most(3);
        assert_eq!(events(&mut places), [PlaceEvent::Granted(first)]);
        places.set_most(1);
        places.leave(&0);
        places.leave(&0);
        assert_eq!(events(&mut places), []);
        places.leave(&0);
        assert_eq!(events(&mut places), [PlaceEvent::Granted(second)]);
    }

    #[test]
    fn idle_connections_of_one_peer_leave_a_place_for_each_of_the_others() {
        let now = Instant::now();
        let mut places = Places::new(10, 3);
        let taken = (0..12).filter(|_| places.ask(1, HOLD, now) == Asked::Granted).count();
        assert_eq!((taken, places.waiting()), (8, 4), "two are kept");
        assert_eq!(places.ask(2, HOLD, now), Asked::Granted, "those who wait for a ninth place are passed by");
        assert!(matches!(places.ask(2, HOLD, now), Asked::Waits(_)), "the last one is the third peer's");
        assert_eq!(places.ask(3, HOLD, now), Asked::Granted);
        assert!(matches!(places.ask(3, HOLD, now), Asked::Waits(_)));
        // Everybody is there: what is given back goes in turn.
        places.leave(&1);
        places.leave(&1);
        assert_eq!(events(&mut places).len(), 2);
        assert_eq!(places.taken(), 10);
        places.set_peers(4);
        places.leave(&1);
        assert_eq!(events(&mut places), [], "a fourth peer was granted the listener");
        places.set_peers(3);
        assert_eq!(events(&mut places).len(), 1);
    }

    #[test]
    fn many_peers_never_keep_more_than_half_of_the_places_from_the_one_that_is_busy() {
        let now = Instant::now();
        let mut places = Places::new(10, 1_000);
        assert_eq!((0..64).filter(|_| places.ask(1, HOLD, now) == Asked::Granted).count(), 5);
        let mut single = Places::new(1, 7);
        assert_eq!(single.ask(1, HOLD, now), Asked::Granted);
    }
}
