//! The pairs under test. There is one local socket, so a pair is its remote address.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Candidate, CandidateKind, score::Score};

/// Most addresses of one peer under test.
pub const MAX_PAIRS: usize = 30;

/// Most of them that the peer did not signal: learned from its probes, or remembered from an earlier offer.
pub const MAX_LEARNED_PAIRS: usize = 10;

/// Unanswered pings remembered per pair: a burst, its trailing probes and some heartbeats; the oldest is forgotten.
const MAX_OUTSTANDING: usize = 16;

/// A ping that got no answer for this long never will.
const TRANSACTION_LIFETIME: Duration = Duration::from_secs(5);

/// After hearing the peer: one full-size probe at once and three trailing ones.
const CHASE_STEPS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(150), Duration::from_millis(450)];

/// A pair is chased once in this time, however often the peer is heard on it.
const CHASE_INTERVAL: Duration = Duration::from_secs(5);

/// How long an address counts as the peer's after the last authentic probe from it. The peer's heartbeats come every
/// 15 s at the least.
const ADDRESS_LIFETIME: Duration = Duration::from_secs(180);

/// One remote address and what is known of the way to it.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) candidate: Candidate,
    /// Listed in the peer's last signal.
    signalled: bool,
    /// The last authentic probe from there; `None` also after it was forgotten.
    heard_at: Option<Instant>,
    /// The last full-size round trip.
    proved_at: Option<Instant>,
    rtt: Option<Duration>,
    outstanding: VecDeque<Outstanding>,
    chase: Option<Chase>,
}

#[derive(Debug)]
struct Outstanding {
    transaction: [u8; 8],
    sent_at: Instant,
    padded: bool,
}

/// The full-size probes that follow the first sound of the peer.
#[derive(Debug, Clone, Copy)]
struct Chase {
    started_at: Instant,
    step: usize,
}

/// What a pong showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RoundTrip {
    /// The ping had full size; the pong, too, because its own size is checked by the caller.
    pub(super) padded: bool,
}

impl Pair {
    fn new(candidate: Candidate, signalled: bool) -> Self {
        Self {
            candidate,
            signalled,
            heard_at: None,
            proved_at: None,
            rtt: None,
            outstanding: VecDeque::new(),
            chase: None,
        }
    }

    pub(super) fn remote(&self) -> SocketAddr {
        self.candidate.addr
    }

    pub(super) fn rtt(&self) -> Duration {
        self.rtt.unwrap_or_default()
    }

    pub(super) fn score(&self) -> Score {
        Score { tier: self.candidate.tier(), rtt: self.rtt() }
    }

    pub(super) fn is_heard(&self) -> bool {
        self.heard_at.is_some()
    }

    /// Whether a full round trip succeeded, and nothing failed since.
    pub(super) fn is_proved(&self) -> bool {
        self.proved_at.is_some()
    }

    /// Whether a full round trip succeeded at or after `since`.
    pub(super) fn is_proved_since(&self, since: Instant) -> bool {
        self.proved_at.is_some_and(|at| at >= since)
    }

    /// Notes an authentic probe; true when the address was not known as the peer's before.
    pub(super) fn hear(&mut self, now: Instant) -> bool {
        self.heard_at.replace(now).is_none()
    }

    /// Starts the full-size probes, unless that was done a moment ago.
    pub(super) fn start_chase(&mut self, now: Instant) {
        if self.chase.is_none_or(|chase| now >= chase.started_at + CHASE_INTERVAL) {
            self.chase = Some(Chase { started_at: now, step: 0 });
        }
    }

    /// Allows the next chase at once: a new round, or the path just failed.
    pub(super) fn end_chase(&mut self) {
        self.chase = None;
    }

    /// When the next full-size probe is due.
    pub(super) fn chase_at(&self) -> Option<Instant> {
        let chase = self.chase?;
        (!self.is_proved_since(chase.started_at)).then_some(())?;
        CHASE_STEPS.get(chase.step).map(|offset| chase.started_at + *offset)
    }

    /// Passes over every step that is due; true when there was one.
    pub(super) fn take_chase_step(&mut self, now: Instant) -> bool {
        let mut due = false;
        while self.chase_at().is_some_and(|at| at <= now) {
            due = true;
            if let Some(chase) = &mut self.chase {
                chase.step += 1;
            }
        }
        due
    }

    /// Remembers a ping.
    pub(super) fn record_ping(&mut self, transaction: [u8; 8], padded: bool, now: Instant) {
        self.outstanding.retain(|ping| now < ping.sent_at + TRANSACTION_LIFETIME);
        if self.outstanding.len() == MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back(Outstanding { transaction, sent_at: now, padded });
    }

    /// Matches a pong with its ping; `full_size` is the size of the pong. `None`: not asked, or too late.
    pub(super) fn record_pong(&mut self, transaction: [u8; 8], full_size: bool, now: Instant) -> Option<RoundTrip> {
        let index = self.outstanding.iter().position(|ping| ping.transaction == transaction)?;
        let ping = self.outstanding.remove(index)?;
        let sample = now.checked_duration_since(ping.sent_at).filter(|sample| *sample < TRANSACTION_LIFETIME)?;
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        let padded = ping.padded && full_size;
        if padded {
            self.proved_at = Some(now);
        }
        Some(RoundTrip { padded })
    }

