//! All pairs under test of one peer, with their caps and what gives way when they are reached.

use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

use super::{Candidate, CandidateKind, pair::Pair};

/// Most addresses of one peer under test.
pub const MAX_PAIRS: usize = 30;

/// Most of them that the peer did not signal: learned from its probes, or remembered from an earlier offer.
pub const MAX_LEARNED_PAIRS: usize = 10;

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
            pair.forget();
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
    use std::time::Duration;

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
