//! The reconciler: does what time alone demands and what changes left behind. On a timer and on a nudge; every round is
//! idempotent, so an error only means that the next round tries again. Of several replicas one does it, the leader.

use std::{collections::BTreeSet, time::Duration};

use gateway_net::shutdown::Shutdown;
use tokio::time::Instant;

use crate::{
    clock::Clock,
    service::{Backlog, Overdue, Service, ServiceResult},
};

/// How late an expiry may be written down (gateways cut expired connections by themselves, to the second), and for how long
/// what failed waits for its next try at most.
const INTERVAL: Duration = Duration::from_secs(5);
/// How often what nobody needs any more is removed.
const PURGE_INTERVAL: Duration = Duration::from_secs(600);

/// The wall clock has to run evenly for so long before anything is removed because of its age, or ended because its time is over.
/// Nobody misses that meanwhile: gateways cut by themselves, and what is shown and allowed goes by the time.
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
/// not remove for good what is not old, nor end what is not over.
#[derive(Debug)]
struct Steady {
    /// On the clock that only runs.
    since: Duration,
    /// Unix seconds.
    read: u64,
}

impl Steady {
    fn new(clock: &Clock) -> Self {
        Self::from(Duration::ZERO, clock.began_at())
    }

    fn from(now: Duration, unix: u64) -> Self {
        Self { since: now, read: unix }
    }

