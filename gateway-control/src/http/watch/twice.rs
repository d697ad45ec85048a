//! What a watch does when another process of its gateway comes: it asks whether this one lives, and tells it of the other.

use axum::extract::ws::{Message, WebSocket};
use gateway_proto::{
    api::gateway::WatchEvent,
    twice::{RunsTwice, Seat},
};
use tokio::time::timeout;

use super::{End, SILENCE, Watch, close, end::GOING_AWAY, send};
use crate::service::told_first;

impl Watch {
    /// Asks for a sign of life that nothing can hold that was sent before.
    pub(super) async fn ask_for_life(&mut self, socket: &mut WebSocket) -> Result<(), End> {
        let number = *self.session.asked.borrow_and_update();
        let question = Message::Ping(number.to_be_bytes().to_vec().into());
        match timeout(SILENCE, socket.send(question)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Lost),
        }
    }

    /// The gateway answers.
    pub(super) fn answered(&self, answer: &[u8]) {
        if let Ok(number) = answer.try_into() {
            self.session.answered(u64::from_be_bytes(number));
        }
    }

    /// Tells the gateway of another process with its key, whenever that was refused again.
    pub(super) async fn tell_of_second(&mut self, seat: &Seat, socket: &mut WebSocket) -> Result<(), End> {
        let Some(instance) = self.instance else { return Ok(()) };
        let now = self.app.service.clock().unix_secs();
        self.stands_in = seat.is_held_by(instance) && seat.stands_in(now);
        let Some(told) = told_first(seat, instance, now).filter(|told| told.at > self.told_of_second) else {
            return Ok(());
        };
        self.told_of_second = told.at;
        send(socket, &WatchEvent::RunsTwice(told)).await
    }
}

/// Tells a second process that it is one.
pub(super) async fn refuse(mut socket: WebSocket, told: RunsTwice) {
    if send(&mut socket, &WatchEvent::RunsTwice(told)).await.is_ok() {
        close(&mut socket, GOING_AWAY, "another process with the same key holds the place").await;
    }
}
