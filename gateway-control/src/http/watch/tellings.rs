//! What a gateway tells and costs a turn to write.
//!
//! It waits for that turn, and for the database behind it, beside the watch, which goes on meanwhile: a revoke goes out, and so do
//! heartbeats. One thing is written at a time, in the order of telling. What finds the database busy is written a little later: the
//! gateways of a large organization may all have something to tell at once, when a relay was lost for example; they wait for each
//! other, and none is sent away for it.

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, pin::Pin, time::Duration};

use gateway_proto::{
    api::gateway::{EngineReport, MAX_REPORT_CONNECTIONS, Report},
    audit::heads::HeadFault,
    id::RelayId,
};
use tokio::time::{Instant, timeout};

use super::{App, End, POLICY_VIOLATION, SILENCE, Watch, audit::AuditNews, unless_busy};
use crate::{
    service::{GatewayCaller, Service, ServiceError, ServiceResult},
    watchers::brief,
};

/// Between two moves of a gateway's home relay: each is a new policy for all its partners, so a gateway that flaps, or wants to
/// harm, moves no more often.
const HOME_INTERVAL: Duration = Duration::from_secs(10);
/// When so much waits, whoever says too much has to wait before we read on; one message tells two things at most.
const HELD: usize = 2;
/// What found the database busy is told again after this time, or up to twice as long: not all of them at once.
const AGAIN: Duration = Duration::from_secs(3);

/// Something that a gateway told.
#[derive(Debug)]
pub(super) enum Telling {
    /// Where it can be reached.
    Home(Option<RelayId>),
    /// News of its engine.
    Engine(EngineReport),
    /// A head of its audit log that contradicts what is known.
    Audit(Box<AuditNews>),
    /// A policy that it does not put into force, or cannot save; and what it has in force, whose own telling may be late or lost.
    Refusal { revision: u64, in_force: u64, reason: String },
}

/// What kind of thing it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Home,
    Engine,
    Audit,
    Refusal,
}

impl Telling {
    fn kind(&self) -> Kind {
        match self {
            Self::Home(_) => Kind::Home,
            Self::Engine(_) => Kind::Engine,
            Self::Audit(_) => Kind::Audit,
            Self::Refusal { .. } => Kind::Refusal,
        }
    }

    /// Writes it down when its turn has come; what the audit log was told.
    async fn write(&self, service: &Service, caller: &GatewayCaller) -> ServiceResult<Option<HeadFault>> {
        match self {
            Self::Home(home) => service.gateway_moved(caller, *home).await?,
            Self::Engine(report) => service.gateway_engine(caller, report.clone()).await?,
            Self::Audit(news) => {
                let outcome = service.gateway_audit(caller, news.head.clone(), news.missing.clone()).await?;
                return Ok(outcome.tells);
            }
            Self::Refusal { revision, in_force, reason } => {
                service.gateway_rejected(caller, *revision, *in_force, reason).await?;
            }
        }
        Ok(None)
    }
}

/// What was told and is not written yet: what decides when which of it is, without a clock of its own.
#[derive(Debug)]
pub(super) struct Tellings {
    /// At most [`HELD`] and what one message told, and what was put back.
    held: VecDeque<Telling>,
    at_work: Option<Kind>,
    not_before: Instant,
    /// What is written of its home relay, and what it told last.
    home: Option<RelayId>,
    wanted_home: Option<RelayId>,
    /// Its home moves no earlier than then.
    moves_from: Instant,
}

impl Tellings {
    pub(super) fn new(now: Instant) -> Self {
        Self { held: VecDeque::new(), at_work: None, not_before: now, home: None, wanted_home: None, moves_from: now }
    }

    fn hold(&mut self, telling: Telling) {
        self.held.push_back(telling);
    }

    /// Without a relay at the moment, the last one known is still the best guess for the peers; the last word counts.
    fn wants(&mut self, home: Option<RelayId>) {
        self.wanted_home = home.or(self.wanted_home);
    }

    /// More is not to be read. What contradicts what is known, or refuses it, is written before anything that comes after it.
    pub(super) fn is_full(&self) -> bool {
        self.held.len() >= HELD || self.waits(Kind::Audit) || self.waits(Kind::Refusal)
    }

    /// Whether something of this kind is not written yet.
    pub(super) fn waits(&self, kind: Kind) -> bool {
        self.at_work == Some(kind) || self.held.iter().any(|telling| telling.kind() == kind)
    }

    /// When something may be written; none: there is nothing, or something is being written.
    pub(super) fn due_at(&self) -> Option<Instant> {
        if self.at_work.is_some() {
            return None;
        }
        let moves = (self.wanted_home != self.home).then(|| self.rested_at());
        let tells = (!self.held.is_empty()).then_some(self.not_before);
        moves.into_iter().chain(tells).min()
    }

    /// Takes what is to be written now.
    fn take_due(&mut self, now: Instant) -> Option<Telling> {
        if self.due_at().is_none_or(|at| at > now) {
            return None;
        }
        let moves = self.wanted_home != self.home && self.rested_at() <= now;
        let telling = if moves { Telling::Home(self.wanted_home) } else { self.held.pop_front()? };
        self.at_work = Some(telling.kind());
        Some(telling)
    }

    fn rested_at(&self) -> Instant {
        self.not_before.max(self.moves_from)
    }

