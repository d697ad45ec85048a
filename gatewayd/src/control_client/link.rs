//! One WebSocket to the control plane, from `Hello` to its end.
//!
//! Reading never waits for writing: a writer beside the loop owns the sending half and a bounded queue before it. A queue
//! that is full means that the control plane does not read, which is one way of being silent.

mod messages;

use std::time::Duration;

use futures_util::StreamExt;
use gateway_net::{
    causes::with_causes,
    proxy::Proxy,
    tls::ServerTrust,
    ws::{HeaderMap, HeaderValue, WsOptions, WsStream},
};
use gateway_proto::{
    api::{
        gateway::{ConnectionReport, Report, WATCH_PATH, WATCH_PROTOCOL, WatchEvent, WatchRequest, unconfirmed_since},
        local::ControlStatus,
    },
    backoff::Backoff,
    policy::{MAX_POLICY_LEN, PolicyError},
    signed::{Assertion, Envelope},
};
use messages::{Outgoing, parse, push, write};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    LinkTimes, ReportSource, after,
    audit_reports::{AuditReporter, Compared, Comparison},
    end::LinkEnd,
    engine_reports::EngineReporter,
    reports::Reporter,
};
use crate::{
    audit::AuditLog,
    authority::{AcceptError, Authority},
    store::Enrollment,
};

/// A policy of the largest size in base64 inside JSON, with room around it.
const MAX_MESSAGE: usize = MAX_POLICY_LEN / 3 * 4 + (1 << 20);
/// Messages waiting to be written at most.
const OUTBOX: usize = 32;
/// Reports woken by a change keep this distance, so that a burst of changes is one report.
const MIN_REPORT_GAP: Duration = Duration::from_millis(100);

/// Where and how to connect, with a fresh assertion that says it is `now`, Unix seconds.
pub(super) fn options(
    authority: &Authority,
    enrollment: &Enrollment,
    trust: ServerTrust,
    proxy: Option<Proxy>,
    now: u64,
) -> Result<WsOptions, LinkEnd> {
    let assertion = Assertion {
        key: authority.gateway_key().public(),
        aud: enrollment.audience(),
        method: "GET".to_owned(),
        path: WATCH_PATH.to_owned(),
        iat: now,
        nonce: format!("{:032x}", u128::from_ne_bytes(gateway_net::random())),
    };
    let assertion = assertion.sign(authority.gateway_key()).map_err(LinkEnd::Sign)?;
    let mut headers = HeaderMap::new();
    let mut value = HeaderValue::try_from(format!("Gateway {assertion}"))
        .expect("invariant: an assertion consists of base64url and a dot");
    value.set_sensitive(true);
    headers.insert("authorization", value);
    let url = watch_url(&enrollment.control).ok_or_else(|| LinkEnd::Address(enrollment.control.clone()))?;
    Ok(WsOptions { url, trust, proxy, protocol: WATCH_PROTOCOL, headers, max_message: MAX_MESSAGE })
}

fn watch_url(control: &str) -> Option<Url> {
    let mut url = super::enroll::base_url(control)?;
    url.set_scheme("wss").ok()?;
    url.set_path(WATCH_PATH);
    Some(url)
}

/// The state of one link.
pub(super) struct Link<'a> {
    authority: Authority,
    reports: ReportSource,
    times: LinkTimes,
    status: &'a watch::Sender<ControlStatus>,
    reporter: Reporter,
    engine_reporter: EngineReporter,
    audit_reporter: AuditReporter,
    comparison: Comparison,
    began: Instant,
    /// Since when the control plane speaks of a policy it did not send.
    behind_since: Option<Instant>,
    /// The revision that was sent and refused: asking for it again would change nothing.
    refused_revision: u64,
}

impl<'a> Link<'a> {
    pub(super) fn new(
        authority: Authority,
        reports: ReportSource,
        times: LinkTimes,
        status: &'a watch::Sender<ControlStatus>,
    ) -> Self {
        let (reporter, engine_reporter, audit_reporter) = Default::default();
        let comparison = Comparison::of(reports.audit.clone());
        Self {
            authority,
            reports,
            times,
            status,
            reporter,
            engine_reporter,
            audit_reporter,
            comparison,
            began: Instant::now(),
            behind_since: None,
            refused_revision: 0,
        }
    }

