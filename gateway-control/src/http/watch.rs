//! The policy watch of a gateway: one long-lived WebSocket, heartbeats both ways, resumed by revision.
//!
//! The life of a watch: proof of the key in the upgrade request → `hello` with the revision in force → what is newer
//! and a relay token → changes as they come, until either side is silent for too long, the gateway is removed, a newer
//! watch takes over, or the control plane stops. Nothing is queued for a gateway: a wake-up only says "look again".

mod audit;

use std::{collections::VecDeque, num::NonZeroU32, time::Duration};

use axum::{
    extract::{
        State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade},
    },
    http::HeaderMap,
    response::Response,
};
use gateway_proto::{
    api::gateway::{
        EngineReport, HEARTBEAT_SECS, MAX_REPORT_CONNECTIONS, Report, SILENCE_SECS, WATCH_PROTOCOL, WatchEvent,
        WatchRequest,
    },
    id::{ConnectionId, RelayId},
    identity::GatewayPublicKey,
};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::{Instant, sleep_until, timeout};

use self::audit::{AuditNews, AuditWatch};
use super::{App, extract::after_scheme, problem::ApiResult};
use crate::{
    service::{GatewayCaller, Proof, ServiceError, WatchStart},
    watchers::{Signal, WatchSession, brief},
};

/// Between two moves of a gateway's home relay.
const HOME_INTERVAL: Duration = Duration::from_secs(10);
/// The largest message of a gateway: a full report fits four times.
const MAX_MESSAGE: usize = 1 << 20;
/// Read in one go: most messages of a gateway are a few dozen bytes, and ten thousand of them wait at the same time.
const READ_BUFFER: usize = 4 << 10;
/// Time without a sign of life after which the link is given up; also what one write may take.
const SILENCE: Duration = Duration::from_secs(SILENCE_SECS);
/// Our heartbeat answers the gateway's: one wake-up for both. It comes by itself when the gateway's is this late.
const HEARTBEAT_LATEST: Duration = Duration::from_secs(HEARTBEAT_SECS + 1);
/// A gateway that sends more heartbeats than agreed gets no more of ours than that.
const HEARTBEAT_EARLIEST: Duration = Duration::from_secs(HEARTBEAT_SECS - 1);
/// Messages of one gateway per second; a healthy one sends one heartbeat in five seconds and a report now and then.
const MESSAGES_PER_SECOND: NonZeroU32 = NonZeroU32::new(10).unwrap();
/// The same, at once.
const MESSAGE_BURST: NonZeroU32 = NonZeroU32::new(100).unwrap();

/// WebSocket close codes (RFC 6455 §7.4, and 1012 of the IANA registry).
const GOING_AWAY: u16 = 1001;
const POLICY_VIOLATION: u16 = 1008;
const INTERNAL: u16 = 1011;
const RESTART: u16 = 1012;

