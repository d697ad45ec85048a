//! One pair under test. A pair is its remote address; our own end, socket and address, is a property of the pair: there is one
//! socket but for the rare run of port guessing, and one address from which the kernel sends but for machines with several
//! uplinks. What is proved is proved for both ends.

mod asked;
mod rest;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use asked::Asked;

use super::{Candidate, LocalEnd, LocalSocket, PADDED_PROBE_LEN, score::Score};

/// Unanswered pings remembered per pair: a burst, its trailing probes, and the heartbeats of the longest doubt; the oldest is
/// forgotten.
const MAX_OUTSTANDING: usize = 48;

/// A ping that got no answer for this long never will.
const TRANSACTION_LIFETIME: Duration = Duration::from_secs(5);

/// After hearing the peer: one full-size probe at once and three trailing ones, each with a small one beside it while none of those
/// was answered.
const CHASE_STEPS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(150), Duration::from_millis(450)];

/// A pair is chased once in this time, however often the peer is heard on it.
pub(super) const CHASE_INTERVAL: Duration = Duration::from_secs(5);

/// Full-size answers that are remembered by when they were asked for: those of the longest doubt.
const MAX_FULL_PASSED: usize = 16;

/// How long an address counts as the peer's after the last authentic probe from it. The peer's heartbeats come every
/// 25 s at the least.
const ADDRESS_LIFETIME: Duration = Duration::from_secs(180);

/// One remote address and what is known of the way to it.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) candidate: Candidate,
    /// Our end, from which the peer is reached there.
    pub(super) via: LocalEnd,
    /// Listed in the peer's last signal.
    pub(super) signalled: bool,
    /// The last authentic probe from there; `None` also after it was forgotten.
    pub(super) heard_at: Option<Instant>,
    /// One came ever.
    was_heard: bool,
    /// The last ping.
    pub(super) sent_at: Option<Instant>,
    /// What the pings of full size say, and the small ones: some paths carry only one of the two.
    full: Asked,
    small: Asked,
    /// The largest ping that was answered in the present test of the path.
    carried: usize,
    rtt: Option<Duration>,
    outstanding: VecDeque<Outstanding>,
    chase: Option<Chase>,
    /// Left for its loss: not used again before.
    barred_until: Option<Instant>,
    bars: u32,
    /// It still rests, as far as was looked.
    rests: bool,
    /// When it was left last because only large packets passed, and whether that is all that is known of the small ones.
    small_lost_at: Option<Instant>,
    loses_small: bool,
    /// When the last full-size pings were sent that were answered.
    full_passed: VecDeque<Instant>,
}

#[derive(Debug)]
struct Outstanding {
    transaction: [u8; 8],
    via: LocalEnd,
    sent_at: Instant,
    padded: bool,
    /// Bytes that an answer shows to pass.
    size: usize,
}