    /// What was taken is not written: it is the next one again, and nothing is before that time.
    fn put_back(&mut self, telling: Telling, not_before: Instant) {
        self.at_work = None;
        self.not_before = not_before;
        // Of its home, what it wants then is written then.
        if telling.kind() != Kind::Home {
            self.held.push_front(telling);
        }
    }

    /// What was taken is written.
    fn done(&mut self, telling: &Telling, now: Instant) {
        self.at_work = None;
        if let Telling::Home(home) = telling {
            self.home = *home;
            self.moves_from = now + HOME_INTERVAL;
        }
    }

    /// Its home relay was not moved: it did that too often lately, on this watch or on those before. Nothing else waits for that.
    fn rests(&mut self, until: Instant) {
        self.at_work = None;
        self.moves_from = until;
    }

    /// Takes what the gateway will not say again by itself, now that its watch has ended.
    fn take_last(&mut self) -> Option<Telling> {
        self.held.retain(|telling| matches!(telling.kind(), Kind::Audit | Kind::Refusal));
        self.held.pop_front()
    }
}

/// What was being written, and what came of it.
pub(super) type Told = Box<(Telling, ServiceResult<Option<HeadFault>>)>;
/// Something that is being written.
pub(super) type UnderWay = Pin<Box<dyn Future<Output = Told> + Send>>;

/// What comes of what is being written; never, if nothing is.
pub(super) async fn written(under_way: &mut Option<UnderWay>) -> Told {
    let Some(writing) = under_way.as_mut() else { return std::future::pending().await };
    let told = writing.await;
    *under_way = None;
    told
}

/// When something is told again, by a random number.
fn again(random: u64) -> Duration {
    AGAIN + Duration::from_millis(random % 3_000)
}

impl Watch {
    /// Takes a report in; what costs a turn to write waits for it.
    pub(super) async fn report(&mut self, report: Report) -> Result<(), End> {
        if report.connections.len() > MAX_REPORT_CONNECTIONS {
            return Err(End::Close(POLICY_VIOLATION, "too many connections in one report"));
        }
        self.tellings.wants(report.home_relay);
        let now = self.app.service.clock().unix_secs();
        let dropped = self.session.report(report.connections, &self.connections, now);
        self.app.metrics.reports_dropped(dropped);
        if let Some(audit) = report.audit
            && let Some(news) = self.audit(*audit).await?
        {
            self.tellings.hold(Telling::Audit(Box::new(news)));
        }
        if let Some(engine) = report.engine {
            self.tellings.hold(Telling::Engine(engine));
        }
        Ok(())
    }

    /// The gateway does not put a policy into force, or cannot save it.
    pub(super) fn refused(&mut self, revision: u64, reason: &str) {
        let reason = brief(reason);
        tracing::warn!(server = %self.caller.server, revision, reason, "a gateway refused its policy, or could not save it");
        self.tellings.hold(Telling::Refusal { revision, in_force: self.in_force, reason });
    }

    /// Begins to write what is next, if the gateway may tell so much.
    pub(super) fn tell(&mut self) {
        self.excuse();
        let now = Instant::now();
        let Some(telling) = self.tellings.take_due(now) else { return };
        let (service, caller) = (self.app.service.clone(), self.caller);
        // Moves have a pace of their own.
        if telling.kind() != Kind::Home
            && let Err(wait) = service.may_tell(&caller)
        {
            self.tellings.put_back(telling, now + wait.min(SILENCE / 2));
            return;
        }
        self.under_way = Some(Box::pin(async move {
            let outcome = telling.write(&service, &caller).await;
            Box::new((telling, outcome))
        }));
    }

    /// Something was written, or has to be told again.
    pub(super) fn told(&mut self, told: Told) -> Result<(), End> {
        self.excuse();
        let (telling, outcome) = *told;
        let now = Instant::now();
        if let (Telling::Home(_), Err(ServiceError::RateLimited(wait))) = (&telling, &outcome) {
            self.tellings.rests(now + *wait);
            return Ok(());
        }
        match unless_busy(outcome)? {
            Some(fault) => {
                self.app.metrics.audit_fault(fault);
                self.tellings.done(&telling, now);
            }
            None => self.tellings.put_back(telling, now + again(u64::from_ne_bytes(gateway_net::random()))),
        }
        Ok(())
    }

    /// Whoever was not read is not silent.
    fn excuse(&mut self) {
        if self.tellings.is_full() {
            self.heard();
        }
    }
}

/// What is left of a watch that has ended.
pub(super) struct Unfinished {
    pub(super) tellings: Tellings,
    pub(super) under_way: Option<UnderWay>,
}

impl Unfinished {
    /// Writes what the gateway told last, if that takes no longer than it may be silent.
    pub(super) async fn finish(mut self, app: &App, caller: &GatewayCaller) {
        let writing = async {
            if self.under_way.is_some() {
                let (_telling, outcome) = *written(&mut self.under_way).await;
                app.metrics.audit_fault(outcome?);
            }
            while let Some(telling) = self.tellings.take_last() {
                if app.service.may_tell(caller).is_err() {
                    break;
                }
                app.metrics.audit_fault(telling.write(&app.service, caller).await?);
            }
            ServiceResult::Ok(())
        };
        match timeout(SILENCE, writing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(server = %caller.server, error, "what a gateway told last is not written");
            }
            Err(_) => {
                tracing::warn!(server = %caller.server, "what a gateway told last is not written: it took too long");
            }
        }
    }
}
