//! One attached gateway: the task that owns its socket.
//!
//! [`serve`] admits, attaches, runs until something ends the link, detaches and says goodbye. While it runs, reading and
//! writing are two futures of the same task, so that neither waits for the other: a gateway that reads slowly fills its own queue and
//! loses datagrams, nothing else.
//!
//! Over its rate, a gateway loses the frame and is not read for a moment: the loss tells its congestion control, the pause keeps
//! the flood out of the relay's CPU and lets TCP push back.

mod incoming;
mod outgoing;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Bytes,
    extract::ws::{Message, WebSocket},
};
use futures_util::{SinkExt, StreamExt};
use gateway_net::time;
use gateway_proto::{
    relay::{Admission, RefusalCode, RelayAddress, RelayFrame},
    twice::Instance,
};
use tokio::{sync::mpsc, time::timeout};
use tracing::Instrument;

use self::incoming::Incoming;
use crate::{
    admission::admit,
    app::Shared,
    budget::Budget,
    clients::{Attached, Front},
    metrics::EndReason,
    outbound::{OutboundReceiver, outbound},
};

/// Frames of the relay itself waiting to be written: pongs, pings and hints. All may be lost.
const CONTROL_QUEUE: usize = 16;
/// For the last words to a gateway that may not be reading any more.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The gateway closed.
    Left,
    /// The connection broke.
    Broken,
    /// No sign of life for three heartbeats.
    Silent,
    /// No proof in time.
    AdmissionTimeout,
    /// The relay stops.
    Shutdown,
    /// The gateway is told this code.
    Refused(RefusalCode),
}

/// The whole life of a link.
pub(crate) async fn serve(
    mut socket: WebSocket,
    observed: SocketAddr,
    instance: Option<Instance>,
    shared: Arc<Shared>,
) {
    let admission = tokio::select! {
        result = timeout(shared.config.timing.admission, admit(&mut socket, &shared)) => {
            result.unwrap_or(Err(End::AdmissionTimeout))
        }
        () = shared.close.cancelled() => Err(End::Shutdown),
    };
    let (socket, end) = match admission {
        Ok(admission) => {
            let span = tracing::info_span!("client", key = %admission.key.short());
            run(socket, observed, instance, admission, &shared).instrument(span).await
        }
        Err(end) => {
            tracing::debug!(?end, %observed, "not admitted");
            (socket, end)
        }
    };
    shared.metrics.ended(end.reason());
    goodbye(socket, end).await;
}

async fn run(
    mut socket: WebSocket,
    observed: SocketAddr,
    instance: Option<Instance>,
    admission: Admission,
    shared: &Shared,
) -> (WebSocket, End) {
    let (limits, now, address) = (&shared.config.limits, Instant::now(), RelayAddress::from(admission.key));
    // Before anything of the one that is there is touched.
    if !shared.clients.admits(address, instance) {
        return (socket, End::Refused(RefusalCode::RunsTwice));
    }
    let replaces = shared.clients.find(address).is_some();
    let Ok(quota) = shared.organizations.join(admission.organization, replaces, limits, now) else {
        return (socket, End::Refused(RefusalCode::Busy));
    };
    let budget = Arc::new(Budget::new(limits, quota, now));
    let (outbound, queues) = outbound(limits);
    let (control, control_out) = mpsc::channel(CONTROL_QUEUE);
    let session = shared.udp.offered().map(|port| shared.sessions.open(address, budget.clone(), control.clone(), port));
    let (udp, offer) = session.unzip();
    let result = match shared.clients.attach(address, instance, Front { outbound, udp: udp.clone() }) {
        Ok(attached) => {
            shared.metrics.attached.inc();
            tracing::info!("gateway attached");
            // Whoever is told "admitted" can be reached already.
            let admitted = RelayFrame::Admitted {
                observed: SocketAddr::new(observed.ip().to_canonical(), observed.port()),
                heartbeat_ms: u32::try_from(shared.config.timing.heartbeat.as_millis()).unwrap_or(u32::MAX),
                bytes_per_second: limits.client_bytes_per_second.map_or(0, u64::from),
            };
            let incoming = Incoming { source: address, control, shared, budget, udp: udp.clone() };
            let first = [Some(admitted.encode()), offer];
            let (socket, end) = match timeout(GOODBYE_TIMEOUT, send_all(&mut socket, first)).await {
                Ok(Ok(())) => exchange(socket, &attached, &admission, incoming, queues, control_out).await,
                Ok(Err(_)) | Err(_) => (socket, End::Broken),
            };
            shared.clients.detach(&attached);
            tracing::info!(?end, "gateway detached");
            (socket, end)
        }
        Err(_) => (socket, End::Refused(RefusalCode::Busy)),
    };
    if let Some(session) = udp {
        shared.sessions.close(&session);
    }
    result
}

