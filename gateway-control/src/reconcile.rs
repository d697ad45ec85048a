//! The reconciler: does what time alone demands and what changes left behind. On a timer and on a nudge; every round is
//! idempotent, so an error only means that the next round tries again. Of several replicas one does it, the leader.

use std::{collections::BTreeSet, time::Duration};

use gateway_net::shutdown::Shutdown;
use tokio::time::Instant;

use crate::service::{Backlog, Overdue, Pending, Service, ServiceResult};

/// How late an expiry may be written down. (Gateways cut expired connections by themselves, to the second.)
const INTERVAL: Duration = Duration::from_secs(5);
/// How often what nobody needs any more is removed.
const PURGE_INTERVAL: Duration = Duration::from_secs(600);

/// Portions of policies between two looks at what else is to be done.
const PORTIONS: usize = 20;

/// Where a round is.
#[derive(Debug, Default)]
struct Round {
    backlog: Backlog,
    /// What is overdue and cannot be ended.
    passed_over: BTreeSet<Overdue>,
}

/// Runs until the end is asked for.
pub async fn run(service: Service, shutdown: Shutdown) {
    let mut purge_at = Instant::now();
    let mut round = Round::default();
    loop {
        let leads = service.leads().await.unwrap_or_else(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot find out who the reconciler is");
            false
        });
        let has_more = leads && step(&service, &mut round, &shutdown).await;
        if leads && Instant::now() >= purge_at {
            purge_at = Instant::now() + PURGE_INTERVAL;
            if let Err(error) = sweep(&service, &mut round, &shutdown).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot remove what ended");
            }
        }
        if has_more && !shutdown.is_requested() {
            continue;
        }
        round.backlog.begin_round();
        round.passed_over.clear();
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

async fn sweep(service: &Service, round: &mut Round, shutdown: &Shutdown) -> ServiceResult<()> {
    service.purge().await?;
    while service.retain_audit().await? && !shutdown.is_requested() {
        // However much there is to remove: gateways wait for their policies.
        service.compile_backlog(&mut round.backlog).await?;
    }
    Ok(())
}

/// A part of a round; whether there is more. Policies first: they are what gateways wait for. But they may come without an end,
/// so what is overdue has its turn between them. What one of the two cannot do holds up nothing of the other.
async fn step(service: &Service, round: &mut Round, shutdown: &Shutdown) -> bool {
    let turned = service.turn_policy_key().await.map(|()| false);
    let compiled = async {
        for _ in 0..PORTIONS {
            if shutdown.is_requested() || !service.compile_backlog(&mut round.backlog).await? {
                return Ok(false);
            }
        }
        ServiceResult::Ok(true)
    };
    let compiled = compiled.await;
    let expired = service.expire_overdue(&mut round.passed_over).await;
    [turned, compiled, expired].into_iter().fold(false, |has_more, part| has_more | said(part))
}

/// What failed is for the next round.
fn said(part: ServiceResult<bool>) -> bool {
    part.unwrap_or_else(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "a round of the reconciler failed");
        false
    })
}
