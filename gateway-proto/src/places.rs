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
    fmt,
    ops::Bound,
    time::{Duration, Instant},
};

/// Streams of one peer that wait for one listener at most.
const MAX_WAITING_PER_PEER: usize = 64;
/// Streams that wait for one listener at most.
const MAX_WAITING: usize = 512;
/// A listener that is full ends a connection within this time, and has read nothing of it.
const TURNED_AWAY_WITHIN: Duration = Duration::from_secs(1);
/// What it is given before it has closed leaves with the connection; whoever reads that and closes in order takes longer.
const CLOSED_UNREAD: Duration = Duration::from_millis(30);

/// Somebody who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What became of a question for a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A place is taken.
    Granted,
    /// There is none for it: an event follows, at the deadline at the latest.
    Waits(Ticket),
    /// There is none for it, and too many wait already.
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

/// A listener without a place for whoever asks: all are taken, or what is free is kept for peers that have none. In few bytes, because
/// every open stream has room for one; numbers above 65,535 are told as that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoPlace {
    /// Places that are taken.
    pub taken: u16,
    /// All places.
    pub most: u16,
}

impl NoPlace {
    /// With so many places, of which so many are taken.
    pub fn new(taken: u32, most: u32) -> Self {
        let few = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        Self { taken: few(taken), most: few(most) }
    }

    /// Places that are free, and kept for other peers.
    pub fn kept(self) -> u16 {
        self.most.saturating_sub(self.taken)
    }
}

impl fmt::Display for NoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} taken", self.taken, self.most)?;
        match self.kept() {
            0 => Ok(()),
            kept => write!(f, ", {kept} kept for other partners"),
        }
    }
}

/// How an engine ended a connection on which it had said nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MuteEnd {
    /// With a reset: what it was given stayed unread, or came after it had closed.
    Reset,
    /// In order.
    Finished {
        /// It was given something before that was seen.
        given: bool,
    },
}

impl MuteEnd {
    /// Whether that looks like a listener that is full, if it came so long `after` the connection was there.
    pub fn is_turned_away(self, after: Duration) -> bool {
        match self {
            Self::Reset | Self::Finished { given: false } => after < TURNED_AWAY_WITHIN,
            Self::Finished { given: true } => after < CLOSED_UNREAD,
        }
    }
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

    /// What is said to a peer that gets no place now.
    pub fn no_place(&self) -> NoPlace {
        NoPlace::new(self.taken, self.most)
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
mod tests;
