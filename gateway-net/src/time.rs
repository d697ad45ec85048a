//! The wall clock. Nothing else in the programs reads it, so that a wrong clock can be reasoned about in one place.
//!
//! A clock before 1970 reads as 0, one beyond the year 500 million as the largest number: both are refused later by
//! whatever compares them with a signed time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The same as of the kernel's last tick, some milliseconds ago at most (clock_gettime(2), `CLOCK_REALTIME_COARSE`): a fraction of the
/// cost, for what is noted with every message. Where there is no such clock, that of [`unix_ms`].
pub fn unix_ms_at_tick() -> u64 {
    #[cfg(target_os = "linux")]
    if let Ok(time) = nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME_COARSE) {
        let since = Duration::from(time);
        return u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    }
    unix_ms()
}

/// Seconds since the Unix epoch.
pub fn unix_secs() -> u64 {
    unix_ms() / 1000
}
