//! The use of UDP to a relay, as long as it passes.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::Sent;

/// Between pings while data moves.
const ACTIVE: Duration = Duration::from_millis(250);
/// Between pings else: below the 30 s after which a NAT may forget an idle mapping.
const IDLE: Duration = Duration::from_secs(15);
/// Between pings while an answer is overdue.
pub(super) const DOUBT: Duration = Duration::from_millis(100);
/// An answer is overdue after twice the usual round trip, and not before this.
const PATIENCE: Duration = Duration::from_millis(100);
/// While data moves, whatever its length, a ping of the longest that passes leaves this often: where the way became narrow while nothing moved,
/// large datagrams for us do not even arrive.
pub(super) const FULL: Duration = Duration::from_secs(15);
/// A ping longer than this is a long one. Of what moves in small amounts long pings would be the most: they wait until
/// [`SHARE`] times as much has moved, or for [`LONG_PAUSE`]. Beside any that is not empty, an empty one leaves as often.
const LONG: usize = 200;
const SHARE: usize = 8;
pub(super) const LONG_PAUSE: Duration = Duration::from_secs(1);
/// Data moves, as long as the last of it is younger than this.
pub(super) const ACTIVE_FOR: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Up {
    pub(super) since: Instant,
    pub(super) proven: usize,
    pub(super) pinged_at: Instant,
    pub(super) active_until: Instant,
    /// The longest datagram since the last ping, either way.
    pub(super) longest: usize,
    /// Bytes that moved since the last long ping, and when that left.
    pub(super) moved: usize,
    pub(super) long_at: Instant,
    /// The longest between the last ping and the one before: that ping may have left just before the way became narrow.
    pub(super) longest_before: usize,
    /// When the longest that passes is asked next.
    pub(super) full_at: Instant,
    /// When an empty ping was sent last.
    pub(super) empty_at: Instant,
    /// Pings sent since an answer became overdue.
    pub(super) doubts: u32,
    /// The longest ping that was answered although it left after the oldest unanswered one, and the number of that one.
    pub(super) passed: Option<(u64, usize)>,
    pub(super) stretch_at: Instant,
    /// The ping that tries the longest datagram; its loss means nothing.
    pub(super) stretch: Option<u64>,
}

impl Up {
    /// From now on, with datagrams as long as `proven`.
    pub(super) fn new(proven: usize, now: Instant) -> Self {
        Self {
            since: now,
            proven,
            pinged_at: now,
            active_until: now + ACTIVE_FOR,
            longest: 0,
            moved: 0,
            long_at: now,
            longest_before: 0,
            full_at: now + FULL,
            empty_at: now,
            doubts: 0,
            passed: None,
            stretch_at: now + DOUBT,
            stretch: None,
        }
    }

    /// The longest that was answered since the ping `oldest` was sent, which was not.
    pub(super) fn passed_since(&self, oldest: u64) -> Option<usize> {
        self.passed.filter(|(since, _)| *since == oldest).map(|(_, longest)| longest)
    }

    /// How much the ping that leaves now carries: as much as the longest datagram since the last one, if it is its turn.
    pub(super) fn length_to_ask(&mut self, now: Instant) -> usize {
        let wanted = self.longest.max(self.longest_before).min(self.proven);
        let waits = self.moved < SHARE * wanted && now < self.long_at + LONG_PAUSE;
        if wanted > LONG && waits {
            return 0;
        }
        if wanted > LONG {
            (self.moved, self.long_at) = (0, now);
        }
        self.longest_before = std::mem::take(&mut self.longest);
        wanted
    }

    /// When the next ping leaves.
    pub(super) fn ping_due(&self, unanswered: &VecDeque<Sent>, rtt: Option<Duration>) -> Instant {
        let active = self.pinged_at + ACTIVE;
        let usual = if active < self.active_until { active } else { self.pinged_at + IDLE };
        match unanswered.front() {
            Some(oldest) => usual.min((oldest.at + patience(rtt)).max(self.pinged_at + DOUBT)),
            None => usual,
        }
    }
}

/// How long an answer is waited for.
pub(super) fn patience(rtt: Option<Duration>) -> Duration {
    rtt.map_or(PATIENCE, |rtt| (rtt * 2).max(PATIENCE))
}
