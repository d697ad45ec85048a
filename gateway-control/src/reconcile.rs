//! The reconciler: does what time alone demands and what changes left behind. On a timer and on a nudge; every round is
//! idempotent, so an error only means that the next round tries again. Of several replicas one does it, the leader.

use std::time::Duration;

use gateway_net::shutdown::Shutdown;
use tokio::time::Instant;

use crate::service::{Entered, Service, ServiceResult};

/// How late an expiry may be written down. (Gateways cut expired connections by themselves, to the second.)
const INTERVAL: Duration = Duration::from_secs(5);
/// How often what nobody needs any more is removed.
const PURGE_INTERVAL: Duration = Duration::from_secs(600);

/// Runs until the end is asked for.
pub async fn run(service: Service, shutdown: Shutdown) {
    let mut purge_at = Instant::now();
    let mut prove_at = Instant::now() + service.delivery_interval();
    let mut entered = Entered::default();
    loop {
        let leads = service.leads().await.unwrap_or_else(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot find out who the reconciler is");
            false
        });
        if leads && let Err(error) = round(&service, &shutdown).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "a round of the reconciler failed");
        }
        if leads && Instant::now() >= purge_at {
            purge_at = Instant::now() + PURGE_INTERVAL;
            if let Err(error) = service.purge().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot remove what ended");
            }
        }
        if Instant::now() >= prove_at {
            prove_at = Instant::now() + service.delivery_interval();
            if let Err(error) = service.prove_deliveries(&mut entered).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "a round of the delivery proof failed");
            }
        }
        tokio::select! {
            biased;
            () = shutdown.requested() => return,
            () = service.backlog.notified() => {}
            () = tokio::time::sleep(INTERVAL) => {}
            () = tokio::time::sleep_until(prove_at) => {}
        }
    }
}

async fn round(service: &Service, shutdown: &Shutdown) -> ServiceResult<()> {
    while service.expire_overdue().await? && !shutdown.is_requested() {}
    while service.compile_backlog().await? && !shutdown.is_requested() {}
    Ok(())
}
