//! When a certificate is renewed, and when its authority is asked about that (ACME Renewal Information, RFC 9773). Pure: time
//! and randomness come in as arguments.
//!
//! The authority suggests a window, of which one point is ours for as long as the certificate is shown: drawn once, so that it
//! moves only when the window does. Where nothing was suggested it is two thirds of the certificate's life.

use std::time::{Duration, SystemTime};

/// A certificate is not renewed sooner after its issue, whatever its authority says: a wrong answer costs two orders a day.
/// Authorities that revoke take a day for it, at least.
const SETTLED: Duration = Duration::from_secs(12 * 3600);
/// Between two questions, whatever the authority says (RFC 9773 §4.3.2).
const INTERVAL: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(24 * 3600)];
/// Between two questions when the authority says nothing usable of it (RFC 9773 §4.3.3).
const USUAL_INTERVAL: Duration = Duration::from_secs(6 * 3600);

/// The time in which an authority wants a certificate to be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    start: SystemTime,
    end: SystemTime,
}

/// The renewal of one certificate.
#[derive(Debug, Clone)]
pub(super) struct Renewal {
    /// Without a suggestion.
    own: SystemTime,
    /// No suggestion is followed to before this,
    earliest: SystemTime,
    /// or to after this: a tenth of the life is left for what goes wrong.
    latest: SystemTime,
    /// The point of a window that is ours, in parts of 2³².
    point: u32,
    /// Whether the clock is fit to compare with what an authority says.
    has_clock: bool,
    suggested: Option<Window>,
}

impl Window {
    /// None: it ends before it begins, and counts as no answer (RFC 9773 §4.2).
    pub(super) fn new(start: SystemTime, end: SystemTime) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    fn at(&self, point: u32) -> SystemTime {
        let length = self.end.duration_since(self.start).unwrap_or_default().as_millis();
        let millis = u64::try_from((length * u128::from(point)) >> 32).unwrap_or(u64::MAX);
        self.start + Duration::from_millis(millis)
    }
}

impl Renewal {
    /// Of a certificate that is valid from one time to another. `point` is any uniformly random number.
    pub(super) fn new((from, to): (SystemTime, SystemTime), point: u32) -> Self {
        let life = to.duration_since(from).unwrap_or_default();
        Self {
            own: from + life * 2 / 3,
            earliest: from + (life / 2).min(SETTLED),
            latest: from + life * 9 / 10,
            point,
            has_clock: true,
            suggested: None,
        }
    }

    /// Of one that was issued at this moment. If it is due by our clock all the same, our clock is ahead: it is not ordered
    /// again and again then, and no suggestion can be compared with the clock.
    pub(super) fn issued((from, to): (SystemTime, SystemTime), point: u32, now: SystemTime) -> Self {
        let life = to.duration_since(from).unwrap_or_default();
        let planned = Self::new((from, to), point);
        let earliest = planned.earliest.max(now + (life / 2).min(SETTLED));
        Self {
            has_clock: now < planned.own,
            own: planned.own.max(now + life / 2),
            earliest,
            latest: planned.latest.max(earliest),
            ..planned
        }
    }

    /// What the authority suggests from now on; none: nothing.
    pub(super) fn suggest(&mut self, window: Option<Window>) {
        self.suggested = window;
    }

    /// When the certificate is to be renewed.
    pub(super) fn at(&self) -> SystemTime {
        match self.suggested.filter(|_| self.has_clock) {
            Some(window) => window.at(self.point).clamp(self.earliest, self.latest),
            None => self.own,
        }
    }
}

/// Until the next question, by the `Retry-After` of an answer.
pub(super) fn next_question(retry_after: Option<Duration>) -> Duration {
    retry_after.map_or(USUAL_INTERVAL, |told| told.clamp(INTERVAL[0], INTERVAL[1]))
}

/// Limits of the pause after questions that nobody answered.
pub(super) fn unanswered() -> [Duration; 2] {
    [INTERVAL[0], USUAL_INTERVAL]
}

/// The value of a `Retry-After`: seconds, or a date (RFC 9110 §10.2.3). None: neither.
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(secs) = value.trim().parse() {
        return Some(Duration::from_secs(secs));
    }
    let date = httpdate::parse_http_date(value.trim()).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// A time of RFC 3339, in UTC or with an offset. None: it is none, or before 1970.
