//! What a gateway is sent: our own frames first, then signals, then datagrams, written in batches.

use axum::{
    body::Bytes,
    extract::ws::{Message, WebSocket},
};
use futures_util::{SinkExt, stream::SplitSink};
use gateway_proto::relay::RelayFrame;
use tokio::sync::mpsc;

use super::End;
use crate::{app::Shared, outbound::OutboundReceiver};

/// Frames written before the socket is flushed: few enough that none waits long.
const BATCH: usize = 32;

/// Writes until the connection breaks.
pub(super) async fn run(
    sink: &mut SplitSink<WebSocket, Message>,
    mut queues: OutboundReceiver,
    mut control: mpsc::Receiver<Bytes>,
    shared: &Shared,
) -> End {
    let mut told_restart = false;
    loop {
        let frame = tokio::select! {
            biased;
            Some(frame) = control.recv() => frame,
            () = shared.draining.cancelled(), if !told_restart => {
                told_restart = true;
                restarting(shared)
            }
            frame = queues.next() => frame,
        };
        if write(sink, frame, &mut queues).await.is_err() {
            return End::Broken;
        }
    }
}

async fn write(
    sink: &mut SplitSink<WebSocket, Message>,
    first: Bytes,
    queues: &mut OutboundReceiver,
) -> Result<(), axum::Error> {
    sink.feed(Message::Binary(first)).await?;
    for _ in 1..BATCH {
        let Some(frame) = queues.try_next() else {
            break;
        };
        sink.feed(Message::Binary(frame)).await?;
    }
    sink.flush().await
}

/// Gateways come back at different moments, or the successor gets all of them at once.
fn restarting(shared: &Shared) -> Bytes {
    let grace = u64::try_from(shared.config.timing.drain_grace.as_millis()).unwrap_or(u64::MAX).max(1000);
    let jitter = u64::from(gateway_net::random_u32()) % grace;
    let reconnect_after_ms = u32::try_from(jitter).unwrap_or(u32::MAX);
    RelayFrame::Restarting { reconnect_after_ms }.encode().into()
}