/// Opens a watch.
pub(super) async fn watch(
    State(app): State<App>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> ApiResult<Response> {
    let token = after_scheme(&headers, "Gateway").ok_or(ServiceError::Unauthenticated(
        "a gateway proves its key with 'Authorization: Gateway …' (docs/protocol.md §1)",
    ))?;
    let start = app.service.authenticate_gateway(&token).await?;
    let upgrade = upgrade.protocols([WATCH_PROTOCOL]).max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    let upgrade = upgrade.read_buffer_size(READ_BUFFER);
    if upgrade.selected_protocol().is_none() {
        return Err(ServiceError::Invalid(format!("the sub-protocol {WATCH_PROTOCOL} is not offered")).into());
    }
    let tracker = app.watches.clone();
    Ok(upgrade.on_upgrade(move |socket| {
        tracker.track_future(async move {
            match start {
                WatchStart::Removed => farewell(socket).await,
                WatchStart::Enrolled(caller, proof) => run(app, caller, proof, socket).await,
            }
        })
    }))
}

/// Tells a gateway that was removed while it was away.
async fn farewell(mut socket: WebSocket) {
    if send(&mut socket, &WatchEvent::Removed).await.is_ok() {
        close(&mut socket, GOING_AWAY, "removed").await;
    }
}

/// Why a watch ends.
#[derive(Debug)]
enum End {
    /// The link is gone or silent.
    Lost,
    /// The gateway was removed.
    Removed,
    /// We close it.
    Close(u16, &'static str),
}

impl From<ServiceError> for End {
    fn from(error: ServiceError) -> Self {
        if matches!(error, ServiceError::Invalid(_)) {
            tracing::debug!(%error, "a gateway says what cannot be");
            return Self::Close(POLICY_VIOLATION, "message not acceptable");
        }
        tracing::warn!(error = &error as &dyn std::error::Error, "a watch failed");
        Self::Close(INTERNAL, "try again")
    }
}

async fn run(app: App, caller: GatewayCaller, proof: Proof, mut socket: WebSocket) {
    let session = app.service.watchers().next_session();
    // Until it has said hello, it takes nobody's place: its proof may have been used before.
    let greeted = hello(&app, &caller, &proof, session, &mut socket).await;
    let (known, end) = match greeted {
        Ok(in_force) => (true, watch_on(&app, caller, session, in_force, &mut socket).await),
        Err(end) => (false, end),
    };
    tracing::info!(server = %caller.server, ?end, "watch ended");
    match end {
        End::Lost => {}
        End::Removed => farewell(socket).await,
        End::Close(code, reason) => close(&mut socket, code, reason).await,
    }
    if known && let Err(error) = app.service.gateway_left(&caller, session, app.service.clock().unix_secs()).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "cannot note when a gateway was last seen");
    }
}

/// The first message; returns the revision the gateway has in force.
async fn hello(
    app: &App,
    caller: &GatewayCaller,
    proof: &Proof,
    session: u64,
    socket: &mut WebSocket,
) -> Result<u64, End> {
    let message = tokio::select! {
        () = app.shutdown.requested() => return Err(End::Close(RESTART, "the control plane stops")),
        message = timeout(SILENCE, socket.recv()) => message,
    };
    let Ok(Some(Ok(Message::Text(text)))) = message else { return Err(End::Lost) };
    let Ok(WatchRequest::Hello { revision, version }) = serde_json::from_str(&text) else {
        return Err(End::Close(POLICY_VIOLATION, "the first message must be hello"));
    };
    app.service.gateway_hello(caller, proof, session, revision, &version).await?;
    Ok(revision)
}

/// The watch after its hello, until it ends.
async fn watch_on(app: &App, caller: GatewayCaller, session: u64, in_force: u64, socket: &mut WebSocket) -> End {
    let session = app.service.watchers().enter(caller.server, session, app.service.clock().unix_secs());
    app.metrics.watches(app.service.watchers().count());
    tracing::info!(server = %caller.server, key = %caller.key.short(), "gateway watches");
    let mut watch = Watch {
        app: app.clone(),
        caller,
        session,
        connections: Vec::new(),
        relays: Vec::new(),
        revision: in_force,
        knows: caller.knows,
        behind: false,
        unwritten: None,
        home_relay: None,
        wanted_home: None,
        moved_at: None,
        last_heard: Instant::now(),
        heartbeat_at: None,
        held: VecDeque::new(),
        held_until: Instant::now(),
        token_due: Instant::now(),
        audit: AuditWatch::default(),
        messages: RateLimiter::direct(Quota::per_second(MESSAGES_PER_SECOND).allow_burst(MESSAGE_BURST)),
    };
    let end = match watch.drive(socket).await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    drop(watch);
    app.metrics.watches(app.service.watchers().count());
    end
}

