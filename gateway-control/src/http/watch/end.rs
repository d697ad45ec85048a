//! How a watch ends, and what goes over its socket until then.

use std::time::{Duration, Instant};

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use gateway_proto::{api::gateway::WatchEvent, twice::RunsTwice};
use tokio::time::timeout;

use super::SILENCE;
use crate::{
    seldom::Seldom,
    service::{ServiceError, ServiceResult},
    storage::StorageError,
};

/// WebSocket close codes (RFC 6455 §7.4, and 1012 of the IANA registry).
pub(super) const GOING_AWAY: u16 = 1001;
pub(super) const POLICY_VIOLATION: u16 = 1008;
const INTERNAL: u16 = 1011;
pub(super) const RESTART: u16 = 1012;

static AWAY: Seldom = Seldom::new();

/// Why a watch ends.
#[derive(Debug)]
pub(super) enum End {
    /// The link is gone or silent.
    Lost,
    /// The gateway was removed.
    Removed,
    /// Another process of the gateway holds its place.
    RunsTwice(Box<RunsTwice>),
    /// We close it.
    Close(u16, &'static str),
}

impl From<ServiceError> for End {
    fn from(error: ServiceError) -> Self {
        if let ServiceError::RunsTwice(told) = error {
            return Self::RunsTwice(told);
        }
        if matches!(error, ServiceError::Invalid(_)) {
            tracing::debug!(%error, "a gateway says what cannot be");
            return Self::Close(POLICY_VIOLATION, "message not acceptable");
        }
        let is_away = matches!(error, ServiceError::Unavailable(_) | ServiceError::Busy);
        // A whole fleet comes again and again while the database is away.
        if let Some(left_out) = if is_away { AWAY.turn(Instant::now()) } else { Some(0) } {
            tracing::warn!(error = &error as &dyn std::error::Error, left_out, "a watch failed");
        }
        Self::Close(INTERNAL, reason(&error))
    }
}

/// What the gateway is told, which shows it to its people.
fn reason(error: &ServiceError) -> &'static str {
    if let ServiceError::Replay(why) = error {
        return why;
    }
    let ServiceError::Unavailable(cause) = error else {
        return if matches!(error, ServiceError::Busy) { "it is busy" } else { "try again" };
    };
    match cause {
        StorageError::Full(_) => "the disk of its database is full",
        StorageError::ReadOnly(_) => "the disk of its database fails, or became read-only",
        StorageError::Outdated => "it is being replaced by a newer version",
        StorageError::Busy => "its database is busy",
        StorageError::Unavailable(_)
        | StorageError::Database(_)
        | StorageError::Nul
        | StorageError::Migrate(_)
        | StorageError::Unreadable(_)
        | StorageError::Duplicate => "its database cannot be reached",
    }
}

/// What was asked for; none: the database is busy or away, which is no reason to part, and let ten thousand gateways come anew.
pub(super) fn unless_busy<T>(outcome: ServiceResult<T>) -> Result<Option<T>, End> {
    match outcome {
        Err(ServiceError::Unavailable(_) | ServiceError::Busy) => Ok(None),
        outcome => Ok(Some(outcome?)),
    }
}

pub(super) async fn send(socket: &mut WebSocket, event: &WatchEvent) -> Result<(), End> {
    let text = serde_json::to_string(event).map_err(|_| End::Close(INTERNAL, "try again"))?;
    match timeout(SILENCE, socket.send(Message::Text(text.into()))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(End::Lost),
    }
}

/// Says why, and waits a moment for the other side to read it.
pub(super) async fn close(socket: &mut WebSocket, code: u16, reason: &'static str) {
    let frame = CloseFrame { code, reason: reason.into() };
    let goodbye = async {
        if socket.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = socket.recv().await {}
        }
    };
    // Whoever does not answer the goodbye is gone anyway.
    let _ = timeout(Duration::from_secs(1), goodbye).await;
}

/// Tells a gateway that was removed while it was away.
pub(super) async fn farewell(mut socket: WebSocket) {
    if send(&mut socket, &WatchEvent::Removed).await.is_ok() {
        close(&mut socket, GOING_AWAY, "removed").await;
    }
}
