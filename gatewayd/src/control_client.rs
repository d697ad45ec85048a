//! The link to the control plane: it brings the policy, confirms it, and takes our reports.
//!
//! One actor keeps one WebSocket ("watch") open for as long as the gateway is enrolled. Tunnels need none of it: while the
//! control plane is away, everything goes on from the policy on disk within its staleness budget.
//!
//! Life-cycle: not enrolled → waits; enrolled → connect, `Hello` with our revision, then policies, heartbeats both ways and
//! reports, until silence, an error or a newer enrolment ends the link; then again after a jittered [`Backoff`], which
//! starts over once a heartbeat was heard. [`enroll()`] is the other way in, driven by the local API.

mod audit_reports;
mod end;
mod engine_reports;
mod enroll;
mod link;
mod reports;

use std::{
    fmt,
    mem::{Discriminant, discriminant},
    sync::Arc,
    time::Duration,
};

use end::{LinkEnd, OurTime};
pub use engine_reports::EngineSnapshot;
pub use enroll::{EnrollError, enroll};
use gateway_net::{causes::with_causes, proxy::Proxy};
use gateway_proto::{
    api::{
        gateway::{ConnectionReport, HEARTBEAT_SECS, SILENCE_SECS, TWICE_RETRY_SECS},
        local::ControlStatus,
    },
    backoff::Backoff,
    id::RelayId,
};
use link::Link;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{audit::AuditLog, authority::Authority, store::Enrollment};

/// Delay before the first new attempt.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// Delay between attempts at most.
const MAX_RETRY: Duration = Duration::from_secs(30);
/// At the start, for the control plane's word whether this process is the gateway: longer than it takes to ask another one.
const START_PATIENCE: Duration = Duration::from_secs(4);
/// At a shutdown, for the last report.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where reports come from.
#[derive(Clone)]
pub struct ReportSource {
    /// The state of every connection now. Called from the actor: it must be quick and must not block.
    pub connections: Arc<dyn Fn() -> Vec<ConnectionReport> + Send + Sync>,
    /// The engine beside us; none: it is not configured. As quick as `connections`.
    pub engine: Arc<dyn Fn() -> Option<EngineSnapshot> + Send + Sync>,
    /// The audit log, whose head is reported; none: nothing is.
    pub audit: Option<AuditLog>,
    /// Wakes the actor before the next poll, for changes people wait for.
    pub changed: Arc<Notify>,
    /// The relay where peers reach us.
    pub home_relay: watch::Receiver<Option<RelayId>>,
}

impl fmt::Debug for ReportSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReportSource").field("home_relay", &*self.home_relay.borrow()).finish_non_exhaustive()
    }
}

/// The times of the link. The defaults are those of the protocol.
#[derive(Debug, Clone, Copy)]
pub struct LinkTimes {
    /// Between our heartbeats.
    pub heartbeat: Duration,
    /// Silence after which the link is given up.
    pub silence: Duration,
    /// Between two looks for changes to report.
    pub report: Duration,
    /// How long the control plane may speak of a newer policy without sending it.
    pub missing_policy: Duration,
    /// Between the attempts of a second process, by chance up to half more or less.
    pub second: Duration,
}

impl Default for LinkTimes {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(HEARTBEAT_SECS),
            silence: Duration::from_secs(SILENCE_SECS),
            report: Duration::from_secs(2),
            missing_policy: Duration::from_secs(5),
            second: Duration::from_secs(TWICE_RETRY_SECS),
        }
    }
}

/// The actor. [`run`](Self::run) it in a task of its own.
#[derive(Debug)]
pub struct ControlClient {
    authority: Authority,
    reports: ReportSource,
    times: LinkTimes,
    proxy: Option<Proxy>,
    status: watch::Sender<ControlStatus>,
}

impl ControlClient {
    /// An actor that is not running yet. `proxy`: the one on the way out, where it covers the control plane's host.
    pub fn new(authority: Authority, reports: ReportSource, times: LinkTimes, proxy: Option<Proxy>) -> Self {
        let status = ControlStatus {
            connected: false,
            url: authority.enrollment().borrow().as_ref().map(|enrollment| enrollment.control.clone()),
            last_heard_at: None,
            clock_skew_ms: None,
            proxy: None,
            problem: None,
        };
        Self { authority, reports, times, proxy, status: watch::Sender::new(status) }
    }

    /// The state of the link and its changes.
    pub fn status(&self) -> watch::Receiver<ControlStatus> {
        self.status.subscribe()
    }

    /// Keeps the link until `shutdown`, and then a moment longer: what was counted last is reported, or the other end of a
    /// connection would seem to have counted too much.
    pub async fn run(self, shutdown: CancellationToken) {
        // Everything below is cancel-safe: writes to disk finish in their own threads.
        tokio::select! {
            () = self.keep_linked(&shutdown) => {}
            () = self.said_enough(&shutdown) => {}
            () = self.asked_enough() => {}
        }
    }

