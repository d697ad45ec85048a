//! Loss of data on the selected direct path, as the tunnel counts it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The window that is looked at.
const WINDOW: Duration = Duration::from_secs(2);

/// Samples must span this much of it: one bad moment is no verdict.
const MIN_SPAN: Duration = Duration::from_millis(1_500);

/// Packets in the window below which a share means nothing; the heartbeat watches such a path.
const MIN_PACKETS: u64 = 30;

/// A path that loses more than this of a hundred packets carries no conversation.
const BAD_PERCENT: u64 = 30;

/// Samples kept; the driver gives a few a second.
const MAX_SAMPLES: usize = 32;

/// Lost packets as large as this on average are those that a path with too small an MTU loses: QUIC's datagrams have 1,200
/// bytes at least where they are full.
const LARGE: u64 = 1_000;

/// What the tunnel sent, and declared lost, between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// Packets sent.
    pub sent: u64,
    /// Packets declared lost.
    pub lost: u64,
    /// Bytes of those.
    pub lost_bytes: u64,
}

impl Carried {
    fn plus(self, other: Self) -> Self {
        Self {
            sent: self.sent.saturating_add(other.sent),
            lost: self.lost.saturating_add(other.lost),
            lost_bytes: self.lost_bytes.saturating_add(other.lost_bytes),
        }
    }
}

/// What the window says of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Losses {
    /// It carries no conversation.
    pub(super) is_bad: bool,
    /// Large packets were lost just now, several of late, and not only a few of many.
    pub(super) is_of_large_ones: bool,
}

/// What was sent and lost lately.
#[derive(Debug, Default)]
pub(super) struct LossMeter {
    samples: VecDeque<(Instant, Carried)>,
}

impl LossMeter {
    /// Adds what was sent and declared lost since the last sample. What is declared lost now was sent before, most of it in
    /// another sample: only all of them say what share it is.
    pub(super) fn add(&mut self, carried: Carried, now: Instant) -> Losses {
        while self.samples.front().is_some_and(|(at, _)| *at + WINDOW < now) || self.samples.len() == MAX_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((now, carried));
        let spans = self.samples.front().is_some_and(|(at, _)| *at + MIN_SPAN <= now);
        let of_late = self.samples.iter().fold(Carried::default(), |sum, (_, sample)| sum.plus(*sample));
        let is_much = of_late.lost * 100 > of_late.sent * BAD_PERCENT;
        let large = |of: Carried| of.lost > 0 && of.lost_bytes >= of.lost * LARGE;
        Losses {
            is_bad: spans && of_late.sent >= MIN_PACKETS && is_much,
            is_of_large_ones: large(carried) && large(of_late) && of_late.lost >= 2 && is_much,
        }
    }

    /// Another path: nothing is known of it.
    pub(super) fn clear(&mut self) {
        self.samples.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::test_clock::start;

    const LOOK: Duration = Duration::from_millis(250);

    /// What is said of large packets after each sample of packets sent, lost, and the bytes of those.
    fn large_lost(samples: &[(u64, u64, u64)]) -> Vec<bool> {
        let (start, mut meter) = (start(), LossMeter::default());
        let carried = samples.iter().map(|&(sent, lost, lost_bytes)| Carried { sent, lost, lost_bytes });
        carried.zip(0..).map(|(carried, n)| meter.add(carried, start + n * LOOK).is_of_large_ones).collect()
    }

    #[test]
    fn a_share_of_large_packets_lost_is_told_from_loss_of_any_size() {
        assert_eq!(large_lost(&[(6, 3, 3 * 1_200)]), [true]);
        assert_eq!(large_lost(&[(6, 3, 3 * 400)]), [false], "small ones: nothing to do with the MTU");
        assert_eq!(large_lost(&[(6, 1, 1_452)]), [false], "one is chance");
        assert_eq!(large_lost(&[(1_000, 200, 200 * 1_452)]), [false], "a fifth of a transfer is a bad line");
        assert_eq!(large_lost(&[(0, 0, 0)]), [false]);
        assert_eq!(large_lost(&[(3, 0, 0), (1, 3, 3 * 1_452), (1, 0, 0)]), [false, true, false], "told once");
    }

    #[test]
    fn what_was_sent_before_it_was_declared_lost_counts() {
        assert_eq!(large_lost(&[(90, 0, 0), (3, 2, 2 * 1_452), (2, 0, 0)]), [false; 3], "two of a burst of ninety");
        let mut late = [(0, 0, 0); 12];
        (late[0], late[11]) = ((90, 0, 0), (3, 2, 2 * 1_452));
        assert!(large_lost(&late)[11], "what was sent long ago does not");
    }

    fn verdicts(samples: &[(u64, u64)]) -> Vec<bool> {
        let (start, mut meter) = (start(), LossMeter::default());
        let carried = samples.iter().map(|&(sent, lost)| Carried { sent, lost, lost_bytes: 0 });
        carried.zip(0..).map(|(carried, n)| meter.add(carried, start + n * Duration::from_millis(500)).is_bad).collect()
    }

    #[test]
    fn steady_loss_of_a_third_is_bad_after_two_seconds_and_a_quarter_never_is() {
        assert_eq!(verdicts(&[(100, 35); 6]), [false, false, false, true, true, true]);
        assert!(!verdicts(&[(100, 25); 20]).contains(&true));
    }

    #[test]
    fn one_bad_moment_and_few_packets_are_no_verdict() {
        assert!(!verdicts(&[(100, 0), (100, 0), (100, 90), (100, 0), (100, 0)]).contains(&true));
        assert!(!verdicts(&[(4, 4); 10]).contains(&true));
    }
}