pub(super) fn time(text: &str) -> Option<SystemTime> {
    let (local, offset) = match text.len().checked_sub(6).and_then(|at| text.split_at_checked(at)) {
        Some((local, offset)) if offset.starts_with(['+', '-']) => (local, offset),
        _ => return humantime::parse_rfc3339(text).ok(),
    };
    let local = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let (hours, minutes) = offset[1..].split_once(':')?;
    let number = |text: &str, limit: u64| {
        let is_pair = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>().ok().filter(|number| is_pair && *number < limit)
    };
    let ahead = Duration::from_secs(number(hours, 24)? * 3600 + number(minutes, 60)? * 60);
    let utc = if offset.starts_with('+') { local.checked_sub(ahead)? } else { local.checked_add(ahead)? };
    (utc >= SystemTime::UNIX_EPOCH).then_some(utc)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + 20_000 * DAY
    }

    /// Ninety days.
    fn validity() -> (SystemTime, SystemTime) {
        (start(), start() + 90 * DAY)
    }

    fn window(from: Duration, to: Duration) -> Option<Window> {
        Window::new(start() + from, start() + to)
    }

    #[test]
    fn a_third_of_the_life_is_left_at_the_renewal_when_nothing_is_suggested() {
        assert_eq!(Renewal::new(validity(), 7).at(), start() + 60 * DAY);
        let nonsense = (start(), start() - DAY);
        assert_eq!(Renewal::new(nonsense, 7).at(), start(), "nonsense is renewed at once");
    }

    #[test]
    fn the_points_of_the_window_are_shared_out_evenly_and_each_moves_with_it() {
        let at = |point, from: Duration| {
            let mut renewal = Renewal::new(validity(), point);
            renewal.suggest(window(from, from + 2 * DAY));
            renewal.at()
        };
        assert_eq!(at(0, 40 * DAY), start() + 40 * DAY);
        assert_eq!(at(1 << 31, 40 * DAY), start() + 41 * DAY);
        assert_eq!(at(1 << 30, 50 * DAY), start() + 50 * DAY + 12 * HOUR);
        let last = at(u32::MAX, 40 * DAY);
        assert!(last < start() + 42 * DAY && last > start() + 42 * DAY - Duration::from_secs(1));
    }

    #[test]
    fn a_suggestion_that_is_taken_back_leaves_the_own_rule() {
        let mut renewal = Renewal::new(validity(), 0);
        renewal.suggest(window(DAY, 2 * DAY));
        assert_eq!(renewal.at(), start() + DAY);
        renewal.suggest(None);
        assert_eq!(renewal.at(), start() + 60 * DAY);
    }

    #[test]
    fn a_window_in_the_past_means_at_once_but_not_again_and_again() {
        let mut renewal = Renewal::new(validity(), 0);
        renewal.suggest(window(Duration::ZERO, HOUR));
        assert_eq!(renewal.at(), start() + 12 * HOUR, "it was issued at the start");
        let mut short = Renewal::new((start(), start() + HOUR), 0);
        short.suggest(Window::new(start() - DAY, start() - HOUR));
        assert_eq!(short.at(), start() + HOUR / 2);
        let now = start() + 30 * DAY;
        let mut late = Renewal::issued(validity(), 0, now);
        late.suggest(window(Duration::ZERO, HOUR));
        assert_eq!(late.at(), now + 12 * HOUR);
    }

    #[test]
    fn a_window_after_the_end_leaves_a_tenth_of_the_life() {
        let mut renewal = Renewal::new(validity(), 0);
        renewal.suggest(window(100 * DAY, 200 * DAY));
        assert_eq!(renewal.at(), start() + 81 * DAY);
    }

    #[test]
    fn a_clock_that_is_ahead_follows_no_suggestion() {
        let now = start() + 80 * DAY;
        let mut renewal = Renewal::issued(validity(), 0, now);
        assert_eq!(renewal.at(), now + 45 * DAY);
        renewal.suggest(window(55 * DAY, 60 * DAY));
        assert_eq!(renewal.at(), now + 45 * DAY, "it would be in the past, over and over");
        let honest = Renewal::issued(validity(), 0, start());
        assert_eq!(honest.at(), start() + 60 * DAY);
    }

    #[test]
    fn a_window_that_ends_before_it_begins_is_none() {
        assert_eq!(window(2 * DAY, DAY), None);
        assert_eq!(window(DAY, DAY), None);
    }

    #[test]
    fn the_authority_is_asked_once_a_minute_to_once_a_day_whatever_it_says() {
        assert_eq!(next_question(Some(Duration::ZERO)), Duration::from_secs(60));
        assert_eq!(next_question(Some(5 * HOUR)), 5 * HOUR);
        assert_eq!(next_question(Some(Duration::MAX)), DAY);
        assert_eq!(next_question(None), 6 * HOUR);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(retry_after(" 120 ", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:50:37 GMT", now), Some(Duration::from_secs(60)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:40:37 GMT", now), Some(Duration::ZERO));
        for text in ["", "soon", "-1", "99999999999999999999999"] {
            assert_eq!(retry_after(text, now), None, "{text:?}");
        }
    }

    #[test]
    fn times_are_read_with_their_offset() {
        let noon = humantime::parse_rfc3339("2026-02-01T12:00:00Z").ok();
        for text in ["2026-02-01T12:00:00Z", "2026-02-01T14:30:00+02:30", "2026-02-01T07:00:00.000-05:00"] {
            assert_eq!(time(text), noon, "{text}");
        }
        for text in [
            "",
            "noon",
            "2026-02-01",
            "2026-02-01T12:00:00",
            "2026-02-01T12:00:00+25:00",
            "1970-01-01T00:00:00+01:00",
            "2026-02-01T12:00:00+1é",
        ] {
            assert_eq!(time(text), None, "{text}");
        }
    }
}
