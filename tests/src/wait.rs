//! Waiting for a condition with a limit.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use anyhow::bail;

/// How often a condition is looked at: short enough to measure a reset below 100 ms, long enough to cost nothing.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// The longest pause between two looks. A look that starts a program takes a while itself, on a busy machine a long one;
/// the pause is as long as the look was, so that waiting is no load of its own.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Looks until `look` answers `Some`, and says what was missing when `limit` is over.
pub async fn until<T>(
    limit: Duration,
    what: impl Display,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        let looked = Instant::now();
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if started.elapsed() >= limit {
            bail!("not within {:.1} s: {what}", limit.as_secs_f64());
        }
        tokio::time::sleep(looked.elapsed().clamp(LOOK_INTERVAL, LONGEST_PAUSE)).await;
    }
}

/// Like [`until`] for a plain condition.
pub async fn until_true(
    limit: Duration,
    what: impl Display,
    mut look: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    until(limit, what, async || Ok(look().await?.then_some(()))).await
}
