//! Times for people: relative to `now`, both in Unix seconds or both in milliseconds as the name says.

use std::cmp::Ordering;

use time::{OffsetDateTime, macros::format_description};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// `3 s ago`, `in 5 min`, `now`.
pub(crate) fn relative(now: u64, at: u64) -> String {
    match at.cmp(&now) {
        Ordering::Less => format!("{} ago", span(now - at)),
        Ordering::Equal => "now".to_owned(),
        Ordering::Greater => format!("in {}", span(at - now)),
    }
}

/// The same of what may never happen, or never did.
pub(crate) fn or_never(now: u64, at: Option<u64>) -> String {
    at.map_or_else(|| "never".to_owned(), |at| relative(now, at))
}

/// The same from milliseconds; less than a second is `now`, whichever clock is a little ahead.
pub(crate) fn relative_ms(now_ms: u64, at_ms: u64) -> String {
    let secs = now_ms.abs_diff(at_ms) / 1000;
    if at_ms > now_ms { relative(0, secs) } else { relative(secs, 0) }
}

/// A length of time in its largest unit that still says something: up to 119 s in seconds, up to 119 min in minutes, …
pub(crate) fn span(secs: u64) -> String {
    match secs {
        s if s < 2 * MINUTE => format!("{s} s"),
        s if s < 2 * HOUR => format!("{} min", s / MINUTE),
        s if s < 2 * DAY => format!("{} h", s / HOUR),
        s => format!("{} d", s / DAY),
    }
}

/// `2026-11-21 21:40:58Z`, for logs whose order and date matter.
pub(crate) fn absolute(secs: u64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z");
    i64::try_from(secs)
        .ok()
        .and_then(|secs| OffsetDateTime::from_unix_timestamp(secs).ok())
        .and_then(|at| at.format(&format).ok())
        .unwrap_or_else(|| secs.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_a_person_would_say_them() {
        assert_eq!(relative(100, 97), "3 s ago");
        assert_eq!(relative(100, 100), "now");
        assert_eq!(relative(0, 90 * DAY), "in 90 d");
        assert_eq!(relative(1000, 0), "16 min ago");
        assert_eq!(relative_ms(10_000, 10_400), "now");
        assert_eq!(relative_ms(10_000, 4_000), "6 s ago");
        assert_eq!(span(2 * HOUR), "2 h");
    }

    #[test]
    fn a_date_is_utc_and_an_absurd_one_is_shown_as_it_is() {
        assert_eq!(absolute(1_760_000_000), "2025-10-09 08:53:20Z");
        assert_eq!(absolute(u64::MAX), u64::MAX.to_string());
    }
}