async fn send_all(socket: &mut WebSocket, frames: [Option<Vec<u8>>; 2]) -> Result<(), axum::Error> {
    for frame in frames.into_iter().flatten() {
        socket.send(Message::binary(frame)).await?;
    }
    Ok(())
}

async fn exchange(
    socket: WebSocket,
    attached: &Attached,
    admission: &Admission,
    incoming: Incoming<'_>,
    queues: OutboundReceiver,
    control: mpsc::Receiver<Bytes>,
) -> (WebSocket, End) {
    let shared = incoming.shared;
    let (mut sink, mut stream) = socket.split();
    let token_left = Duration::from_secs(admission.expires_at.saturating_sub(time::unix_secs()));
    let link_left = token_left.saturating_add(shared.config.timing.expired_link_grace).min(MAX_LINK_AGE);
    let end = tokio::select! {
        biased;
        () = attached.replaced.cancelled() => End::Refused(RefusalCode::Replaced),
        () = shared.close.cancelled() => End::Shutdown,
        end = incoming.run(&mut stream) => end,
        end = outgoing::run(&mut sink, queues, control, shared) => end,
        () = tokio::time::sleep(link_left) => End::Refused(RefusalCode::Expired),
    };
    let socket = stream.reunite(sink).expect("invariant: both halves are of the socket split above");
    (socket, end)
}

/// No timer needs to reach further; the signed end of a token may lie anywhere.
const MAX_LINK_AGE: Duration = Duration::from_secs(60 * 24 * 3600);

/// The reason, if there is one to tell, and the close frame.
async fn goodbye(mut socket: WebSocket, end: End) {
    let last_words = async {
        if let End::Refused(code) = end {
            let detail = code.to_string();
            socket.send(Message::binary(RelayFrame::Refused { code, detail: &detail }.encode())).await?;
        }
        socket.close().await
    };
    // A gateway that does not read them misses them.
    let _ = timeout(GOODBYE_TIMEOUT, last_words).await;
}

impl End {
    fn reason(self) -> EndReason {
        match self {
            Self::Left => EndReason::Left,
            Self::Broken => EndReason::Broken,
            Self::Silent => EndReason::Silent,
            Self::AdmissionTimeout => EndReason::AdmissionTimeout,
            Self::Shutdown => EndReason::Shutdown,
            Self::Refused(code) => match code {
                RefusalCode::Malformed => EndReason::Malformed,
                RefusalCode::BadToken => EndReason::BadToken,
                RefusalCode::Expired => EndReason::Expired,
                RefusalCode::WrongRelay => EndReason::WrongRelay,
                RefusalCode::BadProof => EndReason::BadProof,
                RefusalCode::Busy => EndReason::Busy,
                RefusalCode::Replaced => EndReason::Replaced,
                RefusalCode::RunsTwice => EndReason::RunsTwice,
                RefusalCode::RateLimited | RefusalCode::UnsupportedVersion | RefusalCode::Other(_) => EndReason::Other,
            },
        }
    }
}
