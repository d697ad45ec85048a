//! Whether a stream is admitted: its header, and the policy in force.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use gateway_proto::{
    audit::note::{OurReason, Reason, Refusal, StreamRole},
    id::ConnectionId,
    identity::GatewayPublicKey,
    policy::{DeniedReason, LocalEnd},
    stream::{HEADER_LEN, HeaderError, RefusalCode, StreamHeader, StreamKind},
};
use quinn::RecvStream;
use tracing::info;

use super::ListenerContext;
use crate::{
    admin::owner::OwnerEnd,
    gate::Permit,
    peer::Peer,
    traffic::{Failure, Role, StreamGuard, Traffic},
    tunnel::Tunnel,
};

/// A stream that was admitted.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) permit: Permit,
    pub(super) destination: Destination,
    pub(super) traffic: Arc<Traffic>,
    pub(super) trace: u64,
    pub(super) guard: StreamGuard,
}

/// Where it goes.
#[derive(Debug)]
pub(super) enum Destination {
    Engine(SocketAddr),
    Admin(OwnerEnd),
}

/// Why a stream is not admitted: what its peer is told, and what is recorded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Denied {
    pub(super) code: RefusalCode,
    reason: Reason,
    /// The connection it names, if our policy has it, and the stream's trace.
    named: Option<(ConnectionId, StreamRole, u64)>,
}

impl Denied {
    pub(super) fn nameless(reason: impl Into<Reason>) -> Self {
        Self { code: RefusalCode::Malformed, reason: reason.into(), named: None }
    }

    pub(super) fn refusal(self, peer: GatewayPublicKey) -> Refusal {
        let connection = self.named.map(|(id, role, _)| (id, role));
        let trace = self.named.map_or(0, |(_, _, trace)| trace);
        Refusal { peer: Some(peer), connection, trace, ..Refusal::of_stream(self.reason) }
    }
}

/// Everything that must be true before the engine is dialled. What a stranger to the connection gets wrong, whatever
/// it is, is answered by one code, so that nothing about other connections can be learned.
pub(super) async fn admit(
    tunnel: &Tunnel,
    peer: &Peer,
    context: &ListenerContext,
    recv: &mut RecvStream,
) -> Result<Admitted, Denied> {
    let mut bytes = [0; HEADER_LEN];
    recv.read_exact(&mut bytes).await.map_err(|_| Denied::nameless(OurReason::NoHeader))?;
    let header = StreamHeader::decode(&bytes).map_err(|error| match error {
        HeaderError::Version(_) => {
            let code = RefusalCode::UnsupportedVersion;
            Denied { code, ..Denied::nameless(code) }
        }
        HeaderError::Malformed => Denied::nameless(RefusalCode::Malformed),
    })?;
    let view = context.authority.view();
    let listed = view.connection(header.connection, false);
    let role = match listed.map(|entry| entry.kind.is_admin()) {
        Some(true) => StreamRole::AdminOwner,
        Some(false) | None => StreamRole::Listener,
    };
    let named = listed.map(|_| (header.connection, role, header.trace));
    let told = |code: RefusalCode| Denied { code, reason: code.into(), named };
    let ours = |reason: OurReason| Denied { code: RefusalCode::NotAllowed, reason: reason.into(), named };
    if context.closing.is_cancelled() {
        return Err(told(RefusalCode::ShuttingDown));
    }
    let entry = listed.filter(|entry| entry.peer == peer.key).ok_or_else(|| ours(OurReason::UnknownConnection))?;
    let exporter = tunnel.exporter(header.connection).ok_or_else(|| ours(OurReason::TunnelLost))?;
    let traffic = context.traffic.of(header.connection, Role::Listener);
    if !StreamHeader::verify(&bytes, entry.valid_secrets(context.authority.now()), &exporter) {
        if let Some(failures) = traffic.tell(Failure::Refused) {
            info!(peer = %peer.key.short(), connection = %header.connection, failures, "stream header with a wrong MAC refused");
        }
        return Err(ours(OurReason::WrongSecret));
    }
    let denied = |reason: DeniedReason| {
        traffic.refused.fetch_add(1, Relaxed);
        if let Some(failures) = traffic.tell(Failure::Refused) {
            info!(connection = %header.connection, %reason, failures, "stream refused");
        }
        told(reason.into())
    };
    let permit = context.gate.enter(header.connection, Role::Listener).map_err(denied)?;
    let destination = match (&permit.entry.local, header.kind) {
        (LocalEnd::Listener { engine, .. }, StreamKind::ChannelData) => Destination::Engine(*engine),
        (LocalEnd::AdminOwner, StreamKind::Admin) => {
            let Some(owner) = &context.admin else {
                traffic.refused.fetch_add(1, Relaxed);
                traffic.note_problem("our engine's admin API is not configured: set api in the section [engine]");
                return Err(told(RefusalCode::AdminUnavailable));
            };
            Destination::Admin(owner.clone())
        }
        (LocalEnd::Listener { .. }, StreamKind::Admin)
        | (LocalEnd::AdminOwner, StreamKind::ChannelData)
        | (LocalEnd::Sender { .. } | LocalEnd::AdminUser { .. }, _) => return Err(told(RefusalCode::WrongDirection)),
    };
    let Some(guard) = traffic.open_stream(permit.entry.max_streams) else {
        traffic.refused.fetch_add(1, Relaxed);
        traffic.note_problem(format!("the limit of {} open streams is reached", permit.entry.max_streams));
        return Err(told(RefusalCode::TooManyStreams));
    };
    Ok(Admitted { permit, destination, traffic, trace: header.trace, guard })
}
