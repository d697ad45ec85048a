//! How long a channel is usually silent, learned from the channel itself: a feed that falls silent is the fault nobody
//! notices.
//!
//! For each hour of the day (UTC), working days and weekends apart, the longest gap between two messages that touched this
//! hour is remembered: it grows at once and shrinks slowly, so a quiet night, a lunch break and a weekend are the
//! channel's own. Nothing is said about an hour before it was seen on [`MIN_DAYS`] days.

use std::time::Duration;

use serde::{Deserialize, Serialize};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
/// Days an hour must have been seen before its silence means anything.
const MIN_DAYS: u8 = 3;
/// Silent is more than so many times the usual gap …
const FACTOR: u64 = 3;
/// … and no less than this: a busy channel has short pauses.
const LEAST: u64 = 5 * 60;
/// A gap is entered into so many hours at most: one week.
const MAX_HOURS: u64 = 7 * 24;

/// One hour of the day, on working days or on weekends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Hour {
    /// The usual longest gap, seconds.
    usual: u32,
    /// The longest gap of the day below, seconds.
    longest: u32,
    /// The day it is of, days since 1970; 0: none yet.
    day: u32,
    /// Days that were seen before that one, up to 255.
    days: u8,
}

impl Hour {
    fn see(&mut self, gap: u32, day: u32) {
        if self.day == day {
            self.longest = self.longest.max(gap);
            return;
        }
        if self.day != 0 {
            self.usual = self.expected();
            self.days = self.days.saturating_add(1);
        }
        (self.day, self.longest) = (day, gap);
    }

    /// The usual gap with the last day taken in.
    fn expected(&self) -> u32 {
        if self.days == 0 || self.longest >= self.usual {
            self.longest
        } else {
            self.usual - (self.usual - self.longest) / 4
        }
    }
}

/// A channel that is silent for longer than it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    /// Since when.
    pub lasts: Duration,
    /// The longest gap that is usual at this hour.
    pub usual: Duration,
}

/// The learned schedule of one channel: less than 1 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// 24 hours of working days, then 24 of weekends.
    hours: Vec<Hour>,
    /// Unix seconds of the last message, 0: none yet.
    last: u64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { hours: vec![Hour::default(); 48], last: 0 }
    }
}

impl Schedule {
    /// Whether a stored schedule has the form of one.
    pub fn is_sound(&self) -> bool {
        self.hours.len() == 48
    }

    /// A message passed at `now`, Unix seconds.
    pub fn message(&mut self, now: u64) {
        if self.last != 0 && now >= self.last {
            let gap = u32::try_from(now - self.last).unwrap_or(u32::MAX);
            let (first, end) = (self.last / HOUR, now / HOUR);
            for hour in first.max(end.saturating_sub(MAX_HOURS))..=end {
                if let Some(slot) = self.hours.get_mut(slot(hour * HOUR)) {
                    slot.see(gap, u32::try_from(hour * HOUR / DAY).unwrap_or(u32::MAX));
                }
            }
        }
        // A clock that was set back begins anew.
        self.last = now;
    }

    /// Whether the channel is silent for longer than it should at `now`, Unix seconds.
    pub fn silence(&self, now: u64) -> Option<Silence> {
        let lasts = now.checked_sub(self.last).filter(|_| self.last != 0)?;
        let hour = self.hours.get(slot(now))?;
        let usual = u64::from(hour.expected());
        let is_known = hour.days >= MIN_DAYS;
        (is_known && lasts > (usual * FACTOR).max(LEAST))
            .then_some(Silence { lasts: Duration::from_secs(lasts), usual: Duration::from_secs(usual) })
    }
}

fn slot(at: u64) -> usize {
    // 1 January 1970 was a Thursday: days 2 and 3 of each week are Saturday and Sunday.
    let weekend = matches!(at / DAY % 7, 2 | 3);
    let hour = usize::try_from(at / HOUR % 24).unwrap_or(0);
    if weekend { 24 + hour } else { hour }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONDAY: u64 = 4 * DAY + 52 * 7 * DAY;

    /// Two weeks of a clinic: a message each minute from 7 to 18 on working days, one each hour on weekends.
    fn clinic() -> Schedule {
        let mut schedule = Schedule::default();
        for day in 0..14 {
            let midnight = MONDAY + day * DAY;
            let (from, to, step) = if day % 7 < 5 { (7, 18, 60) } else { (8, 16, HOUR) };
            for at in (midnight + from * HOUR..=midnight + to * HOUR).step_by(step as usize) {
                schedule.message(at);
            }
        }
        schedule
    }

    #[test]
    fn a_busy_hour_that_falls_silent_is_noticed_and_a_night_is_not() {
        let mut schedule = clinic();
        let monday = MONDAY + 14 * DAY;
        assert_eq!(schedule.silence(monday + 3 * HOUR), None, "a night after a weekend");
        for at in (monday + 7 * HOUR..=monday + 10 * HOUR).step_by(60) {
            schedule.message(at);
        }
        let last = monday + 10 * HOUR;
        assert_eq!(schedule.silence(last + LEAST), None);
        let silence = schedule.silence(last + LEAST + 1);
        assert_eq!(silence, Some(Silence { lasts: Duration::from_secs(LEAST + 1), usual: Duration::from_secs(60) }));
        schedule.message(last + LEAST + 2);
        assert_eq!(schedule.silence(last + LEAST + 3), None, "a message ends it");
    }

    #[test]
    fn a_feed_that_does_not_start_in_the_morning_is_noticed_in_its_second_hour() {
        let schedule = clinic();
        let monday = MONDAY + 14 * DAY;
        assert_eq!(
            schedule.silence(monday + 7 * HOUR + 1800),
            None,
            "its first hour is known with the night before it"
        );
        assert!(schedule.silence(monday + 9 * HOUR).is_some());
    }

    #[test]
    fn a_weekend_is_measured_by_weekends() {
        let mut schedule = clinic();
        for at in (MONDAY + 14 * DAY..MONDAY + 19 * DAY).step_by(600) {
            schedule.message(at);
        }
        let saturday = MONDAY + 19 * DAY;
        schedule.message(saturday + 8 * HOUR);
        schedule.message(saturday + 9 * HOUR);
        assert_eq!(schedule.silence(saturday + 10 * HOUR + 60), None);
    }

    #[test]
    fn nothing_is_said_before_enough_days_were_seen_nor_after_a_clock_went_back() {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.silence(MONDAY), None);
        for day in 0..3 {
            for at in (MONDAY + day * DAY + 8 * HOUR..MONDAY + day * DAY + 9 * HOUR).step_by(60) {
                schedule.message(at);
            }
            assert_eq!(schedule.silence(MONDAY + day * DAY + 8 * HOUR + 59 * 60 + 1), None);
        }
        schedule.message(MONDAY);
        assert_eq!(schedule.silence(MONDAY - 100), None);
        schedule.message(u64::MAX / 2);
        assert!(schedule.is_sound());
    }

    #[test]
    fn a_schedule_survives_being_written_down() {
        let schedule = clinic();
        let text = serde_json::to_string(&schedule).unwrap_or_default();
        assert_eq!(serde_json::from_str::<Schedule>(&text).ok(), Some(schedule));
        assert!(text.len() < 4096, "{}", text.len());
    }
}