/// One watch.
struct Watch {
    app: App,
    caller: GatewayCaller,
    session: WatchSession,
    /// Connections in the newest policy, sorted.
    connections: Vec<ConnectionId>,
    /// Relays the gateway's token names.
    relays: Vec<RelayId>,
    /// The newest revision that the gateway has or was sent.
    revision: u64,
    /// The newest policy key that the gateway knows for sure.
    knows: GatewayPublicKey,
    /// The newest policy could not be read.
    behind: bool,
    /// What the gateway has in force, not written down yet.
    unwritten: Option<u64>,
    home_relay: Option<RelayId>,
    wanted_home: Option<RelayId>,
    moved_at: Option<Instant>,
    last_heard: Instant,
    /// When our last heartbeat was sent, or put off.
    heartbeat_at: Option<Instant>,
    /// What the gateway told and may not tell yet: what one report holds, at most.
    held: VecDeque<Telling>,
    held_until: Instant,
    token_due: Instant,
    audit: AuditWatch,
    messages: DefaultDirectRateLimiter,
}

/// What costs a turn to write.
enum Telling {
    Engine(EngineReport),
    Audit(Box<AuditNews>),
    Rejected { revision: u64, reason: String },
}

enum Step {
    Stop,
    Signal(bool),
    Message(Option<Result<Message, axum::Error>>),
    Release,
    Heartbeat,
    Token,
    Silent,
}

impl Watch {
    async fn drive(&mut self, socket: &mut WebSocket) -> Result<std::convert::Infallible, End> {
        // Marked as seen before the policy is read: a change in between wakes us again.
        self.session.changes.borrow_and_update();
        self.send_newest(socket).await?;
        self.send_token(socket).await?;
        loop {
            match self.step(socket).await {
                Step::Stop => return Err(End::Close(RESTART, "the control plane stops")),
                Step::Silent | Step::Signal(false) => return Err(End::Lost),
                Step::Signal(true) => self.signal(socket).await?,
                Step::Message(message) => {
                    if self.message(message).await? {
                        self.heartbeat(socket).await?;
                    }
                    if let Some(question) = self.asks() {
                        send(socket, &question).await?;
                    }
                }
                Step::Release => self.release().await?,
                Step::Token => self.send_token(socket).await?,
                Step::Heartbeat => self.heartbeat(socket).await?,
            }
        }
    }

    async fn heartbeat(&mut self, socket: &mut WebSocket) -> Result<(), End> {
        if self.heartbeat_at.is_some_and(|at| at.elapsed() < HEARTBEAT_EARLIEST) {
            return Ok(());
        }
        self.heartbeat_at = Some(Instant::now());
        if !self.app.service.is_synced() {
            return Err(End::Close(RESTART, "this replica has lost its database"));
        }
        if let Some(revision) = self.unwritten {
            self.confirmed(revision).await?;
        }
        if self.behind {
            self.catch_up(socket).await?;
        }
        if self.behind {
            // What is not known to be the newest is not confirmed as such.
            return Ok(());
        }
        self.look_at_alarm().await?;
        let now_ms = self.app.service.clock().unix_ms();
        send(socket, &WatchEvent::Heartbeat { revision: self.revision, now_ms }).await
    }

    async fn step(&mut self, socket: &mut WebSocket) -> Step {
        let heartbeat_due = self.heartbeat_at.map_or_else(Instant::now, |at| at + HEARTBEAT_LATEST);
        tokio::select! {
            biased;
            () = self.app.shutdown.requested() => Step::Stop,
            changed = self.session.changes.changed() => Step::Signal(changed.is_ok()),
            // Whoever says too much has to wait before we read on; what we have to say goes out meanwhile.
            () = sleep_until(self.held_until), if !self.held.is_empty() => Step::Release,
            message = socket.recv(), if self.held.is_empty() => Step::Message(message),
            () = sleep_until(heartbeat_due) => Step::Heartbeat,
            () = sleep_until(self.token_due) => Step::Token,
            () = sleep_until(self.last_heard + SILENCE) => Step::Silent,
        }
    }

