//! The policy watch of a gateway: one long-lived WebSocket, heartbeats both ways, resumed by revision.
//!
//! The life of a watch: proof of the key in the upgrade request → `hello` with the revision in force → what is newer
//! and a relay token → changes as they come, until either side is silent for too long, the gateway is removed, a newer
//! watch takes over, or the control plane stops. Nothing is queued for a gateway: a wake-up only says "look again".

mod audit;
mod end;
mod greeting;
mod newest;
mod tellings;
mod twice;

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use axum::{
    extract::{
        State,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    http::HeaderMap,
    response::Response,
};
use gateway_proto::{
    api::gateway::{HEARTBEAT_SECS, SILENCE_SECS, WATCH_PROTOCOL, WatchEvent, WatchRequest},
    id::{ConnectionId, RelayId},
    identity::GatewayPublicKey,
    twice::Instance,
};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::{Instant, sleep_until};

use self::{
    audit::AuditWatch,
    end::{End, GOING_AWAY, POLICY_VIOLATION, RESTART, close, farewell, send, unless_busy},
    greeting::{Greeted, Hello, hello},
    tellings::{Tellings, Told, UnderWay, Unfinished, written},
};
use super::{App, extract::after_scheme, problem::ApiResult};
use crate::{
    service::{GatewayCaller, Proof, ServiceError, Stranger, WatchStart},
    watchers::{Signal, WatchSession},
};

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

/// Opens a watch.
pub(super) async fn watch(
    State(app): State<App>,
    from: Stranger,
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
                WatchStart::Enrolled(caller, proof) => run(app, caller, proof, from.address, socket).await,
            }
        })
    }))
}

async fn run(app: App, caller: GatewayCaller, proof: Proof, from: IpAddr, mut socket: WebSocket) {
    let session = app.service.watchers().next_session();
    // Until it has said hello, it takes nobody's place: its proof may have been used before.
    let greeted = hello(&app, &caller, proof, session, from, &mut socket).await;
    let instance = greeted.as_ref().ok().and_then(|greeted| greeted.instance);
    let (end, unfinished) = match greeted {
        Ok(greeted) => {
            let (end, unfinished) = watch_on(&app, caller, session, greeted, &mut socket).await;
            (end, Some(unfinished))
        }
        Err(end) => (end, None),
    };
    let ended_at = app.service.clock().unix_secs();
    if unfinished.is_some() {
        tracing::info!(server = %caller.server, ?end, "watch ended");
    } else {
        tracing::debug!(server = %caller.server, ?end, "a watch did not begin");
    }
    match end {
        End::Lost => {}
        End::Removed => farewell(socket).await,
        End::RunsTwice(told) => {
            app.metrics.second_refused();
            twice::refuse(socket, *told).await;
        }
        End::Close(code, reason) => close(&mut socket, code, reason).await,
    }
    let Some(unfinished) = unfinished else { return };
    unfinished.finish(&app, &caller).await;
    if let Err(error) = app.service.gateway_left(&caller, session, ended_at, instance).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "cannot note when a gateway was last seen");
    }
}

