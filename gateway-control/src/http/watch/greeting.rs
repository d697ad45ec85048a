//! The first message of a watch, and what becomes of it where nothing can be written.
//!
//! A hello is written down before anything is said to the gateway: so its proof counts once, also over a restart and at other
//! replicas. When the disk of the database is full, that would keep every gateway away that has to link anew, and their policies
//! would end although nobody took anything from them. What is there can be read, and nobody can revoke anything meanwhile: so
//! the watch goes on, as long as this process alone knows every proof that could be used again, and the hello is written when
//! there is room.

use std::{net::IpAddr, time::Instant};

use axum::extract::ws::{Message, WebSocket};
use gateway_proto::{api::gateway::WatchRequest, twice::Instance};
use tokio::time::timeout;

use super::{App, End, POLICY_VIOLATION, RESTART, SILENCE, Watch, unless_busy};
use crate::{
    seldom::Seldom,
    service::{GatewayCaller, Newcomer, Proof},
};

static UNWRITTEN: Seldom = Seldom::new();

/// What a gateway says first.
#[derive(Debug)]
pub(super) struct Hello {
    proof: Proof,
    revision: u64,
    version: String,
    newcomer: Option<Newcomer>,
}

/// A gateway that has said hello.
#[derive(Debug)]
pub(super) struct Greeted {
    /// The revision that it has in force.
    pub(super) in_force: u64,
    /// Which process of the gateway it is; none: it does not say.
    pub(super) instance: Option<Instance>,
    /// Whether it takes what changes of a policy in place of a whole one.
    pub(super) takes_deltas: bool,
    /// What is to be written down of it yet.
    pub(super) unwritten: Option<Hello>,
}

/// Hears the first message.
pub(super) async fn hello(
    app: &App,
    caller: &GatewayCaller,
    proof: Proof,
    session: u64,
    from: IpAddr,
    socket: &mut WebSocket,
) -> Result<Greeted, End> {
    let message = tokio::select! {
        () = app.shutdown.requested() => return Err(End::Close(RESTART, "the control plane stops")),
        message = timeout(SILENCE, socket.recv()) => message,
    };
    let Ok(Some(Ok(Message::Text(text)))) = message else { return Err(End::Lost) };
    let Ok(WatchRequest::Hello { revision, version, instance, deltas: takes_deltas }) = serde_json::from_str(&text)
    else {
        return Err(End::Close(POLICY_VIOLATION, "the first message must be hello"));
    };
    let newcomer = match instance {
        Some(instance) => Some(app.service.newcomer(caller.server, instance, from).await),
        None => None,
    };
    let said = app.service.gateway_hello(caller, &proof, session, revision, &version, newcomer.clone()).await;
    let Err(error) = said else { return Ok(Greeted { in_force: revision, instance, takes_deltas, unwritten: None }) };
    if !app.service.may_greet_unwritten(&error) {
        return Err(error.into());
    }
    if let Some(left_out) = UNWRITTEN.turn(Instant::now()) {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(server = %caller.server, left_out, error, "a gateway watches, and its hello is not written down");
    }
    let unwritten = Some(Hello { proof, revision, version, newcomer });
    Ok(Greeted { in_force: revision, instance, takes_deltas, unwritten })
}

impl Watch {
    /// Writes down what the gateway said first, if that is to be done yet. What it says of its policy comes after that.
    pub(super) async fn write_hello(&mut self) -> Result<(), End> {
        let Some(Hello { proof, revision, version, newcomer }) = &self.unwritten_hello else { return Ok(()) };
        let session = self.session.session();
        let (service, newcomer) = (&self.app.service, newcomer.clone());
        let written = service.gateway_hello(&self.caller, proof, session, *revision, version, newcomer).await;
        if unless_busy(written)?.is_some() {
            self.unwritten_hello = None;
        }
        Ok(())
    }
}
