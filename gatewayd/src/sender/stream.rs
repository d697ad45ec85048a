//! One connection of our engine: a stream for it within the hold, then the splice, and what became of it.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use gateway_net::causes::with_causes;
use gateway_proto::{
    audit::note::{OurReason, RefusedBy, StreamKey},
    stream::{RefusalCode, StreamHeader, StreamKind},
};
use quinn::RecvStream;
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use tracing::{Level, debug, enabled, info};

use crate::{
    audit::{StreamRecord, say_of},
    config::MAX_HOLD,
    engine::EngineWatch,
    engine_socket::EngineSocket,
    gate::Permit,
    observer::{Observer, Unobserved},
    peer::Peer,
    send_half::SendHalf,
    splice::{Opening, SpliceContext, SpliceError, splice},
    traffic::{Failure, Role, Traffic, WaitFor},
    tunnel::Tunnel,
};

/// The answer to a stream is waited for so much longer than a tunnel is held for: the far gateway may have taken the stream at the
/// last moment, and what its engine has must not be refused here.
const ANSWER_GRACE: Duration = Duration::from_millis(1500);

/// One accepted socket on its way through the tunnel.
pub(super) struct OutboundStream {
    pub(super) permit: Permit,
    pub(super) peer: Arc<Peer>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) unobserved: Unobserved,
    pub(super) record: Box<StreamRecord>,
    pub(super) hold: Duration,
    pub(super) trace: u64,
}

/// Why an accepted socket got no stream.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("no tunnel to the partner's gateway within {0:?}; the partner is offline or no path works")]
    NoTunnel(Duration),
    #[error("the tunnel to the partner was lost")]
    TunnelLost,
    #[error("the tunnel to the partner has no place for another stream")]
    NoPlace,
    #[error("the engine closed its connection while it waited")]
    EngineGone,
    #[error("the connection is no longer allowed")]
    NotAllowed,
}

impl OpenError {
    fn record(&self, record: &StreamRecord) {
        match self {
            Self::NoTunnel(_) => record.refused(RefusedBy::Us, OurReason::NoTunnel),
            Self::TunnelLost => record.refused(RefusedBy::Us, OurReason::TunnelLost),
            Self::NoPlace => record.refused(RefusedBy::Us, OurReason::NoAnswer),
            Self::EngineGone => record.refused(RefusedBy::Us, OurReason::GaveUp),
            Self::NotAllowed => record.refused(RefusedBy::Us, RefusalCode::NotAllowed),
        }
    }
}

impl OutboundStream {
    pub(super) async fn run(self, socket: EngineSocket) {
        let name = self.record.key();
        let _open = self.peer.stream_opened();
        let answer_by = Instant::now() + answer_limit(self.hold);
        let opened = tokio::select! {
            () = self.permit.allowed.cancelled() => Err(OpenError::NotAllowed),
            () = socket.gone() => Err(OpenError::EngineGone),
            opened = self.open(answer_by) => opened,
        };
        // On an error the socket is dropped here, and so reset.
        let (send, recv) = match opened {
            Ok(halves) => halves,
            Err(error) => {
                error.record(&self.record);
                return no_stream(name, &self.traffic, &error);
            }
        };
        let context = SpliceContext {
            traffic: self.traffic.clone(),
            observer: Observer::of(self.traffic.clone(), Role::Sender, &self.permit.entry, &self.unobserved, false),
            record: self.record,
            allowed: self.permit.allowed.clone(),
            opening: Opening::AnsweredBy(answer_by),
            engine_says: EngineWatch::none(),
            limits: self.permit.entry.limits,
        };
        match splice(socket, send, recv, context).await {
            Ok(()) => {
                self.traffic.finished.fetch_add(1, Relaxed);
                if enabled!(Level::DEBUG) {
                    say_of(name, || debug!("stream finished"));
                }
            }
            Err(error @ (SpliceError::Refused(_) | SpliceError::ListenerFull(_) | SpliceError::NoAnswer)) => {
                no_stream(name, &self.traffic, &error)
            }
            Err(error) => {
                self.traffic.reset.fetch_add(1, Relaxed);
                self.traffic.note_problem(error.to_string());
                if let Some(failures) = self.traffic.tell(Failure::Reset) {
                    say_of(name, || info!(%error, failures, "the engine's connection was reset"));
                }
            }
        }
    }

    /// Opens the stream and sends its header; the answer is the splice's to read, behind our engine's first bytes.
    async fn open(&self, answer_by: Instant) -> Result<(SendHalf, RecvStream), OpenError> {
        let waiting = self.traffic.wait(WaitFor::Tunnel, Instant::now() + self.hold);
        let tunnel = timeout(self.hold, tunnel_up(self.peer.tunnel.subscribe()))
            .await
            .map_err(|_| OpenError::NoTunnel(self.hold))?;
        drop(waiting);
        // The header too waits for room, where the far gateway takes nothing.
        timeout_at(answer_by, self.begin(&tunnel)).await.map_err(|_| OpenError::NoPlace)?
    }

    async fn begin(&self, tunnel: &Tunnel) -> Result<(SendHalf, RecvStream), OpenError> {
        let (send, recv) = tunnel.connection().open_bi().await.map_err(|_| OpenError::TunnelLost)?;
        let mut send = SendHalf::new(send, tunnel);
        let id = self.permit.entry.id;
        let exporter = tunnel.exporter(id).ok_or(OpenError::TunnelLost)?;
        let secret = self.permit.secret().ok_or(OpenError::NotAllowed)?;
        let header = StreamHeader { kind: StreamKind::ChannelData, connection: id, trace: self.trace };
        send.write_all(&header.encode(secret, &exporter)).await.map_err(|_| OpenError::TunnelLost)?;
        Ok((send, recv))
    }
}

/// How long after its engine connected a stream must be answered: the engine sees our reset soon after the hold, and in any case
/// before its own timeout.
fn answer_limit(hold: Duration) -> Duration {
    (hold + ANSWER_GRACE).min(MAX_HOLD)
}

fn no_stream(name: StreamKey, traffic: &Traffic, error: &(dyn std::error::Error + 'static)) {
    traffic.refused.fetch_add(1, Relaxed);
    traffic.note_problem(with_causes(error));
    if let Some(failures) = traffic.tell(Failure::NoStream) {
        say_of(name, || info!(reason = with_causes(error), failures, "the engine's connection was reset: no stream"));
    }
}

/// The tunnel in use, as soon as there is one.
pub(crate) async fn tunnel_up(mut tunnel: watch::Receiver<Option<Tunnel>>) -> Tunnel {
    loop {
        if let Ok(up) = tunnel.wait_for(Option::is_some).await
            && let Some(tunnel) = &*up
        {
            return tunnel.clone();
        }
        // The peer was removed; the permission ends with it and takes this stream along.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_waited_for_a_little_longer_than_the_hold_and_never_longer_than_an_engine_waits() {
        let limits = [0, 1000, 3000, 4500].map(|hold| answer_limit(Duration::from_millis(hold)).as_millis());
        assert_eq!(limits, [1500, 2500, 4500, 4500]);
    }
}
