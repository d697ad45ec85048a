//! Waiting for what becomes so by itself, with a limit.

use std::time::Duration;

use super::LIMIT;

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// Looks until there is something; `never` is what is said when nothing came.
pub(super) async fn found<T>(never: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("{never}"))
}

/// Looks until it is so; `never` is what is said when it never was.
pub(crate) async fn until(never: &str, is: impl AsyncFn() -> bool) {
    found(never, async || is().await.then_some(())).await;
}
