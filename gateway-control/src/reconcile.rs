//! The reconciler: does what time alone demands and what changes left behind. On a timer and on a nudge; every round is
//! idempotent, so an error only means that the next round tries again. Of several replicas one does it, the leader.

use std::{collections::BTreeSet, time::Duration};

use gateway_net::shutdown::Shutdown;
use tokio::time::Instant;

use crate::service::{Pending, Service, ServiceResult};

/// How late an expiry may be written down. (Gateways cut expired connections by themselves, to the second.)
const INTERVAL: Duration = Duration::from_secs(5);
/// How often what nobody needs any more is removed.
const PURGE_INTERVAL: Duration = Duration::from_secs(600);

/// Runs until the end is asked for.
pub async fn run(service: Service, shutdown: Shutdown) {
    let mut purge_at = Instant::now();
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
            if let Err(error) = sweep(&service, &shutdown).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot remove what ended");
            }
        }
        tokio::select! {
            biased;
            () = shutdown.requested() => return,
            () = service.backlog.notified() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Runs the delivery proof until the end is asked for, and enters heads of audit logs, at every replica: each enters what its own
/// watchers report. Beside
/// the reconciler, so that a round with much to enter holds up no policy.
pub async fn prove(service: Service, shutdown: Shutdown) {
    let mut pending = Pending::default();
    loop {
        tokio::select! {
            biased;
            () = shutdown.requested() => return,
            () = tokio::time::sleep(service.delivery_interval()) => {}
        }
        let round = async { (service.prove_deliveries(&mut pending).await, service.enter_heads().await) };
        let (proved, entered) = tokio::select! {
            biased;
            () = shutdown.requested() => return,
            done = round => done,
        };
        if let Err(error) = proved {
            tracing::warn!(error = &error as &dyn std::error::Error, "a round of the delivery proof failed");
        }
        if let Err(error) = entered {
            tracing::warn!(error = &error as &dyn std::error::Error, "heads of audit logs wait for the next round");
        }
    }
}

async fn sweep(service: &Service, shutdown: &Shutdown) -> ServiceResult<()> {
    service.purge().await?;
    while service.retain_audit().await? && !shutdown.is_requested() {}
    Ok(())
}

/// Policies first: they are what gateways wait for. What one of the two cannot do holds up nothing of the other.
async fn round(service: &Service, shutdown: &Shutdown) -> ServiceResult<()> {
    let turned = service.turn_policy_key().await;
    let mut after = String::new();
    let compiled = async {
        while service.compile_backlog(&mut after).await? && !shutdown.is_requested() {}
        ServiceResult::Ok(())
    };
    let compiled = compiled.await;
    let mut passed_over = BTreeSet::new();
    while service.expire_overdue(&mut passed_over).await? && !shutdown.is_requested() {}
    turned.and(compiled)
}