    async fn signal(&mut self, socket: &mut WebSocket) -> Result<(), End> {
        let signal = *self.session.changes.borrow_and_update();
        match signal {
            // The news may be of a gateway that was there before: only what the storage says is told.
            Signal::Removed => match self.app.service.newest_policy(&self.caller).await {
                Ok(None) => Err(End::Removed),
                Ok(Some(_)) | Err(_) => Err(End::Close(GOING_AWAY, "watch again")),
            },
            Signal::Replaced => Err(End::Close(GOING_AWAY, "a newer watch of this gateway took over")),
            Signal::Changed(_) => self.catch_up(socket).await,
        }
    }

    /// Sends what is new. Without the database at the moment, the link stays, and the next heartbeat tries again.
    async fn catch_up(&mut self, socket: &mut WebSocket) -> Result<(), End> {
        let known = (self.relays.clone(), self.knows);
        self.send_newest(socket).await?;
        // What another key signed, relays may soon refuse.
        if (&self.relays, self.knows) != (&known.0, known.1) {
            self.send_token(socket).await?;
        }
        Ok(())
    }

    /// Sends the newest policy if it is newer than what the gateway has.
    async fn send_newest(&mut self, socket: &mut WebSocket) -> Result<(), End> {
        let newest = match self.app.service.newest_policy(&self.caller).await {
            Err(ServiceError::Unavailable(_) | ServiceError::Busy) => {
                self.behind = true;
                return Ok(());
            }
            newest => newest?.ok_or(End::Removed)?,
        };
        self.behind = false;
        let in_force = self.revision;
        self.session.retain(&newest.connections);
        self.connections = newest.connections;
        self.relays = newest.relays;
        self.revision = newest.revision;
        self.session.read(newest.revision);
        if newest.revision > in_force {
            self.lead_to(newest.envelope.key, socket).await?;
            send(socket, &WatchEvent::Policy { policy: newest.envelope }).await?;
            self.app.metrics.policy_sent();
        }
        Ok(())
    }

    /// Shows how the key that signed the next policy follows from one that the gateway knows.
    async fn lead_to(&mut self, key: GatewayPublicKey, socket: &mut WebSocket) -> Result<(), End> {
        if self.knows == key {
            return Ok(());
        }
        let links = self.app.service.links_from(&self.knows).await?;
        self.knows = key;
        if links.is_empty() {
            return Ok(());
        }
        send(socket, &WatchEvent::Succession { links }).await
    }

    async fn send_token(&mut self, socket: &mut WebSocket) -> Result<(), End> {
        let token = match self.app.service.new_relay_token(&self.caller).await {
            // The one it has is good for as long again: half of its time is left.
            Err(ServiceError::Unavailable(_) | ServiceError::Busy) => {
                self.token_due = Instant::now() + HEARTBEAT_LATEST;
                return Ok(());
            }
            token => token?.ok_or(End::Removed)?,
        };
        self.token_due = Instant::now() + Duration::from_secs(self.app.service.relay_token_secs()) / 2;
        send(socket, &WatchEvent::RelayToken { token }).await
    }

