//! The reconciler: does what time alone demands and what changes left behind. On a timer and on a nudge; every round is
//! idempotent, so an error only means that the next round tries again. Of several replicas one does it, the leader.

use std::{collections::BTreeSet, time::Duration};

use gateway_net::shutdown::Shutdown;
use tokio::time::Instant;

use crate::service::{Backlog, Overdue, Service, ServiceResult};

/// How late an expiry may be written down (gateways cut expired connections by themselves, to the second), and for how long
/// what failed waits for its next try at most.
const INTERVAL: Duration = Duration::from_secs(5);
/// How often what nobody needs any more is removed.
const PURGE_INTERVAL: Duration = Duration::from_secs(600);

/// The wall clock has to run evenly for so long before anything is removed because of its age.
const STEADY: Duration = Duration::from_secs(300);
/// By so much it may differ from what was to be expected: it is set by less all the time.
const STEP_SECS: u64 = 60;

/// Portions of policies between two looks at what else is to be done.
const PORTIONS: usize = 20;

/// Where a round is: what could not be done is passed over to its end.
#[derive(Debug)]
struct Round {
    backlog: Backlog,
    /// What is overdue and cannot be ended.
    passed_over: BTreeSet<Overdue>,
    ends_at: Instant,
}

impl Round {
    fn new(now: Instant) -> Self {
        Self { backlog: Backlog::default(), passed_over: BTreeSet::new(), ends_at: now + INTERVAL }
    }

    /// Lets what failed be tried again when nothing else is left, and after a while even if there always is: somebody who keeps
    /// the backlog filled must not keep a revoke back.
    fn end_if_due(&mut self, has_more: bool, now: Instant) {
        if has_more && now < self.ends_at {
            return;
        }
        self.backlog.begin_round();
        self.passed_over.clear();
        self.ends_at = now + INTERVAL;
    }
}

/// Whether the wall clock can be believed: one that is set by days for seconds, as at a start before the time is known, must
/// not remove for good what is not old.
#[derive(Debug)]
struct Steady {
    since: Instant,
    /// Unix seconds.
    read: u64,
}

impl Steady {
    fn new(now: Instant, unix: u64) -> Self {
        Self { since: now, read: unix }
    }

    /// Looks at the clock: whether it has run evenly for long enough.
    fn look(&mut self, now: Instant, unix: u64) -> bool {
        let passed = now - self.since;
        if self.read.saturating_add(passed.as_secs()).abs_diff(unix) > STEP_SECS {
            *self = Self::new(now, unix);
            return false;
        }
        passed >= STEADY
    }
}

/// Runs until the end is asked for. What is under way then is given up: what it has not committed, the next process does.
pub async fn run(service: Service, shutdown: Shutdown) {
    tokio::select! {
        biased;
        () = shutdown.requested() => {}
        () = rounds(&service, &shutdown) => {}
    }
}

async fn rounds(service: &Service, shutdown: &Shutdown) {
    let mut purge_at = Instant::now();
    let mut round = Round::new(purge_at);
    let mut steady = Steady::new(purge_at, service.clock().unix_secs());
    loop {
        let is_steady = steady.look(Instant::now(), service.clock().unix_secs());
        let leads = service.leads().await.unwrap_or_else(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot find out who the reconciler is");
            false
        });
        let has_more = leads && step(service, &mut round, shutdown).await;
        if leads && Instant::now() >= purge_at {
            purge_at = Instant::now() + PURGE_INTERVAL;
            if let Err(error) = sweep(service, &mut round, is_steady, shutdown).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot remove what ended");
            }
        }
        round.end_if_due(has_more, Instant::now());
        if has_more && !shutdown.is_requested() {
            continue;
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
    loop {
        tokio::select! {
            biased;
            () = shutdown.requested() => return,
            () = tokio::time::sleep(service.delivery_interval()) => {}
        }
        let round = async { (service.prove_deliveries().await, service.enter_heads().await) };
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

async fn sweep(service: &Service, round: &mut Round, is_steady: bool, shutdown: &Shutdown) -> ServiceResult<()> {
    service.purge().await?;
    while is_steady && service.retain_audit().await? && !shutdown.is_requested() {
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

#[cfg(test)]
mod tests {
    use gateway_proto::id::GrantId;

    use super::*;

    #[test]
    fn a_clock_that_was_set_is_believed_when_it_has_run_evenly_for_a_while() {
        const NOW: u64 = 1_795_392_996;
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        // 400 days ahead for four seconds.
        let mut steady = Steady::new(start, NOW + 400 * 86_400);
        assert!(!steady.look(start, NOW + 400 * 86_400), "nothing is known yet");
        assert!(!steady.look(at(4), NOW + 4));
        assert!(!steady.look(at(303), NOW + 303));
        assert!(steady.look(at(304), NOW + 304));
        assert!(steady.look(at(3_600), NOW + 3_600 + 50), "it is corrected by a little all the time");
        assert!(!steady.look(at(3_605), NOW + 3_605 + 400 * 86_400), "ahead again");
        assert!(!steady.look(at(3_610), NOW + 3_610), "and right again");
        assert!(steady.look(at(3_910), NOW + 3_910));
    }

    #[test]
    fn what_failed_is_tried_again_after_a_while_however_much_else_there_is_to_do() {
        let start = Instant::now();
        let mut round = Round::new(start);
        let failed = Overdue::Grant(GrantId::from_bytes([1; 16]));
        round.passed_over.insert(failed);
        round.end_if_due(true, start + INTERVAL / 2);
        assert!(round.passed_over.contains(&failed), "not again and again");
        round.end_if_due(true, start + INTERVAL);
        assert!(round.passed_over.is_empty());
        round.passed_over.insert(failed);
        round.end_if_due(true, start + INTERVAL + INTERVAL / 2);
        assert!(round.passed_over.contains(&failed), "each round has its time");
        round.end_if_due(false, start + INTERVAL + INTERVAL / 2);
        assert!(round.passed_over.is_empty(), "nothing else is left");
    }
}