/// The watch after its hello, until it ends; what is left to write of it.
async fn watch_on(
    app: &App,
    caller: GatewayCaller,
    session: u64,
    greeted: Greeted,
    socket: &mut WebSocket,
) -> (End, Unfinished) {
    let session = app.service.watchers().enter(caller.server, session, app.service.clock().unix_secs());
    session.is_of(greeted.instance);
    app.metrics.watches(app.service.watchers().count());
    tracing::info!(server = %caller.server, key = %caller.key.short(), "gateway watches");
    let mut watch = Watch {
        app: app.clone(),
        caller,
        session,
        connections: Vec::new(),
        relays: Vec::new(),
        revision: greeted.in_force,
        in_force: greeted.in_force,
        knows: caller.knows,
        takes_deltas: greeted.takes_deltas,
        behind: false,
        unwritten_hello: greeted.unwritten,
        unwritten: None,
        last_heard: Instant::now(),
        heartbeat_at: None,
        tellings: Tellings::new(Instant::now()),
        under_way: None,
        token_due: Instant::now(),
        audit: AuditWatch::default(),
        instance: greeted.instance,
        stands_in: false,
        told_of_second: 0,
        messages: RateLimiter::direct(Quota::per_second(MESSAGES_PER_SECOND).allow_burst(MESSAGE_BURST)),
    };
    let end = match watch.drive(socket).await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    let Watch { session, tellings, under_way, .. } = watch;
    drop(session);
    app.metrics.watches(app.service.watchers().count());
    (end, Unfinished { tellings, under_way })
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
    /// The newest revision that the gateway said it has in force, whether or not that could be written down.
    in_force: u64,
    /// The newest policy key that the gateway knows for sure.
    knows: GatewayPublicKey,
    /// A change of its policy may go out as what changes.
    takes_deltas: bool,
    /// The newest policy could not be read.
    behind: bool,
    /// What the gateway said first, not written down yet.
    unwritten_hello: Option<Hello>,
    /// What the gateway has in force, not written down yet.
    unwritten: Option<u64>,
    last_heard: Instant,
    /// When our last heartbeat was sent, or put off.
    heartbeat_at: Option<Instant>,
    /// What the gateway told and is not written yet.
    tellings: Tellings,
    /// What of it is being written.
    under_way: Option<UnderWay>,
    token_due: Instant,
    audit: AuditWatch,
    /// Which process of the gateway it is; none: it does not say.
    instance: Option<Instance>,
    /// It was refused lately, and is here because another process left.
    stands_in: bool,
    /// When another process was refused last of which it knows.
    told_of_second: u64,
    messages: DefaultDirectRateLimiter,
}

enum Step {
    Stop,
    Signal(bool),
    Asked,
    Message(Option<Result<Message, axum::Error>>),
    Tell,
    Told(Told),
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
                Step::Asked => self.ask_for_life(socket).await?,
                Step::Message(message) => {
                    if self.message(message).await? {
                        self.heartbeat(socket).await?;
                    }
                    if let Some(question) = self.asks() {
                        send(socket, &question).await?;
                    }
                }
                Step::Tell => self.tell(),
                Step::Told(told) => self.told(told)?,
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
        self.write_hello().await?;
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
        let tell_at = self.tellings.due_at();
        // Whoever is not read on is not silent meanwhile.
        let reads = !self.tellings.is_full();
        tokio::select! {
            biased;
            () = self.app.shutdown.requested() => Step::Stop,
            changed = self.session.changes.changed() => Step::Signal(changed.is_ok()),
            // Of one that was replaced nobody asks.
            Ok(()) = self.session.asked.changed() => Step::Asked,
            told = written(&mut self.under_way) => Step::Told(told),
            () = sleep_until(tell_at.unwrap_or(heartbeat_due)), if tell_at.is_some() => Step::Tell,
            message = socket.recv(), if reads => Step::Message(message),
            () = sleep_until(heartbeat_due) => Step::Heartbeat,
            () = sleep_until(self.token_due) => Step::Token,
            () = sleep_until(self.last_heard + SILENCE), if reads => Step::Silent,
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

    /// Writes down what the gateway has in force. While the database is away, that waits for a heartbeat.
    async fn confirmed(&mut self, revision: u64) -> Result<(), End> {
        if self.unwritten_hello.is_some() {
            self.unwritten = Some(revision);
            return Ok(());
        }
        let written = unless_busy(self.app.service.gateway_applied(&self.caller, revision).await)?;
        self.unwritten = written.is_none().then_some(revision);
        Ok(())
    }

    /// Does what a message asks for; whether it was a heartbeat.
    async fn message(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<bool, End> {
        let text = match message {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Ping(_))) => {
                self.heard();
                return Ok(false);
            }
            Some(Ok(Message::Pong(answer))) => {
                self.heard();
                self.answered(&answer);
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
            WatchRequest::Heartbeat => return Ok(true),
            WatchRequest::Applied { revision } => {
                self.in_force = self.in_force.max(revision);
                self.confirmed(revision).await?;
            }
            WatchRequest::Rejected { revision, reason, in_force } => {
                if in_force {
                    self.in_force = self.in_force.max(revision);
                }
                self.refused(revision, &reason);
            }
            WatchRequest::Report(report) => self.report(report).await?,
        }
        Ok(false)
    }

    fn heard(&mut self) {
        self.last_heard = Instant::now();
        self.session.heard(self.app.service.clock().unix_secs());
    }
}