    /// The path failed: it has to be proved again, and its round trip is measured anew.
    pub(super) fn fail(&mut self) {
        self.proved_at = None;
        self.rtt = None;
        self.chase = None;
        self.outstanding.clear();
    }

    fn expires_at(&self) -> Option<Instant> {
        self.heard_at.map(|at| at + ADDRESS_LIFETIME)
    }
}

/// All pairs of one peer, in the order of their addresses.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    by_remote: BTreeMap<SocketAddr, Pair>,
}

/// What a change of the table did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PairsChange {
    /// Addresses that were not there before.
    pub(super) added: usize,
    /// Signalled candidates for which there was no room.
    pub(super) refused: u64,
    /// Addresses pushed out.
    pub(super) evicted: u64,
    /// Addresses no longer known as the peer's.
    pub(super) forgotten: Vec<SocketAddr>,
}

impl Pairs {
    pub(super) fn get(&self, remote: SocketAddr) -> Option<&Pair> {
        self.by_remote.get(&remote)
    }

    pub(super) fn get_mut(&mut self, remote: SocketAddr) -> Option<&mut Pair> {
        self.by_remote.get_mut(&remote)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Pair> {
        self.by_remote.values()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Pair> {
        self.by_remote.values_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.by_remote.len()
    }

    /// Takes the peer's whole candidate set. Pairs no longer listed stay while they are of use, as learned ones.
    pub(super) fn replace_signalled(&mut self, candidates: &[Candidate], selected: Option<SocketAddr>) -> PairsChange {
        let mut change = PairsChange::default();
        for pair in self.by_remote.values_mut() {
            pair.signalled = false;
        }
        self.by_remote.retain(|remote, pair| pair.is_heard() || Some(*remote) == selected);
        let mut ranked = candidates.to_vec();
        ranked.sort_unstable();
        ranked.dedup();
        for candidate in ranked {
            if let Some(pair) = self.by_remote.get_mut(&candidate.addr) {
                // Listed twice: the better kind came first.
                if !pair.signalled {
                    pair.signalled = true;
                    pair.candidate = candidate;
                }
            } else if self.make_room(selected, &mut change) {
                self.by_remote.insert(candidate.addr, Pair::new(candidate, true));
                change.added += 1;
            } else {
                change.refused += 1;
            }
        }
        while self.learned() > MAX_LEARNED_PAIRS && self.evict_learned(selected, &mut change) {}
        change
    }

    /// Takes the source of an authentic probe. `None` when there is no room for it.
    pub(super) fn learn(
        &mut self,
        remote: SocketAddr,
        selected: Option<SocketAddr>,
    ) -> (Option<&mut Pair>, PairsChange) {
        let mut change = PairsChange::default();
        if !self.by_remote.contains_key(&remote) {
            let room = self.learned() < MAX_LEARNED_PAIRS || self.evict_learned(selected, &mut change);
            if !room || !self.make_room(selected, &mut change) {
                change.refused += 1;
                return (None, change);
            }
            let candidate = Candidate::new(CandidateKind::PeerReflexive, remote);
            self.by_remote.insert(remote, Pair::new(candidate, false));
            change.added += 1;
        }
        (self.by_remote.get_mut(&remote), change)
    }

    /// When the next address stops counting as the peer's.
    pub(super) fn next_expiry(&self, selected: Option<SocketAddr>) -> Option<Instant> {
        self.iter().filter(|pair| Some(pair.remote()) != selected).filter_map(Pair::expires_at).min()
    }

    /// Forgets addresses that were silent for long: learned pairs go, signalled ones stay to be probed.
    pub(super) fn expire(&mut self, selected: Option<SocketAddr>, now: Instant) -> Vec<SocketAddr> {
        let mut forgotten = Vec::new();
        self.by_remote.retain(|remote, pair| {
            if Some(*remote) == selected || pair.expires_at().is_none_or(|at| now < at) {
                return true;
            }
            pair.heard_at = None;
            pair.proved_at = None;
            forgotten.push(*remote);
            pair.signalled
        });
        forgotten
    }

    fn learned(&self) -> usize {
        self.iter().filter(|pair| !pair.signalled).count()
    }

    fn make_room(&mut self, selected: Option<SocketAddr>, change: &mut PairsChange) -> bool {
        self.by_remote.len() < MAX_PAIRS || self.evict_learned(selected, change)
    }

    /// Pushes out the learned pair that was heard longest ago, never the selected one.
    fn evict_learned(&mut self, selected: Option<SocketAddr>, change: &mut PairsChange) -> bool {
        let oldest = self.iter().filter(|pair| !pair.signalled && Some(pair.remote()) != selected);
        let Some(remote) = oldest.min_by_key(|pair| pair.heard_at).map(Pair::remote) else { return false };
        if self.by_remote.remove(&remote).is_some_and(|pair| pair.is_heard()) {
            change.forgotten.push(remote);
        }
        change.evicted += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::test_clock::start;

    fn addr(n: u16) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, 1], n))
    }

    fn candidate(n: u16) -> Candidate {
        Candidate::new(CandidateKind::ServerReflexive, addr(n))
    }

    #[test]
    fn the_table_never_exceeds_its_caps_and_keeps_the_selected_pair() {
        let now = start();
        let mut pairs = Pairs::default();
        for n in 1..=50 {
            let (pair, _) = pairs.learn(addr(n), Some(addr(1)));
            pair.unwrap().hear(now + Duration::from_secs(n.into()));
            assert!(pairs.len() <= MAX_LEARNED_PAIRS);
        }
        assert!(pairs.get(addr(1)).is_some(), "the selected pair stays though it is the oldest");
        assert!(pairs.get(addr(50)).is_some(), "the newest stays");
        let many: Vec<_> = (100..200).map(candidate).collect();
        let change = pairs.replace_signalled(&many, Some(addr(1)));
        assert_eq!(pairs.len(), MAX_PAIRS);
        assert!(pairs.get(addr(1)).is_some());
        assert_eq!(change.added as u64 + change.refused, 100);
    }

    #[test]
    fn a_new_set_drops_what_never_answered_and_keeps_what_did() {
        let mut pairs = Pairs::default();
        pairs.replace_signalled(&[candidate(1), candidate(2)], None);
        pairs.get_mut(addr(2)).unwrap().hear(start());
        let change = pairs.replace_signalled(&[candidate(3)], None);
        assert_eq!(change.added, 1);
        let left: Vec<_> = pairs.iter().map(Pair::remote).collect();
        assert_eq!(left, [addr(2), addr(3)]);
    }

    #[test]
    fn a_learned_address_takes_the_kind_under_which_it_is_signalled_later() {
        let mut pairs = Pairs::default();
        pairs.learn(addr(1), None).0.unwrap().hear(start());
        assert_eq!(pairs.get(addr(1)).unwrap().candidate.kind, CandidateKind::PeerReflexive);
        let twice = [candidate(1), Candidate::new(CandidateKind::Host, addr(1))];
        assert_eq!(pairs.replace_signalled(&twice, None).added, 0);
        assert_eq!(pairs.get(addr(1)).unwrap().candidate.kind, CandidateKind::Host, "the best kind counts");
    }

    #[test]
    fn only_a_full_size_pong_to_a_full_size_ping_proves() {
        let now = start();
        let mut pair = Pair::new(candidate(1), true);
        pair.record_ping([1; 8], false, now);
        pair.record_ping([2; 8], true, now);
        pair.record_ping([3; 8], true, now);
        let later = now + Duration::from_millis(20);
        assert_eq!(pair.record_pong([1; 8], true, later), Some(RoundTrip { padded: false }));
        assert_eq!(pair.record_pong([2; 8], false, later), Some(RoundTrip { padded: false }));
        assert!(!pair.is_proved_since(now));
        assert_eq!(pair.record_pong([3; 8], true, later), Some(RoundTrip { padded: true }));
        assert!(pair.is_proved_since(now));
        assert_eq!(pair.rtt(), Duration::from_millis(20));
        assert_eq!(pair.record_pong([3; 8], true, later), None, "an answer counts once");
    }

    #[test]
    fn hearing_the_peer_leads_to_one_probe_and_three_trailing_ones() {
        let now = start();
        let mut pair = Pair::new(candidate(1), true);
        pair.start_chase(now);
        let mut sent = Vec::new();
        while let Some(at) = pair.chase_at() {
            pair.start_chase(at);
            assert!(pair.take_chase_step(at));
            sent.push((at - now).as_millis());
        }
        assert_eq!(sent, [0, 50, 150, 450]);
        pair.start_chase(now + Duration::from_secs(1));
        assert_eq!(pair.chase_at(), None, "not again so soon");
        pair.start_chase(now + CHASE_INTERVAL);
        assert!(pair.chase_at().is_some());
    }

    #[test]
    fn a_silent_address_is_forgotten() {
        let now = start();
        let mut pairs = Pairs::default();
        pairs.replace_signalled(&[candidate(1)], None);
        pairs.get_mut(addr(1)).unwrap().hear(now);
        pairs.learn(addr(2), None).0.unwrap().hear(now);
        pairs.learn(addr(3), None).0.unwrap().hear(now);
        let expiry = pairs.next_expiry(Some(addr(3))).unwrap();
        assert!(pairs.expire(Some(addr(3)), expiry - Duration::from_millis(1)).is_empty());
        assert_eq!(pairs.expire(Some(addr(3)), expiry), [addr(1), addr(2)]);
        assert!(pairs.get(addr(1)).is_some() && pairs.get(addr(2)).is_none() && pairs.get(addr(3)).is_some());
    }
}