    /// Runs until the link ends; at a shutdown, until what was counted last is written. Cancel-safe: a policy being accepted is
    /// accepted to its end.
    pub(super) async fn run(
        mut self,
        stream: WsStream,
        backoff: &mut Backoff,
        shutdown: &CancellationToken,
    ) -> LinkEnd {
        let (sink, stream) = stream.split();
        let (outbox, queue) = mpsc::channel(OUTBOX);
        let writing = write(sink, queue, self.times.silence);
        tokio::pin!(writing);
        tokio::select! {
            end = &mut writing => return end,
            result = self.read(stream, &outbox, backoff) => match result {
                Ok(never) => match never {},
                Err(end) => return end,
            },
            () = shutdown.cancelled() => self.report(&outbox),
        }
        drop(outbox);
        writing.await
    }

    async fn read(
        &mut self,
        mut stream: futures_util::stream::SplitStream<WsStream>,
        outbox: &mpsc::Sender<WatchRequest>,
        backoff: &mut Backoff,
    ) -> Result<std::convert::Infallible, LinkEnd> {
        // After a removal zero asks for the policy anew, whatever is on disk.
        let revision = self.authority.view().revision();
        let (version, instance) = (env!("CARGO_PKG_VERSION").to_owned(), Some(self.authority.instance()));
        let deltas = self.authority.takes_deltas();
        push(outbox, WatchRequest::Hello { revision, version, instance, deltas })?;
        let mut silent_at = after(self.times.silence);
        let mut heartbeat_at = after(self.times.heartbeat);
        let mut report_at = Instant::now();
        loop {
            tokio::select! {
                message = stream.next() => {
                    silent_at = after(self.times.silence);
                    if let Some(event) = parse(message)? {
                        self.handle(event, outbox, backoff).await?;
                    }
                }
                () = sleep_until(silent_at) => return Err(LinkEnd::Silent(self.times.silence)),
                () = sleep_until(heartbeat_at) => {
                    heartbeat_at = after(self.times.heartbeat);
                    push(outbox, WatchRequest::Heartbeat)?;
                }
                () = sleep_until(report_at) => {
                    report_at = after(self.times.report);
                    self.report(outbox);
                }
                outcome = self.comparison.outcome() => self.compared(outcome),
                () = self.reports.changed.notified() => report_at = report_at.min(after(MIN_REPORT_GAP)),
            }
        }
    }

    async fn handle(
        &mut self,
        event: WatchEvent,
        outbox: &mpsc::Sender<WatchRequest>,
        backoff: &mut Backoff,
    ) -> Result<(), LinkEnd> {
        if let WatchEvent::RunsTwice(told) = &event
            && told.is_second
        {
            self.authority.set_twice(told.clone());
            return Err(LinkEnd::RunsTwice(told.clone()));
        }
        self.authority.take_part();
        self.heard();
        match event {
            WatchEvent::RunsTwice(told) => {
                tracing::warn!(from = ?told.address, "another process with this gateway's key was refused");
                self.authority.set_twice(told);
                Ok(())
            }
            WatchEvent::Policy { policy } => self.accept(policy, outbox).await,
            WatchEvent::Delta { delta } => {
                let policy = self.blocking(move |authority| authority.next_policy(&delta)).await?;
                self.accept(policy.map_err(LinkEnd::Change)?, outbox).await
            }
            WatchEvent::Succession { links } => {
                let result = self.blocking(move |authority| authority.follow(&links)).await?;
                if let Err(error) = result {
                    tracing::warn!(problem = with_causes(&error), "a new policy key is trusted but could not be saved");
                }
                Ok(())
            }
            WatchEvent::RelayToken { token } => {
                let result = self.blocking(move |authority| authority.set_relay_token(token, authority.now())).await?;
                if let Err(error) = result {
                    tracing::warn!(problem = with_causes(&error), "a relay token was not taken");
                }
                Ok(())
            }
            WatchEvent::Heartbeat { revision, now_ms } => {
                backoff.reset();
                self.heartbeat(revision, now_ms, outbox).await
            }
            WatchEvent::AuditHead { head } => {
                self.comparison.ask(head);
                Ok(())
            }
            WatchEvent::Removed => {
                tracing::error!("the control plane removed this gateway: everything is closed");
                self.blocking(Authority::removed).await?;
                Err(LinkEnd::Removed)
            }
        }
    }

    async fn accept(&mut self, policy: Envelope, outbox: &mpsc::Sender<WatchRequest>) -> Result<(), LinkEnd> {
        let offered = claimed_revision(&policy);
        let result = self.blocking(move |authority| authority.accept(policy, authority.now())).await?;
        let revision = self.authority.view().revision();
        match result {
            Ok(_) => {
                tracing::info!(revision, "the policy is in force");
                self.behind_since = None;
                push(outbox, WatchRequest::Applied { revision })?;
                self.reports.changed.notify_one();
            }
            Err(error) => {
                let reason = with_causes(&error);
                // What is not saved runs all the same: nothing of it has failed, and `Applied` follows when it is saved.
                let in_force = matches!(error, AcceptError::NotSaved(_));
                if in_force {
                    tracing::error!(revision, reason, "the policy is in force and not saved: make room on the disk");
                } else {
                    tracing::error!(offered, in_force = revision, reason, "a policy was not accepted");
                }
                self.refused_revision = offered;
                push(outbox, WatchRequest::Rejected { revision: refused(&error, offered), reason, in_force })?;
            }
        }
        Ok(())
    }

