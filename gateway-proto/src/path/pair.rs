//! One pair under test. There is one local socket, so a pair is its remote address.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Candidate, score::Score};

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
    pub(super) signalled: bool,
    /// The last authentic probe from there; `None` also after it was forgotten.
    pub(super) heard_at: Option<Instant>,
    /// The last full-size round trip.
    pub(super) proved_at: Option<Instant>,
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
    pub(super) fn new(candidate: Candidate, signalled: bool) -> Self {
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

    pub(super) fn expires_at(&self) -> Option<Instant> {
        self.heard_at.map(|at| at + ADDRESS_LIFETIME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::{CandidateKind, test_clock::start};

    fn addr(n: u16) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, 1], n))
    }

    fn candidate(n: u16) -> Candidate {
        Candidate::new(CandidateKind::ServerReflexive, addr(n))
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
    fn a_proof_ends_the_trailing_probes() {
        let now = start();
        let mut pair = Pair::new(candidate(1), true);
        pair.start_chase(now);
        assert!(pair.take_chase_step(now));
        pair.record_ping([1; 8], true, now);
        assert!(pair.chase_at().is_some());
        pair.record_pong([1; 8], true, now);
        assert_eq!(pair.chase_at(), None);
    }
}