/// The probes that follow the first sound of the peer.
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
            via: LocalEnd::default(),
            signalled,
            heard_at: None,
            was_heard: false,
            sent_at: None,
            full: Asked::default(),
            small: Asked::default(),
            carried: 0,
            rtt: None,
            outstanding: VecDeque::new(),
            chase: None,
            barred_until: None,
            bars: 0,
            rests: false,
            small_lost_at: None,
            loses_small: false,
            full_passed: VecDeque::new(),
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

    /// Whether the peer was ever heard there, however long ago.
    pub(super) fn was_heard(&self) -> bool {
        self.was_heard
    }

    /// Whether nothing was sent there for so long.
    pub(super) fn was_quiet_for(&self, time: Duration, now: Instant) -> bool {
        self.sent_at.is_none_or(|at| now >= at + time)
    }

    /// Whether a round trip of full size succeeded, and a small one, and nothing failed since.
    pub(super) fn is_proved(&self) -> bool {
        self.full.answered_at.is_some() && self.small.answered_at.is_some()
    }

    /// Whether both succeeded at or after `since`.
    pub(super) fn is_proved_since(&self, since: Instant) -> bool {
        self.full.is_answered_since(since) && self.small.is_answered_since(since)
    }

    /// Whether the present test of the pair, begun when the peer was heard, proved it.
    pub(super) fn has_passed(&self) -> bool {
        self.chase.is_some_and(|chase| self.is_proved_since(chase.started_at))
    }

    /// Whether the present test still lacks an answer of that size.
    pub(super) fn lacks(&self, padded: bool) -> bool {
        let asked = if padded { &self.full } else { &self.small };
        self.chase.is_some_and(|chase| !asked.is_answered_since(chase.started_at))
    }

    /// Whether datagrams of so many bytes are known to pass, from us to the peer.
    pub(super) fn carries(&self, size: usize) -> bool {
        self.is_proved() && size <= self.carried.max(PADDED_PROBE_LEN)
    }

    /// The network under a path may have changed: only what every proved path carries is still known to pass.
    pub(super) fn doubt_size(&mut self) {
        self.carried = 0;
    }

    /// Whether only small packets pass, as far as is known since `since`.
    pub(super) fn carries_small_only_since(&self, since: Instant) -> bool {
        self.small.pass_alone_since(&self.full, since)
    }

    /// Whether only large packets pass, as far as is known since `since`.
    pub(super) fn carries_large_only_since(&self, since: Instant) -> bool {
        self.full.pass_alone_since(&self.small, since)
    }

    /// Notes an authentic probe; true when the address was not known as the peer's before.
    pub(super) fn hear(&mut self, now: Instant) -> bool {
        self.was_heard = true;
        self.heard_at.replace(now).is_none()
    }

    /// The peer was heard at that end of ours. An unproved pair that nobody is just testing moves to the socket; to the address it
    /// moves when full-size probes from the present one had no answer, so that the kernel's choice is tried first and two addresses
    /// that both work are not taken in turns.
    pub(super) fn hear_on(&mut self, end: LocalEnd) {
        let moves = if self.via.socket == end.socket {
            self.via.address != end.address && self.is_chased_in_vain()
        } else {
            self.full.answered_at.is_none() && self.chase_at().is_none()
        };
        if moves {
            self.via = end;
            self.chase = None;
            // An older proof was one of the other end.
            (self.full.answered_at, self.small.answered_at) = (None, None);
            self.carried = 0;
        }
    }

    /// Our address is gone: nothing that was learned by it counts any more.
    pub(super) fn lose_address(&mut self) {
        self.fail();
    }

    /// The kernel chooses our address anyway: it is named no more.
    pub(super) fn name_no_address(&mut self) {
        let named = self.via.address.take();
        self.outstanding.iter_mut().filter(|ping| ping.via.address == named).for_each(|ping| ping.via.address = None);
    }

    /// Starts the probes that prove the pair, unless that was done a moment ago.
    pub(super) fn start_chase(&mut self, now: Instant) {
        if self.chase.is_none_or(|chase| now >= chase.started_at + CHASE_INTERVAL) {
            self.chase = Some(Chase { started_at: now, step: 0 });
            self.doubt_size();
        }
    }

    /// Allows the next chase at once: a new round, or the path just failed. What is not proved is tried by the kernel's choice first,
    /// again and again: the address of ours at which the peer was heard last may lead nowhere by now, and a NAT on the other
    /// uplink opens only for what is sent there.
    pub(super) fn end_chase(&mut self) {
        self.chase = None;
        if !self.is_proved() {
            self.via.address = None;
        }
    }

    /// When the next of them is due.
    pub(super) fn chase_at(&self) -> Option<Instant> {
        let chase = self.chase?;
        (!self.is_proved_since(chase.started_at)).then_some(())?;
        CHASE_STEPS.get(chase.step).map(|offset| chase.started_at + *offset)
    }

    /// Whether they were all sent, and proved nothing.
    fn is_chased_in_vain(&self) -> bool {
        self.chase.is_some_and(|chase| chase.step == CHASE_STEPS.len() && !self.is_proved_since(chase.started_at))
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
        self.remember(transaction, padded, if padded { PADDED_PROBE_LEN } else { 0 }, now);
        self.asked(padded).failing_since.get_or_insert(now);
    }

    fn asked(&mut self, padded: bool) -> &mut Asked {
        if padded { &mut self.full } else { &mut self.small }
    }

    /// Remembers a ping as large as the tunnel's packets. Without an answer it says nothing of the path: those may be larger
    /// than what a path has to carry.
    pub(super) fn record_large_ping(&mut self, transaction: [u8; 8], size: usize, now: Instant) {
        self.remember(transaction, true, size, now);
    }

    fn remember(&mut self, transaction: [u8; 8], padded: bool, size: usize, now: Instant) {
        let via = self.via;
        let is_over = |ping: &Outstanding| now >= ping.sent_at + TRANSACTION_LIFETIME;
        // Packets of one size passed once, and now they do not either.
        for (asked, size) in [(&mut self.full, PADDED_PROBE_LEN), (&mut self.small, 0)] {
            let is_news = |ping: &Outstanding| ping.size == size && Some(ping.sent_at) > asked.passed_at;
            if self.outstanding.iter().any(|ping| is_over(ping) && is_news(ping)) {
                asked.passed_at = None;
            }
        }
        self.outstanding.retain(|ping| !is_over(ping));
        if self.outstanding.len() == MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back(Outstanding { transaction, via, sent_at: now, padded, size });
    }

    /// Matches a pong with its ping; `full_size` is the size of the pong. `None`: not asked on that socket, or too late. At which
    /// address of ours it came does not matter: the peer answers where the ping came from.
    pub(super) fn record_pong(
        &mut self,
        socket: LocalSocket,
        transaction: [u8; 8],
        full_size: bool,
        now: Instant,
    ) -> Option<RoundTrip> {
        let asked = |ping: &Outstanding| ping.transaction == transaction && ping.via.socket == socket;
        let index = self.outstanding.iter().position(asked)?;
        let ping = self.outstanding.remove(index)?;
        let sample = now.checked_duration_since(ping.sent_at).filter(|sample| *sample < TRANSACTION_LIFETIME)?;
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        let padded = ping.padded && full_size;
        if padded {
            // A path in use keeps its end, whatever else answers late.
            if self.full.answered_at.is_none() && self.via != ping.via {
                self.via = ping.via;
                self.small.answered_at = None;
            }
            self.carried = self.carried.max(ping.size);
            if self.full_passed.len() == MAX_FULL_PASSED {
                self.full_passed.pop_front();
            }
            self.full_passed.push_back(ping.sent_at);
        }
        // A small answer to a full-size ping says nothing of either size.
        if padded || (!ping.padded && self.via == ping.via) {
            self.asked(padded).answer(ping.sent_at, now);
            self.loses_small &= padded;
        }
        Some(RoundTrip { padded })
    }

    /// The path failed: it has to be proved again, by whichever address of ours, and its round trip is measured anew.
    pub(super) fn fail(&mut self) {
        self.unprove();
        self.via.address = None;
        self.rtt = None;
        self.chase = None;
        self.outstanding.clear();
        self.full_passed.clear();
    }

    /// Silent for long: the address does not count as the peer's any more.
    pub(super) fn forget(&mut self) {
        self.heard_at = None;
        self.unprove();
    }

    fn unprove(&mut self) {
        (self.full, self.small) = (Asked::default(), Asked::default());
        self.carried = 0;
    }

    pub(super) fn expires_at(&self) -> Option<Instant> {
        self.heard_at.map(|at| at + ADDRESS_LIFETIME)
    }
}

#[cfg(test)]
mod tests;
