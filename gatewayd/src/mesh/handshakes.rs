//! Tunnels that peers dial: who may, and whether it was the peer.

use gateway_proto::{
    audit::note::{OurReason, Refusal},
    identity::GatewayPublicKey,
    relay::RelayAddress,
};
use quinn::{Connecting, Connection, ConnectionError, Incoming, VarInt};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::Mesh;
use crate::{audit::AuditLog, credentials, keeper::HANDSHAKE_TIMEOUT};

/// Handshakes under way that one peer dialled: one that hangs, and the next.
pub(super) const PEER_HANDSHAKES: usize = 2;

impl Mesh {
    /// Lets a known peer go on with its handshake.
    pub(super) fn answer(&mut self, incoming: Incoming) {
        let Some(key) = self.context.routes.peer(&incoming.remote_address()) else { return incoming.ignore() };
        let Some(running) = self.peers.get(&key.into()) else {
            // Not proved: whoever it is uses this gateway's address.
            self.refused(Refusal::of_tunnel(OurReason::UnknownGateway, Some(key)));
            return incoming.ignore();
        };
        let Ok(place) = running.handshakes.clone().try_acquire_owned() else {
            self.refused(Refusal::of_tunnel(OurReason::TooManyHandshakes, Some(key)));
            return incoming.refuse();
        };
        let Ok(connecting) = self.context.endpoint.answer(incoming, &running.peer.path_epoch) else { return };
        let audit = self.context.listener.audit.clone();
        self.handshakes.spawn(async move {
            let _place = place;
            shake(key, connecting, &audit).await
        });
    }
}

/// The tunnel, if it was this peer that dialled it.
async fn shake(key: GatewayPublicKey, connecting: Connecting, audit: &AuditLog) -> Option<(RelayAddress, Connection)> {
    let Ok(shaken) = timeout(HANDSHAKE_TIMEOUT, connecting).await else {
        debug!(peer = %key.short(), "handshake takes too long");
        return None;
    };
    match shaken {
        Ok(connection) if credentials::proved_key(&connection) == Some(key) => Some((key.into(), connection)),
        Ok(connection) => {
            warn!(peer = %key.short(), "a peer used another peer's address");
            audit.refused(Refusal::of_tunnel(OurReason::WrongKey, credentials::proved_key(&connection)));
            connection.close(VarInt::from_u32(0), b"wrong key");
            None
        }
        Err(error) => {
            // What TLS does not accept is a key that is not allowed, or no proof of it.
            if matches!(error, ConnectionError::TransportError(_)) {
                audit.refused(Refusal::of_tunnel(OurReason::WrongKey, Some(key)));
            }
            debug!(peer = %key.short(), %error, "handshake failed");
            None
        }
    }
}
