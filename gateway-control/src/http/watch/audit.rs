//! What a watch does with the head of its gateway's audit log.
//!
//! With the first head of a watch it is looked up what the gateway reported before: that is what the gateway is asked for. From then
//! on a head is compared with the last one here, which costs nothing; only a contradiction is entered at once, and only while no
//! alarm stands. While one does, it is looked now and then whether a person has acknowledged it.

use std::time::Duration;

use gateway_proto::{
    api::gateway::WatchEvent,
    audit::{
        heads::{HeadReport, ReportedHead, contradicts},
        line::Head,
    },
};
use tokio::time::Instant;

use super::{End, POLICY_VIOLATION, Watch, tellings::Kind, unless_busy};
use crate::service::KnownAudit;

/// How often it is looked whether an alarm still stands.
const LOOK: Duration = Duration::from_secs(10);

/// What a watch knows.
#[derive(Debug, Default)]
pub(super) struct AuditWatch {
    known: Option<KnownAudit>,
    /// The gateway is to be asked for this.
    asks: Option<Head>,
    looked_at: Option<Instant>,
}

/// A head that has to be entered at once.
#[derive(Debug)]
pub(super) struct AuditNews {
    pub(super) head: ReportedHead,
    pub(super) missing: Option<ReportedHead>,
}

impl Watch {
    /// The gateway reports its head; what has to be entered at once.
    pub(super) async fn audit(&mut self, report: HeadReport) -> Result<Option<AuditNews>, End> {
        if !report.is_possible() {
            return Err(End::Close(POLICY_VIOLATION, "not a head of an audit log"));
        }
        // The log of a copy is another one than that which was reported, and nobody changed either.
        if self.stands_in {
            return Ok(None);
        }
        if self.audit.known.is_none() && !self.look_up().await? {
            // Without the database at the moment: its next head is as good.
            return Ok(None);
        }
        let head = ReportedHead::new(&report, self.app.service.clock().unix_secs());
        let Some(known) = &mut self.audit.known else { return Ok(None) };
        let contradicts = known.newest.as_ref().and_then(|newest| contradicts(newest, &report.head)).is_some();
        // What it was not asked for it cannot miss.
        let asked = known.asked.clone().filter(|asked| report.missing.as_ref() == Some(&asked.head()));
        known.newest = Some(report.head);
        if known.is_alarmed || (!contradicts && asked.is_none()) {
            self.session.audit_head(self.caller.key, head);
            return Ok(None);
        }
        known.is_alarmed = true;
        self.audit.looked_at = Some(Instant::now());
        Ok(Some(AuditNews { head, missing: asked }))
    }

    /// Asks the gateway for what it must hold, if that is still to be done.
    pub(super) fn asks(&mut self) -> Option<WatchEvent> {
        self.audit.asks.take().map(|head| WatchEvent::AuditHead { head })
    }

    /// With a heartbeat: whether an alarm was acknowledged.
    pub(super) async fn look_at_alarm(&mut self) -> Result<(), End> {
        let is_alarmed = self.audit.known.as_ref().is_some_and(|known| known.is_alarmed);
        // What is not entered yet nobody can have acknowledged.
        let may_look = is_alarmed && !self.tellings.waits(Kind::Audit);
        if !may_look || self.audit.looked_at.is_some_and(|at| at.elapsed() < LOOK) {
            return Ok(());
        }
        self.look_up().await.map(drop)
    }

    async fn look_up(&mut self) -> Result<bool, End> {
        self.audit.looked_at = Some(Instant::now());
        let Some(looked_up) = unless_busy(self.app.service.known_audit(&self.caller).await)? else { return Ok(false) };
        let asked = |known: &KnownAudit| known.asked.as_ref().map(ReportedHead::head);
        let before = self.audit.known.as_ref().and_then(asked);
        let now = asked(&looked_up);
        if now.is_some() && now != before {
            self.audit.asks = now;
        }
        self.audit.known = Some(looked_up);
        Ok(true)
    }
}