    /// Looks at the clock: whether it has run evenly for long enough.
    fn look(&mut self, now: Duration, unix: u64) -> bool {
        let passed = now.saturating_sub(self.since);
        if self.read.saturating_add(passed.as_secs()).abs_diff(unix) > STEP_SECS {
            *self = Self::from(now, unix);
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
    let mut reconciler = Reconciler::new(service, shutdown);
    loop {
        if reconciler.turn().await && !shutdown.is_requested() {
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

struct Reconciler<'a> {
    service: &'a Service,
    shutdown: &'a Shutdown,
    round: Round,
    steady: Steady,
    purge_at: Instant,
}

impl<'a> Reconciler<'a> {
    fn new(service: &'a Service, shutdown: &'a Shutdown) -> Self {
        let now = Instant::now();
        Self { service, shutdown, round: Round::new(now), steady: Steady::new(service.clock()), purge_at: now }
    }

    /// Does a part of what is to be done, if it is ours to do; whether there is more.
    async fn turn(&mut self) -> bool {
        // Looked at in every turn, also where another one leads: a clock is believed by how it ran.
        let is_steady = self.is_steady();
        let leads = self.service.leads().await.unwrap_or_else(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot find out who the reconciler is");
            false
        });
        let has_more = leads && self.step(is_steady).await;
        if leads && Instant::now() >= self.purge_at && self.is_steady() {
            self.purge_at = Instant::now() + PURGE_INTERVAL;
            if let Err(error) = self.sweep().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot remove what ended");
            }
        }
        self.round.end_if_due(has_more, Instant::now());
        has_more
    }

    /// A part of a round; whether there is more. Policies first: they are what gateways wait for. But they may come without an end,
    /// so what is overdue has its turn between them. What one of the two cannot do holds up nothing of the other.
    async fn step(&mut self, is_steady: bool) -> bool {
        let turned = if is_steady { self.service.turn_policy_key().await } else { Ok(()) };
        let compiled = self.compile_some().await;
        // That may have taken long.
        let expired =
            if self.is_steady() { self.service.expire_overdue(&mut self.round.passed_over).await } else { Ok(false) };
        [turned.map(|()| false), compiled, expired].into_iter().fold(false, |has_more, part| has_more | said(part))
    }

    fn is_steady(&mut self) -> bool {
        let (now, unix) = self.service.clock().running_and_unix_secs();
        self.steady.look(now, unix)
    }

    async fn compile_some(&mut self) -> ServiceResult<bool> {
        for _ in 0..PORTIONS {
            if self.shutdown.is_requested() || !self.service.compile_backlog(&mut self.round.backlog).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn sweep(&mut self) -> ServiceResult<()> {
        self.service.purge().await?;
        while self.is_steady() && self.service.retain_audit().await? && !self.shutdown.is_requested() {
            // However much there is to remove: gateways wait for their policies.
            self.service.compile_backlog(&mut self.round.backlog).await?;
        }
        Ok(())
    }
}

/// What failed is for the next round.
fn said(part: ServiceResult<bool>) -> bool {
    part.unwrap_or_else(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "a round of the reconciler failed");
        false
    })
}

/// Runs the delivery proof until the end is asked for, and enters heads of audit logs, at every replica: each enters what its own
/// watchers report. Beside the reconciler, so that a round with much to enter holds up no policy.
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

#[cfg(test)]
mod tests {
    use gateway_proto::{
        audit::heads::ReportedHead,
        id::{GrantId, ServerId},
        peering::{ConnectionStatus, GrantStatus},
    };

    use super::*;
    use crate::{
        service::ground::Ground,
        storage::{GrantRow, KeptHeadRow},
    };

    const DAY: Duration = Duration::from_secs(86_400);

    /// A grant that is offered, with an end in a day, and a head of a gateway's log of now.
    async fn kept(ground: &Ground) -> (GrantId, ServerId) {
        let (sender, listener) = (ground.gateway(1).await, ground.gateway(2).await);
        let channel = ground.channel(listener.server, 6_661).await;
        let made = ground.connect(sender.server, channel, ConnectionStatus::Ready, 1).await;
        let now = ground.service.clock().unix_secs();
        let mut tx = ground.begin().await;
        let other = tx.connection(made[0]).await.unwrap().unwrap().grant.unwrap();
        let row = tx.grant(other).await.unwrap().unwrap();
        let (grant, status) = (GrantId::new(1, [9; 10]), GrantStatus::Pending);
        tx.insert_grant(&GrantRow { id: grant, status, expires_at: Some(now + DAY.as_secs()), ..row }).await.unwrap();
        let head = ReportedHead { sequence: 1, hash: "0".repeat(64), at: now * 1000, received_at: now };
        let row = KeptHeadRow { server: sender.server, entry: 1, gateway: sender.key, head };
        tx.insert_kept_head(&row, 10).await.unwrap();
        tx.commit().await.unwrap();
        (grant, sender.server)
    }

    #[tokio::test]
    async fn a_clock_that_is_ahead_for_a_moment_removes_and_ends_nothing() {
        let ground = Ground::new().await;
        let (grant, server) = kept(&ground).await;
        let left = async || {
            let mut tx = ground.read().await;
            let status = tx.grant(grant).await.unwrap().unwrap().status;
            (status, tx.kept_heads(server, u64::MAX, 10).await.unwrap().len())
        };
        let (clock, shutdown) = (ground.service.clock(), Shutdown::manual());
        // At the start, before the time is known; and once more while it runs.
        clock.set_ahead(401 * DAY);
        let mut reconciler = Reconciler::new(&ground.service, &shutdown);
        reconciler.turn().await;
        clock.set_ahead(Duration::ZERO);
        reconciler.turn().await;
        clock.advance(STEADY);
        reconciler.turn().await;
        clock.set_ahead(401 * DAY);
        reconciler.turn().await;
        assert_eq!(left().await, (GrantStatus::Pending, 1));
        clock.set_ahead(Duration::ZERO);
        reconciler.turn().await;
        // What is over is ended, and what is old goes, as soon as the clock can be believed.
        clock.advance(401 * DAY);
        reconciler.purge_at = Instant::now();
        reconciler.turn().await;
        assert_eq!(left().await, (GrantStatus::Expired, 0));
    }

    #[test]
    fn a_clock_that_was_set_is_believed_when_it_has_run_evenly_for_a_while() {
        const NOW: u64 = 1_795_392_996;
        let at = Duration::from_secs;
        // 400 days ahead for four seconds.
        let mut steady = Steady::from(at(0), NOW + 400 * 86_400);
        assert!(!steady.look(at(0), NOW + 400 * 86_400), "nothing is known yet");
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
