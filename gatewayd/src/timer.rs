//! A timer that may not be set.

use std::{future::pending, time::Instant};

use tokio::time::sleep_until;

/// Resolves then; never, if there is no such time.
pub(crate) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}
