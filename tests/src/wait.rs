//! Waiting for a condition with a limit.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use anyhow::bail;

/// How often a condition is looked at: short enough to measure a reset below 100 ms, long enough to cost nothing.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Looks until `look` answers `Some`, and says what was missing when `limit` is over.
pub async fn until<T>(
    limit: Duration,
    what: impl Display,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if started.elapsed() >= limit {
            bail!("not within {:.1} s: {what}", limit.as_secs_f64());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
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
