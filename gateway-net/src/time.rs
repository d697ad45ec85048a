//! The wall clock. Nothing else in the programs reads it, so that a wrong clock can be reasoned about in one place.
//!
//! A clock before 1970 reads as 0, one beyond the year 500 million as the largest number: both are refused later by
//! whatever compares them with a signed time.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds since the Unix epoch.
pub fn unix_secs() -> u64 {
    unix_ms() / 1000
}
