//! What a watch sends when something is new: the policy, how its key follows from the one before, and the relay token.

use std::time::Duration;

use axum::extract::ws::WebSocket;
use gateway_proto::{api::gateway::WatchEvent, identity::GatewayPublicKey, signed::Envelope};
use tokio::time::Instant;

use super::{End, HEARTBEAT_LATEST, Watch, send, unless_busy};
use crate::service::{Service, ServiceResult};

impl Watch {
    /// Sends what is new. Without the database at the moment, the link stays, and the next heartbeat tries again.
    pub(super) async fn catch_up(&mut self, socket: &mut WebSocket) -> Result<(), End> {
        let known = (self.relays.clone(), self.knows);
        self.send_newest(socket).await?;
        // What another key signed, relays may soon refuse.
        if (&self.relays, self.knows) != (&known.0, known.1) {
            self.send_token(socket).await?;
        }
        Ok(())
    }

    /// Sends the newest policy if it is newer than what the gateway has.
    pub(super) async fn send_newest(&mut self, socket: &mut WebSocket) -> Result<(), End> {
        self.behind = true;
        let Some(newest) = unless_busy(self.app.service.newest_policy(&self.caller).await)? else { return Ok(()) };
        let newest = newest.ok_or(End::Removed)?;
        let key = newest.envelope.key;
        let is_newer = newest.revision > self.revision;
        let links = if is_newer { links(&self.app.service, self.knows, key).await } else { Ok(Vec::new()) };
        let Some(links) = unless_busy(links)? else { return Ok(()) };
        self.behind = false;
        self.session.retain(&newest.connections);
        self.connections = newest.connections;
        self.relays = newest.relays;
        self.revision = newest.revision;
        self.session.read(newest.revision);
        self.tell_of_second(&newest.seat, socket).await?;
        if !is_newer {
            return Ok(());
        }
        self.knows = key;
        if !links.is_empty() {
            send(socket, &WatchEvent::Succession { links }).await?;
        }
        // On what was sent and is not confirmed nothing is built: it may have been refused.
        let delta = newest.delta.filter(|delta| self.takes_deltas && delta.from == self.in_force);
        self.app.metrics.policy_sent(delta.is_some());
        let event = match delta {
            Some(delta) => WatchEvent::Delta { delta },
            None => WatchEvent::Policy { policy: newest.envelope },
        };
        send(socket, &event).await?;
        Ok(())
    }

    pub(super) async fn send_token(&mut self, socket: &mut WebSocket) -> Result<(), End> {
        let Some(token) = unless_busy(self.app.service.new_relay_token(&self.caller).await)? else {
            // The one it has is good for as long again: half of its time is left.
            self.token_due = Instant::now() + HEARTBEAT_LATEST;
            return Ok(());
        };
        let token = token.ok_or(End::Removed)?;
        self.token_due = Instant::now() + Duration::from_secs(self.app.service.relay_token_secs()) / 2;
        send(socket, &WatchEvent::RelayToken { token }).await
    }
}

/// How the key that signed the next policy follows from one that the gateway knows.
async fn links(service: &Service, knows: GatewayPublicKey, key: GatewayPublicKey) -> ServiceResult<Vec<Envelope>> {
    if knows == key {
        return Ok(Vec::new());
    }
    service.links_from(&knows).await
}
