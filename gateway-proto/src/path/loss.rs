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
    /// Several large packets were lost, and not only a few of many.
    pub(super) fn loses_large_ones(self) -> bool {
        self.lost >= 2 && self.lost_bytes >= self.lost * LARGE && self.lost * 100 > self.sent * BAD_PERCENT
    }
}

/// What was sent and lost lately.
#[derive(Debug, Default)]
pub(super) struct LossMeter {
    samples: VecDeque<(Instant, u64, u64)>,
}

impl LossMeter {
    /// Adds what was sent and declared lost since the last sample; says whether the path is bad.
    pub(super) fn add(&mut self, sent: u64, lost: u64, now: Instant) -> bool {
        while self.samples.front().is_some_and(|(at, ..)| *at + WINDOW < now) || self.samples.len() == MAX_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((now, sent, lost));
        let spans = self.samples.front().is_some_and(|(at, ..)| *at + MIN_SPAN <= now);
        let (sent, lost) = self.samples.iter().fold((0, 0), |sum, (_, sent, lost)| (sum.0 + sent, sum.1 + lost));
        spans && sent >= MIN_PACKETS && lost * 100 > sent * BAD_PERCENT
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

    #[test]
    fn a_share_of_large_packets_lost_is_told_from_loss_of_any_size() {
        let loses = |sent, lost, lost_bytes| Carried { sent, lost, lost_bytes }.loses_large_ones();
        assert!(loses(6, 3, 3 * 1_200));
        assert!(!loses(6, 3, 3 * 400), "small ones: nothing to do with the MTU");
        assert!(!loses(6, 1, 1_452), "one is chance");
        assert!(!loses(1_000, 200, 200 * 1_452), "a fifth of a transfer is a bad line");
        assert!(!loses(0, 0, 0));
    }

    fn verdicts(samples: &[(u64, u64)]) -> Vec<bool> {
        let (start, mut meter) = (start(), LossMeter::default());
        samples
            .iter()
            .zip(0..)
            .map(|((sent, lost), n)| meter.add(*sent, *lost, start + n * Duration::from_millis(500)))
            .collect()
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