    /// Does not end: there is nothing more to do.
    async fn asked_enough(&self) {
        tokio::time::sleep(START_PATIENCE).await;
        self.authority.stop_asking();
        std::future::pending::<()>().await;
    }

    async fn said_enough(&self, shutdown: &CancellationToken) {
        shutdown.cancelled().await;
        if self.status.borrow().connected {
            tokio::time::sleep(LAST_WORDS).await;
        }
    }

    async fn keep_linked(&self, shutdown: &CancellationToken) {
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        let mut enrollment = self.authority.enrollment();
        // The wall clock is right as a rule. The one for decisions never goes back, so a policy that was signed while the control
        // plane's clock was ahead would keep it ahead, and us away; but it is nearer where the wall clock was set back.
        let mut by_floor = false;
        let mut said = None;
        loop {
            let Some(current) = self.enrolled(&mut enrollment).await else { return };
            self.status.send_modify(|status| {
                status.url = Some(current.control.clone());
                status.proxy = enroll::base_url(&current.control)
                    .and_then(|url| self.proxy.as_ref().filter(|proxy| proxy.covers_url(&url)))
                    .map(Proxy::to_string);
            });
            let end = tokio::select! {
                end = self.link(&current, by_floor, &mut backoff, shutdown) => end,
                () = moved(enrollment.clone(), &current) => LinkEnd::Moved,
            };
            if shutdown.is_cancelled() {
                return;
            }
            let delay = if matches!(end, LinkEnd::Moved) {
                Duration::ZERO
            } else {
                self.pause_after(&end, &mut backoff, u32::from_ne_bytes(gateway_net::random()))
            };
            self.authority.stop_asking();
            by_floor ^= end.doubts_clock();
            self.ended(&end, delay, &mut said);
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = moved(enrollment.clone(), &current) => {}
            }
        }
    }

    /// The pause before the next attempt. A second process of the gateway is not let in any sooner for asking more often.
    fn pause_after(&self, end: &LinkEnd, backoff: &mut Backoff, random: u32) -> Duration {
        if matches!(end, LinkEnd::RunsTwice(_)) {
            return self.times.second.mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX));
        }
        backoff.next_delay(random)
    }

    /// Waits until there is an enrolment; `None`: there will be none.
    async fn enrolled(&self, enrollment: &mut watch::Receiver<Option<Enrollment>>) -> Option<Enrollment> {
        if enrollment.borrow().is_none() {
            let problem = "not enrolled: run `gatewayd enroll` with a code from the control plane".to_owned();
            self.status.send_modify(|status| status.problem = Some(problem));
        }
        enrollment.wait_for(Option::is_some).await.ok()?.clone()
    }

    async fn link(
        &self,
        enrollment: &Enrollment,
        by_floor: bool,
        backoff: &mut Backoff,
        shutdown: &CancellationToken,
    ) -> LinkEnd {
        let trust = match enrollment.trust() {
            Ok(trust) => trust,
            Err(error) => return LinkEnd::Pin(error),
        };
        let ours = OurTime { decides: self.authority.now(), clock: gateway_net::time::unix_secs() };
        let now = if by_floor { ours.decides } else { ours.clock };
        let options = match link::options(&self.authority, enrollment, trust, self.proxy.clone(), now) {
            Ok(options) => options,
            Err(end) => return end,
        };
        let stream = match gateway_net::ws::connect(&options).await {
            Ok(stream) => stream,
            Err(error) => return LinkEnd::unconnected(error, ours),
        };
        let link = Link::new(self.authority.clone(), self.reports.clone(), self.times, &self.status);
        link.run(stream, backoff, shutdown).await
    }

    fn ended(&self, end: &LinkEnd, delay: Duration, said: &mut Option<Discriminant<LinkEnd>>) {
        let problem = with_causes(end);
        let was_connected = self.status.borrow().connected;
        let is_said = if end.doubts_clock() {
            // The words have the time in them.
            *said == Some(discriminant(end))
        } else {
            self.status.borrow().problem.as_deref() == Some(problem.as_str())
        };
        *said = (!was_connected).then(|| discriminant(end));
        if was_connected {
            tracing::warn!(problem, retry_in = ?delay, "the link to the control plane ended");
        } else if !is_said {
            // Once a reason, not once an attempt: an outage of a day must not fill the log.
            tracing::warn!(problem, "no link to the control plane; trying on");
        }
        self.status.send_modify(|status| {
            status.connected = false;
            status.problem = Some(problem);
        });
    }
}

/// Resolves once the gateway is enrolled otherwise than with `current`; keys trusted beside it change without a new link.
async fn moved(mut enrollment: watch::Receiver<Option<Enrollment>>, current: &Enrollment) {
    let identity = |enrollment: &Enrollment| {
        (enrollment.control.clone(), enrollment.pin.clone(), enrollment.policy_key, enrollment.enrolled_at)
    };
    let before = Some(identity(current));
    let _ = enrollment.wait_for(|now| now.as_ref().map(identity) != before).await;
}

/// `Instant` after a duration that comes from [`LinkTimes`].
fn after(duration: Duration) -> Instant {
    Instant::now() + duration
}