    async fn heartbeat(
        &mut self,
        newest: u64,
        now_ms: u64,
        outbox: &mpsc::Sender<WatchRequest>,
    ) -> Result<(), LinkEnd> {
        let skew = i128::from(now_ms) - i128::from(gateway_net::time::unix_ms());
        let skew = i64::try_from(skew).unwrap_or(if skew < 0 { i64::MIN } else { i64::MAX });
        self.status.send_modify(|status| status.clock_skew_ms = Some(skew));
        let saved = self
            .blocking(move |authority| {
                authority.observe_clock(now_ms / 1000);
                authority.confirm(newest, authority.now());
                authority.save_pending(authority.now())
            })
            .await?;
        if let Ok(Some(revision)) = saved {
            push(outbox, WatchRequest::Applied { revision })?;
        }
        let ours = self.authority.view().revision();
        if newest <= ours || newest == self.refused_revision {
            self.behind_since = None;
            return Ok(());
        }
        let since = *self.behind_since.get_or_insert_with(Instant::now);
        if since.elapsed() > self.times.missing_policy {
            return Err(LinkEnd::MissingPolicy { newest, ours });
        }
        Ok(())
    }

    /// What did not go out goes next time.
    fn report(&mut self, outbox: &mpsc::Sender<WatchRequest>) {
        let now = std::time::Instant::now();
        let head = self.reports.audit.as_ref().and_then(AuditLog::durable_head);
        let due = self.audit_reporter.due(head, gateway_net::time::unix_ms(), now);
        let mut out = Outgoing { outbox, audit: due, told: None };
        let connections = self.connections();
        let home_relay = *self.reports.home_relay.borrow();
        self.reporter.update(connections, home_relay, now, |report| out.push(report));
        if let Some(snapshot) = (self.reports.engine)() {
            self.engine_reporter.update(&snapshot, now, |engine| {
                out.push(Report { home_relay, engine: Some(engine), ..Report::default() })
            });
        }
        if out.audit.is_some() && self.audit_reporter.goes_alone(now) {
            out.push(Report { home_relay, ..Report::default() });
        }
        if let Some(told) = out.told {
            self.audit_reporter.sent(told, now);
        }
    }

    fn connections(&self) -> Vec<ConnectionReport> {
        let confirmed_at = self.authority.view().confirmed_at;
        let since = unconfirmed_since(confirmed_at, self.authority.now(), self.began.elapsed());
        let mut connections = (self.reports.connections)();
        for details in connections.iter_mut().filter_map(|report| report.details.as_mut()) {
            details.policy_unconfirmed_since = since;
        }
        connections
    }

    fn compared(&mut self, outcome: Compared) {
        match outcome {
            Ok((asked, held)) => {
                self.audit_reporter.set_missing(held.is_alarm().then_some(asked));
                self.reports.changed.notify_one();
            }
            Err(error) => tracing::warn!(
                problem = with_causes(&error),
                "the audit log cannot be compared with what was reported of it"
            ),
        }
    }

    fn heard(&self) {
        self.status.send_modify(|status| {
            status.connected = true;
            status.last_heard_at = Some(gateway_net::time::unix_ms());
            status.problem = None;
        });
    }

    /// Runs what writes to disk where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Authority) -> T + Send + 'static,
    ) -> Result<T, LinkEnd> {
        let authority = self.authority.clone();
        Ok(tokio::task::spawn_blocking(move || work(&authority)).await?)
    }
}

/// The revision a policy claims to have, for the report of its refusal only: nothing is verified. 0: unreadable.
fn claimed_revision(envelope: &Envelope) -> u64 {
    #[derive(serde::Deserialize)]
    struct Claim {
        revision: u64,
    }
    let payload = data_encoding::BASE64.decode(envelope.payload.as_bytes()).unwrap_or_default();
    serde_json::from_slice(&payload).map_or(0, |claim: Claim| claim.revision)
}

fn refused(error: &AcceptError, claimed: u64) -> u64 {
    match error {
        AcceptError::Policy(PolicyError::OlderRevision { offered, .. }) => *offered,
        AcceptError::Policy(_) | AcceptError::NotEnrolled | AcceptError::NotSaved(_) => claimed,
    }
}
