//! A relay says that it drops much of what it is given, because a limit is reached.
//!
//! Losing a frame now and then is how a limit tells congestion control to send less, and is not worth a word. What is told is
//! that a tenth and more of the frames of some seconds is dropped: then another relay is better, and whoever set the limit should know.

use std::{
    fmt,
    time::{Duration, Instant},
};

/// Frames are counted for so long, where they are many.
const PERIOD: Duration = Duration::from_secs(2);
/// And for so long where they are few: a tunnel of which much is dropped sends little.
const LONG_PERIOD: Duration = Duration::from_secs(5);
/// What many are.
const MANY: u32 = 20;
/// Fewer that were dropped are chance.
const MIN_DROPPED: u32 = 5;
/// Of a hundred; a message and its answer get through what is less, twenty times a second.
const MIN_PERCENT: u32 = 10;
/// It is told no more often.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// Whose limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitKind {
    /// What one gateway may send.
    Gateway,
    /// What all gateways of an organization may send together.
    Organization,
    /// A limit this version does not know.
    Other(u8),
}

impl LimitKind {
    /// The byte on the wire.
    pub fn code(self) -> u8 {
        match self {
            Self::Gateway => 1,
            Self::Organization => 2,
            Self::Other(code) => code,
        }
    }

    /// Reads the byte on the wire; every byte is a kind.
    pub fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Gateway,
            2 => Self::Organization,
            other => Self::Other(other),
        }
    }

    /// The word in `status --json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Organization => "organization",
            Self::Other(_) => "other",
        }
    }
}

/// What a relay says of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Whose it is.
    pub kind: LimitKind,
    /// Of a hundred frames that the gateway sent of late, so many were dropped.
    pub percent: u8,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            LimitKind::Gateway => f.write_str("the relay's limit for this gateway is reached")?,
            LimitKind::Organization => {
                f.write_str("the relay's limit for all gateways of this organization is reached")?;
            }
            LimitKind::Other(code) => write!(f, "a limit of the relay is reached (code {code})")?,
        }
        write!(f, ": it drops {} % of what this gateway sends", self.percent)
    }
}

/// Counts what one gateway sends, at the relay.
#[derive(Debug, Default)]
pub struct LimitWatch {
    since: Option<Instant>,
    passed: u32,
    dropped: u32,
    kind: Option<LimitKind>,
    told_at: Option<Instant>,
    to_tell: Option<Limit>,
}

impl LimitWatch {
    /// One more frame came, and was dropped for this limit or was not.
    pub fn count(&mut self, dropped: Option<LimitKind>, now: Instant) {
        let elapsed = now.saturating_duration_since(*self.since.get_or_insert(now));
        let total = self.passed.saturating_add(self.dropped);
        if elapsed >= LONG_PERIOD || (elapsed >= PERIOD && total >= MANY) {
            self.end_period(total, now);
        }
        match dropped {
            Some(_) => {
                self.kind = dropped;
                self.dropped = self.dropped.saturating_add(1);
            }
            None => self.passed = self.passed.saturating_add(1),
        }
    }

    /// What to tell the gateway now, if there is something.
    pub fn take(&mut self) -> Option<Limit> {
        self.to_tell.take()
    }

    fn end_period(&mut self, total: u32, now: Instant) {
        let percent = u64::from(self.dropped) * 100 / u64::from(total.max(1));
        let is_much = self.dropped >= MIN_DROPPED && percent >= u64::from(MIN_PERCENT);
        let is_due = self.told_at.is_none_or(|at| now.saturating_duration_since(at) >= TOLD_EVERY);
        if let Some(kind) = self.kind.filter(|_| is_much && is_due) {
            self.to_tell = Some(Limit { kind, percent: u8::try_from(percent).unwrap_or(100) });
            self.told_at = Some(now);
        }
        (self.since, self.passed, self.dropped) = (Some(now), 0, 0);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
    use super::*;

    /// What is told in a minute of `per_second` frames, of which one in `every` is dropped.
    fn told(per_second: u32, every: u32) -> Vec<Limit> {
        let (mut watch, start, mut told) = (LimitWatch::default(), Instant::now(), Vec::new());
        for frame in 0..60 * per_second {
            let now = start + Duration::from_secs(1) / per_second * frame;
            watch.count(frame.is_multiple_of(every).then_some(LimitKind::Organization), now);
            told.extend(watch.take());
        }
        told
    }

    #[test]
    fn that_much_is_dropped_is_told_once_in_some_seconds_and_that_a_little_is_never() {
        for per_second in [40, 1_000] {
            let much = told(per_second, 3);
            assert!((9..=12).contains(&much.len()), "{per_second}: {much:?}");
            assert!(
                much.iter().all(|limit| limit.kind == LimitKind::Organization && (30..=36).contains(&limit.percent))
            );
            assert!(told(per_second, 20).is_empty(), "one in twenty is how a limit says that it is one");
        }
    }

    #[test]
    fn a_tunnel_that_has_almost_stopped_is_told_too_and_one_burst_is_not() {
        assert!(told(2, 1).len() >= 5, "two frames a second, and none passes");
        let (mut watch, start) = (LimitWatch::default(), Instant::now());
        for frame in 0..1_000_u32 {
            let dropped = (500..520).contains(&frame).then_some(LimitKind::Gateway);
            watch.count(dropped, start + Duration::from_millis(5) * frame);
        }
        assert_eq!(watch.take(), None);
    }

    #[test]
    fn every_byte_is_one_kind_and_back() {
        for byte in 0..=u8::MAX {
            assert_eq!(LimitKind::from_code(byte).code(), byte);
        }
    }
}
