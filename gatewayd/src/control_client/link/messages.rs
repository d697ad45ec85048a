//! What goes out over the link and what comes in, one message at a time.

use std::time::Duration;

use futures_util::{SinkExt, stream::SplitSink};
use gateway_net::ws::{Message, WsStream, WsStreamError};
use gateway_proto::{
    api::gateway::{Report, WatchEvent, WatchRequest},
    audit::heads::HeadReport,
};
use tokio::{sync::mpsc, time::timeout};

use super::{super::end::LinkEnd, OUTBOX};

/// Reports take half of the outbox at most, so that a heartbeat, or what became of a policy, always finds room. The first of a
/// round takes the head of the audit log along.
pub(super) struct Outgoing<'a> {
    pub(super) outbox: &'a mpsc::Sender<WatchRequest>,
    pub(super) audit: Option<HeadReport>,
    pub(super) told: Option<HeadReport>,
}

impl Outgoing<'_> {
    pub(super) fn push(&mut self, report: Report) -> bool {
        let report = Report { audit: self.audit.clone().map(Box::new), ..report };
        let has_room = self.outbox.capacity() > OUTBOX / 2;
        let is_taken = has_room && self.outbox.try_send(WatchRequest::Report(report)).is_ok();
        if is_taken && let Some(audit) = self.audit.take() {
            self.told = Some(audit);
        }
        is_taken
    }
}

pub(super) async fn write(
    mut sink: SplitSink<WsStream, Message>,
    mut queue: mpsc::Receiver<WatchRequest>,
    limit: Duration,
) -> LinkEnd {
    while let Some(request) = queue.recv().await {
        let text = match serde_json::to_string(&request) {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(%error, "a message to the control plane cannot be written as JSON");
                continue;
            }
        };
        match timeout(limit, sink.send(Message::text(text))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return LinkEnd::Broken(error),
            Err(_) => return LinkEnd::Stuck,
        }
    }
    // It was all that we had to say: the control plane reads it before the end.
    let _ = timeout(limit, sink.close()).await;
    LinkEnd::Closed(None)
}

pub(super) fn push(outbox: &mpsc::Sender<WatchRequest>, request: WatchRequest) -> Result<(), LinkEnd> {
    outbox.try_send(request).map_err(|_| LinkEnd::Stuck)
}

/// `Ok(None)`: a sign of life without content, or content of a newer version.
pub(super) fn parse(message: Option<Result<Message, WsStreamError>>) -> Result<Option<WatchEvent>, LinkEnd> {
    match message {
        None => Err(LinkEnd::Closed(None)),
        Some(Ok(Message::Close(frame))) => {
            let reason = frame.map(|frame| frame.reason.chars().filter(|c| !c.is_control()).collect::<String>());
            Err(LinkEnd::Closed(reason.filter(|reason| !reason.is_empty())))
        }
        Some(Err(error)) => Err(LinkEnd::Broken(error)),
        Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
            Ok(event) => Ok(Some(event)),
            Err(error) => {
                // The position, not the text: a policy is full of secrets.
                tracing::warn!(
                    line = error.line(),
                    column = error.column(),
                    "an unknown message from the control plane"
                );
                Ok(None)
            }
        },
        Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(None),
    }
}