    /// Does what a message asks for; whether it was a heartbeat.
    async fn message(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<bool, End> {
        let text = match message {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {
                self.heard();
                return Ok(false);
            }
            Some(Ok(Message::Binary(_))) => return Err(End::Close(POLICY_VIOLATION, "text messages only")),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(End::Lost),
        };
        if self.messages.check().is_err() {
            return Err(End::Close(POLICY_VIOLATION, "too many messages"));
        }
        let Ok(request) = serde_json::from_str(&text) else {
            return Err(End::Close(POLICY_VIOLATION, "not a message of this protocol"));
        };
        self.heard();
        match request {
            WatchRequest::Hello { .. } => return Err(End::Close(POLICY_VIOLATION, "hello comes once")),
            WatchRequest::Heartbeat => {
                self.settle_home().await?;
                return Ok(true);
            }
            WatchRequest::Applied { revision } => self.confirmed(revision).await?,
            WatchRequest::Rejected { revision, reason } => {
                self.hold(Telling::Rejected { revision, reason: brief(&reason) }).await?;
            }
            WatchRequest::Report(report) => self.report(report).await?,
        }
        Ok(false)
    }

    /// Writes down what the gateway has in force. While the database is away, that waits for a heartbeat: it is no reason to
    /// part, and let ten thousand gateways come anew.
    async fn confirmed(&mut self, revision: u64) -> Result<(), End> {
        match self.app.service.gateway_applied(&self.caller, revision).await {
            Err(ServiceError::Unavailable(_) | ServiceError::Busy) => {
                self.unwritten = Some(revision);
                Ok(())
            }
            outcome => {
                self.unwritten = None;
                Ok(outcome?)
            }
        }
    }

    /// Tells the partners of a new home relay. Every move is a new policy for all of them, so a gateway that flaps, or wants
    /// to harm, moves no more often than every [`HOME_INTERVAL`]; the last word counts.
    async fn settle_home(&mut self) -> Result<(), End> {
        let rested = self.moved_at.is_none_or(|at| at.elapsed() >= HOME_INTERVAL);
        if self.wanted_home == self.home_relay || !rested {
            return Ok(());
        }
        self.app.service.gateway_moved(&self.caller, self.wanted_home).await?;
        self.home_relay = self.wanted_home;
        self.moved_at = Some(Instant::now());
        Ok(())
    }

    async fn report(&mut self, report: Report) -> Result<(), End> {
        if report.connections.len() > MAX_REPORT_CONNECTIONS {
            return Err(End::Close(POLICY_VIOLATION, "too many connections in one report"));
        }
        // Without a relay at the moment, the last one known is still the best guess for the peers.
        self.wanted_home = report.home_relay.or(self.wanted_home);
        self.settle_home().await?;
        let now = self.app.service.clock().unix_secs();
        let dropped = self.session.report(report.connections, &self.connections, now);
        self.app.metrics.reports_dropped(dropped);
        if let Some(audit) = report.audit
            && let Some(news) = self.audit(*audit).await?
        {
            self.hold(Telling::Audit(Box::new(news))).await?;
        }
        match report.engine {
            Some(engine) => self.hold(Telling::Engine(engine)).await,
            None => Ok(()),
        }
    }

    /// Does what was told, now or when it may be done.
    async fn hold(&mut self, telling: Telling) -> Result<(), End> {
        self.held.push_back(telling);
        self.release().await
    }

    async fn release(&mut self) -> Result<(), End> {
        while !self.held.is_empty() {
            if let Err(wait) = self.app.service.may_tell(&self.caller) {
                self.held_until = Instant::now() + wait.min(SILENCE / 2);
                return Ok(());
            }
            // It waited because of us, not because it was silent.
            self.heard();
            match self.held.pop_front() {
                Some(Telling::Engine(report)) => self.app.service.gateway_engine(&self.caller, report).await?,
                Some(Telling::Audit(news)) => {
                    let outcome = self.app.service.gateway_audit(&self.caller, news.head, news.missing).await?;
                    self.app.metrics.audit_fault(outcome.tells);
                }
                Some(Telling::Rejected { revision, reason }) => {
                    tracing::warn!(server = %self.caller.server, revision, reason, "a gateway refused its policy");
                    self.app.service.gateway_rejected(&self.caller, revision, &reason).await?;
                }
                None => {}
            }
        }
        Ok(())
    }

    fn heard(&mut self) {
        self.last_heard = Instant::now();
        self.session.heard(self.app.service.clock().unix_secs());
    }
}

async fn send(socket: &mut WebSocket, event: &WatchEvent) -> Result<(), End> {
    let text = serde_json::to_string(event).map_err(|_| End::Close(INTERNAL, "try again"))?;
    match timeout(SILENCE, socket.send(Message::Text(text.into()))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(End::Lost),
    }
}

/// Says why, and waits a moment for the other side to read it.
async fn close(socket: &mut WebSocket, code: u16, reason: &'static str) {
    let frame = CloseFrame { code, reason: reason.into() };
    let goodbye = async {
        if socket.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = socket.recv().await {}
        }
    };
    // Whoever does not answer the goodbye is gone anyway.
    let _ = timeout(Duration::from_secs(1), goodbye).await;
}
